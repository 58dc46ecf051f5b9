//! What is needed to clean up after a supervisor that was killed.
//!
//! `run/children.json` lists its processes, one on each line after the supervisor itself. They die with it
//! (`PR_SET_PDEATHSIG`), but what *they* had started lives on. The next supervisor ends it all before it binds or starts
//! anything.
//!
//! A process that is started is added at the end; one that has ended stays until the list is written anew, which does no
//! harm: start time and number together are never another's. Written without fsync: it only has to outlive the
//! supervisor, not the machine; after a crash of the machine the boot id differs and the list means nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::family::{self, Identity, Stat};
use crate::boot;

/// The first line: whose processes they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub boot_id: String,
    pub supervisor: Identity,
}

/// One of them, and each further line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// `None` for the controller and proxies.
    pub instance: Option<String>,
    #[serde(flatten)]
    pub process: Identity,
}

/// All of them must be gone after this long; SIGKILL takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of ended processes that are put up with before the list is written anew, besides as many as there are living ones.
const STALE: usize = 1024;

/// The list as it is written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Open at its end; `None` until it is written for the first time, and after a failure.
    file: Option<File>,
    lines: usize,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, lines: 0 }
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether one more can be added while so many live; otherwise it is to be written anew.
    pub(super) fn has_room(&self, living: usize) -> bool {
        self.file.is_some() && self.lines <= living.saturating_mul(2).saturating_add(STALE)
    }

    /// Adds a process that has been started.
    pub(super) fn add(&mut self, process: &Process) -> io::Result<()> {
        let line = line(process)?;
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let written = file.write_all(&line);
        if written.is_err() {
            // Half a line must not be followed by another.
            self.file = None;
        }
        self.lines += 1;
        written
    }

    /// Writes it anew.
    pub(super) fn write(&mut self, owner: &Owner, processes: impl Iterator<Item = Process>) -> io::Result<()> {
        self.file = None;
        let mut text = line(owner)?;
        self.lines = 0;
        for process in processes {
            text.extend(line(&process)?);
            self.lines += 1;
        }
        let temporary = self.path.with_extension("tmp");
        // The directory belongs to the agent's user: what lies there under this name is removed, never written through.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = fs::OpenOptions::new().append(true).create_new(true).open(&temporary)?;
        file.write_all(&text)?;
        fs::rename(&temporary, &self.path)?;
        self.file = Some(file);
        Ok(())
    }
}

fn line(of: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(of)?;
    text.push(b'\n');
    Ok(text)
}

/// The list as it was found.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    supervisor: Identity,
    processes: Vec<Process>,
}

impl Record {
    fn load(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let owner: Owner = serde_json::from_slice(lines.next()?).ok()?;
        // The last line may be half of one.
        let processes = lines.map_while(|line| serde_json::from_slice(line).ok()).collect();
        (owner.boot_id == boot::id()).then_some(Self { supervisor: owner.supervisor, processes })
    }

    /// Whether a living process was started by that supervisor, directly or through an instance.
    fn includes(&self, process: &Stat) -> bool {
        let is_leader = |recorded: &Process| recorded.process == process.identity;
        if self.processes.iter().any(is_leader) {
            return true;
        }
        let variable = |name| family::variable(process.identity.pid, name);
        let Some(instance) = variable(family::INSTANCE_VARIABLE) else { return false };
        // Two agents may run instances of the same name.
        variable(family::SUPERVISOR_VARIABLE).as_deref() == Some(family::mark(self.supervisor).as_str())
            && self.processes.iter().any(|recorded| recorded.instance.as_deref() == Some(&instance))
    }
}

/// Ends whatever a killed supervisor left, by the record at `path`.
pub(super) fn clean_up(path: &Path) {
    let Some(record) = Record::load(path).filter(|record| !record.processes.is_empty()) else { return };
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    loop {
        let all = family::all();
        let leaders: Vec<i32> = record
            .processes
            .iter()
            .filter(|r| all.get(&r.process.pid).is_some_and(|p| p.identity == r.process))
            .map(|r| r.process.pid)
            .collect();
        // The session of a leader that still lives is surely its own; a dead leader's number may be another's.
        let left: Vec<_> =
            all.values().filter(|p| !p.zombie && (leaders.contains(&p.session) || record.includes(p))).collect();
        if left.is_empty() {
            break;
        }
        seen = seen.max(left.len());
        for process in left {
            family::signal(process.identity, Signal::SIGKILL);
        }
        if Instant::now() >= deadline {
            tracing::warn!("processes of the previous agent do not die; going on beside them");
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if seen > 0 {
        tracing::warn!(processes = seen, "ended what a killed agent had left running");
    }
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> Process {
        Process { instance: Some(format!("shop-{pid}")), process: Identity { pid, start_ticks: 1 } }
    }

    fn owner(boot_id: &str) -> Owner {
        Owner { boot_id: boot_id.to_owned(), supervisor: Identity { pid: 1, start_ticks: 1 } }
    }

    #[test]
    fn records_of_another_boot_mean_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("children.json");
        let mut journal = Journal::new(path.clone());
        journal.write(&owner("another"), [process(1)].into_iter()).expect("written");
        assert_eq!(Record::load(&path), None);
        journal.write(&owner(&boot::id()), [process(1)].into_iter()).expect("written");
        assert_eq!(Record::load(&path).expect("ours").processes, [process(1)]);
        fs::write(&path, "{").expect("torn");
        assert_eq!(Record::load(&path), None);
    }

    #[test]
    fn what_is_started_is_added_and_a_torn_line_costs_only_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("children.json");
        let mut journal = Journal::new(path.clone());
        assert!(!journal.has_room(0), "it is not written yet");
        assert!(journal.add(&process(2)).is_err());
        journal.write(&owner(&boot::id()), [process(1)].into_iter()).expect("written");
        for pid in 2..=5 {
            journal.add(&process(pid)).expect("added");
        }
        let all: Vec<Process> = (1..=5).map(process).collect();
        assert_eq!(Record::load(&path).expect("ours").processes, all);
        let text = fs::read(&path).expect("read");
        fs::write(&path, &text[..text.len() - 9]).expect("torn");
        assert_eq!(Record::load(&path).expect("ours").processes, all[..4]);
    }

    #[test]
    fn it_is_written_anew_before_the_ended_outnumber_the_living_by_far() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::new(directory.path().join("children.json"));
        journal.write(&owner("this"), std::iter::empty()).expect("written");
        let mut added = 0;
        while journal.has_room(10) {
            journal.add(&process(added)).expect("added");
            added += 1;
        }
        assert!((STALE..2 * STALE).contains(&journal.lines), "{}", journal.lines);
        journal.write(&owner("this"), (0..10).map(process)).expect("written");
        assert!(journal.has_room(10));
    }
}
