//! The handle to the running engine: what the API can ask and command. Cheap to clone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::calling::Pins;
use super::commands::unknown_app;
use super::fleet::Fleet;
use super::hooks::Quiet;
use super::prepare::Workshop;
use super::reconciler::{Command, Input, LiveView, internal};
use super::reload::Current;
use super::scheduler::Scheduler;
use super::sources::Sources;
use super::spec::Surroundings;
use super::telling::Tellers;
use super::tokens::Tokens;
use super::uploading::read_upload;
use super::vault::Vault;
use super::views::{self, Scene};
use super::{Caller, CommandError, LogQuery, Result};
use crate::domain::{AppKey, AppName, DeploymentId, EnvironmentName, Verb, VersionNumber};
use crate::files::config::SourceKind;
use crate::ledger::outbox::NOTIFICATION;
use crate::ledger::{Ledger, apps, deployments, facts, versions};
use crate::notify::Delivery;
use crate::runtime::Runtime;
use crate::source::propose::{Proposal, propose};
use crate::store::Store;
use crate::wire::api;
use crate::wire::supervisor::Inventory;

/// A command that is not recorded after this long is given up.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// States of a deployment that may wait for a slow reader.
const FOLLOW_QUEUE: usize = 64;

/// What the handle is made from.
#[derive(Debug)]
pub(super) struct Parts {
    pub environment: EnvironmentName,
    pub current: Arc<ArcSwap<Current>>,
    pub ledger: Ledger,
    pub store: Arc<Store>,
    pub workshop: Workshop,
    pub pins: Pins,
    pub fleet: Fleet,
    pub runtime: Runtime,
    pub inputs: mpsc::Sender<Input>,
    pub sources: Arc<Sources>,
    /// For URLs; a reload may move the proxy to another port.
    pub around: Arc<ArcSwap<Surroundings>>,
    pub tellers: Arc<Tellers>,
    pub stamp: watch::Receiver<u64>,
    /// The same, but for what changes no version and stops nothing.
    pub versions: watch::Receiver<u64>,
    pub supervisor: Inventory,
    pub started_at: Timestamp,
    /// Bounds the log's lines about hooks for sources that are not there.
    pub strangers: Quiet,
    /// Calls that must not be lost.
    pub caller: super::caller::Caller,
    pub scheduler: Scheduler,
    pub certificates: super::certificates::States,
    /// Records of calls that somebody waited for.
    pub history: super::caller::History,
    /// Finds such calls while they are under way.
    pub seeker: super::caller::Seeker,
    /// Who may ask from elsewhere.
    pub tokens: Arc<Tokens>,
    /// Who signs in with a provider of identities.
    pub people: super::oidc::People,
    /// Manifests that spawns look at.
    pub manifests: super::calls::Manifests,
    /// How much waits, for spawns.
    pub backlogs: super::calls::Backlogs,
    pub vault: Vault,
}

/// The handle to the running engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) parts: Arc<Parts>,
}

impl Engine {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The configuration in force.
    pub(super) fn current(&self) -> Arc<Current> {
        self.parts.current.load_full()
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    /// The environment commands mean when they name none.
    pub fn environment(&self) -> EnvironmentName {
        self.parts.environment.clone()
    }

    /// The agent's own environment, and those of its sources.
    pub fn environments(&self) -> BTreeSet<EnvironmentName> {
        let of_sources = self.parts.sources.all();
        let named = of_sources.iter().filter_map(|watching| watching.config.environment.clone());
        named.chain([self.environment()]).collect()
    }

    /// A directory for uploads, on the same file system as the releases; emptied at each start of the controller.
    pub fn upload_dir(&self) -> PathBuf {
        self.parts.current.load().config.data_dir.join("uploads")
    }

    /// What the API's address shows, where it speaks TLS.
    pub fn api_tls(&self) -> Option<crate::files::config::PairFiles> {
        self.parts.current.load().config.api.tls.clone()
    }

    /// What the API bears from others.
    pub fn api_bounds(&self) -> crate::files::config::ApiBounds {
        self.parts.current.load().config.api.bounds
    }

    /// The agent as a whole.
    pub async fn status(&self) -> Result<api::Status> {
        let apps = self.apps(None).await?;
        let sources = self.sources().await?;
        let channels = self.channels().await?;
        let parts = &self.parts;
        // The supervisor is asked, not remembered: its own upgrade changes what it is.
        let supervisor = parts.runtime.inventory().await.unwrap_or_else(|_| parts.supervisor.clone());
        let proxies = parts.fleet.proxies().await;
        let current = parts.current.load_full();
        let disk = super::disk::problem(&current.config.data_dir, current.config.limits.disk_free);
        let heart = parts.tellers.heartbeat_problem().map(|why| format!("the heartbeat is not taken: {why}"));
        let engine = containers_problem(parts.runtime.docker()).into_iter().chain(parts.runtime.docker().changes());
        let traces = parts.tellers.traces.problem().map(|why| format!("traces are not taken: {why}"));
        let more = disk.into_iter().chain(heart).chain(traces).chain(engine).collect();
        Ok(views::status(&current, parts.started_at, &supervisor, &proxies, &apps, (sources, channels), more))
    }

    /// All apps, of one environment if it is named.
    pub async fn apps(&self, environment: Option<EnvironmentName>) -> Result<Vec<api::App>> {
        let scene = self.scene().await?;
        let records = self.parts.ledger.read(apps::all).await.map_err(internal)?;
        let wanted = records.iter().filter(|app| environment.as_ref().is_none_or(|name| *name == app.key.environment));
        Ok(wanted.map(|app| views::app(app, &scene)).collect())
    }

    /// One app.
    pub async fn app(&self, key: AppKey) -> Result<api::App> {
        let scene = self.scene().await?;
        let wanted = key.clone();
        let record = self.parts.ledger.read(move |ledger| apps::one(ledger, &wanted)).await.map_err(internal)?;
        let mut app = record.map(|app| views::app(&app, &scene)).ok_or_else(|| unknown_app(&key))?;
        if let Some(version) = app.live_version {
            app.warnings.extend(self.parts.vault.outdated(&key, version).await?);
        }
        Ok(app)
    }

    async fn scene(&self) -> Result<Scene> {
        // Live state first: what is no longer under way there is on record by then, so that no app shows as deployed
        // without the version that is live.
        let (view, fleet) = (self.live_view().await, self.parts.fleet.apps().await);
        let ledger = &self.parts.ledger;
        let (newest, live) = ledger
            .read(|ledger| Ok((deployments::newest_of_all(ledger)?, versions::all_published(ledger)?)))
            .await
            .map_err(internal)?;
        Ok(Scene {
            around: self.parts.around.load_full(),
            channels: self.current().config.notifications.iter().map(|channel| channel.name.clone()).collect(),
            fleet,
            view,
            newest: newest.into_iter().map(|deployment| (deployment.key.clone(), deployment)).collect(),
            live: live.into_iter().collect::<BTreeMap<_, _>>(),
        })
    }

    pub(super) async fn live_view(&self) -> LiveView {
        let (reply, answer) = oneshot::channel();
        if self.parts.inputs.send(Input::Live { reply }).await.is_err() {
            return LiveView::default();
        }
        tokio::time::timeout(COMMAND_DEADLINE, answer).await.ok().and_then(std::result::Result::ok).unwrap_or_default()
    }

    /// Rises with everything that changes about apps; what instances do by themselves may go unannounced.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.parts.stamp.clone()
    }

    /// Answers once the owners of apps and of instances have: the engine does its work.
    pub async fn answers(&self) {
        let (reply, answer) = oneshot::channel();
        // Whoever owns them may have ended by now; then nobody hangs.
        if self.parts.inputs.send(Input::Live { reply }).await.is_ok() {
            let _ = answer.await;
        }
        let _ = self.parts.fleet.proxies().await;
    }

    /// Refuses an app that is not on record.
    pub(super) async fn known(&self, key: &AppKey) -> Result<()> {
        let wanted = key.clone();
        let found = self.parts.ledger.read(move |ledger| apps::one(ledger, &wanted)).await.map_err(internal)?;
        found.map(drop).ok_or_else(|| unknown_app(key))
    }

    /// All versions of an app, newest first.
    pub async fn versions(&self, key: AppKey) -> Result<Vec<api::Version>> {
        self.versions_before(key, None, u32::MAX).await
    }

    /// The newest versions of an app, or the newest of those before one of them.
    pub async fn versions_before(
        &self,
        key: AppKey,
        before: Option<VersionNumber>,
        limit: u32,
    ) -> Result<Vec<api::Version>> {
        self.known(&key).await?;
        let asked = key.clone();
        let found = self.parts.ledger.read(move |ledger| {
            let (app, published) = (apps::one(ledger, &key)?, versions::published(ledger, &key)?);
            Ok((app, published.map(|live| live.version), versions::before(ledger, &key, before, limit)?))
        });
        let (app, published, versions) = found.await.map_err(internal)?;
        let mut used = self.parts.vault.used(asked).await?;
        let view = |version| {
            let mut view = views::version(version, app.as_ref(), published);
            view.secrets = used.remove(&view.version).unwrap_or_default();
            view
        };
        Ok(versions.iter().map(view).collect())
    }

    /// The newest deployments of an app, or the newest of those before one of them.
    pub async fn deployments(
        &self,
        key: AppKey,
        before: Option<DeploymentId>,
        limit: u32,
    ) -> Result<Vec<api::Deployment>> {
        self.known(&key).await?;
        let wanted = key.clone();
        let ids = self.parts.ledger.read(move |ledger| deployments::of_app(ledger, &wanted, before, limit));
        let mut found = Vec::new();
        for record in ids.await.map_err(internal)? {
            found.push(self.deployment(record.id).await?);
        }
        Ok(found)
    }

    /// One deployment.
    pub async fn deployment(&self, id: DeploymentId) -> Result<api::Deployment> {
        let loaded = self.parts.ledger.read(move |ledger| {
            let Some(deployment) = deployments::one(ledger, id)? else { return Ok(None) };
            let version = versions::one(ledger, &deployment.key, deployment.version)?;
            Ok(version.map(|version| (deployment, version)))
        });
        let Some((deployment, version)) = loaded.await.map_err(internal)? else {
            return Err(CommandError::NotFound {
                what: format!("there is no deployment {id}"),
                mend: "`landfall app history NAME` shows the versions of an app".into(),
            });
        };
        let view = self.live_view().await;
        let instances = self.parts.fleet.instances().await;
        Ok(views::deployment(&deployment, &version, &view, &instances, &self.parts.around.load()))
    }

    /// Each change of the deployment, the present state first; ends after the one that is done.
    pub async fn follow_deployment(&self, id: DeploymentId) -> Result<mpsc::Receiver<api::Deployment>> {
        let first = self.deployment(id).await?;
        let (states, receiver) = mpsc::channel(FOLLOW_QUEUE);
        let engine = self.clone();
        tokio::spawn(async move {
            let mut stamp = engine.parts.stamp.clone();
            let mut last = first;
            loop {
                let over = last.outcome.is_some();
                if states.send(last.clone()).await.is_err() || over {
                    return;
                }
                last = loop {
                    stamp.mark_unchanged();
                    match engine.deployment(id).await {
                        Ok(now) if now != last => break now,
                        Ok(_) => {}
                        Err(_) => return,
                    }
                    tokio::select! {
                        changed = stamp.changed() => if changed.is_err() { return },
                        () = states.closed() => return,
                    }
                };
            }
        });
        Ok(receiver)
    }

    /// Lines of an app's log.
    pub async fn logs(&self, key: AppKey, query: LogQuery) -> Result<mpsc::Receiver<api::LogLine>> {
        self.known(&key).await?;
        let logs = self.parts.runtime.logs();
        let named = query.object.is_some() || query.version.is_some() || query.instance.is_some();
        let filter = views::log_filter(query);
        // Who follows may wait for what comes; who looks back at something that is not there has mistyped it.
        if named && !filter.follow && !crate::runtime::logs::exist(logs, &key, &filter).await {
            let app = &key.app;
            return Err(CommandError::NotFound {
                what: format!("app {app} has no log of {filter}"),
                mend: format!(
                    "`landfall app history {app}` shows versions, `landfall instance list {app}` objects and instances; \
                     logs of long ago are removed"
                ),
            });
        }
        Ok(crate::runtime::logs::read(logs, &key, filter))
    }

    async fn command(&self, caller: Caller, key: AppKey, command: Command) -> Result<api::Accepted> {
        let (reply, answer) = oneshot::channel();
        let unavailable = || CommandError::Unavailable {
            what: "the agent is too busy or about to end; it is not known whether the command was taken".into(),
            mend: "look at `landfall app show`, then try again".into(),
        };
        let input = Input::Command { caller, key, command, reply };
        self.parts.inputs.send(input).await.map_err(|_| unavailable())?;
        match tokio::time::timeout(COMMAND_DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unavailable()),
        }
    }

    /// Brings an earlier version back and holds it.
    pub async fn rollback(&self, caller: Caller, app: AppKey, request: api::RollbackRequest) -> Result<api::Accepted> {
        let propose = request.propose;
        let mut answer = self.command(caller, app.clone(), Command::Rollback(request)).await?;
        if let Some(version) = answer.version.filter(|_| propose) {
            // The rollback stands, whatever becomes of the proposal.
            let proposed = match self.propose(&app, version).await {
                Ok(branch) => format!("; the revert is proposed on branch {branch}"),
                Err(why) => format!("; the revert could not be proposed: {why}"),
            };
            answer.message.push_str(&proposed);
        }
        Ok(answer)
    }

    /// Writes a version's files as a commit on a new branch of the app's source.
    async fn propose(&self, key: &AppKey, version: VersionNumber) -> std::result::Result<String, String> {
        let wanted = key.clone();
        let read = self
            .parts
            .ledger
            .read(move |ledger| Ok((apps::one(ledger, &wanted)?, versions::one(ledger, &wanted, version)?)));
        let (app, version) = read.await.map_err(|error| error.to_string())?;
        let owner = app.and_then(|app| app.owner).ok_or("no source owns the app")?;
        let version = version.ok_or("the version is not recorded")?;
        let watching = self.parts.sources.one(&owner.0).map_err(|error| error.to_string())?;
        let SourceKind::Git(git) = &watching.config.kind else {
            return Err("its source is a directory, not a repository".to_owned());
        };
        let repository = watching.shared.local_repository().map(std::path::Path::to_owned);
        let repository = repository.ok_or("only repositories on this machine can be written to in this version")?;
        if !version.material.workdir.is_empty() {
            return Err("the app includes other directories; revert those by hand".to_owned());
        }
        let proposal = Proposal {
            branch: format!("landfall/{}-{}", key.app, version.number),
            path: owner.1,
            tree: version.material.tree.clone(),
            message: format!("Bring {} back to what runs as {}\n", key.app, version.number),
        };
        let (reference, objects) = (git.reference.clone(), self.parts.store.objects().to_owned());
        let write = move || propose(&repository, &reference, &objects, &proposal);
        tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
    }

    /// Ends a hold.
    pub async fn release(&self, caller: Caller, app: AppKey, request: api::ReleaseRequest) -> Result<api::Accepted> {
        self.command(caller, app, Command::Release(request)).await
    }

    /// Starts the live version afresh, as a new version.
    pub async fn rollover(&self, caller: Caller, app: AppKey, request: api::ReasonRequest) -> Result<api::Accepted> {
        self.command(caller, app, Command::Rollover(request)).await
    }

    /// Freezes an app.
    pub async fn suspend(&self, caller: Caller, app: AppKey, request: api::SuspendRequest) -> Result<api::App> {
        self.command(caller, app.clone(), Command::Suspend(request)).await?;
        self.app(app).await
    }

    /// Thaws an app.
    pub async fn resume(&self, caller: Caller, app: AppKey) -> Result<api::App> {
        self.command(caller, app.clone(), Command::Resume).await?;
        self.app(app).await
    }

    /// Stops an app.
    pub async fn stop(&self, caller: Caller, app: AppKey, request: api::ReasonRequest) -> Result<api::Accepted> {
        self.command(caller, app, Command::Stop(request)).await
    }

    /// Deploys a directory without git. The engine takes a snapshot of it and never writes to it.
    pub async fn deploy(
        &self,
        caller: Caller,
        environment: EnvironmentName,
        directory: PathBuf,
        reason: Option<String>,
    ) -> Result<api::Accepted> {
        let known = self.environments();
        if !known.contains(&environment) {
            let known: Vec<&str> = known.iter().map(EnvironmentName::as_str).collect();
            return Err(CommandError::NotFound {
                what: format!("this agent has no environment {environment}, only {}", known.join(", ")),
                mend: "leave `--env` out, name the environment of a source, or talk to the agent of that environment"
                    .into(),
            });
        }
        let store = Arc::clone(&self.parts.store);
        let material = tokio::task::spawn_blocking(move || read_upload(&store, &directory)).await;
        let material = material.map_err(|error| CommandError::Internal { what: error.to_string() })??;
        let key = AppKey::new(environment, material.manifest.app.clone());
        // Only now is it known which app it is.
        caller.scope.may(Verb::Deploy, Some(&key)).map_err(|denied| CommandError::Refused {
            what: format!("app {key} may not be deployed: {denied}"),
            mend: "use a token whose scope has `deploy` and reaches this app".into(),
        })?;
        self.command(caller, key, Command::Upload { material: Box::new(material), reason }).await
    }

    /// The certificates that clients are shown, and those that are wanted.
    pub fn certificates(&self) -> Vec<crate::wire::certificates::Certificate> {
        self.parts.certificates.borrow().iter().map(views::certificate).collect()
    }

    /// The channels that people hear by.
    pub async fn channels(&self) -> Result<Vec<api::Channel>> {
        let mut standings = self.parts.tellers.standings(NOTIFICATION).await.map_err(internal)?;
        let channels = self.parts.tellers.channels().into_iter();
        Ok(channels.filter_map(|channel| Some(views::channel(&channel, standings.remove(&channel.name)?))).collect())
    }

    /// Sends a message to a channel now.
    pub async fn test_channel(&self, name: &str) -> Result<api::ChannelTested> {
        let tested = self.parts.tellers.test(name).await.map_err(internal)?;
        let delivery = tested.ok_or_else(|| CommandError::NotFound {
            what: format!("there is no channel {name}"),
            mend: "`landfall notify list` shows the channels of the configuration".into(),
        })?;
        let message = match delivery {
            Delivery::Delivered => None,
            Delivery::Later { why, .. } | Delivery::Never { why } => Some(why),
        };
        Ok(api::ChannelTested { delivered: message.is_none(), message: message.unwrap_or_default() })
    }

    /// All instances, of one environment or app if named.
    pub async fn instances(
        &self,
        environment: Option<EnvironmentName>,
        app: Option<AppName>,
    ) -> Result<Vec<api::Instance>> {
        let mut found = self.parts.fleet.instances().await;
        found.retain(|instance| {
            environment.as_ref().is_none_or(|name| *name == instance.environment)
                && app.as_ref().is_none_or(|name| *name == instance.app)
        });
        Ok(found)
    }

    /// Events after a place in their order, oldest first; with `after` below 0 the newest ones.
    pub async fn events(&self, after: i64, limit: u32) -> Result<Vec<api::EventRecord>> {
        let found = self.parts.ledger.read(move |ledger| {
            if after < 0 { facts::newest_events(ledger, limit) } else { facts::events_after(ledger, after, limit) }
        });
        let found = found.await.map_err(internal)?;
        Ok(found.into_iter().map(|(sequence, event)| api::EventRecord { sequence, event }).collect())
    }
}

/// What is wrong with the engine that runs containers, where one is needed.
fn containers_problem(docker: &crate::runtime::Docker) -> Option<String> {
    let state = docker.state()?;
    let (why, since) = state.trouble?;
    Some(format!("apps in containers wait: their engine at {} cannot be used since {since:.0}: {why}", state.address))
}
