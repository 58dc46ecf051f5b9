//! Wall time in a zone: what happens where the clock is changed.
//!
//! ```text
//!            gap: the clock is put forward        overlap: the clock is put back
//! wall   ──── 01:59 │ 03:00 ────               ──── 02:59 │ 02:00 ──── 02:59 ─ 03:00 ──
//!                   ▲ 02:30 is never shown       first pass     second pass
//! fixed             └ its one start: here        starts here    not again
//! wildcard            no start                   starts here    and here
//! ```
//!
//! A wildcard expression follows the clock. A fixed one names times of day, and each of them belongs to one moment
//! of its day: all of those in one gap share one start, at its end.
//!
//! Invariant: what is answered is later than what was asked.

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use crate::domain::schedule::Cron;

use super::wall::{WallCron, WallError};

/// Longest gap after which fixed times are made up for, in seconds. A longer one is no daylight saving but a place
/// that moves across the date line: its lost day is lost.
const LONGEST_GAP: i64 = 3 * 60 * 60;

/// Cron in a zone.
#[derive(Debug, Clone)]
pub struct ZonedCron {
    wall: WallCron,
    zone: TimeZone,
    wildcard: bool,
}

/// How often the clock shows a time of the wall, with the offsets from UTC (in seconds) before and after the change
/// that makes the difference.
#[derive(Debug, Clone, Copy)]
enum Shown {
    Once { offset: i64 },
    Never { before: i64, after: i64 },
    Twice { before: i64, after: i64 },
}

impl ZonedCron {
    /// Prepares an expression.
    pub fn new(cron: &Cron, zone: TimeZone) -> Result<Self, WallError> {
        Ok(Self { wall: WallCron::new(cron)?, zone, wildcard: cron.is_wildcard() })
    }

    /// The first start later than `last`, both in seconds since the epoch.
    pub fn next(&self, last: i64) -> Option<i64> {
        let offset = offset(self.zone.to_offset(Timestamp::from_second(last).ok()?));
        if self.wildcard { self.next_wildcard(last, offset) } else { self.next_fixed(last, offset) }
    }

    fn next_fixed(&self, last: i64, offset: i64) -> Option<i64> {
        let mut wall = last + offset;
        loop {
            wall = self.wall.next(wall)?;
            let start = match self.shown(wall)? {
                Shown::Once { offset } | Shown::Twice { before: offset, .. } => wall - offset,
                Shown::Never { before, after } if after - before > LONGEST_GAP => continue,
                Shown::Never { before, after } => self.change(wall - after, after).unwrap_or(wall - before),
            };
            // Asked in the second pass of an overlap, the clock names times whose start was in the first one.
            if start > last {
                return Some(start);
            }
        }
    }

    fn next_wildcard(&self, last: i64, offset: i64) -> Option<i64> {
        let mut wall = last + offset;
        if let Shown::Twice { before, after } = self.shown(wall)?
            && offset == before
        {
            // In the first pass: after what is left of it the clock goes back to where the second one begins.
            let change = self.change(last, after)?;
            let start = self.wall.next(wall)? - before;
            if start < change {
                return Some(start);
            }
            wall = change + after - 1;
        }
        loop {
            wall = self.wall.next(wall)?;
            let start = match self.shown(wall)? {
                Shown::Once { offset } => wall - offset,
                Shown::Twice { before, .. } if wall - before > last => wall - before,
                Shown::Twice { after, .. } => wall - after,
                Shown::Never { before, after } => {
                    wall = wall.max(self.change(wall - after, after).unwrap_or(wall - before) + after - 1);
                    continue;
                }
            };
            if start > last {
                return Some(start);
            }
        }
    }

    fn shown(&self, wall: i64) -> Option<Shown> {
        let time = Offset::UTC.to_datetime(Timestamp::from_second(wall).ok()?);
        let (before, after) = match self.zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset: only } => return Some(Shown::Once { offset: offset(only) }),
            AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
                (offset(before), offset(after))
            }
        };
        // Whether there is a change is asked of the clock itself: where the listed changes of a zone end and its rule
        // for the years to come begins, the rule may tell of a change that was none (Nuuk, 29 October 2023).
        Some(match (self.shows(wall, before)?, self.shows(wall, after)?) {
            (true, true) => Shown::Twice { before, after },
            (true, false) => Shown::Once { offset: before },
            (false, true) => Shown::Once { offset: after },
            (false, false) => Shown::Never { before, after },
        })
    }

    /// Whether the clock shows a time of the wall while it is this far from UTC.
    fn shows(&self, wall: i64, offset: i64) -> Option<bool> {
        let then = Timestamp::from_second(wall - offset).ok()?;
        Some(i64::from(self.zone.to_offset(then).seconds()) == offset)
    }

    /// The moment after `from` at which the clock is changed to an offset. Zones also have changes of a name alone.
    fn change(&self, from: i64, to: i64) -> Option<i64> {
        let from = Timestamp::from_second(from).ok()?;
        let change = self.zone.following(from).find(|change| offset(change.offset()) == to)?;
        Some(change.timestamp().as_second())
    }
}

fn offset(offset: Offset) -> i64 {
    i64::from(offset.seconds())
}
