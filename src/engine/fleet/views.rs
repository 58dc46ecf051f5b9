//! How the fleet looks from outside.

use std::collections::HashMap;

use super::State;
use super::pool::{Inst, Pool};
use crate::domain::{AppKey, FunctionKey, InstanceId, InstanceState, ObjectName, VersionNumber};
use crate::wire::api;

/// How an app's instances stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppFleet {
    /// Instances that run, outdated ones included.
    pub instances: u32,
    /// Those of the live version that take work.
    pub ready: u32,
    /// Why it counts as crashing.
    pub crashing: Option<String>,
}

/// How the instances of a function of a live version stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionFleet {
    /// Which.
    pub function: FunctionKey,
    /// The live version.
    pub version: VersionNumber,
    /// Calls at once per instance.
    pub concurrency: u32,
    /// Fewest and most instances.
    pub bounds: (u32, u32),
    /// The bounds are not the manifest's.
    pub scaled: bool,
    /// Instances that should run.
    pub instances: u32,
    /// Those that take calls.
    pub ready: u32,
    /// Calls on them.
    pub in_flight: u32,
    /// Calls in line for them.
    pub waiting: u32,
}

impl State {
    /// The functions of one live version, or of all.
    pub(super) fn view_functions(&self, app: Option<&AppKey>) -> Vec<FunctionFleet> {
        let live = self.live.iter().filter(|(key, _)| app.is_none_or(|app| app == *key));
        let pools = live.filter_map(|(key, version)| self.pools.get(&(key.clone(), *version)));
        let mut found: Vec<_> = pools
            .flat_map(|pool| pool.spec.manifest.functions.keys().filter_map(|name| self.view_function(pool, name)))
            .collect();
        found.sort_by(|one, other| one.function.cmp(&other.function));
        found
    }

    fn view_function(&self, pool: &Pool, name: &ObjectName) -> Option<FunctionFleet> {
        let elastic = pool.elastic(name)?;
        let object = pool.objects.get(name)?;
        let ready = object.instances(&self.instances).filter(|(_, inst)| inst.state == InstanceState::Ready);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Some(FunctionFleet {
            function: FunctionKey::new(pool.spec.key.clone(), name.clone()),
            version: pool.spec.version,
            concurrency: elastic.concurrency,
            bounds: (elastic.bounds.min, elastic.bounds.max),
            scaled: object.scaled_to.is_some(),
            instances: count(object.slots.len()),
            ready: count(ready.count()),
            in_flight: object.instances(&self.instances).map(|(_, inst)| inst.in_flight()).sum(),
            waiting: object.queued.values().sum(),
        })
    }

    pub(super) fn view_apps(&self) -> HashMap<AppKey, AppFleet> {
        let mut apps: HashMap<AppKey, AppFleet> = HashMap::new();
        for inst in self.instances.values() {
            let app = apps.entry(inst.key.clone()).or_default();
            app.instances += 1;
            if inst.state == InstanceState::Ready && self.live.get(&inst.key) == Some(&inst.version) {
                app.ready += 1;
            }
        }
        for key in &self.crashing {
            let pool = self.live.get(key).and_then(|version| self.pools.get(&(key.clone(), *version)));
            let words = pool.and_then(why_crashing).unwrap_or_else(|| "instances end again and again".to_owned());
            apps.entry(key.clone()).or_default().crashing = Some(words);
        }
        apps
    }

    pub(super) fn view_instances(&self) -> Vec<api::Instance> {
        let mut found: Vec<_> = self.instances.iter().map(|(id, inst)| self.view_instance(id, inst)).collect();
        found.sort_by(|a, b| {
            (&a.app, &a.object, a.version, &a.instance).cmp(&(&b.app, &b.object, b.version, &b.instance))
        });
        found
    }

    fn view_instance(&self, id: &InstanceId, inst: &Inst) -> api::Instance {
        let slot = self
            .pools
            .get(&(inst.key.clone(), inst.version))
            .and_then(|pool| pool.objects.values().flat_map(|o| &o.slots).find(|s| s.instance.as_ref() == Some(id)));
        api::Instance {
            instance: id.clone(),
            app: inst.key.app.clone(),
            environment: inst.key.environment.clone(),
            object: inst.object.clone(),
            kind: inst.kind.as_str().to_owned(),
            version: inst.version,
            state: inst.state,
            pid: inst.pid,
            address: inst.address.map(|address| address.to_string()),
            in_flight: inst.in_flight(),
            started_at: inst.started_at,
            restarts: slot.map_or(0, |slot| slot.crashes.total),
            detail: inst.last_probe.clone(),
        }
    }
}

fn why_crashing(pool: &Pool) -> Option<String> {
    pool.objects.values().flat_map(|object| &object.slots).find_map(|slot| {
        let last = slot.last_end.as_ref()?;
        Some(format!("{last}; ended {} times", slot.crashes.total))
    })
}
