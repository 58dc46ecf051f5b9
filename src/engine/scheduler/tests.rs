//! The scheduler itself, with a real ledger, on a clock that the test turns: through changes of the clocks, jumps,
//! a machine that sleeps, and deaths at any moment.
//!
//! Runs are carried out by nobody; they end when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::turned::Turned;
use super::{Beginning, Clock, Scheduler, Wanted, channel, entry, start};
use crate::decide::due::Due;
use crate::domain::manifest::Millis;
use crate::domain::{Actor, AppKey, AttemptOutcome, CallOutcome, FunctionKey, Overlap, Scheduled, Trigger, When};
use crate::engine::caller::Caller;
use crate::ledger::schedules::{self, Run, RunState};
use crate::ledger::{Ledger, apps};

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// Longer than any history here, so that nothing of it is forgotten.
const KEPT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// So many instants of a history are looked at one by one.
const LOOKED_AT: usize = 20_000;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

fn cron(expression: &str, timezone: &str) -> Scheduled {
    scheduled(When::Cron { expression: expression.into(), timezone: timezone.into() })
}

fn every(seconds: u64) -> Scheduled {
    scheduled(When::Every(Millis(seconds * 1000)))
}

fn scheduled(when: When) -> Scheduled {
    Scheduled {
        when,
        overlap: Overlap::Allow,
        catch_up: Millis(0),
        jitter: Millis(0),
        body: None,
        notify_after: 1,
        ping: None,
    }
}

/// A scheduler that runs.
struct Running {
    scheduler: Scheduler,
    task: JoinHandle<()>,
}

/// A machine with a ledger, a clock, and most of the time a scheduler.
struct World {
    dir: tempfile::TempDir,
    ledger: Ledger,
    caller: Caller,
    clock: Arc<Turned>,
    key: AppKey,
    wanted: Wanted,
    running: Option<Running>,
    began: Timestamp,
}

impl World {
    async fn new(now: &str, schedules: &[(&str, Scheduled)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ledger = Ledger::open(&dir.path().join("ledger.db")).expect("a ledger");
        let key = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
        let (app, now) = (key.clone(), time(now));
        ledger.write(move |ledger| apps::ensure_uploaded(ledger, &app, now)).await.expect("an app");
        let caller = Caller::recorder(ledger.clone(), dir.path().to_owned());
        let wanted = schedules.iter().map(|(name, scheduled)| (name.parse().expect("a name"), scheduled.clone()));
        let wanted = wanted.collect();
        let clock = Arc::new(Turned::new(now));
        let mut world = Self { dir, ledger, caller, clock, key, wanted, running: None, began: now };
        world.start().await;
        world
    }

    fn begin(&mut self) {
        let (scheduler, commands) = channel();
        let task = start(Beginning {
            ledger: self.ledger.clone(),
            caller: self.caller.clone(),
            live: vec![(self.key.clone(), self.wanted.clone())],
            scheduler: scheduler.clone(),
            commands,
            keep: KEPT,
            logs: self.dir.path().to_owned(),
            clock: Clock::Turned(Arc::clone(&self.clock)),
            shutdown: CancellationToken::new(),
        });
        self.running = Some(Running { scheduler, task });
    }

    async fn start(&mut self) {
        self.begin();
        self.clock.to(self.clock.now()).await;
    }

    /// The process dies where it stands.
    async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            let ended = running.task.await;
            assert!(ended.is_err_and(|error| error.is_cancelled()), "it had ended before it was killed");
        }
    }

    async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Time passes, and the scheduler is there all the while: it wakes when it asks to.
    async fn live(&self, length: SignedDuration) {
        let end = self.clock.now() + length;
        let mut sleep = self.clock.settled().await;
        while self.clock.now() < end {
            let step = SignedDuration::try_from(sleep).expect("a length").max(SignedDuration::from_micros(1));
            sleep = self.clock.to((self.clock.now() + step).min(end)).await;
        }
    }

    async fn live_until(&self, until: &str) {
        self.live(time(until).duration_since(self.clock.now())).await;
    }

    /// The clock shows another time at once: it was moved, or the machine slept.
    async fn jump(&self, by: SignedDuration) {
        self.clock.to(self.clock.now() + by).await;
    }

    /// Runs under way end; the oldest only, or all.
    async fn end(&self, all: bool, outcome: AttemptOutcome) {
        let mut running = self.ledger.read(schedules::running).await.expect("read");
        if !all {
            running.truncate(1);
        }
        for call in running {
            self.caller.carried_out(call, outcome, self.clock.now()).await;
        }
        self.jump(SignedDuration::ZERO).await;
    }

    fn function(&self, name: &str) -> FunctionKey {
        FunctionKey::new(self.key.clone(), name.parse().expect("a name"))
    }

    /// Everything on record of a schedule, from the first instant to the last.
    async fn history(&self, name: &str) -> Vec<Run> {
        let function = self.function(name);
        let read = self.ledger.read(move |ledger| {
            let record = schedules::one(ledger, &function)?.expect("a schedule");
            schedules::history(ledger, record.id, None, None, u32::MAX)
        });
        let mut runs = read.await.expect("read");
        runs.reverse();
        runs
    }

    /// The instants whose runs have started, with the moment at which they did.
    async fn started(&self, name: &str) -> Vec<(Timestamp, Timestamp)> {
        let runs = self.history(name).await;
        runs.iter().filter_map(|run| Some((run.at, run.started_at?))).collect()
    }

    /// Each started at its instant and at no other time.
    async fn assert_started_on_time(&self, name: &str, instants: &[&str]) {
        let expected: Vec<_> = instants.iter().map(|text| (time(text), time(text))).collect();
        assert_eq!(self.started(name).await, expected, "{name}");
    }

    /// Exactly one record stands for each instant from the beginning to now.
    async fn assert_one_record_for_each(&self, name: &str) {
        let scheduled = self.wanted.get(&self.function(name).function).expect("a schedule");
        let rules = entry::rules(&self.function(name), scheduled).expect("rules");
        let (mut rows, mut gaps) = (BTreeSet::new(), Vec::new());
        for run in self.history(name).await {
            match run.last {
                Some(last) => gaps.push((run.at, last, run.count, run.more)),
                None if run.outcome == Some(CallOutcome::Missed) => gaps.push((run.at, run.at, 1, false)),
                None => assert!(rows.insert(run.at), "{} is on record twice", run.at),
            }
        }
        for (index, (first, last, count, more)) in gaps.iter().enumerate() {
            assert_eq!(rows.range(first..=last).next(), None, "missed, and on record");
            assert!(gaps.iter().skip(index + 1).all(|(next, ..)| next > last), "missed twice: {gaps:?}");
            let passed = upcoming(&rules.due, *first - SignedDuration::from_micros(1), *last).take(5000).count();
            assert!(if *more { passed > *count as usize } else { passed == *count as usize }, "{first}: {passed}");
        }
        let in_a_gap = |at: &Timestamp| gaps.iter().any(|(first, last, ..)| first <= at && at <= last);
        let (after, until) = (self.began - rules.offset, self.clock.now() - rules.offset);
        let expected: BTreeSet<_> = upcoming(&rules.due, after, until).take(LOOKED_AT).collect();
        for at in &expected {
            assert!(rows.contains(at) || in_a_gap(at), "{name}: {at} has no record");
        }
        // A clock that was set back before the beginning has more instants, but no moment that is none.
        for at in &rows {
            assert_eq!(rules.due.next(*at - SignedDuration::from_micros(1)), Some(*at), "{name} ran unplanned");
        }
    }
}

fn upcoming(due: &Due, after: Timestamp, last: Timestamp) -> impl Iterator<Item = Timestamp> {
    due.upcoming(after).take_while(move |at| *at <= last)
}

#[tokio::test]
async fn fixed_times_run_once_through_a_gap_of_the_clocks() {
    let schedules = [
        ("night", cron("30 2 * * *", "Europe/Oslo")),
        ("often", cron("*/30 * * * *", "Europe/Oslo")),
        ("ten", every(600)),
    ];
    let mut world = World::new("2026-03-28T23:50:00Z", &schedules).await;
    world.live_until("2026-03-29T00:59:59.5Z").await;
    world.restart().await;
    world.live_until("2026-03-29T02:10:00Z").await;
    // 02:30 is not there that night; the clocks go from 02:00 to 03:00 at 01:00 UTC.
    world.assert_started_on_time("night", &["2026-03-29T01:00:00Z"]).await;
    let often = [
        "2026-03-29T00:00:00Z",
        "2026-03-29T00:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-29T01:30:00Z",
        "2026-03-29T02:00:00Z",
    ];
    world.assert_started_on_time("often", &often).await;
    assert_eq!(world.started("ten").await.len(), 14);
    for name in ["night", "often", "ten"] {
        world.assert_one_record_for_each(name).await;
    }
}

#[tokio::test]
async fn fixed_times_run_once_and_others_twice_where_the_clocks_show_an_hour_twice() {
    let schedules = [("night", cron("30 2 * * *", "Europe/Oslo")), ("hourly", cron("*/30 2 * * *", "Europe/Oslo"))];
    let mut world = World::new("2026-10-24T23:50:00Z", &schedules).await;
    world.live_until("2026-10-25T00:45:00Z").await;
    world.restart().await;
    world.live_until("2026-10-25T02:10:00Z").await;
    world.assert_started_on_time("night", &["2026-10-25T00:30:00Z"]).await;
    let both = ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"];
    world.assert_started_on_time("hourly", &both).await;
    world.assert_one_record_for_each("night").await;
    world.assert_one_record_for_each("hourly").await;
}

#[tokio::test]
async fn a_clock_that_goes_back_an_hour_starts_nothing_twice() {
    let mut world =
        World::new("2026-06-15T12:00:30Z", &[("ten", every(600)), ("cron", cron("*/10 * * * *", "UTC"))]).await;
    world.live(seconds(HOUR)).await;
    world.end(true, AttemptOutcome::Succeeded).await;
    world.jump(seconds(-HOUR)).await;
    world.live(seconds(HOUR / 2)).await;
    world.restart().await;
    world.live(seconds(HOUR)).await;
    let hours: Vec<_> = (1..10).map(|ten| time("2026-06-15T12:00:00Z") + seconds(600 * ten)).collect();
    for name in ["ten", "cron"] {
        let started = world.started(name).await;
        assert_eq!(started.iter().map(|(at, _)| *at).collect::<Vec<_>>(), hours, "{name}");
        assert!(started.iter().all(|(at, started)| at == started), "{name}: each at its first time: {started:?}");
        world.assert_one_record_for_each(name).await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_a_year_and_back_neither_fires_twice_nor_loops() {
    let mut world = World::new("2026-06-15T12:00:00Z", &[("minute", cron("* * * * *", "UTC"))]).await;
    world.live(seconds(150)).await;
    world.jump(seconds(YEAR)).await;
    // Of half a million instants one record stands for those that passed, and what is due starts.
    let after = world.history("minute").await;
    let gaps: Vec<_> = after.iter().filter(|run| run.outcome == Some(CallOutcome::Missed)).collect();
    assert_eq!((after.len(), gaps.len()), (3, 1), "{after:?}");
    assert!(gaps[0].more, "more than are counted: {:?}", gaps[0]);
    world.live(seconds(100)).await;
    // The year was an error: its minutes come again, but for those two that passed meanwhile, and those that ran.
    world.jump(seconds(-YEAR)).await;
    world.live(seconds(200)).await;
    let started: Vec<_> = world.started("minute").await.into_iter().map(|(at, _)| at).collect();
    let minutes = [1, 2, 5, 6, 7].map(|minute| time("2026-06-15T12:00:00Z") + seconds(60 * minute));
    let in_a_year = ["2027-06-15T12:03:00Z", "2027-06-15T12:04:00Z"].map(time);
    assert_eq!(started, [minutes.as_slice(), &in_a_year].concat());
    world.restart().await;
    world.live(seconds(61)).await;
    assert_eq!(world.started("minute").await.len(), 8);
    world.assert_one_record_for_each("minute").await;
}

#[tokio::test]
async fn a_machine_that_slept_misses_what_passed_and_catches_up_with_the_latest_where_that_is_wanted() {
    let caught = Scheduled { catch_up: Millis(3_600_000), ..cron("*/10 * * * *", "UTC") };
    let world =
        World::new("2026-06-15T12:00:00Z", &[("missed", cron("*/10 * * * *", "UTC")), ("caught", caught)]).await;
    world.jump(seconds(35 * 60)).await;
    world.live_until("2026-06-15T12:41:00Z").await;
    world.assert_started_on_time("missed", &["2026-06-15T12:40:00Z"]).await;
    let started = world.started("caught").await;
    let late = (time("2026-06-15T12:30:00Z"), time("2026-06-15T12:35:00Z"));
    assert_eq!(started, [late, (time("2026-06-15T12:40:00Z"), time("2026-06-15T12:40:00Z"))]);
    for name in ["missed", "caught"] {
        world.assert_one_record_for_each(name).await;
        let missed: u32 = world
            .history(name)
            .await
            .iter()
            .filter(|run| run.outcome == Some(CallOutcome::Missed))
            .map(|run| run.count)
            .sum();
        assert_eq!(missed, if name == "missed" { 3 } else { 2 });
    }
}

#[tokio::test]
async fn runs_that_wait_survive_a_death_and_start_in_their_order() {
    let queued = Scheduled { overlap: Overlap::Queue, ..every(60) };
    let mut world = World::new("2026-06-15T12:00:00Z", &[("one", queued)]).await;
    world.live(seconds(190)).await;
    let states = |runs: &[Run]| runs.iter().map(|run| run.state).collect::<Vec<_>>();
    let history = world.history("one").await;
    assert_eq!(states(&history), [RunState::Running, RunState::Waiting, RunState::Waiting]);
    world.restart().await;
    world.end(false, AttemptOutcome::Failed).await;
    let history = world.history("one").await;
    assert_eq!(states(&history), [RunState::Done, RunState::Running, RunState::Waiting]);
    world.end(false, AttemptOutcome::Succeeded).await;
    world.end(false, AttemptOutcome::Succeeded).await;
    let history = world.history("one").await;
    let outcomes: Vec<_> = history.iter().map(|run| run.outcome).collect();
    assert_eq!(outcomes, [Some(CallOutcome::Failed), Some(CallOutcome::Succeeded), Some(CallOutcome::Succeeded)]);
    world.assert_one_record_for_each("one").await;
}

#[tokio::test]
async fn a_run_that_is_asked_for_stands_beside_the_schedule() {
    let world = World::new("2026-06-15T12:00:30Z", &[("ten", every(600))]).await;
    let running = world.running.as_ref().expect("running");
    let asked = running.scheduler.run(Actor::Agent, world.function("ten")).await.expect("started");
    assert!(asked.call.is_some());
    world.live(seconds(600)).await;
    let history = world.history("ten").await;
    let triggers: Vec<_> = history.iter().map(|run| run.trigger).collect();
    assert_eq!(triggers, [Trigger::Manual, Trigger::Schedule]);
}

/// What happens next, from numbers that are the same each time.
async fn happen(world: &mut World, random: &mut fastrand::Rng) {
    match random.u8(0..12) {
        0..=3 => world.live(seconds(random.i64(1..400))).await,
        4 | 5 => world.jump(seconds(random.i64(0..8000))).await,
        6 => {
            let by = [-1, 1, -59, -61, -HOUR, HOUR, -5 * HOUR, 26 * HOUR, YEAR, -YEAR];
            world.jump(seconds(by[random.usize(0..by.len())])).await;
        }
        7 => world.restart().await,
        8 | 9 => {
            // Killed while it does what the new time asks for, wherever that is; back after a while.
            world.clock.set(world.clock.now() + seconds(random.i64(0..700)));
            for _ in 0..random.u8(0..60) {
                tokio::task::yield_now().await;
            }
            world.kill().await;
            world.clock.set(world.clock.now() + seconds(random.i64(0..100)));
            world.start().await;
        }
        10 => world.end(false, AttemptOutcome::Failed).await,
        _ => world.end(true, AttemptOutcome::Succeeded).await,
    }
}

#[tokio::test]
async fn every_instant_has_exactly_one_record_whatever_happens() {
    let expressions = [
        cron("* * * * *", "Europe/Oslo"),
        cron("*/7 * * * *", "Australia/Lord_Howe"),
        cron("30 1,2,3 * * *", "Europe/Oslo"),
        cron("5-9 0-4 * * *", "America/New_York"),
        every(7),
        every(60),
        every(5400),
    ];
    let beginnings = [
        "2026-03-29T00:20:00Z",
        "2026-10-25T00:10:00.25Z",
        "2026-11-01T05:00:00.999Z",
        "2026-04-04T14:10:00Z",
        "2026-06-15T12:00:00Z",
    ];
    let overlaps = [Overlap::Skip, Overlap::Queue, Overlap::Replace, Overlap::Allow];
    let histories = std::env::var("LANDFALL_TEST_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    for seed in 0..histories {
        let mut random = fastrand::Rng::with_seed(seed);
        let schedules: BTreeMap<String, Scheduled> = (0..4)
            .map(|number| {
                let scheduled = Scheduled {
                    overlap: overlaps[random.usize(0..overlaps.len())],
                    catch_up: Millis([0, 30_000, 3_600_000][random.usize(0..3)]),
                    jitter: Millis([0, 20_000][random.usize(0..2)]),
                    ..expressions[random.usize(0..expressions.len())].clone()
                };
                (format!("f{number}"), scheduled)
            })
            .collect();
        let schedules: Vec<(&str, Scheduled)> =
            schedules.iter().map(|(name, scheduled)| (name.as_str(), scheduled.clone())).collect();
        let mut world = World::new(beginnings[random.usize(0..beginnings.len())], &schedules).await;
        let mut furthest = world.clock.now();
        for _ in 0..random.usize(5..25) {
            happen(&mut world, &mut random).await;
            furthest = furthest.max(world.clock.now());
        }
        // In the end the clock is where it has been before, so that nothing is left ahead of it.
        world.clock.to(furthest + seconds(3700)).await;
        world.restart().await;
        for (name, _) in &schedules {
            println!("seed {seed}, {name}");
            world.assert_one_record_for_each(name).await;
        }
    }
}
