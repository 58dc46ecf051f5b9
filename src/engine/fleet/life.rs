//! The life of an instance: started, probed, ended, started again.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::{info, warn};

use super::pool::{Inst, ObjectPool, Pool, Role, Slot, StartFailure};
use super::{BuildEnd, Inner, Notice, State, Timer};
use crate::decide::restart::STABLE_AFTER;
use crate::decide::rollout::WORKER_SETTLES;
use crate::domain::manifest::{Bytes, Health, Millis, ObjectKind};
use crate::domain::{AppKey, CallId, ExitStatus, InstanceId, InstanceState, ObjectName, VersionNumber};
use crate::engine::spec::VersionSpec;
use crate::runtime::Runtime;
use crate::runtime::probe::ProbeAnswer;
use crate::runtime::supervisor_link::{Drifted, StartError, SupervisorEvent};
use crate::wire::proxy::{ToProxy, WhyOver};
use crate::wire::supervisor::{Child, ChildState, StartRequest};

/// First wait between two probes of an instance that starts; grows by half each time.
const FIRST_PROBE_WAIT: Duration = Duration::from_millis(4);
/// Longest wait between two probes of an instance that starts.
const LONGEST_PROBE_WAIT: Duration = Duration::from_millis(250);

impl State {
    /// Starts an instance in every empty slot whose time has come.
    pub(super) fn fill_slots(&mut self, key: &AppKey, version: VersionNumber) {
        if self.ending {
            return;
        }
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return };
        let spec = Arc::clone(&pool.spec);
        let now = Instant::now();
        let mut starting = Vec::new();
        for (name, object) in pool.objects.iter_mut().filter(|(_, object)| !object.parked) {
            if pool.role == Role::Candidate && object.failure.is_some() {
                continue;
            }
            for slot in object.slots.iter_mut().filter(|slot| slot.instance.is_none()) {
                if slot.restart_at.is_some_and(|at| at > now) {
                    continue;
                }
                slot.restart_at = None;
                let id = InstanceId::new(&spec.key.app, name.as_str(), version, fastrand::u64(..));
                slot.instance = Some(id.clone());
                starting.push((name.clone(), id));
            }
        }
        for (object, id) in starting {
            self.start_instance(&spec, &object, id);
        }
        self.progress_of(key, version);
    }

    fn start_instance(&mut self, spec: &Arc<VersionSpec>, object: &ObjectName, id: InstanceId) {
        let kind = spec.kind(object);
        let instances = &self.instances;
        let used = |port| instances.values().any(|inst| inst.address.is_some_and(|address| address.port() == port));
        let port = match kind {
            ObjectKind::Web | ObjectKind::Function => crate::runtime::ports::choose(used).ok(),
            // What looks after a Compose project says by a port that the project is healthy.
            ObjectKind::Worker => spec.health(object).and_then(|_| crate::runtime::ports::choose(used).ok()),
        };
        let request = spec.start_request(&self.around, object, &id, port);
        self.instances.insert(
            id.clone(),
            Inst {
                key: spec.key.clone(),
                version: spec.version,
                object: object.to_string(),
                kind,
                state: InstanceState::Starting,
                in_line: true,
                pid: None,
                address: port.map(local),
                started_at: None,
                up_since: Instant::now(),
                good: 0,
                bad: 0,
                last_probe: None,
                log: request.log.clone(),
                probe: None,
                in_flight: HashMap::new(),
                drained_by: HashSet::new(),
                drain_deadline: None,
                cut: false,
                grace: request.grace,
                drain: spec.drain(object),
            },
        );
        let (inner, vault, starts) = (self.inner.clone(), self.vault.clone(), Arc::clone(&self.starts));
        let (spec, mut request) = (Arc::clone(spec), request);
        if spec.manifest.compose.is_some() {
            let directory = self.around.compose_directory(&spec.key);
            self.runtime.docker().lend(&spec.key, &directory, &mut request.env);
        }
        tokio::spawn(async move {
            // Asked anew for each: a changed secret reaches new instances.
            let request = match vault.give_to(&spec.key, spec.version, &spec.manifest).await {
                Ok(given) => {
                    given.tell(&mut request);
                    Ok(Box::new(request))
                }
                Err(why) => Err(StartError::NoSecret(why)),
            };
            // Containers take their time at their engine, side by side.
            let waits = request.as_ref().is_ok_and(|request| request.container.is_none());
            let turn = if waits { starts.acquire_owned().await.ok() } else { None };
            let _ = inner.send(Inner::Turn { instance: id, request, turn }).await;
        });
    }

    /// An instance that was in line is started now, unless nobody wants it any more.
    fn its_turn(
        &mut self,
        id: InstanceId,
        request: Result<Box<StartRequest>, StartError>,
        turn: Option<OwnedSemaphorePermit>,
    ) {
        let Some(inst) = self.instances.get_mut(&id) else { return };
        if inst.state != InstanceState::Starting {
            // Nobody wants it any more.
            self.instances.remove(&id);
            return;
        }
        inst.in_line = false;
        inst.up_since = Instant::now();
        let (key, version) = (inst.key.clone(), inst.version);
        self.progress_of(&key, version);
        let (runtime, inner) = (self.runtime.clone(), self.inner.clone());
        tokio::spawn(async move {
            let result = match request {
                Ok(request) => runtime.start(*request).await.map(Box::new),
                Err(error) => Err(error),
            };
            drop(turn);
            let _ = inner.send(Inner::Started { instance: id, result }).await;
        });
    }

    pub(super) fn on_inner(&mut self, message: Inner) {
        match message {
            Inner::Turn { instance, request, turn } => self.its_turn(instance, request, turn),
            Inner::Started { instance, result } if self.builds.contains_key(&instance) => {
                if let Err(error) = result
                    && let Some(Some(reply)) = self.builds.remove(&instance)
                {
                    let _ = reply.send(Err(error));
                }
            }
            Inner::Started { instance, result: Ok(child) } => self.started(&instance, &child),
            Inner::Started { instance, result: Err(error) } => self.not_started(&instance, &error),
            Inner::Probed { instance, answer } => self.probed(&instance, answer),
        }
    }

    fn started(&mut self, id: &InstanceId, child: &Child) {
        let Some(inst) = self.instances.get_mut(id) else {
            // Given up while it was being started.
            self.tell_to_stop(id.clone(), Millis(0));
            return;
        };
        inst.pid = Some(child.pid);
        inst.started_at = Some(child.started_at);
        inst.address = child.address.or(inst.address);
        inst.up_since = Instant::now();
        if inst.state == InstanceState::Stopping {
            self.stop_instance(&id.clone());
            return;
        }
        self.watch_instance(id);
    }

    /// Starts the probe of an instance, and the clock after which it counts as stable.
    pub(super) fn watch_instance(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let object: Option<ObjectName> = inst.object.parse().ok();
        let pool = self.pools.get(&(inst.key.clone(), inst.version));
        let health = pool.zip(object).and_then(|(pool, object)| pool.spec.health(&object));
        let (id, inner) = (id.clone(), self.inner.clone());
        let starting = inst.state == InstanceState::Starting;
        let task = match (health, inst.address) {
            (Some(health), Some(address)) => {
                tokio::spawn(probe_for_ever(self.runtime.clone(), id.clone(), address, health, starting, inner))
            }
            _ => tokio::spawn(settle_once(id.clone(), inner)),
        };
        inst.probe = Some(task.abort_handle());
        self.after(STABLE_AFTER, Timer::Stable { instance: id });
    }

    fn not_started(&mut self, id: &InstanceId, error: &StartError) {
        let Some(inst) = self.instances.remove(id) else { return };
        if inst.state == InstanceState::Stopping || inst.state == InstanceState::Outdated {
            return;
        }
        let message = error.to_string();
        warn!(app = %inst.key, version = %inst.version, object = inst.object, error = message, "cannot start");
        self.ended(id, &inst, "start_failed", &message, None, false);
    }

    fn probed(&mut self, id: &InstanceId, answer: ProbeAnswer) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let (rise, fall) = self
            .pools
            .get(&(inst.key.clone(), inst.version))
            .and_then(|pool| pool.spec.health(&inst.object.parse().ok()?))
            .map_or((1, 1), |health| (health.rise, health.fall));
        if answer.is_good() {
            inst.good = inst.good.saturating_add(1);
            inst.bad = 0;
        } else {
            inst.bad = inst.bad.saturating_add(1);
            inst.good = 0;
        }
        inst.last_probe = Some(answer.words().to_owned());
        let (key, version) = (inst.key.clone(), inst.version);
        match inst.state {
            InstanceState::Starting if inst.good >= rise => {
                inst.state = InstanceState::Ready;
                self.dirty.insert(key.clone());
            }
            InstanceState::Ready if inst.bad >= fall => {
                let said = inst.last_probe.clone().unwrap_or_default();
                self.failing(id, &said);
            }
            InstanceState::Starting
            | InstanceState::Ready
            | InstanceState::Failing
            | InstanceState::Outdated
            | InstanceState::Stopping
            | InstanceState::Exited => {}
        }
        self.restart_when_never_ready(id);
        self.progress_of(&key, version);
    }

    /// A restarted instance of a live version that does not become ready within its deadline is started anew.
    fn restart_when_never_ready(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get(id) else { return };
        let Some(pool) = self.pools.get(&(inst.key.clone(), inst.version)) else { return };
        let Some(health) = inst.object.parse().ok().and_then(|object| pool.spec.health(&object)) else { return };
        let late = inst.uptime() > health.deadline.duration();
        if inst.state == InstanceState::Starting && matches!(pool.role, Role::Live | Role::Pinned) && late {
            let said = inst.last_probe.clone().unwrap_or_default();
            self.failing(id, &said);
        }
    }

    /// An instance whose probes fail is taken out and replaced: it drains like an outdated one, its slot is
    /// started again after the back-off.
    fn failing(&mut self, id: &InstanceId, said: &str) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.state = InstanceState::Failing;
        let (key, version, object, uptime) = (inst.key.clone(), inst.version, inst.object.clone(), inst.uptime());
        warn!(app = %key, version = %version, object, instance = %id, probe = said, "instance fails its probes and is replaced");
        let words = format!("failed its probes ({said})");
        self.vacate(&key, version, &object, id, uptime, &words);
        self.dirty.insert(key);
        self.publish();
        self.retire(std::slice::from_ref(id));
    }

    /// A call was not over at its deadline: the instance and all processes of it end at once, and another takes its
    /// place without waiting. Nothing was wrong with how it started, so this is no crash.
    pub(super) fn overdue(&mut self, id: &InstanceId, call: &CallId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if matches!(inst.state, InstanceState::Stopping | InstanceState::Exited) {
            return;
        }
        warn!(app = %inst.key, version = %inst.version, object = inst.object, instance = %id, %call, "a call is over its timeout: the instance is replaced");
        inst.grace = Millis(0);
        let (key, version) = (inst.key.clone(), inst.version);
        if let Some(slot) = self.slot_of(&key, version, id) {
            slot.instance = None;
        }
        let (runtime, told, line) =
            (self.runtime.clone(), id.clone(), format!("call {call} is over its timeout; ended"));
        tokio::spawn(async move { drop(runtime.log(&told, &line).await) });
        self.dirty.insert(key.clone());
        self.publish();
        self.stop_instance(id);
        self.fill_slots(&key, version);
    }

    /// Somebody wants this one gone: another takes its place, and it finishes what it has.
    pub(super) fn replace(&mut self, id: &InstanceId) -> bool {
        let Some(inst) = self.instances.get(id) else { return false };
        if inst.kind == ObjectKind::Worker || !matches!(inst.state, InstanceState::Starting | InstanceState::Ready) {
            return false;
        }
        let (key, version) = (inst.key.clone(), inst.version);
        let role = self.pools.get(&(key.clone(), version)).map(|pool| pool.role);
        if !matches!(role, Some(Role::Live | Role::Pinned)) {
            return false;
        }
        let Some(slot) = self.slot_of(&key, version, id) else { return false };
        slot.instance = None;
        info!(app = %key, version = %version, instance = %id, "an instance makes room for another");
        self.dirty.insert(key.clone());
        self.publish();
        self.retire(std::slice::from_ref(id));
        self.fill_slots(&key, version);
        true
    }

    pub(super) fn became_stable(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get(id) else { return };
        let (key, version, uptime) = (inst.key.clone(), inst.version, inst.uptime());
        if let Some(slot) = self.slot_of(&key, version, id) {
            slot.crashes = slot.crashes.after_uptime(uptime);
            slot.last_end = None;
        }
        self.update_crashing(&key, version);
        self.progress_of(&key, version);
    }

    pub(super) fn slot_of(&mut self, key: &AppKey, version: VersionNumber, id: &InstanceId) -> Option<&mut Slot> {
        let pool = self.pools.get_mut(&(key.clone(), version))?;
        pool.objects.values_mut().flat_map(|o| &mut o.slots).find(|slot| slot.instance.as_ref() == Some(id))
    }

    pub(super) fn on_supervisor(&mut self, event: SupervisorEvent) {
        match event {
            SupervisorEvent::Exited(child) => self.exited(&child),
            SupervisorEvent::Drifted(drifted) => self.drifted(*drifted),
            SupervisorEvent::Proxies(processes) => self.proxy_processes(processes),
            SupervisorEvent::Reload => self.pending_notices.push(Notice::Reload),
            SupervisorEvent::Shutdown => {
                self.ending = true;
                self.pending_notices.push(Notice::Shutdown);
            }
            SupervisorEvent::Lost => {
                self.pending_notices.push(Notice::SupervisorLost);
                self.lost = true;
            }
        }
    }

    /// Somebody changed a container by hand. One that is not to stay so makes room for another; a worker ends first, as
    /// it must never run twice.
    fn drifted(&mut self, drifted: Drifted) {
        let Some(inst) = self.instances.get(&drifted.instance) else { return };
        let (key, version, kind, grace) = (inst.key.clone(), inst.version, inst.kind, inst.grace);
        let message = format!("{} of {key} {version}: {}", inst.object, drifted.message);
        self.pending_notices.push(Notice::Drifted { key, version, message });
        if drifted.replace && !self.replace(&drifted.instance) && kind == ObjectKind::Worker {
            self.tell_to_stop(drifted.instance, grace);
        }
    }

    fn exited(&mut self, child: &Child) {
        let id = &child.instance;
        self.forget_child(id.clone());
        let ChildState::Exited { status, oom, .. } = &child.state else { return };
        if let Some(reply) = self.builds.remove(id) {
            if let Some(reply) = reply {
                let _ = reply.send(Ok(BuildEnd { status: *status, oom: *oom }));
            }
            return;
        }
        let Some(inst) = self.instances.remove(id) else { return };
        self.dirty.insert(inst.key.clone());
        let limit = self.memory_limit(&inst);
        if inst.kind == ObjectKind::Function {
            let why = if *oom { WhyOver::OutOfMemory { limit } } else { WhyOver::Other };
            self.proxies.tell_all(&ToProxy::Over { instance: id.clone(), why });
        }
        match inst.state {
            InstanceState::Outdated | InstanceState::Stopping | InstanceState::Failing | InstanceState::Exited => {}
            InstanceState::Starting | InstanceState::Ready => {
                let (code, words) = match (oom, limit) {
                    (true, Some(limit)) => ("out_of_memory", format!("ran out of memory, its limit is {limit}")),
                    (true, None) => ("out_of_memory", "was ended by the kernel for want of memory".to_owned()),
                    (false, _) => ("exited_early", format!("ended by itself: {status}")),
                };
                info!(app = %inst.key, version = %inst.version, object = inst.object, instance = %id, "{words}");
                self.ended(id, &inst, code, &words, Some(*status), *oom);
            }
        }
        self.progress_of(&inst.key, inst.version);
    }

    fn memory_limit(&self, inst: &Inst) -> Option<Bytes> {
        let pool = self.pools.get(&(inst.key.clone(), inst.version))?;
        pool.spec.memory_limit(&inst.object.parse().ok()?)
    }

    /// An unwanted end: a candidate fails with it, a live version starts the slot again later.
    fn ended(
        &mut self,
        id: &InstanceId,
        inst: &Inst,
        code: &'static str,
        words: &str,
        exit: Option<ExitStatus>,
        oom: bool,
    ) {
        if self.ending {
            return;
        }
        let role = self.pools.get(&(inst.key.clone(), inst.version)).map(|pool| pool.role);
        match role {
            Some(Role::Candidate) => {
                let failure = StartFailure {
                    instance: id.clone(),
                    code,
                    message: words.to_owned(),
                    exit,
                    oom,
                    last_probe: inst.last_probe.clone(),
                    log: inst.log.clone(),
                };
                if let Some(pool) = self.pools.get_mut(&(inst.key.clone(), inst.version))
                    && let Some(object) =
                        inst.object.parse().ok().and_then(|name: ObjectName| pool.objects.get_mut(&name))
                {
                    object.failure.get_or_insert(failure);
                    for slot in &mut object.slots {
                        slot.instance.take_if(|instance| instance == id);
                    }
                }
            }
            Some(Role::Live | Role::Pinned) => {
                self.vacate(&inst.key, inst.version, &inst.object, id, inst.uptime(), words);
            }
            Some(Role::Retiring) | None => {}
        }
        self.progress_of(&inst.key, inst.version);
    }

    /// Empties the slot of an instance that is no more and plans its restart.
    fn vacate(
        &mut self,
        key: &AppKey,
        version: VersionNumber,
        object: &str,
        id: &InstanceId,
        uptime: Duration,
        words: &str,
    ) {
        let Some(slot) = self.slot_of(key, version, id) else { return };
        slot.instance = None;
        slot.crashes = slot.crashes.after_end(uptime);
        slot.since_live = slot.since_live.saturating_add(1);
        slot.last_end = Some(format!("{object} {words}"));
        let delay = slot.crashes.delay();
        slot.restart_at = Some(Instant::now() + delay);
        self.after(delay, Timer::Restart { key: key.clone(), version });
        self.update_crashing(key, version);
    }

    /// Tells of an app that begins or ceases to crash.
    fn update_crashing(&mut self, key: &AppKey, version: VersionNumber) {
        if self.live.get(key) != Some(&version) {
            return;
        }
        let Some(pool) = self.pools.get(&(key.clone(), version)) else { return };
        let crashing = pool.objects.values().any(ObjectPool::crashing);
        if crashing && self.crashing.insert(key.clone()) {
            let message = last_end(pool).unwrap_or_else(|| "instances end again and again".to_owned());
            self.pending_notices.push(Notice::Crashing { key: key.clone(), version, message });
        } else if !crashing && self.crashing.remove(key) {
            self.pending_notices.push(Notice::Recovered { key: key.clone(), version });
        }
    }

    pub(super) fn progress_of(&mut self, key: &AppKey, version: VersionNumber) {
        if let Some(pool) = self.pools.get(&(key.clone(), version)) {
            pool.publish_progress(&self.instances);
        }
    }

    /// Marks an instance as stopping and tells the runtime.
    pub(super) fn stop_instance(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if inst.in_line {
            // Nothing of it is there.
            self.instances.remove(id);
            return;
        }
        inst.state = InstanceState::Stopping;
        if let Some(probe) = inst.probe.take() {
            probe.abort();
        }
        if inst.pid.is_none() {
            // Still being started: `started` stops it, `not_started` drops it.
            return;
        }
        let grace = inst.grace;
        self.tell_to_stop(id.clone(), grace);
    }

    pub(super) fn tell_to_stop(&self, id: InstanceId, grace: Millis) {
        let runtime = self.runtime.clone();
        tokio::spawn(async move {
            if let Err(error) = runtime.stop(&id, grace).await {
                // The supervisor link reports its own loss; this instance is stopped at the next recovery.
                warn!(instance = %id, %error, "an instance could not be told to stop");
            }
        });
    }

    pub(super) fn forget_child(&self, id: InstanceId) {
        let runtime = self.runtime.clone();
        tokio::spawn(async move {
            if let Err(error) = runtime.forget(&id).await {
                warn!(instance = %id, %error, "an ended instance could not be forgotten");
            }
        });
    }
}

fn last_end(pool: &Pool) -> Option<String> {
    pool.objects.values().flat_map(|object| &object.slots).find_map(|slot| slot.last_end.clone())
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Probes until aborted: quickly while the instance starts, then at its interval.
async fn probe_for_ever(
    runtime: Runtime,
    instance: InstanceId,
    address: SocketAddr,
    health: Health,
    starting: bool,
    results: mpsc::Sender<Inner>,
) {
    let mut wait = if starting { FIRST_PROBE_WAIT } else { health.interval.duration() };
    let mut good = 0;
    loop {
        let answer = runtime.probe(&instance, address, &health).await;
        good = if answer.is_good() { good + 1 } else { 0 };
        wait = if starting && good < health.rise && wait < LONGEST_PROBE_WAIT {
            (wait * 3 / 2).min(LONGEST_PROBE_WAIT).min(health.interval.duration())
        } else if good >= health.rise {
            health.interval.duration()
        } else {
            wait
        };
        if results.send(Inner::Probed { instance: instance.clone(), answer }).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// A worker counts as started when it is still there after a moment.
async fn settle_once(instance: InstanceId, results: mpsc::Sender<Inner>) {
    tokio::time::sleep(WORKER_SETTLES).await;
    let answer = ProbeAnswer::Good("runs".to_owned());
    let _ = results.send(Inner::Probed { instance, answer }).await;
}
