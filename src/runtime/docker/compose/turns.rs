//! Which of several processes has a project: the one of the version that comes, else the one of the version before.
//!
//! Three locks, which the kernel lets go of whenever their holder ends, however it ends: `turn` is held by whoever may
//! change the project, `next` by whoever waits for its turn, `standby` (shared) by whoever gave its turn to a newer
//! version and would take it back. Invariant: whoever lets go of `turn` for a newer one holds `standby` before.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// How often a lock is tried.
const AGAIN: Duration = Duration::from_millis(200);

/// A lock that is held; let go of with the value.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum Turn {
    /// Whoever asked has it, as long as this is kept; `None` where no process has ever looked after the project.
    Mine(Option<Held>),
    /// Some other process looks after the project, or would.
    Another,
}

/// The locks of one project.
#[derive(Debug)]
pub(super) struct Turns {
    turn: std::path::PathBuf,
    next: std::path::PathBuf,
    standby: std::path::PathBuf,
}

impl Turns {
    /// The locks in a directory, which is there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let at = |name: &str| directory.join(name);
        let turns = Self { turn: at("turn"), next: at("next"), standby: at("standby") };
        for path in [&turns.turn, &turns.next, &turns.standby] {
            open(path)?;
        }
        Ok(turns)
    }

    /// The turn if no process has it, waits for it or stands by. For the controller, which may not write where these are.
    pub(super) fn try_take(directory: &Path) -> io::Result<Turn> {
        let Some(turn) = existing(&directory.join("turn"))? else { return Ok(Turn::Mine(None)) };
        let Some(held) = lock(turn)? else { return Ok(Turn::Another) };
        for name in ["next", "standby"] {
            if let Some(file) = existing(&directory.join(name))?
                && lock(file)?.is_none()
            {
                return Ok(Turn::Another);
            }
        }
        Ok(Turn::Mine(Some(held)))
    }

    /// Takes the project over: from now on whoever has it is told, until it lets go. At most for so long.
    pub(super) async fn take(&self, longest: Duration) -> io::Result<Held> {
        let deadline = Instant::now() + longest;
        let mut next = None;
        loop {
            if next.is_none() {
                next = exclusive(&self.next)?;
            }
            if next.is_some()
                && let Some(turn) = exclusive(&self.turn)?
            {
                return Ok(turn);
            }
            if Instant::now() >= deadline {
                let words = format!("it did not let go within {} s", longest.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Ends when somebody waits for its turn. A lock that cannot be tried says nothing.
    pub(super) async fn wanted(&self) {
        loop {
            if matches!(exclusive(&self.next), Ok(None)) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Says that this process would take the project back.
    pub(super) fn stand_by(&self) -> io::Result<Held> {
        let file = open(&self.standby)?;
        file.lock_shared()?;
        Ok(Held { _file: file })
    }

    /// Whether somebody would take the project back.
    pub(super) fn somebody_stands_by(&self) -> bool {
        matches!(exclusive(&self.standby), Ok(None))
    }

    /// Ends, with the turn, when nobody has the project and nobody waits for it.
    pub(super) async fn when_free(&self) -> Held {
        loop {
            tokio::time::sleep(AGAIN).await;
            // `next` is tried only by whoever has `turn`, so that nobody who holds that takes this for a newer version.
            if let Ok(Some(turn)) = exclusive(&self.turn)
                && let Ok(Some(_)) = exclusive(&self.next)
            {
                return turn;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// A file of the apps' user, opened so that nothing else in its place can do harm. `None` if there is none.
fn existing(path: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The lock if nobody holds it.
fn exclusive(path: &Path) -> io::Result<Option<Held>> {
    lock(open(path)?)
}

fn lock(file: File) -> io::Result<Option<Held>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(Held { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_newer_one_takes_over_and_what_it_leaves_goes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, new) =
            (Turns::open(directory.path()).expect("opened"), Turns::open(directory.path()).expect("opened"));
        let first = old.take(SOON).await.expect("free");
        assert!(!new.somebody_stands_by());
        let yielding = async {
            old.wanted().await;
            let standing = old.stand_by().expect("locked");
            drop(first);
            standing
        };
        let (standing, second) = tokio::join!(yielding, new.take(SOON));
        let second = second.expect("let go of");
        assert!(new.somebody_stands_by());
        // While the newer one lives nothing goes back.
        assert!(tokio::time::timeout(AGAIN * 3, old.when_free()).await.is_err());
        drop(second);
        let _back = tokio::time::timeout(SOON, old.when_free()).await.expect("free again");
        drop(standing);
        assert!(!new.somebody_stands_by());
    }

    #[tokio::test]
    async fn nobody_takes_a_project_from_who_looks_after_it_or_stands_by() {
        let directory = tempfile::tempdir().expect("a directory");
        let mine = || match Turns::try_take(directory.path()).expect("asked") {
            Turn::Mine(held) => Some(held.is_some()),
            Turn::Another => None,
        };
        assert_eq!(mine(), Some(false), "nobody ever had it");
        let turns = Turns::open(directory.path()).expect("opened");
        assert_eq!(mine(), Some(true));
        let held = turns.take(SOON).await.expect("free");
        assert_eq!(mine(), None, "somebody has it");
        drop(held);
        let standing = turns.stand_by().expect("locked");
        assert_eq!(mine(), None, "somebody would have it back");
        drop(standing);
        assert_eq!(mine(), Some(true));
    }

    #[tokio::test]
    async fn one_that_does_not_let_go_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().expect("a directory");
        let turns = Turns::open(directory.path()).expect("opened");
        let _held = turns.take(SOON).await.expect("free");
        let error = turns.take(AGAIN).await.expect_err("held");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
