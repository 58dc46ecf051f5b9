//! Logins: finds the password that the configuration points at, anew for each look, so that a rotated token needs no
//! restart.
//!
//! Neighbours: `files::git` says where it is found, the HTTP transport sends it. Invariants: a password leaves this
//! module as a `Secret` only; what a password command prints is shown to nobody, whether it succeeds or fails; a command
//! ends with the look that started it.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::LookLimits;
use super::error::{SourceErrorKind, Trouble};
use crate::domain::Secret;
use crate::files::config::{Credentials, PasswordFrom};

/// Longer passwords are a mistake: a whole file of something else, a program that prints help.
const MAX_PASSWORD: u64 = 16 * 1024;

/// How soon the end of a look is noticed while a command runs, in milliseconds.
const NOTICE: u16 = 20;

/// User and password, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: Secret,
}

/// Looks the password up.
pub(crate) fn login(credentials: &Credentials, limits: &LookLimits) -> Result<Login, Trouble> {
    let (bytes, place) = match &credentials.password {
        PasswordFrom::File(path) => (from_file(path)?, format!("the password file {}", path.display())),
        PasswordFrom::Environment(name) => (from_environment(name)?, format!("the variable `{name}`")),
        PasswordFrom::Command(words) => {
            let program = words.first().map_or("", String::as_str);
            (from_command(words, limits)?, format!("what the password command `{program}` prints"))
        }
    };
    let password = checked(&bytes).map_err(|problem| {
        let mend = "it must hold the password or token and nothing else, as one line";
        unavailable(format!("{place} {problem}"), mend)
    })?;
    Ok(Login { username: credentials.username.clone(), password })
}

/// The password of a login that is not a repository's; an error says what is wrong with it, and the mend. A command may
/// take so long.
pub fn password_of(credentials: &Credentials, within: Duration) -> Result<Secret, String> {
    let limits = LookLimits { deadline: Instant::now() + within, cancel: Arc::default() };
    let found = login(credentials, &limits);
    found.map(|login| login.password).map_err(|trouble| format!("{}: {}", trouble.what, trouble.mend))
}

fn unavailable(what: impl Into<String>, mend: &str) -> Trouble {
    Trouble::new(SourceErrorKind::Credentials, what, mend)
}

/// The password without the line end that editors and `echo` leave.
fn checked(bytes: &[u8]) -> Result<Secret, &'static str> {
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err("is too long for a password");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("is empty");
    }
    if line.chars().any(char::is_control) { Err("has more than one line") } else { Ok(Secret::new(line)) }
}

fn from_file(path: &Path) -> Result<Vec<u8>, Trouble> {
    let failed = |error: std::io::Error| {
        let mend = "check the path, and that the agent's user may read it";
        unavailable(format!("the password file {} cannot be read: {error}", path.display()), mend)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_PASSWORD + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn from_environment(name: &str) -> Result<Vec<u8>, Trouble> {
    let value = std::env::var_os(name).ok_or_else(|| {
        let mend = "set it for the agent, or use `password_file`, which can change without a restart";
        unavailable(format!("the variable `{name}` is not set"), mend)
    })?;
    Ok(value.into_encoded_bytes())
}

fn from_command(words: &[String], limits: &LookLimits) -> Result<Vec<u8>, Trouble> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| unavailable("the password command is empty", "name a program"))?;
    let mend = "run it as the agent's user to see what it says; its output is never shown here";
    let failed = |what: String| unavailable(format!("the password command `{program}` {what}"), mend);
    // No shell, a process group of its own, and nothing of what it says reaches a log: an error message
    // of such a program may quote the secret.
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut running = Running(spawned.map_err(|error| failed(format!("cannot be started: {error}")))?);
    let output = running.output(limits)?;
    match running.0.wait() {
        Ok(status) if status.success() => Ok(output),
        Ok(status) => Err(failed(format!("failed: {status}"))),
        Err(error) => Err(failed(format!("cannot be waited for: {error}"))),
    }
}

/// A password command; dropped before its end, it is ended with all that it started.
struct Running(Child);

impl Running {
    /// All it prints until it ends. What it may have left running in the background is not waited for.
    fn output(&mut self, limits: &LookLimits) -> Result<Vec<u8>, Trouble> {
        let io = |error: std::io::Error| Trouble::io("reading what the password command prints", &error);
        let mut stdout = self.0.stdout.take().ok_or_else(|| unavailable("the password command has no output", ""))?;
        let mut output = Vec::new();
        loop {
            limits.check("running the password command")?;
            let ended = self.0.try_wait().map_err(io)?.is_some();
            let mut waiting = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            let ready = match poll(&mut waiting, if ended { 0 } else { NOTICE }) {
                Ok(count) => count > 0,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(io(error.into())),
            };
            let mut chunk = [0; 4096];
            let count = match ready.then(|| stdout.read(&mut chunk)) {
                Some(Ok(count)) => count,
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Some(Err(error)) => return Err(io(error)),
                None => 0,
            };
            output.extend_from_slice(&chunk[..count]);
            if output.len() as u64 > MAX_PASSWORD || (ended && count == 0) {
                return Ok(output);
            }
            if ready && count == 0 {
                // Closed its output but goes on: the poll above would return at once from now on.
                return self.ended(limits).map(|()| output);
            }
        }
    }

    fn ended(&mut self, limits: &LookLimits) -> Result<(), Trouble> {
        while self.0.try_wait().map_err(|error| Trouble::io("waiting for the password command", &error))?.is_none() {
            limits.check("running the password command")?;
            std::thread::sleep(std::time::Duration::from_millis(u64::from(NOTICE)));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // Not reaped yet, so the number is still its own.
        let group = i32::try_from(self.0.id()).map(Pid::from_raw);
        if let Ok(group) = group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    fn limits(time: Duration) -> LookLimits {
        LookLimits { deadline: Instant::now() + time, cancel: Arc::new(AtomicBool::new(false)) }
    }

    fn run(script: &str, limits: &LookLimits) -> Result<Login, Trouble> {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        login(&Credentials { username: "bot".into(), password: PasswordFrom::Command(command) }, limits)
    }

    fn soon(script: &str) -> Result<Login, Trouble> {
        run(script, &limits(Duration::from_secs(30)))
    }

    #[test]
    fn a_command_prints_the_password_and_only_its_line_end_is_dropped() {
        assert_eq!(soon("echo ' s3cret '").unwrap().password.expose(), " s3cret ");
        assert_eq!(soon("printf s3cret").unwrap().password.expose(), "s3cret");
        // Something it leaves behind holds the pipe open; nobody waits for that.
        let started = Instant::now();
        assert_eq!(soon("sleep 60 & echo s3cret").unwrap().password.expose(), "s3cret");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_a_failing_command_prints_is_not_shown() {
        for script in ["echo s3cret; echo s3cret >&2; exit 3", "echo s3cret; echo s3cret", "yes s3cret", "true"] {
            let trouble = soon(script).unwrap_err();
            assert_eq!(trouble.kind, SourceErrorKind::Credentials, "{script}");
            assert!(trouble.what.contains("`sh`"), "{}", trouble.what);
            assert!(!format!("{trouble:?}").contains("s3cret"), "{trouble:?}");
        }
        let missing = Credentials {
            username: "bot".into(),
            password: PasswordFrom::Command(vec!["/no/such/program".into(), "s3cret".into()]),
        };
        let trouble = login(&missing, &limits(Duration::from_secs(30))).unwrap_err();
        assert!(trouble.what.contains("/no/such/program") && !trouble.what.contains("s3cret"), "{}", trouble.what);
    }

    #[test]
    fn a_command_without_an_end_is_ended_with_its_children_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", pid.display());
        let trouble = run(&script, &limits(Duration::from_millis(500))).unwrap_err();
        assert_eq!(trouble.kind, SourceErrorKind::Timeout);
        assert!(trouble.what.contains("password command"), "{}", trouble.what);
        let child: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Whoever inherits it reaps it; until then it is a zombie, which answers signals.
        let gone = || std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(Instant::now() < deadline, "process {child} still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_command_can_be_cancelled() {
        let limits = limits(Duration::from_secs(60));
        let cancel = limits.cancel.clone();
        let waiting = std::thread::spawn(move || run("sleep 300", &limits));
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind, SourceErrorKind::Cancelled);
    }

    #[test]
    fn a_file_is_read_anew_and_must_hold_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let credentials = Credentials { username: "bot".into(), password: PasswordFrom::File(path.clone()) };
        let read = || login(&credentials, &limits(Duration::from_secs(30)));
        assert!(read().unwrap_err().what.contains("token cannot be read"));
        for (text, password) in [("one\n", "one"), ("two\r\n", "two"), ("three", "three")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read().unwrap().password.expose(), password);
        }
        for text in ["", "\n", "a\nb\n", "\u{7f}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read().unwrap_err().kind, SourceErrorKind::Credentials, "{text:?}");
        }
    }
}
