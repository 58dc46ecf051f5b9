//! What a version is in the record.

use serde::{Deserialize, Serialize};

use super::id::VersionNumber;

/// Why a version exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VersionKind {
    /// New content.
    Deploy,
    /// The content of an earlier version, brought back.
    Rollback {
        /// The version whose content this is.
        of: VersionNumber,
    },
    /// The same content started afresh.
    Rollover {
        /// The version whose content this is.
        of: VersionNumber,
    },
}

impl VersionKind {
    /// The word in lists and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            VersionKind::Deploy => "deploy",
            VersionKind::Rollback { .. } => "rollback",
            VersionKind::Rollover { .. } => "rollover",
        }
    }

    /// The version whose content this is, where it is not new.
    pub fn of(self) -> Option<VersionNumber> {
        match self {
            VersionKind::Deploy => None,
            VersionKind::Rollback { of } | VersionKind::Rollover { of } => Some(of),
        }
    }
}

/// How a version stands.
///
/// ```text
/// deploying ──► live ──► superseded
///     ├──► failed
///     └──► cancelled        (a newer one came first)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum VersionStatus {
    /// Its deployment is under way or waits.
    Deploying,
    /// It receives new work.
    Live,
    /// It was live once.
    Superseded,
    /// It never became live.
    Failed,
    /// A newer version, a stop or a person ended its deployment before the switch.
    Cancelled,
}

impl VersionStatus {
    /// The word in lists and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            VersionStatus::Deploying => "deploying",
            VersionStatus::Live => "live",
            VersionStatus::Superseded => "superseded",
            VersionStatus::Failed => "failed",
            VersionStatus::Cancelled => "cancelled",
        }
    }

    /// The status of that name, as the ledger holds it.
    pub fn from_recorded(text: &str) -> Option<Self> {
        [Self::Deploying, Self::Live, Self::Superseded, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}
