//! Where instances live, seen from the control plane: starting and ending them, asking whether they are
//! ready, reading what they wrote.
//!
//! Owned by the controller; neighbours are the supervisor at the other end of [`SupervisorLink`], and the
//! engine above. [`Runtime`] has one variant per place instances can live in, and the engine never
//! knows which one it has: processes of this machine, or containers (`docker`).
//!
//! Invariant: everything here has a deadline, and nothing here decides anything.

pub mod carried;
pub mod docker;
pub mod exec;
pub mod listening;
mod logfile;
pub mod logs;
#[cfg(test)]
mod logs_tests;
pub mod ports;
pub mod probe;
pub mod supervisor_link;
pub mod workers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::domain::manifest::{Health, Millis};
use crate::domain::{AppKey, InstanceId, VersionNumber};
use crate::wire::exec::ExecStart;
use crate::wire::supervisor::{Child, Inventory, Plan, StartRequest};

pub use docker::Docker;
pub use exec::{ExecError, ExecStream};
pub use probe::{ProbeAnswer, probe};
pub use supervisor_link::{LinkError, StartError, SupervisorEvent, SupervisorLink};

/// The places instances live in. Cheap to clone. Whoever starts an instance does not know which: its request does, and
/// afterwards its identifier.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Child processes of the supervisor.
    process: ProcessRuntime,
    /// Containers.
    docker: Docker,
}

/// Where one instance lives.
enum Place<'a> {
    Process(&'a ProcessRuntime),
    Docker(&'a Docker),
}

impl Runtime {
    /// Both places.
    pub fn new(process: ProcessRuntime, docker: Docker) -> Self {
        Self { process, docker }
    }

    fn place(&self, instance: &InstanceId) -> Place<'_> {
        match self.docker.knows(instance) {
            true => Place::Docker(&self.docker),
            false => Place::Process(&self.process),
        }
    }

    /// Starts an instance; one that runs already is answered as it is.
    pub async fn start(&self, request: StartRequest) -> Result<Child, StartError> {
        match request.container {
            Some(_) => self.docker.start(request).await,
            None => self.process.link.start(request).await,
        }
    }

    /// Asks an instance to end, and makes it end after `grace`. Its end is reported as an event.
    pub async fn stop(&self, instance: &InstanceId, grace: Millis) -> Result<(), LinkError> {
        match self.place(instance) {
            Place::Process(runtime) => runtime.link.stop(instance, grace).await,
            Place::Docker(runtime) => runtime.stop(instance, grace).await,
        }
    }

    /// Drops what is kept about an instance that has ended.
    pub async fn forget(&self, instance: &InstanceId) -> Result<(), LinkError> {
        match self.place(instance) {
            Place::Process(runtime) => runtime.link.forget(instance).await,
            Place::Docker(runtime) => runtime.forget(instance).await,
        }
    }

    /// Writes a line of Landfall's own into an instance's log.
    pub async fn log(&self, instance: &InstanceId, line: &str) -> Result<(), LinkError> {
        match self.place(instance) {
            Place::Process(runtime) => runtime.link.log(instance, line).await,
            Place::Docker(runtime) => runtime.log(instance, line).await,
        }
    }

    /// Runs a command in an instance, beside what runs there.
    pub async fn exec(&self, instance: &InstanceId, start: ExecStart) -> Result<ExecStream, ExecError> {
        match self.place(instance) {
            Place::Process(runtime) => exec::in_process(&runtime.link, &runtime.rendezvous, instance, start).await,
            Place::Docker(runtime) => runtime.exec(instance, start).await,
        }
    }

    /// Asks an instance at `address` once whether it takes work.
    pub async fn probe(&self, instance: &InstanceId, address: SocketAddr, health: &Health) -> ProbeAnswer {
        match self.place(instance) {
            Place::Process(_) => probe(address, health).await,
            Place::Docker(runtime) => runtime.probe(instance, address, health).await,
        }
    }

    /// What runs, and what is known of the places themselves.
    pub async fn inventory(&self) -> Result<Inventory, LinkError> {
        let mut inventory = self.process.link.inventory().await?;
        inventory.children.extend(self.docker.children());
        Ok(inventory)
    }

    /// Hands over what of the configuration concerns the supervisor.
    pub async fn apply(&self, plan: Plan) -> Result<(), LinkError> {
        self.process.link.apply(plan).await
    }

    /// Containers and their images.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The directory with all log files.
    pub fn logs(&self) -> &Path {
        &self.process.logs
    }
}

/// Instances as child processes of the supervisor.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    /// The supervisor.
    pub link: SupervisorLink,
    /// The directory with all log files.
    pub logs: PathBuf,
    /// A directory of the agent's own, for sockets between it and what the supervisor starts.
    pub rendezvous: PathBuf,
}

/// The object name under which builds are logged.
pub const BUILD_OBJECT: &str = "build";

/// An instance's log file, relative to the directory with all log files.
pub fn log_path(app: &AppKey, version: VersionNumber, object: &str, instance: &InstanceId) -> PathBuf {
    app_logs(app).join(version.to_string()).join(object).join(format!("{instance}.log"))
}

/// The directory with an app's logs, relative to the directory with all log files.
pub fn app_logs(app: &AppKey) -> PathBuf {
    Path::new(app.environment.as_str()).join(app.app.as_str())
}
