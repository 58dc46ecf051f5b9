//! What a forge is told about a commit.

use serde::{Deserialize, Serialize};

use super::id::{AppKey, CommitId};

/// How a commit stands, of one app or of its whole source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitState {
    /// Its deployment has begun.
    Pending,
    /// It is live.
    Success,
    /// It failed, was rolled back, is quarantined, or is not trusted.
    Failure,
    /// Something newer took its place before it was live.
    Cancelled,
}

/// A commit's state, to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReport {
    /// The commit.
    pub commit: CommitId,
    /// The app; none when it is about the source as a whole.
    pub app: Option<AppKey>,
    /// How it stands.
    pub state: CommitState,
    /// In words, of any length.
    pub description: String,
}
