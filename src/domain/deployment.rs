//! The act of making a version live: its phases and outcomes.
//!
//! ```text
//! pending ─► preparing ─► building ─► starting ─► handover ─► switching ─► baking ─► done
//!    │           │            │           │           │             (live from here)
//!    └───────────┴────────────┴───────────┴───────────┴──► failed | cancelled
//!                                       baking ──► rolled_back (the version was live, and bad)
//! ```
//!
//! A phase is recorded before its action starts. After a crash the open deployment is driven on from
//! the recorded phase; every action is idempotent.

use serde::{Deserialize, Serialize};

/// Identifies one deployment on one agent. In JSON a string, like every identifier: other programs should not count on
/// numbers of 64 bits coming through whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transparent, extend("pattern" = "^-?[0-9]+$"))
)]
pub struct DeploymentId(#[cfg_attr(feature = "schemars", schemars(with = "String"))] pub i64);

impl Serialize for DeploymentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeploymentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(format!("`{text}` is not a deployment's number")))
    }
}

impl std::fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a deployment takes place; the version it makes live says the same.
pub type DeploymentKind = super::version::VersionKind;

/// How far a deployment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Recorded, waits for its turn.
    Pending,
    /// The tree is laid out on disk.
    Preparing,
    /// The build command runs.
    Building,
    /// Instances start and are probed until ready.
    Starting,
    /// Workers that must never run twice change over (and everything, for `strategy: recreate`).
    Handover,
    /// The new version is recorded as live and the routes are published.
    Switching,
    /// Live; crashes and readiness are watched.
    Baking,
    /// Over; the outcome is recorded.
    Done,
}

impl Phase {
    /// All phases in their order.
    pub const ALL: [Phase; 8] = [
        Phase::Pending,
        Phase::Preparing,
        Phase::Building,
        Phase::Starting,
        Phase::Handover,
        Phase::Switching,
        Phase::Baking,
        Phase::Done,
    ];

    /// The word in lists and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Preparing => "preparing",
            Phase::Building => "building",
            Phase::Starting => "starting",
            Phase::Handover => "handover",
            Phase::Switching => "switching",
            Phase::Baking => "baking",
            Phase::Done => "done",
        }
    }

    /// The phase of that name, as the ledger holds it.
    pub fn from_recorded(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }

    /// Whether the version is live in this phase: nothing before can be noticed by a user.
    pub fn is_live(self) -> bool {
        self >= Phase::Switching
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeploymentOutcome {
    /// The version became live and stayed healthy.
    Succeeded,
    /// The version never became live.
    Failed,
    /// Ended before the switch by a newer version, a stop or a person.
    Cancelled,
    /// The version became live, failed in its bake window and was replaced.
    RolledBack,
}

impl DeploymentOutcome {
    /// The word in lists and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            DeploymentOutcome::Succeeded => "succeeded",
            DeploymentOutcome::Failed => "failed",
            DeploymentOutcome::Cancelled => "cancelled",
            DeploymentOutcome::RolledBack => "rolled_back",
        }
    }

    /// The outcome of that name, as the ledger holds it.
    pub fn from_recorded(text: &str) -> Option<Self> {
        [Self::Succeeded, Self::Failed, Self::Cancelled, Self::RolledBack]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// Everything a person needs to know about a failure without looking further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Failure {
    /// A stable word for programs: `build_failed`, `exited_early`, `out_of_memory`, `not_ready`, `start_failed`, …
    pub code: String,
    /// What happened, where, and what to do.
    pub message: String,
    /// The phase it happened in.
    pub phase: Phase,
    /// The object and instance concerned, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<String>,
    /// The last answer of the readiness probe.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_probe: Option<String>,
    /// `exit code 1` or `killed by SIGKILL`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<String>,
    /// The last lines of the log, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub log_tail: Vec<String>,
}
