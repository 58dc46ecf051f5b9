//! When a dead instance is started again, and when an app counts as crashing.

use std::time::Duration;

/// Wait before the first restart. Short, so that a single crash costs little.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest wait between two restarts.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// An instance that was up this long has shown that it can run; its back-off starts anew.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);
/// So many ends in a row, without having been stable in between, make a slot count as crashing.
pub const CRASHING_AFTER: u32 = 3;

/// What a slot remembers of the instances it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crashes {
    /// Unwanted ends in a row.
    pub in_a_row: u32,
    /// Unwanted ends in all.
    pub total: u32,
}

impl Crashes {
    /// After an unwanted end of an instance that was up for `uptime`.
    #[must_use]
    pub fn after_end(self, uptime: Duration) -> Self {
        let before = if uptime >= STABLE_AFTER { 0 } else { self.in_a_row };
        Self { in_a_row: before.saturating_add(1), total: self.total.saturating_add(1) }
    }

    /// After an instance has been up for `uptime`.
    #[must_use]
    pub fn after_uptime(self, uptime: Duration) -> Self {
        if uptime >= STABLE_AFTER { Self { in_a_row: 0, ..self } } else { self }
    }

    /// Wait before the next start: doubles with every end in a row up to [`LONGEST_DELAY`].
    pub fn delay(self) -> Duration {
        let Some(doublings) = self.in_a_row.checked_sub(1) else { return Duration::ZERO };
        FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(LONGEST_DELAY)
    }

    /// Whether people should hear of it.
    pub fn crashing(self) -> bool {
        self.in_a_row >= CRASHING_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_a_bound_and_starts_anew_after_a_stable_run() {
        let mut crashes = Crashes::default();
        let mut waits = Vec::new();
        for _ in 0..14 {
            crashes = crashes.after_end(Duration::from_secs(1));
            waits.push(crashes.delay());
        }
        assert_eq!(waits[0], FIRST_DELAY);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert_eq!(waits[13], LONGEST_DELAY);
        assert!(crashes.crashing());
        let crashes = crashes.after_end(STABLE_AFTER);
        assert_eq!(crashes.delay(), FIRST_DELAY);
        assert!(!crashes.crashing());
        assert_eq!(crashes.total, 15);
    }
}
