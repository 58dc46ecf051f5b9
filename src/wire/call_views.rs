//! The JSON of calls in the HTTP API.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/apps/{app}/functions/{function}/spawn?environment=&version=` body of any type; `Idempotency-Key` | 202 [`Spawned`] |
//! | `POST /v1/apps/{app}/functions/{function}/map?environment=&version=&order=&in_flight=` a body of JSON a line | a [`Mapped`] a line |
//! | `GET /v1/calls?environment=&app=&function=&state=&outcome=&dead=&before=&limit=&cursor=` | [`super::api::Page`] of [`CallView`], newest first |
//! | `GET /v1/calls/{id}?wait=` (seconds, at most 120) | [`CallDetail`], as soon as it is done |
//! | `GET /v1/calls/{id}/result?wait=&follow=` | what the function answered; 409 while there is none (with `follow` 303 to itself), 410 when it is no longer kept |
//! | `POST /v1/calls/{id}/cancel` | [`CallView`] |
//! | `POST /v1/calls/{id}/redrive` | 202 [`Spawned`] |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{
    AppName, AttemptEnd, CallError, CallId, CallOutcome, CallState, EnvironmentName, InstanceId, ObjectName, Times,
    Trigger, VersionNumber,
};

/// A call that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Spawned {
    /// Its identifier.
    pub call: CallId,
    /// Whether it was made now; otherwise there was one for the same key already.
    pub new: bool,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct CallView {
    /// Its identifier.
    pub call: CallId,
    /// The app.
    pub app: AppName,
    /// The app's environment.
    pub environment: EnvironmentName,
    /// The function.
    pub function: ObjectName,
    /// The version it must run on; `None` for the one that is live when it runs.
    pub version: Option<VersionNumber>,
    /// What made it: `call`, `spawn`, `map`, `schedule`, `manual`, `redrive`.
    pub trigger: Trigger,
    /// Who.
    pub actor: String,
    /// `queued`, `running`, `done`.
    pub state: CallState,
    /// How it ended.
    pub outcome: Option<CallOutcome>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// How many attempts have begun.
    pub attempts: u32,
    /// When it came in.
    pub created_at: Timestamp,
    /// How far it has come, while it runs for somebody who waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// While it is queued: the next attempt begins not before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// The instant a schedule's run stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who asked for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// The call that is tried anew by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<CallId>,
    /// The call that tries this one anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<CallId>,
    /// Length of what it was called with, in bytes.
    pub body_bytes: u64,
    /// Length of its result.
    pub result_bytes: Option<u64>,
}

/// A call with its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct CallDetail {
    /// The call.
    #[serde(flatten)]
    pub call: CallView,
    /// Its attempts, in order.
    pub tries: Vec<AttemptView>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AttemptView {
    /// Counted from 1.
    pub attempt: u32,
    /// When it was about to be sent.
    pub begun_at: Timestamp,
    /// How far it has come, while it is under way for somebody who waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// How it ended; `None` while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<AttemptEnd>,
}

/// How far a call under way has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Progress {
    /// The version that runs; while the call is in line the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// The instance it is on; `None` while it is in line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Where the time has gone until now.
    #[serde(flatten)]
    pub times: Times,
}

/// What became of one of many bodies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Mapped {
    /// Which line of the request it was, counted from 0.
    pub index: u64,
    /// Its call; `None` for a body that was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// How the call ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<CallOutcome>,
    /// What the function answered, where that is JSON; other text as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
}
