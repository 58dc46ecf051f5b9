//! Takes over a changed configuration while everything runs.
//!
//! One task. It reads the configuration again when the supervisor hands on a SIGHUP, when the file changes, and now and
//! then in case a change was not noticed. The engine reads no files itself: how to read is handed in ([`Configured`]).
//!
//! ```text
//! read ─► cannot be read, or refused by the supervisor ─► nothing changes; told once: log, status, event
//!      └► the same as before ─► nothing
//!      └► different ─► supervisor ─► sources ─► limits, retention, proxies ─► told, keys that wait for a start by name
//! ```
//!
//! Invariants: what does not differ is not touched; the supervisor, which may refuse, is asked first; what could not
//! be carried through is tried again at the next reading.

mod difference;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::difference::{Difference, in_force};
use super::fleet::Fleet;
use super::records::Settings;
use super::slots::Slots;
use super::sources::Sources;
use super::spec::Surroundings;
use super::telling::Tellers;
use super::vault::Vault;
use crate::domain::{Event, EventKind};
use crate::files::config::Config;
use crate::ledger::{Ledger, facts};
use crate::runtime::Runtime;
use crate::source::watch::{self, Watch};
use crate::wire::proxy::ProxyOptions;
use crate::wire::supervisor::Plan;

/// A change that no event told of is found after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A burst of writes to the file is one change. Long enough for an editor that first empties the file.
const QUIET: Duration = Duration::from_millis(200);
/// A file that is written to all the time is read after this long all the same.
const QUIET_AT_LONGEST: Duration = Duration::from_secs(5);

/// Reads the configuration as it is now; an error says what is wrong, where, and how to mend it.
pub type ReadConfiguration = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// The configuration as the engine begins with it, and how to read it anew.
pub struct Configured {
    /// What is in force at the start, as it was read. Its data directory is the one the file names.
    pub config: Config,
    /// The data directory in use; an option may have named another one than the file.
    pub data_dir: PathBuf,
    /// Where the socket of the API is in use.
    pub socket: PathBuf,
    /// The file, for messages and to be watched; `None` when there is none.
    pub file: Option<PathBuf>,
    /// Why the file as it is now is not what is in force.
    pub problem: Option<String>,
    /// Reads it anew; called on a thread that may block.
    pub read: ReadConfiguration,
}

impl std::fmt::Debug for Configured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configured").field("file", &self.file).field("problem", &self.problem).finish_non_exhaustive()
    }
}

/// The configuration in force, as others see it.
#[derive(Debug, Clone)]
pub(super) struct Current {
    /// What is in force.
    pub config: Config,
    pub file: Option<PathBuf>,
    pub read_at: Timestamp,
    /// Why the file as it is now is not in force.
    pub problem: Option<String>,
    /// Keys that were changed and wait for the next start.
    pub at_next_start: Vec<&'static str>,
}

/// What a change of the configuration reaches.
pub(super) struct Reached {
    pub ledger: Ledger,
    pub runtime: Runtime,
    pub fleet: Fleet,
    pub sources: Arc<Sources>,
    pub tellers: Arc<Tellers>,
    pub vault: Vault,
    pub deployments: Slots,
    pub builds: Slots,
    pub settings: Arc<ArcSwap<Settings>>,
    /// For URLs.
    pub around: Arc<ArcSwap<Surroundings>>,
    pub current: Arc<ArcSwap<Current>>,
}

/// The settings of the reconciler in a configuration.
pub(super) fn settings(config: &Config, data_dir: PathBuf) -> Settings {
    Settings {
        keep_versions: config.retention.versions,
        keep_stopped: config.retention.stopped_apps.duration(),
        keep_audit: config.retention.audit.duration(),
        keep_calls: config.retention.calls.duration(),
        data_dir,
    }
}

/// What proxies are told of a configuration.
pub(super) fn proxy_options(config: &Config) -> ProxyOptions {
    ProxyOptions {
        trusted_proxies: config.proxy.trusted_proxies.clone(),
        max_connections: config.proxy.max_connections,
        access_log: config.proxy.access_log,
        call_wait: config.proxy.call_wait,
        traces: config.traces.as_ref().map(|traces| traces.one_in),
    }
}

/// The task.
pub(super) struct Reloader {
    configured: Configured,
    /// What was taken over last, as it was read.
    taken: Config,
    /// What the supervisor goes by; `None` from one that does not tell.
    plan: Option<Plan>,
    reached: Reached,
    /// A SIGHUP has come.
    asked: Arc<Notify>,
    /// The file may have changed.
    hint: Arc<Notify>,
    watch: Option<Watch>,
    watch_fails: bool,
}

impl Reloader {
    pub(super) fn new(configured: Configured, plan: Option<Plan>, reached: Reached, asked: Arc<Notify>) -> Self {
        let taken = configured.config.clone();
        Self { configured, taken, plan, reached, asked, hint: Arc::default(), watch: None, watch_fails: false }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        // A controller that comes back may have read a newer file than its supervisor goes by.
        let config = self.taken.clone();
        if let Err(why) = self.tell_supervisor(&config).await {
            self.refuse(why, false).await;
        } else if let Some(problem) = self.configured.problem.clone() {
            self.tell(EventKind::ConfigInvalid, problem).await;
        }
        let mut asked = false;
        loop {
            // Watched first, read then: a change in between is seen by one of the two. That holds for the first round as
            // well: the configuration in force was read before anything was watched.
            self.watch().await;
            self.read(asked).await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.asked.notified() => asked = true,
                () = self.hint.notified() => {
                    asked = false;
                    self.debounce().await;
                }
                () = tokio::time::sleep(LOOK_AGAIN) => asked = false,
            }
        }
    }

    /// Watches the file and the links that lead to it as they are now.
    async fn watch(&mut self) {
        let Some(file) = self.configured.file.clone() else { return };
        let hint = Arc::clone(&self.hint);
        let hint: watch::Hint = Arc::new(move || hint.notify_one());
        match tokio::task::spawn_blocking(move || watch::file(&file, hint)).await {
            Ok(Ok(watch)) => {
                self.watch = Some(watch);
                self.watch_fails = false;
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut self.watch_fails, true) {
                    warn!("{error}");
                }
            }
            Err(error) => warn!(%error, "starting a watch of the configuration broke off"),
        }
    }

    /// Lets whoever writes the file come to an end.
    async fn debounce(&self) {
        let longest = tokio::time::Instant::now() + QUIET_AT_LONGEST;
        while tokio::time::timeout(QUIET, self.hint.notified()).await.is_ok() {
            if tokio::time::Instant::now() >= longest {
                return;
            }
        }
    }

    async fn read(&mut self, asked: bool) {
        let read = Arc::clone(&self.configured.read);
        let config = match tokio::task::spawn_blocking(move || read()).await {
            Ok(Ok(config)) => config,
            Ok(Err(why)) => return self.refuse(why, asked).await,
            Err(error) => return self.refuse(format!("reading the configuration broke off: {error}"), asked).await,
        };
        let current = self.reached.current.load_full();
        if config == self.taken && current.problem.is_none() {
            if asked {
                info!("the configuration is as it was");
            }
            return;
        }
        match self.take_over(&config).await {
            Ok(difference) => self.taken_over(config, difference).await,
            Err(why) => self.refuse(why, asked).await,
        }
    }

    /// Carries a configuration through, the one who may refuse first.
    async fn take_over(&mut self, config: &Config) -> Result<Difference, String> {
        self.tell_supervisor(config).await?;
        let reached = &self.reached;
        let set = reached.sources.set(&config.sources).await;
        set.map_err(|error| format!("the sources cannot be changed: {error}; this is tried again by itself"))?;
        let set = reached.tellers.set(&in_force(&self.configured.config, config)).await;
        set.map_err(|error| {
            format!("who is told of what happens cannot be changed: {error}; this is tried again by itself")
        })?;
        reached.vault.set_config(&config.secrets);
        reached.runtime.docker().set(super::containers::docker_settings(&config.docker));
        reached.deployments.resize(config.limits.deployments);
        reached.builds.resize(config.limits.builds);
        reached.settings.store(Arc::new(settings(config, self.configured.data_dir.clone())));
        if proxy_options(config) != proxy_options(&self.taken) {
            reached.fleet.set_proxies(proxy_options(config)).await;
        }
        let around = Surroundings::clone(&reached.around.load());
        let proxy_port = config.proxy.listen.first().map(std::net::SocketAddr::port);
        reached.around.store(Arc::new(Surroundings { proxy_port, ..around }));
        // Compared with what the agent was started with: what waits for a start waits until then.
        let mut difference = Difference::between(&self.configured.config, config);
        difference.now = Difference::between(&self.taken, config).now;
        Ok(difference)
    }

    /// Gives the supervisor what concerns it, if it has something else now.
    async fn tell_supervisor(&mut self, config: &Config) -> Result<(), String> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let wanted = Plan {
            proxy_listen: config.proxy.listen.clone(),
            proxy_tls_listen: config.proxy.tls.as_ref().map(|tls| tls.listen.clone()).unwrap_or_default(),
            logs_total: config.retention.logs,
            ..plan.clone()
        };
        if wanted == *plan {
            return Ok(());
        }
        self.reached.runtime.apply(wanted.clone()).await.map_err(|error| error.to_string())?;
        self.plan = Some(wanted);
        Ok(())
    }

    async fn taken_over(&mut self, config: Config, difference: Difference) {
        let current = self.reached.current.load_full();
        let mut effective = in_force(&self.configured.config, &config);
        effective.data_dir.clone_from(&self.configured.data_dir);
        effective.api.socket.clone_from(&self.configured.socket);
        self.reached.current.store(Arc::new(Current {
            config: effective,
            file: self.configured.file.clone(),
            read_at: Timestamp::now(),
            problem: None,
            at_next_start: difference.at_next_start.clone(),
        }));
        self.taken = config;
        let mut words = match difference.now.as_slice() {
            [] if current.problem.is_some() => "the configuration can be read again; nothing in it has changed".into(),
            [] => "the configuration was changed".to_owned(),
            changes => format!("the configuration was read: {}", changes.join(", ")),
        };
        if !difference.at_next_start.is_empty() {
            words.push_str(&format!("; {}", next_start(&difference.at_next_start)));
            warn!("{words}");
        } else {
            info!("{words}");
        }
        self.tell(EventKind::ConfigReloaded, words).await;
    }

    /// Leaves everything as it is, and says so once.
    async fn refuse(&mut self, why: String, asked: bool) {
        let current = self.reached.current.load_full();
        let known = current.problem.as_ref() == Some(&why);
        if asked || !known {
            error!("the configuration is not taken over, nothing was changed: {why}");
        }
        if known {
            return;
        }
        self.reached.current.store(Arc::new(Current { problem: Some(why.clone()), ..Current::clone(&current) }));
        self.tell(EventKind::ConfigInvalid, format!("the configuration is not taken over, nothing was changed: {why}"))
            .await;
    }

    async fn tell(&self, kind: EventKind, message: String) {
        let event = Event {
            at: Timestamp::now(),
            kind,
            app: None,
            version: None,
            source: None,
            object: None,
            cause: None,
            message,
        };
        if let Err(error) = self.reached.ledger.write(move |ledger| facts::event(ledger, &event)).await {
            warn!(%error, "an event cannot be recorded");
        }
    }
}

/// Which keys wait, in words.
pub(super) fn next_start(keys: &[&str]) -> String {
    format!("`{}` cannot change while the agent runs; stop it and start it again", keys.join("`, `"))
}
