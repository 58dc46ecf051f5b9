//! A schedule of a live version, ready to be asked.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::decide::due::Due;
use crate::decide::runs::{Pause, Rules, Runs, offset};
use crate::domain::manifest::Millis;
use crate::domain::schedule::Every;
use crate::domain::{CallId, FunctionKey, Schedule, Scheduled, When};
use crate::ledger::schedules::{Open, PauseRecord, ScheduleId};
use crate::zones::Zones;

/// What the task holds of a schedule.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: ScheduleId,
    pub function: FunctionKey,
    pub scheduled: Scheduled,
    pub rules: Rules,
    pub runs: Runs,
    /// The calls of the runs under way.
    pub calls: BTreeMap<Timestamp, CallId>,
}

impl Entry {
    /// When it starts next, jitter included.
    pub(super) fn upcoming(&self, now: Timestamp, most: usize) -> Vec<Timestamp> {
        let from = match self.runs.pause() {
            Some(Pause { until: None }) => return Vec::new(),
            Some(Pause { until: Some(until) }) => until.max(now),
            None => now,
        };
        let from = from.checked_sub(self.rules.offset).unwrap_or(Timestamp::MIN).max(self.runs.decided());
        let starts = self.rules.due.upcoming(from).take(most);
        starts.filter_map(|at| at.checked_add(self.rules.offset).ok()).collect()
    }

    /// No attempt of a run begins later than the next run is due.
    pub(super) fn slot_end(&self, at: Timestamp) -> Option<Timestamp> {
        self.rules.due.next(at)?.checked_add(self.rules.offset).ok()
    }
}

/// What an author wrote, as rules; the error says why that is not possible on this machine.
pub(super) fn rules(function: &FunctionKey, scheduled: &Scheduled) -> Result<Rules, String> {
    let schedule = match &scheduled.when {
        When::Cron { expression, timezone } => Schedule::Cron {
            cron: expression.parse().map_err(|error: crate::domain::ScheduleError| error.to_string())?,
            zone: Zones::of_this_machine().find(timezone).map_err(|unknown| unknown.to_string())?,
        },
        When::Every(length) => Schedule::Every(Every::new(length.duration()).map_err(|error| error.to_string())?),
    };
    Ok(Rules {
        due: Due::new(&schedule).map_err(|defect| defect.to_string())?,
        overlap: scheduled.overlap,
        catch_up: signed(scheduled.catch_up),
        offset: offset(&function.app, function.function.as_str(), scheduled.jitter.duration()),
    })
}

fn signed(length: Millis) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(length.0).unwrap_or(i64::MAX))
}

/// The state of a schedule from its record.
pub(super) fn runs(
    decided: Timestamp,
    pause: Option<&PauseRecord>,
    open: &Open,
    ahead: std::collections::BTreeSet<Timestamp>,
) -> Runs {
    let pause = pause.map(|pause| Pause { until: pause.until });
    Runs::recorded(decided, pause, open.running.keys().copied().collect(), open.waiting.clone(), ahead)
}
