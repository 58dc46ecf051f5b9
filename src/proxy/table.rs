//! The route table: which object a host and a path belong to.
//!
//! A [`Table`] is immutable and published whole; threads that hold an old one simply look again. The [`Registry`]
//! is owned by `link.rs`, is the only maker of tables, and keeps instances and objects over generations, so that
//! the count of an instance's requests survives any number of tables. Only apps that changed are built anew.
//!
//! Matching: an exact host before a one-level wildcard; the host decides, then the longest path prefix on segment
//! borders. Invariant: a path that two readers could place under different routes (`/a/../b`, `/a%2fb`, `//b`)
//! reaches neither, see [`Lookup::Ambiguous`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use crate::decide::near::nearest;
use crate::domain::{AppKey, EnvironmentName, InstanceId, ObjectName, VersionNumber};
use crate::wire::proxy::{AppRoutes, FunctionRoute, ObjectRoute, RouteTable, Upstream, WhenEmpty};

use super::claim::Instance;
use super::path;
use super::queue::{Activity, Object};

/// One object's way from host and path, or a function's from its name, to its instances, in one generation.
#[derive(Debug)]
pub struct Route {
    /// Path prefix without a slash at its end: empty for everything.
    pub prefix: Box<str>,
    /// The prefix is removed before forwarding.
    pub strip_prefix: bool,
    /// A request must bring a token that may call the app.
    pub needs_token: bool,
    /// Requests at once per instance.
    pub concurrency: u32,
    /// Until the answer's head; for a function until the end of its answer.
    pub request_timeout: Duration,
    /// Largest request body.
    pub max_body: u64,
    /// Requests that may wait.
    pub queue: u32,
    /// How long they may wait.
    pub queue_timeout: Duration,
    /// What a request finds when there are no instances.
    pub when_empty: WhenEmpty,
    /// The ready instances.
    pub instances: Box<[Arc<Instance>]>,
    /// Line and counters.
    pub object: Arc<Object>,
    /// The version whose code it runs.
    pub version: VersionNumber,
    /// A call that is overdue ends with its connection, and the instance goes on.
    pub isolated: bool,
    hosts: Box<[Box<str>]>,
}

/// All routes of one generation.
#[derive(Debug, Default)]
pub struct Table {
    /// Which.
    pub generation: u64,
    exact: HashMap<Box<str>, Vec<Arc<Route>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<Route>>>,
    functions: HashMap<AppKey, Arc<Functions>>,
}

/// The functions of an app. Of one name there may be several: the live version's and those that calls are pinned to.
type Functions = HashMap<ObjectName, Vec<Arc<Route>>>;

/// What a host and a path lead to.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// This route.
    Found(&'a Arc<Route>),
    /// No app has this host.
    UnknownHost,
    /// The host is known, the path is not.
    UnknownPath,
    /// The path as it is written and the path as it may be understood lead to different routes.
    Ambiguous,
    /// No app of this name runs.
    UnknownApp,
    /// The app has no function of this name.
    UnknownFunction,
    /// The function is there, the version is not.
    UnknownVersion,
}

impl Table {
    /// Finds the route of a request. `host` as the client sent it: any case, with or without port.
    pub fn find(&self, host: &str, path: &str) -> Lookup<'_> {
        let host = bare_host(host);
        let routes = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            self.by_host(&host.to_ascii_lowercase())
        } else {
            self.by_host(host)
        };
        let Some(routes) = routes else { return Lookup::UnknownHost };
        let found = longest(routes, path);
        // One route for everything cannot be missed, however the path is read.
        let decided = matches!(&**routes, [only] if only.prefix.is_empty());
        if !decided && let Some(understood) = path::understood(path) {
            let other = longest(routes, &understood);
            if !same(found, other) {
                return Lookup::Ambiguous;
            }
        }
        found.map_or(Lookup::UnknownPath, Lookup::Found)
    }

    /// Finds the route of a call. Without a version the live one is meant.
    pub fn find_function(&self, app: &AppKey, function: &ObjectName, version: Option<VersionNumber>) -> Lookup<'_> {
        let Some(functions) = self.functions.get(app) else { return Lookup::UnknownApp };
        let routes = functions.get(function).map(Vec::as_slice).unwrap_or_default();
        let wanted = |route: &&Arc<Route>| match version {
            Some(version) => route.version == version,
            None => route.object.pinned.is_none(),
        };
        match (routes.iter().find(wanted), version) {
            (Some(route), _) => Lookup::Found(route),
            (None, Some(_)) => Lookup::UnknownVersion,
            (None, None) => Lookup::UnknownFunction,
        }
    }

    /// The function of an app's live version that may have been meant by a name that it does not have.
    pub fn function_near(&self, app: &AppKey, function: &ObjectName) -> Option<String> {
        let all = self.functions.get(app)?.iter();
        let live = all.filter(|(_, routes)| routes.iter().any(|route| route.object.pinned.is_none()));
        nearest(function.as_str(), live.map(|(name, _)| name.as_str())).map(str::to_owned)
    }

    /// The app with functions, among those that somebody may know of, that may have been meant by one that does not run.
    pub fn app_near(&self, app: &AppKey, may_know: impl Fn(&AppKey) -> bool) -> Option<String> {
        let here = self.functions.iter().filter(|(_, functions)| !functions.is_empty()).map(|(key, _)| key);
        let known = here.filter(|key| key.environment == app.environment && may_know(key));
        nearest(app.app.as_str(), known.map(|key| key.app.as_str())).map(str::to_owned)
    }

    /// Whether calls name this version of the app, although another is live.
    pub fn has_pinned(&self, app: &AppKey, version: VersionNumber) -> bool {
        let mut routes = self.functions.get(app).into_iter().flat_map(|functions| functions.values().flatten());
        routes.any(|route| route.object.pinned == Some(version))
    }

    /// The environment of the one app of this name that runs; `None` when there is none, or more than one.
    pub fn only_environment_of(&self, app: &str) -> Option<&EnvironmentName> {
        let mut found = self.functions.keys().filter(|key| key.app.as_str() == app);
        found.next().filter(|_| found.next().is_none()).map(|key| &key.environment)
    }

    /// The environment of all apps that run; `None` when there are several, or none.
    pub fn only_environment(&self) -> Option<&EnvironmentName> {
        let mut all = self.functions.keys().map(|key| &key.environment);
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }

    fn by_host(&self, host: &str) -> Option<&Vec<Arc<Route>>> {
        self.exact.get(host).or_else(|| {
            let (label, rest) = host.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(rest) }
        })
    }

    fn add(&mut self, route: &Arc<Route>) {
        for host in &route.hosts {
            let (map, key) = match host.strip_prefix("*.") {
                Some(rest) => (&mut self.wildcard, rest),
                None => (&mut self.exact, &**host),
            };
            let routes = map.entry(key.into()).or_default();
            if let Some(first) = routes.iter().find(|other| other.prefix == route.prefix) {
                warn!(
                    host = &**host,
                    path = &*route.prefix,
                    kept = %first.object.app,
                    ignored = %route.object.app,
                    "two objects have the same host and path; the first by name keeps it"
                );
                continue;
            }
            let at = routes.partition_point(|other| other.prefix.len() >= route.prefix.len());
            routes.insert(at, Arc::clone(route));
        }
    }
}

fn same(one: Option<&Arc<Route>>, other: Option<&Arc<Route>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// `routes` are sorted, longest prefix first.
fn longest<'a>(routes: &'a [Arc<Route>], path: &str) -> Option<&'a Arc<Route>> {
    routes.iter().find(|route| {
        path.strip_prefix(&*route.prefix)
            .is_some_and(|rest| route.prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
    })
}

/// Without port and without the dot that ends an absolute name.
fn bare_host(host: &str) -> &str {
    let host = match host.rfind([':', ']']) {
        Some(at) if host.as_bytes().get(at) == Some(&b':') => &host[..at],
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// An app as it is now: what was said about it and what was made of it.
#[derive(Debug)]
struct Built {
    said: AppRoutes,
    /// The same as it is written to disk.
    written: Box<[u8]>,
    routes: Vec<Arc<Route>>,
    functions: Arc<Functions>,
}

impl Built {
    fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().chain(self.functions.values().flatten())
    }
}

/// What tells objects apart: those of live versions, and those that calls are pinned to.
type Which = (AppKey, ObjectName, Option<VersionNumber>);

/// Why a change cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("change {got} does not follow generation {have}; a full table is needed")]
pub struct Gap {
    /// The generation here.
    pub have: u64,
    /// The one the change makes.
    pub got: u64,
}

/// Everything known about apps, objects and instances. Makes tables.
#[derive(Debug)]
pub struct Registry {
    generation: u64,
    apps: BTreeMap<AppKey, Built>,
    objects: HashMap<Which, Arc<Object>>,
    instances: HashMap<InstanceId, Arc<Instance>>,
    serial: u64,
    activity: Arc<Activity>,
    drained: mpsc::UnboundedSender<InstanceId>,
}

impl Registry {
    /// An empty one. `drained` hears of every instance that has drained.
    pub fn new(activity: Arc<Activity>, drained: mpsc::UnboundedSender<InstanceId>) -> Self {
        Self {
            generation: 0,
            apps: BTreeMap::new(),
            objects: HashMap::new(),
            instances: HashMap::new(),
            serial: 0,
            activity,
            drained,
        }
    }

    /// The generation last applied; 0 for none.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Replaces everything.
    pub fn replace(&mut self, table: RouteTable) {
        let mut old = std::mem::take(&mut self.apps);
        for app in table.apps {
            let kept = old.remove(&app.app).filter(|built| built.said == app);
            let built = kept.unwrap_or_else(|| self.build(app));
            self.apps.insert(built.said.app.clone(), built);
        }
        self.generation = table.generation;
        self.forget_unused();
    }

    /// Applies what differs from the generation before.
    pub fn change(&mut self, generation: u64, set: Vec<AppRoutes>, remove: &[AppKey]) -> Result<(), Gap> {
        if self.generation == 0 || generation != self.generation + 1 {
            return Err(Gap { have: self.generation, got: generation });
        }
        for key in remove {
            self.apps.remove(key);
        }
        for app in set {
            let built = self.build(app);
            self.apps.insert(built.said.app.clone(), built);
        }
        self.generation = generation;
        self.forget_unused();
        Ok(())
    }

    /// The table of the present generation.
    pub fn table(&self) -> Table {
        let mut table = Table { generation: self.generation, ..Table::default() };
        for built in self.apps.values() {
            // Also an app without functions is known: what it lacks is the function.
            table.functions.insert(built.said.app.clone(), Arc::clone(&built.functions));
            built.routes.iter().for_each(|route| table.add(route));
        }
        for route in self.routes() {
            let ready = !route.instances.is_empty();
            route.object.is_ready(ready);
            if ready {
                route.object.end_wave();
            }
        }
        table
    }

    /// The present generation as it is written to disk: a [`RouteTable`] in JSON, put together from what was written
    /// of each app when it last changed.
    pub fn written(&self) -> Vec<u8> {
        let length = self.apps.values().map(|built| built.written.len() + 1).sum::<usize>();
        let mut whole = Vec::with_capacity(length + 64);
        whole.extend_from_slice(format!(r#"{{"generation":{},"apps":["#, self.generation).as_bytes());
        for (index, built) in self.apps.values().filter(|built| !built.written.is_empty()).enumerate() {
            if index > 0 {
                whole.push(b',');
            }
            whole.extend_from_slice(&built.written);
        }
        whole.extend_from_slice(b"]}");
        whole
    }

    /// An instance that is in the table or still has requests.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(id)
    }

    /// The routes of all objects.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.apps.values().flat_map(Built::all)
    }

    /// Instances that were given up for a call that is overdue.
    pub fn given_up(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values().filter(|instance| instance.given_up_for().is_some())
    }

    /// Objects that have answered something of which the controller was not told.
    pub fn untold(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().filter(|object| !object.traffic.is_empty())
    }

    /// The first in each line looks again: there may be places now, or no route any more.
    pub fn wake_waiting(&self) {
        for object in self.objects.values().filter(|object| object.waiting() > 0) {
            object.wake_front();
        }
    }

    /// Instances outside the table that still have requests, by object.
    pub fn leaving(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values().filter(|instance| instance.in_flight() > 0)
    }

    /// Drops instances that are in no route and have no request, and objects without route, request and untold answer.
    pub fn forget_unused(&mut self) {
        // A thread that still holds an older table can claim what is in it, and a drain must find that instance here.
        // What nobody else holds, no route and no request, nobody can claim: then, and only then, "unknown" means "drained".
        self.instances.retain(|_, instance| Arc::strong_count(instance) > 1);
        self.objects.retain(|_, object| Arc::strong_count(object) > 1 || !object.traffic.is_empty());
    }

    fn build(&mut self, said: AppRoutes) -> Built {
        let version = said.version;
        let routes = said.objects.iter().map(|object| Arc::new(self.build_route(&said.app, version, object))).collect();
        let mut functions = Functions::new();
        for function in &said.functions {
            let route = Arc::new(self.build_function(&said.app, function));
            functions.entry(function.function.clone()).or_default().push(route);
        }
        let written = serde_json::to_vec(&said).unwrap_or_else(|error| {
            warn!(app = %said.app, %error, "the routes of an app cannot be written; a restarted proxy begins without them");
            Vec::new()
        });
        Built { said, written: written.into(), routes, functions: Arc::new(functions) }
    }

    fn build_function(&mut self, app: &AppKey, said: &FunctionRoute) -> Route {
        let object = self.object(app, &said.function, said.pinned.then_some(said.version));
        let instances = said.instances.iter().map(|upstream| self.known_instance(upstream, &object)).collect();
        Route {
            prefix: "".into(),
            strip_prefix: false,
            needs_token: false,
            concurrency: said.concurrency.max(1),
            request_timeout: said.timeout.duration(),
            max_body: said.max_body.0,
            queue: said.queue,
            queue_timeout: said.queue_timeout.duration(),
            when_empty: said.when_empty.clone(),
            instances,
            object,
            version: said.version,
            isolated: said.isolated,
            hosts: Box::default(),
        }
    }

    fn build_route(&mut self, app: &AppKey, version: VersionNumber, said: &ObjectRoute) -> Route {
        let object = self.object(app, &said.object, None);
        let instances = said.instances.iter().map(|upstream| self.known_instance(upstream, &object)).collect();
        Route {
            prefix: said.path.trim_end_matches('/').into(),
            strip_prefix: said.strip_prefix,
            needs_token: said.needs_token,
            concurrency: said.concurrency.max(1),
            request_timeout: said.request_timeout.duration(),
            max_body: said.max_body.0,
            queue: said.queue,
            queue_timeout: said.queue_timeout.duration(),
            when_empty: said.when_empty.clone(),
            instances,
            object,
            version,
            isolated: false,
            hosts: said.hosts.iter().map(|host| host.to_ascii_lowercase().into_boxed_str()).collect(),
        }
    }

    fn object(&mut self, app: &AppKey, name: &ObjectName, pinned: Option<VersionNumber>) -> Arc<Object> {
        let activity = &self.activity;
        let object = self.objects.entry((app.clone(), name.clone(), pinned)).or_insert_with(|| {
            let object = Object::new(app.clone(), name.clone(), Arc::clone(activity));
            Arc::new(match pinned {
                Some(version) => object.pinned_to(version),
                None => object,
            })
        });
        Arc::clone(object)
    }

    fn known_instance(&mut self, upstream: &Upstream, object: &Arc<Object>) -> Arc<Instance> {
        if let Some(known) = self.instances.get(&upstream.instance) {
            if known.address != upstream.address {
                warn!(instance = %known.id, "an instance cannot change its address; the first one stays");
            }
            return Arc::clone(known);
        }
        self.serial += 1;
        let instance = Arc::new(Instance::new(
            upstream.instance.clone(),
            upstream.address,
            upstream.version,
            self.serial,
            Arc::clone(object),
            self.drained.clone(),
        ));
        self.instances.insert(upstream.instance.clone(), Arc::clone(&instance));
        instance
    }
}
