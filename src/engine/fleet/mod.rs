//! The instances of all apps: started, probed, restarted, scaled, drained and stopped; and the routes to them.
//!
//! Owned by one task that others reach by commands on a bounded queue. Neighbours: `deployer` prepares and
//! promotes pools, the supervisor reports ends, proxies report load. It knows nothing of git or the ledger.
//!
//! Invariants:
//! - A change of an app's routes is published as one change over all its objects.
//! - Publish, then drain, then stop: an instance is told to stop only after every proxy has a table without
//!   it and has said that nothing is on it (or its drain time is over).

mod drain;
mod life;
mod pins;
mod pool;
mod prepare;
mod proxies;
mod recover;
mod routes;
mod scaling;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use pool::{GoneWaiter, Inst, Pool};
pub use pool::{ObjectProgress, Progress, StartFailure, WaitingInstance};
pub use proxies::{ProxyMessage, serve_proxies};
pub use views::{AppFleet, FunctionFleet};

use crate::domain::{AppKey, ExitStatus, Grant, InstanceId, ObjectName, TokenId, VersionNumber};
use crate::engine::sleeping::sleep_until;
use crate::engine::spec::{Surroundings, VersionSpec};
use crate::engine::vault::Vault;
use crate::ledger::scaled::Scaled;
use crate::runtime::Runtime;
use crate::runtime::probe::ProbeAnswer;
use crate::runtime::supervisor_link::{StartError, SupervisorEvent};
use crate::wire::api;
use crate::wire::proxy::{ProxyOptions, TlsOptions, ToProxy};
use crate::wire::supervisor::{Child, Inventory, ProxyProcess, StartRequest};

/// Commands that may wait for the fleet.
const QUEUE: usize = 1024;
/// Processes that the supervisor is asked for at once. It starts one after the other: more would only wait there, each
/// against its deadline, and whatever else is asked of it behind them.
const STARTS: usize = 8;

/// What others ask of the fleet.
pub(crate) enum Command {
    /// Starts instances of these objects as a candidate; those that exist already are left alone.
    Prepare { spec: Arc<VersionSpec>, objects: BTreeSet<ObjectName>, reply: oneshot::Sender<watch::Receiver<Progress>> },
    /// Stops instances of these objects of a live version to make room; answers when they are gone.
    Park { key: AppKey, version: VersionNumber, objects: BTreeSet<ObjectName>, reply: oneshot::Sender<()> },
    /// Takes [`Command::Park`] back.
    Unpark { key: AppKey, version: VersionNumber },
    /// Makes a candidate live and retires the version before; answers when the routes are published.
    Promote { spec: Arc<VersionSpec>, reply: oneshot::Sender<watch::Receiver<Progress>> },
    /// Stops a candidate; answers when it is gone.
    Discard { key: AppKey, version: VersionNumber, reply: oneshot::Sender<()> },
    /// Stops everything of an app; requests are refused with the reason.
    StopApp { key: AppKey, refusal: Option<(Arc<VersionSpec>, String)> },
    /// Drops even the refusal.
    Forget { key: AppKey },
    /// Lets calls of a function name this version; answers when the route is published.
    Pin { spec: Arc<VersionSpec>, function: ObjectName, reply: oneshot::Sender<()> },
    /// Other bounds for an object of the live version; `None` for those of its manifest. Answers those that hold now.
    Scale { key: AppKey, object: ObjectName, to: Option<(u32, u32)>, reply: oneshot::Sender<Option<(u32, u32)>> },
    /// Another app that already serves a host and path of this version.
    HostConflict { spec: Arc<VersionSpec>, reply: oneshot::Sender<Option<HostConflict>> },
    /// Runs a build to its end.
    Build { request: Box<StartRequest>, reply: oneshot::Sender<Result<BuildEnd, StartError>> },
    /// Ends a build.
    StopBuild { instance: InstanceId },
    /// Replaces an instance; answers whether it could be.
    Replace { instance: InstanceId, reply: oneshot::Sender<bool> },
    /// How apps stand.
    Apps { reply: oneshot::Sender<HashMap<AppKey, AppFleet>> },
    /// How functions stand, of one app or of all.
    Functions { app: Option<AppKey>, reply: oneshot::Sender<Vec<FunctionFleet>> },
    /// All instances.
    Instances { reply: oneshot::Sender<Vec<api::Instance>> },
    /// Versions that still have instances.
    Running { key: AppKey, reply: oneshot::Sender<Vec<VersionNumber>> },
    /// How the live version of an app stands, now and from now on; `None` when there is none.
    Live { key: AppKey, reply: oneshot::Sender<Option<watch::Receiver<Progress>>> },
    /// New settings for all proxies.
    ProxySettings { options: ProxyOptions },
    /// All tokens that are worth something, for all proxies.
    Tokens { grants: Vec<Grant> },
    /// What HTTPS needs to know, for all proxies; answered when all of them know it.
    Tls { options: TlsOptions, reply: oneshot::Sender<()> },
    /// The hosts of all apps.
    Hosts { reply: oneshot::Sender<BTreeSet<String>> },
    /// The proxies there are.
    Proxies { reply: oneshot::Sender<Vec<ProxyProcess>> },
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildEnd {
    /// Its exit.
    pub status: ExitStatus,
    /// The kernel ended it for want of memory.
    pub oom: bool,
}

/// Two apps claim one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConflict {
    /// The host and path.
    pub place: String,
    /// Who serves it now.
    pub owner: AppKey,
}

/// What the fleet tells on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Instances of a live version end again and again.
    Crashing {
        /// The app.
        key: AppKey,
        /// The version.
        version: VersionNumber,
        /// In words.
        message: String,
    },
    /// They have stopped doing so.
    Recovered {
        /// The app.
        key: AppKey,
        /// The version.
        version: VersionNumber,
    },
    /// Somebody changed a container of a version by hand.
    Drifted {
        /// The app.
        key: AppKey,
        /// The version.
        version: VersionNumber,
        /// What, and what becomes of it.
        message: String,
    },
    /// SIGHUP.
    Reload,
    /// The agent ends.
    Shutdown,
    /// The supervisor is gone or does not answer; this process must end and be started again.
    SupervisorLost,
}

/// What comes back from tasks the fleet started.
pub(crate) enum Inner {
    /// The start of an instance is ready, and it is its turn.
    Turn {
        instance: InstanceId,
        request: Result<Box<StartRequest>, StartError>,
        turn: Option<OwnedSemaphorePermit>,
    },
    Started {
        instance: InstanceId,
        result: Result<Box<Child>, StartError>,
    },
    Probed {
        instance: InstanceId,
        answer: ProbeAnswer,
    },
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    commands: mpsc::Sender<Command>,
}

/// What the fleet starts with.
pub struct Beginning {
    /// Where instances live.
    pub runtime: Runtime,
    /// What instances get of secrets.
    pub vault: Vault,
    /// What instances share with the agent.
    pub surroundings: Arc<Surroundings>,
    /// What the supervisor knows.
    pub inventory: Inventory,
    /// The live version of every app that is not stopped.
    pub live: Vec<Arc<VersionSpec>>,
    /// Versions with an open deployment that are not live.
    pub candidates: Vec<Arc<VersionSpec>>,
    /// Bounds set by hand; those of other versions than the live ones mean nothing.
    pub scaled: Vec<Scaled>,
    /// Objects of live versions that had made room for a candidate's.
    pub parked: Vec<(AppKey, BTreeSet<ObjectName>)>,
    /// Other versions that still have instances.
    pub outdated: Vec<Arc<VersionSpec>>,
    /// Stopped apps with the reason requests are refused for.
    pub stopped: Vec<(Arc<VersionSpec>, String)>,
    /// Facts from the supervisor.
    pub supervisor: mpsc::Receiver<SupervisorEvent>,
    /// Ends of instances that are not the supervisor's.
    pub ends: mpsc::Receiver<SupervisorEvent>,
    /// Messages from proxies.
    pub proxies: mpsc::Receiver<ProxyMessage>,
    /// What proxies are told of the configuration.
    pub proxy_options: ProxyOptions,
    /// Where whoever has calls for proxies hears of their lines.
    pub lines: watch::Sender<crate::engine::caller::ProxyLines>,
    /// The tokens that are worth something.
    pub grants: Vec<Grant>,
    /// Where it is told which tokens were used.
    pub used_tokens: mpsc::Sender<Vec<TokenId>>,
    /// Where notices go.
    pub notices: mpsc::Sender<Notice>,
}

impl Fleet {
    /// Takes over what runs and starts the task. The task ends when the last handle is dropped.
    pub fn start(beginning: Beginning) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(State::recover(beginning).run(queue));
        (Self { commands }, task)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Starts instances of these objects as a candidate; the receiver shows how they stand.
    pub async fn prepare(
        &self,
        spec: Arc<VersionSpec>,
        objects: BTreeSet<ObjectName>,
    ) -> Option<watch::Receiver<Progress>> {
        self.ask(|reply| Command::Prepare { spec, objects, reply }).await
    }

    /// Stops instances of these objects to make room, and waits until they are gone.
    pub async fn park(&self, key: AppKey, version: VersionNumber, objects: BTreeSet<ObjectName>) -> Option<()> {
        self.ask(|reply| Command::Park { key, version, objects, reply }).await
    }

    /// Takes [`Fleet::park`] back.
    pub async fn unpark(&self, key: AppKey, version: VersionNumber) {
        let _ = self.commands.send(Command::Unpark { key, version }).await;
    }

    /// Makes a version live: one new table for all its objects, then the version before is drained and stopped.
    /// Answers when the table is published.
    pub async fn promote(&self, spec: Arc<VersionSpec>) -> Option<watch::Receiver<Progress>> {
        self.ask(|reply| Command::Promote { spec, reply }).await
    }

    /// Stops a candidate and waits until it is gone.
    pub async fn discard(&self, key: AppKey, version: VersionNumber) -> Option<()> {
        self.ask(|reply| Command::Discard { key, version, reply }).await
    }

    /// Stops an app: requests are refused from now on, instances finish what they have. Commands take effect in the
    /// order they are given, so what is prepared after this is not stopped by it.
    pub async fn stop_app(&self, key: AppKey, refusal: Option<(Arc<VersionSpec>, String)>) {
        let _ = self.commands.send(Command::StopApp { key, refusal }).await;
    }

    /// Forgets a stopped app.
    pub async fn forget(&self, key: AppKey) {
        let _ = self.commands.send(Command::Forget { key }).await;
    }

    /// Other bounds for an object of the live version, until the next one; `None` for those of its manifest. Answers the
    /// bounds that hold now, or `None` when there is no such object that can be scaled.
    pub async fn scale(&self, key: AppKey, object: ObjectName, to: Option<(u32, u32)>) -> Option<(u32, u32)> {
        self.ask(|reply| Command::Scale { key, object, to, reply }).await.flatten()
    }

    /// Lets calls of a function name this version, although it is not live. Answers when the route is published.
    pub async fn pin(&self, spec: Arc<VersionSpec>, function: ObjectName) -> Option<()> {
        self.ask(|reply| Command::Pin { spec, function, reply }).await
    }

    /// Another app that already serves a host and path of this version.
    pub async fn host_conflict(&self, spec: Arc<VersionSpec>) -> Option<HostConflict> {
        self.ask(|reply| Command::HostConflict { spec, reply }).await.flatten()
    }

    /// Runs a build to its end.
    pub async fn build(&self, request: StartRequest) -> Option<Result<BuildEnd, StartError>> {
        self.ask(|reply| Command::Build { request: Box::new(request), reply }).await
    }

    /// Ends a build.
    pub async fn stop_build(&self, instance: InstanceId) {
        let _ = self.commands.send(Command::StopBuild { instance }).await;
    }

    /// Tells every proxy, now and when it connects, which tokens are worth something.
    pub async fn tokens(&self, grants: Vec<Grant>) {
        let _ = self.commands.send(Command::Tokens { grants }).await;
    }

    /// Has an instance finish what it has and end, and another take its place at once; `false` for one that is not in
    /// anybody's use. Workers that must never run twice are not meant.
    pub async fn replace(&self, instance: InstanceId) -> bool {
        self.ask(|reply| Command::Replace { instance, reply }).await.unwrap_or(false)
    }

    /// How apps stand.
    pub async fn apps(&self) -> HashMap<AppKey, AppFleet> {
        self.ask(|reply| Command::Apps { reply }).await.unwrap_or_default()
    }

    /// How the functions of live versions stand, of one app or of all.
    pub async fn functions(&self, app: Option<AppKey>) -> Vec<FunctionFleet> {
        self.ask(|reply| Command::Functions { app, reply }).await.unwrap_or_default()
    }

    /// All instances.
    pub async fn instances(&self) -> Vec<api::Instance> {
        self.ask(|reply| Command::Instances { reply }).await.unwrap_or_default()
    }

    /// Versions of an app that still have instances.
    pub async fn running(&self, key: AppKey) -> Vec<VersionNumber> {
        self.ask(|reply| Command::Running { key, reply }).await.unwrap_or_default()
    }

    /// How the live version of an app stands; the receiver ends when another one is live or the app is stopped.
    pub async fn live(&self, key: AppKey) -> Option<watch::Receiver<Progress>> {
        self.ask(|reply| Command::Live { key, reply }).await.flatten()
    }

    /// Gives all proxies new settings, those that connect later too.
    pub async fn set_proxies(&self, options: ProxyOptions) {
        let _ = self.commands.send(Command::ProxySettings { options }).await;
    }

    /// Gives all proxies what HTTPS needs to know, those that connect later too; returns when all that are there know it, or
    /// have not said so in time.
    pub async fn set_tls(&self, options: TlsOptions) {
        let _ = self.ask(|reply| Command::Tls { options, reply }).await;
    }

    /// The hosts that apps are reached under now.
    pub async fn hosts(&self) -> BTreeSet<String> {
        self.ask(|reply| Command::Hosts { reply }).await.unwrap_or_default()
    }

    /// The proxies there are.
    pub async fn proxies(&self) -> Vec<ProxyProcess> {
        self.ask(|reply| Command::Proxies { reply }).await.unwrap_or_default()
    }
}

/// Something to look at later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Restart { key: AppKey, version: VersionNumber },
    DrainOver { instance: InstanceId },
    Scale { key: AppKey, version: VersionNumber, object: ObjectName },
    Stable { instance: InstanceId },
    PublishedLate { generation: u64 },
}

/// Everything the task owns.
pub(crate) struct State {
    runtime: Runtime,
    /// Starts that the supervisor is asked for at once.
    starts: Arc<Semaphore>,
    vault: Vault,
    around: Arc<Surroundings>,
    pools: BTreeMap<(AppKey, VersionNumber), Pool>,
    live: HashMap<AppKey, VersionNumber>,
    refusals: HashMap<AppKey, (Arc<VersionSpec>, String)>,
    instances: HashMap<InstanceId, Inst>,
    builds: HashMap<InstanceId, Option<oneshot::Sender<Result<BuildEnd, StartError>>>>,
    places: HashMap<(String, String), AppKey>,
    places_of: HashMap<AppKey, Vec<(String, String)>>,
    crashing: BTreeSet<AppKey>,
    gone: Vec<GoneWaiter>,
    proxies: proxies::Proxies,
    dirty: BTreeSet<AppKey>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Instances that are one too many, to be retired.
    leaving: Vec<InstanceId>,
    inner: mpsc::Sender<Inner>,
    inner_queue: Option<mpsc::Receiver<Inner>>,
    supervisor: Option<mpsc::Receiver<SupervisorEvent>>,
    ends: Option<mpsc::Receiver<SupervisorEvent>>,
    proxy_messages: Option<mpsc::Receiver<ProxyMessage>>,
    notices: mpsc::Sender<Notice>,
    pending_notices: Vec<Notice>,
    /// The supervisor is gone; nothing more can be done.
    lost: bool,
    /// The agent ends: the supervisor stops every instance, and none is started again.
    ending: bool,
}

impl State {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let Some(mut inner) = self.inner_queue.take() else { return };
        let Some(mut supervisor) = self.supervisor.take() else { return };
        let Some(mut ends) = self.ends.take() else { return };
        let Some(mut proxies) = self.proxy_messages.take() else { return };
        loop {
            self.settle();
            self.send_notices();
            let next = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                event = supervisor.recv() => match event {
                    Some(event) => self.on_supervisor(event),
                    None => self.on_supervisor(SupervisorEvent::Lost),
                },
                Some(event) = ends.recv() => self.on_supervisor(event),
                Some(message) = inner.recv() => self.on_inner(message),
                Some(message) = proxies.recv() => self.on_proxy(message),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = sleep_until(next) => self.on_timers(),
            }
            if self.lost {
                self.send_notices();
                return;
            }
        }
    }

    /// Brings what others see up to what is known: routes first, then progress.
    fn settle(&mut self) {
        self.publish();
        // Many that go at once make one change and one message.
        let leaving = std::mem::take(&mut self.leaving);
        if !leaving.is_empty() {
            self.retire(&leaving);
        }
        self.answer_gone();
    }

    /// Hands on what there is to tell. Never waits: whoever listens may at this moment wait for the fleet.
    fn send_notices(&mut self) {
        while let Some(notice) = self.pending_notices.first() {
            match self.notices.try_send(notice.clone()) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => drop(self.pending_notices.remove(0)),
                Err(mpsc::error::TrySendError::Full(_)) => return,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Prepare { spec, objects, reply } => {
                let _ = reply.send(self.prepare(spec, &objects));
            }
            Command::Park { key, version, objects, reply } => self.park(&key, version, &objects, reply),
            Command::Unpark { key, version } => self.unpark(&key, version),
            Command::Promote { spec, reply } => self.promote(spec, reply),
            Command::Discard { key, version, reply } => self.discard(&key, version, reply),
            Command::StopApp { key, refusal } => self.stop_app(&key, refusal),
            Command::Forget { key } => self.forget(&key),
            Command::Pin { spec, function, reply } => self.pin(spec, function, reply),
            Command::Scale { key, object, to, reply } => {
                let _ = reply.send(self.scale(&key, &object, to));
            }
            Command::HostConflict { spec, reply } => {
                let _ = reply.send(self.host_conflict(&spec));
            }
            Command::Build { request, reply } => self.start_build(*request, reply),
            Command::StopBuild { instance } => self.stop_build(&instance),
            Command::Replace { instance, reply } => {
                let _ = reply.send(self.replace(&instance));
            }
            Command::Apps { reply } => {
                let _ = reply.send(self.view_apps());
            }
            Command::Functions { app, reply } => {
                let _ = reply.send(self.view_functions(app.as_ref()));
            }
            Command::Instances { reply } => {
                let _ = reply.send(self.view_instances());
            }
            Command::Running { key, reply } => {
                let running = self.pools.keys().filter(|(app, _)| *app == key).map(|(_, version)| *version);
                let outdated = self.instances.values().filter(|inst| inst.key == key).map(|inst| inst.version);
                let _ = reply.send(running.chain(outdated).collect::<BTreeSet<_>>().into_iter().collect());
            }
            Command::Live { key, reply } => {
                let live = self.live.get(&key).and_then(|version| self.pools.get(&(key.clone(), *version)));
                let _ = reply.send(live.map(|pool| pool.progress.subscribe()));
            }
            Command::ProxySettings { options } => {
                self.proxies.options = options.clone();
                self.broadcast(&ToProxy::Settings(options));
            }
            Command::Tokens { grants } => {
                self.broadcast(&ToProxy::Tokens { grants: grants.clone() });
                self.proxies.grants = grants;
            }
            Command::Tls { options, reply } => {
                self.proxies.tls = options.clone();
                self.broadcast(&ToProxy::Tls(options));
                // A generation that changes nothing: a proxy that serves it has heard what came before.
                self.proxies.generation += 1;
                let generation = self.proxies.generation;
                self.broadcast(&ToProxy::Change { generation, set: Vec::new(), remove: Vec::new() });
                self.proxies.when_published(move || {
                    let _ = reply.send(());
                });
                self.schedule_published_late();
            }
            Command::Hosts { reply } => {
                let objects = self.proxies.table.values().flat_map(|app| &app.objects);
                let _ = reply.send(objects.flat_map(|object| object.hosts.iter().cloned()).collect());
            }
            Command::Proxies { reply } => {
                let _ = reply.send(self.proxies.processes.clone());
            }
        }
    }

    fn on_timers(&mut self) {
        let now = Instant::now();
        while let Some((at, timer)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Restart { key, version } => self.fill_slots(&key, version),
                Timer::DrainOver { instance } => self.drain_over(&instance),
                Timer::Scale { key, version, object } => self.rescale(&key, version, &object),
                Timer::Stable { instance } => self.became_stable(&instance),
                Timer::PublishedLate { generation } => self.proxies.give_up_on(generation),
            }
        }
    }

    fn after(&mut self, delay: std::time::Duration, timer: Timer) {
        self.timers.insert((Instant::now() + delay, timer));
    }

    /// Sends to every proxy that is connected.
    fn broadcast(&mut self, message: &ToProxy) {
        self.proxies.broadcast(message);
    }

    fn answer_gone(&mut self) {
        let instances = &self.instances;
        let builds = &self.builds;
        let (done, waiting): (Vec<_>, Vec<_>) = self.gone.drain(..).partition(|waiter| {
            waiter.instances.iter().all(|id| !instances.contains_key(id) && !builds.contains_key(id))
        });
        self.gone = waiting;
        for waiter in done {
            let _ = waiter.done.send(());
        }
    }
}
