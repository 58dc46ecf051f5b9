//! The JSON of the HTTP API: what the agent answers and what its users send.
//!
//! Keys are snake_case, times RFC 3339 with zone, identifiers strings, versions numbers. Fields are only
//! added within `/v1`.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/apps?environment=` | array of [`App`] |
//! | `GET /v1/apps/{app}?environment=` | [`App`] |
//! | `GET /v1/apps/{app}/versions?limit=&cursor=` | [`Page`] of [`Version`], newest first |
//! | `GET /v1/apps/{app}/versions/{from}/diff/{to}?stat=` | [`super::diffs::VersionDiff`] |
//! | `GET /v1/apps/{app}/deployments?limit=&cursor=` | [`Page`] of [`Deployment`], newest first |
//! | `GET /v1/apps/{app}/logs?follow=&since=&until=&tail=&object=&version=&instance=&source=` | server-sent events, each a [`LogLine`] |
//! | `POST /v1/apps/{app}/rollback` [`RollbackRequest`] | [`Accepted`] |
//! | `POST /v1/apps/{app}/release` [`ReleaseRequest`] | [`Accepted`] |
//! | `POST /v1/apps/{app}/rollover` [`ReasonRequest`] | [`Accepted`] |
//! | `POST /v1/apps/{app}/suspend` [`SuspendRequest`] | [`App`] |
//! | `POST /v1/apps/{app}/resume` | [`App`] |
//! | `POST /v1/apps/{app}/stop` [`ReasonRequest`] | [`Accepted`] |
//! | `POST /v1/deploy?environment=&reason=` body: tar of the app's directory | [`Accepted`] |
//! | `GET /v1/deployments/{id}` | [`Deployment`] |
//! | `GET /v1/deployments/{id}/events` | server-sent events, each a [`Deployment`], until it is done |
//! | `GET /v1/sources` | array of [`Source`] |
//! | `GET /v1/sources/{source}` | [`Source`] |
//! | `POST /v1/sources/{source}/sync` | [`Source`] after the look |
//! | `POST /v1/sources/{source}/approve` [`ApproveRequest`] | [`Approved`] |
//! | `POST /v1/sources/{source}/suspend` [`SuspendRequest`] | [`Source`] |
//! | `POST /v1/sources/{source}/resume` | [`Source`] |
//! | `GET /v1/channels` | array of [`Channel`] |
//! | `POST /v1/channels/{channel}/test` | [`ChannelTested`] |
//! | `POST /v1/hooks/{source}` a forge's push hook, signed | [`HookTaken`] |
//! | `GET /v1/plan?source=` | array of [`PlanItem`] |
//! | `GET /v1/instances?environment=&app=` | array of [`Instance`] |
//! | `POST /v1/instances/{instance}/stop` | [`Instance`] as it was; another takes its place |
//! | `GET /v1/events?after=&limit=&cursor=` | [`Page`] of [`EventRecord`], oldest first; with `follow=true` server-sent events, each one of them |
//!
//! Whoever is cut off from server-sent events goes on with `Last-Event-ID`. Errors are [`Problem`] as `application/problem+json` (RFC 9457).

pub use super::channels::{Channel, ChannelTested, Standing};
pub use super::status::{Configuration, Listen, Process, Processes, Status, TimeZones};

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::manifest::ObjectKind;
use crate::domain::{
    AppName, CallId, CommitId, DeploymentId, DeploymentOutcome, EnvironmentName, Event, Failure, Hold, HookOutcome,
    InstanceId, InstanceState, LastHook, ObjectName, Phase, SourceName, Suspension, VersionNumber, VersionStatus,
    Waiting,
};

/// Most bytes of an uploaded archive.
pub const MAX_UPLOAD: u64 = 512 * 1024 * 1024;

/// An error. `code` is stable; `detail` says what and where; `mend` says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Problem {
    /// HTTP status code.
    pub status: u16,
    /// A stable word: `not_found`, `invalid`, `conflict`, `refused`, `unavailable`, `internal`, …
    pub code: String,
    /// What is wrong, in one sentence.
    pub title: String,
    /// What exactly, and where.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// A page of a long list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(rename = "PageOf{T}"))]
pub struct Page<T> {
    /// Its entries.
    pub items: Vec<T>,
    /// The `cursor` of the next page; `None` for the last one.
    pub next: Option<String>,
}

/// State of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// Its live version runs.
    Deployed,
    /// A deployment is under way.
    Deploying,
    /// Nothing is live, the last deployment failed.
    Failed,
    /// Instances of the live version end or fail again and again.
    Crashing,
    /// It runs another version than git asks for, on purpose.
    Held,
    /// It is frozen.
    Suspended,
    /// It was stopped.
    Stopped,
}

impl AppState {
    /// The word in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            AppState::Deployed => "deployed",
            AppState::Deploying => "deploying",
            AppState::Failed => "failed",
            AppState::Crashing => "crashing",
            AppState::Held => "held",
            AppState::Suspended => "suspended",
            AppState::Stopped => "stopped",
        }
    }
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct App {
    /// Its name.
    pub app: AppName,
    /// Its environment.
    pub environment: EnvironmentName,
    /// How it stands.
    pub state: AppState,
    /// One sentence more, where there is more to say (why failed, held, crashing, suspended).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The version that receives new work.
    pub live_version: Option<VersionNumber>,
    /// The commit of the live version.
    pub commit: Option<CommitId>,
    /// Instances that run now, outdated ones included.
    pub instances: u32,
    /// Those of the live version that take work.
    pub ready: u32,
    /// One for each web object, `main` first.
    pub urls: Vec<ObjectUrl>,
    /// Where its content comes from; `None` for uploads.
    pub source: Option<SourceName>,
    /// The app's directory in the source.
    pub path: Option<String>,
    /// Why it runs another version than git asks for.
    pub hold: Option<Hold>,
    /// Why it is frozen.
    pub suspension: Option<Suspension>,
    /// When it was stopped and by whom.
    pub stopped: Option<Stopped>,
    /// The newest deployment.
    pub deployment: Option<DeploymentId>,
    /// What is wrong with its manifest in the newest revision, where it cannot be read.
    pub manifest_error: Option<String>,
    /// What its author should know of the live version: it works, but not as it may be meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

/// Where a web object answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ObjectUrl {
    /// The object.
    pub object: ObjectName,
    /// Its URL.
    pub url: String,
}

/// When and by whom an app was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Stopped {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A version of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Version {
    /// Its number.
    pub version: VersionNumber,
    /// How it stands.
    pub status: VersionStatus,
    /// `deploy`, `rollback`, `rollover`.
    pub kind: String,
    /// The version brought back, for a rollback.
    pub rollback_of: Option<VersionNumber>,
    /// The version started afresh, for a rollover.
    pub rollover_of: Option<VersionNumber>,
    /// The commit its content came with; `None` for uploads and directories.
    pub commit: Option<CommitId>,
    /// The commit's author, `Name <mail>`.
    pub author: Option<String>,
    /// The commit's first line.
    pub subject: Option<String>,
    /// Who caused it.
    pub actor: String,
    /// Why, where a reason was given.
    pub reason: Option<String>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// It receives new work.
    pub live: bool,
    /// Its content must not be started again by itself.
    pub quarantined: bool,
    /// Its tree is still kept, so it can be brought back.
    pub kept: bool,
    /// The secrets its instances, and the build of its image, were given, by revision; never their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<super::secrets::UsedSecret>,
    /// The very image that its containers are made from; left out for processes, and while it is not found yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<VersionImage>,
    /// The very images that the services of its Compose project run, by the service's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, VersionImage>,
    /// The deployment that made or tried to make it live.
    pub deployment: Option<DeploymentId>,
}

/// The image of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct VersionImage {
    /// As the manifest names it, or the Dockerfile it was built from.
    pub reference: String,
    /// What its registry knows it by, `ghcr.io/acme/shop@sha256:…`; `None` for one that came from no registry.
    pub digest: Option<String>,
    /// The engine's identifier, `sha256:…`.
    pub id: String,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Deployment {
    /// Its identifier.
    pub id: DeploymentId,
    /// The app.
    pub app: AppName,
    /// The app's environment.
    pub environment: EnvironmentName,
    /// The version it makes live.
    pub version: VersionNumber,
    /// `deploy`, `rollback`, `rollover`.
    pub kind: String,
    /// How far it has come.
    pub phase: Phase,
    /// How it ended.
    pub outcome: Option<DeploymentOutcome>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Who caused it.
    pub actor: String,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its version became live.
    pub live_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Each phase with its start, in order.
    pub phases: Vec<PhaseTime>,
    /// What is being done now, in words ("2 of 3 instances ready; last probe: connection refused").
    pub progress: Option<String>,
    /// URLs of the app's web objects.
    pub urls: Vec<ObjectUrl>,
    /// The app's objects.
    pub objects: Vec<ObjectSummary>,
}

/// When a phase began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// When.
    pub at: Timestamp,
}

/// An object in a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ObjectSummary {
    /// Its name.
    pub object: ObjectName,
    /// `web` or `worker`.
    pub kind: ObjectKind,
    /// Its URL, for a web object.
    pub url: Option<String>,
    /// Instances that are ready.
    pub ready: u32,
    /// Instances wanted.
    pub wanted: u32,
}

/// What a command led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Accepted {
    /// What was done, in one sentence.
    pub message: String,
    /// Whether anything was done ("no changes" is no error).
    pub changed: bool,
    /// The app.
    pub app: AppName,
    /// The app's environment.
    pub environment: EnvironmentName,
    /// The new version.
    pub version: Option<VersionNumber>,
    /// The deployment to follow.
    pub deployment: Option<DeploymentId>,
}

/// Body of a rollback.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RollbackRequest {
    /// The version to bring back; default: the newest earlier one that was healthy and is not quarantined.
    pub version: Option<VersionNumber>,
    /// Why.
    pub reason: Option<String>,
    /// When the hold ends by itself.
    pub until: Option<Timestamp>,
    /// Write the revert as a commit on a new branch of the source, for people to merge.
    pub propose: bool,
}

/// Body of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRequest {
    /// Start git's content even though it is quarantined.
    pub force: bool,
    /// Why.
    pub reason: Option<String>,
}

/// Body of a suspension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SuspendRequest {
    /// Why.
    pub reason: Option<String>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// Body of commands that only take a reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ReasonRequest {
    /// Why.
    pub reason: Option<String>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Source {
    /// Its name.
    pub source: SourceName,
    /// The environment of its apps; `None` for the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// `git` or `directory`.
    pub kind: String,
    /// URL or path, without credentials.
    pub location: String,
    /// What is followed: `branch main`, `tag v1`, `commit 1a2b3c4`.
    pub reference: Option<String>,
    /// Newest revision read.
    pub revision: Option<String>,
    /// When it was read.
    pub read_at: Option<Timestamp>,
    /// When it was last looked at with success.
    pub looked_at: Option<Timestamp>,
    /// When it will be looked at by itself.
    pub next_look_at: Option<Timestamp>,
    /// What is wrong, where something is.
    pub error: Option<String>,
    /// The error's word: `auth`, `network`, `tls`, `rate-limited`, …
    #[serde(default)]
    pub error_kind: Option<String>,
    /// What there is to know of its apps although nothing is wrong.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How many bytes the cache of its repository takes; not for what lies on this machine.
    #[serde(default)]
    pub cache_bytes: Option<u64>,
    /// Manifests that cannot be read, one message each.
    pub manifest_errors: Vec<String>,
    /// What it asks for and is not carried out before a person approves or the source changes.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// How many apps it holds.
    pub apps: u32,
    /// Something says there is more to see.
    pub dirty: bool,
    /// The last genuine push hook; `None` before the first one.
    #[serde(default)]
    pub last_hook: Option<LastHook>,
    /// Push hooks that were refused since the agent started, for want of the right signature.
    #[serde(default)]
    pub hooks_refused: u64,
    /// Why it is not looked at, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
    /// How the reporting of commit statuses stands, where it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reports: Option<Standing>,
}

/// What a push hook led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct HookTaken {
    /// The source.
    pub source: SourceName,
    /// What follows.
    pub outcome: HookOutcome,
    /// The same in words.
    pub message: String,
}

/// Body of an approval.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ApproveRequest {
    /// Identifiers of what was shown as waiting. Only that is approved; what no longer waits refuses the whole request.
    pub waits: Vec<i64>,
    /// Why.
    pub reason: Option<String>,
}

/// What an approval led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Approved {
    /// What was done, in one sentence.
    pub message: String,
    /// What was approved.
    pub approved: Vec<Waiting>,
    /// The source after it.
    pub source: Source,
}

/// What the newest revision would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PlanItem {
    /// The source.
    pub source: Option<SourceName>,
    /// The app.
    pub app: Option<AppName>,
    /// The app's environment.
    pub environment: EnvironmentName,
    /// `deploy`, `none`, `prune`, `held_back`, `wait`, `quarantined`, `suspended`, `held`, `stopped`, `invalid`,
    /// `error` for a source that cannot be read.
    pub action: String,
    /// Why, in words ("tree changed: server.py").
    pub reasons: Vec<String>,
    /// The live version.
    pub live_version: Option<VersionNumber>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Instance {
    /// Its identifier.
    pub instance: InstanceId,
    /// The app.
    pub app: AppName,
    /// The app's environment.
    pub environment: EnvironmentName,
    /// The object.
    pub object: String,
    /// `web`, `worker`, `build`.
    pub kind: String,
    /// The version whose code it runs.
    pub version: VersionNumber,
    /// How it stands.
    pub state: InstanceState,
    /// Process id.
    pub pid: Option<i32>,
    /// Where it listens.
    pub address: Option<String>,
    /// Requests on it.
    pub in_flight: u32,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// How often its slot has been restarted since the version became live.
    pub restarts: u32,
    /// Last probe answer or exit, in words.
    pub detail: Option<String>,
}

/// A line of an app's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// `stdout`, `stderr` or `system`.
    pub source: String,
    /// The version whose code wrote it.
    pub version: VersionNumber,
    /// The object.
    pub object: String,
    /// The instance.
    pub instance: String,
    /// The call it was written in, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// The line.
    pub line: String,
}

/// A fact with its place in the order of all facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct EventRecord {
    /// Rises by one with every fact.
    pub sequence: i64,
    /// The fact.
    #[serde(flatten)]
    pub event: Event,
}

/// Other bounds for the instances of an object; both left out for those of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// The function or web endpoint.
    pub object: ObjectName,
    /// Never fewer than this.
    #[serde(default)]
    pub min: Option<u32>,
    /// Never more than this.
    #[serde(default)]
    pub max: Option<u32>,
}

/// The bounds that hold now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Scaled {
    /// The object.
    pub object: ObjectName,
    /// Never fewer than this.
    pub min: u32,
    /// Never more than this.
    pub max: u32,
}
