//! What a new controller takes over: the record says what should live, the supervisor says what does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::life::local;
use super::pool::{Inst, ObjectPool, Pool, Role, Slot};
use super::{Beginning, STARTS, State, proxies};
use crate::domain::manifest::{Millis, ObjectKind, defaults};
use crate::domain::{AppKey, InstanceId, InstanceState, ObjectName, VersionNumber};
use crate::engine::spec::{Elastic, VersionSpec};
use crate::ledger::scaled::Scaled;
use crate::wire::supervisor::{Child, ChildKind, ChildState};

/// Results of started tasks that may wait for the fleet.
const INNER_QUEUE: usize = 4096;

impl State {
    /// Takes over what runs: instances of live versions keep their slots, those of open deployments theirs, all
    /// others are outdated and drain.
    pub(super) fn recover(beginning: Beginning) -> Self {
        let (inner, inner_queue) = mpsc::channel(INNER_QUEUE);
        let mut state = State {
            runtime: beginning.runtime,
            starts: Arc::new(Semaphore::new(STARTS)),
            vault: beginning.vault,
            around: beginning.surroundings,
            pools: BTreeMap::new(),
            live: HashMap::new(),
            refusals: HashMap::new(),
            instances: HashMap::new(),
            builds: HashMap::new(),
            places: HashMap::new(),
            places_of: HashMap::new(),
            crashing: std::collections::BTreeSet::new(),
            gone: Vec::new(),
            proxies: proxies::Proxies::new(
                beginning.inventory.proxies,
                beginning.proxy_options,
                beginning.grants,
                beginning.used_tokens,
                beginning.lines,
            ),
            dirty: std::collections::BTreeSet::new(),
            timers: std::collections::BTreeSet::new(),
            leaving: Vec::new(),
            inner,
            inner_queue: Some(inner_queue),
            supervisor: Some(beginning.supervisor),
            ends: Some(beginning.ends),
            proxy_messages: Some(beginning.proxies),
            notices: beginning.notices,
            pending_notices: Vec::new(),
            lost: false,
            ending: false,
        };
        for (spec, reason) in beginning.stopped {
            state.dirty.insert(spec.key.clone());
            state.refusals.insert(spec.key.clone(), (Arc::clone(&spec), reason));
            state.rebuild_places(&spec.key);
        }
        for (spec, role) in
            with_role(beginning.live, Role::Live).chain(with_role(beginning.candidates, Role::Candidate))
        {
            state.open_pool(spec, role, &beginning.scaled);
        }
        for (key, objects) in &beginning.parked {
            let pool = state.live.get(key).and_then(|version| state.pools.get_mut(&(key.clone(), *version)));
            for (_, object) in pool.into_iter().flat_map(|pool| &mut pool.objects).filter(|(n, _)| objects.contains(n))
            {
                object.parked = true;
            }
        }
        let mut outdated = Vec::new();
        for child in beginning.inventory.children {
            outdated.extend(state.adopt(child, &beginning.outdated));
        }
        let live: Vec<_> = state.live.iter().map(|(key, version)| (key.clone(), *version)).collect();
        for (key, version) in live {
            state.fill_slots(&key, version);
            state.schedule_scaling(&key, version);
        }
        state.publish();
        state.retire(&outdated);
        state
    }

    fn open_pool(&mut self, spec: Arc<VersionSpec>, role: Role, scaled: &[Scaled]) {
        let (key, version) = (spec.key.clone(), spec.version);
        let mut pool = Pool::new(Arc::clone(&spec), role);
        if role == Role::Live {
            for (name, _) in spec.manifest.objects() {
                let by_hand = scaled.iter().find(|s| s.key == key && s.version == version && s.object == *name);
                let scaled_to = by_hand.map(|scaled| scaled.bounds);
                let elastic = spec.elastic(name).map(|own| scaled_to.map_or(own, |to| own.scaled(to)));
                let wanted = elastic.map_or_else(|| spec.initial_instances(name), Elastic::at_rest);
                pool.objects.insert(name.clone(), ObjectPool { scaled_to, ..ObjectPool::with_slots(wanted) });
            }
            self.live.insert(key.clone(), version);
            self.dirty.insert(key.clone());
        }
        self.pools.insert((key.clone(), version), pool);
        self.rebuild_places(&key);
    }

    /// Takes over one child; answers its identifier when nothing wants it any more.
    fn adopt(&mut self, child: Child, outdated: &[Arc<VersionSpec>]) -> Option<InstanceId> {
        let id = child.instance.clone();
        if matches!(child.state, ChildState::Exited { .. }) {
            self.forget_child(id);
            return None;
        }
        if child.labels.kind == ChildKind::Build {
            // Whoever waited for it is gone; the deployment builds anew once it has ended.
            self.builds.insert(id.clone(), None);
            self.tell_to_stop(id, Millis::seconds(1));
            return None;
        }
        let key = child.labels.app.clone();
        let version = child.labels.version;
        let role = self.pools.get(&(key.clone(), version)).map(|pool| pool.role);
        let stopping = child.state == ChildState::Stopping;
        let object: Option<ObjectName> = child.labels.object.parse().ok();
        let state = match (stopping, role) {
            (true, _) => InstanceState::Stopping,
            (false, Some(Role::Live)) => InstanceState::Ready,
            (false, Some(Role::Candidate)) => InstanceState::Starting,
            (false, Some(Role::Pinned | Role::Retiring) | None) => InstanceState::Outdated,
        };
        let spec = match self.pools.get(&(key.clone(), version)) {
            Some(pool) => Some(&pool.spec),
            None => outdated.iter().find(|spec| spec.key == key && spec.version == version),
        };
        let inst = new_instance(&child, state, spec.map(AsRef::as_ref));
        self.instances.insert(id.clone(), inst);
        if stopping {
            return None;
        }
        let taken = object.as_ref().is_some_and(|object| self.take_slot(&key, version, object, &id));
        if taken {
            self.watch_instance(&id);
            None
        } else {
            Some(id)
        }
    }

    /// Gives an adopted instance a slot of its object, if the object still exists and has room.
    fn take_slot(&mut self, key: &AppKey, version: VersionNumber, object: &ObjectName, id: &InstanceId) -> bool {
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return false };
        let most =
            pool.spec.elastic(object).map_or(0, |elastic| elastic.bounds.max).max(pool.spec.initial_instances(object));
        let slots = pool.objects.entry(object.clone()).or_default();
        if let Some(free) = slots.slots.iter_mut().find(|slot| slot.instance.is_none()) {
            free.instance = Some(id.clone());
            return true;
        }
        if slots.slots.len() < most as usize {
            slots.slots.push(Slot { instance: Some(id.clone()), ..Slot::default() });
            return true;
        }
        false
    }
}

fn with_role(specs: Vec<Arc<VersionSpec>>, role: Role) -> impl Iterator<Item = (Arc<VersionSpec>, Role)> {
    specs.into_iter().map(move |spec| (spec, role))
}

fn new_instance(child: &Child, state: InstanceState, spec: Option<&VersionSpec>) -> Inst {
    let object: Option<ObjectName> = child.labels.object.parse().ok();
    let known = spec.zip(object.as_ref());
    Inst {
        key: child.labels.app.clone(),
        version: child.labels.version,
        object: child.labels.object.clone(),
        kind: match child.labels.kind {
            ChildKind::Web => ObjectKind::Web,
            ChildKind::Function => ObjectKind::Function,
            ChildKind::Worker | ChildKind::Build => ObjectKind::Worker,
        },
        state,
        in_line: false,
        pid: Some(child.pid),
        address: child.address.or(child.labels.port.map(local)),
        started_at: Some(child.started_at),
        up_since: Instant::now(),
        good: 0,
        bad: 0,
        last_probe: None,
        log: child.log.clone(),
        probe: None,
        in_flight: HashMap::new(),
        drained_by: HashSet::new(),
        drain_deadline: None,
        cut: false,
        grace: known.map_or(defaults::GRACE, |(spec, object)| spec.grace(object)),
        drain: known.map_or(defaults::DRAIN, |(spec, object)| spec.drain(object)),
    }
}
