//! Why a revision of a source, or a part of what it asks for, is not carried out yet.
//!
//! ```text
//! found ─► waiting ─┬─► approved by a person ─► carried out
//!                   └─► over: the source no longer asks for it
//! ```
//!
//! At most one of each kind waits per source; another set of apps or another commit is another [`Waiting`] with
//! another identifier, so that an approval can never mean more than what was shown.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{Actor, AppName, CommitId, SourceName};

/// How many apps may vanish from a source before a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Brake {
    /// More than this part of them, in percent.
    Percent(u8),
    /// More than so many.
    Apps(u32),
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Brake::Percent(percent) => write!(f, "{percent}%"),
            Brake::Apps(apps) => write!(f, "{apps}"),
        }
    }
}

/// What is not carried out, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WaitReason {
    /// More apps are gone from the source than its brake lets go at once; they run on.
    PruneBrake {
        /// Those that would be stopped, in order.
        apps: Vec<AppName>,
        /// How many apps the source had, these included.
        of: u32,
        /// The brake as it was then.
        brake: Brake,
    },
    /// The commit does not descend from the one read last; nothing of it is deployed.
    ForcePush {
        /// The commit read last.
        last: CommitId,
        /// The commit that waits.
        commit: CommitId,
    },
    /// The commit carries no signature that is trusted; nothing of it is deployed.
    Unverified {
        /// The commit that waits.
        commit: CommitId,
        /// What is wrong with its signature.
        problem: String,
    },
}

/// How many apps a message names.
const NAMED: usize = 5;

impl WaitReason {
    /// The word in the ledger and in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            WaitReason::PruneBrake { .. } => "prune_brake",
            WaitReason::ForcePush { .. } => "force_push",
            WaitReason::Unverified { .. } => "unverified",
        }
    }

    /// Whether both are about the same: the same apps, or the same commit. How many other apps there are does not matter.
    pub fn is_same(&self, other: &WaitReason) -> bool {
        match (self, other) {
            (WaitReason::PruneBrake { apps, .. }, WaitReason::PruneBrake { apps: others, .. }) => apps == others,
            _ => self == other,
        }
    }

    /// What waits, why, and what a person can do about it.
    pub fn words_for(&self, source: &SourceName) -> String {
        let mend = match self {
            WaitReason::PruneBrake { .. } => {
                format!("`landfall source approve {source}` stops them; with their manifests back they simply stay")
            }
            WaitReason::ForcePush { .. } => format!(
                "`landfall source approve {source}` takes it; so does a push that continues from the commit before"
            ),
            WaitReason::Unverified { .. } => "push a commit with a signature that is trusted".to_owned(),
        };
        format!("source `{source}`: {self}; {mend}")
    }

    /// Whether `landfall source approve` may carry it out. A signature is not a matter of approval.
    pub fn can_be_approved(&self) -> bool {
        match self {
            WaitReason::PruneBrake { .. } | WaitReason::ForcePush { .. } => true,
            WaitReason::Unverified { .. } => false,
        }
    }
}

impl fmt::Display for WaitReason {
    /// What waits and why, as half a sentence after the source's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::PruneBrake { apps, of, brake } => {
                let named: Vec<&str> = apps.iter().take(NAMED).map(AppName::as_str).collect();
                let more = apps.len().saturating_sub(named.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(
                    f,
                    "{} of {of} apps are gone ({}{more}), more than the brake of {brake} lets go at once; they run on",
                    apps.len(),
                    named.join(", ")
                )
            }
            WaitReason::ForcePush { last, commit } => write!(
                f,
                "commit {} does not descend from {}, which was read last; nothing of it is deployed",
                commit.short(),
                last.short()
            ),
            WaitReason::Unverified { commit, problem } => {
                write!(f, "commit {} is not deployed: {problem}", commit.short())
            }
        }
    }
}

/// Something of a source that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Waiting {
    /// Identifies exactly this; never used again.
    pub id: i64,
    /// What and why.
    #[serde(flatten)]
    pub reason: WaitReason,
    /// The revision that asked for it: a commit, or the tree of a directory.
    pub revision: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Who has approved it, where that is not carried out yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Actor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_a_few_apps_and_count_the_rest() {
        let apps = (0..7).map(|n| format!("app-{n}").parse().expect("a name")).collect();
        let reason = WaitReason::PruneBrake { apps, of: 9, brake: Brake::Percent(30) };
        let words = reason.to_string();
        assert!(words.starts_with("7 of 9 apps are gone (app-0, app-1, app-2, app-3, app-4 and 2 more)"), "{words}");
        assert!(words.contains("30%"), "{words}");
    }
}
