//! When a schedule is due next.
//!
//! | file | what |
//! |---|---|
//! | `wall` | cron on a clock that never changes: the `cron` crate, told what Debian means |
//! | `zone` | that clock hung up in a zone, with its gaps and overlaps |
//! | here | the two kinds of schedules behind one question |
//!
//! The engine keeps a [`Due`] for each schedule and asks for the next start after the last one; the command line
//! asks for a handful.
//!
//! Invariant: the answer is always later than the question, so a caller that asks again from the answer never
//! stands still and never goes back. No answer is after [`LAST_YEAR`] for cron.

mod wall;
mod zone;

use jiff::Timestamp;

use crate::domain::schedule::{Every, Schedule};

use zone::ZonedCron;

pub use wall::{LAST_YEAR, WallError};

/// A schedule, prepared to be asked.
#[derive(Debug, Clone)]
pub struct Due(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Cron(Box<ZonedCron>),
    Every(Every),
}

impl Due {
    /// Prepares a schedule.
    pub fn new(schedule: &Schedule) -> Result<Self, WallError> {
        Ok(Self(match schedule {
            Schedule::Cron { cron, zone } => Kind::Cron(Box::new(ZonedCron::new(cron, zone.clone())?)),
            Schedule::Every(every) => Kind::Every(*every),
        }))
    }

    /// The first start later than `after`; `None` where time ends.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Starts lie on whole seconds: later than the moment is the same as later than the second it is in.
        let after = whole_second(after);
        let next = match &self.0 {
            Kind::Cron(cron) => cron.next(after)?,
            Kind::Every(every) => (after.div_euclid(every.seconds()) + 1) * every.seconds(),
        };
        Timestamp::from_second(next).ok()
    }

    /// The starts later than `after`, in order.
    pub fn upcoming(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |last| self.next(*last))
    }
}

/// The second a moment is in.
fn whole_second(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

#[cfg(test)]
mod bitmask;
#[cfg(test)]
mod tests;
