//! When people hear of a trouble, and when they are left in peace.
//!
//! ```text
//! well ──failure──► counted ──enough failures──► announced ──another kind of error──► announced (told as changed)
//!   ▲                  │                             │  └──a reminder's time is over──► announced (told again)
//!   └──── recovery ────┘ (silent)                    └── recovery ──► well (told once)
//! ```
//!
//! Pure: one [`Episode`] is one trouble of one channel, from its first failure to its recovery; it is kept in the
//! ledger, so that a restart neither forgets nor repeats anything.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a channel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Failures in a row before people hear of them; at least 1.
    pub after: u32,
    /// A trouble that lasts is told again after this long.
    pub reminder: Duration,
    /// A trouble that was told is ended for this channel even if its end is no news to people: programs keep a list.
    pub ends: bool,
}

/// A trouble that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// The event's word.
    pub event: String,
    /// The kind of error; never a text with a time or a number in it.
    pub cause: String,
    /// What it is about, in words.
    pub subject: String,
    /// The newest words about it.
    pub text: String,
    /// When it began.
    pub since: Timestamp,
    /// How many failures there were.
    pub count: u32,
    /// When people last heard of it, if they have.
    pub announced_at: Option<Timestamp>,
    /// This channel itself told of it.
    #[serde(default)]
    pub told: bool,
}

/// One failure of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The event's word.
    pub event: String,
    /// The kind of error.
    pub cause: String,
    /// What it is about, in words.
    pub subject: String,
    /// What happened.
    pub text: String,
    /// People have heard of it by another message already.
    pub known: bool,
}

/// Why something is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is new.
    First,
    /// The kind of error is another one now.
    Changed,
    /// It still lasts.
    Reminder,
    /// It is over.
    Recovered,
}

/// Takes in a failure; answers whether it is told.
#[must_use]
pub fn fail(episode: Option<Episode>, failure: &Failure, at: Timestamp, rules: Rules) -> (Episode, Option<Told>) {
    let before = episode.as_ref().map(|episode| (episode.cause.clone(), episode.announced_at));
    let mut episode = episode.unwrap_or_else(|| Episode {
        event: failure.event.clone(),
        cause: failure.cause.clone(),
        subject: failure.subject.clone(),
        text: String::new(),
        since: at,
        count: 0,
        announced_at: None,
        told: false,
    });
    episode.count = episode.count.saturating_add(1);
    episode.event.clone_from(&failure.event);
    episode.cause.clone_from(&failure.cause);
    episode.text.clone_from(&failure.text);
    let told = match before {
        Some((cause, Some(_))) if cause != failure.cause => Some(Told::Changed),
        Some((_, Some(announced_at))) => is_over(announced_at, at, rules.reminder).then_some(Told::Reminder),
        Some((_, None)) | None => (episode.count >= rules.after.max(1)).then_some(Told::First),
    };
    if told.is_some() {
        episode.announced_at = Some(at);
    }
    let told = told.filter(|_| !failure.known);
    episode.told |= told.is_some();
    (episode, told)
}

/// Takes in the end of a trouble; answers whether it is told.
#[must_use]
pub fn recover(episode: Option<&Episode>) -> Option<Told> {
    episode.and_then(|episode| episode.announced_at).map(|_| Told::Recovered)
}

/// Takes in an end that is no news to people; answers whether this channel is told all the same.
#[must_use]
pub fn end(episode: &Episode, rules: Rules) -> Option<Told> {
    (rules.ends && episode.told).then_some(Told::Recovered)
}

/// What the clock alone leads to.
#[must_use]
pub fn remind(mut episode: Episode, now: Timestamp, rules: Rules) -> (Episode, Option<Told>) {
    match episode.announced_at {
        Some(at) if is_over(at, now, rules.reminder) => {
            episode.announced_at = Some(now);
            episode.told = true;
            (episode, Some(Told::Reminder))
        }
        Some(_) | None => (episode, None),
    }
}

fn is_over(since: Timestamp, now: Timestamp, wait: Duration) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed >= wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    const RULES: Rules = Rules { after: 1, reminder: Duration::from_secs(24 * 3600), ends: false };

    fn failure(cause: &str) -> Failure {
        let text = |text: &str| text.to_owned();
        Failure {
            event: text("deployment.failed"),
            cause: text(cause),
            subject: text("shop"),
            text: text("no"),
            known: false,
        }
    }

    /// Plays a history of `(hour, what)`; `ok` is a recovery, `tick` only the clock. Answers what was told at which hour.
    fn told(rules: Rules, history: &[(i64, &str)]) -> Vec<(i64, Told, u32)> {
        let (mut episode, mut told): (Option<Episode>, Vec<_>) = (None, Vec::new());
        for (hour, what) in history {
            let at = Timestamp::from_second(hour * HOUR).unwrap();
            let said = match (*what, episode.take()) {
                ("ok", before) => recover(before.as_ref()).map(|told| (told, before.map_or(0, |before| before.count))),
                ("tick", None) => None,
                ("tick", Some(before)) => {
                    let (after, said) = remind(before, at, rules);
                    let count = after.count;
                    episode = Some(after);
                    said.map(|said| (said, count))
                }
                (cause, before) => {
                    let (after, said) = fail(before, &failure(cause), at, rules);
                    let count = after.count;
                    episode = Some(after);
                    said.map(|said| (said, count))
                }
            };
            told.extend(said.map(|(said, count)| (*hour, said, count)));
        }
        told
    }

    #[test]
    fn the_first_failure_is_told_and_the_same_again_is_not() {
        let history = [(0, "build_failed"), (1, "build_failed"), (2, "build_failed")];
        assert_eq!(told(RULES, &history), [(0, Told::First, 1)]);
    }

    #[test]
    fn another_kind_of_error_is_told() {
        let history = [(0, "build_failed"), (1, "not_ready"), (2, "not_ready"), (3, "build_failed")];
        assert_eq!(told(RULES, &history), [(0, Told::First, 1), (1, Told::Changed, 2), (3, Told::Changed, 4)]);
    }

    #[test]
    fn one_recovery_is_told_and_only_after_a_failure_that_was() {
        assert_eq!(told(RULES, &[(0, "ok"), (1, "ok")]), []);
        let history = [(0, "auth"), (1, "ok"), (2, "ok"), (3, "auth")];
        assert_eq!(told(RULES, &history), [(0, Told::First, 1), (1, Told::Recovered, 1), (3, Told::First, 1)]);
    }

    #[test]
    fn what_lasts_is_told_again_each_day_with_its_count() {
        let history = [(0, "auth"), (23, "auth"), (24, "tick"), (30, "tick"), (47, "auth"), (48, "auth"), (49, "tick")];
        assert_eq!(told(RULES, &history), [(0, Told::First, 1), (24, Told::Reminder, 2), (48, Told::Reminder, 4)]);
    }

    #[test]
    fn after_several_failures_means_in_a_row() {
        let rules = Rules { after: 3, ..RULES };
        let history = [(0, "a"), (1, "a"), (2, "ok"), (3, "a"), (4, "b"), (5, "b"), (30, "tick"), (31, "ok")];
        let expected = [(5, Told::First, 3), (30, Told::Reminder, 3), (31, Told::Recovered, 3)];
        assert_eq!(told(rules, &history), expected);
    }

    #[test]
    fn a_silent_end_is_told_to_programs_that_were_told_of_the_trouble() {
        let at = |hour: i64| Timestamp::from_second(hour * HOUR).unwrap();
        let programs = Rules { ends: true, ..RULES };
        let (told, _) = fail(None, &failure("exit"), at(0), programs);
        assert_eq!((end(&told, programs), end(&told, RULES)), (Some(Told::Recovered), None));
        let (known, _) = fail(None, &Failure { known: true, ..failure("held") }, at(0), programs);
        assert_eq!(end(&known, programs), None, "it was never told of it");
        assert_eq!(end(&remind(known, at(24), programs).0, programs), Some(Told::Recovered), "now it was");
    }

    #[test]
    fn what_people_know_already_is_only_reminded_of() {
        let at = |hour: i64| Timestamp::from_second(hour * HOUR).unwrap();
        let (episode, said) = fail(None, &Failure { known: true, ..failure("held") }, at(0), RULES);
        assert_eq!(said, None);
        assert_eq!(remind(episode.clone(), at(23), RULES).1, None);
        assert_eq!(remind(episode, at(24), RULES).1, Some(Told::Reminder));
    }
}
