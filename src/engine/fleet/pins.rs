//! Pools of earlier versions that calls name: started for the first such call, kept while there are more, gone after idling.
//!
//! A pin changes nothing else: the live version stays live, and a pinned pool has instances of the functions that were
//! called only.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use super::State;
use super::pool::{Pool, Role, Slot};
use crate::domain::{AppKey, ObjectName, VersionNumber};
use crate::engine::spec::VersionSpec;
use crate::wire::proxy::{AppRoutes, FunctionRoute};

impl State {
    /// Makes sure that calls of this function of this version find a route; answers when every proxy has it.
    pub(super) fn pin(&mut self, spec: Arc<VersionSpec>, function: ObjectName, reply: oneshot::Sender<()>) {
        let (key, version) = (spec.key.clone(), spec.version);
        // The live version has a route already, and of a stopped app nothing runs.
        let needs_none = self.live.get(&key).is_none_or(|live| *live == version);
        let at = (key.clone(), version);
        if !needs_none {
            let pool = self.pools.entry(at).or_insert_with(|| Pool::new(spec, Role::Pinned));
            if pool.role == Role::Pinned {
                let object = pool.objects.entry(function.clone()).or_default();
                if object.slots.is_empty() {
                    info!(app = %key, %version, object = %function, "started for a call that names its version");
                    object.slots.push(Slot::default());
                }
                self.dirty.insert(key.clone());
                self.fill_slots(&key, version);
                self.publish();
                self.schedule_scaling(&key, version);
            }
        }
        self.proxies.when_published(move || {
            let _ = reply.send(());
        });
        self.schedule_published_late();
    }

    /// Adds the routes of pinned pools to those of the live version.
    pub(super) fn with_pinned(
        &self,
        key: &AppKey,
        live: VersionNumber,
        routes: Option<AppRoutes>,
    ) -> Option<AppRoutes> {
        let pinned: Vec<FunctionRoute> = self
            .pools
            .range((key.clone(), VersionNumber::FIRST)..)
            .take_while(|((app, _), _)| app == key)
            .filter(|(_, pool)| pool.role == Role::Pinned)
            .flat_map(|(_, pool)| self.pinned_routes(pool))
            .collect();
        if pinned.is_empty() {
            return routes;
        }
        let empty = || AppRoutes { app: key.clone(), version: live, objects: Vec::new(), functions: Vec::new() };
        let mut routes = routes.unwrap_or_else(empty);
        routes.functions.extend(pinned);
        Some(routes)
    }

    fn pinned_routes(&self, pool: &Pool) -> Vec<FunctionRoute> {
        let route = |name: &ObjectName| {
            let function = pool.spec.function(name)?;
            let when_empty = self.when_empty(pool, pool.objects.get(name), name);
            Some(FunctionRoute { pinned: true, ..self.function_route(pool, name, function, when_empty) })
        };
        pool.objects.keys().filter_map(route).collect()
    }

    /// Forgets a pinned pool in which nothing is left.
    pub(super) fn drop_if_unused(&mut self, key: &AppKey, version: VersionNumber) {
        let at = (key.clone(), version);
        let unused = self.pools.get(&at).is_some_and(|pool| {
            pool.role == Role::Pinned && pool.objects.values().all(|object| object.slots.is_empty())
        });
        if unused {
            self.pools.remove(&at);
            self.dirty.insert(key.clone());
        }
    }
}
