//! Watches one source: a push, a poll or a file event says "look"; what is seen is recorded.
//!
//! One task per source. Neighbours: `source` looks, `store` takes the trees over, the ledger records, the
//! reconciler is told which apps to decide anew; whoever receives hooks announces them in the source's `HookBook`.
//!
//! Invariants: the mark that a hook left in the ledger is cleared before the look it asked for, never after, and the
//! first thing a watcher does is look: so a push during a look, or a crash in the middle of one, loses nothing. A
//! reading is recorded in one transaction with the cursor, after its trees are in the store; a hint
//! that comes while a look is under way leads to another look; a look has a deadline.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::hooks::HookBook;
use super::looked::Looked;
use super::reconciler::Input;
use super::{observe, taking, vanishing};
use crate::decide::hint;
use crate::domain::{CommitId, EnvironmentName, Event, EventKind, SourceName, WaitReason, Waiting};
use crate::files::config::{SourceConfig, SourceKind};
use crate::ledger::sources::{ManifestRecord, SourceRecord};
use crate::ledger::{Ledger, facts, sources, waits};
use crate::source::{
    KnownApp, KnownApps, Look, LookLimits, Looker, ManifestReader, Seen, Snapshot, SnapshotFailure, Snapshotter,
    SourceError, SourceErrorKind,
};
use crate::store::Store;

/// Longest wait between two looks at a source that cannot be read.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
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
    pub error: Option<String>,
    pub apps: u32,
    pub looking: bool,
}

/// The handle to one watcher.
#[derive(Debug, Clone)]
pub(super) struct Watching {
    pub config: SourceConfig,
    pub state: watch::Receiver<SourceState>,
    pub asked: mpsc::Sender<oneshot::Sender<()>>,
    pub hooks: Arc<HookBook>,
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
}

/// The looker and what is known; one look at a time.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Held for moments only, never for a look.
    looked: Mutex<Looked>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

struct Inner {
    looker: Looker,
    known: KnownApps,
    last: Option<Seen>,
}

impl Shared {
    /// One look; blocking. With `again` the objects of the last reading turned out to be damaged.
    pub(super) fn look(&self, limits: &LookLimits, again: bool) -> Result<Look, SourceError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { looker, known, last } = &mut *inner;
        if again {
            looker.distrust()?;
            // What was read from damaged objects is not trusted either: everything is read anew.
            *last = None;
        }
        let look = looker.look(last.as_ref(), known, limits);
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).learn(&look, looker.cache_bytes());
        look
    }

    /// What there is to tell of the last looks.
    pub(super) fn looked(&self) -> Looked {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a commit be taken although it leaves the last one behind.
    pub(super) fn approve(&self, commit: CommitId) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).looker.approve(commit);
    }

    fn recorded(&self, reading: &crate::source::Reading) -> u32 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.known.apply(reading);
        inner.last = Some(reading.seen.clone());
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).read(reading);
        u32::try_from(inner.known.len()).unwrap_or(u32::MAX)
    }

    /// The repository, if it lies on this machine.
    pub(super) fn local_repository(&self) -> Option<PathBuf> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.looker.local_repository().map(std::path::Path::to_owned)
    }
}

/// What a cursor in the ledger was made from; a source that is something else now starts anew.
pub(super) fn fingerprint(config: &SourceConfig) -> String {
    match &config.kind {
        SourceKind::Git(git) => format!("git {} {} {}", git.url, git.reference, git.paths.join("\n")),
        SourceKind::Directory(directory) => format!("directory {}", directory.path.display()),
    }
}

/// How manifests are read: the one parser there is.
pub(super) fn manifest_reader() -> ManifestReader {
    Arc::new(|name, text| crate::files::manifest::read_manifest(name, text).map_err(|errors| errors.to_string()))
}

fn snapshotter(store: &Arc<Store>) -> Snapshotter {
    let store = Arc::clone(store);
    Arc::new(move |path| match store.snapshot(path) {
        Ok(tree) => Ok(Snapshot { tree, objects: store.objects().to_owned() }),
        Err(error) => Err(SnapshotFailure {
            kind: if path.is_dir() { SourceErrorKind::Permission } else { SourceErrorKind::NotFound },
            what: error.to_string(),
            mend: String::new(),
        }),
    })
}

/// Starts watching a source from where the ledger says it was left.
pub(super) fn start(
    config: SourceConfig,
    record: &SourceRecord,
    manifests: &[ManifestRecord],
    waiting: Vec<Waiting>,
    tools: Tools,
    shutdown: CancellationToken,
) -> Result<(Watching, tokio::task::JoinHandle<()>), SourceError> {
    let mut looker = Looker::new(&config, &tools.cache_dir, manifest_reader(), snapshotter(&tools.store))?;
    let mut held_back = None;
    for waiting in waiting {
        let WaitReason::ForcePush { commit, .. } = waiting.reason else { continue };
        if waiting.approved_by.is_some() {
            looker.approve(commit.clone());
        }
        held_back = Some(commit);
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
    let state = SourceState {
        revision: record.commit.as_ref().map(ToString::to_string).or(record.tree.as_ref().map(ToString::to_string)),
        read_at: record.read_at,
        error: record.error.clone(),
        apps: u32::try_from(known.len()).unwrap_or(u32::MAX),
        ..SourceState::default()
    };
    let shared = Arc::new(Shared { inner: Mutex::new(Inner { looker, known, last }), looked: Mutex::default() });
    let (asked, requests) = mpsc::channel(ASKED);
    let (publish, state) = watch::channel(state);
    let hooks = Arc::new(HookBook::new(record.last_hook, record.dirty));
    let watching =
        Watching { config: config.clone(), state, asked, hooks: Arc::clone(&hooks), shared: Arc::clone(&shared) };
    let hooks = Hooks { book: hooks, last_look: None, in_vain: 0 };
    let task = Task { config, tools, shared, publish, failures: 0, hint: Arc::new(Notify::new()), hooks, held_back };
    Ok((watching, tokio::spawn(task.run(requests, shutdown))))
}

struct Task {
    config: SourceConfig,
    tools: Tools,
    shared: Arc<Shared>,
    publish: watch::Sender<SourceState>,
    failures: u32,
    hint: Arc<Notify>,
    hooks: Hooks,
    /// A commit that waits because it leaves the last one behind.
    held_back: Option<CommitId>,
}

/// When looks were made because of hooks.
struct Hooks {
    book: Arc<HookBook>,
    /// When the last look that a hook asked for began.
    last_look: Option<tokio::time::Instant>,
    /// Looks in a row that a hook asked for and that found nothing new.
    in_vain: u32,
}

impl Hooks {
    /// Returns when a hook asks for a look and the last one is long enough ago.
    async fn due(&self) {
        self.book.announced().await;
        if let Some(last) = self.last_look {
            tokio::time::sleep_until(last + hint::spacing(self.in_vain)).await;
        }
    }

    /// A look begins; answers whether it is one that a hook asked for.
    fn begin(&mut self) -> bool {
        let marked = self.book.take_mark();
        if marked {
            self.last_look = Some(tokio::time::Instant::now());
        }
        marked
    }

    /// A look that a hook asked for is over.
    fn over(&mut self, found: bool) {
        self.in_vain = if found { 0 } else { self.in_vain.saturating_add(1) };
    }
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<oneshot::Sender<()>>, shutdown: CancellationToken) {
        let _watch = self.watch_files();
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            self.look(&shutdown).await;
            for asked in waiting.drain(..) {
                let _ = asked.send(());
            }
            if shutdown.is_cancelled() {
                return;
            }
            let wait = self.wait();
            let next = Timestamp::now().checked_add(wait).ok();
            self.publish.send_modify(|state| state.next_look_at = next);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.hint.notified() => self.debounce().await,
                () = self.hooks.due() => {}
                asked = requests.recv() => match asked {
                    Some(asked) => waiting.push(asked),
                    None => return,
                },
                () = shutdown.cancelled() => return,
            }
            while let Ok(asked) = requests.try_recv() {
                waiting.push(asked);
            }
        }
    }

    fn watch_files(&self) -> Option<crate::source::watch::Watch> {
        let hint = Arc::clone(&self.hint);
        let hint: crate::source::watch::Hint = Arc::new(move || hint.notify_one());
        let watched = match &self.config.kind {
            SourceKind::Git(_) => crate::source::watch::repository(&self.shared.local_repository()?, hint),
            SourceKind::Directory(directory) => crate::source::watch::directory(&directory.path, hint),
        };
        watched.inspect_err(|error| warn!(source = %self.config.name, "{error}")).ok()
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

    fn wait(&self) -> Duration {
        let poll = match &self.config.kind {
            SourceKind::Git(git) => git.poll.duration(),
            SourceKind::Directory(_) => DIRECTORY_POLL,
        };
        let base = if self.failures == 0 {
            poll
        } else {
            poll.min(Duration::from_secs(5)).saturating_mul(1 << self.failures.min(12)).min(LONGEST_WAIT)
        };
        // ± 10 %, so that many agents do not knock at once.
        let wait = base.mul_f64(0.9 + 0.2 * fastrand::f64());
        wait.max(self.shared.looked().retry_after.unwrap_or_default())
    }

    fn timeout(&self) -> Duration {
        match &self.config.kind {
            SourceKind::Git(git) => git.timeout.duration(),
            SourceKind::Directory(_) => DIRECTORY_TIMEOUT,
        }
    }

    /// One look, recorded. Never fails: what goes wrong becomes the source's state.
    async fn look(&mut self, shutdown: &CancellationToken) {
        self.publish.send_modify(|state| state.looking = true);
        let hinted = self.clear_mark().await;
        let before = self.publish.borrow().read_at;
        let mut result = self.look_and_record(shutdown, false).await;
        if let Err(LookError::Damaged(what)) = &result {
            warn!(source = %self.config.name, what, "objects of the source are damaged; they are fetched anew");
            result = self.look_and_record(shutdown, true).await;
        }
        let error = match result {
            Ok(()) => None,
            Err(LookError::Cancelled) => return,
            Err(LookError::Failed(message) | LookError::Damaged(message)) => Some(message),
        };
        if hinted {
            let found = self.publish.borrow().read_at != before;
            self.hooks.over(found);
        }
        self.tell(error).await;
    }

    /// Clears the mark of a hook, if there is one. A hook that comes from here on marks the source anew.
    async fn clear_mark(&mut self) -> bool {
        if !self.hooks.begin() {
            return false;
        }
        let name = self.config.name.clone();
        let cleared = self.tools.ledger.write(move |ledger| sources::set_dirty(ledger, &name, false)).await;
        if let Err(error) = cleared {
            // The look is what counts; a mark that stays costs one look more.
            warn!(%error, "the mark of a hook cannot be cleared");
        }
        true
    }

    async fn look_and_record(&mut self, shutdown: &CancellationToken, again: bool) -> Result<(), LookError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let limits = LookLimits { deadline: Instant::now() + self.timeout(), cancel: Arc::clone(&cancel) };
        let shared = Arc::clone(&self.shared);
        let looking = tokio::task::spawn_blocking(move || shared.look(&limits, again));
        tokio::pin!(looking);
        let looked = tokio::select! {
            looked = &mut looking => looked,
            () = shutdown.cancelled() => {
                cancel.store(true, Ordering::Relaxed);
                looking.await
            }
        };
        let look = match looked {
            Ok(Ok(look)) => look,
            Ok(Err(error)) if error.kind == SourceErrorKind::Cancelled => return Err(LookError::Cancelled),
            Ok(Err(error)) => return Err(LookError::Failed(error.to_string())),
            Err(error) => return Err(LookError::Failed(format!("looking at the source was interrupted: {error}"))),
        };
        let reading = match look {
            Look::Changed(reading) => reading,
            Look::Unchanged { .. } => return self.nothing_waits().await,
            Look::Diverged { last, commit } => return self.hold_back(last, commit).await,
        };
        debug!(source = %self.config.name, manifests = reading.stats.manifests_read, trees = reading.stats.trees_read, "read");
        for note in &reading.notes {
            warn!(source = %self.config.name, "{}", note.message);
        }
        let recorded = observe::record(&self.tools, &self.config, &reading).await?;
        self.held_back = None;
        let apps = self.shared.recorded(&reading);
        self.show(&reading, &recorded, apps);
        let words = reading.seen.commit.as_ref().map(|commit| commit.short().to_owned());
        info!(
            source = %self.config.name,
            revision = words.unwrap_or_else(|| reading.seen.tree.short().to_owned()),
            changed = recorded.touched.len(),
            "new revision read"
        );
        let _ = self.tools.inputs.send(Input::Observed { touched: recorded.touched }).await;
        Ok(())
    }

    /// The branch was rewritten, and that is not followed without approval: the revision waits.
    async fn hold_back(&mut self, last: CommitId, commit: CommitId) -> Result<(), LookError> {
        if self.held_back.as_ref() == Some(&commit) {
            return Ok(());
        }
        let (name, at, revision) = (self.config.name.clone(), Timestamp::now(), commit.to_string());
        let reason = WaitReason::ForcePush { last, commit: commit.clone() };
        warn!("{}", reason.words_for(&name));
        let recorded = self.tools.ledger.write(move |ledger| {
            if waits::set(ledger, &name, &reason, Some(&revision), at)? {
                vanishing::tell_waiting(ledger, &name, &reason, at)?;
            }
            Ok(())
        });
        recorded.await.map_err(|error| LookError::Failed(error.to_string()))?;
        self.held_back = Some(commit);
        Ok(())
    }

    /// The source is where it was read last: a rewritten branch that waited was put back.
    async fn nothing_waits(&mut self) -> Result<(), LookError> {
        if self.held_back.is_none() {
            return Ok(());
        }
        let (name, at) = (self.config.name.clone(), Timestamp::now());
        let recorded = self.tools.ledger.write(move |ledger| taking::end_waits_for_a_revision(ledger, &name, at));
        recorded.await.map_err(|error| LookError::Failed(error.to_string()))?;
        self.held_back = None;
        Ok(())
    }

    fn show(&self, reading: &crate::source::Reading, recorded: &super::taking::Recorded, apps: u32) {
        let seen = &reading.seen;
        let revision = seen.commit.as_ref().map_or_else(|| seen.tree.to_string(), ToString::to_string);
        self.publish.send_modify(|state| {
            state.revision = Some(revision);
            state.read_at = Some(recorded.at);
            state.apps = apps;
        });
    }

    /// Publishes how the look ended, and records it when that is news.
    async fn tell(&mut self, error: Option<String>) {
        let before = self.publish.borrow().error.clone();
        self.failures = if error.is_some() { self.failures.saturating_add(1) } else { 0 };
        self.publish.send_modify(|state| {
            state.looking = false;
            if error.is_none() {
                state.looked_at = Some(Timestamp::now());
            }
            state.error = error.clone();
        });
        if before == error {
            return;
        }
        let (kind, message) = match &error {
            Some(error) => (EventKind::SourceFailing, error.clone()),
            None => (EventKind::SourceRecovered, format!("source {} can be read again", self.config.name)),
        };
        match &error {
            Some(error) => warn!("{error}"),
            None => info!("{message}"),
        }
        let (name, at) = (self.config.name.clone(), Timestamp::now());
        let event = Event { at, kind, app: None, version: None, source: Some(name.clone()), message };
        let recorded = self.tools.ledger.write(move |ledger| {
            sources::set_error(ledger, &name, error.as_deref())?;
            facts::event(ledger, &event)
        });
        if let Err(error) = recorded.await {
            warn!(%error, "the state of a source cannot be recorded");
        }
    }
}

/// Why a look led to nothing.
#[derive(Debug)]
pub(super) enum LookError {
    /// The agent ends.
    Cancelled,
    /// Objects that were read turned out to be damaged.
    Damaged(String),
    /// Something else, in words.
    Failed(String),
}

/// The source names among `names` that are not configured any more.
pub(super) fn no_longer_configured(recorded: &[SourceRecord], configured: &[SourceConfig]) -> BTreeSet<SourceName> {
    let configured: BTreeSet<&SourceName> = configured.iter().map(|config| &config.name).collect();
    recorded.iter().map(|record| &record.name).filter(|name| !configured.contains(name)).cloned().collect()
}
