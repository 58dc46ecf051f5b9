//! Who is called next, and what became of those who were: the caller's memory, without clock, disk or network.
//!
//! ```text
//!            looked             begun, sent              said so
//! queued ───────────► in window ───────────► with a proxy ───────► ending ──recorded──► forgotten (acknowledged)
//!                                              │      ▲               ▲
//!                               its line breaks│      │named in a hello│
//!                                              ▼      │               │
//!                                            unclaimed ──nobody has it─┘ (lost)
//! ```
//!
//! The loop around it feeds events in and takes three things out: what to read ([`Core::looks`]), what to record
//! ([`Core::work`]) and what to say ([`Core::outgoing`]). Invariants: nothing is sent that is not recorded, nothing is
//! acknowledged before its end is recorded, an attempt is lost only when no proxy that lives can have it, and no function
//! has more under way than its room.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;

use super::flight::{At, Flight, Queue};
use crate::domain::{AttemptEnd, AttemptId, AttemptOutcome, CallId, CallOutcome, CallResult, FunctionKey, Trigger};
use crate::ledger::calls::{Begun, Ended as Recorded, OpenAttempt, Turns};
use crate::wire::calls::{Ended, Run};

/// Most attempts that begin in one commit.
const BEGINNINGS: usize = 256;
/// Most ends in one commit.
const ENDINGS: usize = 512;
/// Most calls of a function that are known ahead of their turn.
const WINDOW: usize = 256;

/// A proxy's line as the fleet tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The connection.
    pub connection: u64,
    /// The proxy's process.
    pub pid: i32,
    /// It takes nothing new.
    pub leaving: bool,
    /// Attempts it has, or has ended and not been told to forget.
    pub holding: Vec<AttemptId>,
}

/// What is to be said to a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Saying {
    /// Carry these out.
    Run(Vec<Run>),
    /// End these.
    Cancel(Vec<AttemptId>),
    /// The ends of these are recorded.
    Acknowledge(Vec<AttemptId>),
    /// That these run is recorded.
    Kept(Vec<AttemptId>),
}

/// The end of an attempt, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub attempt: AttemptId,
    pub function: FunctionKey,
    pub end: AttemptEnd,
    pub result: Option<CallResult>,
}

/// What is to be recorded in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Work {
    pub endings: Vec<Ending>,
    pub beginnings: Vec<CallId>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.endings.is_empty() && self.beginnings.is_empty()
    }
}

/// A call that has its outcome now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The call.
    pub call: CallId,
    /// What was called.
    pub function: FunctionKey,
    /// What made it.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: CallOutcome,
}

/// Everything the caller knows.
#[derive(Debug, Default)]
pub(super) struct Core {
    queues: BTreeMap<FunctionKey, Queue>,
    /// Whose turn it is.
    round: VecDeque<FunctionKey>,
    flights: HashMap<CallId, Flight>,
    lines: BTreeMap<u64, (i32, bool)>,
    /// The proxy processes there are; `None` until that is known.
    processes: Option<BTreeSet<i32>>,
    endings: Vec<Ending>,
    sayings: Vec<(u64, Saying)>,
}

impl Core {
    /// From what is on record.
    pub(super) fn new(open: Vec<OpenAttempt>, queued: Vec<FunctionKey>) -> Self {
        let mut core = Self::default();
        for OpenAttempt { attempt, function, trigger, cancelled } in open {
            core.queue(&function).flying += 1;
            let flight = Flight {
                attempt: attempt.attempt,
                function,
                trigger,
                pinned: false,
                at: At::Unclaimed(None),
                cancelled,
            };
            core.flights.insert(attempt.call, flight);
        }
        for function in queued {
            core.spawned(&function);
        }
        core
    }

    fn queue(&mut self, function: &FunctionKey) -> &mut Queue {
        if !self.queues.contains_key(function) {
            self.round.push_back(function.clone());
        }
        self.queues.entry(function.clone()).or_default()
    }

    /// Functions of which it is not known how much room they have.
    pub(super) fn without_room(&self) -> Vec<FunctionKey> {
        let unknown = self.queues.iter().filter(|(_, queue)| queue.room.is_none());
        unknown.map(|(function, _)| function.clone()).collect()
    }

    /// So many attempts of a function may be under way at once.
    pub(super) fn set_room(&mut self, function: &FunctionKey, room: usize) {
        if let Some(queue) = self.queues.get_mut(function) {
            queue.room = Some(room);
        }
    }

    /// Versions have changed: how much room there is must be looked up again.
    pub(super) fn forget_rooms(&mut self) {
        for queue in self.queues.values_mut() {
            queue.room = None;
        }
    }

    /// Whether anything of this function is queued or under way.
    pub(super) fn knows(&self, function: &FunctionKey) -> bool {
        self.queues.contains_key(function)
    }

    /// Calls of this function were recorded.
    pub(super) fn spawned(&mut self, function: &FunctionKey) {
        self.queue(function).more = true;
    }

    /// What has to be read: the calls of these functions that can begin, so many of each.
    pub(super) fn looks(&mut self, now: Timestamp) -> Vec<(FunctionKey, usize)> {
        if self.newest_line().is_none() {
            return Vec::new();
        }
        let mut looks = Vec::new();
        for (function, queue) in &mut self.queues {
            let due = queue.more || queue.next_due.is_some_and(|due| due <= now);
            if due && queue.window.is_empty() && queue.free() > 0 && !queue.is_paused(now) {
                looks.push((function.clone(), queue.free().min(WINDOW)));
            }
        }
        looks
    }

    /// The answer to one of [`Core::looks`].
    pub(super) fn looked(&mut self, function: &FunctionKey, turns: Turns) {
        let flights = &self.flights;
        let Some(queue) = self.queues.get_mut(function) else { return };
        queue.more = turns.more;
        queue.next_due = turns.next_due;
        queue.window.extend(turns.now.iter().map(|turn| turn.id).filter(|id| !flights.contains_key(id)));
    }

    /// When there is something to do although nothing happens.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let wanting = self.queues.values().filter(|queue| queue.free() > 0);
        let next = wanting.filter_map(|queue| match queue.paused_until {
            // There is something to do even if nothing else becomes due.
            Some(until) if !queue.window.is_empty() || queue.more => Some(until),
            Some(until) => queue.next_due.map(|due| due.max(until)),
            None if queue.window.is_empty() => queue.next_due,
            None => None,
        });
        next.min()
    }

    /// What is to be recorded next. Must be answered with [`Core::recorded`] or [`Core::failed`].
    pub(super) fn work(&mut self, now: Timestamp) -> Work {
        let rest = self.endings.split_off(self.endings.len().min(ENDINGS));
        let endings = std::mem::replace(&mut self.endings, rest);
        Work { endings, beginnings: self.beginnings(now) }
    }

    /// One of each function in turn, so that a long queue keeps nobody else waiting.
    fn beginnings(&mut self, now: Timestamp) -> Vec<CallId> {
        let mut chosen = Vec::new();
        if self.newest_line().is_none() {
            return chosen;
        }
        let mut idle = 0;
        while chosen.len() < BEGINNINGS && idle < self.round.len() {
            let Some(function) = self.round.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&function) else { continue };
            let next = if queue.free() > 0 && !queue.is_paused(now) { queue.window.pop_front() } else { None };
            match next {
                Some(call) => {
                    queue.flying += 1;
                    self.flights.insert(call, Flight::beginning(function.clone()));
                    chosen.push(call);
                    idle = 0;
                }
                None if queue.is_idle() => {
                    self.queues.remove(&function);
                    continue;
                }
                None => idle += 1,
            }
            self.round.push_back(function);
        }
        chosen
    }

    /// `work` is recorded: these attempts have begun, and this is what followed from each end.
    pub(super) fn recorded(
        &mut self,
        work: Work,
        begun: Vec<Begun>,
        ended: Vec<Recorded>,
        now: Timestamp,
    ) -> Vec<Done> {
        let mut done = Vec::new();
        let mut told: BTreeMap<u64, Vec<AttemptId>> = BTreeMap::new();
        for (ending, recorded) in work.endings.into_iter().zip(ended) {
            let Some(flight) = self.flights.remove(&ending.attempt.call) else { continue };
            if let At::Ending(Some(connection)) = flight.at {
                told.entry(connection).or_default().push(ending.attempt);
            }
            let queue = self.queue(&flight.function);
            queue.flying = queue.flying.saturating_sub(1);
            if !flight.pinned {
                queue.learn(ending.end.outcome, now);
            }
            match recorded {
                Recorded::Done(outcome) => {
                    done.push(Done {
                        call: ending.attempt.call,
                        function: ending.function,
                        trigger: flight.trigger,
                        outcome,
                    });
                }
                Recorded::Again(due) => queue.wake_at(due),
                Recorded::Stale => {}
            }
        }
        self.sayings.extend(told.into_iter().map(|(connection, all)| (connection, Saying::Acknowledge(all))));
        self.begun(&work.beginnings, begun, now);
        done
    }

    /// Of these calls, whose places are taken, those have begun on record and are handed over; the others are not to be had.
    pub(super) fn begun(&mut self, asked: &[CallId], begun: Vec<Begun>, now: Timestamp) {
        let line = self.newest_line();
        let mut runs = Vec::new();
        let mut cancels = Vec::new();
        for Begun { attempt, function, version, trigger, scheduled_at, body } in begun {
            let Some(flight) = self.flights.get_mut(&attempt.call) else { continue };
            (flight.attempt, flight.trigger) = (attempt.attempt, trigger);
            flight.pinned = version.is_some();
            match line {
                Some(connection) => flight.at = At::With(connection),
                None => self.endings.push(flight.lose(attempt.call, now)),
            }
            if flight.cancelled {
                cancels.push(attempt);
            }
            runs.push(Run { attempt, function, version, scheduled_at, body });
        }
        if let Some(line) = line {
            if !runs.is_empty() {
                self.sayings.push((line, Saying::Run(runs)));
            }
            if !cancels.is_empty() {
                self.sayings.push((line, Saying::Cancel(cancels)));
            }
        }
        // Those that were cancelled meanwhile did not begin.
        for call in asked {
            if self.flights.get(call).is_some_and(|flight| flight.at == At::Beginning)
                && let Some(flight) = self.flights.remove(call)
            {
                let queue = self.queue(&flight.function);
                queue.flying = queue.flying.saturating_sub(1);
            }
        }
    }

    /// Reserves a place for a call that is about to be recorded; `false` when there is none, or others are in line for
    /// it. `room` is how many may be under way. A reserved one must be answered with [`Core::begun`].
    pub(super) fn reserve(&mut self, function: &FunctionKey, room: usize, call: CallId, now: Timestamp) -> bool {
        if self.newest_line().is_none() || self.flights.contains_key(&call) {
            return false;
        }
        let queue = self.queue(function);
        queue.room = Some(room);
        let in_line = !queue.window.is_empty() || queue.more || queue.next_due.is_some_and(|due| due <= now);
        if in_line || queue.free() == 0 || queue.is_paused(now) {
            return false;
        }
        queue.flying += 1;
        self.flights.insert(call, Flight::beginning(function.clone()));
        true
    }

    /// `work` could not be recorded: everything is as before.
    pub(super) fn failed(&mut self, work: Work) {
        self.endings.splice(0..0, work.endings);
        for call in work.beginnings.into_iter().rev() {
            if let Some(flight) = self.flights.remove(&call) {
                let queue = self.queue(&flight.function);
                queue.flying = queue.flying.saturating_sub(1);
                queue.window.push_front(call);
            }
        }
    }

    /// What there is to say, in order.
    pub(super) fn outgoing(&mut self) -> Vec<(u64, Saying)> {
        std::mem::take(&mut self.sayings)
    }

    /// A proxy has said hello.
    pub(super) fn line_up(&mut self, line: &Line, now: Timestamp) {
        self.lines.insert(line.connection, (line.pid, line.leaving));
        let holding: BTreeSet<AttemptId> = line.holding.iter().copied().collect();
        for (call, flight) in &mut self.flights {
            let attempt = AttemptId { call: *call, attempt: flight.attempt };
            let open = matches!(flight.at, At::With(_) | At::Unclaimed(_));
            if open && holding.contains(&attempt) {
                flight.at = At::With(line.connection);
            }
        }
        let unwanted: Vec<AttemptId> = holding.into_iter().filter(|attempt| !self.wants(*attempt)).collect();
        if !unwanted.is_empty() {
            self.sayings.push((line.connection, Saying::Cancel(unwanted)));
        }
        self.give_up_lost(now);
    }

    /// Whether an attempt that a proxy names, or is to get, should go on there.
    pub(super) fn wants(&self, attempt: AttemptId) -> bool {
        let flight = self.flights.get(&attempt.call).filter(|flight| flight.attempt == attempt.attempt);
        flight.is_some_and(|flight| !flight.cancelled)
    }

    /// A proxy takes nothing new from now on.
    pub(super) fn line_leaves(&mut self, connection: u64) {
        if let Some((_, leaving)) = self.lines.get_mut(&connection) {
            *leaving = true;
        }
    }

    /// A proxy's connection has ended, and everything it said has been heard.
    pub(super) fn line_gone(&mut self, connection: u64, now: Timestamp) {
        let Some((pid, _)) = self.lines.remove(&connection) else { return };
        for flight in self.flights.values_mut() {
            if flight.at == At::With(connection) {
                flight.at = At::Unclaimed(Some(pid));
            }
        }
        self.give_up_lost(now);
    }

    /// These are the proxy processes.
    pub(super) fn processes_are(&mut self, processes: BTreeSet<i32>, now: Timestamp) {
        self.processes = Some(processes);
        self.give_up_lost(now);
    }

    /// What no living process can have is lost.
    fn give_up_lost(&mut self, now: Timestamp) {
        let Some(processes) = &self.processes else { return };
        let connected: BTreeSet<i32> = self.lines.values().map(|(pid, _)| *pid).collect();
        let may_come = |pid: &Option<i32>| match pid {
            Some(pid) => processes.contains(pid) && !connected.contains(pid),
            None => processes.iter().any(|pid| !connected.contains(pid)),
        };
        for (call, flight) in &mut self.flights {
            if let At::Unclaimed(pid) = &flight.at
                && !may_come(pid)
            {
                self.endings.push(flight.lose(*call, now));
            }
        }
    }

    /// A proxy has a call that goes on without its caller; whether it runs is what the record says of it.
    pub(super) fn detached(&mut self, connection: u64, attempt: AttemptId, function: &FunctionKey, runs: bool) {
        self.sayings.push((connection, Saying::Kept(vec![attempt])));
        if !runs {
            return;
        }
        match self.flights.get_mut(&attempt.call) {
            Some(flight) if matches!(flight.at, At::Ending(_)) => {}
            Some(flight) => {
                flight.at = At::With(connection);
                if flight.cancelled {
                    self.sayings.push((connection, Saying::Cancel(vec![attempt])));
                }
            }
            None => {
                self.queue(function).flying += 1;
                let flight = Flight {
                    attempt: attempt.attempt,
                    function: function.clone(),
                    trigger: Trigger::Call,
                    pinned: true,
                    at: At::With(connection),
                    cancelled: false,
                };
                self.flights.insert(attempt.call, flight);
            }
        }
    }

    /// Somebody wants a call to end whose attempt is under way.
    pub(super) fn cancelled(&mut self, attempt: AttemptId) {
        let Some(flight) = self.flights.get_mut(&attempt.call) else { return };
        flight.cancelled = true;
        if let At::With(connection) = flight.at {
            self.sayings.push((connection, Saying::Cancel(vec![attempt])));
        }
    }

    /// A proxy says how an attempt ended. It may say so more than once.
    pub(super) fn ended(&mut self, connection: u64, ended: Ended) {
        let Ended { attempt, end, result } = ended;
        let known = self.flights.get_mut(&attempt.call).filter(|flight| flight.attempt == attempt.attempt);
        let Some(flight) = known else {
            // Its end is on record, or it was given up: the proxy may forget it.
            self.sayings.push((connection, Saying::Acknowledge(vec![attempt])));
            return;
        };
        let first = !matches!(flight.at, At::Ending(_));
        flight.at = At::Ending(Some(connection));
        let ending = Ending { attempt, function: flight.function.clone(), end, result };
        if first {
            self.endings.push(ending);
        } else if let Some(guess) = self.endings.iter_mut().find(|one| one.attempt == attempt)
            && guess.end.outcome == AttemptOutcome::Lost
        {
            // It was given up a moment too early: what is known beats what was guessed.
            *guess = ending;
        }
    }

    /// Whoever takes new work: the line that came last, of those that stay.
    fn newest_line(&self) -> Option<u64> {
        self.lines.iter().rev().find(|(_, (_, leaving))| !leaving).map(|(connection, _)| *connection)
    }

    /// How many attempts of a function are under way, as counted.
    #[cfg(test)]
    pub(super) fn flying(&self, function: &FunctionKey) -> (usize, usize) {
        let flights = self.flights.values().filter(|flight| flight.function == *function).count();
        (self.queues.get(function).map_or(0, |queue| queue.flying), flights)
    }
}
