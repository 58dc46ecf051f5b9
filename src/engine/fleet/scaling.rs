//! Instance counts between `min` and `max`, from the load proxies report.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::info;

use super::pool::Slot;
use super::{State, Timer};
use crate::decide::scale;
use crate::domain::{AppKey, InstanceState, ObjectName};
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
            let Some(version) = self.live.get(&load.app) else { continue };
            if let Some(pool) = self.pools.get_mut(&(load.app.clone(), *version))
                && let Some(object) = pool.objects.get_mut(&load.object)
            {
                object.queued.insert(proxy, load.queued);
                touched.insert((load.app, load.object));
            }
        }
        for (key, object) in touched {
            self.rescale(&key, &object);
        }
    }

    /// Requests wait for an object without a ready instance: one start wave, however many wait.
    pub(super) fn wanted(&mut self, key: &AppKey, object: &ObjectName) {
        let Some(version) = self.live.get(key).copied() else { return };
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return };
        let Some(slots) = pool.objects.get_mut(object) else { return };
        if slots.slots.is_empty() {
            info!(app = %key, object = %object, "started for a request that waits");
            slots.slots.push(Slot::default());
            self.fill_slots(key, version);
        }
        self.schedule_scaling(key);
    }

    /// Plans a look at every object of an app whose size may change.
    pub(super) fn schedule_scaling(&mut self, key: &AppKey) {
        let Some(version) = self.live.get(key) else { return };
        let Some(pool) = self.pools.get(&(key.clone(), *version)) else { return };
        let objects = pool.spec.manifest.objects().filter_map(|(name, _)| Some((name, pool.spec.elastic(name)?)));
        let elastic: Vec<_> = objects
            .filter(|(_, elastic)| !elastic.is_fixed())
            .map(|(name, elastic)| (name.clone(), elastic.bounds.idle.duration()))
            .collect();
        for (object, idle) in elastic {
            self.after(idle, Timer::Scale { key: key.clone(), object });
        }
    }

    pub(super) fn rescale(&mut self, key: &AppKey, name: &ObjectName) {
        let Some(version) = self.live.get(key).copied() else { return };
        let Some(pool) = self.pools.get_mut(&(key.clone(), version)) else { return };
        let Some(elastic) = pool.spec.elastic(name) else { return };
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
                self.timers.insert((again, Timer::Scale { key: key.clone(), object: name.clone() }));
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
            self.shrink(key, name, target as usize);
        }
    }

    /// Gives up the least busy instances, empty slots first.
    fn shrink(&mut self, key: &AppKey, name: &ObjectName, target: usize) {
        let Some(version) = self.live.get(key) else { return };
        let Some(pool) = self.pools.get_mut(&(key.clone(), *version)) else { return };
        let Some(object) = pool.objects.get_mut(name) else { return };
        let instances = &self.instances;
        object.slots.sort_by_key(|slot| {
            let inst = slot.instance.as_ref().and_then(|id| instances.get(id));
            std::cmp::Reverse(inst.map_or(0, |inst| 1 + u64::from(inst.in_flight()) + rank(inst.state)))
        });
        let leaving: Vec<_> = object.slots.drain(target..).filter_map(|slot| slot.instance).collect();
        self.dirty.insert(key.clone());
        self.retire(&leaving);
    }
}

/// Ready instances are kept before others.
fn rank(state: InstanceState) -> u64 {
    if state == InstanceState::Ready { 1 << 32 } else { 0 }
}
