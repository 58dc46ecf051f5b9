//! Calls that must not be lost, as a proxy carries them out for the controller.
//!
//! ```text
//! order ─► a thread ─► run ─► answer read to its end ─► ended, kept ──acknowledged──► forgotten
//!             └─ cancelled: given up ─────────────────►┘
//! ```
//!
//! Owner: `link.rs` holds every attempt from its order to its acknowledgement ([`Held`]); the threads carry them out.
//! Invariants: an attempt that was ordered is held until the controller has said that its end is on record; it is
//! carried out once; the process does not leave while it holds any.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::attempt::{Blob, INLINE, body_file, result_file};
use crate::domain::{
    AttemptEnd, AttemptId, AttemptOutcome, CallError, CallResult, Payload, Place, Times, VersionNumber,
};
use crate::proxy::answer::Trouble;
use crate::proxy::shared::Shared;
use crate::proxy::worker::Worker;
use crate::whole;
use crate::wire::calls::{Ended, Run};

use super::Ask;
use super::body::Given;
use super::run::{Running, run};

/// Longest result of a call; a longer one makes it fail.
const MAX_RESULT: usize = 64 * 1024 * 1024;
/// So much of an answer that says no is quoted.
const QUOTED: usize = 500;

/// An attempt for a thread.
#[derive(Debug)]
pub struct Order {
    run: Run,
    cancelled: CancellationToken,
    directory: Arc<Path>,
}

/// The attempts this proxy has.
#[derive(Debug)]
pub struct Held {
    directory: Arc<Path>,
    running: HashMap<AttemptId, CancellationToken>,
    ended: BTreeMap<AttemptId, Ended>,
    next_thread: usize,
}

impl Held {
    /// None yet; bodies and results lie in this directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory: directory.into(), running: HashMap::new(), ended: BTreeMap::new(), next_thread: 0 }
    }

    /// All of them, for a hello.
    pub fn attempts(&self) -> Vec<AttemptId> {
        self.running.keys().chain(self.ended.keys()).copied().collect()
    }

    /// Those whose end the controller has not recorded yet.
    pub fn unacknowledged(&self) -> Vec<Ended> {
        self.ended.values().cloned().collect()
    }

    /// Has attempts carried out. Answers those that cannot even begin.
    pub fn take(&mut self, runs: Vec<Run>, shared: &Shared) -> Vec<Ended> {
        let mut refused = Vec::new();
        for run in runs {
            let attempt = run.attempt;
            if self.running.contains_key(&attempt) || self.ended.contains_key(&attempt) {
                continue;
            }
            let cancelled = CancellationToken::new();
            self.running.insert(attempt, cancelled.clone());
            self.next_thread = (self.next_thread + 1) % shared.threads.len().max(1);
            let order = Order { run, cancelled, directory: Arc::clone(&self.directory) };
            let ordered =
                shared.threads.get(self.next_thread).is_some_and(|thread| thread.orders.try_send(order).is_ok());
            if !ordered {
                let why = CallError::new("busy", "the proxy has more calls to carry out than it takes at once");
                let end = AttemptEnd::without_report(AttemptOutcome::Refused, Timestamp::now(), Some(why));
                refused.push(Ended { attempt, end, result: None });
            }
        }
        self.count(shared);
        refused
    }

    /// Gives attempts up; each still ends, and is reported.
    pub fn cancel(&self, attempts: &[AttemptId]) {
        for running in attempts.iter().filter_map(|attempt| self.running.get(attempt)) {
            running.cancel();
        }
    }

    /// Keeps the end of an attempt until it is acknowledged.
    pub fn ended(&mut self, ended: Ended) {
        self.running.remove(&ended.attempt);
        self.ended.insert(ended.attempt, ended);
    }

    /// Forgets ends that are on record.
    pub fn acknowledge(&mut self, attempts: &[AttemptId], shared: &Shared) {
        for attempt in attempts {
            self.ended.remove(attempt);
        }
        self.count(shared);
    }

    fn count(&self, shared: &Shared) {
        shared.held.store(self.running.len() + self.ended.len(), Ordering::SeqCst);
    }
}

/// Carries orders out on this thread, for as long as there are any.
pub async fn serve(worker: Rc<Worker>, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let ended = carry_out(&worker, order).await;
            // Where nobody listens any more, nobody needs to know.
            let _ = worker.shared.ends.send(ended);
        });
    }
}

async fn carry_out(worker: &Rc<Worker>, order: Order) -> Ended {
    let Order { run, cancelled, directory } = order;
    let attempt = run.attempt;
    let mut report = Report::new();
    let tried = tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(Failure::new(AttemptOutcome::Cancelled, CallError::new("cancelled", "somebody ended the call"))),
        tried = try_it(worker, run, &directory, &mut report) => tried,
    };
    let (outcome, result, error) = match tried {
        Ok(result) => (AttemptOutcome::Succeeded, Some(result), None),
        Err(Failure { outcome, error }) => (outcome, None, Some(error)),
    };
    let end = AttemptEnd {
        outcome,
        ended_at: Timestamp::now(),
        version: report.version,
        times: report.times(),
        instance: report.instance,
        error,
    };
    Ended { attempt, end, result }
}

/// What is known of an attempt besides its end.
struct Report {
    began: Instant,
    queued_us: u64,
    version: Option<VersionNumber>,
    instance: Option<crate::domain::InstanceId>,
}

impl Report {
    fn new() -> Self {
        Self { began: Instant::now(), queued_us: 0, version: None, instance: None }
    }

    fn times(&self) -> Times {
        let all = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Times { queued_us: self.queued_us, starting_us: 0, running_us: all.saturating_sub(self.queued_us) }
    }

    fn learn(&mut self, running: &Running) {
        let record = running.record();
        self.queued_us = u64::try_from(record.queued.as_micros()).unwrap_or(u64::MAX);
        self.version = record.instance.as_ref().map(|instance| instance.version);
        self.instance = record.instance.as_ref().map(|instance| instance.id.clone());
    }
}

/// Why there is no result.
struct Failure {
    outcome: AttemptOutcome,
    error: CallError,
}

impl Failure {
    fn new(outcome: AttemptOutcome, error: CallError) -> Self {
        Self { outcome, error }
    }
}

async fn try_it(
    worker: &Rc<Worker>,
    run_: Run,
    directory: &Arc<Path>,
    report: &mut Report,
) -> Result<CallResult, Failure> {
    let Run { attempt, function, version, scheduled_at, body } = run_;
    let mut headers = HeaderMap::new();
    if let Some(media) = body.media.as_deref().and_then(|media| HeaderValue::from_str(media).ok()) {
        headers.insert(CONTENT_TYPE, media);
    }
    if let Some(instant) = scheduled_at.and_then(|instant| HeaderValue::from_str(&instant.to_string()).ok()) {
        headers.insert("landfall-scheduled-at", instant);
    }
    let ask = Ask {
        app: function.app,
        function: function.function,
        version,
        call: attempt.call,
        attempt: attempt.attempt,
        actor: None,
        headers,
    };
    let bytes = read_body(directory, attempt, body).await?;
    let running = run(worker, ask, Given::Whole(bytes)).await.map_err(|trouble| of_trouble(&trouble))?;
    report.learn(&running);
    collect(running, directory, attempt).await
}

async fn read_body(directory: &Arc<Path>, attempt: AttemptId, body: Payload) -> Result<Bytes, Failure> {
    let gone = |why: String| Failure::new(AttemptOutcome::Failed, CallError::new("body", why));
    match body.place {
        Place::Inline(Blob(bytes)) => Ok(bytes.into()),
        Place::File => {
            let path = directory.join(body_file(attempt.call));
            let read = tokio::fs::read(&path).await;
            read.map(Bytes::from).map_err(|error| gone(format!("{} cannot be read: {error}", path.display())))
        }
        Place::Expired => Err(gone("the body of the call is no longer kept".to_owned())),
    }
}

/// Reads the answer to its end.
async fn collect(mut running: Running, directory: &Arc<Path>, attempt: AttemptId) -> Result<CallResult, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| running.poll_frame(context)).await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Err(_) => {
                return Err(match running.record().outcome {
                    AttemptOutcome::TimedOut => timed_out(running.limit()),
                    _ => of_trouble(&Trouble::CallBroken),
                });
            }
        }
        if bytes.len() > MAX_RESULT {
            let words = format!("the result is longer than {} MiB", MAX_RESULT >> 20);
            return Err(Failure::new(AttemptOutcome::Failed, CallError::new("too_large", words)));
        }
    }
    let status = running.head.status;
    if !status.is_success() {
        return Err(Failure::new(AttemptOutcome::Failed, said_no(&running, status.as_u16(), &bytes)));
    }
    let media = running.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    drop(running);
    let payload = keep(directory, attempt, media, bytes).await.map_err(|error| {
        // The function has done its work; that it cannot be kept is the machine's fault.
        Failure::new(AttemptOutcome::Refused, CallError::new("disk", format!("the result cannot be kept: {error}")))
    })?;
    Ok(CallResult { status: status.as_u16(), payload })
}

/// The function's own words, or what can be quoted of its answer.
fn said_no(running: &Running, status: u16, body: &[u8]) -> CallError {
    if running.is_own_error()
        && let Ok(error) = serde_json::from_slice::<CallError>(body)
    {
        return error;
    }
    let text = String::from_utf8_lossy(body);
    let quoted: String = text.trim().chars().take(QUOTED).collect();
    let words =
        if quoted.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {quoted}") };
    CallError::new("http", words)
}

async fn keep(directory: &Arc<Path>, attempt: AttemptId, media: Option<String>, bytes: Vec<u8>) -> io::Result<Payload> {
    if bytes.len() <= INLINE {
        return Ok(Payload::inline(media, bytes));
    }
    let (directory, length) = (Arc::clone(directory), bytes.len() as u64);
    let written = tokio::task::spawn_blocking(move || {
        let name = result_file(attempt);
        whole::write(&directory.join(&name), &directory.join(format!("{name}.part")), &bytes)
    });
    written.await.map_err(io::Error::other)??;
    Ok(Payload::file(media, length))
}

fn timed_out(limit: std::time::Duration) -> Failure {
    let limit = crate::domain::manifest::Millis::of(limit);
    Failure::new(
        AttemptOutcome::TimedOut,
        CallError::new("timeout", format!("it took longer than its timeout of {limit}")),
    )
}

/// What Landfall could not do for a call.
fn of_trouble(trouble: &Trouble) -> Failure {
    let outcome = match trouble {
        Trouble::CallTimeout { limit } => return timed_out(*limit),
        Trouble::CallBroken | Trouble::Broken | Trouble::Cut => AttemptOutcome::Crashed,
        // The same body will be as large the next time.
        Trouble::TooLarge { .. } | Trouble::BadCall { .. } => AttemptOutcome::Failed,
        _ => AttemptOutcome::Refused,
    };
    let (_, code) = trouble.code();
    Failure::new(outcome, CallError::new(code, trouble.what()))
}
