//! How many instances an object should have.

use std::time::Duration;

use crate::domain::manifest::Instances;

/// What is seen of an object's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Instances that run or start now.
    pub running: u32,
    /// Requests on them.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// Requests at once per instance.
    pub concurrency: u32,
    /// Instances wanted beyond what the load needs.
    pub spare: u32,
    /// How long the load has fitted on fewer instances than run.
    pub surplus_for: Duration,
}

/// The number of instances wanted now. Grows at once, shrinks to what the load needs only after `idle`.
pub fn target(seen: Seen, bounds: Instances) -> u32 {
    let needed = needed(seen, bounds);
    if needed >= seen.running || seen.surplus_for >= bounds.idle.duration() {
        needed
    } else {
        seen.running.clamp(bounds.min, bounds.max)
    }
}

/// The number of instances the present load needs, within bounds.
pub fn needed(seen: Seen, bounds: Instances) -> u32 {
    let work = seen.in_flight.saturating_add(seen.queued);
    work.div_ceil(seen.concurrency.max(1)).saturating_add(seen.spare).clamp(bounds.min, bounds.max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::Millis;

    const BOUNDS: Instances = Instances { min: 0, max: 4, idle: Millis::seconds(60) };

    fn seen(running: u32, work: u32, surplus: u64) -> Seen {
        Seen {
            running,
            in_flight: 0,
            queued: work,
            concurrency: 10,
            spare: 0,
            surplus_for: Duration::from_secs(surplus),
        }
    }

    #[test]
    fn load_grows_the_pool_at_once_and_within_bounds() {
        assert_eq!(target(seen(0, 1, 0), BOUNDS), 1);
        assert_eq!(target(seen(1, 25, 0), BOUNDS), 3);
        assert_eq!(target(seen(1, 1000, 0), BOUNDS), 4);
    }

    #[test]
    fn spare_instances_stand_by_at_rest_and_under_load_but_never_above_the_most() {
        let spare = |work| Seen { spare: 2, ..seen(0, work, 600) };
        assert_eq!(target(spare(0), BOUNDS), 2);
        assert_eq!(target(spare(11), BOUNDS), 4);
        assert_eq!(target(spare(1000), BOUNDS), 4);
    }

    #[test]
    fn a_pool_shrinks_only_after_idling() {
        assert_eq!(target(seen(3, 1, 59), BOUNDS), 3);
        assert_eq!(target(seen(3, 1, 60), BOUNDS), 1);
        assert_eq!(target(seen(3, 0, 60), BOUNDS), 0);
        let fixed = Instances { min: 2, max: 2, idle: Millis::seconds(60) };
        assert_eq!(target(seen(2, 0, 600), fixed), 2);
        assert_eq!(target(seen(1, 0, 0), fixed), 2);
    }
}
