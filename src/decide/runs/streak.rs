//! How often in a row a schedule has failed, succeeded or been skipped, and when that is news.
//!
//! A failure is news when it is the one people want to hear of first, and again when its kind changes; a success
//! after that is news once. Everything in between is in the history and nowhere else.

use crate::domain::CallOutcome;

/// So many skipped runs in a row are news.
pub const SKIPS_WORTH_TELLING: u32 = 3;

/// What a schedule remembers of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Streak {
    /// Successes in a row up to now.
    pub successes: u32,
    /// Failures in a row up to now.
    pub failures: u32,
    /// Runs in a row that did not start because another one was under way.
    pub skips: u32,
    /// The kind of the last failure, while it lasts.
    pub kind: Option<String>,
}

/// What people may want to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It fails, for so many runs in a row.
    Failed(u32),
    /// It succeeds again, after so many failures.
    Recovered(u32),
    /// So many runs in a row were skipped.
    Skipped(u32),
}

impl Streak {
    /// After a run has ended, or was not started. `kind` is the sort of its error, `notify_after` how many failures
    /// in a row are worth telling.
    #[must_use]
    pub fn after(&self, outcome: CallOutcome, kind: Option<&str>, notify_after: u32) -> (Self, Option<News>) {
        let mut next = self.clone();
        let news = match outcome {
            CallOutcome::Succeeded => {
                next = Self { successes: self.successes.saturating_add(1), ..Self::default() };
                (self.failures >= notify_after.max(1)).then_some(News::Recovered(self.failures))
            }
            CallOutcome::Failed | CallOutcome::TimedOut => {
                let kind = kind.unwrap_or(outcome.as_str()).to_owned();
                let failures = self.failures.saturating_add(1);
                let other = failures > notify_after && self.kind.as_deref() != Some(kind.as_str());
                next = Self { successes: 0, failures, skips: 0, kind: Some(kind) };
                (failures == notify_after.max(1) || other).then_some(News::Failed(failures))
            }
            CallOutcome::SkippedOverlap => {
                next.skips = self.skips.saturating_add(1);
                (next.skips == SKIPS_WORTH_TELLING).then_some(News::Skipped(next.skips))
            }
            // Neither says anything about the function.
            CallOutcome::Cancelled | CallOutcome::Missed => None,
        };
        (next, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CallOutcome::{Cancelled, Failed, Missed, SkippedOverlap, Succeeded, TimedOut};

    fn news(notify_after: u32, runs: &[(CallOutcome, &str)]) -> Vec<Option<News>> {
        let mut streak = Streak::default();
        let mut told = Vec::new();
        for (outcome, kind) in runs {
            let (next, news) =
                streak.after(*outcome, Some(kind).filter(|kind| !kind.is_empty()).copied(), notify_after);
            streak = next;
            told.push(news);
        }
        told
    }

    #[test]
    fn the_first_failure_and_the_recovery_are_told_and_nothing_between() {
        let runs = [
            (Succeeded, ""),
            (Failed, "KeyError"),
            (Failed, "KeyError"),
            (Cancelled, ""),
            (Failed, "KeyError"),
            (Succeeded, ""),
            (Succeeded, ""),
        ];
        let told = [None, Some(News::Failed(1)), None, None, None, Some(News::Recovered(3)), None];
        assert_eq!(news(1, &runs), told);
    }

    #[test]
    fn with_patience_only_what_lasts_is_told_and_only_what_was_told_recovers() {
        let runs = [
            (Failed, "a"),
            (Failed, "b"),
            (Succeeded, ""),
            (Failed, "a"),
            (TimedOut, ""),
            (Failed, "a"),
            (Failed, "c"),
            (Succeeded, ""),
        ];
        let told =
            [None, None, None, None, None, Some(News::Failed(3)), Some(News::Failed(4)), Some(News::Recovered(4))];
        assert_eq!(news(3, &runs), told);
    }

    #[test]
    fn three_skips_in_a_row_are_told_once_until_a_run_ends() {
        let skip = (SkippedOverlap, "");
        let told = news(1, &[skip, skip, skip, skip, (Missed, ""), (Succeeded, ""), skip, skip, skip]);
        let skipped = Some(News::Skipped(3));
        assert_eq!(told, [None, None, skipped, None, None, None, None, None, skipped]);
    }
}
