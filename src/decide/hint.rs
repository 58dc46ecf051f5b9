//! When a source is looked at because of a hint.

use std::time::Duration;

/// The least time between the starts of two looks that hooks ask for.
const SPACING: Duration = Duration::from_secs(1);
/// How often the spacing doubles at most.
const DOUBLINGS: u32 = 3;

/// How long after the start of a look the next one that a hook asks for may start, after so many in a row that
/// found nothing new.
///
/// The first hook is followed at once, so this is felt by bursts and by replayed deliveries only: the more looks
/// were in vain, the less another hint is worth.
pub fn spacing(in_vain: u32) -> Duration {
    SPACING * (1 << in_vain.min(DOUBLINGS))
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
        assert_eq!(looks_within(Duration::from_secs(3)), 2);
        assert!(looks_within(Duration::from_secs(3600)) <= 460, "one in eight seconds");
    }

    #[test]
    fn the_spacing_is_bounded() {
        assert_eq!(spacing(0), Duration::from_secs(1));
        assert_eq!(spacing(u32::MAX), Duration::from_secs(8));
    }
}
