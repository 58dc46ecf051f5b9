//! The API's types of functions and how they fare.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/apps/{app}/functions?environment=` | array of [`FunctionView`], of the live version |
//! | `GET /v1/apps/{app}/functions/{function}?environment=` | [`FunctionDetail`] |

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{AppName, CallOutcome, EnvironmentName, ObjectName, VersionNumber};

/// A function of a live version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FunctionView {
    /// The app.
    pub app: AppName,
    /// Its environment.
    pub environment: EnvironmentName,
    /// The function.
    pub function: ObjectName,
    /// The live version.
    pub version: VersionNumber,
    /// Calls at once per instance.
    pub concurrency: u32,
    /// Fewest and most instances.
    pub min: u32,
    /// Most.
    pub max: u32,
    /// The bounds are not the manifest's: somebody scaled it, until the next deployment.
    pub scaled: bool,
    /// Instances that should run now.
    pub instances: u32,
    /// Those that take calls.
    pub ready: u32,
    /// Calls on them.
    pub in_flight: u32,
    /// Calls that wait for a free place on one of them.
    pub waiting: u32,
    /// Calls that ready instances could take at once, besides those they have.
    pub headroom: u32,
    /// Spawned calls that wait for their turn on record.
    pub backlog: u64,
    /// Since when the first of them could begin.
    pub backlog_since: Option<Timestamp>,
    /// Spawned calls under way.
    pub running: u64,
    /// How the last five minutes went.
    pub recent: Window,
    /// How the last hour went, as far back as the controller's start.
    pub hour: Window,
}

/// A function, minute by minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FunctionDetail {
    /// It.
    #[serde(flatten)]
    pub function: FunctionView,
    /// Minutes of the last hour in which calls ended, the newest first.
    pub minutes: Vec<Minute>,
}

/// The calls that ended in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Minute {
    /// Its beginning.
    pub at: Timestamp,
    /// How many ended how.
    pub outcomes: BTreeMap<CallOutcome, u64>,
    /// Time in the function.
    pub run: Spread,
}

/// The calls that ended in some time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Window {
    /// Of how many seconds.
    pub seconds: u64,
    /// How many ended per second.
    pub per_second: f64,
    /// How many ended how.
    pub outcomes: BTreeMap<CallOutcome, u64>,
    /// Time in line, without the start of an instance.
    pub queue: Spread,
    /// Time in line while an instance was started, of the calls that waited for one.
    pub start: Spread,
    /// Time in the function.
    pub run: Spread,
}

/// How long it took, in microseconds; each is at most an eighth too long. `None` where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Spread {
    /// Half were quicker.
    pub p50_us: Option<u64>,
    /// Nineteen of twenty.
    pub p95_us: Option<u64>,
    /// 99 of a hundred.
    pub p99_us: Option<u64>,
}
