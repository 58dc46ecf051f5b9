//! What controller and proxy say to each other about calls that must not be lost, and the records of the others.
//!
//! ```text
//! controller ──Run──► proxy ──► instance
//!            ◄─Ended── (again after every new hello)
//!            ──Acknowledge──► (forgotten there)
//!            ◄─Detached── (again after every new hello)
//!            ──Kept──► (from here on as if it had been run for the controller)
//!            ──Seek──► (which of the calls that somebody waits for are under way, or: end this one)
//!            ◄─Found──
//! ```
//!
//! The controller records an attempt before it says [`Run`], and its end before it acknowledges it. A proxy names in its
//! hello every attempt it has not been told to forget, so a controller that is new, or was away, sends none twice.

use http::HeaderName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{
    AppKey, AttemptEnd, AttemptId, CallError, CallId, CallOutcome, CallResult, FunctionKey, InstanceId, ObjectName,
    Payload, Times, TraceParent, Trigger, VersionNumber,
};

/// Header of what a proxy hands to the controller for an instance: its app, as `environment/app`.
pub const OF_APP: HeaderName = HeaderName::from_static("landfall-of-app");
/// The version whose code the instance runs.
pub const OF_VERSION: HeaderName = HeaderName::from_static("landfall-of-version");
/// Whether somebody has asked for that version by its number.
pub const OF_PINNED: HeaderName = HeaderName::from_static("landfall-of-pinned");

/// An attempt for a proxy to carry out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// What is called.
    #[serde(flatten)]
    pub function: FunctionKey,
    /// The version it must run on; `None` for the live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// The instant a schedule's run stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,
    /// What it is called with.
    pub body: Payload,
}

/// An attempt that a proxy has carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// How it ended.
    pub end: AttemptEnd,
    /// What the function answered, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<CallResult>,
}

/// A call whose caller does not wait any longer: it goes on, and its end is kept under its identifier. Nobody has its
/// body, so it is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// Its only attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// What was called.
    #[serde(flatten)]
    pub function: FunctionKey,
    /// The version that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// Who, in words.
    pub actor: String,
    /// When it came in.
    pub created_at: Timestamp,
}

/// A call somebody waited for: it was answered where it came in, and is on record only afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Its identifier.
    pub id: CallId,
    /// What was called.
    #[serde(flatten)]
    pub function: FunctionKey,
    /// The version that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// The instance it was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// What made it.
    pub trigger: Trigger,
    /// Who, in words.
    pub actor: String,
    /// How it ended.
    pub outcome: CallOutcome,
    /// The HTTP status that was answered.
    pub status: u16,
    /// When it came in.
    pub created_at: Timestamp,
    /// Where the time went.
    #[serde(flatten)]
    pub times: Times,
    /// Length of what it was called with, in bytes.
    pub bytes_in: u64,
    /// Length of what was answered.
    pub bytes_out: u64,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// What its caller said of its trace; not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
}

/// A call that somebody waits for and that is under way: only the proxy that carries it knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCall {
    /// Its identifier.
    pub id: CallId,
    /// What was called.
    #[serde(flatten)]
    pub function: FunctionKey,
    /// The version that runs; while it is in line the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// The instance it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Who waits for it, in words.
    pub actor: String,
    /// When it came in.
    pub created_at: Timestamp,
    /// Where the time has gone until now.
    #[serde(flatten)]
    pub times: Times,
    /// Who asked for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
}

/// Which running calls are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "which", rename_all = "snake_case")]
pub enum Seeking {
    /// The newest ones.
    Newest {
        /// Only of this app.
        #[serde(default)]
        app: Option<AppKey>,
        /// Only of this function of it.
        #[serde(default)]
        function: Option<ObjectName>,
        /// Only those older than this one.
        #[serde(default)]
        before: Option<CallId>,
        /// At most so many.
        limit: u32,
    },
    /// This one.
    One {
        /// Which.
        call: CallId,
    },
    /// This one, which is to end now.
    End {
        /// Which.
        call: CallId,
        /// Who wants that, in words.
        actor: String,
    },
}
