//! When a source is looked at because of a hint.

use std::time::Duration;

/// The least time between the starts of two looks that hooks ask for.
const SPACING: Duration = Duration::from_secs(1);
/// How much longer it gets with each look in vain, and how often at most.
const GROWTH: u32 = 4;
const STEPS: u32 = 2;

/// How long after the start of a look the next one that a hook asks for may start, after so many in a row that
/// found nothing new.
///
/// The first hook is followed at once, so this is felt by bursts and by replayed deliveries only: the more looks
/// were in vain, the less another hint is worth.
pub fn spacing(in_vain: u32) -> Duration {
    SPACING * GROWTH.pow(in_vain.min(STEPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When looks start while hooks come all the time, and only the first finds something.
    fn looks_within(limit: Duration) -> usize {
        let (mut at, mut looks, mut in_vain) = (Duration::ZERO, 0, 0);
        while at < limit {
            looks += 1;
            at += spacing(in_vain);
            in_vain += 1;
        }
        looks
    }

    #[test]
    fn a_storm_of_hooks_costs_a_few_looks() {
        assert_eq!(looks_within(Duration::from_secs(1)), 1);
        assert_eq!(looks_within(Duration::from_secs(5)), 2);
        assert!(looks_within(Duration::from_secs(3600)) <= 230, "one in sixteen seconds");
    }

    #[test]
    fn the_spacing_is_bounded() {
        assert_eq!(spacing(0), Duration::from_secs(1));
        assert_eq!(spacing(u32::MAX), Duration::from_secs(16));
    }
}
