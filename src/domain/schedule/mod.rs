//! When something runs by itself: a cron expression or an interval, in a time zone.
//!
//! Plain values, made only by parsing, so that whoever holds one knows that it is sound and that it comes some day.
//! The next start is computed by `decide::due`; the zone is found by `zones`.
//!
//! Invariant: a [`Cron`] has no empty field, and at least one day of at least one year belongs to it.

mod cron;
mod parse;

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;

pub use cron::{Cron, DayRule, Field, Set};

/// Longest expression that is read, in bytes. All five fields written out as lists take about half of it.
pub const MAX_EXPRESSION: usize = 1000;

/// When something runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the times of the wall clock that an expression names, in a zone.
    Cron {
        /// The times.
        cron: Cron,
        /// Where the clock hangs.
        zone: TimeZone,
    },
    /// At a fixed distance; the clock of no place is asked.
    Every(Every),
}

/// An interval of whole seconds. Its starts are the multiples of it since 1970-01-01T00:00:00Z, so they do
/// not depend on when somebody deployed or restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every(u32);

impl Every {
    /// The shortest interval.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// The longest interval.
    pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// An interval of this length.
    pub fn new(length: Duration) -> Result<Self, ScheduleError> {
        let refuse = |what: &str, hint: &str| Err(ScheduleError::new(format!("an interval {what}"), hint));
        if length < Self::SHORTEST {
            return refuse("must be at least 1s", "what must go on all the time is a worker, not a schedule");
        }
        if length > Self::LONGEST {
            return refuse("must be at most 366d", "write a cron expression for what comes less than once a year");
        }
        match u32::try_from(length.as_secs()) {
            Ok(seconds) if length.subsec_nanos() == 0 => Ok(Self(seconds)),
            Ok(_) | Err(_) => refuse("must be whole seconds", "write 2s instead of 1500ms"),
        }
    }

    /// Its length in seconds, never zero.
    pub fn seconds(self) -> i64 {
        i64::from(self.0)
    }
}

/// Why a text is no schedule, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError {
    /// What is wrong, with the field it is in.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl ScheduleError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.hint)
    }
}

impl std::error::Error for ScheduleError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_whole_seconds_within_a_year() {
        assert_eq!(Every::new(Duration::from_secs(900)).unwrap().seconds(), 900);
        for (millis, said) in [(0, "at least 1s"), (999, "at least 1s"), (1500, "whole seconds")] {
            let error = Every::new(Duration::from_millis(millis)).unwrap_err();
            assert!(error.message.contains(said), "{millis}: {error}");
        }
        assert!(Every::new(Every::LONGEST).is_ok());
        assert!(Every::new(Every::LONGEST + Duration::from_secs(1)).unwrap_err().hint.contains("cron"));
    }
}
