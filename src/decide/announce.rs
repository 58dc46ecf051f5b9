//! What people and forges are told of a fact, and when to try again.
//!
//! For people: an event means happenings (`happening`), a channel's memory says which of them it is told (`episode`,
//! `bundle`), and what looks like a secret is taken out (`redact`).

pub mod bundle;
pub mod episode;
pub mod happening;
mod redact;

use std::time::Duration;

use crate::domain::{CommitState, EventKind};

/// Longest description of a commit status, in characters: GitHub's limit.
const DESCRIPTION: usize = 140;
/// First wait after a delivery that failed; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait that is chosen here.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// Longest wait that a server may ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(6 * 60 * 60);
/// A message that nobody has taken for so long is given up: it is no news any more, and others wait behind it.
const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// What an event means for the commit of its version.
pub fn commit_state(event: EventKind) -> Option<CommitState> {
    match event {
        EventKind::DeploymentPending => Some(CommitState::Pending),
        EventKind::DeploymentLive => Some(CommitState::Success),
        EventKind::DeploymentFailed | EventKind::Rollback | EventKind::Quarantined | EventKind::SourceWaiting => {
            Some(CommitState::Failure)
        }
        EventKind::DeploymentCancelled => Some(CommitState::Cancelled),
        EventKind::DeploymentSucceeded
        | EventKind::Released
        | EventKind::Suspended
        | EventKind::Resumed
        | EventKind::Stopped
        | EventKind::AppCrashing
        | EventKind::AppRecovered
        | EventKind::SourceFailing
        | EventKind::SourceRecovered
        | EventKind::SourceApproved
        | EventKind::SourceSettled
        | EventKind::SourceRefDeleted
        | EventKind::ManifestInvalid
        | EventKind::ScheduleFailed
        | EventKind::ScheduleRecovered
        | EventKind::ScheduleMissed
        | EventKind::ScheduleSkipped
        | EventKind::ScheduleRemoved
        | EventKind::AppDrifted
        | EventKind::AppMoved
        | EventKind::SourceRemoved
        | EventKind::ConfigReloaded
        | EventKind::ConfigInvalid
        | EventKind::DiskLow
        | EventKind::DiskRecovered
        | EventKind::CertificateFailing
        | EventKind::CertificateExpiring
        | EventKind::CertificateRecovered
        | EventKind::CertificateIssued => None,
    }
}

/// A commit status's description: one line that fits; what is cut off is marked.
pub fn description(text: &str) -> String {
    fitting(&text.split_whitespace().collect::<Vec<_>>().join(" "), DESCRIPTION)
}

/// A text of at most so many characters; what is cut off is marked.
pub fn fitting(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// How long to wait after the `attempts`-th try in vain of a message this old; a server's wish is obeyed. `None`: the
/// message is given up.
pub fn wait_after(attempts: u32, age: Duration, asked: Option<Duration>) -> Option<Duration> {
    if age >= GIVE_UP {
        return None;
    }
    let own = FIRST_WAIT.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    Some(asked.map_or(own, |asked| asked.clamp(FIRST_WAIT, LONGEST_ASKED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_fit_and_stay_on_one_line() {
        assert_eq!(description("v2\n is live"), "v2 is live");
        let long = description(&"ä".repeat(300));
        assert_eq!(long.chars().count(), DESCRIPTION);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn waits_double_up_to_a_bound_unless_the_server_says_when() {
        let after = |attempts, asked| wait_after(attempts, Duration::ZERO, asked).unwrap().as_secs();
        assert_eq!([1, 2, 3, 4].map(|attempts| after(attempts, None)), [1, 2, 4, 8]);
        assert_eq!(after(40, None), 900);
        assert_eq!(after(9, Some(Duration::from_secs(3))), 3);
        assert_eq!(after(1, Some(Duration::ZERO)), 1, "no server is asked again and again without a pause");
        assert_eq!(after(1, Some(Duration::from_secs(1_000_000))), 21_600);
    }

    #[test]
    fn what_nobody_took_for_days_is_given_up() {
        assert!(wait_after(300, GIVE_UP - Duration::from_secs(1), None).is_some());
        assert_eq!(wait_after(300, GIVE_UP, None), None);
    }
}
