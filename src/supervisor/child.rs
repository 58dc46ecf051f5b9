//! One instance as the supervisor sees it.
//!
//! ```text
//!               Stop, or its leader ended        kill_at
//!   Running ────────────────────────► Terminating ─────► Killing
//!      │                                   │                │
//!      └── nothing of it is left ──────────┴────────────────┴──► Exited ──Forget──► (dropped)
//! ```
//!
//! The *leader* is the process the supervisor started. `Exited` is reached when the leader was reaped and
//! nothing that belongs to the instance lives, or, for processes even SIGKILL does not end (stuck in
//! the kernel), when [`GIVE_UP`] has passed.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::domain::manifest::Millis;
use crate::domain::{ExitStatus, InstanceId};
use crate::wire::supervisor as wire;

use super::cgroup::Leaf;
use super::family::{self, Identity};
use super::logs::Log;

/// After SIGKILL everything should be gone in milliseconds; later the supervisor only says that it is not.
pub(super) const GIVE_UP: Duration = Duration::from_secs(2);
/// How often a dying instance is looked at when no signal says that something changed.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How far an instance's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// SIGTERM was sent.
    Terminating {
        stopped: bool,
        kill_at: Instant,
    },
    /// SIGKILL was sent, and is sent again to whatever still shows.
    Killing {
        stopped: bool,
        give_up_at: Instant,
    },
    Exited {
        at: Timestamp,
        oom: bool,
        stopped: bool,
    },
}

/// An instance.
#[derive(Debug)]
pub(super) struct Child {
    pub instance: InstanceId,
    pub labels: wire::Labels,
    pub process: Identity,
    pub started_at: Timestamp,
    pub log_path: PathBuf,
    pub grace: Millis,
    pub stage: Stage,
    /// How the leader ended, once it was reaped.
    pub status: Option<ExitStatus>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub log: Log,
    pub cgroup: Option<Leaf>,
    pub temporary: PathBuf,
    /// A build's files, lent to the apps' user until nothing of it lives.
    pub lent: Option<PathBuf>,
}

impl Child {
    /// What the controller is told.
    pub(super) fn report(&self) -> wire::Child {
        let state = match self.stage {
            Stage::Running => wire::ChildState::Running,
            Stage::Terminating { .. } | Stage::Killing { .. } => wire::ChildState::Stopping,
            Stage::Exited { at, oom, stopped } => {
                let status = self.status.unwrap_or(ExitStatus::Unknown);
                wire::ChildState::Exited { status, at, oom, stopped }
            }
        };
        wire::Child {
            instance: self.instance.clone(),
            labels: self.labels.clone(),
            pid: self.process.pid,
            start_ticks: self.process.start_ticks,
            started_at: self.started_at,
            state,
            log: self.log_path.clone(),
            dropped_bytes: self.log.dropped(),
            address: None,
        }
    }

    pub(super) fn has_exited(&self) -> bool {
        matches!(self.stage, Stage::Exited { .. })
    }

    /// Asks it to end: SIGTERM now, SIGKILL after `grace`. A shorter grace replaces a longer one.
    /// True when this was the first time.
    pub(super) fn terminate(
        &mut self,
        grace: Duration,
        requested: bool,
        now: Instant,
        known: &dyn Fn(i32) -> bool,
    ) -> bool {
        let wanted = now + grace;
        match &mut self.stage {
            Stage::Running => {
                self.stage = Stage::Terminating { stopped: requested, kill_at: wanted };
                self.signal(Signal::SIGTERM, known);
                true
            }
            Stage::Terminating { stopped, kill_at } => {
                let first = requested && !*stopped;
                *stopped |= requested;
                *kill_at = wanted.min(*kill_at);
                first
            }
            Stage::Killing { .. } | Stage::Exited { .. } => false,
        }
    }

    /// The leader was reaped. What it left behind is asked to end, too.
    pub(super) fn leader_ended(&mut self, status: ExitStatus, now: Instant, known: &dyn Fn(i32) -> bool) {
        self.status = Some(status);
        match self.stage {
            Stage::Running => {
                self.terminate(self.grace.duration(), false, now, known);
            }
            // Those outside its group have not been told yet.
            Stage::Terminating { .. } => self.signal(Signal::SIGTERM, known),
            Stage::Killing { .. } | Stage::Exited { .. } => {}
        }
    }

    /// Moves on with time. True when nothing is left of it, or when it was given up.
    pub(super) fn advance(&mut self, now: Instant, known: &dyn Fn(i32) -> bool) -> bool {
        match self.stage {
            Stage::Running | Stage::Exited { .. } => false,
            Stage::Terminating { .. } | Stage::Killing { .. } if self.is_gone(known) => true,
            Stage::Terminating { stopped, kill_at } => {
                if now >= kill_at {
                    self.stage = Stage::Killing { stopped, give_up_at: now + GIVE_UP };
                    self.signal(Signal::SIGKILL, known);
                }
                false
            }
            Stage::Killing { give_up_at, .. } => {
                self.signal(Signal::SIGKILL, known);
                if now >= give_up_at {
                    tracing::warn!(instance = %self.instance, pid = self.process.pid, "processes of this instance do not die; the kernel holds them");
                }
                now >= give_up_at
            }
        }
    }

    /// When [`Child::advance`] should be called next.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Running | Stage::Exited { .. } => None,
            // With the leader alive its end is announced by SIGCHLD; what it left behind is looked for.
            Stage::Terminating { kill_at, .. } if self.status.is_none() => Some(kill_at),
            Stage::Terminating { kill_at, .. } => Some(kill_at.min(now + LOOK_AGAIN)),
            Stage::Killing { .. } => Some(now + LOOK_AGAIN),
        }
    }

    /// Marks it as ended.
    pub(super) fn close(&mut self) {
        let stopped = match self.stage {
            Stage::Running => false,
            Stage::Terminating { stopped, .. } | Stage::Killing { stopped, .. } => stopped,
            Stage::Exited { .. } => return,
        };
        let oom = self.cgroup.as_ref().is_some_and(Leaf::oom);
        self.stage = Stage::Exited { at: Timestamp::now(), oom, stopped };
        if let Some(leaf) = self.cgroup.take() {
            leaf.remove();
        }
    }

    /// Whether the leader was reaped and nothing else of the instance lives.
    fn is_gone(&self, known: &dyn Fn(i32) -> bool) -> bool {
        if self.status.is_none() {
            return false;
        }
        if let Some(populated) = self.cgroup.as_ref().and_then(Leaf::populated) {
            return !populated;
        }
        let me = std::process::id().cast_signed();
        family::orphans(me, known).is_empty() || self.members(known).is_empty()
    }

    fn members(&self, known: &dyn Fn(i32) -> bool) -> Vec<Identity> {
        let me = std::process::id().cast_signed();
        family::members(me, self.instance.as_str(), self.process.pid, known)
    }

    fn signal(&self, signal: Signal, known: &dyn Fn(i32) -> bool) {
        let kill = signal == Signal::SIGKILL;
        // Until the leader is reaped its number, and so that of its group, cannot be another's.
        if self.status.is_none() {
            let _ = killpg(Pid::from_raw(self.process.pid), signal);
            if !kill {
                return;
            }
        }
        if let Some(leaf) = &self.cgroup {
            if kill {
                leaf.kill();
            } else {
                leaf.processes().into_iter().filter_map(family::stat).for_each(|p| family::signal(p.identity, signal));
            }
            return;
        }
        for member in self.members(known) {
            family::signal(member, signal);
        }
    }
}
