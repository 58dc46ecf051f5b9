//! The root process: it owns the listening sockets, every other process and their logs, and outlives all
//! mistakes of the control plane.
//!
//! Started by `landfall agent` with a [`Plan`]; its one neighbour is the controller, over a socket pair in the
//! words of [`crate::wire::supervisor`]. One thread, one `epoll`: no git, no YAML, no SQL, no HTTP.
//!
//! | file | what |
//! |---|---|
//! | `root` | the loop: events, signals, timers, the order of a shutdown |
//! | `requests` | what the controller asks for |
//! | `instances`, `child` | starting, watching and ending instances |
//! | `roles` | keeping a controller and a proxy running |
//! | `upgrade` | replacing itself in place by a newer program |
//! | `logs`, `budget` | output into files, bounded in total |
//! | `family`, `leftovers`, `cgroup` | who belongs to an instance, so that nothing of it is left behind |
//! | `spawn`, `lock`, `sockets`, `link`, `sys` | processes, the data directory, sockets, messages, system calls |
//!
//! Invariants: sockets are bound before anything is started and stay open until the end. The supervisor
//! never waits for a controller, an app or (for long) the disk. A process is signalled only while its identity
//! is certain: as an unreaped child, or through a process descriptor checked against its start time.
//!
//! Limits: with a control group of our own, memory, processor and number of processes hold for all
//! processes of an instance together. Without one, memory holds for each process (`RLIMIT_DATA`), and the other
//! two do not hold; the instance's log says so.

mod attend;
mod budget;
mod cgroup;
mod child;
mod family;
mod instances;
mod leftovers;
mod link;
mod lock;
mod logs;
mod outside;
mod own;
mod requests;
mod roles;
mod root;
mod sockets;
mod spawn;
mod sys;
mod upgrade;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::secret_files::SecretFiles;
use crate::wire::supervisor::{Identity, Plan};

/// Hidden subcommand of the program that runs the controller.
pub const CONTROLLER_COMMAND: &str = "internal-controller";
/// Hidden subcommand of the program that runs a proxy.
pub const PROXY_COMMAND: &str = "internal-proxy";
/// Hidden subcommand of the program that takes up a supervisor's work after an upgrade in place.
pub const SUPERVISOR_COMMAND: &str = "internal-supervisor";
/// Followed by the number of the descriptor with the saved state.
pub const RESUME_OPTION: &str = "--resume-fd";

/// The programs the supervisor starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// What replaces the supervisor at an upgrade; [`RESUME_OPTION`] and a number are added.
    pub supervisor: Vec<OsString>,
    /// The controller.
    pub controller: Vec<OsString>,
    /// A proxy.
    pub proxy: Vec<OsString>,
}

impl Launch {
    /// All roles are this program. Controller and proxy run exactly the program file the supervisor
    /// itself runs, even when that has been replaced on disk meanwhile; an upgrade takes what is installed then.
    pub fn own(plan: &Plan) -> io::Result<Self> {
        let this = OsString::from("/proc/self/exe");
        let data_dir = plan.data_dir.clone().into_os_string();
        let mut controller = vec![this.clone(), CONTROLLER_COMMAND.into(), "--data-dir".into(), data_dir.clone()];
        if let Some(config) = &plan.config {
            controller.extend(["--config".into(), config.clone().into_os_string()]);
        }
        Ok(Self {
            supervisor: vec![installed_program()?.into_os_string(), SUPERVISOR_COMMAND.into()],
            controller,
            proxy: vec![this, PROXY_COMMAND.into(), "--data-dir".into(), data_dir],
        })
    }
}

/// The path this program was started by. Symbolic links are kept, so that an upgrade that moves a link is seen.
fn installed_program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let named = std::env::args_os().next().map(PathBuf::from).filter(|name| name.components().count() > 1);
    let named = named.and_then(|name| std::path::absolute(name).ok());
    Ok(named.filter(|name| name.canonicalize().is_ok_and(|real| real == running)).unwrap_or(running))
}

/// Why the agent does not start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Another agent works on the data directory.
    #[error("data directory {data_dir} is used by another agent (pid {pid}); stop that one, or set another `data_dir`")]
    Locked {
        /// The directory.
        data_dir: PathBuf,
        /// The other agent, as far as it can be read.
        pid: String,
    },
    /// Something else listens on an address.
    #[error("address {address} (`{key}`) is in use by another program; stop it, or set another address in `{key}`")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// The configuration key that names it.
        key: &'static str,
    },
    /// The address needs privileges.
    #[error(
        "address {address} (`{key}`) may not be used by this user; set a port above 1023 in `{key}`, start the agent as root, or give the program CAP_NET_BIND_SERVICE"
    )]
    AddressNotPermitted {
        /// The address.
        address: SocketAddr,
        /// The configuration key that names it.
        key: &'static str,
    },
    /// An address or socket cannot be bound.
    #[error(
        "cannot listen on {what} (`{key}`): {error}; set an address of this machine, or a path that can be written, in `{key}`"
    )]
    Bind {
        /// Address or path.
        what: String,
        /// The configuration key that names it.
        key: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Another program answers on the socket.
    #[error("another program answers on the socket {path}; stop it, or set another `api.socket`")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket's path is taken by something else.
    #[error("{path} exists and is no socket; remove it, or set another `api.socket`")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A directory or file of the data directory cannot be made.
    #[error("{path} cannot be {what}: {error}; check the owner and mode of the data directory, and free space")]
    Data {
        /// The path.
        path: PathBuf,
        /// `made`, `locked`, …
        what: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The saved state of an upgrade cannot be taken up.
    #[error("the state handed over by the previous supervisor cannot be read: {0}")]
    Resume(String),
    /// The kernel refuses something the supervisor cannot be without.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

impl SupervisorError {
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System { what, error: error.into() }
    }
}

/// Runs the agent until it is told to end; returns the exit code of the program.
pub fn run(plan: Plan, launch: Launch) -> Result<i32, SupervisorError> {
    let owner = plan.users.as_ref().map(|users| &users.agent);
    make_directory(&plan.data_dir, owner, if owner.is_some() { 0o711 } else { 0o700 })?;
    let lock = lock::take(&plan.data_dir)?;
    for name in ["run", "logs"] {
        make_directory(&plan.data_dir.join(name), owner, 0o700)?;
    }
    // What is left of a killed agent may still hold the sockets.
    leftovers::clean_up(&root::record_file(&plan));
    let sockets = sockets::Sockets::bind(&plan)?;
    let _ = fs::remove_dir_all(plan.data_dir.join("tmp"));
    SecretFiles::of_processes(&plan.data_dir).sweep(|_| false);
    root::Root::new(plan, launch, lock, sockets)?.run()
}

/// Takes up the work of a supervisor that replaced itself by this program; `fd` holds its state.
pub fn resume(fd: RawFd) -> Result<i32, SupervisorError> {
    upgrade::resume(fd)?.run()
}

fn make_directory(path: &Path, owner: Option<&Identity>, mode: u32) -> Result<(), SupervisorError> {
    let failed = |error| SupervisorError::Data { path: path.to_owned(), what: "made", error };
    if !path.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
    }
    if let Some(owner) = owner {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
    }
    Ok(())
}
