//! What a manifest says about the runs of a function: when it runs by itself, and what happens around each run.
//!
//! These are the author's words, checked. The schedule itself, with its zone looked up, is `domain::Schedule`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::Millis;

/// A function's schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// When it runs.
    pub when: When,
    /// What happens when a run is due while the one before it is still under way.
    pub overlap: Overlap,
    /// The latest run that was missed is started if it is at most this late; 0 for never.
    pub catch_up: Millis,
    /// Runs start up to this much later than their instant: always the same for one schedule, different between
    /// schedules.
    pub jitter: Millis,
    /// The body of its calls, as JSON in its shortest form with sorted keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// People hear of it after so many failures in a row.
    pub notify_after: u32,
    /// An address that is asked at the start and the end of each run, so that somebody else notices when none comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<String>,
}

/// When a function runs by itself, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At the times of a cron expression.
    Cron {
        /// Five fields or a shorthand.
        expression: String,
        /// IANA's name of the zone.
        timezone: String,
    },
    /// At a fixed distance.
    Every(Millis),
}

/// `0 4 * * * Europe/Oslo`, `every 15m`.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Cron { expression, timezone } => write!(f, "{expression} {timezone}"),
            When::Every(length) => write!(f, "every {length}"),
        }
    }
}

/// What happens when a run is due while the one before it is still under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new one is not started, and recorded as skipped.
    Skip,
    /// The new one starts when the one before it has ended.
    Queue,
    /// The one before it is cancelled, then the new one starts.
    Replace,
    /// Both run.
    Allow,
}

impl Overlap {
    /// The word in manifests, lists and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
            Overlap::Replace => "replace",
            Overlap::Allow => "allow",
        }
    }
}

/// The defaults of the keys of `schedule`, each a named constant.
pub mod defaults {
    use super::{Millis, Overlap};

    /// `timezone`
    pub const TIMEZONE: &str = "UTC";
    /// `overlap`
    pub const OVERLAP: Overlap = Overlap::Skip;
    /// `catch_up`: what was missed is recorded as missed.
    pub const CATCH_UP: Millis = Millis(0);
    /// `jitter`
    pub const JITTER: Millis = Millis(0);
    /// `notify_after`
    pub const NOTIFY_AFTER: u32 = 1;
    /// `timeout` of a function with a schedule.
    pub const TIMEOUT: Millis = Millis::seconds(60 * 60);
}
