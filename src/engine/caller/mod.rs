//! Calls that must not be lost, from their record to a proxy and back.
//!
//! ```text
//!  api ──spawn──► intake ──one commit for many──► ledger ◄──begin, end── task ◄──ends── proxies
//!                    └───────────spawned────────────────────────────────►  └────runs───►
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | the handle: what others ask for |
//! | `intake` | calls come in, many share one commit |
//! | `reserving` | calls that begin in the commit that records them |
//! | `core`, `flight` | who is next, and what became of the others: pure |
//! | `task` | the loop around it |
//! | `standing` | what is known of a function: room, retries |
//! | `tallies` | how calls fare, by function |
//! | `seeking` | calls under way that somebody waits for |
//! | `past` | records of calls that somebody waited for |
//! | `bodies` | files of what is too long for the record, and what is no longer kept |
//!
//! Owner of calls that are queued or under way; the ledger has them all. Neighbours: the fleet, which has the proxies'
//! lines. Invariant: everything here may die at any moment, and the next controller goes on from the ledger and from
//! what the proxies say they have.

mod bodies;
mod core;
#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod core_world;
mod flight;
mod intake;
mod past;
#[cfg(test)]
mod recorder;
mod reserving;
mod seeking;
mod standing;
mod tallies;
mod task;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(super) use self::bodies::Bodies;
pub use self::core::Done;
pub use self::past::Batch;
pub(super) use self::past::{History, keep, records};
pub use self::reserving::Reserved;
pub use self::seeking::Questions;
pub(super) use self::seeking::Seeker;
pub(super) use self::tallies::{Tallies, minute_of};
use super::calling::Pins;
use super::reconciler::internal;
use super::records::Settings;
use super::{CommandError, Result};
use crate::domain::{Actor, AttemptId, CallId, CallOutcome, FunctionKey};
use crate::ledger::calls::{self, Begun, Cancelled, NewCall, Taken};
use crate::ledger::{Ledger, LedgerError};
use crate::wire::calls::{Detached, Ended, Run};

/// Messages that may wait for the task.
const INPUTS: usize = 1024;
/// Ends that may wait for whoever follows them all; a slower one misses some and looks at the record.
const ENDS: usize = 4096;
/// A spawn that is not recorded after this long is given up.
const RECORDING: Duration = Duration::from_secs(30);

/// What reaches the task.
#[derive(Debug)]
pub enum Input {
    /// Calls of this function are on record.
    Spawned(FunctionKey),
    /// Calls of these functions will soon be on record.
    Expected(Vec<FunctionKey>),
    /// These calls are about to be recorded: which of them can begin with that?
    Reserve {
        /// Which, and of what.
        calls: Vec<(FunctionKey, CallId)>,
        /// Where the places go.
        reply: oneshot::Sender<Reserved>,
    },
    /// What became of calls that had a place reserved.
    Begun {
        /// All of them.
        asked: Vec<CallId>,
        /// Those that are on record, their first attempts begun.
        begun: Vec<Begun>,
    },
    /// The end of this attempt was asked for, on record.
    Cancelled(AttemptId),
    /// A proxy says how attempts ended.
    Ended {
        /// On which connection.
        connection: u64,
        /// Which, and how.
        ended: Vec<Ended>,
    },
    /// The version that these are pinned to can be called now, or why it cannot.
    Pinned {
        /// The connection they are to be sent on.
        connection: u64,
        /// Them.
        runs: Vec<Run>,
        /// Whether it can.
        pinned: Result<()>,
    },
    /// A proxy has calls that go on without their callers.
    Detached {
        /// On which connection.
        connection: u64,
        /// Which.
        calls: Vec<Detached>,
    },
}

/// Where what proxies say about calls goes.
#[derive(Debug, Clone)]
pub struct Said {
    /// Ends of attempts.
    pub inputs: mpsc::Sender<Input>,
    /// Records of calls somebody waited for, and counts of web requests.
    pub records: mpsc::Sender<Batch>,
    /// Answers about calls under way.
    pub questions: Questions,
}

/// A proxy's line, for whoever has something to say to it.
#[derive(Debug, Clone)]
pub struct ProxyLine {
    /// The connection.
    pub connection: u64,
    /// The proxy's process.
    pub pid: i32,
    /// It takes nothing new.
    pub leaving: bool,
    /// Attempts it named in its hello.
    pub holding: Arc<Vec<AttemptId>>,
    /// Frames to send.
    pub outgoing: mpsc::Sender<Arc<[u8]>>,
}

/// The proxies as the fleet knows them.
#[derive(Debug, Clone, Default)]
pub struct ProxyLines {
    /// Those that are connected and have the routes.
    pub lines: Vec<ProxyLine>,
    /// The processes there are.
    pub processes: BTreeSet<i32>,
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    bodies: Bodies,
    inputs: mpsc::Sender<Input>,
    intake: mpsc::Sender<intake::Spawning>,
    waiting: Mutex<HashMap<CallId, Vec<oneshot::Sender<CallOutcome>>>>,
    ends: broadcast::Sender<Done>,
    tallies: Tallies,
}

/// What the caller is started with.
pub(super) struct Beginning {
    pub ledger: Ledger,
    /// What lets calls name a version.
    pub pins: Pins,
    /// Where ends are counted.
    pub tallies: Tallies,
    /// Where bodies lie, and how long they are kept.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The proxies' lines.
    pub lines: watch::Receiver<ProxyLines>,
    /// Rises when versions change.
    pub versions: watch::Receiver<u64>,
    /// Where the handle's messages, and the proxies', come in.
    pub inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    pub shutdown: tokio_util::sync::CancellationToken,
}

/// The queue of messages for the task; proxies write to it before the caller is started.
pub(super) fn inputs() -> (mpsc::Sender<Input>, mpsc::Receiver<Input>) {
    mpsc::channel(INPUTS)
}

impl Caller {
    /// Takes up what is on record and starts the tasks.
    pub(super) async fn start(
        beginning: Beginning,
    ) -> std::result::Result<(Self, Vec<tokio::task::JoinHandle<()>>), LedgerError> {
        let Beginning { ledger, pins, tallies, settings, lines, versions, inputs: (inputs, queue), shutdown } =
            beginning;
        let found = ledger.read(|ledger| Ok((calls::open_attempts(ledger)?, calls::functions_with_queue(ledger)?)));
        let (open, queued) = found.await?;
        let bodies = Bodies::new(settings);
        bodies.sweep(&ledger).await?;
        let (intake, spawnings) = mpsc::channel(intake::QUEUE);
        let shared = Arc::new(Shared {
            ledger: ledger.clone(),
            bodies,
            inputs: inputs.clone(),
            intake,
            waiting: Mutex::default(),
            ends: broadcast::channel(ENDS).0,
            tallies,
        });
        let caller = Self { shared };
        let core = core::Core::new(open, queued);
        let task = task::Task::new(core, caller.clone(), pins, lines, versions);
        let tasks = vec![
            tokio::spawn(intake::run(ledger, spawnings, inputs, shutdown.clone())),
            tokio::spawn(task.run(queue, shutdown)),
        ];
        Ok((caller, tasks))
    }

    /// Records a call; it is durable when this answers.
    pub(super) async fn spawn(&self, new: NewCall) -> Result<Taken> {
        let (answer, answered) = oneshot::channel();
        let busy = || CommandError::Unavailable {
            what: "the call could not be recorded in time; it is not known whether it will run".into(),
            mend: "send it again with the same `Idempotency-Key`".into(),
        };
        let recorded = async {
            self.shared.intake.send(intake::Spawning { new, answer }).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(RECORDING, recorded).await {
            Ok(Some(taken)) => taken.map_err(internal),
            Ok(None) | Err(_) => Err(busy()),
        }
    }

    /// Says that calls of a function were recorded by somebody else. Never waits.
    pub fn poke(&self, function: FunctionKey) {
        if let Err(mpsc::error::TrySendError::Full(input)) = self.shared.inputs.try_send(Input::Spawned(function)) {
            let inputs = self.shared.inputs.clone();
            tokio::spawn(async move { inputs.send(input).await });
        }
    }

    /// How calls fare.
    pub(super) fn tallies(&self) -> &Tallies {
        &self.shared.tallies
    }

    /// Every outcome from now on.
    pub fn ends(&self) -> broadcast::Receiver<Done> {
        self.shared.ends.subscribe()
    }

    /// Files of bodies and results.
    pub(super) fn bodies(&self) -> &Bodies {
        &self.shared.bodies
    }

    /// Ends a call.
    pub(super) async fn cancel(&self, call: CallId, actor: Actor) -> Result<Cancelled> {
        let now = Timestamp::now();
        let recorded = self.shared.ledger.write(move |ledger| {
            let cancelled = calls::cancel(ledger, call, &actor, now)?;
            Ok((cancelled, calls::one(ledger, call)?))
        });
        let (cancelled, record) = recorded.await.map_err(internal)?;
        match (cancelled, record) {
            (Cancelled::Asked(attempt), _) => drop(self.shared.inputs.send(Input::Cancelled(attempt)).await),
            (Cancelled::Done, Some(record)) => {
                let (function, trigger) = (record.function, record.trigger);
                self.tell(Done { call, function, trigger, outcome: CallOutcome::Cancelled });
            }
            (Cancelled::Done | Cancelled::Over(_) | Cancelled::Unknown, _) => {}
        }
        Ok(cancelled)
    }

    /// Waits until a call is done, at most this long. Answers at once for one that is.
    pub(super) async fn wait(&self, call: CallId, longest: Duration) -> Result<()> {
        let (told, done) = oneshot::channel();
        self.waiting().entry(call).or_default().push(told);
        // Looked at after whoever ends it knows of this wait.
        let state = self.shared.ledger.read(move |ledger| calls::one(ledger, call)).await.map_err(internal)?;
        if state.is_some_and(|call| call.outcome.is_none()) {
            let _ = tokio::time::timeout(longest, done).await;
        } else {
            drop(done);
        }
        let mut waiting = self.waiting();
        if let Some(all) = waiting.get_mut(&call) {
            all.retain(|one| !one.is_closed());
            if all.is_empty() {
                waiting.remove(&call);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, Vec<oneshot::Sender<CallOutcome>>>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits for it that a call is done.
    fn tell(&self, done: Done) {
        self.shared.tallies.end(&done.function, done.outcome, Timestamp::now());
        for waiting in self.waiting().remove(&done.call).into_iter().flatten() {
            let _ = waiting.send(done.outcome);
        }
        // Nobody may be following.
        let _ = self.shared.ends.send(done);
    }
}
