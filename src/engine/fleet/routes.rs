//! From pools to the route table.

use std::time::Duration;

use super::pool::{ObjectPool, Pool};
use super::{State, Timer};
use crate::domain::manifest::{Auth, Code, Function, Millis, Web};
use crate::domain::{AppKey, InstanceState, ObjectName};
use crate::engine::spec::{Surroundings, VersionSpec};
use crate::wire::proxy::{AppRoutes, FunctionRoute, ObjectRoute, RouteTable, ToProxy, Upstream, WhenEmpty};

/// Requests of one object that may wait for a free slot or a first instance.
const QUEUE: u32 = 1000;
/// How long a request may wait for a free slot.
const QUEUE_TIMEOUT: Millis = Millis::seconds(30);
/// A deployment waits this long for proxies to say that they serve the new table.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(10);

/// The hosts and paths a version serves.
pub(super) fn places(spec: &VersionSpec, around: &Surroundings) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, web) in &spec.manifest.web {
        found.extend(hosts(spec, name, web, around).into_iter().map(|host| (host, web.path.clone())));
    }
    found
}

fn hosts(spec: &VersionSpec, name: &ObjectName, web: &Web, around: &Surroundings) -> Vec<String> {
    let mut hosts = vec![spec.manifest.host(name, &around.domain_of(&spec.key.environment))];
    hosts.extend(web.hosts.iter().cloned());
    hosts
}

impl State {
    /// Publishes the routes of every app that has changed, as one change.
    pub(super) fn publish(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for key in std::mem::take(&mut self.dirty) {
            let routes = self.routes_of(&key);
            match self.proxies.table.get(&key) {
                before if before == routes.as_ref() => {}
                _ => match routes {
                    Some(routes) => {
                        self.proxies.table.insert(key, routes.clone());
                        set.push(routes);
                    }
                    None => {
                        self.proxies.table.remove(&key);
                        remove.push(key);
                    }
                },
            }
        }
        if set.is_empty() && remove.is_empty() {
            return;
        }
        self.proxies.generation += 1;
        let generation = self.proxies.generation;
        self.broadcast(&ToProxy::Change { generation, set, remove });
    }

    /// Nobody waits for ever for a proxy that does not answer.
    pub(super) fn schedule_published_late(&mut self) {
        let generation = self.proxies.generation;
        self.after(PUBLISH_DEADLINE, Timer::PublishedLate { generation });
    }

    pub(super) fn whole_table(&self) -> ToProxy {
        let apps = self.proxies.table.values().cloned().collect();
        ToProxy::Table(RouteTable { generation: self.proxies.generation, apps })
    }

    fn routes_of(&self, key: &AppKey) -> Option<AppRoutes> {
        if let Some(version) = self.live.get(key) {
            let pool = self.pools.get(&(key.clone(), *version))?;
            let routes = self.app_routes(pool, |state, object, name| state.when_empty(pool, object, name));
            return self.with_pinned(key, *version, routes);
        }
        let (spec, reason) = self.refusals.get(key)?;
        let empty = Pool::new(spec.clone(), super::pool::Role::Retiring);
        self.app_routes(&empty, |_, _, _| WhenEmpty::Refuse { reason: reason.clone() })
    }

    fn app_routes(
        &self,
        pool: &Pool,
        when_empty: impl Fn(&Self, Option<&ObjectPool>, &ObjectName) -> WhenEmpty,
    ) -> Option<AppRoutes> {
        let spec = &pool.spec;
        let objects: Vec<ObjectRoute> = spec
            .manifest
            .web
            .iter()
            .map(|(name, web)| {
                let slots = pool.objects.get(name);
                ObjectRoute {
                    object: name.clone(),
                    hosts: hosts(spec, name, web, &self.around),
                    path: web.path.clone(),
                    strip_prefix: web.strip_prefix,
                    needs_token: web.auth == Auth::Token,
                    concurrency: web.concurrency,
                    request_timeout: web.request_timeout,
                    max_body: web.max_body,
                    queue: QUEUE,
                    queue_timeout: QUEUE_TIMEOUT.min(web.request_timeout),
                    instances: slots.map(|slots| self.upstreams(slots)).unwrap_or_default(),
                    when_empty: when_empty(self, slots, name),
                }
            })
            .collect();
        let functions: Vec<FunctionRoute> = spec
            .manifest
            .functions
            .iter()
            .map(|(name, function)| {
                let slots = pool.objects.get(name);
                self.function_route(pool, name, function, when_empty(self, slots, name))
            })
            .collect();
        if objects.is_empty() && functions.is_empty() {
            return None;
        }
        Some(AppRoutes { app: spec.key.clone(), version: spec.version, objects, functions })
    }

    pub(super) fn function_route(
        &self,
        pool: &Pool,
        name: &ObjectName,
        function: &Function,
        when_empty: WhenEmpty,
    ) -> FunctionRoute {
        FunctionRoute {
            function: name.clone(),
            version: pool.spec.version,
            pinned: false,
            isolated: matches!(function.code, Code::Exec(_)),
            concurrency: function.concurrency,
            timeout: function.timeout,
            max_body: function.max_body,
            queue: function.queue,
            // Whoever waits behind one call of the longest kind, or for a first instance, gets its turn.
            queue_timeout: function.timeout.max(function.startup_timeout),
            instances: pool.objects.get(name).map(|slots| self.upstreams(slots)).unwrap_or_default(),
            when_empty,
        }
    }

    fn upstreams(&self, slots: &ObjectPool) -> Vec<Upstream> {
        slots
            .instances(&self.instances)
            .filter(|(_, inst)| inst.state == InstanceState::Ready)
            .filter_map(|(id, inst)| {
                Some(Upstream { instance: id.clone(), address: inst.address?, version: inst.version })
            })
            .collect()
    }

    /// A request waits when an instance is on its way, and is told why when none is.
    pub(super) fn when_empty(&self, pool: &Pool, slots: Option<&ObjectPool>, name: &ObjectName) -> WhenEmpty {
        let Some(slots) = slots else { return WhenEmpty::Wait };
        if !slots.crashing() {
            return WhenEmpty::Wait;
        }
        let last = slots.slots.iter().find_map(|slot| slot.last_end.clone());
        let command = pool.spec.written_command(name).unwrap_or_default().join(" ");
        let reason = last.unwrap_or_else(|| format!("instances of `{command}` end again and again"));
        WhenEmpty::Refuse { reason: format!("no instance is ready: {reason}") }
    }
}
