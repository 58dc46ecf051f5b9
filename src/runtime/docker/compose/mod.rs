//! What looks after a Compose project: `landfall internal-compose`, the one instance of an app with `compose`.
//!
//! ```text
//!        ┌──────────── a newer version comes ──────────┐
//!        ▼                                             │
//! standing by ──the newer one is gone──► bringing up ─► keeping ─┬─ not healthy any more ─► ends with an error
//!        │                                   │                   │
//!        └─SIGTERM─► ends            SIGTERM └───────────────────┴─► project taken down ─► ends
//! ```
//!
//! A child of the supervisor like any other instance, so that a controller may die while the project runs, and all
//! else is as for every app: back-off after an error, bake window, rollback, logs. It says by a port that accepts
//! connections that the project is healthy. Neighbours: `tool` runs the engine's own command, `seen` asks the engine
//! how the containers are, `turns` decides which of several such processes has the project.
//!
//! Invariants: one process at a time changes a project; it is taken down only when no version before stands by and the
//! app ends, or when it was never healthy; named volumes are never removed.

mod clear;
mod images;
mod seen;
mod tool;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::seen::Standing;
use self::tool::{Failed, Tool};
use self::turns::Turns;
use super::connection::{self, Connection};
use super::{Docker, EngineTls, Logins, Settings, names};
use crate::domain::{AppKey, Builder};
use crate::tls::PairFiles;
use crate::wire::services::ServiceView;

pub use clear::NotTakenDown;
pub use images::{FOUND, ServiceImage, find as find_images};

/// The image of each service that was recorded for the version, as JSON by the service's name.
pub const IMAGES: &str = "LANDFALL_COMPOSE_IMAGES";
/// Landfall's own name for images of the app, without a tag.
const REPOSITORY: &str = "LANDFALL_COMPOSE_REPOSITORY";
/// The project's name.
const PROJECT: &str = "LANDFALL_COMPOSE_PROJECT";
/// The directory with the locks and the mark of the version that was healthy.
const DIRECTORY: &str = "LANDFALL_COMPOSE_DIRECTORY";
/// Files with which the engine is spoken to over TLS: authority, certificate, key.
const TLS: [&str; 3] = ["LANDFALL_ENGINE_CA", "LANDFALL_ENGINE_CERTIFICATE", "LANDFALL_ENGINE_KEY"];
/// Set when plain text to another machine is meant.
const INSECURE: &str = "LANDFALL_ENGINE_INSECURE";
/// Pause between two looks at a project that comes up.
const COMING_UP: Duration = Duration::from_millis(500);
/// Pause between two looks at one that is up.
const KEEPING: Duration = Duration::from_secs(2);
/// A project that does not stand as it should is looked at so often before that counts.
const LOOKS: u32 = 2;
/// A version before must have let go of the project after this long.
const TURN: Duration = Duration::from_secs(60);
/// Taking a project down may take this long …
const DOWN: Duration = Duration::from_secs(85);
/// … and what the tool leaves of it this long; the supervisor's patience ends a little later.
const CLEARED: Duration = Duration::from_secs(25);

/// Which project is looked after.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its files, relative to the working directory.
    pub files: Vec<String>,
    /// Services with one of these profiles run too.
    pub profiles: Vec<String>,
    /// It must be healthy after this long.
    pub timeout: Duration,
}

/// Why a project is not looked after any more, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ComposeError(String);

impl ComposeError {
    fn of(doing: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{doing}: {error}"))
    }
}

impl Docker {
    /// Tells what looks after an app's project in which engine, and under which name, that lives.
    pub fn lend(&self, key: &AppKey, directory: &Path, env: &mut BTreeMap<String, String>) {
        self.shared.need();
        let settings = self.shared.settings.load();
        let mut give = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
        give("DOCKER_HOST", connection::address(&settings));
        give(PROJECT, names::project(&self.shared.owner, key));
        give(REPOSITORY, names::repository(&self.shared.owner, key));
        give(DIRECTORY, directory.display().to_string());
        if settings.insecure {
            give(INSECURE, "1".to_owned());
        }
        let Some(tls) = &settings.tls else { return };
        let own = tls.own.iter().flat_map(|own| [&own.certificate, &own.key]);
        for (name, file) in TLS.iter().zip(std::iter::once(&tls.authority).chain(own)) {
            give(name, file.display().to_string());
        }
    }

    /// The containers of an app's project, sorted by their services.
    ///
    /// # Errors
    /// In words, when the engine does not say.
    pub async fn project_containers(&self, key: &AppKey) -> Result<Vec<ServiceView>, String> {
        let client = self.shared.client().await.map_err(|trouble| trouble.to_string())?;
        let found = seen::containers(&client, &names::project(&self.shared.owner, key)).await;
        let found = found.map_err(|error| connection::words(&error))?;
        Ok(found.into_iter().map(seen::Container::view).collect())
    }
}

/// What [`Docker::lend`] told this process.
fn lent() -> Settings {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let [authority, certificate, key] = TLS.map(path);
    let own = certificate.zip(key).map(|(certificate, key)| PairFiles { certificate, key });
    Settings {
        socket: std::env::var("DOCKER_HOST").ok(),
        tls: authority.map(|authority| EngineTls { authority, own }),
        insecure: std::env::var_os(INSECURE).is_some(),
        network: None,
        builder: Builder::default(),
        logins: Logins::new(Vec::new(), |_| Ok(None)),
    }
}

fn variable(name: &'static str) -> Result<String, ComposeError> {
    let words = || ComposeError(format!("`{name}` is not set; this program is started by the agent for `compose`"));
    std::env::var(name).map_err(|_| words())
}

/// The images that are recorded for the version; none for versions from before images were.
fn pinned() -> Result<BTreeMap<String, String>, ComposeError> {
    let Ok(text) = std::env::var(IMAGES) else { return Ok(BTreeMap::new()) };
    serde_json::from_str(&text).map_err(|error| ComposeError::of(IMAGES, error))
}

/// Looks after a project until SIGTERM. An error says why it cannot be, or is not healthy.
pub fn run(order: Order) -> Result<(), ComposeError> {
    until_told(async |leave| Keeper::new(order).await?.keep(leave).await)
}

/// Does what SIGTERM is to end.
fn until_told(work: impl AsyncFnOnce(Signal) -> Result<(), ComposeError>) -> Result<(), ComposeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ComposeError::of("the runtime cannot be started", error))?;
    runtime.block_on(async {
        let leave = signal(SignalKind::terminate()).map_err(|e| ComposeError::of("SIGTERM cannot be awaited", e))?;
        work(leave).await
    })
}

/// A line of Landfall's own in the instance's log. Without a log the project goes on.
fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout().lock(), "[landfall] {line}"));
}

struct Keeper {
    order: Order,
    project: String,
    version: String,
    directory: PathBuf,
    port: u16,
    settings: Settings,
    connection: Connection,
    tool: Tool,
    /// Its images are recorded, and nothing is built any more.
    has_images: bool,
    /// Containers that have been there before this moment have told their story to an instance before.
    since: Timestamp,
}

/// What else is wanted of a project than to keep it.
enum Asked {
    /// The instance ends.
    Leave,
    /// A newer version wants it.
    Yield,
}

/// What is known of the containers over several looks.
#[derive(Default)]
struct Watch {
    listening: Option<AbortOnDropHandle<()>>,
    output: HashMap<String, AbortOnDropHandle<()>>,
}

impl Keeper {
    async fn new(order: Order) -> Result<Self, ComposeError> {
        let (project, directory) = (variable(PROJECT)?, PathBuf::from(variable(DIRECTORY)?));
        let port = variable("PORT")?.parse().map_err(|error| ComposeError::of("`PORT`", error))?;
        let settings = lent();
        let mut tool = Tool::find(&order, &project, &settings).await.map_err(ComposeError)?;
        let pinned = pinned()?;
        tool.overlay(&order, &pinned)?;
        let has_images = !pinned.is_empty();
        let version = variable("LANDFALL_VERSION")?;
        let (connection, since) = (Connection::default(), Timestamp::now());
        Ok(Self { order, project, version, directory, port, settings, connection, tool, has_images, since })
    }

    async fn keep(&self, mut leave: Signal) -> Result<(), ComposeError> {
        // Before the version before lets go: what cannot be done at all must not stop what runs.
        self.connection.client(&self.settings).await.map_err(|trouble| ComposeError(trouble.to_string()))?;
        let turns = Turns::open(&self.directory).map_err(|e| ComposeError::of("the project cannot be locked", e))?;
        let mut turn = tokio::select! {
            turn = turns.take(TURN) => turn.map_err(|e| ComposeError::of("the version before keeps the project", e))?,
            _ = leave.recv() => return Ok(()),
        };
        let mut watch = Watch::default();
        loop {
            match self.hold(&turns, &mut leave, &mut watch).await {
                Ok(Asked::Leave) if turns.somebody_stands_by() => {
                    say("the version before takes the project back");
                    return Ok(());
                }
                Ok(Asked::Leave) => return self.down().await,
                Ok(Asked::Yield) => {
                    say("a newer version takes the project over");
                    let standing = turns.stand_by().map_err(|e| ComposeError::of("the project cannot be locked", e))?;
                    drop(turn);
                    watch.output.clear();
                    turn = tokio::select! {
                        turn = turns.when_free() => turn,
                        _ = leave.recv() => return Ok(()),
                    };
                    drop(standing);
                    say("the newer version is gone, and this one takes the project back");
                }
                Err(words) => {
                    // Nothing is left half: the version before brings its own up again, or there is none.
                    if !turns.somebody_stands_by() && !self.was_healthy() {
                        self.down().await?;
                    }
                    return Err(ComposeError(words));
                }
            }
        }
    }

    /// Brings the project up and watches it until something else is wanted, or it is not healthy any more.
    async fn hold(&self, turns: &Turns, leave: &mut Signal, watch: &mut Watch) -> Result<Asked, String> {
        let stop = CancellationToken::new();
        let asked = async {
            tokio::select! {
                _ = leave.recv() => Asked::Leave,
                () = turns.wanted() => Asked::Yield,
            }
        };
        let mut work = std::pin::pin!(self.work(&stop, watch));
        tokio::select! {
            words = &mut work => Err(words),
            asked = asked => {
                stop.cancel();
                // Its tool has a deadline for ending; what it has begun is finished or undone by whoever is next.
                work.await;
                Ok(asked)
            }
        }
    }

    /// Ends with what is wrong with the project, or when it is told to stop.
    async fn work(&self, stop: &CancellationToken, watch: &mut Watch) -> String {
        let deadline = Instant::now() + self.order.timeout;
        let build = if self.has_images { "--no-build" } else { "--build" };
        let up = ["up", "--detach", "--remove-orphans", build];
        match self.tool.run(&up, self.order.timeout, stop).await {
            Ok(()) => {}
            Err(Failed::Stopped) => return String::new(),
            Err(Failed::Ended(words)) => {
                let blamed = stop.run_until_cancelled(self.blame()).await.flatten();
                return blamed.map_or_else(|| words.clone(), |blamed| format!("{words}: {blamed}"));
            }
        }
        let kept = async {
            let expected = self.until_healthy(deadline, watch).await?;
            if watch.listening.is_none() {
                watch.listening = Some(self.listen().await?);
            }
            self.mark_healthy();
            Err::<std::convert::Infallible, String>(self.until_wrong(&expected, watch).await)
        };
        match stop.run_until_cancelled(kept).await {
            Some(Err(words)) => words,
            None => String::new(),
        }
    }

    /// Who is to blame where the tool gave up waiting: it names containers by their identifiers only. Tells what they
    /// wrote last.
    async fn blame(&self) -> Option<String> {
        let client = self.connection.client(&self.settings).await.ok()?;
        let found = seen::containers(&client, &self.project).await.ok()?;
        let mut blamed = Vec::new();
        for container in found.iter().filter(|container| container.is_bad()) {
            seen::tell_last(&client, container).await;
            blamed.push(format!("{} is {}", container.name, container.words()));
        }
        (!blamed.is_empty()).then(|| blamed.join("; "))
    }

    /// Looks until all containers have been as they should twice; answers which there are.
    async fn until_healthy(&self, deadline: Instant, watch: &mut Watch) -> Result<Vec<String>, String> {
        let (mut good, mut told) = (0, String::new());
        loop {
            let found =
                self.look(watch).await.map_err(|error| format!("the engine does not say how it is: {error}"))?;
            let words = match seen::judge(&found) {
                Standing::Good => {
                    good += 1;
                    if good >= LOOKS {
                        for container in &found {
                            say(format_args!("{} is {}", container.name, container.words()));
                        }
                        return Ok(found.into_iter().map(|container| container.name).collect());
                    }
                    String::new()
                }
                Standing::Coming(words) => words,
                Standing::Bad(words) => return Err(words),
            };
            if !words.is_empty() {
                good = 0;
                if words != told {
                    say(&words);
                    told.clone_from(&words);
                }
            }
            if Instant::now() >= deadline {
                let limit = self.order.timeout.as_secs();
                return Err(format!("not healthy within {limit} s: {words}; allow more time with `compose.timeout`"));
            }
            tokio::time::sleep(COMING_UP).await;
        }
    }

    /// Looks until something is wrong that Compose does not put right by itself. An engine that does not answer says
    /// nothing about the project.
    async fn until_wrong(&self, expected: &[String], watch: &mut Watch) -> String {
        let (mut bad, mut away) = (0, false);
        loop {
            tokio::time::sleep(KEEPING).await;
            let found = match self.look(watch).await {
                Ok(found) => found,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        say(format_args!(
                            "the engine does not say how the project is, and nothing is concluded: {error}"
                        ));
                    }
                    continue;
                }
            };
            if std::mem::take(&mut away) {
                say("the engine answers again");
            }
            let gone = expected.iter().find(|name| !found.iter().any(|container| container.name == **name));
            let wrong = match (gone, seen::judge(&found)) {
                (Some(name), _) => Some(format!("{name}: its container is gone")),
                (None, Standing::Bad(words)) => Some(words),
                (None, Standing::Good | Standing::Coming(_)) => None,
            };
            bad = if wrong.is_some() { bad + 1 } else { 0 };
            if let Some(words) = wrong.filter(|_| bad >= LOOKS) {
                return words;
            }
        }
    }

    /// The containers of the project; follows what new ones write.
    async fn look(&self, watch: &mut Watch) -> Result<Vec<seen::Container>, String> {
        let client = self.connection.client(&self.settings).await.map_err(|trouble| trouble.to_string())?;
        let found = seen::containers(&client, &self.project).await.map_err(|error| {
            if connection::is_lost(&error) {
                self.connection.lost(&error.to_string());
            }
            connection::words(&error)
        })?;
        watch.output.retain(|id, _| found.iter().any(|container| container.id == *id));
        for container in &found {
            let ended = watch.output.get(&container.id).is_none_or(|task| task.is_finished());
            if ended && (container.is_running() || !watch.output.contains_key(&container.id)) {
                let follow = seen::follow(client.clone(), container.id.clone(), container.name.clone(), self.since);
                watch.output.insert(container.id.clone(), AbortOnDropHandle::new(tokio::spawn(follow)));
            }
        }
        Ok(found)
    }

    /// From now on the port says that the project is healthy.
    async fn listen(&self) -> Result<AbortOnDropHandle<()>, String> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = bound.map_err(|error| format!("port {} cannot be bound: {error}", self.port))?;
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                if listener.accept().await.is_err() {
                    tokio::time::sleep(COMING_UP).await;
                }
            }
        })))
    }

    fn mark(&self) -> PathBuf {
        self.directory.join("healthy")
    }

    /// Whether this version's project was healthy once: then it is left as it is when something goes wrong with it.
    fn was_healthy(&self) -> bool {
        std::fs::read_to_string(self.mark()).is_ok_and(|text| text == self.version)
    }

    fn mark_healthy(&self) {
        let temporary = self.directory.join(".healthy.new");
        if let Err(error) = crate::whole::write(&self.mark(), &temporary, self.version.as_bytes()) {
            say(format_args!("{} cannot be written: {error}", self.mark().display()));
        }
    }

    /// Takes the project down, with what the tool does not see: the end of one that was bringing it up is not the end of
    /// what it had asked of the engine.
    async fn down(&self) -> Result<(), ComposeError> {
        say("the project is taken down; its named volumes stay");
        let told = self.tool.run(&["down", "--remove-orphans"], DOWN, &CancellationToken::new()).await;
        if let Err(Failed::Ended(words)) = &told {
            say(format_args!("{words}; what is left is removed without it"));
        }
        let failed = |words: String| ComposeError(format!("the project cannot be taken down: {words}"));
        let client = self.connection.client(&self.settings).await.map_err(|trouble| failed(trouble.to_string()))?;
        match tokio::time::timeout(CLEARED, clear::clear(&client, &self.project)).await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(left)) => {
                say(format_args!("containers that were left of the project are removed: {left}"));
                Ok(())
            }
            Ok(Err(error)) => Err(failed(connection::words(&error))),
            Err(_) => Err(failed(format!("its containers were not gone within {} s", CLEARED.as_secs()))),
        }
    }
}
