//! What follows from the end of an attempt of a call: its outcome, or another attempt after a while.
//!
//! Two budgets are kept apart. What the function does wrong (it fails, it takes too long) uses up the user's retries.
//! What Landfall or the machine does wrong (the carrying process died, no instance could be started) does not: such
//! attempts are repeated for as long as the function exists, at growing distances.

use std::time::Duration;

use crate::domain::call::{AttemptOutcome, CallOutcome};

/// Wait before an attempt that was lost or refused is repeated for the first time.
pub const FIRST_REPEAT: Duration = Duration::from_millis(100);
/// So many instances in a row may end under a call without using up one of its retries.
pub const FREE_CRASHES: u32 = 2;
/// Longest wait before such an attempt is repeated.
pub const LONGEST_REPEAT: Duration = Duration::from_secs(30);
/// No retry is longer away than this, whatever a manifest says.
pub const LONGEST_DELAY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The user's retries: `retries` of a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// How often a failed call is tried again; 0 for never.
    pub max: u32,
    /// Wait before the first retry.
    pub delay: Duration,
    /// Each wait is this many times the one before; at least 1.
    pub backoff: f64,
    /// No wait is longer.
    pub max_delay: Duration,
}

impl Policy {
    /// One attempt and no more.
    pub const NEVER: Self = Self { max: 0, delay: Duration::ZERO, backoff: 1.0, max_delay: Duration::ZERO };

    /// The wait before retry number `retry`, counted from 1.
    #[must_use]
    pub fn wait(&self, retry: u32) -> Duration {
        let doublings = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let factor = if self.backoff >= 1.0 { self.backoff.powi(doublings) } else { 1.0 };
        let longest = self.max_delay.min(LONGEST_DELAY);
        // What does not fit is longer than everything that is allowed.
        Duration::try_from_secs_f64(self.delay.as_secs_f64() * factor).map_or(longest, |wait| wait.min(longest))
    }
}

/// What a call remembers of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Attempts that used up one of the user's.
    pub failures: u32,
    /// Attempts in a row that never had a fair chance.
    pub lost_in_a_row: u32,
    /// Attempts in a row under which an instance ended.
    pub crashes_in_a_row: u32,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The call is done.
    Done(CallOutcome),
    /// Another attempt after this long.
    Again(Duration),
}

impl Tries {
    /// After an attempt has ended like this: what the call remembers, and what follows.
    #[must_use]
    pub fn after(self, ended: AttemptOutcome, policy: &Policy) -> (Self, Next) {
        let failed = |outcome| {
            let tries = Self { failures: self.failures.saturating_add(1), ..Self::default() };
            let next = if tries.failures > policy.max {
                Next::Done(outcome)
            } else {
                Next::Again(policy.wait(tries.failures))
            };
            (tries, next)
        };
        match ended {
            AttemptOutcome::Succeeded => (self, Next::Done(CallOutcome::Succeeded)),
            AttemptOutcome::Cancelled => (self, Next::Done(CallOutcome::Cancelled)),
            AttemptOutcome::Failed => failed(CallOutcome::Failed),
            AttemptOutcome::TimedOut => failed(CallOutcome::TimedOut),
            AttemptOutcome::Crashed if self.crashes_in_a_row >= FREE_CRASHES => failed(CallOutcome::Failed),
            AttemptOutcome::Crashed => {
                let tries = Self { crashes_in_a_row: self.crashes_in_a_row.saturating_add(1), ..self };
                (tries, Next::Again(repeat(tries.crashes_in_a_row)))
            }
            AttemptOutcome::Lost | AttemptOutcome::Refused => {
                let tries = Self { lost_in_a_row: self.lost_in_a_row.saturating_add(1), ..self };
                (tries, Next::Again(repeat(tries.lost_in_a_row)))
            }
        }
    }
}

/// The wait before the repetition with this number, counted from 1.
#[must_use]
pub fn repeat(number: u32) -> Duration {
    let doublings = number.saturating_sub(1).min(16);
    FIRST_REPEAT.saturating_mul(1 << doublings).min(LONGEST_REPEAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRICE: Policy =
        Policy { max: 2, delay: Duration::from_secs(1), backoff: 2.0, max_delay: Duration::from_secs(60) };

    #[test]
    fn a_call_is_tried_as_often_as_asked_for_and_then_fails() {
        let (tries, next) = Tries::default().after(AttemptOutcome::Failed, &THRICE);
        assert_eq!(next, Next::Again(Duration::from_secs(1)));
        let (tries, next) = tries.after(AttemptOutcome::TimedOut, &THRICE);
        assert_eq!(next, Next::Again(Duration::from_secs(2)));
        let (_, next) = tries.after(AttemptOutcome::TimedOut, &THRICE);
        assert_eq!(next, Next::Done(CallOutcome::TimedOut));
        let (_, next) = Tries::default().after(AttemptOutcome::Failed, &Policy::NEVER);
        assert_eq!(next, Next::Done(CallOutcome::Failed));
    }

    #[test]
    fn what_the_function_is_not_to_blame_for_costs_it_no_retry() {
        let mut tries = Tries::default();
        let mut waits = Vec::new();
        for _ in 0..20 {
            let (after, next) = tries.after(AttemptOutcome::Lost, &Policy::NEVER);
            let Next::Again(wait) = next else { panic!("a lost attempt ends nothing: {next:?}") };
            waits.push(wait);
            tries = after;
        }
        assert_eq!((waits[0], waits[19]), (FIRST_REPEAT, LONGEST_REPEAT));
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        let (tries, next) = tries.after(AttemptOutcome::Failed, &THRICE);
        assert_eq!((tries, next), (Tries { failures: 1, ..Tries::default() }, Next::Again(Duration::from_secs(1))));
    }

    #[test]
    fn waits_grow_to_their_bound_whatever_the_manifest_says() {
        let waits: Vec<u64> = (1..=8).map(|retry| THRICE.wait(retry).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let wild = Policy { backoff: 1e300, max_delay: Duration::MAX, ..THRICE };
        assert_eq!(wild.wait(u32::MAX), LONGEST_DELAY);
        let shrinking = Policy { backoff: 0.5, ..THRICE };
        assert_eq!(shrinking.wait(9), Duration::from_secs(1));
    }

    #[test]
    fn a_call_under_which_every_instance_ends_fails_in_the_end() {
        let mut tries = Tries::default();
        for _ in 0..FREE_CRASHES {
            let (after, next) = tries.after(AttemptOutcome::Crashed, &Policy::NEVER);
            assert!(matches!(next, Next::Again(_)), "{next:?}");
            tries = after;
        }
        assert_eq!(tries.after(AttemptOutcome::Crashed, &Policy::NEVER).1, Next::Done(CallOutcome::Failed));
        let (_, next) = tries.after(AttemptOutcome::Crashed, &THRICE);
        assert_eq!(next, Next::Again(Duration::from_secs(1)));
    }

    fn any_end() -> impl Strategy<Value = AttemptOutcome> {
        proptest::sample::select(AttemptOutcome::ALL)
    }

    proptest! {
        #[test]
        fn a_call_uses_up_at_most_its_own_attempts(ends in prop::collection::vec(any_end(), 1..60), max in 0..6_u32) {
            let policy = Policy { max, ..THRICE };
            let mut tries = Tries::default();
            let (mut blamed, mut crashes) = (0, 0);
            for end in ends {
                let (after, next) = tries.after(end, &policy);
                tries = after;
                crashes = if end == AttemptOutcome::Crashed { crashes + 1 } else { crashes };
                if matches!(end, AttemptOutcome::Failed | AttemptOutcome::TimedOut) || crashes > FREE_CRASHES {
                    (blamed, crashes) = (blamed + 1, 0);
                }
                prop_assert_eq!(tries.failures, blamed);
                match next {
                    Next::Again(wait) => prop_assert!(blamed <= max && wait <= LONGEST_DELAY),
                    Next::Done(outcome) => {
                        prop_assert!(!outcome.is_failure() || blamed == max + 1);
                        break;
                    }
                }
            }
        }
    }
}
