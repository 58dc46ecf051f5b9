//! Spans of deployments and calls for an OpenTelemetry collector, where one is configured.
//!
//! Everything they say is on record anyway; a span is made when its work is over. So nothing of the work itself waits for
//! them, knows of them, or is slower for them.
//!
//! ```text
//! reconciler: a deployment is over ─┐
//! caller: ends of calls ────────────┼─► spans ─► a bounded heap ─► OTLP over HTTP (JSON)
//! keeper: records of calls ─────────┘
//! ```
//!
//! One task. Invariants: whoever tells it something never waits; what is too much is dropped and counted; a collector
//! that is away costs memory for [`HEAP`] spans and no more.

mod otlp;
mod spans;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::otlp::Span;
use super::caller::Done;
use super::sleeping::sleep_until;
use crate::domain::{CallId, DeploymentId};
use crate::files::config::TracesConfig;
use crate::files::traces::headers;
use crate::ledger::{Ledger, LedgerError, calls, deployments};
use crate::notify::http;
use crate::wire::calls::CallRecord;

/// What others tell; more is dropped.
const NEWS: usize = 1024;
/// Spans that wait for the collector; more are dropped.
const HEAP: usize = 16 * 1024;
/// Most spans in one request.
const BATCH: usize = 1024;
/// Spans wait this long for others to go with them.
const LINGER: Duration = Duration::from_secs(1);
/// After a request that failed and may be made again; each further one waits twice as long …
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What is left when the agent ends may take so long.
const LAST: Duration = Duration::from_secs(2);

/// What others tell.
#[derive(Debug)]
enum News {
    Deployment(DeploymentId),
    Calls(Vec<CallRecord>),
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Traces {
    news: mpsc::Sender<News>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// 0 while nobody wants any.
    one_in: AtomicU32,
    wanted: watch::Sender<Option<TracesConfig>>,
    exported: AtomicU64,
    dropped: AtomicU64,
    problem: Mutex<Option<String>>,
}

/// Spans that a collector has taken, and those that were dropped, since the controller began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// Taken.
    pub exported: u64,
    /// Dropped: too many at once, or refused.
    pub dropped: u64,
}

impl Shared {
    fn drop_some(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What the task is started with.
pub(super) struct Told(mpsc::Receiver<News>);

impl Traces {
    pub(super) fn new() -> (Self, Told) {
        let (news, told) = mpsc::channel(NEWS);
        (Self { news, shared: Arc::default() }, Told(told))
    }

    /// From now on there, and so many; `None` for nowhere.
    pub(super) fn set(&self, wanted: Option<TracesConfig>) {
        self.shared.one_in.store(wanted.as_ref().map_or(0, |wanted| wanted.one_in), Ordering::Relaxed);
        self.shared.wanted.send_if_modified(|now| {
            let differs = *now != wanted;
            *now = wanted;
            differs
        });
    }

    fn are_wanted(&self) -> bool {
        self.shared.one_in.load(Ordering::Relaxed) > 0
    }

    /// A deployment is over, on record. Never waits.
    pub(super) fn deployment(&self, id: DeploymentId) {
        if self.are_wanted() && self.news.try_send(News::Deployment(id)).is_err() {
            self.shared.drop_some(1);
        }
    }

    /// Calls that somebody waited for are over. Never waits.
    pub(super) fn calls(&self, records: &[CallRecord]) {
        if self.are_wanted() && self.news.try_send(News::Calls(records.to_vec())).is_err() {
            self.shared.drop_some(records.len());
        }
    }

    /// Why the collector takes nothing.
    pub(super) fn problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there were.
    pub(super) fn spans(&self) -> Spans {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Spans { exported: count(&self.shared.exported), dropped: count(&self.shared.dropped) }
    }

    /// The task. `ends` are those of calls that were recorded before they ran.
    pub(super) async fn run(
        self,
        Told(told): Told,
        ledger: Ledger,
        ends: broadcast::Receiver<Done>,
        shutdown: CancellationToken,
    ) {
        let wanted = self.shared.wanted.subscribe();
        let task =
            Task { shared: self.shared, ledger, heap: VecDeque::new(), since: None, wait: None, next_wait: FIRST_WAIT };
        task.run(told, ends, wanted, shutdown).await;
    }
}

struct Task {
    shared: Arc<Shared>,
    ledger: Ledger,
    heap: VecDeque<Span>,
    /// Since when the oldest waits.
    since: Option<Instant>,
    /// Nothing is sent before this.
    wait: Option<Instant>,
    next_wait: Duration,
}

/// How a request went.
enum Sent {
    Taken,
    /// It will never be taken.
    Refused(String),
    Later(String, Option<Duration>),
}

impl Task {
    async fn run(
        mut self,
        mut told: mpsc::Receiver<News>,
        mut ends: broadcast::Receiver<Done>,
        mut wanted: watch::Receiver<Option<TracesConfig>>,
        shutdown: CancellationToken,
    ) {
        loop {
            let Some(config) = wanted.borrow_and_update().clone() else {
                self.heap.clear();
                self.tell(None);
                // Ends are not even looked at.
                tokio::select! {
                    changed = wanted.changed() => if changed.is_err() { return },
                    () = shutdown.cancelled() => return,
                }
                ends = ends.resubscribe();
                continue;
            };
            let one_in = config.one_in;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    let _ = tokio::time::timeout(LAST, self.send(&config)).await;
                    return;
                }
                changed = wanted.changed() => {
                    if changed.is_err() { return }
                    (self.wait, self.next_wait) = (None, FIRST_WAIT);
                }
                () = sleep_until(self.due()) => self.send(&config).await,
                news = told.recv() => match news {
                    Some(News::Deployment(id)) => self.deployment(id).await,
                    Some(News::Calls(records)) => {
                        self.put(records.iter().flat_map(|record| spans::of_record(record, one_in)).collect());
                    }
                    None => return,
                },
                ended = ends.recv() => match ended {
                    Ok(done) => self.call(done.call, one_in).await,
                    Err(RecvError::Lagged(missed)) => self.shared.drop_some(usize::try_from(missed).unwrap_or(usize::MAX)),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// When something is to be sent.
    fn due(&self) -> Option<Instant> {
        let since = self.since?;
        let full = self.heap.len() >= BATCH;
        let due = if full { since } else { since + LINGER };
        Some(self.wait.map_or(due, |wait| wait.max(due)))
    }

    fn put(&mut self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let room = HEAP.saturating_sub(self.heap.len());
        self.shared.drop_some(spans.len().saturating_sub(room));
        self.heap.extend(spans.into_iter().take(room));
        self.since.get_or_insert_with(Instant::now);
    }

    async fn deployment(&mut self, id: DeploymentId) {
        match self.ledger.read(move |ledger| deployments::one(ledger, id)).await {
            Ok(deployment) => self.put(deployment.iter().flat_map(spans::of_deployment).collect()),
            Err(error) => self.unread(&error),
        }
    }

    async fn call(&mut self, id: CallId, one_in: u32) {
        // Most are not looked up where few are kept.
        if !crate::domain::trace::CallTrace::new(id, None).is_sampled(one_in) {
            return;
        }
        let read = self.ledger.read(move |ledger| Ok((calls::one(ledger, id)?, calls::attempts(ledger, id)?)));
        match read.await {
            Ok((Some(call), attempts)) => self.put(spans::of_call(&call, &attempts, one_in)),
            Ok((None, _)) => {}
            Err(error) => self.unread(&error),
        }
    }

    fn unread(&self, error: &LedgerError) {
        warn!(%error, "no span can be made of a record");
        self.shared.drop_some(1);
    }

    /// Sends what there is, or as much as the collector takes now.
    async fn send(&mut self, config: &TracesConfig) {
        while !self.heap.is_empty() {
            let count = self.heap.len().min(BATCH);
            let batch = self.heap.make_contiguous().get(..count).unwrap_or_default();
            let body = otlp::request(batch, &config.service);
            match post(config, body).await {
                Sent::Taken => {
                    self.heap.drain(..count);
                    self.shared.exported.fetch_add(count as u64, Ordering::Relaxed);
                    (self.wait, self.next_wait) = (None, FIRST_WAIT);
                    self.tell(None);
                }
                Sent::Refused(why) => {
                    self.heap.drain(..count);
                    self.shared.drop_some(count);
                    self.tell(Some(why));
                }
                Sent::Later(why, after) => {
                    let wait = after.unwrap_or(self.next_wait).min(LONGEST_WAIT);
                    self.wait = Some(Instant::now() + wait);
                    self.next_wait = (self.next_wait * 2).min(LONGEST_WAIT);
                    self.tell(Some(why));
                    return;
                }
            }
        }
        self.since = None;
    }

    /// Says once that it begins or ceases to go wrong.
    fn tell(&self, now: Option<String>) {
        let mut before = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*before, &now) {
            (None, Some(why)) => warn!("traces are not taken: {why}"),
            (Some(_), None) => info!("traces are taken again"),
            (_, _) => {}
        }
        *before = now;
    }
}

/// One request. Which answers may be asked again for is OTLP's own rule (429, 502, 503, 504).
async fn post(config: &TracesConfig, body: Vec<u8>) -> Sent {
    let prepared = async {
        let client = http::client(config.ca_file.as_deref())?;
        let request = client.post(format!("{}/v1/traces", config.endpoint)).header("content-type", "application/json");
        let given = match &config.headers_file {
            Some(file) => read_headers(file).await?,
            None => Vec::new(),
        };
        Ok::<_, String>(
            given.into_iter().fold(request, |request, (name, value)| request.header(name, value)).body(body),
        )
    };
    let request = match prepared.await {
        Ok(request) => request,
        Err(why) => return Sent::Later(why, None),
    };
    match http::send(request).await {
        Ok(()) => Sent::Taken,
        Err(Ok(refusal)) => {
            let why = format!("the collector answers {}", refusal.line);
            match refusal.status {
                429 | 502 | 503 | 504 => Sent::Later(why, refusal.after),
                _ => Sent::Refused(why),
            }
        }
        Err(Err(why)) => Sent::Later(why, None),
    }
}

async fn read_headers(file: &Path) -> Result<Vec<(String, String)>, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| format!("{}: {error}", file.display()))?;
    headers(&text, file)
}
