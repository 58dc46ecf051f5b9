//! The calls that have ended: as the caller tells of them, and as the record does after a restart.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::domain::{CallId, Trigger};
use crate::engine::caller::Done;

/// Most ends that are recorded in one transaction.
const BATCH: usize = 256;

/// What came of waiting for ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// These calls have ended.
    These(Vec<CallId>),
    /// So many ended at once that some were not told of; the record knows.
    Lost,
    /// No more will come.
    Over,
}

/// Waits for ends of calls that are runs, and takes those that are there.
pub(super) async fn next(ends: &mut broadcast::Receiver<Done>) -> Ends {
    let is_run = |done: &Done| matches!(done.trigger, Trigger::Schedule | Trigger::Manual);
    let mut found = Vec::new();
    loop {
        match ends.recv().await {
            Ok(done) if is_run(&done) => break found.push(done.call),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return Ends::Lost,
            Err(RecvError::Closed) => return Ends::Over,
        }
    }
    while found.len() < BATCH {
        match ends.try_recv() {
            Ok(done) if is_run(&done) => found.push(done.call),
            Ok(_) => {}
            Err(TryRecvError::Lagged(_)) => return Ends::Lost,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    Ends::These(found)
}
