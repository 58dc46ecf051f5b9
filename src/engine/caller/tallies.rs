//! How the calls of each function fare, and what each web object answers, for those who ask. Counted as ends are recorded
//! and as proxies tell; a web object goes by its name as a function does. The last hour is kept in the
//! history, minute by minute, and taken up again by the next controller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::decide::tally::{Classes, Tally};
use crate::domain::{CallOutcome, FunctionKey, Times};
use crate::ledger::history::FunctionMinute;
use crate::wire::proxy::ObjectAnswers;

/// Functions and web objects that are counted; more, and those without a call for an hour are forgotten.
const FUNCTIONS: usize = 10_000;

/// All counts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tallies(Arc<Mutex<HashMap<FunctionKey, Counted>>>);

#[derive(Debug, Default)]
struct Counted {
    tally: Tally,
    /// Since it was last kept.
    changed: bool,
}

/// The minute of a time, counted since 1970.
pub fn minute_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

impl Tallies {
    /// An attempt that reached its function took this long.
    pub fn time(&self, function: &FunctionKey, times: Times, now: Timestamp) {
        self.with(function, now, |tally, minute| tally.time(minute, times));
    }

    /// A call has its outcome.
    pub fn end(&self, function: &FunctionKey, outcome: CallOutcome, now: Timestamp) {
        self.with(function, now, |tally, minute| tally.end(minute, outcome));
    }

    /// A proxy has answered requests of a web object.
    pub fn answered(&self, of: ObjectAnswers, now: Timestamp) {
        let ObjectAnswers { app, object, answers, times } = of;
        let head = Classes::of(times);
        self.with(&FunctionKey::new(app, object), now, |tally, minute| tally.answer(minute, &answers, &head));
    }

    /// How the calls of a function fared, or what a web object answered.
    pub fn of(&self, function: &FunctionKey) -> Tally {
        self.all().get(function).map(|counted| counted.tally.clone()).unwrap_or_default()
    }

    /// What was counted by the controller before this one, minute by minute in order.
    pub fn seed(&self, minutes: Vec<FunctionMinute>) {
        let mut all = self.all();
        for FunctionMinute { function, minute, sum } in minutes {
            if all.len() < FUNCTIONS || all.contains_key(&function) {
                all.entry(function).or_default().tally.seed(minute, &sum);
            }
        }
    }

    /// What has changed since this was last asked, to be kept: the present minute of each function, and the one before.
    pub fn changed(&self, now: Timestamp) -> Vec<FunctionMinute> {
        let minute = minute_of(now) - 1;
        let mut changed = Vec::new();
        for (function, counted) in self.all().iter_mut().filter(|(_, counted)| counted.changed) {
            counted.changed = false;
            changed.extend(counted.tally.since(minute).map(|(minute, sum)| FunctionMinute {
                function: function.clone(),
                minute: *minute,
                sum: sum.clone(),
            }));
        }
        changed
    }

    fn with(&self, function: &FunctionKey, now: Timestamp, count: impl FnOnce(&mut Tally, i64)) {
        let minute = minute_of(now);
        let mut all = self.all();
        if !all.contains_key(function) {
            if all.len() >= FUNCTIONS {
                all.retain(|_, counted| !counted.tally.is_old(minute));
            }
            all.insert(function.clone(), Counted::default());
        }
        if let Some(counted) = all.get_mut(function) {
            counted.changed = true;
            count(&mut counted.tally, minute);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<FunctionKey, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_taken_up_again_and_only_what_has_changed_is_kept() {
        let key: FunctionKey = FunctionKey::new(
            crate::domain::AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name")),
            "resize".parse().expect("a name"),
        );
        let now = Timestamp::from_second(1_767_225_630).expect("a time");
        let (tallies, next) = (Tallies::default(), Tallies::default());
        for running_us in [100, 200, 4000] {
            tallies.time(&key, Times { queued_us: 5, starting_us: 0, running_us }, now);
            tallies.end(&key, CallOutcome::Succeeded, now);
        }
        next.seed(tallies.changed(now));
        assert!(tallies.changed(now).is_empty() && next.changed(now).is_empty(), "nothing has happened since");
        next.end(&key, CallOutcome::Failed, now);
        let sum = next.of(&key).last(minute_of(now), 5);
        assert_eq!((sum.outcomes[&CallOutcome::Succeeded], sum.outcomes[&CallOutcome::Failed]), (3, 1));
        assert_eq!((sum.run.total(), sum.run.at(0.5)), (3, tallies.of(&key).last(minute_of(now), 5).run.at(0.5)));
        // All of the minute, what was taken up as well.
        assert_eq!(next.changed(now)[0].sum, sum);
        assert!(next.of(&key).ever.values().sum::<u64>() == 1, "counters are of one controller");
    }
}
