//! Generated histories of a schedule with a clock that does everything clocks do: exactly one record per instant.
//!
//! The record is a fake of the ledger's: a row per instant, and gaps. It refuses what the ledger would refuse.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::Schedule;
use crate::domain::schedule::Every;

/// What happens to the machine.
#[derive(Debug, Clone)]
enum Step {
    /// The scheduler lives on for so many seconds and wakes as it asks to, at least every second of them.
    Live(u16),
    /// The machine sleeps, or the process is not there, for so many seconds; then the record is read anew or not.
    Away { seconds: u32, restart: bool },
    /// The clock is moved.
    Jump(i64),
    /// The oldest run ends.
    End,
    /// Every run ends.
    EndAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Running,
    Waiting,
    Done,
    Skipped,
}

/// The fake ledger.
#[derive(Debug, Default)]
struct Record {
    rows: BTreeMap<Timestamp, Row>,
    gaps: Vec<Gap>,
}

struct World {
    rules: Rules,
    runs: Runs,
    record: Record,
    now: Timestamp,
    most_running: usize,
}

impl World {
    fn new(rules: Rules, now: Timestamp) -> Self {
        let runs = Runs::new(shifted(now, rules.offset));
        Self { rules, runs, record: Record::default(), now, most_running: 0 }
    }

    fn in_a_gap(&self, at: Timestamp) -> bool {
        self.record.gaps.iter().any(|gap| gap.first <= at && at <= gap.last)
    }

    fn note(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Start { at, cause: Cause::Waited } => self.change(at, Row::Waiting, Row::Running),
                Decision::Start { at, .. } => self.insert(at, Row::Running),
                Decision::Wait { at } => self.insert(at, Row::Waiting),
                Decision::Skip { at } => self.insert(at, Row::Skipped),
                Decision::GiveUp { at } => self.change(at, Row::Waiting, Row::Skipped),
                Decision::Cancel { at } => assert_eq!(self.record.rows.get(&at), Some(&Row::Running), "{at}"),
                Decision::Missed(gap) => {
                    assert!(gap.first <= gap.last && gap.count > 0, "{gap:?}");
                    let inside = self.record.rows.range(gap.first..=gap.last).next();
                    assert_eq!(inside, None, "recorded, and in {gap:?}");
                    let apart = self.record.gaps.iter().all(|other| other.last < gap.first || gap.last < other.first);
                    assert!(apart, "{gap:?} is missed twice: {:?}", self.record.gaps);
                    self.record.gaps.push(gap);
                }
                Decision::Resumed => unreachable!("nobody pauses"),
            }
        }
        let running = self.record.rows.values().filter(|row| **row == Row::Running).count();
        self.most_running = self.most_running.max(running);
    }

    fn insert(&mut self, at: Timestamp, row: Row) {
        assert!(!self.in_a_gap(at), "{at} was missed and comes now");
        assert!(at <= shifted(self.now, self.rules.offset), "{at} comes too early");
        assert_eq!(self.record.rows.insert(at, row), None, "{at} comes twice");
    }

    fn change(&mut self, at: Timestamp, from: Row, to: Row) {
        assert_eq!(self.record.rows.insert(at, to), Some(from), "{at}");
    }

    /// As the engine wakes.
    fn wake(&mut self) {
        if self.runs.is_ahead_of(&self.rules, self.now) {
            let clock = shifted(self.now, self.rules.offset);
            let due = &self.rules.due;
            self.record.gaps = self.record.gaps.iter().filter_map(|gap| gap.cut(due, clock)).collect();
            let ahead = self.ahead_of(clock);
            self.runs.went_back(&self.rules, self.now, ahead);
        }
        let decisions = self.runs.tick(&self.rules, self.now);
        self.note(decisions);
    }

    fn ahead_of(&self, decided: Timestamp) -> BTreeSet<Timestamp> {
        self.record.rows.keys().copied().filter(|at| *at > decided).collect()
    }

    fn restart(&mut self) {
        let those = |wanted: Row| self.record.rows.iter().filter(move |(_, row)| **row == wanted).map(|(at, _)| *at);
        let (running, waiting) = (those(Row::Running).collect(), those(Row::Waiting).collect());
        let ahead = self.ahead_of(self.runs.decided());
        self.runs = Runs::recorded(self.runs.decided(), None, running, waiting, ahead);
    }

    fn end(&mut self, at: Timestamp) {
        self.change(at, Row::Running, Row::Done);
        let decisions = self.runs.ended(&self.rules, at);
        self.note(decisions);
    }

    fn run(&mut self, step: &Step) {
        let by = |now: &mut Timestamp, seconds: i64| *now += SignedDuration::from_secs(seconds);
        match step {
            Step::Live(seconds) => {
                let end = self.now + SignedDuration::from_secs(i64::from(*seconds));
                while self.now < end {
                    by(&mut self.now, 1);
                    self.wake();
                }
            }
            Step::Away { seconds, restart } => {
                by(&mut self.now, i64::from(*seconds));
                if *restart {
                    self.restart();
                }
                self.wake();
            }
            Step::Jump(seconds) => {
                by(&mut self.now, *seconds);
                self.wake();
            }
            Step::End => {
                let first = self.runs.running().next();
                first.into_iter().for_each(|at| self.end(at));
            }
            Step::EndAll => {
                for at in self.runs.running().collect::<Vec<_>>() {
                    self.end(at);
                }
            }
        }
        if self.rules.overlap != Overlap::Allow {
            assert!(self.most_running <= 1, "two at once");
        }
    }
}

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u16..400).prop_map(Step::Live),
        2 => (0_u32..8000, any::<bool>()).prop_map(|(seconds, restart)| Step::Away { seconds, restart }),
        1 => prop::sample::select(vec![-1, 1, -59, -61, -HOUR, HOUR, -5 * HOUR, 26 * HOUR, YEAR, -YEAR]).prop_map(Step::Jump),
        2 => Just(Step::End),
        2 => Just(Step::EndAll),
    ]
}

fn due() -> impl Strategy<Value = Due> {
    let zones = crate::zones::Zones::bundled_only();
    let cron = move |(expression, zone): (&str, &str)| {
        let zone = zones.find(zone).unwrap();
        Due::new(&Schedule::Cron { cron: expression.parse().unwrap(), zone }).unwrap()
    };
    let every = |seconds| Due::new(&Schedule::Every(Every::new(Duration::from_secs(seconds)).unwrap())).unwrap();
    prop_oneof![
        prop::sample::select(vec![
            ("* * * * *", "Europe/Oslo"),
            ("*/7 * * * *", "Australia/Lord_Howe"),
            ("30 1,2,3 * * *", "Europe/Oslo"),
            ("5-9 0-4 * * *", "America/New_York"),
            ("15,45 * * * *", "UTC"),
        ])
        .prop_map(cron),
        prop::sample::select(vec![1_u64, 7, 60, 900, 5400]).prop_map(every),
    ]
}

fn beginning() -> impl Strategy<Value = Timestamp> {
    // Around changes of the clocks in Oslo, New York and Lord Howe, and on a quiet day.
    prop::sample::select(vec![
        "2026-03-29T00:20:00Z",
        "2026-10-25T00:10:00.25Z",
        "2026-03-08T06:30:00Z",
        "2026-11-01T05:00:00.999Z",
        "2026-04-04T14:10:00Z",
        "2026-06-15T12:00:00Z",
    ])
    .prop_map(|text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn every_instant_has_exactly_one_record_whatever_the_clock_does(
        due in due(),
        overlap in prop::sample::select(vec![Overlap::Skip, Overlap::Queue, Overlap::Replace, Overlap::Allow]),
        catch_up in prop::sample::select(vec![0_i64, 30, HOUR, YEAR]),
        offset in prop::sample::select(vec![0_i64, 0, 13]),
        begin in beginning(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let rules = Rules {
            due,
            overlap,
            catch_up: SignedDuration::from_secs(catch_up),
            offset: SignedDuration::from_secs(offset),
        };
        let mut world = World::new(rules, begin);
        for step in &steps {
            world.run(step);
        }
        // A last restart, and a clock that is where everybody has been before.
        let furthest = world.record.rows.keys().next_back().copied().unwrap_or(begin).max(world.now).max(begin);
        world.now = furthest + SignedDuration::from_secs(100);
        world.restart();
        world.wake();
        let end = shifted(world.now, world.rules.offset);
        let began = shifted(begin, world.rules.offset);
        // No gap overlaps a row or another gap, as each was recorded; now none is left out either.
        for at in world.rules.due.upcoming(began).take_while(|at| *at <= end).take(20_000) {
            prop_assert!(world.record.rows.contains_key(&at) || world.in_a_gap(at), "{at} has no record");
        }
        for (gap, more) in world.record.gaps.iter().map(|gap| (gap, gap.more)) {
            let before = shifted(gap.first, SignedDuration::from_micros(1));
            let passed = world.rules.due.upcoming(before).take_while(|at| *at <= gap.last).take(2000).count();
            prop_assert!(if more { passed > gap.count as usize } else { passed == gap.count as usize }, "{gap:?}");
        }
    }
}
