//! What the fleet knows: pools of instances by version, and each instance.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::decide::restart::Crashes;
use crate::decide::rollout::{BakeSeen, ObjectSeen};
use crate::domain::manifest::{Instances, Millis, ObjectKind};
use crate::domain::{AppKey, ExitStatus, InstanceId, InstanceState, ObjectName, VersionNumber};
use crate::engine::spec::{Elastic, VersionSpec};

/// What a pool is for.
///
/// ```text
/// candidate ─► live ─► retiring ─► (gone)
///     └──────────────────► retiring
/// (a call names an earlier version) ─► pinned ─► (gone after idling)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Starts beside the live one; not routed, not restarted.
    Candidate,
    /// Takes new work; kept at its size.
    Live,
    /// Takes calls that name its version, besides the live one.
    Pinned,
    /// Finishes what it has.
    Retiring,
}

/// The instances of one version of an app.
#[derive(Debug)]
pub(crate) struct Pool {
    pub spec: Arc<VersionSpec>,
    pub role: Role,
    pub objects: BTreeMap<ObjectName, ObjectPool>,
    pub progress: watch::Sender<Progress>,
}

/// The slots of one object in a pool.
#[derive(Debug, Default)]
pub(crate) struct ObjectPool {
    pub slots: Vec<Slot>,
    /// Stopped to make room for the next version; not refilled.
    pub parked: bool,
    /// A candidate's instance that ended or could not be started.
    pub failure: Option<StartFailure>,
    /// Since when the load would fit on fewer instances.
    pub surplus_since: Option<Instant>,
    /// Somebody asked for other bounds, until the next version.
    pub scaled_to: Option<(u32, u32)>,
    /// Requests waiting, by the proxy that reported them.
    pub queued: HashMap<i32, u32>,
}

/// The place of one instance; outlives it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub instance: Option<InstanceId>,
    pub crashes: Crashes,
    /// Unwanted ends since the version became live.
    pub since_live: u32,
    /// A restart is planned for this instant.
    pub restart_at: Option<Instant>,
    /// The last unwanted end, in words.
    pub last_end: Option<String>,
}

/// An instance.
#[derive(Debug)]
pub(crate) struct Inst {
    pub key: AppKey,
    pub version: VersionNumber,
    pub object: String,
    pub kind: ObjectKind,
    pub state: InstanceState,
    /// Its start waits for those of others.
    pub in_line: bool,
    pub pid: Option<i32>,
    pub address: Option<SocketAddr>,
    pub started_at: Option<Timestamp>,
    pub up_since: Instant,
    pub good: u32,
    pub bad: u32,
    pub last_probe: Option<String>,
    pub log: PathBuf,
    pub probe: Option<AbortHandle>,
    /// Requests on it, by the proxy that reported them.
    pub in_flight: HashMap<i32, u32>,
    /// Proxies that said nothing is on it and nothing will be.
    pub drained_by: HashSet<u64>,
    pub drain_deadline: Option<Instant>,
    pub cut: bool,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Millis,
    /// How long its requests may go on once it is outdated.
    pub drain: Millis,
}

impl Drop for Inst {
    fn drop(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }
}

impl Inst {
    pub fn in_flight(&self) -> u32 {
        self.in_flight.values().sum()
    }

    pub fn uptime(&self) -> std::time::Duration {
        self.up_since.elapsed()
    }
}

/// Why an instance of a candidate is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// Which.
    pub instance: InstanceId,
    /// `start_failed`, `exited_early` or `out_of_memory`.
    pub code: &'static str,
    /// In words.
    pub message: String,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// The kernel ended it for want of memory.
    pub oom: bool,
    /// The last answer of its probe.
    pub last_probe: Option<String>,
    /// Its log, relative to the log directory.
    pub log: PathBuf,
}

/// How a version's instances stand, published with every change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Its objects.
    pub objects: Vec<ObjectProgress>,
    /// Unwanted ends since it became live, in the worst slot.
    pub worst_crashes: u32,
}

/// How an object's instances stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectProgress {
    /// Its name.
    pub object: ObjectName,
    /// What it is.
    pub kind: ObjectKind,
    /// Instances that take work.
    pub ready: u32,
    /// Instances that should.
    pub wanted: u32,
    /// Instances start, and none has ended or failed since the version became live.
    pub beginning: bool,
    /// Instances whose start waits for those of others, of whatever app.
    pub in_line: u32,
    /// What ended a candidate's start.
    pub failure: Option<StartFailure>,
    /// An instance that is not ready, for messages.
    pub waiting: Option<WaitingInstance>,
    /// The last unwanted end, in words.
    pub last_end: Option<String>,
}

/// An instance that is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingInstance {
    /// Which.
    pub instance: InstanceId,
    /// Its process.
    pub pid: Option<i32>,
    /// Where it should listen.
    pub port: Option<u16>,
    /// The last answer of its probe.
    pub last_probe: Option<String>,
    /// Its log, relative to the log directory.
    pub log: PathBuf,
}

impl Progress {
    /// As the pure rule sees a start of `objects`.
    pub fn seen(&self, objects: &std::collections::BTreeSet<ObjectName>) -> Vec<(ObjectName, ObjectSeen)> {
        self.objects
            .iter()
            .filter(|object| objects.contains(&object.object))
            .map(|object| {
                let seen = ObjectSeen { ready: object.ready, wanted: object.wanted, ended: object.failure.is_some() };
                (object.object.clone(), seen)
            })
            .collect()
    }

    /// Whether starts of these objects still wait for those of others.
    pub fn in_line(&self, objects: &std::collections::BTreeSet<ObjectName>) -> bool {
        self.objects.iter().any(|object| object.in_line > 0 && objects.contains(&object.object))
    }

    /// Whether every object that should run has an instance that takes work.
    pub fn is_healthy(&self) -> bool {
        self.bake().objects_without_ready == 0
    }

    /// As the pure rule sees a bake window.
    pub fn bake(&self) -> BakeSeen {
        let without = || self.objects.iter().filter(|object| object.wanted > 0 && object.ready == 0);
        let count = |objects: usize| u32::try_from(objects).unwrap_or(u32::MAX);
        BakeSeen {
            worst_crashes: self.worst_crashes,
            objects_without_ready: count(without().count()),
            objects_beginning: count(without().filter(|object| object.beginning).count()),
        }
    }
}

impl Pool {
    pub fn new(spec: Arc<VersionSpec>, role: Role) -> Self {
        Self { spec, role, objects: BTreeMap::new(), progress: watch::Sender::default() }
    }

    /// What decides the number of instances of an object here. Of a pinned version none needs to be kept.
    pub fn elastic(&self, object: &ObjectName) -> Option<Elastic> {
        let elastic = self.spec.elastic(object)?;
        match self.role {
            Role::Pinned => Some(Elastic { bounds: Instances { min: 0, ..elastic.bounds }, spare: 0, ..elastic }),
            Role::Candidate | Role::Live | Role::Retiring => {
                Some(self.objects.get(object).and_then(|pool| pool.scaled_to).map_or(elastic, |to| elastic.scaled(to)))
            }
        }
    }

    /// Computes and publishes how the pool stands.
    pub fn publish_progress(&self, instances: &HashMap<InstanceId, Inst>) {
        let objects =
            self.objects.iter().map(|(name, object)| object.progress(name, self.spec.kind(name), instances)).collect();
        let worst_crashes =
            self.objects.values().flat_map(|o| &o.slots).map(|slot| slot.since_live).max().unwrap_or_default();
        let progress = Progress { objects, worst_crashes };
        self.progress.send_if_modified(|before| {
            let changed = *before != progress;
            if changed {
                *before = progress;
            }
            changed
        });
    }
}

impl ObjectPool {
    pub fn with_slots(count: u32) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect(), ..Self::default() }
    }

    pub fn instances<'a>(
        &'a self,
        all: &'a HashMap<InstanceId, Inst>,
    ) -> impl Iterator<Item = (&'a InstanceId, &'a Inst)> {
        self.slots.iter().filter_map(|slot| slot.instance.as_ref()).filter_map(|id| Some((id, all.get(id)?)))
    }

    fn progress(&self, name: &ObjectName, kind: ObjectKind, instances: &HashMap<InstanceId, Inst>) -> ObjectProgress {
        let ready = self.instances(instances).filter(|(_, inst)| inst.state == InstanceState::Ready).count();
        let in_line = self.instances(instances).filter(|(_, inst)| inst.in_line).count();
        let waiting = self
            .instances(instances)
            .find(|(_, inst)| matches!(inst.state, InstanceState::Starting | InstanceState::Failing))
            .map(|(id, inst)| WaitingInstance {
                instance: id.clone(),
                pid: inst.pid,
                port: inst.address.map(|address| address.port()),
                last_probe: inst.last_probe.clone(),
                log: inst.log.clone(),
            });
        ObjectProgress {
            object: name.clone(),
            kind,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            wanted: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
            beginning: self.slots.iter().all(|slot| slot.since_live == 0)
                && self.instances(instances).any(|(_, inst)| inst.state == InstanceState::Starting),
            in_line: u32::try_from(in_line).unwrap_or(u32::MAX),
            failure: self.failure.clone(),
            waiting,
            last_end: self.slots.iter().find_map(|slot| slot.last_end.clone()),
        }
    }

    pub fn crashing(&self) -> bool {
        self.slots.iter().any(|slot| slot.crashes.crashing())
    }
}

/// Somebody waits until these instances are gone.
#[derive(Debug)]
pub(crate) struct GoneWaiter {
    pub instances: HashSet<InstanceId>,
    pub done: oneshot::Sender<()>,
}
