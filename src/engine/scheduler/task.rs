//! The loop: waits for the next instant or an event, decides, records, acts.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::clock::Clock;
use super::ends::{self, Ends};
use super::entry::Entry;
use super::lateness::Lateness;
use super::output::Outputs;
use super::ping::{Pings, Told};
use super::recording::{self, Job, Planned, Recorded};
use super::{Command, Commands, LONGEST_SLEEP, Scheduler, Wanted};
use crate::decide::runs::{Agenda, Decision, Runs};
use crate::domain::scheduled::defaults;
use crate::domain::{Actor, AppKey, CallId, FunctionKey, Scheduled};
use crate::engine::caller::{Caller, Done};
use crate::ledger::Ledger;
use crate::ledger::schedules::{self, ScheduleId};

/// Schedules whose runs start in one commit. The first of many at one instant wait for the last of them, but none for the
/// functions of those before.
const BATCH: usize = 1024;
/// What is due within this is told of ahead: longer than the loop ever sleeps.
const SOON: SignedDuration = SignedDuration::from_secs(3);
/// Without schedules the loop looks at the clock this often.
const IDLE_SLEEP: Duration = Duration::from_secs(60);
/// What could not be recorded is tried again after this.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// Most instants ahead of a clock that went back that are kept in mind; the record knows all.
pub(super) const MOST_AHEAD: u32 = 10_000;
/// Old runs are forgotten this often …
const PRUNING: Duration = Duration::from_secs(600);
/// … but at least so many of each schedule are kept …
const KEPT_AT_LEAST: u32 = 100;
/// … and at most so many.
const KEPT_AT_MOST: u32 = 10_000;

/// What the task is made from.
pub(in crate::engine) struct Beginning {
    pub ledger: Ledger,
    pub caller: Caller,
    /// What is live.
    pub live: Vec<(AppKey, Wanted)>,
    /// Where more comes from.
    pub scheduler: Scheduler,
    /// What people command.
    pub commands: Commands,
    /// Runs are kept for this long.
    pub keep: Duration,
    /// Where logs are.
    pub logs: PathBuf,
    /// What it goes by.
    pub clock: Clock,
    pub shutdown: CancellationToken,
}

/// Starts the task.
pub(in crate::engine) fn start(beginning: Beginning) -> JoinHandle<()> {
    let ends = beginning.caller.ends();
    let pings = match Pings::new(beginning.shutdown.clone()) {
        Ok(pings) => Some(pings),
        Err(error) => {
            error!(%error, "schedules cannot be pinged for");
            None
        }
    };
    let outputs = Outputs::new(beginning.ledger.clone(), beginning.logs, beginning.shutdown.clone());
    let task = Task {
        clock: beginning.clock,
        ledger: beginning.ledger.clone(),
        caller: beginning.caller.clone(),
        pings,
        outputs,
        lateness: beginning.scheduler.lateness.clone(),
        keep: beginning.keep,
        entries: HashMap::new(),
        by_function: BTreeMap::new(),
        broken: BTreeMap::new(),
        agenda: Agenda::default(),
        seen: Timestamp::MIN,
        expected: Timestamp::MIN,
        look_again: false,
        pruned: None,
    };
    let Beginning { live, scheduler, commands, shutdown, .. } = beginning;
    tokio::spawn(task.run(live, scheduler, commands.0, ends, shutdown))
}

pub(super) struct Task {
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) caller: Caller,
    pub(super) pings: Option<Pings>,
    outputs: Outputs,
    lateness: Lateness,
    pub(super) keep: Duration,
    pub(super) entries: HashMap<ScheduleId, Entry>,
    pub(super) by_function: BTreeMap<FunctionKey, ScheduleId>,
    /// Schedules that cannot be planned on this machine, with the reason.
    pub(super) broken: BTreeMap<FunctionKey, (Scheduled, String)>,
    pub(super) agenda: Agenda<ScheduleId>,
    /// The clock when it was last read.
    seen: Timestamp,
    /// What is due before this was told of ahead.
    expected: Timestamp,
    /// Ends may have been missed.
    look_again: bool,
    pruned: Option<tokio::time::Instant>,
}

/// Decisions about one schedule that are to be recorded.
pub(super) struct Change {
    pub(super) id: ScheduleId,
    pub(super) before: Runs,
    pub(super) decisions: Vec<Decision>,
    pub(super) actor: Option<Actor>,
}

impl Task {
    async fn run(
        mut self,
        live: Vec<(AppKey, Wanted)>,
        scheduler: Scheduler,
        mut commands: mpsc::Receiver<Command>,
        mut ends: broadcast::Receiver<Done>,
        shutdown: CancellationToken,
    ) {
        let mailbox = std::sync::Arc::clone(&scheduler.mailbox);
        drop(scheduler);
        self.begin(live).await;
        self.catch_up_on_ends().await;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                ended = ends::next(&mut ends) => match ended {
                    Ends::These(calls) => self.on_ends(calls).await,
                    Ends::Lost => self.catch_up_on_ends().await,
                    Ends::Over => return,
                },
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
                () = mailbox.changed.notified() => self.on_live(mailbox.take()).await,
                () = self.clock.sleep(self.sleep()) => {}
            }
            self.tick().await;
        }
    }

    /// Until the next instant, and never long: the clock may be moved meanwhile.
    fn sleep(&self) -> Duration {
        let Some(next) = self.agenda.next() else { return IDLE_SLEEP };
        let until = next.duration_since(self.clock.now());
        Duration::try_from(until).unwrap_or(Duration::ZERO).min(LONGEST_SLEEP)
    }

    /// What is due by the clock.
    async fn tick(&mut self) {
        let now = self.clock.now();
        if now < self.seen || self.seen == Timestamp::MIN {
            self.on_step_back(now).await;
        }
        self.seen = now;
        loop {
            let due = self.agenda.take_due(now, BATCH);
            if due.is_empty() {
                break;
            }
            let changes = due.into_iter().filter_map(|id| {
                let entry = self.entries.get_mut(&id)?;
                let before = entry.runs.clone();
                let decisions = entry.runs.tick(&entry.rules, now);
                Some(Change { id, before, decisions, actor: None })
            });
            let changes = changes.collect();
            self.carry_out(changes, now).await;
        }
        if std::mem::take(&mut self.look_again) {
            self.catch_up_on_ends().await;
        }
        self.expect(now);
        self.prune(now).await;
    }

    /// The clock was set back. Where that cannot be waited out, what it had passed comes again, but for what is on
    /// record instant by instant; gaps that it had not really passed are cut.
    pub(super) async fn on_step_back(&mut self, now: Timestamp) {
        let ids: Vec<_> = self.entries.values().filter(|entry| entry.runs.is_ahead_of(&entry.rules, now)).collect();
        let ahead: Vec<_> = ids.iter().map(|entry| (entry.id, entry.rules.clone())).collect();
        for (id, rules) in ahead {
            let clock = now.checked_sub(rules.offset).unwrap_or(Timestamp::MIN);
            let due = rules.due.clone();
            let known = self.ledger.write(move |ledger| {
                for gap in schedules::gaps_beyond(ledger, id, clock)? {
                    schedules::cut_gap(ledger, id, gap.first, gap.cut(&due, clock).as_ref())?;
                }
                schedules::decided(ledger, id, clock)?;
                schedules::instants_after(ledger, id, clock, MOST_AHEAD)
            });
            match (known.await, self.entries.get_mut(&id)) {
                (Ok(known), Some(entry)) => {
                    warn!(function = %entry.function, "the clock was set back; its schedule goes back with it");
                    entry.runs.went_back(&rules, now, known);
                    self.agenda.set(id, entry.runs.wakes_at(&rules));
                }
                (Ok(_), None) => {}
                (Err(error), _) => error!(%error, "a schedule cannot follow the clock back; tried again"),
            }
        }
    }

    /// Records decisions and acts on them, and on what follows from them.
    pub(super) async fn carry_out(&mut self, mut changes: Vec<Change>, now: Timestamp) {
        // Each round ends runs that turned out to be on record already; the bound only guards against a mistake.
        for _ in 0..8 {
            for change in &changes {
                if let Some(entry) = self.entries.get(&change.id) {
                    self.agenda.set(change.id, entry.runs.wakes_at(&entry.rules));
                }
            }
            changes.retain(|change| !change.decisions.is_empty());
            if changes.is_empty() {
                return;
            }
            let jobs: Vec<Job> = changes.iter().filter_map(|change| self.job(change, now)).collect();
            let reserved = self.caller.reserve(starts(&jobs)).await;
            let begins = reserved.calls().clone();
            let recorded = self.ledger.write(move |ledger| recording::record(ledger, &jobs, &begins, now)).await;
            let (recorded, begun) = match recorded {
                Ok(recorded) => recorded,
                Err(error) => {
                    error!(%error, "runs of schedules cannot be recorded; none of them starts, they are decided anew");
                    self.take_back(changes, now);
                    return;
                }
            };
            reserved.begun(begun).await;
            self.cancel(&changes).await;
            changes = self.act(recorded);
        }
    }

    fn job(&self, change: &Change, now: Timestamp) -> Option<Job> {
        let entry = self.entries.get(&change.id)?;
        let planned = |decision: &Decision| Planned {
            decision: decision.clone(),
            call: CallId::new(now, fastrand::u128(..)),
            slot_end: match decision {
                Decision::Start { at, .. } => entry.slot_end((*at).max(entry.runs.decided())),
                _ => None,
            },
        };
        Some(Job {
            id: change.id,
            function: entry.function.clone(),
            decided: entry.runs.decided(),
            decisions: change.decisions.iter().map(planned).collect(),
            body: entry.scheduled.body.clone(),
            notify_after: entry.scheduled.notify_after,
            actor: change.actor.clone(),
        })
    }

    /// Has what will be due soon looked up before it is.
    fn expect(&mut self, now: Timestamp) {
        let Ok(soon) = now.checked_add(SOON) else { return };
        let (from, until) = (self.expected.max(now), soon);
        let due = self.agenda.between(from, until);
        let functions: Vec<_> =
            due.filter_map(|id| self.entries.get(&id)).map(|entry| entry.function.clone()).collect();
        self.expected = until;
        if !functions.is_empty() {
            self.caller.expect(functions);
        }
    }

    fn take_back(&mut self, changes: Vec<Change>, now: Timestamp) {
        for change in changes {
            if let Some(entry) = self.entries.get_mut(&change.id) {
                entry.runs = change.before;
                self.agenda.set(change.id, now.checked_add(RETRY).ok());
            }
        }
    }

    /// Runs that make room. What takes their place is on record.
    async fn cancel(&self, changes: &[Change]) {
        for change in changes {
            for decision in &change.decisions {
                let Decision::Cancel { at } = decision else { continue };
                let call = self.entries.get(&change.id).and_then(|entry| entry.calls.get(at)).copied();
                if let Some(call) = call
                    && let Err(error) = self.caller.cancel(call, Actor::Agent).await
                {
                    warn!(%error, call = %call, "a run that is to be replaced cannot be cancelled");
                }
            }
        }
    }

    /// Has recorded runs carried out. Answers what follows for those that were on record already.
    fn act(&mut self, recorded: Vec<Recorded>) -> Vec<Change> {
        let mut follow = Vec::new();
        for recorded in recorded {
            match recorded {
                Recorded::Started { id, at, call, asked, begun } => {
                    let Some(entry) = self.entries.get_mut(&id) else { continue };
                    entry.calls.insert(at, call);
                    if !begun {
                        self.caller.poke(entry.function.clone());
                    }
                    if !asked {
                        self.lateness.note(self.clock.now().duration_since(at).saturating_sub(entry.rules.offset));
                    }
                    if let Some((pings, ping)) = self.pings.as_ref().zip(entry.scheduled.ping.as_ref()) {
                        pings.send(ping, &entry.function, call, Told::Started);
                    }
                }
                Recorded::Known { id, at } => {
                    let Some(entry) = self.entries.get_mut(&id) else { continue };
                    let before = entry.runs.clone();
                    let decisions = entry.runs.ended(&entry.rules, at);
                    follow.push(Change { id, before, decisions, actor: None });
                }
            }
        }
        follow
    }

    /// Calls have ended.
    async fn on_ends(&mut self, calls: Vec<CallId>) {
        let now = self.clock.now();
        let patience: HashMap<_, _> =
            self.entries.values().map(|entry| (entry.id, entry.scheduled.notify_after)).collect();
        let told = move |id| patience.get(&id).copied().unwrap_or(defaults::NOTIFY_AFTER);
        let ended = self.ledger.write(move |ledger| recording::record_ends(ledger, &calls, told, now)).await;
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                error!(%error, "the ends of runs cannot be recorded; they are looked for again");
                self.look_again = true;
                return;
            }
        };
        let mut changes = Vec::new();
        for run in ended {
            self.outputs.keep(&run);
            let Some(entry) = self.entries.get_mut(&run.id) else { continue };
            entry.calls.remove(&run.at);
            if let Some((pings, ping)) = self.pings.as_ref().zip(entry.scheduled.ping.as_ref()) {
                let told = Told::Ended { outcome: run.outcome, exit_code: run.exit_code };
                pings.send(ping, &entry.function, run.call, told);
            }
            let before = entry.runs.clone();
            let decisions = entry.runs.ended(&entry.rules, run.at);
            changes.push(Change { id: run.id, before, decisions, actor: None });
        }
        self.carry_out(changes, now).await;
    }

    /// Ends that nobody told of: before this task was there, or too many at once.
    async fn catch_up_on_ends(&mut self) {
        match self.ledger.read(schedules::running).await {
            Ok(calls) if calls.is_empty() => {}
            Ok(calls) => self.on_ends(calls).await,
            Err(error) => {
                error!(%error, "runs under way cannot be read; tried again");
                self.look_again = true;
            }
        }
    }

    async fn prune(&mut self, now: Timestamp) {
        if self.pruned.is_some_and(|last| last.elapsed() < PRUNING) {
            return;
        }
        self.pruned = Some(tokio::time::Instant::now());
        let keep = SignedDuration::try_from(self.keep).unwrap_or(SignedDuration::MAX);
        let before = now.checked_sub(keep).unwrap_or(Timestamp::MIN);
        let pruned = self.ledger.write(move |ledger| schedules::prune(ledger, before, KEPT_AT_LEAST, KEPT_AT_MOST));
        if let Err(error) = pruned.await {
            warn!(%error, "old runs cannot be forgotten");
        }
    }
}

/// The calls that these make now.
fn starts(jobs: &[Job]) -> Vec<(FunctionKey, CallId)> {
    let starting = |job: &Job| {
        let calls = job.decisions.iter().filter(|planned| matches!(planned.decision, Decision::Start { .. }));
        calls.map(|planned| (job.function.clone(), planned.call)).collect::<Vec<_>>()
    };
    jobs.iter().flat_map(starting).collect()
}
