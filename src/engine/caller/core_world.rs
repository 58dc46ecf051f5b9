//! The world that the core is tested in: it has a controller that may die at any moment, proxies that may die, break their line or repeat
//! themselves, and messages on their way. At its end every fault stops, and everything must come to rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rusqlite::Connection;

use super::core::{Core, Line, Saying};
use crate::decide::retry::Policy;
use crate::domain::{
    Actor, AppKey, AttemptEnd, AttemptId, AttemptOutcome, CallError, CallId, CallOutcome, CallResult, CallState,
    FunctionKey, Payload, Trigger,
};
use crate::ledger::calls::{self, Cancelled, NewCall, Taken};
use crate::wire::calls::{Detached, Ended};

const POLICY: Policy =
    Policy { max: 1, delay: Duration::from_millis(500), backoff: 2.0, max_delay: Duration::from_secs(5) };
pub(super) const ROOM: usize = 3;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Spawn(bool),
    /// Somebody is about to record a call of this function and asks for a place for it.
    Reserve(bool),
    /// What has a place is recorded, or could not be.
    Record(bool),
    /// A caller of this proxy has waited long enough: its call goes on without it.
    Detach(usize),
    /// Cancel the call with this number.
    Cancel(usize),
    /// The proxy (of those there are) carries out what it has: this one, like this.
    Finish(usize, usize, AttemptOutcome),
    /// A proxy hears the next message.
    Hear(usize),
    /// The controller hears the next message of a proxy.
    Listen(usize),
    /// The controller does what there is to do.
    Turn,
    /// The disk is full just now.
    FailedTurn,
    KillController,
    KillProxy(usize),
    BreakLine(usize),
    Connect(usize),
    /// A proxy says again what has ended.
    Repeat(usize),
    NewProxy,
    Leave(usize),
    Wait(u32),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcomes = vec![
        AttemptOutcome::Succeeded,
        AttemptOutcome::Failed,
        AttemptOutcome::TimedOut,
        AttemptOutcome::Refused,
        AttemptOutcome::Crashed,
    ];
    let index = 0..8_usize;
    let step = prop_oneof![
        4 => any::<bool>().prop_map(Step::Spawn),
        3 => any::<bool>().prop_map(Step::Reserve),
        3 => any::<bool>().prop_map(Step::Record),
        2 => index.clone().prop_map(Step::Detach),
        1 => (0..40_usize).prop_map(Step::Cancel),
        6 => (index.clone(), 0..4_usize, proptest::sample::select(outcomes)).prop_map(|(p, n, o)| Step::Finish(p, n, o)),
        8 => index.clone().prop_map(Step::Hear),
        8 => index.clone().prop_map(Step::Listen),
        8 => Just(Step::Turn),
        1 => Just(Step::FailedTurn),
        1 => Just(Step::KillController),
        1 => index.clone().prop_map(Step::KillProxy),
        1 => index.clone().prop_map(Step::BreakLine),
        3 => index.clone().prop_map(Step::Connect),
        1 => index.clone().prop_map(Step::Repeat),
        1 => Just(Step::NewProxy),
        1 => index.prop_map(Step::Leave),
        2 => (1..2000_u32).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

pub(super) struct Proxy {
    pub(super) pid: i32,
    pub(super) connection: Option<u64>,
    pub(super) leaving: bool,
    pub(super) running: BTreeSet<AttemptId>,
    /// Of those, and of the ended ones: not known to be on record.
    pub(super) detaching: BTreeSet<AttemptId>,
    pub(super) ended: BTreeMap<AttemptId, Ended>,
    pub(super) to: VecDeque<Saying>,
    pub(super) from: VecDeque<Said>,
}

pub(super) enum Said {
    Ended(Box<Ended>),
    Detached(AttemptId),
}

pub(super) struct World {
    pub(super) ledger: Connection,
    pub(super) core: Core,
    pub(super) now: Timestamp,
    pub(super) proxies: Vec<Proxy>,
    pub(super) next_pid: i32,
    pub(super) next_connection: u64,
    pub(super) spawned: Vec<CallId>,
    pub(super) detached: Vec<CallId>,
    /// Calls with a place that are not on record.
    pub(super) reserved: Vec<NewCall>,
    pub(super) made: usize,
    /// How often the function ran for an attempt.
    pub(super) ran: BTreeMap<AttemptId, u32>,
    /// Outcomes as they were told to those who wait.
    pub(super) told: BTreeMap<CallId, Vec<CallOutcome>>,
}

pub(super) fn function(other: bool) -> FunctionKey {
    let app = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
    FunctionKey::new(app, if other { "notify" } else { "resize" }.parse().expect("a name"))
}

impl World {
    pub(super) fn new() -> Self {
        let ledger = crate::ledger::in_memory();
        let now = Timestamp::from_second(1_767_225_600).expect("a time");
        let mut world = Self {
            ledger,
            core: Core::default(),
            now,
            proxies: Vec::new(),
            next_pid: 100,
            next_connection: 1,
            spawned: Vec::new(),
            detached: Vec::new(),
            reserved: Vec::new(),
            made: 0,
            ran: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        world.new_proxy();
        world.tell_processes();
        world
    }

    pub(super) fn tell_processes(&mut self) {
        self.core.processes_are(self.proxies.iter().map(|proxy| proxy.pid).collect(), self.now);
    }

    pub(super) fn new_proxy(&mut self) {
        if self.proxies.len() < 3 {
            self.next_pid += 1;
            self.proxies.push(Proxy {
                pid: self.next_pid,
                connection: None,
                leaving: false,
                running: BTreeSet::new(),
                detaching: BTreeSet::new(),
                ended: BTreeMap::new(),
                to: VecDeque::new(),
                from: VecDeque::new(),
            });
            self.tell_processes();
        }
    }

    pub(super) fn connect(&mut self, at: usize) {
        let Some(proxy) = self.proxies.get_mut(at) else { return };
        if proxy.connection.is_some() {
            return;
        }
        proxy.connection = Some(self.next_connection);
        proxy.to.clear();
        // Whatever was on its way the other way is said again.
        proxy.from = proxy.unacknowledged().map(Box::new).map(Said::Ended).collect();
        proxy.from.extend(proxy.detaching.iter().copied().map(Said::Detached));
        let holding = proxy.running.iter().chain(proxy.ended.keys()).copied().collect();
        let line = Line { connection: self.next_connection, pid: proxy.pid, leaving: proxy.leaving, holding };
        self.next_connection += 1;
        self.core.line_up(&line, self.now);
    }

    pub(super) fn break_line(&mut self, at: usize) {
        // What was said before the line broke is heard.
        while self.listen(at) {}
        let Some(proxy) = self.proxies.get_mut(at) else { return };
        if let Some(connection) = proxy.connection.take() {
            self.core.line_gone(connection, self.now);
        }
    }

    pub(super) fn listen(&mut self, at: usize) -> bool {
        let Some(proxy) = self.proxies.get_mut(at) else { return false };
        let (Some(connection), Some(said)) = (proxy.connection, proxy.from.pop_front()) else { return false };
        match said {
            Said::Ended(ended) => self.core.ended(connection, *ended),
            Said::Detached(attempt) => {
                let call = Detached {
                    attempt,
                    function: function(false),
                    version: None,
                    actor: "ada".into(),
                    created_at: attempt.call.made_at(),
                };
                let runs = calls::detach(&self.ledger, &call, self.now).expect("recorded");
                self.core.detached(connection, attempt, &call.function, runs);
            }
        }
        true
    }

    pub(super) fn hear(&mut self, at: usize) -> bool {
        let Some(proxy) = self.proxies.get_mut(at) else { return false };
        let Some(saying) = proxy.to.pop_front() else { return false };
        match saying {
            Saying::Run(runs) => {
                for run in runs {
                    assert!(proxy.ran_never(run.attempt), "{} is sent to a proxy that has it", run.attempt);
                    proxy.running.insert(run.attempt);
                }
            }
            Saying::Cancel(attempts) => {
                for attempt in attempts {
                    if proxy.running.contains(&attempt) && !proxy.detaching.contains(&attempt) {
                        self.finish_attempt(at, attempt, AttemptOutcome::Cancelled);
                        return true;
                    }
                }
            }
            Saying::Kept(attempts) => {
                for attempt in attempts {
                    let over = proxy.ended.get(&attempt).cloned();
                    if proxy.detaching.remove(&attempt)
                        && let Some(ended) = over
                    {
                        proxy.from.push_back(Said::Ended(Box::new(ended)));
                    }
                }
            }
            Saying::Acknowledge(attempts) => {
                for attempt in attempts {
                    let recorded = calls::attempts(&self.ledger, attempt.call).expect("read");
                    let recorded = recorded.iter().find(|one| one.number == attempt.attempt);
                    assert!(
                        recorded.is_some_and(|one| one.end.is_some()),
                        "{attempt} is acknowledged without a record"
                    );
                    proxy.ended.remove(&attempt);
                }
            }
        }
        true
    }

    pub(super) fn finish(&mut self, at: usize, which: usize, outcome: AttemptOutcome) {
        let attempt = self.proxies.get(at).and_then(|proxy| proxy.running.iter().nth(which).copied());
        if let Some(attempt) = attempt {
            self.finish_attempt(at, attempt, outcome);
        }
    }

    pub(super) fn finish_attempt(&mut self, at: usize, attempt: AttemptId, outcome: AttemptOutcome) {
        let proxy = &mut self.proxies[at];
        proxy.running.remove(&attempt);
        *self.ran.entry(attempt).or_default() += 1;
        let error = (outcome != AttemptOutcome::Succeeded).then(|| CallError::new("Oops", "it broke"));
        let result = (outcome == AttemptOutcome::Succeeded)
            .then(|| CallResult { status: 200, payload: Payload::inline(None, attempt.to_string().into_bytes()) });
        let ended = Ended { attempt, end: AttemptEnd::without_report(outcome, self.now, error), result };
        proxy.ended.insert(attempt, ended.clone());
        if proxy.connection.is_some() && !proxy.detaching.contains(&attempt) {
            proxy.from.push_back(Said::Ended(Box::new(ended)));
        }
    }

    pub(super) fn turn(&mut self, disk_is_full: bool) {
        for function in self.core.without_room() {
            self.core.set_room(&function, ROOM);
        }
        for (function, limit) in self.core.looks(self.now) {
            let turns = calls::waiting(&self.ledger, &function, self.now, limit).expect("read");
            self.core.looked(&function, turns);
        }
        let work = self.core.work(self.now);
        if disk_is_full {
            self.core.failed(work);
            return;
        }
        let ended = work.endings.iter().map(|ending| {
            calls::end(&self.ledger, ending.attempt, &ending.end, ending.result.as_ref(), &POLICY, self.now)
                .expect("recorded")
        });
        let ended = ended.collect();
        let begun = calls::begin(&self.ledger, &work.beginnings, self.now).expect("recorded");
        for done in self.core.recorded(work, begun, ended, self.now) {
            self.told.entry(done.call).or_default().push(done.outcome);
        }
        for (connection, saying) in self.core.outgoing() {
            if let Some(proxy) = self.proxies.iter_mut().find(|proxy| proxy.connection == Some(connection)) {
                proxy.to.push_back(saying);
            }
        }
        for other in [false, true] {
            let (counted, flights) = self.core.flying(&function(other));
            assert!(counted == flights, "{counted} are counted, {flights} are there");
        }
    }

    pub(super) fn kill_controller(&mut self) {
        for proxy in &mut self.proxies {
            proxy.connection = None;
            proxy.to.clear();
            proxy.from.clear();
        }
        // It may die after the record and before it hands over.
        for (number, new) in std::mem::take(&mut self.reserved).into_iter().enumerate() {
            if number % 2 == 0 {
                calls::take_begun(&self.ledger, &new).expect("taken");
                self.spawned.push(new.id);
            }
        }
        let open = calls::open_attempts(&self.ledger).expect("read");
        self.core = Core::new(open, calls::functions_with_queue(&self.ledger).expect("read"));
        self.tell_processes();
    }

    pub(super) fn kill_proxy(&mut self, at: usize) {
        if at < self.proxies.len() {
            self.break_line(at);
            self.proxies.remove(at);
            self.tell_processes();
        }
    }

    fn new_call(&mut self, other: bool) -> NewCall {
        let number = self.made as u128;
        self.made += 1;
        NewCall {
            id: CallId::new(self.now, number),
            function: function(other),
            version: None,
            trigger: Trigger::Spawn,
            actor: Actor::Agent,
            created_at: self.now,
            due_at: self.now,
            scheduled_at: None,
            retry_until: None,
            body: Payload::inline(None, Vec::new()),
            key: None,
            redrive_of: None,
        }
    }

    pub(super) fn spawn(&mut self, other: bool) {
        let new = self.new_call(other);
        assert_eq!(calls::take(&self.ledger, &new).expect("taken"), Taken::New);
        self.spawned.push(new.id);
        self.core.spawned(&new.function);
    }

    pub(super) fn reserve(&mut self, other: bool) {
        let new = self.new_call(other);
        if self.core.reserve(&new.function, ROOM, new.id, self.now) {
            self.reserved.push(new);
        }
    }

    pub(super) fn record(&mut self, disk_is_full: bool) {
        let reserved = std::mem::take(&mut self.reserved);
        let asked: Vec<CallId> = reserved.iter().map(|new| new.id).collect();
        let mut begun = Vec::new();
        for new in reserved.iter().filter(|_| !disk_is_full) {
            let (taken, began) = calls::take_begun(&self.ledger, new).expect("taken");
            assert_eq!(taken, Taken::New);
            begun.extend(began);
            self.spawned.push(new.id);
        }
        self.core.begun(&asked, begun, self.now);
    }

    pub(super) fn detach(&mut self, at: usize) {
        let number = self.made as u128;
        let Some(proxy) = self.proxies.get_mut(at) else { return };
        self.made += 1;
        let attempt = AttemptId { call: CallId::new(self.now, number), attempt: 1 };
        proxy.running.insert(attempt);
        proxy.detaching.insert(attempt);
        if proxy.connection.is_some() {
            proxy.from.push_back(Said::Detached(attempt));
        }
        self.detached.push(attempt.call);
    }

    pub(super) fn cancel(&mut self, which: usize) {
        let detached = which.checked_sub(self.spawned.len()).and_then(|which| self.detached.get(which));
        let Some(call) = self.spawned.get(which).or(detached) else { return };
        match calls::cancel(&self.ledger, *call, &Actor::Agent, self.now).expect("recorded") {
            Cancelled::Asked(attempt) => self.core.cancelled(attempt),
            Cancelled::Done | Cancelled::Over(_) => {}
            Cancelled::Unknown => assert!(detached.is_some(), "{call} is not recorded"),
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Spawn(other) => self.spawn(other),
            Step::Reserve(other) => self.reserve(other),
            Step::Record(done) => self.record(!done),
            Step::Detach(at) => self.detach(at),
            Step::Cancel(which) => self.cancel(which),
            Step::Finish(at, which, outcome) => self.finish(at, which, outcome),
            Step::Hear(at) => drop(self.hear(at)),
            Step::Listen(at) => drop(self.listen(at)),
            Step::Turn => self.turn(false),
            Step::FailedTurn => self.turn(true),
            Step::KillController => self.kill_controller(),
            Step::KillProxy(at) => self.kill_proxy(at),
            Step::BreakLine(at) => self.break_line(at),
            Step::Connect(at) => self.connect(at),
            Step::Repeat(at) => {
                if let Some(proxy) = self.proxies.get_mut(at).filter(|proxy| proxy.connection.is_some()) {
                    let again: Vec<Said> = proxy.unacknowledged().map(Box::new).map(Said::Ended).collect();
                    proxy.from.extend(again);
                }
            }
            Step::NewProxy => self.new_proxy(),
            Step::Leave(at) => {
                if let Some(proxy) = self.proxies.get_mut(at) {
                    proxy.leaving = true;
                    if let Some(connection) = proxy.connection {
                        self.core.line_leaves(connection);
                    }
                }
            }
            Step::Wait(millis) => self.now += SignedDuration::from_millis(i64::from(millis)),
        }
    }

    /// No fault any more: everything there is must be carried out.
    pub(super) fn come_to_rest(&mut self) {
        while let Some(at) = self.proxies.iter().position(|proxy| proxy.leaving) {
            self.kill_proxy(at);
        }
        self.new_proxy();
        self.record(false);
        for _ in 0..1000 {
            self.now += SignedDuration::from_secs(1);
            self.turn(false);
            for at in 0..self.proxies.len() {
                self.connect(at);
                while self.hear(at) {}
                self.finish(at, 0, AttemptOutcome::Succeeded);
                while self.listen(at) {}
            }
            let quiet = self.proxies.iter().all(|proxy| proxy.running.is_empty() && proxy.ended.is_empty());
            let open = self.spawned.iter().any(|call| self.recorded(*call).state != CallState::Done)
                || self.detached.iter().any(|call| {
                    let known = calls::one(&self.ledger, *call).expect("read");
                    known.is_some_and(|call| call.state != CallState::Done)
                });
            if quiet && !open {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    pub(super) fn recorded(&self, call: CallId) -> calls::Call {
        calls::one(&self.ledger, call).expect("read").expect("a call is never forgotten")
    }
}

impl Proxy {
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = Ended> {
        self.ended.values().filter(|ended| !self.detaching.contains(&ended.attempt)).cloned()
    }

    pub(super) fn ran_never(&self, attempt: AttemptId) -> bool {
        !self.running.contains(&attempt) && !self.ended.contains_key(&attempt)
    }
}
