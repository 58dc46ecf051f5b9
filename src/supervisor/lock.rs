//! The lock of the data directory: one agent at a time works on it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::SupervisorError;

/// How long the lock is waited for. A supervisor that was killed while it started a process leaves a child that has all
/// its open files, and so the lock and the listening sockets, until the child's `exec`, or until the child sees that its
/// parent is gone. On a busy machine that is some hundred milliseconds. An agent that is just ending is waited for as well.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile; `flock(2)` has no deadline of its own.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the data directory for this process, for as long as the file is open.
pub(super) fn take(data_dir: &Path) -> Result<File, SupervisorError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = data_dir.join("lock");
    let failed = |error| SupervisorError::Data { path: path.clone(), what: "locked", error };
    let mut file =
        // Root must not be led elsewhere by a link that the agent's user has put there.
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
    let waiting = || {
        let (data_dir, pid) = (data_dir.display(), holder(&file));
        tracing::warn!(%data_dir, %pid, "the data directory is still in use; waiting up to {PATIENCE:?} for its agent to end");
    };
    if !lock(&file, PATIENCE, waiting).map_err(failed)? {
        return Err(SupervisorError::Locked { data_dir: data_dir.to_owned(), pid: holder(&file) });
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    written.map_err(failed)?;
    Ok(file)
}

/// Locks the file as soon as nobody else does; false if somebody still does after `patience`. `waiting` is told once
/// that there is somebody.
fn lock(file: &File, patience: Duration, waiting: impl FnOnce()) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    let mut waiting = Some(waiting);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => {}
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whom the file names.
fn holder(mut file: &File) -> String {
    let mut pid = String::new();
    let read = file.rewind().and_then(|()| file.take(32).read_to_string(&mut pid));
    match pid.trim() {
        pid if read.is_ok() && !pid.is_empty() => pid.to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_up_meanwhile_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = take(dir.path()).expect("is free");
        let other = File::options().read(true).write(true).open(dir.path().join("lock")).expect("opens");
        assert_eq!(holder(&other), std::process::id().to_string());
        let taken = lock(&other, Duration::from_secs(60), || drop(held));
        assert!(taken.expect("no error"), "it was given up while it was waited for");
    }

    #[test]
    fn a_lock_that_is_kept_is_waited_for_no_longer_than_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = take(dir.path()).expect("is free");
        let other = File::options().read(true).write(true).open(dir.path().join("lock")).expect("opens");
        let mut told = 0;
        assert!(!lock(&other, Duration::ZERO, || told += 1).expect("no error"));
        assert!(!lock(&other, PAUSE, || told += 1).expect("no error"));
        assert_eq!(told, 1, "told once, and not without waiting");
    }
}
