//! What controller and supervisor say to each other, and what the supervisor is told at its start.
//!
//! The controller asks by `id`; the supervisor answers each request with [`FromSupervisor::Reply`] of the
//! same `id`, and reports facts on its own. Facts about a child that has ended are kept by the supervisor
//! until the controller says [`Request::Forget`], so a controller that was away misses nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::manifest::{Bytes, Millis, Resources};
use crate::domain::{AppKey, Drift, ExitStatus, InstanceId, PinnedImage, Secret, VersionNumber};

/// All the supervisor needs to know of the configuration. Made by whoever reads the configuration file;
/// the supervisor itself reads no YAML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Absolute path of the data directory.
    pub data_dir: PathBuf,
    /// Absolute path of the configuration file, handed on to the controller; `None` runs on defaults.
    pub config: Option<PathBuf>,
    /// Addresses of the proxy for HTTP.
    pub proxy_listen: Vec<SocketAddr>,
    /// Addresses of the proxy for HTTPS.
    #[serde(default)]
    pub proxy_tls_listen: Vec<SocketAddr>,
    /// Path of the API's Unix socket.
    pub api_socket: PathBuf,
    /// TCP address of the API.
    pub api_listen: Option<SocketAddr>,
    /// Unprivileged identities; only used when started as root.
    pub users: Option<Users>,
    /// All log files together stay below this.
    pub logs_total: Bytes,
    /// On shutdown the proxy may finish its requests for this long before it is killed.
    pub shutdown_drain: Millis,
}

impl Plan {
    /// Every address that the proxy serves, with the configuration's key for it.
    pub fn web(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let plain = self.proxy_listen.iter().map(|address| (*address, "proxy.listen"));
        plain.chain(self.proxy_tls_listen.iter().map(|address| (*address, "proxy.tls.listen")))
    }

    /// Where proxies connect to the controller. The supervisor binds it and the controller inherits it,
    /// so that it outlives every controller.
    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("run").join("control.sock")
    }

    /// Where the controller hands calls of functions to the proxies. The supervisor binds it and proxies inherit it.
    pub fn calls_socket(&self) -> PathBuf {
        self.data_dir.join("run").join("calls.sock")
    }

    /// The proxy's copy of the last route table.
    pub fn routes_file(&self) -> PathBuf {
        self.data_dir.join("run").join("routes.json")
    }
}

/// Identities to run as when the supervisor is root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Controller and proxy.
    pub agent: Identity,
    /// Builds and app instances.
    pub apps: Identity,
}

/// A user and its primary group, resolved to numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// For messages, `HOME` and supplementary groups.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Environment variable that tells a child which inherited descriptors it has:
/// `name=fd` pairs joined by commas, for example `link=3,api_unix=4,api_tcp=5,control=6` or `web=3,web=4`.
pub const FDS_VARIABLE: &str = "LANDFALL_FDS";

/// Names in [`FDS_VARIABLE`].
pub mod fds {
    /// Controller: the socket pair to the supervisor.
    pub const LINK: &str = "link";
    /// Controller: the listening Unix socket of the API.
    pub const API_UNIX: &str = "api_unix";
    /// Controller: the listening TCP socket of the API.
    pub const API_TCP: &str = "api_tcp";
    /// Controller: the listening Unix socket proxies connect to.
    pub const CONTROL: &str = "control";
    /// Proxy: a listening TCP socket for web traffic; one entry for each address.
    pub const WEB: &str = "web";
    /// Proxy: the same for web traffic in TLS.
    pub const WEB_TLS: &str = "web_tls";
    /// Proxy: the listening Unix socket for calls of functions.
    pub const CALLS: &str = "calls";
    /// Proxy: a pipe to write one byte to once it accepts connections; a proxy it replaces is drained then.
    pub const READY: &str = "ready";
}

/// From the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToSupervisor {
    /// Chosen by the controller, repeated in the reply.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// What the controller can ask for. All are idempotent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Sent first; answered with [`Reply::Inventory`].
    Hello {
        /// [`super::PROTOCOL`]
        protocol: u32,
        /// The controller's program version.
        version: String,
    },
    /// Starts a child; when the instance exists already, answers with the running one.
    Start(Box<StartRequest>),
    /// SIGTERM to the child's group, after `grace` SIGKILL to everything that belongs to it.
    /// The supervisor sees it through even when the controller dies.
    Stop {
        /// Which.
        instance: InstanceId,
        /// Time between the two signals. A shorter one replaces a longer one.
        grace: Millis,
    },
    /// The record of an ended child may be dropped. Refused while it runs.
    Forget {
        /// Which.
        instance: InstanceId,
    },
    /// Writes a line with the source `system` into the instance's log.
    Log {
        /// Which.
        instance: InstanceId,
        /// One line.
        line: String,
    },
    /// Appends whole lines to the log of an instance that is no child of the supervisor. In the log's own format, with
    /// their times.
    Append {
        /// Log file, relative to `<data_dir>/logs`.
        log: PathBuf,
        /// The lines, each with its end.
        lines: String,
    },
    /// Nothing more is appended to that log.
    Close {
        /// Log file, relative to `<data_dir>/logs`.
        log: PathBuf,
    },
    /// Starts a program beside an instance, as one of its processes, that runs a command for whoever listens on a socket.
    Attend {
        /// Which.
        instance: InstanceId,
        /// A Unix socket that the controller listens on. The program gets a connection to it, and ends with that.
        socket: PathBuf,
    },
    /// The controller serves: what ends it from now on is not in the way of its start.
    Up,
    /// The controller works. One that has said so and does not say so again within this time hangs, and is replaced.
    Alive {
        /// Until the next one at the latest.
        within: Millis,
    },
    /// Starts a new proxy on the same sockets and drains the old one.
    ReplaceProxy,
    /// Replaces supervisor, controller and proxy by the program file now installed; instances stay.
    Upgrade,
    /// New settings after a reload: limits and users from now on; changed addresses replace the proxy.
    Apply(Box<Plan>),
}

/// What a child is and how it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// Its identifier, chosen by the controller.
    pub instance: InstanceId,
    /// What it belongs to; kept and reported, never interpreted.
    pub labels: Labels,
    /// Program and arguments. A program without `/` is looked up in `PATH` of `env`, one with `/` is relative to `directory`.
    pub command: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// The child's environment, but for its secrets.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets. The supervisor hands them to the process and keeps none of them.
    #[serde(default, skip_serializing_if = "SecretVariables::is_empty")]
    pub secrets: SecretVariables,
    /// Files with secrets, by name: written before it starts where nobody else reads them, and gone with it.
    #[serde(default, skip_serializing_if = "SecretVariables::is_empty")]
    pub secret_files: SecretVariables,
    /// Variables that hold the paths of those files, with the file's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_paths: BTreeMap<String, String>,
    /// Log file, relative to `<data_dir>/logs`.
    pub log: PathBuf,
    /// Limits.
    pub resources: Resources,
    /// Time between SIGTERM and SIGKILL when the agent shuts down.
    pub grace: Millis,
    /// Directories below `<data_dir>/volumes` that must exist and that it may write to.
    #[serde(default)]
    pub volumes: Vec<PathBuf>,
    /// How it runs as a container; the supervisor itself only runs processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<ContainerRequest>>,
}

/// What an instance that runs as a container needs besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRequest {
    /// The image.
    pub image: PinnedImage,
    /// The port that the program within listens on; `None` for one that listens on none.
    pub port: Option<u16>,
    /// User within the container; `None` for the image's.
    pub user: Option<String>,
    /// Its own files cannot be written to.
    pub read_only: bool,
    /// Volumes by name, with the path within.
    pub volumes: BTreeMap<String, String>,
    /// Files and directories of this machine that it sees, read-only: where they lie, and the path within.
    pub mounts: Vec<(PathBuf, String)>,
    /// Working directory within; `None` for the image's.
    pub directory: Option<String>,
    /// What is done when somebody changes it by hand.
    #[serde(default)]
    pub drift: Drift,
}

/// Variables whose values are secrets: readable on the socket pair and nowhere else.
#[derive(Debug, Clone, Default)]
pub struct SecretVariables(pub BTreeMap<String, Secret>);

impl SecretVariables {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, for the one place that hands them over.
    pub fn exposed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }
}

impl PartialEq for SecretVariables {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |of: &Self| of.0.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let (mine, theirs): (Vec<(String, String)>, Vec<_>) = (exposed(self), exposed(other));
        mine == theirs
    }
}

impl Eq for SecretVariables {}

impl Serialize for SecretVariables {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value.expose())))
    }
}

impl<'de> Deserialize<'de> for SecretVariables {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(Self(values.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()))
    }
}

/// What a child belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The app.
    pub app: AppKey,
    /// The version whose code it runs.
    pub version: VersionNumber,
    /// The object's name, `build` for a build.
    pub object: String,
    /// What sort of child.
    pub kind: ChildKind,
    /// The port it was told to listen on.
    pub port: Option<u16>,
}

/// What sort of child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKind {
    /// An instance of a web object.
    Web,
    /// An instance of a function.
    Function,
    /// An instance of a worker.
    Worker,
    /// A build; runs to its end.
    Build,
}

/// From the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromSupervisor {
    /// The answer to a request.
    Reply {
        /// The request's.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// A child has ended and everything that belonged to it is gone.
    Exited(Box<Child>),
    /// A proxy started, began to drain or ended.
    Proxies {
        /// All there are now.
        proxies: Vec<ProxyProcess>,
    },
    /// SIGHUP: read the configuration again.
    Reload,
    /// The agent ends. The controller finishes its writes and exits; apps are stopped by the supervisor.
    Shutdown,
}

/// Answers to requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Inventory(Box<Inventory>),
    /// To [`Request::Start`].
    Started(Box<Child>),
    /// To everything that has no other answer.
    Done,
    /// Not done.
    Refused {
        /// `not_found` (program or directory is missing), `not_permitted`, `unknown_instance`, `running`, `io`, `shutting_down`.
        code: String,
        /// What and how to mend it.
        message: String,
    },
}

/// All the supervisor knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inventory {
    /// [`super::PROTOCOL`]
    pub protocol: u32,
    /// Its program version.
    pub version: String,
    /// Its process id.
    pub pid: i32,
    /// When it started (an upgrade in place does not change it).
    pub started_at: Timestamp,
    /// The proxies.
    pub proxies: Vec<ProxyProcess>,
    /// All children that run or were not forgotten.
    pub children: Vec<Child>,
    /// How often the controller has been restarted since `started_at`.
    pub controller_restarts: u32,
    /// The plan in force: what it was started with and has taken over since. A supervisor of an earlier release does
    /// not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// A proxy process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProcess {
    /// Its process id.
    pub pid: i32,
    /// Its program version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// It accepts nothing new and finishes what it has.
    pub draining: bool,
}

/// A child of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its identifier.
    pub instance: InstanceId,
    /// What it belongs to.
    pub labels: Labels,
    /// Its process id, also the id of its session and group.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`): with the pid it names the process.
    pub start_ticks: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// How it stands.
    pub state: ChildState,
    /// Log file, relative to `<data_dir>/logs`.
    pub log: PathBuf,
    /// Bytes of output that were dropped because it wrote faster than the disk.
    pub dropped_bytes: u64,
    /// Where it is reached, when that is not its port on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

/// How a child stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ChildState {
    /// It runs.
    Running,
    /// It was told to stop.
    Stopping,
    /// It has ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// When.
        at: Timestamp,
        /// The kernel ended it for want of memory.
        oom: bool,
        /// It had been told to stop.
        stopped: bool,
    },
}
