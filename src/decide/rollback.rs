//! Which version a rollback brings back.

use std::collections::BTreeSet;

use crate::domain::{ContentId, VersionNumber};

/// An earlier version, as the choice needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub version: VersionNumber,
    /// Its content.
    pub content: ContentId,
    /// It was live and did not fail while watched.
    pub healthy: bool,
    /// Its tree is still kept.
    pub kept: bool,
}

/// The newest version older than `live` (of all, when nothing is live) that was healthy, is kept, has other content than `live` and is not
/// quarantined. Because every rollback quarantines what it replaces, repeated rollbacks walk backwards and
/// never flip-flop.
pub fn default_target<'a>(
    history: &'a [Candidate],
    live: Option<&Candidate>,
    quarantine: &BTreeSet<ContentId>,
) -> Option<&'a Candidate> {
    history
        .iter()
        .filter(|candidate| {
            live.is_none_or(|live| candidate.version < live.version && candidate.content != live.content)
        })
        .filter(|candidate| candidate.healthy && candidate.kept)
        .filter(|candidate| !quarantine.contains(&candidate.content))
        .max_by_key(|candidate| candidate.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(version: u32, letter: char, healthy: bool) -> Candidate {
        let content = format!("{:02x}", letter as u32).repeat(32).parse().expect("64 digits");
        Candidate { version: VersionNumber::new(version).expect("not 0"), content, healthy, kept: true }
    }

    #[test]
    fn repeated_rollbacks_walk_backwards() {
        let mut history =
            vec![candidate(1, 'a', true), candidate(2, 'b', false), candidate(3, 'c', true), candidate(4, 'd', true)];
        let mut quarantine = BTreeSet::new();
        let mut walked = Vec::new();
        loop {
            let live = history.last().expect("not empty").clone();
            let Some(target) = default_target(&history, Some(&live), &quarantine).cloned() else { break };
            walked.push(target.version.get());
            quarantine.insert(live.content.clone());
            history.push(Candidate { version: live.version.next(), ..target });
        }
        assert_eq!(walked, [3, 1], "v2 was never healthy, and nothing is visited twice");
    }

    #[test]
    fn a_version_whose_tree_is_gone_is_passed_over() {
        let mut history = vec![candidate(1, 'a', true), candidate(2, 'b', true), candidate(3, 'c', true)];
        history[1].kept = false;
        let live = history[2].clone();
        let target = default_target(&history, Some(&live), &BTreeSet::new()).expect("v1");
        assert_eq!(target.version.get(), 1);
    }
}
