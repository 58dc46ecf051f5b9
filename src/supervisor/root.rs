//! The loop of the supervisor, its signals and timers, and the order in which everything ends.
//!
//! ```text
//! Running ─SIGTERM─► Draining ─proxies gone─► Stopping ─instances gone─► Ending ─controller gone─► Over
//! ```
//!
//! A second SIGTERM or SIGINT shortens every wait of this to nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::boot;
use crate::domain::{ExitStatus, InstanceId};
use crate::secret_files::SecretFiles;
use crate::wire::supervisor::{FromSupervisor, Identity as User, Plan};

use super::cgroup::Cgroups;
use super::child::Child;
use super::family;
use super::instances::FLUSH;
use super::leftovers::{Journal, Owner, Process};
use super::logs::{Log, Logs, Stream};
use super::roles::{Backoff, Controller, Proxy};
use super::sockets::Sockets;
use super::{Launch, SupervisorError, sys};

const BUFFER: usize = 64 * 1024;

/// What a descriptor in the event loop stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Signals,
    Link,
    ProxyReady(i32),
    Output(InstanceId, Stream),
}

/// Whose process a pid is, for those the supervisor started and has not reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Controller,
    Proxy,
    Instance(InstanceId),
}

/// Where the agent stands between start and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Draining,
    Stopping,
    Ending,
    Over,
}

/// The supervisor.
#[derive(Debug)]
pub(super) struct Root {
    pub plan: Plan,
    pub launch: Launch,
    pub started_at: Timestamp,
    pub lock: File,
    pub sockets: Sockets,
    pub controller: Controller,
    pub proxies: Vec<Proxy>,
    pub proxy_backoff: Backoff,
    pub children: BTreeMap<InstanceId, Child>,
    pub by_pid: HashMap<i32, Who>,
    pub logs: Logs,
    journal: Journal,
    /// Logs whose lines the controller brings.
    pub outside: BTreeMap<PathBuf, Log>,
    pub cgroups: Option<Cgroups>,
    pub life: Life,
    pub buffer: Vec<u8>,
    /// Timers are looked at then; never later than the next one is due.
    pub wake_at: Option<Instant>,
    /// An upgrade was asked for, by the request of that number or by a signal.
    pub upgrade: Option<Option<u64>>,
    hurry: bool,
    epoll: Epoll,
    signals: SignalFd,
    sources: HashMap<RawFd, Source>,
}

/// Where the processes are recorded.
pub(super) fn record_file(plan: &Plan) -> PathBuf {
    plan.data_dir.join("run").join("children.json")
}

/// Every instance takes three descriptors: two pipes and a log.
fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// What a root begins with, new or after an upgrade.
pub(super) struct Beginning {
    pub plan: Plan,
    pub launch: Launch,
    pub started_at: Timestamp,
    pub lock: File,
    pub sockets: Sockets,
    pub cgroups: Option<Cgroups>,
}

impl Root {
    /// A new agent: nothing runs yet.
    pub(super) fn new(plan: Plan, launch: Launch, lock: File, sockets: Sockets) -> Result<Self, SupervisorError> {
        let cgroups = Cgroups::prepare(&plan.data_dir);
        if cgroups.is_none() {
            tracing::info!("no writable control group: limits hold per process only");
        }
        Self::begin(Beginning { plan, launch, started_at: Timestamp::now(), lock, sockets, cgroups })
    }

    pub(super) fn begin(with: Beginning) -> Result<Self, SupervisorError> {
        let Beginning { plan, launch, started_at, lock, sockets, cgroups } = with;
        nix::sys::prctl::set_child_subreaper(true).map_err(SupervisorError::system("cannot adopt orphans"))?;
        sys::hear_of_children();
        raise_file_limit();
        let mut handled = SigSet::empty();
        let wanted = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2];
        wanted.into_iter().for_each(|signal| handled.add(signal));
        handled.thread_block().map_err(SupervisorError::system("cannot block signals"))?;
        let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(SupervisorError::system("cannot receive signals"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(SupervisorError::system("cannot create an event queue"))?;
        let owner = plan.users.as_ref().map(|users| (users.agent.uid, users.agent.gid));
        let logs = Logs::open(plan.data_dir.join("logs"), plan.logs_total.0, owner);
        let journal = Journal::new(record_file(&plan));
        let now = Instant::now();
        let mut root = Self {
            journal,
            controller: Controller {
                process: None,
                link: None,
                restarts: 0,
                backoff: Backoff::due(now),
                dismissed: false,
                kill_at: None,
                promise: None,
            },
            proxies: Vec::new(),
            proxy_backoff: Backoff::due(now),
            children: BTreeMap::new(),
            by_pid: HashMap::new(),
            life: Life::Running,
            buffer: vec![0; BUFFER],
            wake_at: Some(now),
            upgrade: None,
            hurry: false,
            sources: HashMap::new(),
            plan,
            launch,
            started_at,
            lock,
            sockets,
            logs,
            outside: BTreeMap::new(),
            cgroups,
            epoll,
            signals,
        };
        let fd = root.signals.as_fd().as_raw_fd();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, fd.unsigned_abs().into());
        root.epoll.add(&root.signals, event).map_err(SupervisorError::system("cannot wait for signals"))?;
        root.sources.insert(fd, Source::Signals);
        Ok(root)
    }

    /// Works until the agent was told to end and everything has ended.
    pub(super) fn run(mut self) -> Result<i32, SupervisorError> {
        for (address, fd) in &self.sockets.web {
            let tls = self.plan.proxy_tls_listen.contains(address);
            tracing::info!(address = %super::sockets::local_address(fd).unwrap_or(*address), tls, "listening for web traffic");
        }
        let mut events = [EpollEvent::empty(); 64];
        while self.life != Life::Over {
            let timeout = self.timeout();
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(SupervisorError::system("cannot wait for events")(error)),
            };
            for event in events.iter().take(count) {
                let source = i32::try_from(event.data()).ok().and_then(|fd| self.sources.get(&fd)).cloned();
                if let Some(source) = source {
                    self.handle(&source, event.events());
                }
            }
            let now = Instant::now();
            if self.wake_at.is_some_and(|at| at <= now) {
                self.timers(now);
            }
            if let Some(request) = self.upgrade.take() {
                self.replace_itself(request);
            }
        }
        self.clean_up();
        Ok(0)
    }

    /// Timers are to be looked at in this turn of the loop: something they depend on has changed.
    pub(super) fn look_at_timers(&mut self) {
        self.wake_at = Some(Instant::now());
    }

    /// Timers are looked at then, at the latest.
    pub(super) fn look_at_timers_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |sooner| sooner.min(at)));
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(at) = self.wake_at else { return EpollTimeout::NONE };
        // Rounded up, or the last millisecond would be spent turning.
        let wait = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn handle(&mut self, source: &Source, flags: EpollFlags) {
        let now = Instant::now();
        match source {
            Source::Signals => self.read_signals(now),
            Source::Link => {
                if flags.contains(EpollFlags::EPOLLOUT) {
                    self.flush_link();
                }
                if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    self.read_link(now);
                }
            }
            Source::ProxyReady(pid) => {
                self.proxy_pipe(*pid, now);
                self.look_at_timers();
            }
            Source::Output(instance, stream) => self.pump(instance, *stream),
        }
    }

    fn timers(&mut self, now: Instant) {
        self.advance_children(now);
        self.tend_roles(now);
        self.advance_life(now);
        let flush = (self.flush_logs() | self.flush_outside()).then(|| now + FLUSH);
        let children = self.children.values().filter_map(|child| child.wake_at(now)).min();
        self.wake_at = children.into_iter().chain(self.roles_wake_at()).chain(flush).min();
    }

    fn read_signals(&mut self, now: Instant) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) => self.reap(now),
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.shut_down(now),
                Ok(Signal::SIGHUP) => {
                    tracing::info!("SIGHUP: the configuration is read again");
                    self.tell(&FromSupervisor::Reload);
                }
                Ok(Signal::SIGUSR2) => self.upgrade = Some(None),
                _ => {}
            }
        }
        self.look_at_timers();
    }

    /// Reaps everything that has ended, orphans included.
    pub(super) fn reap(&mut self, now: Instant) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), ExitStatus::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), ExitStatus::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot reap children");
                    break;
                }
            };
            match self.by_pid.remove(&pid) {
                Some(Who::Controller) => self.controller_ended(&status.to_string(), now),
                Some(Who::Proxy) => self.proxy_ended(pid, &status.to_string(), now),
                Some(Who::Instance(instance)) => self.leader_ended(&instance, status, now),
                None => tracing::debug!(pid, %status, "reaped an orphan"),
            }
        }
        self.look_at_timers();
    }

    fn shut_down(&mut self, now: Instant) {
        match self.life {
            Life::Running => {
                tracing::info!("shutting down: requests finish, then apps are stopped");
                self.life = Life::Draining;
                self.tell(&FromSupervisor::Shutdown);
                self.drain_proxies(self.plan.shutdown_drain.duration(), now);
            }
            Life::Draining | Life::Stopping | Life::Ending | Life::Over => {
                tracing::warn!("told again to end: no more waiting");
                self.hurry = true;
                self.drain_proxies(Duration::ZERO, now);
                if self.life != Life::Draining {
                    self.stop_all(now);
                }
                self.controller.kill_at = self.controller.kill_at.map(|_| now);
            }
        }
    }

    fn advance_life(&mut self, now: Instant) {
        if self.life == Life::Draining && self.proxies.is_empty() {
            self.life = Life::Stopping;
            self.stop_all(now);
        }
        if self.life == Life::Stopping && self.children.values().all(Child::has_exited) {
            self.life = Life::Ending;
            self.end_controller(now);
            if self.hurry {
                self.controller.kill_at = Some(now);
            }
        }
        if self.life == Life::Ending && self.controller.process.is_none() {
            self.life = Life::Over;
        }
    }

    fn stop_all(&mut self, now: Instant) {
        let running = self.children.values().filter(|child| !child.has_exited());
        let all: Vec<_> = running.map(|child| (child.instance.clone(), child.grace.duration())).collect();
        for (instance, grace) in all {
            self.stop(&instance, if self.hurry { Duration::ZERO } else { grace }, now);
        }
        self.look_at_timers();
    }

    /// The last steps: nothing of the agent is left behind.
    fn clean_up(&mut self) {
        let me = std::process::id().cast_signed();
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            self.reap(Instant::now());
            let orphans = family::orphans(me, &|_| false);
            if orphans.is_empty() || Instant::now() >= deadline {
                break;
            }
            for process in orphans.into_iter().filter_map(family::stat) {
                family::signal(process.identity, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.sockets.remove_files();
        let _ = std::fs::remove_file(self.journal.path());
        let _ = std::fs::remove_dir_all(self.plan.data_dir.join("tmp"));
        SecretFiles::of_processes(&self.plan.data_dir).sweep(|_| false);
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove();
        }
        tracing::info!("everything has ended");
    }

    /// The user controller and proxies run as.
    pub(super) fn agent_user(&self) -> Option<&User> {
        self.plan.users.as_ref().map(|users| &users.agent)
    }

    /// The user instances run as.
    pub(super) fn apps_user(&self) -> Option<&User> {
        self.plan.users.as_ref().map(|users| &users.apps)
    }

    /// Reports readiness of a descriptor to the loop from now on.
    pub(super) fn watch(&mut self, fd: &impl AsFd, source: Source) {
        let number = fd.as_fd().as_raw_fd();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number.unsigned_abs().into());
        match self.epoll.add(fd, event) {
            Ok(()) => drop(self.sources.insert(number, source)),
            Err(error) => tracing::error!(%error, ?source, "cannot wait for this descriptor"),
        }
    }

    /// Ends [`Root::watch`].
    pub(super) fn unwatch(&mut self, fd: &impl AsFd) {
        self.sources.remove(&fd.as_fd().as_raw_fd());
        let _ = self.epoll.delete(fd);
    }

    fn flush_link(&mut self) {
        let failed = self.controller.link.as_mut().and_then(|link| link.flush().err());
        if let Some(error) = failed {
            tracing::warn!(%error, "connection to the controller failed");
            self.drop_link();
        }
        self.arm_link();
    }

    /// Asks the loop to say when the link takes more, if something waits.
    pub(super) fn arm_link(&mut self) {
        let Some(link) = &self.controller.link else { return };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, link.wants_write());
        let mut event = EpollEvent::new(flags, link.as_fd().as_raw_fd().unsigned_abs().into());
        if let Err(error) = self.epoll.modify(link, &mut event) {
            tracing::error!(%error, "cannot wait for the controller");
        }
    }

    /// Closes the connection to the controller.
    pub(super) fn drop_link(&mut self) {
        if let Some(link) = self.controller.link.take() {
            self.unwatch(&link);
        }
    }

    /// Writes down that an instance has been started.
    pub(super) fn record_start(&mut self, instance: &InstanceId, process: family::Identity) {
        let process = Process { instance: Some(instance.to_string()), process };
        if !self.journal.has_room(self.children.len()) {
            self.save_record();
        } else if let Err(error) = self.journal.add(&process) {
            self.cannot_record(&error);
        }
    }

    /// Writes down which processes there are.
    pub(super) fn save_record(&mut self) {
        let roles = self.controller.process.into_iter().chain(self.proxies.iter().map(|proxy| proxy.process));
        let roles = roles.map(|process| Process { instance: None, process });
        let children = self.children.values().filter(|child| !child.has_exited());
        let children =
            children.map(|child| Process { instance: Some(child.instance.to_string()), process: child.process });
        let owner = Owner { boot_id: boot::id(), supervisor: family::own() };
        if let Err(error) = self.journal.write(&owner, roles.chain(children)) {
            self.cannot_record(&error);
        }
    }

    fn cannot_record(&self, error: &std::io::Error) {
        let path = self.journal.path().display();
        tracing::warn!(%path, %error, "processes cannot be recorded; a killed agent would leave them");
    }
}
