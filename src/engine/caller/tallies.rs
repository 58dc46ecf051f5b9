//! How the calls of each function fare, for those who ask. Counted as ends are recorded; begun anew with each controller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::decide::tally::Tally;
use crate::domain::{CallOutcome, FunctionKey, Times};

/// Functions that are counted; more, and those without a call for an hour are forgotten.
const FUNCTIONS: usize = 10_000;

/// All counts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tallies(Arc<Mutex<HashMap<FunctionKey, Tally>>>);

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

    /// How the calls of a function fared.
    pub fn of(&self, function: &FunctionKey) -> Tally {
        self.all().get(function).cloned().unwrap_or_default()
    }

    fn with(&self, function: &FunctionKey, now: Timestamp, count: impl FnOnce(&mut Tally, i64)) {
        let minute = minute_of(now);
        let mut all = self.all();
        if let Some(tally) = all.get_mut(function) {
            return count(tally, minute);
        }
        if all.len() >= FUNCTIONS {
            all.retain(|_, tally| !tally.is_old(minute));
        }
        count(all.entry(function.clone()).or_default(), minute);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<FunctionKey, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
