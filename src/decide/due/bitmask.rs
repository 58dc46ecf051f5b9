//! A second evaluator, written another way, against which the first one is checked.
//!
//! It knows nothing of the `cron` crate and asks the zone only for its offset at a moment and for its changes: it
//! walks through the stretches of time between two changes, in each day by day, and tests bits. Where it meets a
//! change it does what Debian's cron does when it wakes up and finds that the clock has moved.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

/// What five fields mean, as bits.
#[derive(Debug, Clone, Copy)]
pub struct Bits {
    pub minutes: u64,
    pub hours: u32,
    pub days: u32,
    pub months: u16,
    pub weekdays: u8,
    pub either: bool,
    pub wildcard: bool,
}

/// Years after which nothing is looked for any more.
const PATIENCE: i16 = 45;

/// A stretch of time with one offset.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: i64,
    to: i64,
    offset: i64,
}

impl Bits {
    fn has_day(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        self.months >> date.month() & 1 == 1 && if self.either { day || weekday } else { day && weekday }
    }

    /// The first wall time in `from..to`.
    fn first_in(&self, from: i64, to: i64) -> Option<i64> {
        let mut date = civil(from).date();
        loop {
            let midnight = wall(date.at(0, 0, 0, 0));
            if midnight >= to {
                return None;
            }
            if self.has_day(date) {
                for hour in (0..24).filter(|hour| self.hours >> hour & 1 == 1) {
                    for minute in (0..60).filter(|minute| self.minutes >> minute & 1 == 1) {
                        let at = midnight + hour * 3600 + minute * 60;
                        if at >= to {
                            return None;
                        }
                        if at >= from {
                            return Some(at);
                        }
                    }
                }
            }
            date = date.tomorrow().ok()?;
        }
    }

    /// The first start after `last`, if there is one within [`PATIENCE`] years.
    pub fn next(&self, zone: &TimeZone, last: i64) -> Option<i64> {
        let end = last + i64::from(PATIENCE) * 366 * 86_400;
        // Fixed times that the clock has shown before are over; a change put back at most a day ago may repeat some.
        let mut shown_until = i64::MIN;
        let mut previous: Option<Stretch> = None;
        for stretch in stretches(zone, last - 2 * 86_400, end) {
            if let Some(before) = previous.filter(|_| !self.wildcard) {
                let (stopped, went_on) = (stretch.from + before.offset, stretch.from + stretch.offset);
                let makes_up = stretch.from > last && went_on - stopped <= 3 * 3600;
                if makes_up && self.first_in(stopped, went_on).is_some() {
                    return Some(stretch.from);
                }
            }
            let from = stretch.from.max(last + 1) + stretch.offset;
            let from = if self.wildcard { from } else { from.max(shown_until) };
            if let Some(found) = self.first_in(from, stretch.to + stretch.offset) {
                return Some(found - stretch.offset);
            }
            shown_until = shown_until.max(stretch.to + stretch.offset);
            previous = Some(stretch);
        }
        None
    }
}

/// The stretches that cover `from..to`.
fn stretches(zone: &TimeZone, from: i64, to: i64) -> impl Iterator<Item = Stretch> {
    let mut next = Some(from);
    std::iter::from_fn(move || {
        let from = next?;
        let start = Timestamp::from_second(from).unwrap();
        let change = zone.following(start).next().map(|change| change.timestamp().as_second()).filter(|at| *at < to);
        next = change;
        let offset = i64::from(zone.to_offset(start).seconds());
        Some(Stretch { from, to: change.unwrap_or(to), offset })
    })
}

fn civil(wall: i64) -> DateTime {
    Offset::UTC.to_datetime(Timestamp::from_second(wall).unwrap())
}

fn wall(time: DateTime) -> i64 {
    Offset::UTC.to_timestamp(time).unwrap().as_second()
}
