//! Watches one source: a push, a poll or a file event says "look"; what is seen is recorded.
//!
//! One task per source. Neighbours: `poller` lists the references of a remote for all sources that follow it, `source`
//! looks, `store` takes the trees over, the ledger records, the reconciler is told which apps to decide anew; whoever
//! receives hooks announces them in the source's `HookBook`.
//!
//! ```text
//! remote:    poller's listing ─► nothing new here ─► (nothing is written)
//!                             └► something new ────► look
//! local:     file event or interval ───────────────► look ─► recorded ─► reconciler
//! suspended: until its end or `resume` nothing is looked at
//! ```
//!
//! Invariants: the mark that a hook left in the ledger is cleared before the look it asked for, never after, and the
//! first thing a watcher does is look: so a push during a look, or a crash in the middle of one, loses nothing. A
//! reading is recorded in one transaction with the cursor, after its trees are in the store; a hint
//! that comes while a look is under way leads to another look; a look has a deadline.

mod hints;
mod look;
mod suspended;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::hints::Hints;
use super::hooks::HookBook;
use super::looking::{Shared, manifest_reader, snapshotter};
use super::poller::{Listed, Pollers, Published, Rhythm, Subscription};
use super::reconciler::Input;
use super::sleeping::sleep_until;
use crate::decide::poll::{self, Situation};
use crate::domain::{CommitId, EnvironmentName, Event, EventKind, SourceName, Suspension, WaitReason, Waiting};
use crate::files::config::{GitSource, SourceConfig, SourceKind};
use crate::ledger::sources::{ManifestRecord, SourceRecord};
use crate::ledger::{Ledger, sources};
use crate::source::watch::Watch;
use crate::source::{KnownApp, KnownApps, Looker, Seen, SharedRemote, SourceError, SourceErrorKind};
use crate::store::Store;

/// Directories have no poll interval of their own; this is the safety net under the file events.
const DIRECTORY_POLL: Duration = Duration::from_secs(30);
/// A snapshot of a directory must be over after this.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(120);
/// A burst of reference updates is one look. Short, because people wait for it.
const PUSH_DEBOUNCE: Duration = Duration::from_millis(2);
/// Requests for a look that may wait.
const ASKED: usize = 64;

/// What others see of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SourceState {
    pub revision: Option<String>,
    pub read_at: Option<Timestamp>,
    pub looked_at: Option<Timestamp>,
    pub next_look_at: Option<Timestamp>,
    pub error: Option<Problem>,
    pub apps: u32,
    pub looking: bool,
    pub suspension: Option<Suspension>,
}

/// Why a source cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// A stable word.
    pub kind: String,
    /// What, where and how to mend it.
    pub message: String,
}

/// The handle to one watcher.
#[derive(Debug, Clone)]
pub(super) struct Watching {
    pub config: SourceConfig,
    pub state: watch::Receiver<SourceState>,
    pub asked: mpsc::Sender<oneshot::Sender<()>>,
    pub hooks: Arc<HookBook>,
    /// What the ledger says about its suspension; the watcher follows.
    pub suspension: watch::Sender<Option<Suspension>>,
    /// What `plan` needs to look without recording.
    pub shared: Arc<Shared>,
}

/// What a watcher works with.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub ledger: Ledger,
    pub store: Arc<Store>,
    pub environment: EnvironmentName,
    pub cache_dir: PathBuf,
    pub inputs: mpsc::Sender<Input>,
    pub pollers: Pollers,
}

/// What a cursor in the ledger was made from; a source that is something else now starts anew.
pub(super) fn fingerprint(config: &SourceConfig) -> String {
    let what = match &config.kind {
        SourceKind::Git(git) => format!("git {} {} {}", git.url, git.reference, git.paths.join("\n")),
        SourceKind::Directory(directory) => format!("directory {}", directory.path.display()),
    };
    match &config.environment {
        None => what,
        Some(environment) => format!("{what} in {environment}"),
    }
}

/// Makes a watcher that goes on from where the ledger says the source was left, and the handle to it.
pub(super) fn prepare(
    config: SourceConfig,
    record: &SourceRecord,
    manifests: &[ManifestRecord],
    waiting: Vec<Waiting>,
    tools: Tools,
) -> Result<(Watching, Watcher), SourceError> {
    let mut looker = Looker::new(&config, &tools.cache_dir, manifest_reader(), snapshotter(&tools.store))?;
    let (mut held_back, mut refused) = (None, false);
    for waiting in waiting {
        match waiting.reason {
            WaitReason::ForcePush { commit, .. } => {
                if waiting.approved_by.is_some() {
                    looker.approve(commit.clone());
                }
                held_back = Some(commit);
            }
            WaitReason::Unverified { .. } => refused = true,
            WaitReason::PruneBrake { .. } => {}
        }
    }
    let mut known = KnownApps::default();
    for manifest in manifests {
        known.insert(KnownApp {
            path: manifest.path.clone(),
            app: manifest.app.clone(),
            owner: manifest.owner,
            includes: manifest.includes.clone(),
        });
    }
    let last = record.tree.clone().map(|tree| Seen { commit: record.commit.clone(), tree, path: record.path.clone() });
    let kind = || record.error_kind.clone().unwrap_or_else(|| UNUSABLE.to_owned());
    let state = SourceState {
        revision: record.commit.as_ref().map(ToString::to_string).or(record.tree.as_ref().map(ToString::to_string)),
        read_at: record.read_at,
        error: record.error.clone().map(|message| Problem { kind: kind(), message }),
        apps: u32::try_from(known.len()).unwrap_or(u32::MAX),
        suspension: record.suspension.clone(),
        ..SourceState::default()
    };
    let shared = Arc::new(Shared::new(looker, known, last));
    let (asked, requests) = mpsc::channel(ASKED);
    let (publish, state) = watch::channel(state);
    let (suspension, suspended) = watch::channel(record.suspension.clone());
    let hints = Hints::new(Arc::new(HookBook::new(record.last_hook, record.dirty)));
    let watching = Watching {
        config: config.clone(),
        state,
        asked,
        hooks: hints.book(),
        suspension: suspension.clone(),
        shared: Arc::clone(&shared),
    };
    let watcher = Watcher {
        config,
        tools,
        shared,
        publish,
        requests,
        suspended,
        suspension,
        hint: Arc::new(Notify::new()),
        watch: None,
        waiting: Vec::new(),
        remote: None,
        hints,
        held_back,
        refused,
        polled_next: None,
        failures: 0,
        retry: None,
    };
    Ok((watching, watcher))
}

/// The watcher of one source.
pub(super) struct Watcher {
    config: SourceConfig,
    tools: Tools,
    shared: Arc<Shared>,
    publish: watch::Sender<SourceState>,
    requests: mpsc::Receiver<oneshot::Sender<()>>,
    suspended: watch::Receiver<Option<Suspension>>,
    suspension: watch::Sender<Option<Suspension>>,
    /// Something on this machine says that there is more to see.
    hint: Arc<Notify>,
    watch: Option<Watch>,
    /// Who waits for a look, and since when.
    waiting: Vec<(Instant, oneshot::Sender<()>)>,
    /// The hold on the remote's poller, for a source that has a remote.
    remote: Option<Subscription>,
    hints: Hints,
    /// A commit that waits because it leaves the last one behind.
    held_back: Option<CommitId>,
    /// A commit waits because nobody who is trusted has signed it.
    refused: bool,
    /// When the poller lists again.
    polled_next: Option<Timestamp>,
    /// Looks of this source that failed in a row.
    failures: u32,
    /// When this source looks by itself, whatever the poller does.
    retry: Option<Instant>,
}

/// What wakes a watcher.
enum Wake {
    /// It is time, by the source's own clock.
    Due,
    /// The poller has something to tell.
    Told(Published),
    /// Somebody asks for a look.
    Asked(oneshot::Sender<()>),
    /// Something has changed on this machine.
    Hint,
    /// A hook has been announced.
    Announced,
    /// It is time to look because of a hook.
    Hook,
    /// The suspension has begun or ended.
    Suspension,
    /// The source is watched no more.
    End,
}

impl Watcher {
    /// Watches until `shutdown`, or until nobody holds the handle any more.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let suspension = self.suspended.borrow_and_update().clone();
            let goes_on = match suspension {
                Some(suspension) => self.sit_out(suspension, &shutdown).await,
                None => self.follow(&shutdown).await,
            };
            if !goes_on || shutdown.is_cancelled() {
                return;
            }
        }
    }

    /// Follows the source until it is suspended; `false` when it is watched no more.
    async fn follow(&mut self, shutdown: &CancellationToken) -> bool {
        self.publish.send_modify(|state| state.suspension = None);
        self.watch_files().await;
        match &self.config.kind {
            SourceKind::Git(git) if SharedRemote::of(git).is_some() => self.subscribe(),
            SourceKind::Git(_) | SourceKind::Directory(_) => self.look(shutdown, Instant::now()).await,
        }
        let goes_on = loop {
            match self.wake(shutdown).await {
                Wake::Due => self.look(shutdown, Instant::now()).await,
                Wake::Told(published) => self.told(published, shutdown).await,
                Wake::Asked(asked) => {
                    self.waiting.push((Instant::now(), asked));
                    while let Ok(asked) = self.requests.try_recv() {
                        self.waiting.push((Instant::now(), asked));
                    }
                    match &self.remote {
                        Some(remote) => remote.ask(),
                        None => self.look(shutdown, Instant::now()).await,
                    }
                }
                Wake::Hint => {
                    self.debounce().await;
                    self.look(shutdown, Instant::now()).await;
                }
                Wake::Announced => self.hints.announced(),
                Wake::Hook => self.follow_hook(shutdown).await,
                Wake::Suspension => {}
                Wake::End => break false,
            }
            if shutdown.is_cancelled() || self.suspended.borrow().is_some() {
                break true;
            }
        };
        // Without subscribers a remote is not polled.
        self.remote = None;
        goes_on
    }

    async fn wake(&mut self, shutdown: &CancellationToken) -> Wake {
        let Self { remote, requests, suspended, hint, hints, retry, .. } = self;
        let book = hints.book();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Wake::End,
            _ = suspended.changed() => Wake::Suspension,
            asked = requests.recv() => asked.map_or(Wake::End, Wake::Asked),
            published = changed(remote) => Wake::Told(published),
            () = hint.notified() => Wake::Hint,
            () = book.announced() => Wake::Announced,
            () = sleep_until(hints.due.map(Into::into)) => Wake::Hook,
            () = sleep_until(retry.map(Into::into)) => Wake::Due,
        }
    }

    fn subscribe(&mut self) {
        let SourceKind::Git(git) = &self.config.kind else { return };
        let rhythm = self.rhythm(git);
        self.retry = None;
        self.remote = SharedRemote::of(git).map(|remote| self.tools.pollers.subscribe(remote, rhythm));
    }

    fn rhythm(&self, git: &GitSource) -> Rhythm {
        Rhythm {
            poll: git.poll.duration(),
            timeout: git.timeout.duration(),
            hook: self.hints.last(),
            missed: self.hints.missed,
        }
    }

    /// Tells the poller what is known of the hooks by now.
    fn set_rhythm(&self) {
        if let (Some(remote), SourceKind::Git(git)) = (&self.remote, &self.config.kind) {
            remote.set_rhythm(self.rhythm(git));
        }
    }

    /// A hook says that there is more to see.
    async fn follow_hook(&mut self, shutdown: &CancellationToken) {
        if self.hints.begin() {
            // Before the look: a hook that comes from here on marks the source anew.
            let name = self.config.name.clone();
            let cleared = self.tools.ledger.write(move |ledger| sources::set_dirty(ledger, &name, false)).await;
            if let Err(error) = cleared {
                // The look is what counts; a mark that stays costs one look more.
                warn!(%error, "the mark of a hook cannot be cleared");
            }
        }
        match &self.remote {
            Some(remote) => {
                remote.ask_for_hook();
                self.set_rhythm();
            }
            None => self.look(shutdown, Instant::now()).await,
        }
    }

    /// Takes in what the poller says.
    async fn told(&mut self, published: Published, shutdown: &CancellationToken) {
        self.polled_next = published.next;
        if self.retry.is_none() {
            self.show_next(published.next);
        }
        let Some(Listed { began, outcome, .. }) = published.listed else { return };
        let SourceKind::Git(git) = &self.config.kind else { return };
        let news = match &outcome {
            Ok(listing) => listing.has_news(&self.config.name, git, self.shared.last().as_ref()),
            Err(failure) => Err(failure.of(&self.config.name)),
        };
        match news {
            Ok(true) => {
                let urgent = self.hints.is_pending() || self.waiting.iter().any(|(since, _)| *since <= began);
                if urgent || self.retry.is_none_or(|retry| retry <= Instant::now()) {
                    self.look(shutdown, began).await;
                }
            }
            Ok(false) => {
                self.hints.over(false);
                self.failures = 0;
                self.set_retry();
                let settled = self.nothing_waits().await;
                self.tell(settled.err().map(LookError::into_problem)).await;
                self.answer(began);
            }
            Err(error) => {
                self.tell(Some(problem(&error))).await;
                self.answer(began);
            }
        }
    }

    /// Answers those who asked before the look began.
    fn answer(&mut self, began: Instant) {
        let (before, after): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(since, _)| *since <= began);
        self.waiting = after;
        for (_, asked) in before {
            // Whoever asked may have gone.
            let _ = asked.send(());
        }
    }

    /// Watches what lies on this machine, unless that is done already. Off the workers: a large directory takes long.
    async fn watch_files(&mut self) {
        if self.watch.is_some() {
            return;
        }
        let (repository, directory) = match &self.config.kind {
            SourceKind::Git(_) => (self.shared.local_repository().map(std::path::Path::to_owned), None),
            SourceKind::Directory(directory) => (None, Some(directory.path.clone())),
        };
        let hint = Arc::clone(&self.hint);
        let hint: crate::source::watch::Hint = Arc::new(move || hint.notify_one());
        let watched = tokio::task::spawn_blocking(move || match (repository, directory) {
            (Some(repository), _) => crate::source::watch::repository(&repository, hint).map(Some),
            (None, Some(directory)) => crate::source::watch::directory(&directory, hint).map(Some),
            (None, None) => Ok(None),
        });
        match watched.await {
            Ok(Ok(watch)) => self.watch = watch,
            Ok(Err(error)) => warn!(source = %self.config.name, "{error}"),
            Err(error) => warn!(source = %self.config.name, %error, "starting a watch broke off"),
        }
    }

    /// Lets a burst of changes end, so that it is one revision.
    async fn debounce(&self) {
        let pause = match &self.config.kind {
            SourceKind::Git(_) => PUSH_DEBOUNCE,
            SourceKind::Directory(directory) => directory.debounce.duration(),
        };
        let longest = tokio::time::Instant::now() + pause * 10;
        loop {
            let quiet = tokio::time::sleep(pause);
            tokio::select! {
                () = quiet => return,
                () = self.hint.notified() => {
                    if tokio::time::Instant::now() >= longest {
                        return;
                    }
                }
            }
        }
    }

    /// Sets when this source looks by itself: always where there is no poller, otherwise only after a failure.
    fn set_retry(&mut self) {
        let interval = match &self.config.kind {
            SourceKind::Git(git) => git.poll.duration(),
            SourceKind::Directory(_) => DIRECTORY_POLL,
        };
        if self.remote.is_some() && self.failures == 0 {
            self.retry = None;
            self.show_next(self.polled_next);
            return;
        }
        let barred = self.remote.as_ref().map(|remote| remote.host().state().barred(Instant::now()));
        let wait = poll::wait(&Situation {
            interval,
            failures: self.failures,
            barred: barred.unwrap_or_default(),
            luck: fastrand::f64(),
        });
        self.retry = Some(Instant::now() + wait);
        self.show_next(Timestamp::now().checked_add(wait).ok());
    }

    fn show_next(&self, next: Option<Timestamp>) {
        self.publish.send_if_modified(|state| {
            let moved = state.next_look_at != next;
            state.next_look_at = next;
            moved
        });
    }

    fn timeout(&self) -> Duration {
        match &self.config.kind {
            SourceKind::Git(git) => git.timeout.duration(),
            SourceKind::Directory(_) => DIRECTORY_TIMEOUT,
        }
    }
}

/// What the poller says next; never anything without one.
async fn changed(remote: &mut Option<Subscription>) -> Published {
    match remote {
        Some(remote) => remote.changed().await,
        None => std::future::pending().await,
    }
}

fn problem(error: &SourceError) -> Problem {
    Problem { kind: error.kind.word().to_owned(), message: error.to_string() }
}

/// An event of a source as a whole.
pub(super) fn event(kind: EventKind, source: &SourceName, at: Timestamp, message: String) -> Event {
    Event { at, kind, app: None, version: None, source: Some(source.clone()), object: None, cause: None, message }
}

/// The kind of a problem with what was read, not with reading it.
const UNUSABLE: &str = "unusable";

/// Why a look led to nothing.
#[derive(Debug)]
pub(super) enum LookError {
    /// The agent ends.
    Cancelled,
    /// Objects that were read turned out to be damaged.
    Damaged(String),
    /// The source could not be read.
    Source(SourceError),
    /// Something else, in words.
    Failed(String),
}

impl LookError {
    fn into_problem(self) -> Problem {
        match self {
            LookError::Source(error) => problem(&error),
            LookError::Damaged(message) => Problem { kind: SourceErrorKind::Corrupt.word().to_owned(), message },
            LookError::Failed(message) => Problem { kind: UNUSABLE.to_owned(), message },
            LookError::Cancelled => {
                Problem { kind: SourceErrorKind::Cancelled.word().to_owned(), message: String::new() }
            }
        }
    }
}

/// The source names among `names` that are not configured any more.
pub(super) fn no_longer_configured(recorded: &[SourceRecord], configured: &[SourceConfig]) -> BTreeSet<SourceName> {
    let configured: BTreeSet<&SourceName> = configured.iter().map(|config| &config.name).collect();
    recorded.iter().map(|record| &record.name).filter(|name| !configured.contains(name)).cloned().collect()
}
