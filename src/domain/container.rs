//! Apps in containers: where their image comes from, how it is run, and which one a version was given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SecretName;
use super::manifest::Millis;

/// How an app's instances run as containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Where the image comes from.
    pub image: ImageSource,
    /// User (and group) within the container, instead of the image's: `1000`, `app`, `1000:1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the container's own file system cannot be written to. `/tmp` and volumes still can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// What is done when somebody changes one of its containers by hand.
    #[serde(default, skip_serializing_if = "Drift::is_default")]
    pub drift: Drift,
}

/// What is done when somebody changes a container by hand: pauses, renames or stops it, gives it other limits, takes it
/// off its network. One that has ended is started again in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// It is put right, or another takes its place.
    #[default]
    Correct,
    /// It is said, and left as it is.
    Warn,
    /// Nobody looks.
    Off,
}

impl Drift {
    /// Whether it is what an app without a word about it has.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }

    /// What is written so.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Correct, Self::Warn, Self::Off].into_iter().find(|drift| drift.as_str() == word)
    }
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// It has a name: `nginx:1.27`, `ghcr.io/acme/shop@sha256:…`.
    Named {
        /// The reference as its author wrote it.
        reference: String,
        /// When it is fetched.
        pull: Pull,
    },
    /// It is built from the version's own tree.
    Built(Dockerfile),
}

impl ImageSource {
    /// How it is built, if it is.
    pub fn dockerfile(&self) -> Option<&Dockerfile> {
        match self {
            Self::Named { .. } => None,
            Self::Built(dockerfile) => Some(dockerfile),
        }
    }
}

/// When a named image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// For every new version: a tag that has moved is followed.
    Always,
    /// When the engine does not have it.
    Missing,
    /// Never; the engine has it or the deployment fails.
    Never,
}

/// What of the engine builds images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Builder {
    /// BuildKit where the engine has it, otherwise the classic builder.
    #[default]
    Auto,
    /// BuildKit; an engine without it builds nothing.
    Buildkit,
    /// The classic builder.
    Classic,
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dockerfile {
    /// The file, relative to `context`.
    pub file: String,
    /// The directory that is sent to the engine, relative to the app's own.
    pub context: String,
    /// The stage to stop at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Values of `ARG`s.
    pub args: BTreeMap<String, String>,
    /// What `RUN --mount=type=secret` finds: its identifier in the file → the secret's name. Left out where there are
    /// none, so that a version recorded before there were any is the same manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretName>,
    /// The build is ended after this long.
    pub timeout: Millis,
}

/// The very image that a version runs. Recorded with the version before anything of it starts, so that a rollback runs
/// the same one, wherever its tag points by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The reference in the manifest, or `Dockerfile`'s path for one that was built.
    pub reference: String,
    /// The engine's identifier of its configuration: `sha256:…`. Containers are made from this.
    pub id: String,
    /// What its registry knows it by: `ghcr.io/acme/shop@sha256:…`. None for one that came from no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Landfall's own name for it in the engine, which keeps it from being tidied away by others.
    pub tag: String,
    /// How it came into the engine.
    pub origin: ImageOrigin,
}

/// How an image came into the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageOrigin {
    /// It was there before; Landfall never removes it.
    Found,
    /// Landfall fetched it.
    Pulled,
    /// Landfall built it.
    Built,
}

impl PinnedImage {
    /// As people know it: the digest, else the identifier.
    pub fn name(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.id)
    }
}
