//! Instants that have passed: the latest of them, and how many.
//!
//! A machine may have been off for a year with a schedule of every second, so neither may cost time for each.

use jiff::Timestamp;

use crate::decide::due::Due;

/// Missed instants are counted one by one up to here; of more it is only known that they are more.
pub const MOST_COUNTED: u32 = 1000;

/// Instants in a row that had no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first: Timestamp,
    /// The last of them; the same where it is one.
    pub last: Timestamp,
    /// How many.
    pub count: u32,
    /// There are more than `count`.
    pub more: bool,
}

impl Gap {
    /// What is left of it when everything after `until` has not passed after all, because the clock went back.
    #[must_use]
    pub fn cut(self, due: &Due, until: Timestamp) -> Option<Self> {
        if self.last <= until {
            return Some(self);
        }
        let before = self.first.checked_sub(jiff::SignedDuration::from_micros(1)).unwrap_or(Timestamp::MIN);
        between(due, before, until)
    }
}

/// The latest instant after `after` and not after `until`.
pub(super) fn latest(due: &Due, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let within = |at: Timestamp| due.next(at).filter(|next| *next <= until);
    let mut found = within(after)?;
    // Usually there is one.
    match within(found) {
        None => return Some(found),
        Some(second) => found = second,
    }
    // Whether another one comes after a moment and not after `until` changes only once, from yes to no: halve the
    // time in which it does. None comes after `high`, one at `low`.
    let (mut low, mut high) = (found.as_second(), until.as_second() + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match Timestamp::from_second(middle).ok().and_then(within) {
            Some(later) => {
                found = later;
                low = later.as_second();
            }
            None => high = middle,
        }
    }
    // None comes after `high`, but one may come at it.
    Some(within(found).unwrap_or(found))
}

/// The instants after `after` and not after `until`, as one gap; `None` where there are none.
pub(super) fn between(due: &Due, after: Timestamp, until: Timestamp) -> Option<Gap> {
    let mut passed = due.upcoming(after).take_while(|at| *at <= until);
    let first = passed.next()?;
    let mut gap = Gap { first, last: first, count: 1, more: false };
    for at in passed {
        if gap.count == MOST_COUNTED {
            gap.last = latest(due, at, until).unwrap_or(at);
            gap.more = true;
            break;
        }
        gap.count += 1;
        gap.last = at;
    }
    Some(gap)
}
