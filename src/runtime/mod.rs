//! Where instances live, seen from the control plane: starting and ending them, asking whether they are
//! ready, reading what they wrote.
//!
//! Owned by the controller; neighbours are the supervisor at the other end of [`SupervisorLink`], and the
//! engine above. [`Runtime`] has one variant per place instances can live in, and the engine never
//! knows which one it has. Today there is one: processes of this machine.
//!
//! Invariant: everything here has a deadline, and nothing here decides anything.

pub mod listening;
mod logfile;
pub mod logs;
#[cfg(test)]
mod logs_tests;
pub mod ports;
pub mod probe;
pub mod supervisor_link;
pub mod workers;

use std::path::{Path, PathBuf};

use crate::domain::manifest::Millis;
use crate::domain::{AppKey, InstanceId, VersionNumber};
use crate::wire::supervisor::{Child, Inventory, Plan, StartRequest};

pub use probe::{ProbeAnswer, probe};
pub use supervisor_link::{LinkError, StartError, SupervisorEvent, SupervisorLink};

/// The place instances live in. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// Child processes of the supervisor.
    Process(ProcessRuntime),
}

impl Runtime {
    /// Starts an instance; one that runs already is answered as it is.
    pub async fn start(&self, request: StartRequest) -> Result<Child, StartError> {
        match self {
            Self::Process(runtime) => runtime.link.start(request).await,
        }
    }

    /// Asks an instance to end, and makes it end after `grace`. Its end is reported as an event.
    pub async fn stop(&self, instance: &InstanceId, grace: Millis) -> Result<(), LinkError> {
        match self {
            Self::Process(runtime) => runtime.link.stop(instance, grace).await,
        }
    }

    /// Drops what is kept about an instance that has ended.
    pub async fn forget(&self, instance: &InstanceId) -> Result<(), LinkError> {
        match self {
            Self::Process(runtime) => runtime.link.forget(instance).await,
        }
    }

    /// Writes a line of Landfall's own into an instance's log.
    pub async fn log(&self, instance: &InstanceId, line: &str) -> Result<(), LinkError> {
        match self {
            Self::Process(runtime) => runtime.link.log(instance, line).await,
        }
    }

    /// What runs, and what is known of the place itself.
    pub async fn inventory(&self) -> Result<Inventory, LinkError> {
        match self {
            Self::Process(runtime) => runtime.link.inventory().await,
        }
    }

    /// Hands over what of the configuration concerns the place where instances live.
    pub async fn apply(&self, plan: Plan) -> Result<(), LinkError> {
        match self {
            Self::Process(runtime) => runtime.link.apply(plan).await,
        }
    }

    /// The directory with all log files.
    pub fn logs(&self) -> &Path {
        match self {
            Self::Process(runtime) => &runtime.logs,
        }
    }
}

/// Instances as child processes of the supervisor.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    /// The supervisor.
    pub link: SupervisorLink,
    /// The directory with all log files.
    pub logs: PathBuf,
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
