//! Whether a new version is ready, has failed, or has proved itself.

use std::time::Duration;

/// A worker that stays up this long counts as started.
pub const WORKER_SETTLES: Duration = Duration::from_secs(1);
/// In the bake window a slot may end this often before the version counts as failing.
pub const BAKE_CRASHES: u32 = 2;

/// What is seen of one object of a version while it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSeen {
    /// Instances that take work.
    pub ready: u32,
    /// Instances wanted for the switch.
    pub wanted: u32,
    /// An instance ended, or could not be started.
    pub ended: bool,
}

/// How a start stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Not yet.
    Waiting,
    /// All objects have what they need.
    Ready,
    /// The object at this index failed.
    Failed(usize),
}

/// All objects or none: one that failed fails the version, all must be ready.
pub fn start(objects: &[ObjectSeen]) -> Start {
    if let Some(index) = objects.iter().position(|object| object.ended) {
        return Start::Failed(index);
    }
    if objects.iter().all(|object| object.ready >= object.wanted) { Start::Ready } else { Start::Waiting }
}

/// What is seen of a live version in its bake window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BakeSeen {
    /// Unwanted ends since the switch, in the worst slot.
    pub worst_crashes: u32,
    /// Objects that should be ready and have no ready instance now.
    pub objects_without_ready: u32,
    /// Those of them that have only begun: their instances start within their deadline, and none has ended or failed
    /// since the switch. So it is after a restart of the whole agent, which starts everything again.
    pub objects_beginning: u32,
}

/// How the bake window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bake {
    /// Go on watching.
    Watching,
    /// The window is over and the version is healthy.
    Passed,
    /// The version is failing.
    Failed,
}

/// Judges a live version `elapsed` after its switch.
pub fn bake(seen: BakeSeen, elapsed: Duration, window: Duration) -> Bake {
    if seen.worst_crashes >= BAKE_CRASHES {
        return Bake::Failed;
    }
    if elapsed < window {
        return Bake::Watching;
    }
    match (seen.objects_without_ready, seen.objects_beginning) {
        (0, _) => Bake::Passed,
        // What has not had its time to become ready says nothing about the version yet.
        (without, beginning) if without == beginning => Bake::Watching,
        (_, _) => Bake::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ready: u32, ended: bool) -> ObjectSeen {
        ObjectSeen { ready, wanted: 2, ended }
    }

    #[test]
    fn a_version_starts_as_a_whole_or_not_at_all() {
        assert_eq!(start(&[seen(2, false), seen(1, false)]), Start::Waiting);
        assert_eq!(start(&[seen(2, false), seen(2, false)]), Start::Ready);
        assert_eq!(start(&[seen(2, false), seen(1, true)]), Start::Failed(1));
        assert_eq!(start(&[]), Start::Ready);
    }

    #[test]
    fn a_version_that_keeps_crashing_or_ends_unready_fails_its_bake() {
        let window = Duration::from_secs(30);
        let healthy = BakeSeen { worst_crashes: 0, objects_without_ready: 0, objects_beginning: 0 };
        assert_eq!(bake(healthy, Duration::from_secs(1), window), Bake::Watching);
        assert_eq!(bake(healthy, window, window), Bake::Passed);
        let one_crash = BakeSeen { worst_crashes: 1, objects_without_ready: 1, ..healthy };
        assert_eq!(bake(one_crash, Duration::from_secs(1), window), Bake::Watching);
        assert_eq!(bake(one_crash, window, window), Bake::Failed);
        let crashing = BakeSeen { worst_crashes: BAKE_CRASHES, ..healthy };
        assert_eq!(bake(crashing, Duration::from_secs(1), window), Bake::Failed);
    }
    #[test]
    fn a_version_that_is_only_being_started_again_is_not_judged_before_it_had_its_time() {
        let window = Duration::from_secs(30);
        let started_again = BakeSeen { worst_crashes: 0, objects_without_ready: 2, objects_beginning: 2 };
        assert_eq!(bake(started_again, window * 2, window), Bake::Watching);
        // Its deadline is over for one of them, or it has ended.
        let late = BakeSeen { objects_beginning: 1, ..started_again };
        assert_eq!(bake(late, window * 2, window), Bake::Failed);
        let there = BakeSeen { objects_without_ready: 0, objects_beginning: 0, ..started_again };
        assert_eq!(bake(there, window * 2, window), Bake::Passed);
    }
}
