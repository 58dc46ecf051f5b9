//! Calls that must not be lost, as a proxy carries them out for the controller.
//!
//! ```text
//! order ─► a thread ─► run ─► answer read to its end ─► ended, kept ──acknowledged──► forgotten
//!             └─ cancelled: given up ─────────────────►┘
//! (a caller has waited long enough) ─► detaching ──kept──► as if it had been ordered
//! ```
//!
//! Owner: `link.rs` holds every attempt from its order to its acknowledgement ([`Held`]); the threads carry them out.
//! Invariants: an attempt that was ordered is held until the controller has said that its end is on record; it is
//! carried out once; the process does not leave while it holds any.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
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
use crate::wire::calls::{Detached, Ended, Run};

use super::Ask;
use super::body::Given;
use super::detached::Detaching;
use super::run::{Running, run};
use super::underway::{self, Question};

/// Longest result of a call; a longer one makes it fail.
const MAX_RESULT: usize = 64 * 1024 * 1024;
/// So much of an answer that says no is quoted.
const QUOTED: usize = 500;

/// What a thread is asked to do with calls.
#[derive(Debug)]
pub enum Order {
    /// To carry out an attempt.
    Carry(Box<Carrying>),
    /// To look at those under way.
    Look(Question),
}

/// An attempt for a thread.
#[derive(Debug)]
pub struct Carrying {
    run: Run,
    cancelled: CancellationToken,
    directory: Arc<Path>,
    /// When this proxy was given it.
    taken: Instant,
}

/// The attempts this proxy has.
#[derive(Debug)]
pub struct Held {
    directory: Arc<Path>,
    /// Calls that go on without their callers, and are not on record yet. One that has ended is also among those.
    detaching: HashMap<AttemptId, Detaching>,
    running: HashMap<AttemptId, CancellationToken>,
    ended: BTreeMap<AttemptId, Ended>,
    next_thread: usize,
}

impl Held {
    /// None yet; bodies and results lie in this directory.
    pub fn new(directory: Arc<Path>) -> Self {
        let (detaching, running) = (HashMap::new(), HashMap::new());
        Self { directory, detaching, running, ended: BTreeMap::new(), next_thread: 0 }
    }

    /// All of them, for a hello.
    pub fn attempts(&self) -> Vec<AttemptId> {
        let detaching = self.detaching.keys().filter(|attempt| !self.ended.contains_key(attempt));
        self.running.keys().chain(self.ended.keys()).chain(detaching).copied().collect()
    }

    /// Those whose end the controller has not recorded yet.
    pub fn unacknowledged(&self) -> Vec<Ended> {
        self.ended.values().filter(|ended| !self.detaching.contains_key(&ended.attempt)).cloned().collect()
    }

    /// Takes up a call that goes on without its caller.
    pub fn detach(&mut self, detaching: Detaching, shared: &Shared) {
        self.detaching.insert(detaching.call.attempt, detaching);
        self.count(shared);
    }

    /// Those that the controller does not have on record yet.
    pub fn detached(&self) -> Vec<Detached> {
        self.detaching.values().map(|detaching| detaching.call.clone()).collect()
    }

    /// These are on record now. Answers those that have ended meanwhile.
    pub fn kept(&mut self, attempts: &[AttemptId]) -> Vec<Ended> {
        let mut over = Vec::new();
        for attempt in attempts {
            let Some(Detaching { cancelled, kept, .. }) = self.detaching.remove(attempt) else { continue };
            match self.ended.get(attempt) {
                Some(ended) => over.push(ended.clone()),
                None => drop(self.running.insert(*attempt, cancelled)),
            }
            // Its caller may have gone.
            let _ = kept.send(());
        }
        over
    }

    /// Has attempts carried out. Answers those that cannot even begin.
    pub fn take(&mut self, runs: Vec<Run>, shared: &Shared) -> Vec<Ended> {
        let (mut refused, taken) = (Vec::new(), Instant::now());
        for run in runs {
            let attempt = run.attempt;
            if self.running.contains_key(&attempt) || self.ended.contains_key(&attempt) {
                continue;
            }
            let cancelled = CancellationToken::new();
            self.running.insert(attempt, cancelled.clone());
            self.next_thread = (self.next_thread + 1) % shared.threads.len().max(1);
            let order = Carrying { run, cancelled, directory: Arc::clone(&self.directory), taken };
            let order = Order::Carry(Box::new(order));
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

    /// Keeps the end of an attempt until it is acknowledged. Answers what is to be told of it now: the end of a call that
    /// is not on record yet means nothing to the controller.
    pub fn ended(&mut self, ended: Ended) -> Option<Ended> {
        self.running.remove(&ended.attempt);
        let told = (!self.detaching.contains_key(&ended.attempt)).then(|| ended.clone());
        self.ended.insert(ended.attempt, ended);
        told
    }

    /// Forgets ends that are on record.
    pub fn acknowledge(&mut self, attempts: &[AttemptId], shared: &Shared) {
        for attempt in attempts {
            self.ended.remove(attempt);
        }
        self.count(shared);
    }

    fn count(&self, shared: &Shared) {
        let held = self.running.len() + self.ended.len() + self.detaching.len();
        shared.held.store(held, Ordering::SeqCst);
    }
}

/// Carries orders out on this thread, for as long as there are any.
pub async fn serve(worker: Rc<Worker>, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        let order = match order {
            Order::Carry(order) => order,
            Order::Look(question) => {
                underway::answer(&worker, &question);
                continue;
            }
        };
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let ended = carry_out(&worker, *order).await;
            // Where nobody listens any more, nobody needs to know.
            let _ = worker.shared.ends.send(ended);
        });
    }
}

async fn carry_out(worker: &Rc<Worker>, order: Carrying) -> Ended {
    let Carrying { run, cancelled, directory, taken } = order;
    let attempt = run.attempt;
    let mut report = Report::new(taken);
    report.waited_us = u64::try_from(taken.elapsed().as_micros()).unwrap_or(u64::MAX);
    let trying = try_it(worker, run, &directory, &mut report);
    let tried = unless_cancelled(&cancelled, trying).await;
    end(attempt, tried, report)
}

/// Sees a call through that goes on without its caller.
pub(super) async fn see_through(
    work: impl Future<Output = Result<Running, Trouble>>,
    attempt: AttemptId,
    began: Instant,
    cancelled: CancellationToken,
    directory: &Arc<Path>,
) -> Ended {
    let mut report = Report::new(began);
    let going_on = async {
        let running = work.await.map_err(|trouble| of_trouble(&trouble))?;
        report.learn(&running);
        collect(running, directory, attempt).await
    };
    let tried = unless_cancelled(&cancelled, going_on).await;
    end(attempt, tried, report)
}

async fn unless_cancelled(
    cancelled: &CancellationToken,
    trying: impl Future<Output = Result<CallResult, Failure>>,
) -> Result<CallResult, Failure> {
    tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(was_cancelled()),
        tried = trying => tried,
    }
}

fn was_cancelled() -> Failure {
    Failure::new(AttemptOutcome::Cancelled, CallError::new("cancelled", "somebody ended the call"))
}

fn end(attempt: AttemptId, tried: Result<CallResult, Failure>, report: Report) -> Ended {
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
    /// Until a thread had time for it, in microseconds: before the call's own record began.
    waited_us: u64,
    /// As far as the call's own record had come when it reached an instance.
    times: Times,
    version: Option<VersionNumber>,
    instance: Option<crate::domain::InstanceId>,
}

impl Report {
    fn new(began: Instant) -> Self {
        Self { began, waited_us: 0, times: Times::default(), version: None, instance: None }
    }

    fn times(&self) -> Times {
        let all = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let queued_us = if self.instance.is_some() { self.times.queued_us.min(all) } else { all };
        Times { queued_us, running_us: all - queued_us, ..self.times }
    }

    fn learn(&mut self, running: &Running) {
        let record = running.record();
        self.times = record.call.times();
        self.times.queued_us = self.times.queued_us.saturating_add(self.waited_us);
        let instance = record.call.instance();
        self.version = instance.as_ref().map(|instance| instance.version);
        self.instance = instance.map(|instance| instance.id.clone());
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
        trace: None,
        kept: Cell::default(),
    };
    let given = Given::Whole(read_body(directory, attempt, body).await?);
    let running =
        run(worker, Rc::new(ask), headers, given, Rc::default()).await.map_err(|trouble| of_trouble(&trouble))?;
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
                    AttemptOutcome::Cancelled => was_cancelled(),
                    _ => of_trouble(&running.record().call.why_broken().await),
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
        Trouble::CallCancelled => return was_cancelled(),
        Trouble::CallBroken | Trouble::OutOfMemory { .. } | Trouble::Broken | Trouble::Cut => AttemptOutcome::Crashed,
        // The same body will be as large the next time.
        Trouble::TooLarge { .. } | Trouble::BadCall { .. } => AttemptOutcome::Failed,
        _ => AttemptOutcome::Refused,
    };
    let (_, code) = trouble.code();
    Failure::new(outcome, CallError::new(code, trouble.what()))
}
