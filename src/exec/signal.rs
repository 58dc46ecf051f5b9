//! Sends a signal to a program that Landfall does not run: `landfall internal-signal`, as the user of the app that wants it.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver<'a> {
    /// The process whose number stands in this file.
    PidFile(&'a Path),
    /// The processes of this name, but not their children of the same name.
    Process(&'a str),
}

/// Sends the signal of that name (`HUP`). The error says who did not get it, and why.
pub fn send(name: &str, to: &Receiver<'_>) -> Result<(), String> {
    let signal: Signal = format!("SIG{name}").parse().map_err(|_| format!("there is no signal {name}"))?;
    let receivers = match to {
        Receiver::PidFile(path) => vec![from_file(path)?],
        Receiver::Process(name) => named(name)?,
    };
    for pid in receivers {
        kill(pid, signal).map_err(|errno| format!("process {pid} does not get SIG{name}: {}", errno.desc()))?;
    }
    Ok(())
}

fn from_file(path: &Path) -> Result<Pid, String> {
    let place = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
    match text.trim().parse::<i32>() {
        // 0 and below are whole groups.
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        Ok(_) | Err(_) => Err(format!("{place} does not hold the number of a process")),
    }
}

fn named(name: &str) -> Result<Vec<Pid>, String> {
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found: Vec<(i32, i32)> = numbers.filter_map(|pid| Some((pid, parent_if_named(pid, name)?))).collect();
    let topmost = found.iter().filter(|(_, parent)| !found.iter().any(|(other, _)| other == parent));
    let receivers: Vec<Pid> = topmost.map(|(pid, _)| Pid::from_raw(*pid)).collect();
    if receivers.is_empty() {
        return Err(format!(
            "no process is called {name}; in a pod the containers must share their processes (`shareProcessNamespace: true`)"
        ));
    }
    Ok(receivers)
}

/// The parent of a process, if it has this name: `/proc/<pid>/stat` is `pid (name) state parent …`.
fn parent_if_named(pid: i32, name: &str) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let called = before.split_once('(')?.1;
    // The kernel keeps 15 bytes of a name.
    let wanted = name.get(..15).unwrap_or(name);
    (called == wanted).then(|| after.split_whitespace().nth(1)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_gets_the_signal_by_its_number_or_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let sleep = fs::canonicalize("/bin/sleep").expect("sleep");
        let program = directory.path().join("lf-sleeper-x");
        fs::copy(sleep, &program).expect("a program of its own name");
        let file = directory.path().join("pid");
        let start = || Command::new(&program).arg("600").spawn().expect("it starts");
        let mut child = start();
        fs::write(&file, format!("{}\n", child.id())).expect("written");
        send("HUP", &Receiver::PidFile(&file)).expect("sent");
        let ended = child.wait().expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(1));
        let mut child = start();
        // The name is there once the program is.
        while send("USR1", &Receiver::Process("lf-sleeper-x")).is_err() {
            std::thread::yield_now();
        }
        let ended = child.wait().expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(10));
        assert!(send("USR1", &Receiver::Process("lf-sleeper-x")).expect_err("nobody").contains("no process"));
    }

    #[test]
    fn what_is_no_number_of_a_process_gets_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pid");
        for text in ["", "0", "-1", "x", "1 2"] {
            fs::write(&file, text).expect("written");
            assert!(send("HUP", &Receiver::PidFile(&file)).is_err(), "{text:?}");
        }
    }
}
