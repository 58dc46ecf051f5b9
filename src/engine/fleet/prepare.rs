//! Pools as deployments ask for them: prepared, parked, promoted, discarded; and builds.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::pool::{GoneWaiter, Pool, Progress, Role, Slot};
use super::{BuildEnd, HostConflict, State};
use crate::domain::manifest::Millis;
use crate::domain::{AppKey, InstanceId, ObjectName, VersionNumber};
use crate::engine::spec::VersionSpec;
use crate::runtime::supervisor_link::StartError;
use crate::wire::supervisor::StartRequest;

/// A build that is ended gets this long after SIGTERM.
const BUILD_GRACE: Millis = Millis::seconds(5);

impl State {
    pub(super) fn prepare(
        &mut self,
        spec: Arc<VersionSpec>,
        objects: &BTreeSet<ObjectName>,
    ) -> watch::Receiver<Progress> {
        let at = (spec.key.clone(), spec.version);
        let pool = self.pools.entry(at).or_insert_with(|| Pool::new(Arc::clone(&spec), Role::Candidate));
        // A pool found at recovery may have been made before its files were laid out; the deployment knows better.
        pool.spec = Arc::clone(&spec);
        for object in objects {
            let wanted = spec.initial_instances(object);
            let slots = pool.objects.entry(object.clone()).or_default();
            // After a crash of this process some of a candidate's instances may be there already.
            if pool.role == Role::Candidate && slots.slots.len() < wanted as usize {
                slots.slots.resize_with(wanted as usize, Slot::default);
            }
            // Asked again after a crash of this process: a failure seen before is judged anew.
            slots.failure = None;
        }
        let receiver = pool.progress.subscribe();
        let (key, version) = (spec.key.clone(), spec.version);
        self.fill_slots(&key, version);
        self.progress_of(&key, version);
        receiver
    }

    pub(super) fn park(
        &mut self,
        key: &AppKey,
        version: VersionNumber,
        objects: &BTreeSet<ObjectName>,
        reply: oneshot::Sender<()>,
    ) {
        let mut leaving = Vec::new();
        if let Some(pool) = self.pools.get_mut(&(key.clone(), version)) {
            for object in objects {
                let Some(slots) = pool.objects.get_mut(object) else { continue };
                slots.parked = true;
                for slot in &mut slots.slots {
                    slot.restart_at = None;
                    leaving.extend(slot.instance.take());
                }
            }
        }
        self.dirty.insert(key.clone());
        self.retire(&leaving);
        self.gone.push(GoneWaiter { instances: leaving.into_iter().collect(), done: reply });
    }

    pub(super) fn unpark(&mut self, key: &AppKey, version: VersionNumber) {
        if let Some(pool) = self.pools.get_mut(&(key.clone(), version)) {
            for object in pool.objects.values_mut() {
                object.parked = false;
            }
        }
        self.dirty.insert(key.clone());
        self.fill_slots(key, version);
    }

    pub(super) fn promote(&mut self, spec: Arc<VersionSpec>, reply: oneshot::Sender<watch::Receiver<Progress>>) {
        let (key, version) = (spec.key.clone(), spec.version);
        let names: BTreeSet<ObjectName> = spec.manifest.objects().map(|(name, _)| name.clone()).collect();
        // Fills what is missing: a promotion repeated after a crash finds what runs and starts the rest.
        let progress = self.prepare(spec, &names);
        let before = self.live.insert(key.clone(), version).filter(|before| *before != version);
        if let Some(pool) = self.pools.get_mut(&(key.clone(), version)) {
            pool.role = Role::Live;
        }
        self.refusals.remove(&key);
        self.dirty.insert(key.clone());
        let mut outdated = Vec::new();
        if let Some(before) = before
            && let Some(mut pool) = self.pools.remove(&(key.clone(), before))
        {
            pool.role = Role::Retiring;
            outdated = take_instances(&mut pool);
        }
        self.rebuild_places(&key);
        // Publish before drain: a request refused by a draining instance must find the new table when it looks again.
        self.publish();
        self.retire(&outdated);
        self.fill_slots(&key, version);
        self.proxies.when_published(move || {
            let _ = reply.send(progress);
        });
        self.schedule_published_late();
        self.schedule_scaling(&key, version);
    }

    pub(super) fn discard(&mut self, key: &AppKey, version: VersionNumber, reply: oneshot::Sender<()>) {
        let mut leaving = Vec::new();
        let at = (key.clone(), version);
        if self.live.get(key) != Some(&version)
            && let Some(mut pool) = self.pools.remove(&at)
        {
            leaving = take_instances(&mut pool);
        }
        // Never routed, so there is nothing to drain.
        for instance in &leaving {
            self.stop_instance(instance);
        }
        self.gone.push(GoneWaiter { instances: leaving.into_iter().collect(), done: reply });
    }

    pub(super) fn stop_app(&mut self, key: &AppKey, refusal: Option<(Arc<VersionSpec>, String)>) {
        self.live.remove(key);
        let versions: Vec<VersionNumber> =
            self.pools.keys().filter(|(app, _)| app == key).map(|(_, version)| *version).collect();
        let mut leaving = Vec::new();
        for version in versions {
            if let Some(mut pool) = self.pools.remove(&(key.clone(), version)) {
                leaving.extend(take_instances(&mut pool));
            }
        }
        match refusal {
            Some(refusal) => self.refusals.insert(key.clone(), refusal),
            None => self.refusals.remove(key),
        };
        self.crashing.remove(key);
        self.rebuild_places(key);
        self.dirty.insert(key.clone());
        self.publish();
        self.retire(&leaving);
    }

    pub(super) fn forget(&mut self, key: &AppKey) {
        if self.refusals.remove(key).is_some() {
            self.rebuild_places(key);
            self.dirty.insert(key.clone());
        }
    }

    pub(super) fn host_conflict(&self, spec: &VersionSpec) -> Option<HostConflict> {
        super::routes::places(spec, &self.around).into_iter().find_map(|place| {
            let owner = self.places.get(&place).filter(|owner| **owner != spec.key)?;
            let (host, path) = place;
            Some(HostConflict { place: format!("{host}{path}"), owner: owner.clone() })
        })
    }

    /// Records which hosts and paths an app serves now.
    pub(super) fn rebuild_places(&mut self, key: &AppKey) {
        for place in self.places_of.remove(key).unwrap_or_default() {
            self.places.remove(&place);
        }
        let live = self.live.get(key).and_then(|version| self.pools.get(&(key.clone(), *version)));
        let spec = live.map(|pool| &pool.spec).or_else(|| self.refusals.get(key).map(|(spec, _)| spec));
        if let Some(spec) = spec {
            let mut mine = super::routes::places(spec, &self.around);
            mine.retain(|place| !self.places.contains_key(place));
            for place in &mine {
                self.places.insert(place.clone(), key.clone());
            }
            self.places_of.insert(key.clone(), mine);
        }
    }

    pub(super) fn start_build(&mut self, request: StartRequest, reply: oneshot::Sender<Result<BuildEnd, StartError>>) {
        let instance = request.instance.clone();
        self.builds.insert(instance.clone(), Some(reply));
        let (runtime, inner) = (self.runtime.clone(), self.inner.clone());
        tokio::spawn(async move {
            let result = runtime.start(request).await.map(Box::new);
            let _ = inner.send(super::Inner::Started { instance, result }).await;
        });
    }

    pub(super) fn stop_build(&mut self, instance: &InstanceId) {
        if self.builds.contains_key(instance) {
            self.tell_to_stop(instance.clone(), BUILD_GRACE);
        }
    }
}

/// Empties a pool and hands over what was in it.
fn take_instances(pool: &mut Pool) -> Vec<InstanceId> {
    pool.objects.values_mut().flat_map(|object| object.slots.drain(..)).filter_map(|slot| slot.instance).collect()
}
