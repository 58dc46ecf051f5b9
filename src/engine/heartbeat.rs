//! The agent's own dead-man's switch: asks for an address of a monitoring service again and again while the agent does
//! its work, so that somebody else notices when it does not.
//!
//! One task, started by `telling`, which hands it each new configuration. Invariant: a beat is sent only after the
//! ledger's writer has answered, so that an agent that cannot record anything is not called alive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::scheduler::ping_client;
use crate::files::config::HeartbeatConfig;
use crate::ledger::Ledger;

/// A ledger that does not answer within this does not work.
const RECORDS: Duration = Duration::from_secs(10);
/// A beat that failed is tried again after this, if the next one is not due before.
const AGAIN: Duration = Duration::from_secs(5);

/// The handle.
#[derive(Debug)]
pub(super) struct Heartbeat {
    wanted: watch::Sender<Option<HeartbeatConfig>>,
    problem: Arc<Mutex<Option<String>>>,
}

impl Heartbeat {
    /// A handle, and its task.
    pub(super) fn new(ledger: Ledger, cancel: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (wanted, changes) = watch::channel(None);
        let problem: Arc<Mutex<Option<String>>> = Arc::default();
        (Self { wanted, problem: Arc::clone(&problem) }, run(ledger, changes, problem, cancel))
    }

    /// From now on so.
    pub(super) fn set(&self, wanted: Option<HeartbeatConfig>) {
        self.wanted.send_if_modified(|now| {
            let differs = *now != wanted;
            *now = wanted;
            differs
        });
    }

    /// Why the last beat was not taken.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn run(
    ledger: Ledger,
    mut changes: watch::Receiver<Option<HeartbeatConfig>>,
    problem: Arc<Mutex<Option<String>>>,
    cancel: CancellationToken,
) {
    let tell = |now: Option<String>| {
        let mut before = problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*before, &now) {
            (None, Some(why)) => warn!("the heartbeat is not taken: {why}"),
            (Some(_), None) => info!("the heartbeat is taken again"),
            (_, _) => {}
        }
        *before = now;
    };
    loop {
        let wanted = changes.borrow_and_update().clone();
        let wait = match &wanted {
            Some(heartbeat) => tokio::select! {
                outcome = beat(&ledger, &heartbeat.url) => {
                    let failed = outcome.is_err();
                    tell(outcome.err());
                    if failed { AGAIN.min(heartbeat.every) } else { heartbeat.every }
                }
                () = cancel.cancelled() => return,
            },
            None => {
                tell(None);
                Duration::MAX
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = cancel.cancelled() => return,
        }
    }
}

async fn beat(ledger: &Ledger, url: &str) -> Result<(), String> {
    match tokio::time::timeout(RECORDS, ledger.write(|_| Ok(()))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("the agent cannot record anything, so it is not called alive: {error}")),
        Err(_) => return Err("the ledger does not answer, so the agent is not called alive".to_owned()),
    }
    let client = ping_client()?;
    match client.get(url).send().await.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err(format!("the address answers {status}")),
        // The address may be a secret of sorts.
        Err(error) => Err(error.without_url().to_string()),
    }
}
