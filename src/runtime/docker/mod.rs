//! Instances as containers of a Docker-compatible engine: Docker, Podman.
//!
//! Owned by the controller. The engine keeps the containers, so that a controller may die: the next one finds them by
//! their labels, or, while the engine does not answer, as they were remembered. What this module keeps in memory ([`Known`])
//! is only what it has been told since.
//!
//! ```text
//! Starting ─► Running ─► Stopping ─► Ended ─► (forgotten: container removed)
//!     │          └───────────────────► Ended
//!     └─► (not started: container removed)
//! ```
//!
//! Neighbours: `watch` hears of ends, `output` brings what containers write to the supervisor, who owns all log files,
//! `images` and `build` find the image of a version. Invariants: containers of others are never touched, each of ours
//! carries the label [`OWNER`] with this agent's name; an end is reported once, after its last output; while the engine
//! is away nothing is concluded from its silence.

mod build;
mod buildkit;
pub mod compose;
mod connection;
mod create;
mod dial;
mod drift;
mod exec;
mod ignore;
mod images;
mod inspect;
mod names;
mod output;
mod remembered;
mod services;
mod transport;
mod watch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptions};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::task::AbortOnDropHandle;

use super::exec::{ExecError, ExecStream};
use super::probe::{self, ProbeAnswer};
use super::supervisor_link::{LinkError, StartError, SupervisorEvent, SupervisorLink};
use crate::domain::manifest::{Health, Millis};
use crate::domain::{AppKey, Builder, Drift, ExitStatus, InstanceId, Secret, VersionNumber};
use crate::secret_files::SecretFiles;
use crate::wire::exec::ExecStart;
use crate::wire::supervisor::{Child, ChildState, Labels, StartRequest};

pub use build::BuildSecrets;
pub use connection::{EngineState, Trouble};
pub use images::{ImageError, ImageRequest, SECRET_MISSING};
pub use services::ServiceImages;
pub use transport::EngineTls;

use remembered::Remembered;

/// The label with the name of the agent that a container belongs to.
const OWNER: &str = "landfall.owner";
/// An instance must have been started after this long; pulling its image anew is part of it.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// Ends that wait until the fleet takes them.
const ENDS_KEPT: usize = 1024;
/// What an instance that has ended still wrote is waited for so long.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// When the agent ends, containers that do not are killed this long after their own grace at the latest.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(60);

/// A user and password of a registry.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Finds the login for a registry's host, anew for each fetch; an error says why it cannot be had. May block.
#[derive(Clone)]
pub struct Logins {
    find: Arc<FindLogin>,
    hosts: Arc<[String]>,
}

type FindLogin = dyn Fn(&str) -> Result<Option<Login>, String> + Send + Sync;

impl Logins {
    /// Logins of these hosts, found by a function.
    pub fn new(
        hosts: Vec<String>,
        find: impl Fn(&str) -> Result<Option<Login>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { find: Arc::new(find), hosts: hosts.into() }
    }

    async fn of(&self, host: &str) -> Result<Option<Login>, String> {
        let (find, host) = (Arc::clone(&self.find), host.to_owned());
        let found = tokio::task::spawn_blocking(move || find(&host)).await;
        found.unwrap_or_else(|error| Err(format!("looking for the login was interrupted: {error}")))
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logins")
    }
}

/// What of the configuration concerns containers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine's address; `None` for the one that is found.
    pub socket: Option<String>,
    /// How an engine at a TCP address is spoken to; `None` for plain text.
    pub tls: Option<EngineTls>,
    /// Whether plain text to another machine is meant.
    pub insecure: bool,
    /// The network containers join; `None` for the engine's default.
    pub network: Option<String>,
    /// What of it builds images.
    pub builder: Builder,
    /// Logins of registries.
    pub logins: Logins,
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// This agent's name on the labels of its containers.
    owner: String,
    /// The directory with all log files.
    logs: PathBuf,
    link: SupervisorLink,
    settings: ArcSwap<Settings>,
    connection: connection::Connection,
    secret_files: SecretFiles,
    remembered: Remembered,
    known: Mutex<HashMap<InstanceId, Known>>,
    ends: mpsc::Sender<SupervisorEvent>,
    /// Set once containers are used at all: until then nobody looks for an engine.
    needed: channel::Sender<bool>,
}

/// What is known of an instance.
#[derive(Debug)]
struct Known {
    /// The container's identifier, or its name while it is made.
    container: String,
    labels: Labels,
    log: PathBuf,
    pid: i32,
    started_at: Timestamp,
    address: Option<SocketAddr>,
    /// Whether the engine forwards connections to it.
    forwarded: bool,
    /// Whether the image itself says how to find out that it is healthy.
    own_check: bool,
    stage: Stage,
    /// What is done when somebody changes it by hand.
    drift: Drift,
    /// What it was right after its start, and should be.
    shape: drift::Shape,
    /// What is not so, and has been told.
    changes: Vec<drift::Change>,
    /// A probe was answered well.
    answered: bool,
    /// When somebody else sent it a signal.
    signalled: Option<Timestamp>,
    /// What brings its output; ends with the container.
    output: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Starting,
    Running,
    Stopping,
    /// It has ended; its last output is being read.
    Ending {
        stopped: bool,
    },
    Ended {
        status: ExitStatus,
        at: Timestamp,
        oom: bool,
        stopped: bool,
    },
}

impl Known {
    fn report(&self, instance: &InstanceId) -> Child {
        Child {
            instance: instance.clone(),
            labels: self.labels.clone(),
            pid: self.pid,
            start_ticks: 0,
            started_at: self.started_at,
            state: match self.stage {
                Stage::Starting | Stage::Running | Stage::Ending { stopped: false } => ChildState::Running,
                Stage::Stopping | Stage::Ending { stopped: true } => ChildState::Stopping,
                Stage::Ended { status, at, oom, stopped } => ChildState::Exited { status, at, oom, stopped },
            },
            log: self.log.clone(),
            dropped_bytes: 0,
            address: self.address,
        }
    }
}

impl Docker {
    /// Containers of the agent that keeps its things in `data_dir`. Ends come over the receiver. Nothing is connected
    /// to before it is needed.
    pub fn new(
        data_dir: &Path,
        link: SupervisorLink,
        settings: Settings,
    ) -> std::io::Result<(Self, mpsc::Receiver<SupervisorEvent>)> {
        let (ends, receiver) = mpsc::channel(ENDS_KEPT);
        let shared = Shared {
            owner: names::owner(data_dir)?,
            logs: data_dir.join("logs"),
            link,
            settings: ArcSwap::from_pointee(settings),
            connection: connection::Connection::default(),
            secret_files: SecretFiles::of_containers(data_dir),
            remembered: Remembered::of(data_dir),
            known: Mutex::default(),
            ends,
            needed: channel::Sender::new(false),
        };
        let docker = Self { shared: Arc::new(shared) };
        tokio::spawn(watch::run(Arc::downgrade(&docker.shared), docker.shared.needed.subscribe()));
        Ok((docker, receiver))
    }

    /// Other settings: from the next use on.
    pub fn set(&self, settings: Settings) {
        let before = self.shared.settings.swap(Arc::new(settings.clone()));
        let place = |settings: &Settings| {
            (settings.socket.clone(), settings.tls.clone(), settings.insecure, settings.network.clone())
        };
        if place(&before) != place(&settings) {
            self.shared.connection.forget();
        }
    }

    /// How the engine stands; `None` while no app needs one.
    pub fn state(&self) -> Option<EngineState> {
        (*self.shared.needed.borrow()).then(|| self.shared.connection.state())
    }

    /// What somebody changed by hand and nobody puts right, in words.
    pub fn changes(&self) -> Vec<String> {
        drift::standing(&self.shared)
    }

    /// Whether an instance is one of these.
    pub fn knows(&self, instance: &InstanceId) -> bool {
        self.shared.knows(instance)
    }

    /// All instances that are known.
    pub fn children(&self) -> Vec<Child> {
        self.shared.with(|known| known.iter().map(|(id, known)| known.report(id)).collect())
    }

    /// Finds the containers that an earlier controller left. `needed` says that there are apps in containers: then an
    /// engine that does not answer is waited for a little, and those that are remembered are taken to run until it does.
    pub async fn recover(&self, needed: bool) {
        watch::recover(&self.shared, needed).await;
    }

    /// Starts an instance; one that is known is answered as it is.
    pub async fn start(&self, request: StartRequest) -> Result<Child, StartError> {
        let id = request.instance.clone();
        self.shared.need();
        let already = self.shared.with(|known| {
            if let Some(known) = known.get(&id).filter(|known| known.stage != Stage::Starting) {
                return Some(known.report(&id));
            }
            known.insert(
                id.clone(),
                Known {
                    container: names::container(&self.shared.owner, &id),
                    labels: request.labels.clone(),
                    log: request.log.clone(),
                    pid: 0,
                    started_at: Timestamp::now(),
                    address: None,
                    forwarded: false,
                    own_check: false,
                    stage: Stage::Starting,
                    drift: request.container.as_ref().map_or_else(Drift::default, |container| container.drift),
                    shape: drift::Shape::default(),
                    changes: Vec::new(),
                    answered: false,
                    signalled: None,
                    output: None,
                },
            );
            None
        });
        if let Some(child) = already {
            return Ok(child);
        }
        self.shared.open(&request.log).await;
        let started = tokio::time::timeout(START_DEADLINE, create::start(&self.shared, &request)).await;
        let result = started.unwrap_or_else(|_| {
            Err(StartError::Io(format!("the engine did not start the container within {} s", START_DEADLINE.as_secs())))
        });
        match &result {
            Ok(_) => {
                // It may have ended before it was known to run.
                watch::look_at(&self.shared, &id);
            }
            Err(error) => {
                self.shared.say(&request.log, &format!("not started: {error}")).await;
                self.shared.close(&request.log).await;
                self.remove(&id).await;
            }
        }
        result
    }

    /// The image's stop signal (SIGTERM) now, SIGKILL after `grace`. The end comes as an event.
    pub async fn stop(&self, instance: &InstanceId, grace: Millis) -> Result<(), LinkError> {
        let found = self.shared.with(|known| {
            let known = known.get_mut(instance)?;
            let first = matches!(known.stage, Stage::Running | Stage::Starting);
            if first {
                known.stage = Stage::Stopping;
            }
            Some((known.container.clone(), known.log.clone(), known.stage.clone(), first))
        });
        let Some((container, log, stage, first)) = found else { return Err(unknown(instance)) };
        if matches!(stage, Stage::Ending { .. } | Stage::Ended { .. }) {
            return Ok(());
        }
        let (shared, instance) = (Arc::clone(&self.shared), instance.clone());
        tokio::spawn(async move {
            if first {
                let line = format!("stop requested, stop signal now, SIGKILL after {} ms", grace.0);
                shared.say(&log, &line).await;
                shared.signal(&container, None).await;
            }
            tokio::time::sleep(grace.duration()).await;
            let waits =
                || shared.with(|known| known.get(&instance).is_some_and(|known| known.stage == Stage::Stopping));
            // While the engine is away the order stands.
            while waits() {
                shared.signal(&container, Some("SIGKILL")).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        Ok(())
    }

    /// Removes an instance that has ended, with what it wrote outside of volumes.
    pub async fn forget(&self, instance: &InstanceId) -> Result<(), LinkError> {
        self.remove(instance).await;
        Ok(())
    }

    async fn remove(&self, instance: &InstanceId) {
        let removed = self.shared.with(|known| known.remove(instance));
        if let Some(known) = removed {
            self.shared.remove_container(&known.container).await;
        }
        // Also of one that was given up while it started.
        self.shared.clear(instance).await;
    }

    /// Writes a line of Landfall's own into an instance's log.
    pub async fn log(&self, instance: &InstanceId, line: &str) -> Result<(), LinkError> {
        let log = self.shared.with(|known| known.get(instance).map(|known| known.log.clone()));
        self.shared.say(&log.ok_or_else(|| unknown(instance))?, line).await;
        Ok(())
    }

    /// Runs a command in a container that runs.
    pub async fn exec(&self, instance: &InstanceId, start: ExecStart) -> Result<ExecStream, ExecError> {
        exec::run(&self.shared, instance, start).await
    }

    /// Asks an instance once whether it takes work: as its manifest says, else as its image says, else by a connection.
    pub async fn probe(&self, instance: &InstanceId, address: SocketAddr, health: &Health) -> ProbeAnswer {
        let known = |known: &Known| (known.container.clone(), known.forwarded, known.own_check);
        let found = self.shared.with(|all| all.get(instance).map(known));
        let (container, forwarded, own_check) = found.unwrap_or_default();
        if own_check
            && health.path.is_none()
            && let Some(answer) = inspect::own_health(&self.shared, &container, health.timeout.duration()).await
        {
            return answer;
        }
        let answer = match forwarded {
            true => probe::through_forwarder(address, health).await,
            false => probe::probe(address, health).await,
        };
        let answered_before = self.shared.with(|all| {
            all.get_mut(instance).is_some_and(|known| {
                let before = known.answered;
                known.answered |= answer.is_good();
                before
            })
        });
        if answered_before && !answer.is_good() {
            // The end of its program says more than a connection that is refused, and the engine tells of it later.
            watch::when_ended(&self.shared, instance).await;
        }
        answer
    }

    /// Finds the image of a version, fetching or building it; says on the way what it does.
    pub async fn image(
        &self,
        request: ImageRequest,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<crate::domain::PinnedImage, ImageError> {
        self.shared.need();
        images::resolve(&self.shared, request, say).await
    }

    /// Gives up an image that no version needs any more: Landfall's own name for it, and the image itself when Landfall
    /// brought it in. `kept` are those of all versions that are kept.
    pub async fn give_up(&self, image: &crate::domain::PinnedImage, kept: &[crate::domain::PinnedImage]) {
        images::give_up(&self.shared, image, kept).await;
    }

    /// The agent ends: all containers end too, as processes do.
    pub async fn end_all(&self) {
        let running: Vec<InstanceId> = self.shared.with(|known| {
            known
                .iter()
                .filter(|(_, known)| !matches!(known.stage, Stage::Ended { .. }))
                .map(|(id, _)| id.clone())
                .collect()
        });
        let graces = running.iter().map(|id| async {
            let grace = create::grace_of(&self.shared, id).await;
            // An instance that is gone already is as good.
            let _ = self.stop(id, grace).await;
        });
        futures_util::future::join_all(graces).await;
        let all_gone = async {
            while self.shared.with(|known| known.values().any(|known| !matches!(known.stage, Stage::Ended { .. }))) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_GRACE, all_gone).await.is_err() {
            tracing::warn!("some containers did not end in time; they are ended at the next start of the agent");
        }
        let ended: Vec<InstanceId> = self.shared.with(|known| known.keys().cloned().collect());
        for instance in ended {
            self.remove(&instance).await;
        }
    }
}

fn unknown(instance: &InstanceId) -> LinkError {
    LinkError::Refused {
        code: "unknown_instance".to_owned(),
        message: format!("instance {instance} is not known to the container runtime"),
    }
}

impl Shared {
    fn with<T>(&self, action: impl FnOnce(&mut HashMap<InstanceId, Known>) -> T) -> T {
        action(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn knows(&self, instance: &InstanceId) -> bool {
        self.with(|known| known.contains_key(instance))
    }

    /// From now on the engine is watched.
    fn need(&self) {
        self.needed.send_if_modified(|needed| !std::mem::replace(needed, true));
    }

    async fn client(&self) -> Result<bollard::Docker, Trouble> {
        let settings = self.settings.load_full();
        self.connection.client(&settings).await
    }

    /// A line of Landfall's own. What cannot be written is not worth an instance.
    async fn say(&self, log: &Path, line: &str) {
        let line = format!("{:.9} system F {}\n", Timestamp::now(), line.replace('\n', " "));
        self.append(log, line).await;
    }

    async fn append(&self, log: &Path, lines: String) {
        if let Err(error) = self.link.append(log, lines).await {
            tracing::debug!(log = %log.display(), %error, "lines of a container are lost");
        }
    }

    /// Opens a log. From its open logs the supervisor knows that there are instances which are not its own: a controller that has
    /// to end them gets the time for it.
    async fn open(&self, log: &Path) {
        self.append(log, String::new()).await;
    }

    async fn close(&self, log: &Path) {
        // The supervisor closes it at its own end too.
        let _ = self.link.close(log).await;
    }

    /// Sends a signal; `None` for the one the image names. A container that is gone already is as good.
    async fn signal(&self, container: &str, signal: Option<&str>) {
        let sent = async {
            let client = self.client().await.map_err(|trouble| trouble.to_string())?;
            let signal = match signal {
                Some(signal) => signal.to_owned(),
                None => inspect::stop_signal(&client, container).await,
            };
            let options = KillContainerOptions { signal };
            client.kill_container(container, Some(options)).await.map_err(|error| error.to_string())
        };
        if let Err(error) = sent.await {
            tracing::debug!(container, error, "a signal was not sent");
        }
    }

    /// Remembers a container that has started. One that cannot be remembered runs all the same; only a controller that
    /// begins while the engine is away does not find it.
    async fn remember(&self, instance: &InstanceId, seen: &inspect::Seen) {
        let (remembered, of, seen) = (self.remembered.clone(), instance.clone(), seen.clone());
        let written = tokio::task::spawn_blocking(move || remembered.put(&of, &seen)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
            tracing::warn!(%instance, %error, "a container is not remembered in `containers` of the data directory");
        }
    }

    /// Removes what an instance that is gone has on this machine: its files with secrets, and that it was remembered.
    async fn clear(&self, instance: &InstanceId) {
        let (secret_files, remembered, of) = (self.secret_files.clone(), self.remembered.clone(), instance.clone());
        let cleared = tokio::task::spawn_blocking(move || {
            let secrets = secret_files.remove(of.as_str());
            remembered.remove(&of).and(secrets)
        });
        if let Err(error) = cleared.await.unwrap_or_else(|error| Err(error.into())) {
            tracing::error!(%instance, %error, "files of an instance that has ended are left, with secrets if it had any");
        }
    }

    async fn remove_container(&self, container: &str) {
        let Ok(client) = self.client().await else { return };
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match client.remove_container(container, Some(options)).await {
            Ok(()) => {}
            Err(error) if connection::status(&error).is_some_and(|status| status == 404 || status == 409) => {}
            Err(error) => tracing::warn!(container, %error, "a container cannot be removed; it is tried again later"),
        }
    }
}

/// The log of a version's image: pulled or built.
fn image_log(key: &AppKey, version: VersionNumber, instance: &InstanceId) -> PathBuf {
    super::log_path(key, version, super::BUILD_OBJECT, instance)
}
