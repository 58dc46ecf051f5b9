//! Logs of instances that are no children of the supervisor: the controller brings their lines.
//!
//! One owner for all log files keeps them all below one limit, whoever writes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::instances::FLUSH;
use super::logs::{SavedLog, stays_below};
use super::root::Root;
use super::spawn::Refusal;

/// Most logs of others that are open at once.
const MOST: usize = 10_000;

impl Root {
    /// Appends lines to a log, opening it when it is not.
    pub(super) fn append(&mut self, path: PathBuf, lines: &str) -> Result<(), Refusal> {
        if !stays_below(&path) || !(lines.is_empty() || lines.ends_with('\n')) {
            let message = format!("{} is no log, or what is to be appended to it are no whole lines", path.display());
            return Err(Refusal::new("not_permitted", message));
        }
        if self.outside.len() >= MOST && !self.outside.contains_key(&path) {
            return Err(Refusal::new("io", format!("more than {MOST} logs are open")));
        }
        let logs = &mut self.logs;
        let log = self.outside.entry(path).or_insert_with_key(|path| logs.log(path, SavedLog::default()));
        logs.append(log, lines.as_bytes());
        if log.is_pending() {
            self.look_at_timers_by(Instant::now() + FLUSH);
        }
        Ok(())
    }

    /// Closes a log; one that is not open is as good.
    pub(super) fn close_log(&mut self, path: &Path) {
        if let Some(mut log) = self.outside.remove(path) {
            self.logs.finish(&mut log);
        }
    }

    /// Writes lines that had to wait for the disk. True while some still wait.
    pub(super) fn flush_outside(&mut self) -> bool {
        let mut waiting = false;
        for log in self.outside.values_mut().filter(|log| log.is_pending()) {
            waiting |= !self.logs.flush(log);
        }
        waiting
    }
}
