//! What one app is, after its `landfall.yaml` was read, checked and completed with defaults.
//!
//! These types are *normalised*: two manifests that mean the same are equal, so their serialised
//! form is part of an app's content identity. Reading YAML text is `files::manifest`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compose::Compose;
use super::container::Container;
use super::id::{AppName, ObjectName, SecretName};
use super::publish::Publish;
use super::scheduled::Scheduled;

/// A length of time with millisecond precision, serialised as a number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// That many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// From the standard library's type, without what is less than a millisecond.
    pub fn of(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// As people write it, in its shortest exact form: `1h30m`.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, worth) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= worth {
                write!(f, "{}{unit}", rest / worth)?;
                rest %= worth;
            }
        }
        Ok(())
    }
}

/// As people write it, in the largest binary unit that is exact: `64MiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let fits = units.into_iter().find(|(_, worth)| self.0 >= *worth && self.0.is_multiple_of(*worth));
        let (unit, worth) = fits.unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / worth)
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// That many mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib * 1024 * 1024)
    }
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The app's name.
    pub app: AppName,
    /// How its instances run as containers; `None` for processes of the machine. Left out where there is none, so that
    /// manifests without keep their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Runs once per content before any instance starts.
    pub build: Option<Build>,
    /// Other directories of the source that belong to the content, relative to the app's directory.
    pub include: Vec<String>,
    /// Variables every instance sees.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets: variable → the secret's name. Left out where there are none, so that
    /// manifests without keep their identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretName>,
    /// Variables whose values are the paths of files with secrets: variable → the secret's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_files: BTreeMap<String, SecretName>,
    /// Encrypted files of the app's directory whose values are secrets too, by path. Left out where there are none, so
    /// that manifests without keep their identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypted_files: Vec<String>,
    /// Directories kept over versions: volume name → path the app knows it by.
    pub volumes: BTreeMap<String, String>,
    /// Apps of the same environment that must be live and healthy before a new version of this one is started. Left
    /// out where there are none, so that manifests without keep their identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<AppName>,
    /// How a new version replaces the old one.
    pub strategy: Strategy,
    /// How long crashes and readiness are watched after the switch.
    pub bake: Millis,
    /// Channels that hear of it, besides those that hear of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
    /// The tree is put somewhere for others to read; then nothing is run. Left out where there is none, so that manifests
    /// without keep their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// The app is a Compose project. Left out where it is none, so that manifests without keep their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Compose>,
    /// The web endpoints by name.
    pub web: BTreeMap<ObjectName, Web>,
    /// The functions by name. Left out where there are none, so that content recorded before functions existed keeps
    /// its identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<ObjectName, Function>,
    /// The workers by name.
    pub workers: BTreeMap<ObjectName, Worker>,
}

/// A build step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Program and arguments, run in the version's own copy of the tree.
    pub command: Vec<String>,
    /// The build is ended after this long.
    pub timeout: Millis,
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The new version runs beside the old one until it is ready.
    Rolling,
    /// The old version is stopped first; requests wait or get 503 meanwhile.
    Recreate,
}

/// How many instances an object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Never fewer than this.
    pub min: u32,
    /// Never more than this (deployments excepted).
    pub max: u32,
    /// An instance above `min` without work for this long is stopped.
    pub idle: Millis,
}

/// Limits of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory of all its processes together, in bytes.
    pub memory: Option<Bytes>,
    /// Processor time in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// How many processes and threads it may have.
    pub processes: Option<u32>,
}

impl Eq for Resources {}

/// A server that listens on `$PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Web {
    /// Program and arguments; empty for a container whose image knows what to run.
    pub command: Vec<String>,
    /// The port that the container's program listens on whatever it is told; `None` for one that listens on `$PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Variables only this object sees; they win over the app's.
    pub env: BTreeMap<String, String>,
    /// When an instance counts as ready and as failing.
    pub health: Health,
    /// How many instances.
    pub instances: Instances,
    /// Requests at once per instance.
    pub concurrency: u32,
    /// A request whose answer has not started after this long gets 504.
    pub request_timeout: Millis,
    /// Larger request bodies get 413.
    pub max_body: Bytes,
    /// How long requests of an outdated instance may go on.
    pub drain: Millis,
    /// After SIGTERM an instance has this long before SIGKILL.
    pub grace: Millis,
    /// Host names besides the one by name; `*.example.com` matches one label.
    pub hosts: Vec<String>,
    /// Path prefix this endpoint answers under; `/` for everything.
    pub path: String,
    /// Whether the prefix is removed before the request reaches the instance.
    pub strip_prefix: bool,
    /// Who may reach it.
    #[serde(default, skip_serializing_if = "Auth::is_none")]
    pub auth: Auth,
    /// Limits of one instance.
    pub resources: Resources,
}

/// Who may reach a web endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Everybody.
    #[default]
    None,
    /// Whoever brings a token that may call the app.
    Token,
}

impl Auth {
    /// Whether everybody may. What is as it always was is not written, so that content keeps its identity.
    fn is_none(&self) -> bool {
        *self == Auth::None
    }
}

/// What is called with a body and answers with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// What answers its calls.
    pub code: Code,
    /// Variables only this object sees; they win over the app's.
    pub env: BTreeMap<String, String>,
    /// How many instances.
    pub instances: Instances,
    /// So many instances more than the present calls need are kept warm, within `instances.max`.
    pub spare: u32,
    /// Calls at once per instance.
    pub concurrency: u32,
    /// An attempt that takes longer is ended, with its whole instance. So long do outdated instances drain, too.
    pub timeout: Millis,
    /// A new instance must be ready after this long.
    pub startup_timeout: Millis,
    /// When it is called by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Scheduled>,
    /// When a call that failed is tried again.
    pub retries: Retries,
    /// Calls that may wait for a free place; more are refused.
    pub queue: u32,
    /// Spawned calls that may wait for their turn, where fewer than the agent allows; more are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
    /// Larger bodies of calls are refused.
    pub max_body: Bytes,
    /// After SIGTERM an instance has this long before SIGKILL.
    pub grace: Millis,
    /// Limits of one instance.
    pub resources: Resources,
}

/// What answers the calls of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A function of a Python file, loaded once and kept by Landfall's worker.
    Python(Handler),
    /// A function of a JavaScript file, loaded once and kept by Landfall's worker.
    JavaScript(Handler),
    /// An HTTP server on `$PORT`: program and arguments.
    Server(Vec<String>),
    /// A process for each call: program and arguments.
    Exec(Vec<String>),
}

/// A function in a file, written `app.py:name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// The file, relative to the app's directory.
    pub file: String,
    /// The function's name in it.
    pub name: String,
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.name)
    }
}

/// When a call that failed is tried again. Calls that somebody waits for are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// So many attempts after the first.
    pub max: u32,
    /// Wait before the first of them.
    pub delay: Millis,
    /// Each further wait is so many times as long.
    pub backoff: u32,
    /// No wait is longer.
    pub max_delay: Millis,
}

/// How readiness is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `GET` here must answer 2xx or 3xx; without it a TCP connection is enough.
    pub path: Option<String>,
    /// A new instance must be ready after this long.
    pub deadline: Millis,
    /// Time between two probes.
    pub interval: Millis,
    /// A probe without an answer after this long has failed.
    pub timeout: Millis,
    /// This many good probes in a row make an instance ready.
    pub rise: u32,
    /// This many bad probes in a row take it out.
    pub fall: u32,
}

/// A process that runs until told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Program and arguments; empty for a container whose image knows what to run.
    pub command: Vec<String>,
    /// Variables only this object sees; they win over the app's.
    pub env: BTreeMap<String, String>,
    /// How many instances.
    pub instances: u32,
    /// Whether the old instances leave before or after the new ones start.
    pub handover: Handover,
    /// After SIGTERM an instance has this long before SIGKILL.
    pub grace: Millis,
    /// Limits of one instance.
    pub resources: Resources,
}

/// The order in which worker instances change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// Old instances stop before new ones start: never two at once.
    StopFirst,
    /// New instances run before old ones stop: never none at once.
    StartFirst,
}

/// The defaults of every key, each a named constant.
pub mod defaults {
    use super::{Bytes, Millis};

    /// `bake`
    pub const BAKE: Millis = Millis::seconds(30);
    /// `build.timeout`
    pub const BUILD_TIMEOUT: Millis = Millis::seconds(600);
    /// `health.deadline`
    pub const HEALTH_DEADLINE: Millis = Millis::seconds(30);
    /// `health.interval`
    pub const HEALTH_INTERVAL: Millis = Millis::seconds(1);
    /// `health.timeout`
    pub const HEALTH_TIMEOUT: Millis = Millis::seconds(5);
    /// `health.rise`
    pub const HEALTH_RISE: u32 = 1;
    /// `health.fall`
    pub const HEALTH_FALL: u32 = 3;
    /// `instances`
    pub const INSTANCES: u32 = 1;
    /// `instances.idle`
    pub const IDLE: Millis = Millis::seconds(60);
    /// `concurrency`
    pub const CONCURRENCY: u32 = 64;
    /// `request_timeout`
    pub const REQUEST_TIMEOUT: Millis = Millis::seconds(150);
    /// `max_body`
    pub const MAX_BODY: Bytes = Bytes::mib(64);
    /// `drain`
    pub const DRAIN: Millis = Millis::seconds(30);
    /// `grace`
    pub const GRACE: Millis = Millis::seconds(10);
    /// `path`
    pub const PATH: &str = "/";
    /// `functions.*.concurrency`
    pub const CALLS: u32 = 1;
    /// `functions.*.timeout`
    pub const CALL_TIMEOUT: Millis = Millis::seconds(300);
    /// `functions.*.startup_timeout`
    pub const STARTUP_TIMEOUT: Millis = Millis::seconds(60);
    /// `functions.*.queue`
    pub const QUEUE: u32 = 1000;
    /// `functions.*.instances.spare`
    pub const SPARE: u32 = 0;
    /// `retries.max`
    pub const RETRIES: u32 = 0;
    /// `retries.delay`
    pub const RETRY_DELAY: Millis = Millis::seconds(1);
    /// `retries.backoff`
    pub const RETRY_BACKOFF: u32 = 2;
    /// `retries.max_delay`
    pub const RETRY_MAX_DELAY: Millis = Millis::seconds(60);
}

/// Where an object stands within its app; also what an instance is told as `LANDFALL_OBJECT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A `web` endpoint.
    Web,
    /// A `function`.
    Function,
    /// A `worker`.
    Worker,
}

impl ObjectKind {
    /// `web`, `function` or `worker`.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Web => "web",
            ObjectKind::Function => "function",
            ObjectKind::Worker => "worker",
        }
    }
}

impl Manifest {
    /// The names and kinds of all objects: web endpoints, functions, workers.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectName, ObjectKind)> {
        self.web
            .keys()
            .map(|name| (name, ObjectKind::Web))
            .chain(self.functions.keys().map(|name| (name, ObjectKind::Function)))
            .chain(self.workers.keys().map(|name| (name, ObjectKind::Worker)))
    }

    /// The host a web object is reachable under in `domain`, unchanged over versions:
    /// `<app>.<domain>` for `main`, `<app>-<name>.<domain>` for the others.
    pub fn host(&self, object: &ObjectName, domain: &str) -> String {
        if object.as_str() == "main" {
            format!("{}.{domain}", self.app)
        } else {
            format!("{}-{object}.{domain}", self.app)
        }
    }
}
