//! The API's types of what an app's web objects answered.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/apps/{app}/requests?environment=` | array of [`ObjectTraffic`], of the live version |

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::functions::Spread;
use crate::domain::{AnswerClass, AppName, EnvironmentName, ObjectName};

/// The requests of one web object of a live version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ObjectTraffic {
    /// The app.
    pub app: AppName,
    /// Its environment.
    pub environment: EnvironmentName,
    /// The web object.
    pub object: ObjectName,
    /// The last five minutes.
    pub recent: Answered,
    /// The last hour.
    pub hour: Answered,
    /// Minutes of the last hour in which requests were answered, the newest first.
    pub minutes: Vec<AnsweredMinute>,
}

/// The requests that were answered in some time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Answered {
    /// Of how many seconds.
    pub seconds: u64,
    /// How many were answered per second.
    pub per_second: f64,
    /// How many got which class of status.
    pub answers: BTreeMap<AnswerClass, u64>,
    /// From the request's head to the answer's head, time in line included.
    pub head: Spread,
}

/// The requests that were answered in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AnsweredMinute {
    /// Its beginning.
    pub at: Timestamp,
    /// How many got which class of status.
    pub answers: BTreeMap<AnswerClass, u64>,
    /// From the request's head to the answer's head, time in line included.
    pub head: Spread,
}
