//! Push hooks: what is remembered of the last one of a source.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who makes hooks of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// GitHub.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea.
    Gitea,
    /// Forgejo, Codeberg among them.
    Forgejo,
    /// Gogs.
    Gogs,
    /// Bitbucket, Cloud and Data Center.
    Bitbucket,
    /// Anything else that signs as Landfall describes it.
    Landfall,
}

impl Provider {
    /// The name as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::GitHub => "GitHub",
            Provider::GitLab => "GitLab",
            Provider::Gitea => "Gitea",
            Provider::Forgejo => "Forgejo",
            Provider::Gogs => "Gogs",
            Provider::Bitbucket => "Bitbucket",
            Provider::Landfall => "generic",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a genuine hook led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HookOutcome {
    /// The source is looked at.
    Accepted,
    /// It tells of something the source does not follow.
    Ignored,
    /// What the source follows was deleted; what runs goes on.
    Deleted,
    /// Somebody tried whether hooks arrive.
    Ping,
}

impl HookOutcome {
    /// The word in lists and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            HookOutcome::Accepted => "accepted",
            HookOutcome::Ignored => "ignored",
            HookOutcome::Deleted => "deleted",
            HookOutcome::Ping => "ping",
        }
    }
}

/// The last genuine hook of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct LastHook {
    /// When it came.
    pub at: Timestamp,
    /// From what kind of forge.
    pub provider: Provider,
    /// What it led to.
    pub outcome: HookOutcome,
}
