//! Cron on a wall clock without a zone: what the `cron` crate is asked, and how.
//!
//! Wall time is a number: the seconds since 1970-01-01 00:00 that the clock on the wall shows. The crate gets it as
//! UTC, the one zone in which it cannot go wrong. Its language is another one than Debian's (Sunday is 1, day fields
//! are always joined by *and*, `5/2` has a meaning), so it never sees what somebody wrote, only our sets.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use cron::Schedule;

use crate::domain::schedule::{Cron, DayRule, Field, Set};

/// The last year that the crate knows.
pub const LAST_YEAR: i16 = 2100;

/// The last minute before the first year that the crate knows.
const BEFORE_THE_FIRST: i64 = -60;

/// The crate did not take an expression that ours is made of: a defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression `{expression}` cannot be evaluated ({reason}); this is a defect, please report it")]
pub struct WallError {
    expression: String,
    reason: String,
}

/// Cron without a zone.
#[derive(Debug, Clone)]
pub struct WallCron {
    first: Schedule,
    /// The other half where either day field is enough.
    second: Option<Schedule>,
}

impl WallCron {
    /// Prepares an expression.
    pub fn new(cron: &Cron) -> Result<Self, WallError> {
        let all_weekdays = (0..=6).all(|day| cron.weekdays().contains(day));
        let all_days = (1..=31).all(|day| cron.days().contains(day));
        let weekdays = if all_weekdays { None } else { Some(cron.weekdays()) };
        let days = if all_days { None } else { Some(cron.days()) };
        let (first, second) = match cron.day_rule() {
            DayRule::Both => (schedule(cron, days, weekdays)?, None),
            // One field with every day in it decides; two schedules would only say the same twice.
            DayRule::Either if all_days || all_weekdays => (schedule(cron, None, None)?, None),
            DayRule::Either => (schedule(cron, None, weekdays)?, Some(schedule(cron, days, None)?)),
        };
        Ok(Self { first, second })
    }

    /// The first time later than `after` that the clock shows and the expression names.
    pub fn next(&self, after: i64) -> Option<i64> {
        let after = DateTime::from_timestamp(after.max(BEFORE_THE_FIRST), 0)?;
        let first = next_of(&self.first, &after);
        let second = self.second.as_ref().and_then(|schedule| next_of(schedule, &after));
        first.into_iter().chain(second).min()
    }
}

fn next_of(schedule: &Schedule, after: &DateTime<Utc>) -> Option<i64> {
    schedule.after(after).next().map(|next| next.timestamp())
}

/// The crate's form of an expression; a day field that is left out is `*`.
fn schedule(cron: &Cron, days: Option<Set>, weekdays: Option<Set>) -> Result<Schedule, WallError> {
    let expression = format!(
        "0 {} {} {} {} {}",
        list(cron.minutes(), Field::Minute, 0),
        list(cron.hours(), Field::Hour, 0),
        days.map_or_else(|| "*".to_owned(), |days| list(days, Field::DayOfMonth, 0)),
        list(cron.months(), Field::Month, 0),
        weekdays.map_or_else(|| "*".to_owned(), |weekdays| list(weekdays, Field::DayOfWeek, 1)),
    );
    expression.parse().map_err(|error: cron::error::Error| WallError { expression, reason: error.to_string() })
}

/// A set as the crate reads it fastest: `*` for all of a field, else runs of numbers, each moved by `shift`.
fn list(set: Set, field: Field, shift: u8) -> String {
    let (low, high) = field.bounds();
    if (low..=high).all(|number| set.contains(number)) {
        return "*".to_owned();
    }
    let mut text = String::new();
    let mut numbers = set.iter().peekable();
    while let Some(from) = numbers.next() {
        let mut to = from;
        while let Some(next) = numbers.next_if(|next| *next == to + 1) {
            to = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = if from == to {
            write!(text, "{comma}{}", from + shift)
        } else {
            write!(text, "{comma}{}-{}", from + shift, to + shift)
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_gets_sundays_as_1_and_two_halves_where_one_day_field_is_enough() {
        let sources = |text: &str| {
            let wall = WallCron::new(&text.parse().unwrap()).unwrap();
            (wall.first.source().to_owned(), wall.second.map(|second| second.source().to_owned()))
        };
        let one = |text: &str| (text.to_owned(), None);
        assert_eq!(sources("0 4 * * 0,1,2,6"), one("0 0 4 * * 1-3,7"));
        assert_eq!(sources("*/20 */12 */10 1-12 *"), one("0 0,20,40 0,12 1,11,21,31 * *"));
        assert_eq!(sources("0 4 13 * 5"), ("0 0 4 * * 6".into(), Some("0 0 4 13 * *".into())));
        assert_eq!(sources("0 4 1-31 * 5"), one("0 0 4 * * *"));
        assert_eq!(sources("0 4 13 * 1-7"), one("0 0 4 * * *"));
    }

    #[test]
    fn times_before_1970_and_after_2100_have_an_answer_too() {
        let daily = WallCron::new(&"0 0 * * *".parse().unwrap()).unwrap();
        assert_eq!(daily.next(i64::from(i32::MIN) * 10), Some(0));
        assert_eq!(daily.next(0), Some(86_400));
        assert_eq!(daily.next(4_133_894_400), None, "2101");
        assert_eq!(daily.next(i64::MAX), None);
    }
}
