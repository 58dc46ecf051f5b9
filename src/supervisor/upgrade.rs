//! Replacing itself in place by the program that is now installed.
//!
//! `exec` keeps the pid, the children, the sockets and the pipes; all else is written to a memory file that
//! the new program reads. When the `exec` fails everything goes on as before. Afterwards the controller is
//! replaced, and a new proxy takes over on the same sockets while the old one drains.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::domain::manifest::Millis;
use crate::domain::{ExitStatus, InstanceId};
use crate::wire::supervisor::{Labels, Plan, Reply};

use super::cgroup::{Cgroups, Leaf};
use super::child::{Child, GIVE_UP, Stage};
use super::family::Identity;
use super::link::Link;
use super::logs::{SavedLog, Stream};
use super::roles::{Backoff, Proxy, ProxyStage};
use super::root::{Beginning, Root, Source, Who};
use super::sockets::Sockets;
use super::{Launch, RESUME_OPTION, SupervisorError, sys};

/// Everything the next program must know. Fields are only added, with defaults.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    plan: Plan,
    launch: Launch,
    started_at: Timestamp,
    /// The request to answer.
    request: Option<u64>,
    lock: RawFd,
    web: Vec<(SocketAddr, RawFd)>,
    api_unix: (PathBuf, RawFd),
    api_tcp: Option<(SocketAddr, RawFd)>,
    control: (PathBuf, RawFd),
    /// Not there when the program before knew no functions: it is bound anew then.
    #[serde(default)]
    calls: Option<(PathBuf, RawFd)>,
    controller: Option<Identity>,
    link: Option<RawFd>,
    controller_restarts: u32,
    proxies: Vec<SavedProxy>,
    children: Vec<SavedChild>,
    cgroups: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedProxy {
    process: Identity,
    version: String,
    started_at: Timestamp,
    /// Milliseconds it may still drain.
    draining: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedChild {
    instance: InstanceId,
    labels: Labels,
    process: Identity,
    started_at: Timestamp,
    log_path: PathBuf,
    grace: Millis,
    stage: SavedStage,
    status: Option<ExitStatus>,
    stdout: Option<RawFd>,
    stderr: Option<RawFd>,
    log: SavedLog,
    cgroup: Option<PathBuf>,
    temporary: PathBuf,
    #[serde(default)]
    lent: Option<PathBuf>,
}

/// [`Stage`] with times to go, since an `Instant` means nothing to another program.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedStage {
    Running,
    Terminating { stopped: bool, kill_in: u64 },
    Killing { stopped: bool },
    Exited { at: Timestamp, oom: bool, stopped: bool },
}

impl Root {
    /// Replaces this program. Comes back only when that failed.
    pub(super) fn replace_itself(&mut self, request: Option<u64>) {
        let refusal = match self.while_running() {
            Ok(()) => format!("the agent goes on as it is: {}", self.try_replace(request)),
            Err(refusal) => refusal.message,
        };
        tracing::error!(program = ?self.launch.supervisor.first(), "upgrade failed: {refusal}");
        if let Some(id) = request {
            self.reply(id, Reply::Refused { code: "io".to_owned(), message: refusal });
        }
    }

    fn try_replace(&self, request: Option<u64>) -> String {
        let (saved, mut inherit) = self.save(request);
        let state = match write_state(&saved) {
            Ok(state) => state,
            Err(error) => return format!("its state cannot be saved: {error}"),
        };
        inherit.push(state.as_raw_fd());
        let mut command = self.launch.supervisor.clone();
        command.extend([RESUME_OPTION.into(), state.as_raw_fd().to_string().into()]);
        tracing::info!(program = ?command.first(), "replacing the supervisor by the program now installed");
        let error = sys::replace_program(&command, &inherit);
        format!("{:?} cannot be executed: {error}", self.launch.supervisor.first())
    }

    fn save(&self, request: Option<u64>) -> (Saved, Vec<RawFd>) {
        let now = Instant::now();
        let mut inherit = Vec::new();
        let mut keep = |fd: RawFd| {
            inherit.push(fd);
            fd
        };
        let sockets = &self.sockets;
        let saved = Saved {
            plan: self.plan.clone(),
            launch: self.launch.clone(),
            started_at: self.started_at,
            request,
            lock: keep(self.lock.as_raw_fd()),
            web: sockets.web.iter().map(|(address, fd)| (*address, keep(fd.as_raw_fd()))).collect(),
            api_unix: (sockets.api_unix.0.clone(), keep(sockets.api_unix.1.as_raw_fd())),
            api_tcp: sockets.api_tcp.as_ref().map(|(address, fd)| (*address, keep(fd.as_raw_fd()))),
            control: (sockets.control.0.clone(), keep(sockets.control.1.as_raw_fd())),
            calls: Some((sockets.calls.0.clone(), keep(sockets.calls.1.as_raw_fd()))),
            controller: self.controller.process,
            link: self.controller.link.as_ref().map(|link| keep(std::os::fd::AsFd::as_fd(link).as_raw_fd())),
            controller_restarts: self.controller.restarts,
            proxies: self.proxies.iter().map(|proxy| save_proxy(proxy, now)).collect(),
            children: self.children.values().map(|child| save_child(child, now, &mut keep)).collect(),
            cgroups: self.cgroups.as_ref().map(|groups| groups.root().to_owned()),
        };
        (saved, inherit)
    }

    fn adopt_child(&mut self, saved: SavedChild, now: Instant) -> Result<(), SupervisorError> {
        let stdout = saved.stdout.map(adopt).transpose()?;
        let stderr = saved.stderr.map(adopt).transpose()?;
        let stage = match saved.stage {
            SavedStage::Running => Stage::Running,
            SavedStage::Terminating { stopped, kill_in } => {
                Stage::Terminating { stopped, kill_at: now + Duration::from_millis(kill_in) }
            }
            SavedStage::Killing { stopped } => Stage::Killing { stopped, give_up_at: now + GIVE_UP },
            SavedStage::Exited { at, oom, stopped } => Stage::Exited { at, oom, stopped },
        };
        let mut log = self.logs.log(&saved.log_path, saved.log);
        if matches!(stage, Stage::Exited { .. }) {
            self.logs.finish(&mut log);
        } else if saved.status.is_none() {
            self.by_pid.insert(saved.process.pid, Who::Instance(saved.instance.clone()));
        }
        for (pipe, stream) in [(&stdout, Stream::Stdout), (&stderr, Stream::Stderr)] {
            if let Some(pipe) = pipe {
                self.watch(pipe, Source::Output(saved.instance.clone(), stream));
            }
        }
        let child = Child {
            instance: saved.instance.clone(),
            labels: saved.labels,
            process: saved.process,
            started_at: saved.started_at,
            log_path: saved.log_path,
            grace: saved.grace,
            stage,
            status: saved.status,
            stdout,
            stderr,
            log,
            cgroup: saved.cgroup.map(Leaf::resume),
            temporary: saved.temporary,
            lent: saved.lent,
        };
        self.children.insert(saved.instance, child);
        Ok(())
    }

    fn adopt_roles(&mut self, saved: SavedRoles, now: Instant) -> Result<(), SupervisorError> {
        self.controller.restarts = saved.restarts;
        if let Some(process) = saved.controller {
            self.by_pid.insert(process.pid, Who::Controller);
            self.controller.process = Some(process);
            self.controller.backoff = Backoff::running(now);
        }
        if let Some(fd) = saved.link {
            let link = Link::resume(adopt(fd)?);
            self.watch(&link, Source::Link);
            self.controller.link = Some(link);
        }
        for proxy in saved.proxies {
            self.by_pid.insert(proxy.process.pid, Who::Proxy);
            let stage = match proxy.draining {
                Some(left) => ProxyStage::Draining { kill_at: now + Duration::from_millis(left) },
                None => ProxyStage::Serving,
            };
            let SavedProxy { process, version, started_at, .. } = proxy;
            self.proxies.push(Proxy { process, version, started_at, stage });
        }
        Ok(())
    }
}

struct SavedRoles {
    controller: Option<Identity>,
    link: Option<RawFd>,
    restarts: u32,
    proxies: Vec<SavedProxy>,
}

fn save_proxy(proxy: &Proxy, now: Instant) -> SavedProxy {
    let draining = match proxy.stage {
        ProxyStage::Draining { kill_at } => Some(millis(kill_at.saturating_duration_since(now))),
        ProxyStage::Starting { .. } | ProxyStage::Serving => None,
    };
    SavedProxy { process: proxy.process, version: proxy.version.clone(), started_at: proxy.started_at, draining }
}

fn save_child(child: &Child, now: Instant, keep: &mut impl FnMut(RawFd) -> RawFd) -> SavedChild {
    let stage = match child.stage {
        Stage::Running => SavedStage::Running,
        Stage::Terminating { stopped, kill_at } => {
            SavedStage::Terminating { stopped, kill_in: millis(kill_at.saturating_duration_since(now)) }
        }
        Stage::Killing { stopped, .. } => SavedStage::Killing { stopped },
        Stage::Exited { at, oom, stopped } => SavedStage::Exited { at, oom, stopped },
    };
    SavedChild {
        instance: child.instance.clone(),
        labels: child.labels.clone(),
        process: child.process,
        started_at: child.started_at,
        log_path: child.log_path.clone(),
        grace: child.grace,
        stage,
        status: child.status,
        stdout: child.stdout.as_ref().map(|fd| keep(fd.as_raw_fd())),
        stderr: child.stderr.as_ref().map(|fd| keep(fd.as_raw_fd())),
        log: child.log.save(),
        cgroup: child.cgroup.as_ref().map(|leaf| leaf.path().to_owned()),
        temporary: child.temporary.clone(),
        lent: child.lent.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn write_state(saved: &Saved) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"landfall-supervisor", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(saved)?)?;
    file.rewind()?;
    Ok(file)
}

fn adopt(fd: RawFd) -> Result<OwnedFd, SupervisorError> {
    sys::adopt(fd).map_err(|error| SupervisorError::Resume(format!("descriptor {fd}: {error}")))
}

/// Takes up the work whose state is behind `fd`.
pub(super) fn resume(fd: RawFd) -> Result<Root, SupervisorError> {
    let mut text = Vec::new();
    File::from(adopt(fd)?).read_to_end(&mut text).map_err(|error| SupervisorError::Resume(error.to_string()))?;
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| SupervisorError::Resume(error.to_string()))?;
    let mut web = Vec::with_capacity(saved.web.len());
    for (address, fd) in saved.web {
        web.push((address, adopt(fd)?));
    }
    let sockets = Sockets {
        web,
        api_unix: (saved.api_unix.0, adopt(saved.api_unix.1)?),
        api_tcp: saved.api_tcp.map(|(address, fd)| adopt(fd).map(|fd| (address, fd))).transpose()?,
        control: (saved.control.0, adopt(saved.control.1)?),
        calls: match saved.calls {
            Some((path, fd)) => (path, adopt(fd)?),
            None => Sockets::bind_calls(&saved.plan)?,
        },
    };
    let now = Instant::now();
    let mut root = Root::begin(Beginning {
        plan: saved.plan,
        launch: saved.launch,
        started_at: saved.started_at,
        lock: File::from(adopt(saved.lock)?),
        sockets,
        cgroups: saved.cgroups.and_then(Cgroups::resume),
    })?;
    for child in saved.children {
        root.adopt_child(child, now)?;
    }
    let roles = SavedRoles {
        controller: saved.controller,
        link: saved.link,
        restarts: saved.controller_restarts,
        proxies: saved.proxies,
    };
    root.adopt_roles(roles, now)?;
    if let Some(id) = saved.request {
        root.reply(id, Reply::Done);
    }
    tracing::info!(children = root.children.len(), "supervisor was replaced in place");
    root.end_controller(now);
    root.start_proxy(now);
    // What ended between the two programs was announced to the one that is gone.
    root.reap(now);
    Ok(root)
}
