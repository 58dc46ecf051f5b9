//! Brings the engine up from the record, and down again.
//!
//! The order: what the ledger says is live, what the supervisor says runs, the fleet from both, then the reconciler
//! with the deployments left open, then the watchers. Nothing is started twice, nothing that should live is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::caller::{self, Caller};
use super::calling::Pins;
use super::calls::{Backlogs, Manifests};
use super::certificates::{Certificates, Secure};
use super::deployer::Tools;
use super::fleet::{self, Beginning, Fleet, Notice};
use super::handle::{Engine, Parts};
use super::hooks::Quiet;
use super::poller::Pollers;
use super::prepare::Workshop;
use super::publishing;
use super::reconciler::{self, Input, Reconciler};
use super::records::{self, AppEntry, AppFacts};
use super::reload::{self, Configured, Current, Reached, Reloader};
use super::scheduler;
use super::slots::Slots;
use super::sources::{self, Sources};
use super::spec::{Surroundings, VersionSpec};
use super::telling::Tellers;
use super::tokens::Tokens;
use super::traces::Traces;
use super::vault::Vault;
use super::watcher;
use crate::decide::tally::KEPT;
use crate::domain::{AppKey, ObjectName, Phase, VersionNumber};
use crate::ledger::deployments::DeploymentRecord;
use crate::ledger::versions::VersionRecord;
use crate::ledger::{Ledger, LedgerError, apps, deployments, tokens, versions};
use crate::runtime::supervisor_link::SupervisorEvent;
use crate::runtime::{Runtime, workers};
use crate::store::{Store, StoreError};
use crate::wire::supervisor::{ChildState, Inventory};

/// Deployment changes that may wait for the reconciler.
const CHANGES: usize = 1024;
/// Notices of the fleet that may wait.
const NOTICES: usize = 1024;
/// Reports of used tokens that may wait.
const USED_TOKENS: usize = 64;
/// Messages of proxies that may wait for the fleet.
const PROXY_MESSAGES: usize = 1024;
/// On shutdown the tasks have this long to end.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// What the controller inherited from the supervisor.
pub struct Inherited {
    /// Where instances live.
    pub runtime: Runtime,
    /// What the supervisor knows.
    pub inventory: Inventory,
    /// Its facts.
    pub events: mpsc::Receiver<SupervisorEvent>,
    /// Ends of instances that are not the supervisor's.
    pub ends: mpsc::Receiver<SupervisorEvent>,
    /// Where proxies connect.
    pub control: UnixListener,
}

/// Why the engine cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The record.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The trees.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system.
    #[error("{doing}: {error}")]
    Io {
        /// What was under way.
        doing: String,
        /// What the system says.
        error: std::io::Error,
    },
}

/// How the engine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Told to.
    Shutdown,
    /// The supervisor is gone or does not answer.
    SupervisorLost,
}

/// The running engine.
pub struct Running {
    /// The handle for the API.
    pub engine: Engine,
    reconciler: JoinHandle<reconciler::End>,
    tasks: Vec<JoinHandle<()>>,
    watchers: TaskTracker,
    /// Ends with its last handle, which the API holds; at the end it is simply cut off.
    fleet: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Running {
    /// Waits until the engine ends by itself, by a signal of the supervisor or by `shutdown`.
    pub async fn until_end(self) -> End {
        let end = match self.reconciler.await {
            Ok(reconciler::End::Shutdown) => End::Shutdown,
            Ok(reconciler::End::SupervisorLost) => End::SupervisorLost,
            Err(error) => {
                error!(%error, "the reconciler ended unexpectedly");
                End::SupervisorLost
            }
        };
        self.shutdown.cancel();
        self.fleet.abort();
        let all = async {
            for task in self.tasks {
                let _ = task.await;
            }
            self.watchers.close();
            self.watchers.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN, all).await.is_err() {
            warn!("some tasks did not end in time");
        }
        end
    }
}

/// Everything the ledger says, as the engine needs it.
struct Recorded {
    apps: Vec<AppFacts>,
    live: Vec<(AppKey, VersionRecord)>,
    open: Vec<(VersionRecord, DeploymentRecord)>,
    waiting: Vec<(VersionRecord, DeploymentRecord)>,
    others: Vec<(AppKey, VersionRecord)>,
    stopped: Vec<(AppKey, VersionRecord, String)>,
}

/// Brings the engine up.
pub async fn start(
    configured: Configured,
    inherited: Inherited,
    shutdown: CancellationToken,
) -> Result<Running, StartError> {
    let data_dir = configured.data_dir.clone();
    let mut config = configured.config.clone();
    config.data_dir.clone_from(&data_dir);
    config.api.socket.clone_from(&configured.socket);
    let (ledger, store) = open(&data_dir).await?;
    let mut inherited = inherited;
    let in_containers = ledger.read(versions::any_in_container).await?;
    inherited.runtime.docker().recover(in_containers).await;
    inherited.inventory.children.extend(inherited.runtime.docker().children());
    let running_now: Vec<(AppKey, VersionNumber)> = inherited
        .inventory
        .children
        .iter()
        .filter(|child| !matches!(child.state, ChildState::Exited { .. }))
        .map(|child| (child.labels.app.clone(), child.labels.version))
        .collect();
    sources::adopt(&ledger, &config.sources).await?;
    let recorded = ledger.read(move |ledger| read_all(ledger, &running_now)).await?;
    info!(
        apps = recorded.apps.len(),
        live = recorded.live.len(),
        open_deployments = recorded.open.len(),
        running = inherited.inventory.children.len(),
        "the record is read"
    );
    let around = Arc::new(Surroundings {
        data_dir: data_dir.clone(),
        domain: config.proxy.domain.clone(),
        environment: config.environment.clone(),
        proxy_port: config.proxy.listen.first().map(std::net::SocketAddr::port),
        secure: Secure::default(),
        path: Surroundings::path_of_this_process(),
        program: std::env::current_exe()
            .map_err(|error| StartError::Io { doing: "finding this program".to_owned(), error })?,
        tokens: crate::proxy::token::Key::open(&data_dir)
            .map_err(|error| StartError::Io { doing: "reading the key of tokens".to_owned(), error })?,
        workers: workers::lay_out(&data_dir).map_err(|error| StartError::Io {
            doing: format!("laying out workers in {}", data_dir.display()),
            error,
        })?,
        publish_roots: config.publish_roots.clone(),
    });
    let vault = Vault::new(ledger.clone(), Arc::clone(&store), &data_dir, &config.secrets);
    let workshop = Workshop::new(Arc::clone(&store), data_dir.clone());
    let specs = Specs { workshop: &workshop, store: &store };
    let live: Vec<_> = recorded.live.iter().map(|(key, version)| specs.of(key, version)).collect();
    let contents = recorded.live.iter().map(|(_, version)| version.material.content.clone());
    // Before anybody else deploys.
    publishing::repair(&live.iter().cloned().zip(contents).collect::<Vec<_>>(), &around).await;
    let open_specs = recorded.open.iter().filter(|(_, deployment)| !deployment.phase.is_live());
    let candidates: Vec<_> = open_specs.map(|(version, deployment)| specs.of(&deployment.key, version)).collect();
    let parked = handed_over(&recorded.open, &live, &candidates);
    let stopped = recorded.stopped.iter().map(|(key, version, why)| (specs.of(key, version), why.clone())).collect();
    let outdated = recorded.others.iter().map(|(key, version)| specs.of(key, version)).collect();

    let (proxy_sender, proxy_messages) = mpsc::channel(PROXY_MESSAGES);
    let control = listen(inherited.control)?;
    let (notice_sender, mut notices) = mpsc::channel(NOTICES);
    let supervisor = inherited.inventory.clone();
    let (lines_sender, lines) = watch::channel(caller::ProxyLines::default());
    let caller_inputs = caller::inputs();
    let (records_sender, records) = caller::records();
    let questions = caller::Questions::default();
    let said = caller::Said { inputs: caller_inputs.0.clone(), records: records_sender, questions: questions.clone() };
    let seeker = caller::Seeker::new(questions, lines.clone());
    let grants = ledger.read(tokens::grants).await?;
    let (used_sender, used_tokens) = mpsc::channel(USED_TOKENS);
    let scaled = ledger.read(crate::ledger::scaled::all).await?;
    let (fleet, fleet_task) = Fleet::start(Beginning {
        runtime: inherited.runtime.clone(),
        vault: vault.clone(),
        surroundings: Arc::clone(&around),
        inventory: inherited.inventory,
        live: live.clone(),
        candidates,
        scaled,
        parked,
        outdated,
        stopped,
        supervisor: inherited.events,
        ends: inherited.ends,
        proxies: proxy_messages,
        proxy_options: reload::proxy_options(&config),
        lines: lines_sender,
        notices: notice_sender,
        grants: grants.clone(),
        used_tokens: used_sender,
    });
    let tokens = Arc::new(Tokens::new(ledger.clone(), fleet.clone(), grants));
    let tokens_task = tokio::spawn(Arc::clone(&tokens).keep(used_tokens, shutdown.clone()));
    let proxies_task = tokio::spawn(fleet::serve_proxies(control, proxy_sender, said, shutdown.clone()));

    let (inputs, input_queue) = mpsc::channel(reconciler::QUEUE);
    let notice_inputs = inputs.clone();
    let on_shutdown = shutdown.clone();
    let reload_asked = Arc::new(Notify::new());
    let on_reload = Arc::clone(&reload_asked);
    let notices_task = tokio::spawn(async move {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Shutdown => on_shutdown.cancel(),
                Notice::Reload => on_reload.notify_one(),
                other => {
                    if notice_inputs.send(Input::Notice(other)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });

    let (changes_sender, changes) = mpsc::channel(CHANGES);
    let (scheduler, schedule_commands) = scheduler::channel();
    let (traces, traced) = Traces::new();
    let tools = Tools {
        ledger: ledger.clone(),
        fleet: fleet.clone(),
        workshop: workshop.clone(),
        around: Arc::clone(&around),
        slots: Slots::new(config.limits.deployments),
        builds: Slots::new(config.limits.builds),
        changes: changes_sender,
        scheduler: scheduler.clone(),
        vault: vault.clone(),
        runtime: inherited.runtime.clone(),
        traces: traces.clone(),
        containers_only: config.containers_only,
    };
    let settings = Arc::new(ArcSwap::from_pointee(reload::settings(&config, data_dir.clone())));
    let (slots, builds) = (tools.slots.clone(), tools.builds.clone());
    let entries = entries(recorded.apps, &live, recorded.open, recorded.waiting);
    let ((stamp_sender, stamp), (versions_sender, versions)) = (watch::channel(0), watch::channel(0));
    let stamps = (stamp_sender, versions_sender);
    let reconciler = Reconciler::new(tools, Arc::clone(&settings), changes, entries, stamps);
    let reconciler = tokio::spawn(reconciler.run(input_queue, shutdown.clone()));

    let past = data_dir.join("history.db");
    let opened = tokio::task::spawn_blocking(move || caller::History::open(&past)).await;
    let history = opened.map_err(|error| StartError::Io {
        doing: "opening the history".to_owned(),
        error: std::io::Error::other(error),
    })??;
    let tallies = caller::Tallies::default();
    tallies.seed(history.minutes(caller::minute_of(Timestamp::now()) - KEPT).await?);
    let keeping = caller::keep(
        history.clone(),
        tallies.clone(),
        traces.clone(),
        Arc::clone(&settings),
        records,
        shutdown.clone(),
    );
    let history_task = tokio::spawn(keeping);
    let pins = Pins { ledger: ledger.clone(), workshop: workshop.clone(), fleet: fleet.clone() };
    let (caller, caller_tasks) = Caller::start(caller::Beginning {
        ledger: ledger.clone(),
        pins: pins.clone(),
        tallies,
        settings: Arc::clone(&settings),
        lines,
        versions: versions.clone(),
        inputs: caller_inputs,
        shutdown: shutdown.clone(),
    })
    .await?;
    let scheduler_task = scheduler::start(scheduler::Beginning {
        ledger: ledger.clone(),
        caller: caller.clone(),
        live: live.iter().map(|spec| (spec.key.clone(), scheduler::wanted(&spec.manifest))).collect(),
        scheduler: scheduler.clone(),
        commands: schedule_commands,
        keep: config.retention.calls.duration(),
        logs: inherited.runtime.logs().to_owned(),
        clock: scheduler::Clock::Machine,
        shutdown: shutdown.clone(),
    });

    let cache_dir = data_dir.join("cache");
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    crate::source::sweep(&cache_dir, &names);
    let watchers = TaskTracker::new();
    let sources = Arc::new(Sources::new(
        watcher::Tools {
            ledger: ledger.clone(),
            store: Arc::clone(&store),
            environment: config.environment.clone(),
            cache_dir,
            inputs: inputs.clone(),
            pollers: Pollers::new(watchers.clone(), shutdown.clone()),
        },
        watchers.clone(),
        shutdown.clone(),
    ));
    let tracing = traces.clone().run(traced, ledger.clone(), caller.ends(), shutdown.child_token());
    watchers.spawn(tracing);
    let tellers = Tellers::new(ledger.clone(), data_dir.clone(), traces, watchers.clone(), shutdown.clone());
    let tellers = Arc::new(tellers);
    tellers.set(&config).await?;
    sources.set(&config.sources).await?;
    let environment = config.environment.clone();
    let around = Arc::new(ArcSwap::new(around));
    let current = Arc::new(ArcSwap::from_pointee(Current {
        config,
        file: configured.file.clone(),
        read_at: Timestamp::now(),
        problem: configured.problem.clone(),
        at_next_start: Vec::new(),
    }));
    let secure = around.load().secure.clone();
    let (certificates, certificate_states) =
        Certificates::new(data_dir.clone(), ledger.clone(), fleet.clone(), Arc::clone(&current), secure);
    let certificates_task = tokio::spawn(certificates.run(shutdown.clone()));
    let reached = Reached {
        ledger: ledger.clone(),
        runtime: inherited.runtime.clone(),
        fleet: fleet.clone(),
        sources: Arc::clone(&sources),
        tellers: Arc::clone(&tellers),
        vault: vault.clone(),
        deployments: slots,
        builds,
        settings,
        around: Arc::clone(&around),
        current: Arc::clone(&current),
    };
    let reloader = Reloader::new(configured, supervisor.plan.clone(), reached, reload_asked);
    let reload_task = tokio::spawn(reloader.run(shutdown.clone()));
    let engine = Engine::new(Parts {
        environment,
        current,
        ledger,
        store,
        workshop,
        pins,
        fleet,
        runtime: inherited.runtime,
        inputs,
        sources,
        tellers,
        around,
        stamp,
        versions,
        supervisor,
        started_at: Timestamp::now(),
        strangers: Quiet::default(),
        certificates: certificate_states,
        caller,
        scheduler,
        history,
        seeker,
        manifests: Manifests::default(),
        tokens,
        people: super::oidc::People::default(),
        backlogs: Backlogs::default(),
        vault,
    });
    let tasks = [proxies_task, notices_task, reload_task, scheduler_task, history_task, tokens_task, certificates_task]
        .into_iter()
        .chain(caller_tasks)
        .collect();
    Ok(Running { engine, reconciler, tasks, watchers, fleet: fleet_task, shutdown })
}

/// Objects of live versions that had to make room when the controller before this one ended: starting them now
/// could run them beside those they made room for.
fn handed_over(
    open: &[(VersionRecord, DeploymentRecord)],
    live: &[Arc<VersionSpec>],
    candidates: &[Arc<VersionSpec>],
) -> Vec<(AppKey, BTreeSet<ObjectName>)> {
    let in_handover = open.iter().filter(|(_, deployment)| deployment.phase == Phase::Handover);
    let parked = in_handover.filter_map(|(_, deployment)| {
        let key = &deployment.key;
        let live = live.iter().find(|spec| spec.key == *key)?;
        let candidate = candidates.iter().find(|spec| spec.key == *key)?;
        Some((key.clone(), candidate.displaces(&live.manifest)))
    });
    parked.collect()
}

async fn open(data_dir: &std::path::Path) -> Result<(Ledger, Arc<Store>), StartError> {
    let data_dir = data_dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let uploads = data_dir.join("uploads");
        let _ = std::fs::remove_dir_all(&uploads);
        std::fs::create_dir_all(&uploads)
            .map_err(|error| StartError::Io { doing: format!("creating {}", uploads.display()), error })?;
        let ledger = Ledger::open(&data_dir.join("ledger.db"))?;
        let store = Store::open(&data_dir)?;
        // Apps may run as another user, and have no business here. Releases and volumes they must reach.
        for private in ["store.git", "uploads", "cache"] {
            let path = data_dir.join(private);
            std::fs::create_dir_all(&path)
                .map_err(|error| StartError::Io { doing: format!("creating {}", path.display()), error })?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
                .map_err(|error| StartError::Io { doing: format!("closing {}", path.display()), error })?;
        }
        Ok((ledger, Arc::new(store)))
    });
    opened.await.map_err(|error| StartError::Io {
        doing: "opening the data directory".into(),
        error: std::io::Error::other(error),
    })?
}

fn listen(listener: UnixListener) -> Result<tokio::net::UnixListener, StartError> {
    let doing = || "listening for proxies".to_owned();
    listener.set_nonblocking(true).map_err(|error| StartError::Io { doing: doing(), error })?;
    tokio::net::UnixListener::from_std(listener).map_err(|error| StartError::Io { doing: doing(), error })
}

fn read_all(
    ledger: &crate::ledger::Connection,
    running: &[(AppKey, VersionNumber)],
) -> crate::ledger::Result<Recorded> {
    let apps = records::load_all(ledger)?;
    let mut recorded = Recorded {
        apps: Vec::new(),
        live: Vec::new(),
        open: Vec::new(),
        waiting: Vec::new(),
        others: Vec::new(),
        stopped: Vec::new(),
    };
    for app in &apps {
        let key = &app.app.key;
        if let Some(live) = app.app.live
            && let Some(version) = versions::one(ledger, key, live)?
        {
            recorded.live.push((key.clone(), version));
        } else if let Some(stop) = &app.app.stop
            && let Some(version) = versions::newest(ledger, key)?
        {
            recorded.stopped.push((key.clone(), version, super::housekeeping::refusal(stop)));
        }
    }
    let mut seen = BTreeMap::new();
    for deployment in deployments::open(ledger)? {
        let Some(version) = versions::one(ledger, &deployment.key, deployment.version)? else { continue };
        // The oldest open one of an app was running, the next one waited for it.
        match seen.insert(deployment.key.clone(), ()) {
            None => recorded.open.push((version, deployment)),
            Some(()) => recorded.waiting.push((version, deployment)),
        }
    }
    let known = |key: &AppKey, number: VersionNumber| {
        recorded.live.iter().any(|(app, version)| app == key && version.number == number)
            || recorded.open.iter().any(|(version, open)| open.key == *key && version.number == number)
    };
    let mut others = Vec::new();
    for (key, number) in running {
        let listed =
            others.iter().any(|(app, version): &(AppKey, VersionRecord)| app == key && version.number == *number);
        if !known(key, *number)
            && !listed
            && apps::one(ledger, key)?.is_some()
            && let Some(version) = versions::one(ledger, key, *number)?
        {
            others.push((key.clone(), version));
        }
    }
    recorded.others = others;
    recorded.apps = apps;
    Ok(recorded)
}

struct Specs<'a> {
    workshop: &'a Workshop,
    store: &'a Store,
}

impl Specs<'_> {
    fn of(&self, key: &AppKey, version: &VersionRecord) -> Arc<VersionSpec> {
        let material = &version.material;
        // What is not there yet is laid out when its deployment is driven on; a live one without files shows as
        // failing to start.
        let files = self.store.files_dir(key, &material.content);
        let directory = self.workshop.inside(files, &material.workdir);
        Arc::new(VersionSpec {
            key: key.clone(),
            version: version.number,
            manifest: material.manifest.clone(),
            commit: material.commit.clone(),
            directory,
            image: version.image.clone(),
            services: version.services.clone(),
        })
    }
}

fn entries(
    apps: Vec<AppFacts>,
    live: &[Arc<VersionSpec>],
    open: Vec<(VersionRecord, DeploymentRecord)>,
    waiting: Vec<(VersionRecord, DeploymentRecord)>,
) -> BTreeMap<AppKey, AppEntry> {
    let mut entries: BTreeMap<AppKey, AppEntry> =
        apps.into_iter().map(|facts| (facts.app.key.clone(), AppEntry::new(facts))).collect();
    for spec in live {
        if let Some(entry) = entries.get_mut(&spec.key) {
            entry.live_spec = Some(Arc::clone(spec));
        }
    }
    for (version, deployment) in open {
        if let Some(entry) = entries.get_mut(&deployment.key) {
            entry.left_open = Some((version, deployment));
        }
    }
    for (version, deployment) in waiting {
        if let Some(entry) = entries.get_mut(&deployment.key) {
            entry.waiting = Some(records::Waiting {
                id: deployment.id,
                version: version.number,
                content: version.material.content.clone(),
            });
        }
    }
    entries
}
