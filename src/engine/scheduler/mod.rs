//! Runs schedules: starts each run at its instant, once, and records what became of every instant.
//!
//! ```text
//! live versions ─► mailbox ─┐                      ┌─► ledger: run, call and news in one transaction
//! API ─► commands ──────────┼─► decide::runs ──────┤
//! the wall clock ───────────┤                      └─► caller (poke, cancel), pings
//! caller: ends of calls ────┘
//! ```
//!
//! Owner of every schedule's [`Runs`]: one task. A run is a call with the instant it stands for; carrying it out is
//! the caller's. Nothing here survives by itself: after a restart the same state is read from the record.
//!
//! Invariants: what is decided is recorded before anything starts; the loop sleeps no longer than [`LONGEST_SLEEP`]
//! and reads the clock anew each time, so that a clock that jumps is noticed.

mod clock;
mod commands;
mod ends;
mod entry;
mod lateness;
mod live;
mod output;
mod ping;
mod recording;
mod task;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turned;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot};

use super::Result;
use crate::domain::{Actor, AppKey, CallId, FunctionKey, Manifest, ObjectName, Scheduled};

pub(super) use clock::Clock;
pub use lateness::Late;
pub(super) use lateness::Lateness;
pub(super) use ping::ping_client;
pub(super) use task::{Beginning, start};

/// Commands that may wait.
const COMMANDS: usize = 256;
/// The loop sleeps no longer than this while there are schedules.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The schedules of an app's live version.
pub(super) type Wanted = BTreeMap<ObjectName, Scheduled>;

/// The schedules of a manifest.
pub(super) fn wanted(manifest: &Manifest) -> Wanted {
    let scheduled = |(name, function): (&ObjectName, &crate::domain::manifest::Function)| {
        Some((name.clone(), function.schedule.clone()?))
    };
    manifest.functions.iter().filter_map(scheduled).collect()
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Scheduler {
    mailbox: Arc<Mailbox>,
    commands: mpsc::Sender<Command>,
    /// How late runs start.
    pub(super) lateness: Lateness,
}

/// What became live since the task has last looked: the newest of each app.
#[derive(Debug, Default)]
struct Mailbox {
    wanted: Mutex<BTreeMap<AppKey, Wanted>>,
    changed: Notify,
}

impl Mailbox {
    fn take(&self) -> BTreeMap<AppKey, Wanted> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What people command.
#[derive(Debug)]
enum Command {
    Run { actor: Actor, function: FunctionKey, reply: oneshot::Sender<Result<Asked>> },
    Pause { pause: crate::ledger::schedules::PauseRecord, function: FunctionKey, reply: oneshot::Sender<Result<()>> },
    Resume { actor: Actor, function: FunctionKey, reply: oneshot::Sender<Result<()>> },
    List { reply: oneshot::Sender<Vec<View>> },
}

/// A run that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The moment it stands for.
    pub at: Timestamp,
    /// Its call; `None` while it waits for the one it replaces.
    pub call: Option<CallId>,
}

/// A schedule as it is shown.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub function: FunctionKey,
    pub scheduled: Scheduled,
    /// When it starts next, jitter included.
    pub next: Vec<Timestamp>,
    pub running: usize,
    pub waiting: usize,
    /// Why it cannot be planned.
    pub problem: Option<String>,
}

/// Commands on their way to the task.
pub(super) struct Commands(mpsc::Receiver<Command>);

/// A handle, and what the task is started with.
pub(super) fn channel() -> (Scheduler, Commands) {
    let (commands, queue) = mpsc::channel(COMMANDS);
    (Scheduler { mailbox: Arc::default(), commands, lateness: Lateness::default() }, Commands(queue))
}

impl Scheduler {
    /// This is what is live of an app from now on; `None` for nothing. Never waits.
    pub(super) fn live(&self, key: &AppKey, manifest: Option<&Manifest>) {
        let wanted = manifest.map(wanted).unwrap_or_default();
        self.mailbox.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), wanted);
        self.mailbox.changed.notify_one();
    }

    /// Starts a run now.
    pub(super) async fn run(&self, actor: Actor, function: FunctionKey) -> Result<Asked> {
        self.command(|reply| Command::Run { actor, function, reply }).await?
    }

    /// Pauses a schedule.
    pub(super) async fn pause(
        &self,
        function: FunctionKey,
        pause: crate::ledger::schedules::PauseRecord,
    ) -> Result<()> {
        self.command(|reply| Command::Pause { pause, function, reply }).await?
    }

    /// Ends a pause.
    pub(super) async fn resume(&self, actor: Actor, function: FunctionKey) -> Result<()> {
        self.command(|reply| Command::Resume { actor, function, reply }).await?
    }

    /// All schedules of live versions.
    pub(super) async fn list(&self) -> Result<Vec<View>> {
        self.command(|reply| Command::List { reply }).await
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let unavailable = || super::CommandError::Unavailable {
            what: "the agent is too busy or about to end; it is not known whether the command was taken".into(),
            mend: "look at `landfall schedule list`, then try again".into(),
        };
        self.commands.send(command(reply)).await.map_err(|_| unavailable())?;
        let answered = tokio::time::timeout(Duration::from_secs(30), answer).await;
        answered.map_err(|_| unavailable())?.map_err(|_| unavailable())
    }
}
