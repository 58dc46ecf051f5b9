//! Instance counts between `min` and `max`, from the load proxies report.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::info;

use super::pool::Slot;
use super::{State, Timer};
use crate::decide::scale;
use crate::domain::{AppKey, InstanceState, ObjectName, VersionNumber};
use crate::wire::proxy::ObjectLoad;

impl State {
    pub(super) fn load(&mut self, proxy: i32, objects: Vec<ObjectLoad>) {
        let mut touched = BTreeSet::new();
        for load in objects {
            for (id, count) in load.in_flight {
                if let Some(inst) = self.instances.get_mut(&id) {
                    inst.in_flight.insert(proxy, count);
                }
            }
            let Some(version) = load.pinned.or_else(|| self.live.get(&load.app).copied()) else { continue };
            if let Some(pool) = self.pools.get_mut(&(load.app.clone(), version))
                && let Some(object) = pool.objects.get_mut(&load.object)
            {
                object.queued.insert(proxy, load.queued);
                touched.insert((load.app, version, load.object));
            }
        }
        for (key, version, object) in touched {
            self.rescale(&key, version, &object);
        }
    }

    /// Requests wait for an object without a ready instance: one start wave, however many wait.
    pub(super) fn wanted(&mut self, key: &AppKey, object: &ObjectName, pinned: Option<VersionNumber>) {
        let Some(version) = pinned.or_else(|| self.live.get(key).copied()) else { return };
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return };
        let Some(slots) = pool.objects.get_mut(object) else { return };
        if slots.slots.is_empty() {
            info!(app = %key, object = %object, "started for a request that waits");
            slots.slots.push(Slot::default());
            self.fill_slots(key, version);
        }
        self.schedule_scaling(key, version);
    }

    /// Plans a look at every object of an app whose size may change.
    pub(super) fn schedule_scaling(&mut self, key: &AppKey, version: VersionNumber) {
        let Some(pool) = self.pools.get(&(key.clone(), version)) else { return };
        let objects = pool.objects.keys().filter_map(|name| Some((name, pool.elastic(name)?)));
        let elastic: Vec<_> = objects
            .filter(|(_, elastic)| !elastic.is_fixed())
            .map(|(name, elastic)| (name.clone(), elastic.bounds.idle.duration()))
            .collect();
        for (object, idle) in elastic {
            self.after(idle, Timer::Scale { key: key.clone(), version, object });
        }
    }

    /// Sets other bounds for an object of the live version and brings it within them.
    pub(super) fn scale(&mut self, key: &AppKey, name: &ObjectName, to: Option<(u32, u32)>) -> Option<(u32, u32)> {
        let version = *self.live.get(key)?;
        let pool = self.pools.get_mut(&(key.clone(), version))?;
        pool.spec.elastic(name)?;
        pool.objects.get_mut(name)?.scaled_to = to;
        let bounds = pool.elastic(name)?.bounds;
        let object = pool.objects.get_mut(name)?;
        let running = object.slots.len();
        let target = running.clamp(bounds.min as usize, bounds.max as usize);
        info!(app = %key, object = %name, min = bounds.min, max = bounds.max, "scaled by hand");
        if target < running {
            self.shrink(key, version, name, target);
        } else {
            object.slots.resize_with(target, Slot::default);
            self.fill_slots(key, version);
        }
        self.rescale(key, version, name);
        self.schedule_scaling(key, version);
        Some((bounds.min, bounds.max))
    }

    pub(super) fn rescale(&mut self, key: &AppKey, version: VersionNumber, name: &ObjectName) {
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return };
        let Some(elastic) = pool.elastic(name) else { return };
        let (bounds, concurrency, spare) = (elastic.bounds, elastic.concurrency, elastic.spare);
        let Some(object) = pool.objects.get_mut(name) else { return };
        if elastic.is_fixed() || object.parked {
            return;
        }
        let running = u32::try_from(object.slots.len()).unwrap_or(u32::MAX);
        let in_flight = object.instances(&self.instances).map(|(_, inst)| inst.in_flight()).sum();
        let queued = object.queued.values().sum();
        let surplus_for = std::time::Duration::ZERO;
        let mut seen = scale::Seen { running, in_flight, queued, concurrency, spare, surplus_for };
        if scale::needed(seen, bounds) < running {
            let since = *object.surplus_since.get_or_insert_with(Instant::now);
            seen.surplus_for = since.elapsed();
            let again = since + bounds.idle.duration();
            if again > Instant::now() {
                self.timers.insert((again, Timer::Scale { key: key.clone(), version, object: name.clone() }));
            }
        } else {
            object.surplus_since = None;
        }
        let target = scale::target(seen, bounds);
        if target > running {
            object.slots.resize_with(target as usize, Slot::default);
            info!(app = %key, object = %name, from = running, to = target, "scaled up");
            self.fill_slots(key, version);
        } else if target < running {
            object.surplus_since = None;
            info!(app = %key, object = %name, from = running, to = target, "scaled down after idling");
            self.shrink(key, version, name, target as usize);
        }
    }

    /// Gives up the least busy instances, empty slots first.
    fn shrink(&mut self, key: &AppKey, version: VersionNumber, name: &ObjectName, target: usize) {
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return };
        let Some(object) = pool.objects.get_mut(name) else { return };
        let instances = &self.instances;
        object.slots.sort_by_key(|slot| {
            let inst = slot.instance.as_ref().and_then(|id| instances.get(id));
            std::cmp::Reverse(inst.map_or(0, |inst| 1 + u64::from(inst.in_flight()) + rank(inst.state)))
        });
        self.leaving.extend(object.slots.drain(target..).filter_map(|slot| slot.instance));
        self.dirty.insert(key.clone());
        self.drop_if_unused(key, version);
    }
}

/// Ready instances are kept before others.
fn rank(state: InstanceState) -> u64 {
    if state == InstanceState::Ready { 1 << 32 } else { 0 }
}
