//! Keeping a controller and a proxy running.
//!
//! ```text
//! proxy:  Starting ──ready, or still alive at the deadline──► Serving ──replaced, or shutdown──► Draining ──► (gone)
//! ```
//!
//! A proxy that becomes ready drains all older ones. A replacement that dies first changes nothing.
//! Whatever dies is started again, later and later up to [`Backoff::LONGEST`], for ever; a controller that had served
//! before it died, after at most [`Backoff::LONGEST_AFTER_SERVING`]. A controller that breaks its promise to be heard of
//! hangs, and is ended: requests go on meanwhile, but nothing would be deployed, restarted or scaled any more.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wire::PROGRAM_VERSION;
use crate::wire::supervisor::{FromSupervisor, ProxyProcess, fds};

use super::family::Identity;
use super::link::Link;
use super::root::{Life, Root, Source, Who};
use super::spawn;

/// A new proxy says that it serves within this time, or is believed to.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// A replaced proxy may finish what it has for this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(3600);
/// Timers are never this late unless the supervisor itself stood still: a suspended machine, a stopped process group.
const STOOD_STILL: Duration = Duration::from_secs(5);
/// A controller that was told to end has this long before SIGKILL.
pub(super) const CONTROLLER_GRACE: Duration = Duration::from_secs(5);
/// … and this long when it has containers to end.
const OUTSIDE_GRACE: Duration = Duration::from_secs(90);

/// When to start something again.
#[derive(Debug)]
pub(super) struct Backoff {
    delay: Duration,
    started: Option<Instant>,
    came_up: bool,
    /// Not before this; `None` while it runs.
    pub start_at: Option<Instant>,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    /// What has served comes back sooner than what cannot start at all.
    const LONGEST_AFTER_SERVING: Duration = Duration::from_millis(500);
    /// Something that ran this long is believed to be sound.
    const SOUND: Duration = Duration::from_secs(30);

    /// Due at once.
    pub(super) fn due(now: Instant) -> Self {
        Self { delay: Self::SHORTEST, started: None, came_up: false, start_at: Some(now) }
    }

    /// Runs already.
    pub(super) fn running(now: Instant) -> Self {
        Self { delay: Self::SHORTEST, started: Some(now), came_up: false, start_at: None }
    }

    pub(super) fn started(&mut self, now: Instant) {
        (self.started, self.start_at, self.came_up) = (Some(now), None, false);
    }

    /// It has got as far as serving.
    pub(super) fn came_up(&mut self) {
        self.came_up = true;
    }

    /// It ended, or could not be started: how long to wait.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        if self.started.take().is_some_and(|started| now.duration_since(started) >= Self::SOUND) {
            self.delay = Self::SHORTEST;
        }
        if std::mem::take(&mut self.came_up) {
            self.delay = self.delay.min(Self::LONGEST_AFTER_SERVING);
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(Self::LONGEST);
        self.start_at = Some(now + delay);
        delay
    }

    fn is_due(&self, now: Instant) -> bool {
        self.start_at.is_some_and(|at| at <= now)
    }
}

/// The controller's place.
#[derive(Debug)]
pub(super) struct Controller {
    pub process: Option<Identity>,
    pub link: Option<Link>,
    pub restarts: u32,
    pub backoff: Backoff,
    /// Its end is wanted: the next one is started at once.
    pub dismissed: bool,
    /// It got SIGTERM, and gets SIGKILL then.
    pub kill_at: Option<Instant>,
    /// When it will be heard of again.
    pub promise: Option<Promise>,
}

/// A controller works, and says so again within some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub given: Instant,
    pub within: Duration,
}

impl Promise {
    fn due(&self) -> Instant {
        self.given + self.within
    }
}

/// A proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    pub process: Identity,
    pub version: String,
    pub started_at: Timestamp,
    pub stage: ProxyStage,
}

/// How far a proxy's life has come.
#[derive(Debug)]
pub(super) enum ProxyStage {
    Starting { ready: Option<OwnedFd>, deadline: Instant },
    Serving,
    Draining { kill_at: Instant },
}

impl Proxy {
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.stage, ProxyStage::Draining { .. })
    }

    pub(super) fn report(&self) -> ProxyProcess {
        ProxyProcess {
            pid: self.process.pid,
            version: self.version.clone(),
            started_at: self.started_at,
            draining: self.is_draining(),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.stage {
            ProxyStage::Starting { deadline, .. } => Some(deadline),
            ProxyStage::Serving => None,
            ProxyStage::Draining { kill_at } => Some(kill_at),
        }
    }
}

/// A signal to a direct child that was not reaped yet, so the number is its own.
pub(super) fn signal_child(process: Identity, signal: Signal) {
    let _ = kill(Pid::from_raw(process.pid), signal);
}

impl Root {
    /// Starts what should run and is due, ends what has had its time.
    pub(super) fn tend_roles(&mut self, now: Instant) {
        if matches!(self.life, Life::Running) {
            if self.controller.process.is_none() && self.controller.backoff.is_due(now) {
                self.start_controller(now);
            }
            if self.proxies.iter().all(Proxy::is_draining) && self.proxy_backoff.is_due(now) {
                self.start_proxy(now);
            }
        }
        if let (Some(process), Some(kill_at)) = (self.controller.process, self.controller.kill_at)
            && now >= kill_at
        {
            signal_child(process, Signal::SIGKILL);
            self.controller.kill_at = Some(now + CONTROLLER_GRACE);
        }
        self.end_hanging_controller(now);
        let mut ready = None;
        for proxy in &mut self.proxies {
            match &mut proxy.stage {
                ProxyStage::Starting { deadline, .. } if now >= *deadline => ready = Some(proxy.process.pid),
                ProxyStage::Draining { kill_at } if now >= *kill_at => {
                    tracing::warn!(pid = proxy.process.pid, "proxy did not finish in time and is ended");
                    signal_child(proxy.process, Signal::SIGKILL);
                    *kill_at = now + CONTROLLER_GRACE;
                }
                ProxyStage::Starting { .. } | ProxyStage::Serving | ProxyStage::Draining { .. } => {}
            }
        }
        if let Some(pid) = ready {
            tracing::warn!(pid, "proxy did not say that it is ready; going on with it");
            self.proxy_ready(pid, now);
        }
    }

    fn end_hanging_controller(&mut self, now: Instant) {
        let (Some(process), Some(promise)) = (self.controller.process, self.controller.promise) else { return };
        let Some(late) = now.checked_duration_since(promise.due()) else { return };
        if !matches!(self.life, Life::Running) {
            self.controller.promise = None;
        } else if late > STOOD_STILL {
            // The controller stood still with it, and gets the same time once more.
            self.controller.promise = Some(Promise { given: now, ..promise });
        } else {
            self.controller.promise = None;
            tracing::error!(
                pid = process.pid,
                silent_for_ms = now.duration_since(promise.given).as_millis(),
                "controller hangs and is replaced; requests go on meanwhile"
            );
            signal_child(process, Signal::SIGKILL);
        }
    }

    /// When [`Root::tend_roles`] has something to do next.
    pub(super) fn roles_wake_at(&self) -> Option<Instant> {
        let running = matches!(self.life, Life::Running);
        let controller = match self.controller.process {
            Some(_) => {
                self.controller.kill_at.into_iter().chain(self.controller.promise.map(|promise| promise.due())).min()
            }
            None => self.controller.backoff.start_at.filter(|_| running),
        };
        let starting = self.proxy_backoff.start_at.filter(|_| running && self.proxies.iter().all(Proxy::is_draining));
        self.proxies.iter().filter_map(Proxy::wake_at).chain(controller).chain(starting).min()
    }

    fn start_controller(&mut self, now: Instant) {
        let started = Link::pair().and_then(|(link, theirs)| {
            let mut inherited = vec![
                (fds::LINK, spawn::raw(&theirs)),
                (fds::API_UNIX, spawn::raw(&self.sockets.api_unix.1)),
                (fds::CONTROL, spawn::raw(&self.sockets.control.1)),
            ];
            if let Some((_, fd)) = &self.sockets.api_tcp {
                inherited.push((fds::API_TCP, spawn::raw(fd)));
            }
            let process = spawn::role(&self.launch.controller, &inherited, self.agent_user())?;
            Ok((link, process))
        });
        match started {
            Ok((link, process)) => {
                tracing::info!(pid = process.pid, "controller started");
                self.watch(&link, Source::Link);
                self.by_pid.insert(process.pid, Who::Controller);
                self.controller.link = Some(link);
                self.controller.process = Some(process);
                (self.controller.kill_at, self.controller.dismissed) = (None, false);
                self.controller.promise = None;
                self.controller.backoff.started(now);
                self.save_record();
            }
            Err(error) => {
                let delay = self.controller.backoff.ended(now);
                tracing::error!(%error, retry_in_ms = delay.as_millis(), "controller cannot be started");
            }
        }
    }

    /// Starts a proxy beside those that run.
    pub(super) fn start_proxy(&mut self, now: Instant) {
        let started = spawn::pipe().and_then(|(ready, theirs)| {
            let name = |address| if self.plan.proxy_tls_listen.contains(address) { fds::WEB_TLS } else { fds::WEB };
            let mut inherited: Vec<_> =
                self.sockets.web.iter().map(|(address, fd)| (name(address), spawn::raw(fd))).collect();
            inherited.push((fds::CALLS, spawn::raw(&self.sockets.calls.1)));
            inherited.push((fds::READY, spawn::raw(&theirs)));
            Ok((ready, spawn::role(&self.launch.proxy, &inherited, self.agent_user())?))
        });
        match started {
            Ok((ready, process)) => {
                tracing::info!(pid = process.pid, "proxy started");
                self.watch(&ready, Source::ProxyReady(process.pid));
                self.by_pid.insert(process.pid, Who::Proxy);
                self.proxies.push(Proxy {
                    process,
                    version: PROGRAM_VERSION.to_owned(),
                    started_at: Timestamp::now(),
                    stage: ProxyStage::Starting { ready: Some(ready), deadline: now + READY_DEADLINE },
                });
                self.proxy_backoff.started(now);
                self.save_record();
                self.tell_proxies();
            }
            Err(error) => {
                let delay = self.proxy_backoff.ended(now);
                tracing::error!(%error, retry_in_ms = delay.as_millis(), "proxy cannot be started");
            }
        }
    }

    /// A proxy wrote to its pipe, or closed it.
    pub(super) fn proxy_pipe(&mut self, pid: i32, now: Instant) {
        let Some(proxy) = self.proxies.iter_mut().find(|proxy| proxy.process.pid == pid) else { return };
        let ProxyStage::Starting { ready, .. } = &mut proxy.stage else { return };
        let Some(fd) = ready.take() else { return };
        let said = matches!(nix::unistd::read(&fd, &mut [0; 8]), Ok(1..));
        self.unwatch(&fd);
        if said {
            self.proxy_ready(pid, now);
        }
    }

    fn proxy_ready(&mut self, pid: i32, now: Instant) {
        let Some(index) = self.proxies.iter().position(|proxy| proxy.process.pid == pid) else { return };
        let limit = now + DRAIN_LIMIT;
        let (older, newer) = self.proxies.split_at_mut(index);
        for proxy in older.iter_mut().filter(|proxy| !proxy.is_draining()) {
            signal_child(proxy.process, Signal::SIGTERM);
            // Its pipe leaves the event loop with the descriptor.
            proxy.stage = ProxyStage::Draining { kill_at: limit };
        }
        if let Some(proxy) = newer.first_mut().filter(|proxy| !proxy.is_draining()) {
            proxy.stage = ProxyStage::Serving;
        }
        self.tell_proxies();
    }

    /// Tells every proxy to finish what it has within `limit`.
    pub(super) fn drain_proxies(&mut self, limit: Duration, now: Instant) {
        for proxy in &mut self.proxies {
            signal_child(proxy.process, Signal::SIGTERM);
            let wanted = now + limit;
            let kill_at = match proxy.stage {
                ProxyStage::Draining { kill_at } => kill_at.min(wanted),
                ProxyStage::Starting { .. } | ProxyStage::Serving => wanted,
            };
            proxy.stage = ProxyStage::Draining { kill_at };
        }
        self.tell_proxies();
    }

    /// A proxy was reaped.
    pub(super) fn proxy_ended(&mut self, pid: i32, how: &str, now: Instant) {
        let Some(index) = self.proxies.iter().position(|proxy| proxy.process.pid == pid) else { return };
        let proxy = self.proxies.remove(index);
        let another = self.proxies.iter().any(|proxy| !proxy.is_draining());
        match proxy.stage {
            ProxyStage::Draining { .. } => tracing::info!(pid, how, "replaced proxy has finished"),
            ProxyStage::Starting { .. } if another => {
                tracing::error!(pid, how, "new proxy ended before it was ready; the old one stays");
            }
            ProxyStage::Starting { .. } | ProxyStage::Serving => {
                let delay = self.proxy_backoff.ended(now);
                tracing::error!(pid, how, retry_in_ms = delay.as_millis(), "proxy ended and will be started again");
            }
        }
        self.save_record();
        self.tell_proxies();
    }

    /// The controller was reaped.
    pub(super) fn controller_ended(&mut self, how: &str, now: Instant) {
        // What it said last still counts.
        self.read_link(now);
        self.drop_link();
        (self.controller.kill_at, self.controller.promise) = (None, None);
        let expected = std::mem::take(&mut self.controller.dismissed) || !matches!(self.life, Life::Running);
        self.controller.process = None;
        self.controller.restarts = self.controller.restarts.saturating_add(1);
        if expected {
            tracing::info!(how, "controller has ended");
            self.controller.backoff = Backoff::due(now);
        } else {
            let delay = self.controller.backoff.ended(now);
            tracing::error!(how, retry_in_ms = delay.as_millis(), "controller ended and will be started again");
        }
        self.save_record();
    }

    /// Asks the controller to end; the next one starts when it has.
    pub(super) fn end_controller(&mut self, now: Instant) {
        self.controller.dismissed = self.controller.process.is_some();
        if !self.outside.is_empty() {
            // Instances that are not ours still end, and the controller sees to that.
            self.controller.kill_at = Some(now + OUTSIDE_GRACE);
        }
        self.terminate_controller(now);
    }

    /// Sees to it that a controller which cannot go on makes room.
    pub(super) fn terminate_controller(&mut self, now: Instant) {
        if let Some(process) = self.controller.process {
            signal_child(process, Signal::SIGTERM);
            self.controller.kill_at.get_or_insert(now + CONTROLLER_GRACE);
        }
    }

    fn tell_proxies(&mut self) {
        let proxies = self.proxies.iter().map(Proxy::report).collect();
        self.tell(&FromSupervisor::Proxies { proxies });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_later_and_later_until_something_runs_for_a_while() {
        let start = Instant::now();
        let mut backoff = Backoff::due(start);
        let mut delays = Vec::new();
        for _ in 0..9 {
            backoff.started(start);
            delays.push(backoff.ended(start).as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.started(start);
        assert_eq!(backoff.ended(start + Duration::from_secs(31)).as_millis(), 100);
    }

    #[test]
    fn what_has_served_comes_back_soon_however_often_it_is_killed() {
        let start = Instant::now();
        let mut backoff = Backoff::due(start);
        for _ in 0..20 {
            backoff.started(start);
            backoff.came_up();
            assert!(backoff.ended(start) <= Duration::from_millis(500));
        }
    }
}
