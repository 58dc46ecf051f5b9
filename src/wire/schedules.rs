//! The API's types of schedules and their runs.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/schedules?environment=&app=` | array of [`Schedule`] |
//! | `GET /v1/apps/{app}/schedules/{function}` | [`Schedule`] |
//! | `GET /v1/apps/{app}/schedules/{function}/runs?limit=&cursor=&before=&outcome=` | [`super::api::Page`] of [`Run`], the latest instant first |
//! | `GET /v1/apps/{app}/schedules/{function}/output?at=` | [`RunOutput`] |
//! | `POST /v1/apps/{app}/schedules/{function}/run` | [`RunStarted`] |
//! | `POST /v1/apps/{app}/schedules/{function}/pause` [`super::api::SuspendRequest`] | [`Schedule`] |
//! | `POST /v1/apps/{app}/schedules/{function}/resume` | [`Schedule`] |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{
    AppName, CallError, CallId, CallOutcome, EnvironmentName, ObjectName, Overlap, Suspension, Trigger,
};

/// A schedule of a live version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Schedule {
    /// The app.
    pub app: AppName,
    /// Its environment.
    pub environment: EnvironmentName,
    /// The function that is called.
    pub function: ObjectName,
    /// The cron expression; `None` for an interval.
    pub cron: Option<String>,
    /// The zone of the expression.
    pub timezone: Option<String>,
    /// The interval in milliseconds; `None` for an expression.
    pub every_ms: Option<u64>,
    /// What happens when a run is due while another is under way.
    pub overlap: Overlap,
    /// The latest run that was missed is started if it is at most so many milliseconds late.
    pub catch_up_ms: u64,
    /// Runs start at most so many milliseconds after their instant.
    pub jitter_ms: u64,
    /// When it starts next, jitter included; at most three. Empty while it is paused for good.
    pub next: Vec<Timestamp>,
    /// The same in the schedule's zone, as the clock on the wall shows it.
    pub next_local: Vec<String>,
    /// Why it does not start by itself.
    pub pause: Option<Suspension>,
    /// Runs under way.
    pub running: usize,
    /// Runs that wait for one under way.
    pub waiting: usize,
    /// The instant of the last run that has an outcome.
    pub last_at: Option<Timestamp>,
    /// That outcome.
    pub last_outcome: Option<CallOutcome>,
    /// The instant of the last run that succeeded.
    pub last_success_at: Option<Timestamp>,
    /// Successes in a row up to now.
    pub successes_in_a_row: u32,
    /// Failures in a row up to now.
    pub failures_in_a_row: u32,
    /// Runs in a row that were skipped.
    pub skips_in_a_row: u32,
    /// Why it cannot run at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A run, or several in a row that were missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Run {
    /// The instant it stands for; the first of those that were missed; the moment somebody asked.
    pub scheduled_at: Timestamp,
    /// The last of those that were missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// How many instants it stands for.
    pub count: u32,
    /// It stands for more than `count`.
    pub more: bool,
    /// `waiting`, `running`, `done`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<CallOutcome>,
    /// `schedule`, or `manual` where somebody asked for it.
    pub trigger: Trigger,
    /// Who asked for it.
    pub actor: Option<String>,
    /// It was missed first and started later.
    pub caught_up: bool,
    /// Its call.
    pub call: Option<CallId>,
    /// When its call was made.
    pub started_at: Option<Timestamp>,
    /// When it had its outcome.
    pub ended_at: Option<Timestamp>,
    /// Why it did not succeed.
    pub error: Option<CallError>,
}

/// What is kept of what a run that failed has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct RunOutput {
    /// Its first lines.
    pub head: String,
    /// Lines between the two that are not kept.
    pub left_out: u64,
    /// Its last lines.
    pub tail: String,
}

/// A run that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct RunStarted {
    /// The app.
    pub app: AppName,
    /// The function.
    pub function: ObjectName,
    /// The moment it stands for.
    pub scheduled_at: Timestamp,
    /// Its call; `None` while it waits for the end of the run it replaces.
    pub call: Option<CallId>,
}
