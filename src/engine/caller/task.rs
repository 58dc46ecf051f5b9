//! The loop around [`Core`]: waits for an event, reads and records what the core asks for, says what it has to say.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::core::{Core, Line, Saying, Work};
use super::standing::{Standing, standings};
use super::{Caller, Done, Input, ProxyLine, ProxyLines, Reserved};
use crate::domain::{AttemptEnd, AttemptOutcome, CallError, CallId, CallOutcome, FunctionKey, VersionNumber};
use crate::engine::CommandError;
use crate::engine::calling::Pins;
use crate::ledger::LedgerError;
use crate::ledger::calls;
use crate::wire::calls::{Detached, Ended, Run};
use crate::wire::frame::encode;
use crate::wire::proxy::ToProxy;

/// Messages taken at once.
const BATCH: usize = 1024;
/// The clock is looked at this often, however far away the next thing is: it may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// Pause after the ledger could not be written or read.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause before a message is offered again to a proxy that does not keep up.
const OFFER_AGAIN: Duration = Duration::from_millis(50);
/// Calls of a function that is gone that are ended in one commit.
const GIVEN_UP: u32 = 500;
/// Bodies in one frame, in bytes. As JSON a byte may take six.
const FRAME: u64 = 4 * 1024 * 1024;
/// What is no longer kept is looked for this often.
const TIDY: Duration = Duration::from_secs(60);

/// Calls, and where the places for them go.
type Reserving = (Vec<(FunctionKey, CallId)>, oneshot::Sender<Reserved>);

/// The task.
pub(super) struct Task {
    core: Core,
    caller: Caller,
    pins: Pins,
    lines: watch::Receiver<ProxyLines>,
    versions: watch::Receiver<u64>,
    known: BTreeMap<u64, ProxyLine>,
    standings: HashMap<FunctionKey, Standing>,
    /// Those of them that were looked up since versions have last changed.
    current: HashSet<FunctionKey>,
    /// Functions whose calls will soon be on record.
    expected: BTreeSet<FunctionKey>,
    /// Calls that are about to be recorded, and who asks for places for them.
    reserving: Vec<Reserving>,
    /// Calls that go on without their callers and are not on record yet, with the connection that told of them.
    detached: Vec<(u64, Detached)>,
    /// Frames that a proxy had no place for yet.
    unsaid: VecDeque<(u64, Arc<[u8]>)>,
}

impl Task {
    pub(super) fn new(
        core: Core,
        caller: Caller,
        pins: Pins,
        lines: watch::Receiver<ProxyLines>,
        versions: watch::Receiver<u64>,
    ) -> Self {
        Self {
            core,
            caller,
            pins,
            lines,
            versions,
            known: BTreeMap::new(),
            standings: HashMap::new(),
            current: HashSet::new(),
            expected: BTreeSet::new(),
            reserving: Vec::new(),
            detached: Vec::new(),
            unsaid: VecDeque::new(),
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, shutdown: CancellationToken) {
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.lines.mark_changed();
        let mut pause = None;
        loop {
            let mut batch = Vec::new();
            let sleep = pause.take().unwrap_or_else(|| self.until_next());
            tokio::select! {
                count = inputs.recv_many(&mut batch, BATCH) => if count == 0 { return },
                changed = self.lines.changed() => {
                    if changed.is_err() { return }
                    // What a proxy said before its line ended is in the queue before the news of that.
                    while let Ok(input) = inputs.try_recv() {
                        self.take(input);
                    }
                    self.look_at_lines();
                }
                changed = self.versions.changed() => {
                    if changed.is_err() { return }
                    self.forget_rooms();
                }
                _ = tidy.tick() => self.tidy(),
                () = tokio::time::sleep(sleep) => {}
                () = shutdown.cancelled() => return,
            }
            for input in batch {
                self.take(input);
            }
            // What a new line's first words ask for must find the line.
            if self.lines.has_changed().unwrap_or(false) {
                while let Ok(input) = inputs.try_recv() {
                    self.take(input);
                }
                self.look_at_lines();
            }
            if let Err(error) = self.carry_out().await {
                error!(%error, "calls cannot be recorded; they wait");
                pause = Some(PAUSE);
            }
        }
    }

    fn until_next(&self) -> Duration {
        if !self.unsaid.is_empty() {
            return OFFER_AGAIN;
        }
        let next = self.core.next_wake().map(|due| due.duration_since(Timestamp::now()));
        let next = next.map(|wait| Duration::try_from(wait).unwrap_or(Duration::ZERO));
        // Just after rather than just before it is due.
        next.map_or(LONGEST_SLEEP, |wait| (wait + Duration::from_millis(1)).min(LONGEST_SLEEP))
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Spawned(function) => self.core.spawned(&function),
            Input::Expected(functions) => self.expected.extend(functions),
            Input::Reserve { calls, reply } => self.reserving.push((calls, reply)),
            Input::Begun { asked, begun } => self.core.begun(&asked, begun, Timestamp::now()),
            Input::Cancelled(attempt) => self.core.cancelled(attempt),
            Input::Ended { connection, ended } => {
                for one in ended {
                    self.core.ended(connection, one);
                }
            }
            Input::Pinned { connection, runs, pinned } => self.pinned(connection, runs, pinned),
            Input::Detached { connection, calls } => {
                self.detached.extend(calls.into_iter().map(|call| (connection, call)));
            }
        }
    }

    fn look_at_lines(&mut self) {
        let now = Timestamp::now();
        let ProxyLines { lines, processes } = self.lines.borrow_and_update().clone();
        let present: HashSet<u64> = lines.iter().map(|line| line.connection).collect();
        for line in lines {
            match self.known.get_mut(&line.connection) {
                Some(known) => {
                    if line.leaving && !known.leaving {
                        known.leaving = true;
                        self.core.line_leaves(line.connection);
                    }
                }
                None => {
                    let ProxyLine { connection, pid, leaving, ref holding, .. } = line;
                    debug!(connection, pid, attempts = holding.len(), "a proxy can carry out calls");
                    let up = Line { connection, pid, leaving, holding: holding.to_vec() };
                    self.known.insert(connection, line);
                    self.core.line_up(&up, now);
                }
            }
        }
        let gone: Vec<u64> = self.known.keys().filter(|connection| !present.contains(connection)).copied().collect();
        for connection in gone {
            self.known.remove(&connection);
            self.unsaid.retain(|(to, _)| *to != connection);
            self.core.line_gone(connection, now);
        }
        self.core.processes_are(processes, now);
    }

    /// Everything that can be done now.
    async fn carry_out(&mut self) -> Result<(), LedgerError> {
        self.record_detached().await?;
        loop {
            self.look_up_rooms().await?;
            let now = Timestamp::now();
            self.reserve(now);
            let looks = self.core.looks(now);
            if !looks.is_empty() {
                let ledger = self.caller.shared.ledger.clone();
                let found = ledger.read(move |ledger| {
                    let one = |(function, limit)| {
                        let turns = calls::waiting(ledger, &function, now, limit)?;
                        Ok((function, turns))
                    };
                    looks.into_iter().map(one).collect::<Result<Vec<_>, LedgerError>>()
                });
                for (function, turns) in found.await? {
                    self.core.looked(&function, turns);
                }
            }
            let work = self.core.work(now);
            let idle = work.is_empty();
            if !idle {
                self.record(work).await?;
            }
            self.say();
            if idle {
                return Ok(());
            }
        }
    }

    async fn record_detached(&mut self) -> Result<(), LedgerError> {
        if self.detached.is_empty() {
            return Ok(());
        }
        let (calls, now) = (self.detached.clone(), Timestamp::now());
        let recorded = self.caller.shared.ledger.write(move |ledger| {
            calls.iter().map(|(_, call)| calls::detach(ledger, call, now)).collect::<Result<Vec<_>, LedgerError>>()
        });
        let runs = recorded.await?;
        for ((connection, call), runs) in std::mem::take(&mut self.detached).into_iter().zip(runs) {
            self.core.detached(connection, call.attempt, &call.function, runs);
        }
        Ok(())
    }

    async fn record(&mut self, work: Work) -> Result<(), LedgerError> {
        let work = Arc::new(work);
        let policies: Vec<_> = work
            .endings
            .iter()
            .map(|ending| self.standings.get(&ending.function).map_or(Standing::NotYet.policy(), Standing::policy))
            .collect();
        let (now, todo) = (Timestamp::now(), Arc::clone(&work));
        let recorded = self.caller.shared.ledger.write(move |ledger| {
            let ends = todo
                .endings
                .iter()
                .zip(&policies)
                .map(|(one, policy)| calls::end(ledger, one.attempt, &one.end, one.result.as_ref(), policy, now));
            let ended = ends.collect::<Result<Vec<_>, LedgerError>>()?;
            Ok((ended, calls::begin(ledger, &todo.beginnings, now)?))
        });
        let recorded = recorded.await;
        // The ledger's thread has let go of its copy by now, or is about to.
        let work = Arc::try_unwrap(work).unwrap_or_else(|shared| (*shared).clone());
        match recorded {
            Ok((ended, begun)) => {
                for ending in work.endings.iter().filter(|ending| ending.end.instance.is_some()) {
                    self.caller.shared.tallies.time(&ending.function, ending.end.times, now);
                }
                for done in self.core.recorded(work, begun, ended, now) {
                    self.caller.tell(done);
                }
                Ok(())
            }
            Err(error) => {
                self.core.failed(work);
                Err(error)
            }
        }
    }

    async fn look_up_rooms(&mut self) -> Result<(), LedgerError> {
        let (known, unknown): (Vec<_>, Vec<_>) =
            self.core.without_room().into_iter().partition(|function| self.current.contains(function));
        for function in known {
            let standing = self.standings.get(&function).copied().unwrap_or(Standing::NotYet);
            self.core.set_room(&function, standing.room());
        }
        let mut unknown: BTreeSet<FunctionKey> = unknown.into_iter().collect();
        unknown.append(&mut self.expected);
        let asked = self.reserving.iter().flat_map(|(calls, _)| calls).map(|(function, _)| function.clone());
        unknown.extend(asked);
        unknown.retain(|function| !self.current.contains(function));
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown = unknown.into_iter().collect();
        let ledger = &self.caller.shared.ledger;
        for (function, standing) in ledger.read(move |ledger| standings(ledger, unknown)).await? {
            if let Standing::Gone { live } = standing {
                self.give_up_on(&function, live).await?;
            }
            self.core.set_room(&function, standing.room());
            if let Standing::Here { .. } = standing {
                self.current.insert(function.clone());
            }
            self.standings.insert(function, standing);
        }
        Ok(())
    }

    /// Answers those who ask for places.
    fn reserve(&mut self, now: Timestamp) {
        for (calls, reply) in std::mem::take(&mut self.reserving) {
            let mut reserved = HashSet::with_capacity(calls.len());
            for (function, call) in calls {
                // Of one that is not `Here` nothing is known for certain.
                let Some(Standing::Here { room, .. }) =
                    self.standings.get(&function).filter(|_| self.current.contains(&function))
                else {
                    continue;
                };
                if self.core.reserve(&function, *room, call, now) {
                    reserved.insert(call);
                }
            }
            // Whoever has gone meanwhile gives them back by that.
            let _ = reply.send(Reserved::new(reserved, self.caller.shared.inputs.clone()));
        }
    }

    /// Versions have changed.
    fn forget_rooms(&mut self) {
        self.core.forget_rooms();
        self.current.clear();
        self.standings.retain(|function, _| self.core.knows(function));
    }

    /// Nobody can carry out what is queued for a function that is no more.
    async fn give_up_on(&mut self, function: &FunctionKey, live: Option<VersionNumber>) -> Result<(), LedgerError> {
        let FunctionKey { app, function: name } = function;
        let words = match live {
            Some(live) => format!("app {} has no function {name} since {live} is live", app.app),
            None => format!("there is no app {} any more", app.app),
        };
        let error = CallError::new("gone", words);
        loop {
            let (function, error, now) = (function.clone(), error.clone(), Timestamp::now());
            let asked = function.clone();
            let ended =
                self.caller.shared.ledger.write(move |ledger| calls::give_up(ledger, &asked, &error, now, GIVEN_UP));
            let ended = ended.await?;
            let over = ended.len() < GIVEN_UP as usize;
            if !ended.is_empty() {
                warn!(app = %function.app, function = %function.function, calls = ended.len(), "calls failed: the function is gone");
            }
            for (call, trigger) in ended {
                self.caller.tell(Done { call, function: function.clone(), trigger, outcome: CallOutcome::Failed });
            }
            if over {
                return Ok(());
            }
        }
    }

    fn say(&mut self) {
        for (connection, saying) in self.core.outgoing() {
            let messages = match saying {
                Saying::Run(runs) => {
                    let (pinned, runs): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| run.version.is_some());
                    self.pin(connection, pinned);
                    to_run(runs)
                }
                Saying::Cancel(attempts) => vec![ToProxy::CancelRuns { attempts }],
                Saying::Acknowledge(attempts) => vec![ToProxy::Acknowledge { attempts }],
                Saying::Kept(attempts) => vec![ToProxy::Kept { attempts }],
            };
            self.will_say(connection, messages);
        }
        // In order for each proxy; one that does not keep up holds up no other.
        let mut stuck = HashSet::new();
        let known = &self.known;
        self.unsaid.retain(|(connection, frame)| {
            let Some(line) = known.get(connection) else { return false };
            if stuck.contains(connection) {
                return true;
            }
            match line.outgoing.try_send(Arc::clone(frame)) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    stuck.insert(*connection);
                    true
                }
            }
        });
    }

    fn will_say(&mut self, connection: u64, messages: Vec<ToProxy>) {
        for message in messages {
            match encode(&message) {
                Ok(frame) => self.unsaid.push_back((connection, frame.into())),
                Err(error) => error!(%error, "a message about calls cannot be sent"),
            }
        }
    }

    /// Has the versions routed that these name, and sends them then. If this process ends before, they were never
    /// sent: no proxy names them, and they are lost and tried again like all such.
    fn pin(&self, connection: u64, runs: Vec<Run>) {
        let mut by_version: BTreeMap<(FunctionKey, VersionNumber), Vec<Run>> = BTreeMap::new();
        for run in runs {
            if let Some(version) = run.version {
                by_version.entry((run.function.clone(), version)).or_default().push(run);
            }
        }
        for ((FunctionKey { app, function }, version), runs) in by_version {
            let (pins, inputs) = (self.pins.clone(), self.caller.shared.inputs.clone());
            tokio::spawn(async move {
                let pinned = pins.pin(app, function, version).await;
                let _ = inputs.send(Input::Pinned { connection, runs, pinned }).await;
            });
        }
    }

    fn pinned(&mut self, connection: u64, runs: Vec<Run>, pinned: super::Result<()>) {
        let now = Timestamp::now();
        let (wanted, unwanted): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| self.core.wants(run.attempt));
        let mut end = |runs: Vec<Run>, outcome, error: &CallError| {
            for Run { attempt, .. } in runs {
                let end = AttemptEnd::without_report(outcome, now, Some(error.clone()));
                self.core.ended(connection, Ended { attempt, end, result: None });
            }
        };
        end(unwanted, AttemptOutcome::Cancelled, &CallError::new("cancelled", "somebody ended the call"));
        match pinned {
            Ok(()) => self.will_say(connection, to_run(wanted)),
            Err(error) => {
                let outcome = match error {
                    // It will be as wrong the next time.
                    CommandError::NotFound { .. }
                    | CommandError::Invalid { .. }
                    | CommandError::Refused { .. }
                    | CommandError::Conflict { .. } => AttemptOutcome::Failed,
                    CommandError::TooMuch { .. } | CommandError::Unavailable { .. } | CommandError::Internal { .. } => {
                        AttemptOutcome::Refused
                    }
                };
                end(wanted, outcome, &CallError::new("version", error.to_string()));
            }
        }
    }

    /// Without holding anybody up.
    fn tidy(&self) {
        let (ledger, bodies) = (self.caller.shared.ledger.clone(), self.caller.shared.bodies.clone());
        tokio::spawn(async move {
            if let Err(error) = bodies.tidy(&ledger, Timestamp::now()).await {
                warn!(%error, "old calls cannot be removed");
            }
        });
    }
}

fn to_run(runs: Vec<Run>) -> Vec<ToProxy> {
    in_frames(runs).into_iter().map(|runs| ToProxy::Run { runs }).collect()
}

/// Bodies that are recorded with their calls may come to more than one frame holds.
fn in_frames(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut frames: Vec<Vec<Run>> = Vec::new();
    let mut bytes = u64::MAX;
    for run in runs {
        bytes = bytes.saturating_add(run.body.bytes);
        match frames.last_mut() {
            Some(frame) if bytes <= FRAME => frame.push(run),
            Some(_) | None => {
                bytes = run.body.bytes;
                frames.push(vec![run]);
            }
        }
    }
    frames
}
