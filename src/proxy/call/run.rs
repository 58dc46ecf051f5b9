//! One attempt of a call: a place, the instance's answer, the deadline.
//!
//! Sent again at most once, and only if it certainly did not reach an instance, as `forward.rs` does.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use hyper::body::{Body as _, Frame, Incoming};
use jiff::Timestamp;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::debug;

use crate::domain::AttemptOutcome;
use crate::domain::trace::CallTrace;
use crate::proxy::admit::{Admitted, Asking, Target, admit};
use crate::proxy::answer::{LANDFALL_ERROR, Trouble};
use crate::proxy::body::{BodyError, RequestBody};
use crate::proxy::claim::Claim;
use crate::proxy::exchange::Fate;
use crate::proxy::headers;
use crate::proxy::pool::Upstream;
use crate::proxy::worker::Worker;

use super::Ask;
use super::body::{CallBody, Given, Upload};
use super::record::Record;

/// `Landfall-Call`
pub const LANDFALL_CALL: HeaderName = HeaderName::from_static("landfall-call");
/// `Landfall-Attempt`
pub const LANDFALL_ATTEMPT: HeaderName = HeaderName::from_static("landfall-attempt");
/// `Landfall-Deadline`
pub const LANDFALL_DEADLINE: HeaderName = HeaderName::from_static("landfall-deadline");
/// `traceparent` (W3C Trace Context)
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `Landfall-Function`
pub const LANDFALL_FUNCTION: HeaderName = HeaderName::from_static("landfall-function");

/// A call whose instance has begun to answer. Its body is read by [`Running::poll_frame`]; dropping it before the end
/// gives the call up.
#[derive(Debug)]
pub struct Running {
    /// Status and headers of the answer.
    pub head: Parts,
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    isolated: bool,
    record: Record,
    upstream: Option<Upstream>,
    claim: Claim,
}

/// Makes one attempt; answers when the instance has begun to answer, or with the reason why it will not.
/// The headers are what its maker says about the body, and anything else the instance is to see.
pub async fn run(
    worker: &Rc<Worker>,
    ask: Rc<Ask>,
    headers: HeaderMap,
    given: Given,
    upload: Rc<Upload>,
) -> Result<Running, Trouble> {
    let mut record = Record::begin(worker, ask);
    let call = Rc::clone(&record.call);
    let answered = call.unless_ended(attempt(&record, headers, given, &upload)).await;
    let answered = match answered {
        Some(Err(Trouble::CallBroken)) => Err(call.why_broken().await),
        Some(answered) => answered,
        None => Err(Trouble::CallCancelled),
    };
    record.bytes_in = upload.bytes.get();
    match answered {
        Ok((answer, at)) => Ok(at.running(answer, record)),
        Err(trouble) => {
            let (status, code) = trouble.code();
            (record.status, record.reason, record.outcome) = (status, Some(code), outcome_of(&trouble));
            record.words = Some(trouble.what());
            Err(trouble)
        }
    }
}

/// Where a call is.
struct At {
    claim: Claim,
    upstream: Upstream,
    deadline: Instant,
    limit: Duration,
    isolated: bool,
}

impl At {
    fn running(self, answer: Response<Incoming>, mut record: Record) -> Running {
        let (head, body) = answer.into_parts();
        record.status = head.status;
        let mut running = Running {
            head,
            body,
            deadline: Box::pin(sleep_until(self.deadline)),
            limit: self.limit,
            isolated: self.isolated,
            record,
            upstream: Some(self.upstream),
            claim: self.claim,
        };
        running.look_for_end();
        running
    }
}

async fn attempt(
    record: &Record,
    headers: HeaderMap,
    given: Given,
    upload: &Rc<Upload>,
) -> Result<(Response<Incoming>, At), Trouble> {
    let (worker, ask) = (&record.worker, &record.call.ask);
    let target = Target::Function { app: &ask.app, function: &ask.function, version: ask.version };
    let asking = Asking { target, length: given.length(), bearer: None, avoid: None };
    let Admitted { route, claim, queued, starting } = admit(&worker.shared, asking).await.map_err(of_a_call)?;
    claim.instance().object.count_request();
    record.call.given_to(claim.instance(), queued, starting);
    let (limit, max_body, isolated) = (route.request_timeout, route.max_body, route.isolated);
    let deadline = Instant::now() + limit;
    let traces = worker.shared.settings.load().traces;
    let request = request(ask, headers, CallBody::new(given, Rc::clone(upload), max_body), limit, traces);
    let mut sending = Sending { record, asking, claim };
    let sent = timeout_at(deadline, sending.send(request)).await;
    let Sending { claim, .. } = sending;
    match sent {
        Ok(Ok((answer, upstream))) => Ok((answer, At { claim, upstream, deadline, limit, isolated })),
        Ok(Err(_)) if upload.too_large.get() => Err(Trouble::TooLarge { limit: max_body }),
        Ok(Err(trouble)) => Err(trouble),
        // Whoever sends the body is late, not the function.
        Err(_) if !upload.complete.get() => Err(Trouble::UploadStalled),
        Err(_) => {
            if !isolated {
                give_up(record, &claim);
            }
            Err(Trouble::CallTimeout { limit })
        }
    }
}

/// The deadline is over: nothing new goes to the instance, and the controller is told to end it.
fn give_up(record: &Record, claim: &Claim) {
    if claim.instance().give_up(record.call.ask.call) {
        let shared = &record.worker.shared;
        shared.given_up.notify_one();
        shared.look_everywhere();
    }
}

fn request(
    ask: &Ask,
    headers: HeaderMap,
    body: CallBody,
    limit: Duration,
    traces: Option<u32>,
) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::Call(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/");
    *request.headers_mut() = headers_for(ask, headers, limit);
    if let Some(one_in) = traces {
        let told = CallTrace::new(ask.call, ask.trace).told(ask.attempt, one_in).to_string();
        if let Ok(told) = HeaderValue::from_str(&told) {
            request.headers_mut().insert(TRACEPARENT, told);
        }
    }
    request
}

fn headers_for(ask: &Ask, mut all: HeaderMap, limit: Duration) -> HeaderMap {
    headers::clean_request(&mut all);
    // What a token allows is between the caller and Landfall.
    all.remove(AUTHORIZATION);
    let deadline = Timestamp::now() + limit;
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    all.insert(HOST, text(ask.function.as_str()));
    all.insert(LANDFALL_CALL, text(&ask.call.to_string()));
    all.insert(LANDFALL_ATTEMPT, HeaderValue::from(ask.attempt));
    all.insert(LANDFALL_DEADLINE, text(&deadline.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()));
    all.insert(LANDFALL_FUNCTION, text(ask.function.as_str()));
    all
}

/// What sending needs besides the request.
struct Sending<'a> {
    record: &'a Record,
    asking: Asking<'a>,
    claim: Claim,
}

impl Sending<'_> {
    /// Sends the call and waits for the answer's head.
    async fn send(&mut self, mut request: Request<RequestBody>) -> Result<(Response<Incoming>, Upstream), Trouble> {
        let mut retried = false;
        loop {
            let instance = self.claim.instance().clone();
            let idle = if retried { None } else { self.record.worker.pool.take(&instance) };
            let mut upstream = match idle {
                Some(upstream) => upstream,
                None => match self.record.worker.pool.connect(&instance).await {
                    Ok(upstream) => upstream,
                    Err(error) => {
                        debug!(instance = %instance.id, %error, "no connection to an instance");
                        if retried {
                            return Err(Trouble::CallBroken);
                        }
                        retried = true;
                        self.move_on().await?;
                        continue;
                    }
                },
            };
            match upstream.sender.try_send_request(request).await {
                Ok(answer) => {
                    upstream.heard(answer.headers());
                    return Ok((answer, upstream));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(back) if !retried => {
                        retried = true;
                        request = back;
                    }
                    Some(_) | None => {
                        debug!(error = %failed.into_error(), "an instance broke off");
                        return Err(Trouble::CallBroken);
                    }
                },
            }
        }
    }

    /// The instance did not accept: another one of the same function, if there is one.
    async fn move_on(&mut self) -> Result<(), Trouble> {
        let failed = self.claim.instance().clone();
        let asking = Asking { avoid: Some(failed.serial), ..self.asking };
        let Admitted { claim, queued, starting, .. } =
            admit(&self.record.worker.shared, asking).await.map_err(of_a_call)?;
        self.record.call.given_to(claim.instance(), queued, starting);
        self.claim = claim;
        Ok(())
    }
}

impl Running {
    /// The next piece of the answer. After an error the call is over.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(context) {
            match &polled {
                Some(Ok(frame)) => self.record.bytes_out += frame.data_ref().map_or(0, Bytes::len) as u64,
                Some(Err(_)) => {
                    self.upstream = None;
                    (self.record.reason, self.record.outcome) = (Some("instance_ended"), AttemptOutcome::Crashed);
                }
                None => {}
            }
            if !matches!(polled, Some(Err(_))) {
                self.look_for_end();
            }
            return Poll::Ready(polled.map(|frame| Ok(frame?)));
        }
        if self.record.call.poll_ended(context).is_ready() {
            (self.record.reason, self.record.outcome) = (Some("call_cancelled"), AttemptOutcome::Cancelled);
            self.upstream = None;
            return Poll::Ready(Some(Err(Fate::Cut.into())));
        }
        if self.deadline.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        debug!(call = %self.record.call.ask.call, limit = ?self.limit, "a call is over its timeout while it answers");
        (self.record.reason, self.record.outcome) = (Some("call_timeout"), AttemptOutcome::TimedOut);
        if !self.isolated {
            give_up(&self.record, &self.claim);
        }
        self.upstream = None;
        Poll::Ready(Some(Err(Fate::Cut.into())))
    }

    /// The whole answer has come: the connection may carry the next call.
    fn look_for_end(&mut self) {
        if !self.body.is_end_stream() {
            return;
        }
        if let Some(upstream) = self.upstream.take() {
            let good = self.head.status.is_success();
            self.record.outcome = if good { AttemptOutcome::Succeeded } else { AttemptOutcome::Failed };
            self.record.worker.pool.put_back(upstream);
        }
    }

    /// Nothing follows.
    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// What is known of the answer's length.
    pub fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }

    /// How long the function may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// What is known of the call.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether the function itself said that it failed, with type, message and traceback in the answer's body.
    pub fn is_own_error(&self) -> bool {
        self.head.headers.get(LANDFALL_ERROR).is_some_and(|value| value == "1")
    }

    /// Reads the answer to its end for nobody.
    pub async fn finish(mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|context| self.poll_frame(context)).await {}
    }
}

/// The same trouble in the words of calls.
fn of_a_call(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::QueueFull => Trouble::CallsFull,
        Trouble::QueueTimeout => Trouble::CallQueueTimeout,
        other => other,
    }
}

fn outcome_of(trouble: &Trouble) -> AttemptOutcome {
    match trouble {
        Trouble::CallTimeout { .. } => AttemptOutcome::TimedOut,
        Trouble::CallBroken | Trouble::OutOfMemory { .. } | Trouble::Cut => AttemptOutcome::Crashed,
        Trouble::CallCancelled => AttemptOutcome::Cancelled,
        _ => AttemptOutcome::Refused,
    }
}
