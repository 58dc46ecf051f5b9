//! How a function's calls fared and what a web object answered: counted by the minute, for an hour.
//!
//! Times go into classes whose borders grow by at most an eighth, so that a minute takes a few dozen numbers however many calls
//! it had, and minutes add up. Pure; the clock is an argument.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::domain::{AnswerClass, CallOutcome, Times};

/// Minutes that are kept.
pub const KEPT: i64 = 60;
/// Classes in each doubling of a time.
const PARTS: u64 = 8;

/// Times, by class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Classes(BTreeMap<u16, u64>);

impl Classes {
    /// Counts a time in microseconds.
    pub fn count(&mut self, micros: u64) {
        *self.0.entry(class(micros)).or_default() += 1;
    }

    /// Those of classes that were counted elsewhere. A class that no time has counts as the longest there is.
    pub fn of(counted: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let mut classes = Self::default();
        for (at, count) in counted {
            *classes.0.entry(at.min(class(u64::MAX))).or_default() += count;
        }
        classes
    }

    /// Whether nothing was counted.
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The times of another, too.
    pub fn add(&mut self, other: &Self) {
        for (class, count) in &other.0 {
            *self.0.entry(*class).or_default() += count;
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time that this part of all do not exceed; never too short, and at most an eighth too long.
    pub fn at(&self, part: f64) -> Option<u64> {
        let total = self.total();
        let wanted = (total as f64 * part).ceil().max(1.0);
        let mut seen = 0;
        self.0.iter().find_map(|(class, count)| {
            seen += count;
            (seen as f64 >= wanted).then(|| longest(*class))
        })
    }
}

/// The class of a time. Below 8 each microsecond is one of its own, then there are eight for each doubling.
pub fn class(micros: u64) -> u16 {
    let Some(power) = micros.checked_ilog2().filter(|power| *power >= 3) else {
        return u16::try_from(micros).unwrap_or_default();
    };
    let part = (micros >> (power - 3)) - PARTS;
    u16::try_from(PARTS * u64::from(power - 2) + part).unwrap_or(u16::MAX)
}

/// The longest time of a class.
fn longest(class: u16) -> u64 {
    let class = u64::from(class);
    if class < PARTS {
        return class;
    }
    let (power, part) = (class / PARTS + 2, class % PARTS);
    let width = 1_u64 << (power - 3);
    (PARTS + part).saturating_mul(width).saturating_add(width - 1)
}

/// What ended in some time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sum {
    /// How many calls ended how.
    pub outcomes: BTreeMap<CallOutcome, u64>,
    /// Time in line, without the start of an instance.
    pub queue: Classes,
    /// Time while an instance was started, of attempts that waited for one.
    pub start: Classes,
    /// Time in the function.
    pub run: Classes,
    /// How many web requests got which answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<AnswerClass, u64>,
    /// Time until their answers' heads.
    #[serde(default, skip_serializing_if = "Classes::is_empty")]
    pub head: Classes,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        add(&mut self.outcomes, &other.outcomes);
        self.queue.add(&other.queue);
        self.start.add(&other.start);
        self.run.add(&other.run);
        self.answer(&other.answers, &other.head);
    }

    fn answer(&mut self, answers: &BTreeMap<AnswerClass, u64>, head: &Classes) {
        add(&mut self.answers, answers);
        self.head.add(head);
    }

    fn time(&mut self, times: Times) {
        self.queue.count(times.queued_us.saturating_sub(times.starting_us));
        if times.starting_us > 0 {
            self.start.count(times.starting_us);
        }
        self.run.count(times.running_us);
    }
}

fn add<K: Copy + Ord>(to: &mut BTreeMap<K, u64>, other: &BTreeMap<K, u64>) {
    for (key, count) in other {
        *to.entry(*key).or_default() += count;
    }
}

/// The last hour of one function or web object, and everything since it was first counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    minutes: VecDeque<(i64, Sum)>,
    /// How many calls ended how, since counting began.
    pub ever: BTreeMap<CallOutcome, u64>,
    /// How many web requests got which answer, since counting began.
    pub ever_answered: BTreeMap<AnswerClass, u64>,
}

impl Tally {
    /// An attempt that reached the function took this long.
    pub fn time(&mut self, minute: i64, times: Times) {
        self.at(minute).time(times);
    }

    /// A call has its outcome.
    pub fn end(&mut self, minute: i64, outcome: CallOutcome) {
        *self.at(minute).outcomes.entry(outcome).or_default() += 1;
        *self.ever.entry(outcome).or_default() += 1;
    }

    /// Web requests were answered, and took this long until the answers' heads.
    pub fn answer(&mut self, minute: i64, answers: &BTreeMap<AnswerClass, u64>, head: &Classes) {
        self.at(minute).answer(answers, head);
        add(&mut self.ever_answered, answers);
    }

    /// A minute that was counted before, and kept elsewhere meanwhile. Given in their order, before anything is counted here.
    pub fn seed(&mut self, minute: i64, sum: &Sum) {
        self.at(minute).add(sum);
    }

    /// A clock that was set back counts in the newest minute it has seen.
    fn at(&mut self, minute: i64) -> &mut Sum {
        let newest = self.minutes.back().map(|(at, _)| *at);
        if newest.is_none_or(|newest| newest < minute) {
            self.minutes.push_back((minute, Sum::default()));
            while self.minutes.front().is_some_and(|(at, _)| *at <= minute - KEPT) {
                self.minutes.pop_front();
            }
        }
        let last = self.minutes.len() - 1;
        &mut self.minutes[last].1
    }

    /// What ended in the last `minutes` minutes, this one included.
    pub fn last(&self, now: i64, minutes: i64) -> Sum {
        let mut sum = Sum::default();
        self.minutes.iter().filter(|(at, _)| *at > now - minutes).for_each(|(_, one)| sum.add(one));
        sum
    }

    /// Minute by minute, the newest first.
    pub fn minutes(&self, now: i64) -> impl Iterator<Item = &(i64, Sum)> {
        self.minutes.iter().rev().filter(move |(at, _)| *at > now - KEPT)
    }

    /// The minutes from this one on.
    pub fn since(&self, minute: i64) -> impl Iterator<Item = &(i64, Sum)> {
        self.minutes.iter().filter(move |(at, _)| *at >= minute)
    }

    /// Nothing has ended for as long as minutes are kept.
    pub fn is_old(&self, now: i64) -> bool {
        self.minutes.back().is_none_or(|(at, _)| *at <= now - KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_many_times_are_found_to_an_eighth() {
        let mut classes = Classes::default();
        (1..=10_000).for_each(|micros| classes.count(micros));
        for (part, exact) in [(0.5, 5_000), (0.95, 9_500), (0.99, 9_900)] {
            let found = classes.at(part).expect("a time");
            assert!(found >= exact && found <= exact + exact / 8, "{part}: {found}");
        }
        assert_eq!(Classes::default().at(0.5), None);
    }

    #[test]
    fn an_hour_is_kept_and_a_clock_that_is_set_back_breaks_nothing() {
        let mut tally = Tally::default();
        let times = Times { queued_us: 900, starting_us: 400, running_us: 70 };
        for minute in 100..200 {
            tally.time(minute, times);
            tally.end(minute, CallOutcome::Succeeded);
        }
        tally.end(150, CallOutcome::Failed);
        let (five, hour) = (tally.last(199, 5), tally.last(199, KEPT));
        assert_eq!(five.outcomes, BTreeMap::from([(CallOutcome::Succeeded, 5), (CallOutcome::Failed, 1)]));
        assert_eq!((hour.outcomes[&CallOutcome::Succeeded], hour.run.total()), (60, 60));
        assert!(five.queue.at(0.5).is_some_and(|queue| (500..=562).contains(&queue)), "without the start");
        assert_eq!(tally.minutes(199).count(), 60);
        assert_eq!(tally.ever[&CallOutcome::Succeeded], 100);
        assert!(!tally.is_old(199) && tally.is_old(300));
        assert!(tally.last(300, KEPT).outcomes.is_empty());
    }

    proptest! {
        #[test]
        fn a_class_holds_its_time_and_no_one_much_shorter(micros in prop_oneof![0..5000_u64, any::<u64>()]) {
            let longest = longest(class(micros));
            prop_assert!(longest >= micros && longest - micros <= micros / 8, "{micros} is at most {longest}");
            prop_assert!(class(micros) <= class(micros.saturating_add(1)));
        }
    }
}
