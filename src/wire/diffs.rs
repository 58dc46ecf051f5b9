//! The API's types of differences between two versions. No answer holds a secret's value.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/apps/{app}/versions/{from}/diff/{to}?environment=&stat=` | [`VersionDiff`] |

use serde::{Deserialize, Serialize};

use super::api::Version;
use crate::domain::{AppName, CommitId, EnvironmentName, SecretName, VersionNumber, VersionStatus};

/// What a version is compared with when nothing is named: the newest before it that was live, else the newest before it.
pub fn base(versions: &[Version], to: VersionNumber) -> Option<VersionNumber> {
    let earlier = || versions.iter().filter(|version| version.version < to);
    let was_live = |version: &&Version| matches!(version.status, VersionStatus::Superseded | VersionStatus::Live);
    let found = earlier().filter(was_live).max_by_key(|version| version.version);
    found.or_else(|| earlier().max_by_key(|version| version.version)).map(|version| version.version)
}

/// How one version of an app differs from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct VersionDiff {
    /// The app.
    pub app: AppName,
    /// Its environment.
    pub environment: EnvironmentName,
    /// The version that is compared with.
    pub from: VersionNumber,
    /// The version that is looked at.
    pub to: VersionNumber,
    /// The commit `from` came with; `None` for uploads and directories.
    pub from_commit: Option<CommitId>,
    /// The commit `to` came with.
    pub to_commit: Option<CommitId>,
    /// Their files; `None` where those of one are no longer kept.
    pub files: Option<FilesDiff>,
    /// Why there are no files to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What differs in their manifests, with all defaults in place.
    pub manifest: Vec<FieldDiff>,
    /// Secrets that their instances were given in other revisions. What was never started was given none.
    pub secrets: Vec<SecretDiff>,
}

impl VersionDiff {
    /// Whether nothing differs, as far as it is known.
    pub fn is_empty(&self) -> bool {
        let files = self.files.as_ref().is_none_or(|files| files.total == 0);
        files && self.missing.is_none() && self.manifest.is_empty() && self.secrets.is_empty()
    }
}

/// How two file trees differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FilesDiff {
    /// How many files differ.
    pub total: u32,
    /// Lines that are new, in the files that are listed.
    pub added: u64,
    /// Lines that are gone, in the files that are listed.
    pub removed: u64,
    /// The files in the order of their paths, at most 300.
    pub files: Vec<FileDiff>,
    /// Something is left out: files, or the text of some.
    pub cut: bool,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another content.
    Modified,
    /// It has another name, and perhaps another content.
    Renamed,
    /// It has become executable or no longer is, or is a link now, or no longer.
    Mode,
}

impl FileChange {
    /// The word in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            FileChange::Added => "added",
            FileChange::Removed => "removed",
            FileChange::Modified => "modified",
            FileChange::Renamed => "renamed",
            FileChange::Mode => "mode",
        }
    }
}

/// How a file differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FileDiff {
    /// Its path in the app's directory; what is no UTF-8 in it is replaced.
    pub path: String,
    /// Its path before, where it has another name now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// What became of it.
    pub change: FileChange,
    /// It is no text, or longer than the 1 MiB that is compared.
    pub binary: bool,
    /// Lines that are new.
    pub added: u32,
    /// Lines that are gone.
    pub removed: u32,
    /// The difference as `git diff` writes it; left out for binary files, with `stat`, and where it has no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// The text is not shown whole, or not at all, for want of room: 64 KiB for a file, 1 MiB for all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// How a field of the manifest differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FieldDiff {
    /// Its dotted path, as it is written in the manifest: `web.main.instances`.
    pub field: String,
    /// Before, in words; `None` where a whole part is new.
    pub before: Option<String>,
    /// After, in words; `None` where a whole part is gone.
    pub after: Option<String>,
}

/// How what the instances, or the build, were given differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct SecretDiff {
    /// The variable, or the key that gave it to a build: `build.secrets.npmrc`.
    pub variable: String,
    /// What `from` was given.
    pub before: Option<GivenSecret>,
    /// What `to` was given.
    pub after: Option<GivenSecret>,
}

/// A secret that instances were given, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct GivenSecret {
    /// Its name.
    pub secret: SecretName,
    /// `app` or `environment` for a stored one, else `files`, `variable` or `command`.
    pub from: String,
    /// The revision of a stored one; of others a mark that is another for another value.
    pub revision: String,
}
