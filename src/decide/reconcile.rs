//! What is to be done about one app, given what git asks for and what is recorded.
//!
//! `desired(app) = hold(app) ? ledger[hold.version] : newest content from git that is not quarantined`
//!
//! Called after every event that could change the answer. Invariant: carrying out the step and asking again
//! yields [`Step::Nothing`] (or the same [`Step::Wait`]), so the loop comes to rest.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::domain::{ContentId, VersionNumber};

/// What git says about an app now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This content.
    Content(ContentId),
    /// Its manifest cannot be read: unknown, not absent. Nothing is concluded from it.
    Unknown,
    /// A complete reading of the source did not have it.
    Absent,
    /// No source speaks of it; it was uploaded.
    Nobody,
}

/// What is recorded about an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The content that receives new work.
    pub live: Option<ContentId>,
    /// The deployment under way or waiting, newest last word.
    pub open: Option<Open>,
    /// The content of the newest version when its deployment failed: it is not tried again by itself.
    pub failed: Option<ContentId>,
    /// The hold.
    pub hold: Option<Held>,
    /// Content that must not be started by itself.
    pub quarantine: BTreeSet<ContentId>,
    /// Frozen until this instant (`Some(None)`: until resumed).
    pub suspended: Option<Option<Timestamp>>,
    /// The app was stopped while git asked for this content.
    pub stopped: Option<Option<ContentId>>,
}

/// An open deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What it makes live.
    pub content: ContentId,
    /// It is past the point where it could be cancelled without anybody noticing.
    pub live: bool,
}

/// A hold as the decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The held version.
    pub version: VersionNumber,
    /// Its content.
    pub content: ContentId,
    /// What git asked for when the hold was made. Only other content than this ends the hold.
    pub over: Option<ContentId>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// What to do about an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, and nothing is owed.
    Nothing,
    /// Nothing now, for this reason.
    Wait(Why),
    /// Record a version with git's content and deploy it; `ends_hold` when a hold stands in the way.
    Deploy {
        /// The content.
        content: ContentId,
        /// Ends the hold in the same transaction.
        ends_hold: bool,
    },
    /// End the hold; what runs is what git asks for.
    EndHold(HoldEnd),
    /// End the suspension and ask again.
    EndSuspension,
    /// Cancel the open deployment: git has gone back to what is live.
    CancelOpen,
    /// The app is gone from git: stop it.
    Prune,
}

/// Why a hold ends without a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnd {
    /// Git went back to the held content.
    GitAgrees,
    /// Its time was over.
    Expired,
}

/// Why nothing is done now although git asks for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The app is frozen.
    Suspended,
    /// A hold stands.
    Held,
    /// Git asks for quarantined content.
    Quarantined,
    /// Git's content failed to deploy; only other content, or a person, starts anew.
    Failed,
    /// A person stopped the app; only other content, or a person, starts it.
    Stopped,
    /// The manifest cannot be read.
    Unknown,
}

/// Decides about one app.
pub fn step(wanted: &Wanted, recorded: &Recorded, now: Timestamp) -> Step {
    if let Some(until) = recorded.suspended {
        return match until {
            Some(until) if until <= now => Step::EndSuspension,
            _ => Step::Wait(Why::Suspended),
        };
    }
    if let Some(held) = &recorded.hold
        && held.until.is_some_and(|until| until <= now)
    {
        return Step::EndHold(HoldEnd::Expired);
    }
    let content = match wanted {
        Wanted::Nobody => return Step::Nothing,
        Wanted::Unknown => return Step::Wait(Why::Unknown),
        Wanted::Absent if recorded.stopped.is_some() => return Step::Nothing,
        Wanted::Absent => return Step::Prune,
        Wanted::Content(content) => content,
    };
    match &recorded.hold {
        Some(held) => under_hold(content, held, recorded),
        None => freely(content, recorded),
    }
}

fn under_hold(content: &ContentId, held: &Held, recorded: &Recorded) -> Step {
    if *content == held.content {
        return Step::EndHold(HoldEnd::GitAgrees);
    }
    if recorded.quarantine.contains(content) {
        return Step::Wait(Why::Quarantined);
    }
    if held.over.as_ref() == Some(content) {
        return Step::Wait(Why::Held);
    }
    Step::Deploy { content: content.clone(), ends_hold: true }
}

fn freely(content: &ContentId, recorded: &Recorded) -> Step {
    // What the newest decision leads to: an open deployment if there is one, else what is live.
    let live = recorded.live.as_ref().filter(|_| recorded.stopped.is_none());
    let heading_for = recorded.open.as_ref().map(|open| &open.content).or(live);
    if heading_for == Some(content) {
        return Step::Nothing;
    }
    if live == Some(content) && recorded.open.as_ref().is_some_and(|open| !open.live) {
        return Step::CancelOpen;
    }
    if recorded.stopped.as_ref().is_some_and(|stopped_with| stopped_with.as_ref() == Some(content)) {
        return Step::Wait(Why::Stopped);
    }
    if recorded.quarantine.contains(content) {
        return Step::Wait(Why::Quarantined);
    }
    if recorded.failed.as_ref() == Some(content) {
        return Step::Wait(Why::Failed);
    }
    Step::Deploy { content: content.clone(), ends_hold: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(letter: char) -> ContentId {
        let hex = format!("{:02x}", letter as u32);
        hex.repeat(32).parse().expect("64 digits")
    }

    fn git(letter: char) -> Wanted {
        Wanted::Content(content(letter))
    }

    fn running(letter: char) -> Recorded {
        Recorded {
            live: Some(content(letter)),
            open: None,
            failed: None,
            hold: None,
            quarantine: BTreeSet::new(),
            suspended: None,
            stopped: None,
        }
    }

    fn held(letter: char, over: char) -> Option<Held> {
        let version = VersionNumber::new(3).expect("3");
        Some(Held { version, content: content(letter), over: Some(content(over)), until: None })
    }

    fn decide(wanted: Wanted, recorded: &Recorded) -> Step {
        step(&wanted, recorded, Timestamp::from_second(1_000_000).expect("in range"))
    }

    fn deploy(letter: char) -> Step {
        Step::Deploy { content: content(letter), ends_hold: false }
    }

    #[test]
    fn new_content_is_deployed_and_the_same_content_is_left_alone() {
        assert_eq!(decide(git('b'), &running('a')), deploy('b'));
        assert_eq!(decide(git('a'), &running('a')), Step::Nothing);
    }

    #[test]
    fn a_broken_manifest_is_unknown_and_not_absent() {
        assert_eq!(decide(Wanted::Unknown, &running('a')), Step::Wait(Why::Unknown));
        assert_eq!(decide(Wanted::Absent, &running('a')), Step::Prune);
    }

    #[test]
    fn going_back_during_a_deployment_cancels_it() {
        let mut app = running('a');
        app.open = Some(Open { content: content('b'), live: false });
        assert_eq!(decide(git('a'), &app), Step::CancelOpen);
        assert_eq!(decide(git('b'), &app), Step::Nothing);
        assert_eq!(decide(git('c'), &app), deploy('c'));
    }

    #[test]
    fn failed_content_is_not_tried_again_by_itself() {
        let mut app = running('a');
        app.failed = Some(content('b'));
        assert_eq!(decide(git('b'), &app), Step::Wait(Why::Failed));
        assert_eq!(decide(git('c'), &app), deploy('c'));
    }

    #[test]
    fn a_hold_stands_until_git_yields_other_good_content() {
        let mut app = running('a');
        app.hold = held('a', 'b');
        app.quarantine.insert(content('b'));
        assert_eq!(decide(git('b'), &app), Step::Wait(Why::Quarantined));
        assert_eq!(decide(git('c'), &app), Step::Deploy { content: content('c'), ends_hold: true });
        assert_eq!(decide(git('a'), &app), Step::EndHold(HoldEnd::GitAgrees));
    }

    #[test]
    fn a_hold_over_content_that_is_not_quarantined_still_stands() {
        let mut app = running('a');
        app.hold = held('a', 'b');
        assert_eq!(decide(git('b'), &app), Step::Wait(Why::Held));
    }

    #[test]
    fn an_expired_hold_ends_but_quarantine_stays() {
        let mut app = running('a');
        app.hold = held('a', 'b');
        app.quarantine.insert(content('b'));
        if let Some(hold) = &mut app.hold {
            hold.until = Timestamp::from_second(999_999).ok();
        }
        assert_eq!(decide(git('b'), &app), Step::EndHold(HoldEnd::Expired));
        app.hold = None;
        assert_eq!(decide(git('b'), &app), Step::Wait(Why::Quarantined));
    }

    #[test]
    fn a_stopped_app_starts_only_with_other_content() {
        let mut app = running('a');
        app.live = None;
        app.stopped = Some(Some(content('a')));
        assert_eq!(decide(git('a'), &app), Step::Wait(Why::Stopped));
        assert_eq!(decide(git('b'), &app), deploy('b'));
        assert_eq!(decide(Wanted::Absent, &app), Step::Nothing);
        // While the other content starts, nothing more is owed.
        app.open = Some(Open { content: content('b'), live: false });
        assert_eq!(decide(git('b'), &app), Step::Nothing);
        app.open = None;
        // Pruned, then back in git with any content.
        app.stopped = Some(None);
        assert_eq!(decide(git('a'), &app), deploy('a'));
    }

    #[test]
    fn a_suspension_freezes_everything_until_its_time() {
        let mut app = running('a');
        app.suspended = Some(None);
        assert_eq!(decide(git('b'), &app), Step::Wait(Why::Suspended));
        assert_eq!(decide(Wanted::Absent, &app), Step::Wait(Why::Suspended));
        app.suspended = Some(Timestamp::from_second(999_999).ok());
        assert_eq!(decide(git('b'), &app), Step::EndSuspension);
    }
}
