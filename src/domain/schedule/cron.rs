//! A cron expression as what it means: five sets of numbers, and two facts about how it was written.
//!
//! The sets alone are not enough, because Debian's cron looks at the first character of a field: one that starts
//! with `*` joins the two day fields by *and*, and makes the expression follow the wall clock through a change of it.

use std::fmt;

/// One of the five fields, in the order they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0-59
    Minute,
    /// 0-23
    Hour,
    /// 1-31
    DayOfMonth,
    /// 1-12, or a name
    Month,
    /// 0-7, or a name; 0 and 7 are Sunday
    DayOfWeek,
}

impl Field {
    /// All of them, as written.
    pub const ALL: [Field; 5] = [Field::Minute, Field::Hour, Field::DayOfMonth, Field::Month, Field::DayOfWeek];

    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day of month",
            Field::Month => "month",
            Field::DayOfWeek => "day of week",
        }
    }

    /// The smallest and the largest number that may be written.
    pub fn bounds(self) -> (u8, u8) {
        match self {
            Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::DayOfMonth => (1, 31),
            Field::Month => (1, 12),
            Field::DayOfWeek => (0, 7),
        }
    }

    /// Names that stand for numbers, from the smallest number on.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Field::Minute | Field::Hour | Field::DayOfMonth => &[],
            Field::Month => &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
            Field::DayOfWeek => &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of numbers from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set(u64);

impl Set {
    /// Adds a number.
    pub(super) fn insert(&mut self, number: u8) {
        self.0 |= 1_u64.checked_shl(u32::from(number)).unwrap_or(0);
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, number: u8) {
        self.0 &= !1_u64.checked_shl(u32::from(number)).unwrap_or(0);
    }

    /// Whether a number is in it.
    pub fn contains(self, number: u8) -> bool {
        self.0.checked_shr(u32::from(number)).unwrap_or(0) & 1 == 1
    }

    /// Its numbers, the smallest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |number| self.contains(*number))
    }

    /// The smallest number.
    pub fn first(self) -> Option<u8> {
        self.iter().next()
    }
}

/// How the two day fields are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayRule {
    /// One of them starts with `*`: a day must be in both.
    Both,
    /// Neither does: it is enough that a day is in one.
    Either,
}

/// A cron expression. Made by parsing a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    pub(super) text: String,
    pub(super) minutes: Set,
    pub(super) hours: Set,
    pub(super) days: Set,
    pub(super) months: Set,
    pub(super) weekdays: Set,
    pub(super) day_rule: DayRule,
    pub(super) wildcard: bool,
}

impl Cron {
    /// 0-59
    pub fn minutes(&self) -> Set {
        self.minutes
    }

    /// 0-23
    pub fn hours(&self) -> Set {
        self.hours
    }

    /// Days of the month, 1-31
    pub fn days(&self) -> Set {
        self.days
    }

    /// 1-12
    pub fn months(&self) -> Set {
        self.months
    }

    /// 0-6, 0 is Sunday
    pub fn weekdays(&self) -> Set {
        self.weekdays
    }

    /// How days of the month and days of the week are joined.
    pub fn day_rule(&self) -> DayRule {
        self.day_rule
    }

    /// Whether minute or hour starts with `*`: such an expression follows the wall clock wherever it goes, the
    /// others name times of day that come once each day.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether any date belongs to it. A weekday comes on every date some year, so only the months' lengths matter.
    pub(super) fn comes(&self) -> bool {
        self.day_rule == DayRule::Either
            || self.days.first().is_some_and(|first| self.months.iter().any(|month| first <= longest(month)))
    }
}

/// The most days a month can have.
pub(super) fn longest(month: u8) -> u8 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// As it was written.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
