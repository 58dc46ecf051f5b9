//! Delivers what waits in the outbox, one task per destination.
//!
//! Owned by the engine's handle, which starts it and changes its destinations. Neighbours: the ledger writes the outbox
//! with each fact, `notify` speaks to the receivers. Nobody waits for this: a receiver that hangs or refuses delays
//! nothing but its own queue.
//!
//! Invariant: a message leaves the outbox only after its receiver has taken or refused it, so that it is told at least
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::announcing::{Announcer, Audience};
use super::heartbeat::Heartbeat;
use super::traces::Traces;
use crate::decide::announce;
use crate::decide::announce::bundle;
use crate::domain::{CommitReport, Notice, NoticeStatus};
use crate::files::config::{ChannelConfig, Config, SourceKind, StatusReports};
use crate::ledger::outbox::{self, COMMIT_STATUS, Message, Miss, NOTIFICATION};
use crate::ledger::{Ledger, LedgerError, announcing};
use crate::notify::Delivery;
use crate::notify::channel::Channel;
use crate::notify::forge::{Caller, Forge};
use crate::wire::channels::Standing;

/// The outbox is looked at this often even if nobody says that something has changed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// After an error of the ledger.
const LEDGER_WAIT: Duration = Duration::from_secs(5);
/// A destination that cannot be prepared is tried again after this.
const OPENED_AGAIN: Duration = Duration::from_secs(10);
/// A burst of changes is one look.
const BURST: Duration = Duration::from_millis(20);
/// A task that was told to end does so within this: a delivery has its own, shorter, deadline.
const OBEYS: Duration = Duration::from_secs(30);

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    /// The forge of a source.
    Forge { reports: StatusReports, ca_file: Option<std::path::PathBuf>, caller: Caller },
    /// A channel to people.
    Channel(Box<ChannelConfig>),
}

/// The kind of a destination's messages, and its name.
type Place = (&'static str, String);

struct Running {
    destination: Destination,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// The tasks of all destinations.
pub(super) struct Tellers {
    ledger: Ledger,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// Held while the set changes.
    running: Mutex<BTreeMap<Place, Running>>,
    audience: watch::Sender<Arc<Audience>>,
    heartbeat: Heartbeat,
    /// Where spans are made.
    pub(super) traces: Traces,
}

impl Tellers {
    pub(super) fn new(
        ledger: Ledger,
        data_dir: std::path::PathBuf,
        traces: Traces,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let nobody = bundle::Teller { agent: String::new(), environment: String::new(), public_url: None };
        let (audience, listening) =
            watch::channel(Arc::new(Audience { channels: Vec::new(), teller: nobody, disk_free: None }));
        let (heartbeat, beating) = Heartbeat::new(ledger.clone(), shutdown.child_token());
        tasks.spawn(beating);
        tasks.spawn(Announcer::new(ledger.clone(), data_dir, listening).run(shutdown.child_token()));
        Self { ledger, tasks, shutdown, running: Mutex::default(), audience, heartbeat, traces }
    }

    /// Delivers to exactly the destinations of this configuration from now on. Those that are as before notice nothing.
    pub(super) async fn set(&self, config: &Config) -> Result<(), LedgerError> {
        let mut running = self.running.lock().await;
        let wanted = destinations(config);
        let changed: Vec<Place> = running
            .iter()
            .filter(|(place, running)| wanted.get(*place) != Some(&running.destination))
            .map(|(place, _)| place.clone())
            .collect();
        for place in &changed {
            if let Some(ended) = running.remove(place) {
                ended.cancel.cancel();
                if tokio::time::timeout(OBEYS, ended.task).await.is_err() {
                    warn!(destination = %place.1, "a delivery that is no longer wanted does not end");
                }
            }
        }
        let names = |kind: &str| -> BTreeSet<String> {
            wanted.keys().filter(|(found, _)| *found == kind).map(|(_, name)| name.clone()).collect()
        };
        let (sources, channels) = (names(COMMIT_STATUS), names(NOTIFICATION));
        let configured = self.ledger.write(move |ledger| {
            outbox::configure(ledger, COMMIT_STATUS, &sources)?;
            announcing::configure(ledger, &channels)
        });
        configured.await?;
        self.audience.send_replace(Arc::new(audience(config)));
        self.heartbeat.set(config.heartbeat.clone());
        self.traces.set(config.traces.clone());
        for (place, destination) in wanted {
            if running.contains_key(&place) {
                continue;
            }
            let cancel = self.shutdown.child_token();
            let teller = Teller {
                place: place.clone(),
                ledger: self.ledger.clone(),
                destination: destination.clone(),
                receiver: None,
                failing: false,
            };
            let task = self.tasks.spawn(teller.run(cancel.clone()));
            running.insert(place, Running { destination, cancel, task });
        }
        Ok(())
    }

    /// Sends a message to a channel now, past its queue; `None` when there is no such channel. When it is taken, what
    /// waits follows at once.
    pub(super) async fn test(&self, name: &str) -> Result<Option<Delivery>, LedgerError> {
        let audience = Arc::clone(&self.audience.borrow());
        let Some(config) = audience.channels.iter().find(|channel| channel.name == name) else { return Ok(None) };
        let delivery = match Channel::new(config) {
            Ok(channel) => channel.deliver(&test_notice(name, &audience.teller, Timestamp::now())).await,
            Err(why) => Delivery::Later { after: None, why },
        };
        if delivery == Delivery::Delivered {
            let (name, at) = (name.to_owned(), Timestamp::now());
            self.ledger.write(move |ledger| outbox::hurry(ledger, NOTIFICATION, &name, at)).await?;
        }
        Ok(Some(delivery))
    }

    /// The channels of the configuration.
    pub(super) fn channels(&self) -> Vec<ChannelConfig> {
        self.audience.borrow().channels.clone()
    }

    /// Why nobody hears that the agent is alive, though somebody should.
    pub(super) fn heartbeat_problem(&self) -> Option<String> {
        self.heartbeat.problem()
    }

    /// How the destinations of a kind stand, by name.
    pub(super) async fn standings(&self, kind: &'static str) -> Result<BTreeMap<String, Standing>, LedgerError> {
        Ok(self.ledger.read(move |ledger| outbox::standings(ledger, kind)).await?.into_iter().collect())
    }
}

impl std::fmt::Debug for Tellers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tellers").finish_non_exhaustive()
    }
}

/// What a channel is sent when people try it.
fn test_notice(name: &str, teller: &bundle::Teller, at: Timestamp) -> Notice {
    Notice {
        id: format!("{:x}-{:08x}", at.as_microsecond(), fastrand::u32(..)),
        at,
        event: "test".to_owned(),
        status: NoticeStatus::Information,
        agent: teller.agent.clone(),
        environment: teller.environment.clone(),
        subjects: vec![name.to_owned()],
        key: format!("test {name}"),
        cause: None,
        title: format!("a test of channel {name}"),
        text: "Somebody asked for this message with `landfall notify test`. The channel works.".to_owned(),
        log: Vec::new(),
        count: None,
        since: None,
        link: None,
        parts: Vec::new(),
    }
}

/// Who hears, and who tells them.
fn audience(config: &Config) -> Audience {
    let caller = caller(config);
    Audience {
        disk_free: config.limits.disk_free,
        channels: config.notifications.clone(),
        teller: bundle::Teller {
            agent: caller.agent,
            environment: caller.environment.to_string(),
            public_url: caller.public_url,
        },
    }
}

fn caller(config: &Config) -> Caller {
    Caller {
        agent: config.agent_name.clone().unwrap_or_else(host_name),
        environment: config.environment.clone(),
        public_url: config.api.public_url.clone(),
    }
}

/// The destinations of a configuration.
fn destinations(config: &Config) -> BTreeMap<Place, Destination> {
    let caller = caller(config);
    let forge = |source: &crate::files::config::SourceConfig| {
        let SourceKind::Git(git) = &source.kind else { return None };
        let reports = git.status.as_deref()?.clone();
        let forge = Destination::Forge { reports, ca_file: git.ca_file.clone(), caller: caller.clone() };
        Some(((COMMIT_STATUS, source.name.to_string()), forge))
    };
    let channel = |channel: &ChannelConfig| {
        ((NOTIFICATION, channel.name.clone()), Destination::Channel(Box::new(channel.clone())))
    };
    config.sources.iter().filter_map(forge).chain(config.notifications.iter().map(channel)).collect()
}

/// What the machine calls itself, up to its domain.
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    match name.split('.').next() {
        Some(short) if !short.is_empty() => short.to_owned(),
        Some(_) | None => "landfall".to_owned(),
    }
}

/// A destination, ready to be spoken to.
enum Receiver {
    Forge(Box<Forge>),
    Channel(Box<Channel>),
}

impl Receiver {
    fn open(destination: &Destination) -> Result<Self, String> {
        match destination {
            Destination::Forge { reports, ca_file, caller } => {
                let forge = Forge::new(reports.clone(), ca_file.as_deref(), caller.clone())?;
                Ok(Receiver::Forge(Box::new(forge)))
            }
            Destination::Channel(config) => Ok(Receiver::Channel(Box::new(Channel::new(config)?))),
        }
    }

    async fn deliver(&self, message: &Message) -> Delivery {
        let not_understood =
            |error| Delivery::Never { why: format!("a message in the outbox cannot be understood: {error}") };
        match self {
            Receiver::Forge(forge) => match serde_json::from_str::<CommitReport>(&message.body) {
                Ok(report) => forge.deliver(&report).await,
                Err(error) => not_understood(error),
            },
            Receiver::Channel(channel) => match serde_json::from_str::<Notice>(&message.body) {
                Ok(notice) => channel.deliver(&notice).await,
                Err(error) => not_understood(error),
            },
        }
    }
}

/// The task of one destination.
struct Teller {
    place: Place,
    ledger: Ledger,
    destination: Destination,
    /// `None` while it cannot be prepared: a file of authorities that is not there may come.
    receiver: Option<Receiver>,
    /// It was said already that nothing is taken.
    failing: bool,
}

impl Teller {
    async fn run(mut self, cancel: CancellationToken) {
        let mut commits = self.ledger.commits();
        loop {
            commits.mark_unchanged();
            let wait = tokio::select! {
                told = self.tell_next() => told.unwrap_or_else(|error| {
                    warn!(destination = %self.place.1, %error, "the outbox cannot be used");
                    LEDGER_WAIT
                }),
                () = cancel.cancelled() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
                () = something_new(&mut commits), if wait == LONGEST_SLEEP => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Delivers what is due, if anything is; answers how long to wait.
    async fn tell_next(&mut self) -> Result<Duration, LedgerError> {
        let (kind, name) = self.place.clone();
        if self.receiver.is_none()
            && let Err(why) = self.open().await
        {
            let at = Timestamp::now();
            self.ledger.write(move |ledger| outbox::unusable(ledger, kind, &name, &why, at)).await?;
            return Ok(OPENED_AGAIN);
        }
        let Some(receiver) = &self.receiver else { return Ok(OPENED_AGAIN) };
        let next = self.ledger.read(move |ledger| outbox::next(ledger, kind, &name)).await?;
        let Some(message) = next else { return Ok(LONGEST_SLEEP) };
        let left = Duration::try_from(message.next_at.duration_since(Timestamp::now())).unwrap_or_default();
        if !left.is_zero() {
            // A clock that was set back must not keep it for ever.
            return Ok(left.min(announce::LONGEST_ASKED));
        }
        let delivery = receiver.deliver(&message).await;
        self.record(message, delivery).await?;
        Ok(Duration::ZERO)
    }

    /// Prepares the receiver; what was wrong with that before is forgotten with it.
    async fn open(&mut self) -> Result<(), String> {
        let (kind, name) = self.place.clone();
        match Receiver::open(&self.destination) {
            Ok(receiver) => {
                self.receiver = Some(receiver);
                let usable = self.ledger.write(move |ledger| outbox::usable(ledger, kind, &name));
                usable.await.map_err(|error| error.to_string())
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(destination = %name, "nothing can be told there, this is tried again: {why}");
                }
                Err(why)
            }
        }
    }

    async fn record(&mut self, message: Message, delivery: Delivery) -> Result<(), LedgerError> {
        let ((kind, name), at, id) = (self.place.clone(), Timestamp::now(), message.id);
        let (why, wait) = match delivery {
            Delivery::Delivered => {
                if std::mem::take(&mut self.failing) {
                    info!(destination = %name, "{kind}: messages are taken again");
                }
                return self.ledger.write(move |ledger| outbox::delivered(ledger, kind, &name, id, at)).await;
            }
            Delivery::Later { after, why } => {
                let age = Duration::try_from(at.duration_since(message.created_at)).unwrap_or_default();
                (why, announce::wait_after(message.attempts + 1, age, after))
            }
            Delivery::Never { why } => (why, None),
        };
        if wait.is_none() || !std::mem::replace(&mut self.failing, true) {
            let then = if wait.is_some() { "it is tried again" } else { "it is given up" };
            warn!(destination = %name, "{kind}: a message is not taken, {then}: {why}");
        }
        let miss = Miss { id, why, next_at: wait.map(|wait| at + wait), at };
        self.ledger.write(move |ledger| outbox::missed(ledger, kind, &name, &miss)).await
    }
}

/// Waits for a commit, and a moment longer for those that follow it.
async fn something_new(commits: &mut watch::Receiver<u64>) {
    match commits.changed().await {
        Ok(()) => tokio::time::sleep(BURST).await,
        // The ledger is closed: the agent ends.
        Err(_) => std::future::pending().await,
    }
}
