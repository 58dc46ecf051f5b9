//! One request and its answer, from head to last byte.
//!
//! Made by `forward.rs`, shared on one thread by the forwarding future, the request's body and the answer's body (or a
//! tunnel); whoever of them is last drops it. Its drop ends the claim on the instance, writes the access line and
//! tells the connection that it is idle again.
//!
//! ```text
//! waiting for a place ─► claimed ─► head sent, body going up ─► answer going down ─► dropped
//!          any of them ──end(fate)──► both bodies fail with that fate
//! ```
//!
//! Invariant: a claim lives exactly as long as bytes of its request or answer can still move between proxy and instance.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Uri};

use crate::domain::AnswerClass;
use crate::wire::proxy::AccessLine;

use super::claim::{Claim, Instance};
use super::connection::Connection;
use super::pool::Upstream;
use super::queue::Object;
use super::worker::Tick;

/// Why an exchange was ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fate {
    /// The request's body is larger than the route allows.
    #[error("the request's body is larger than allowed")]
    TooLarge,
    /// The client sent nothing of a body it had announced for too long.
    #[error("the client stopped sending the request's body")]
    UploadStalled,
    /// The client read nothing of the answer for too long.
    #[error("the client stopped reading the answer")]
    DownloadStalled,
    /// The time for draining was over.
    #[error("the instance was stopped")]
    Cut,
}

/// Which side a direction of the exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Not begun, ended, or the instance's turn: it may take as long as it likes.
    Quiet,
    /// The client's turn, since then.
    Client(Tick),
}

/// What is remembered of a request for its access line.
#[derive(Debug)]
pub struct Asked {
    /// When it came, on the wall clock.
    pub at: jiff::Timestamp,
    /// `X-Request-Id`
    pub request_id: HeaderValue,
    /// What a trusted peer said about the client.
    pub client: Option<HeaderValue>,
    /// Method.
    pub method: Method,
    /// Target.
    pub uri: Uri,
    /// Host as asked.
    pub host: String,
}

/// A request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The client's connection.
    pub connection: Rc<Connection>,
    began: Instant,
    slot: Cell<usize>,
    claim: RefCell<Option<Claim>>,
    /// What it is for, until it was counted there.
    object: RefCell<Option<Arc<Object>>>,
    upstream: RefCell<Option<Upstream>>,
    fate: Cell<Option<Fate>>,
    up: Cell<Flow>,
    down: Cell<Flow>,
    up_waker: RefCell<Option<Waker>>,
    down_waker: RefCell<Option<Waker>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    status: Cell<StatusCode>,
    queued: Cell<Duration>,
    reason: Cell<Option<&'static str>>,
    asked: RefCell<Option<Box<Asked>>>,
}

impl Exchange {
    /// Begins an exchange on a connection.
    pub fn begin(connection: &Rc<Connection>) -> Rc<Self> {
        connection.exchange_begins();
        let exchange = Rc::new(Self {
            connection: Rc::clone(connection),
            began: Instant::now(),
            slot: Cell::new(0),
            claim: RefCell::new(None),
            object: RefCell::new(None),
            upstream: RefCell::new(None),
            fate: Cell::new(None),
            up: Cell::new(Flow::Quiet),
            down: Cell::new(Flow::Quiet),
            up_waker: RefCell::new(None),
            down_waker: RefCell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            // What is logged when the client goes before there is an answer, as nginx does.
            status: Cell::new(CLIENT_WENT),
            queued: Cell::new(Duration::ZERO),
            reason: Cell::new(None),
            asked: RefCell::new(None),
        });
        exchange.slot.set(connection.worker.exchanges.insert(&exchange));
        exchange
    }

    /// What the access line will say about the request.
    pub fn remember(&self, asked: Asked) {
        *self.asked.borrow_mut() = Some(Box::new(asked));
    }

    /// The answer's status, and why Landfall itself gave it.
    pub fn answered(&self, status: StatusCode, reason: Option<&'static str>) {
        self.status.set(status);
        self.reason.set(reason);
    }

    /// The object whose answers this one is counted with.
    pub fn concerns(&self, object: &Arc<Object>) {
        *self.object.borrow_mut() = Some(Arc::clone(object));
    }

    /// The answer's head goes to the client, or there will be none: counted here, once, so that a stream of hours or a
    /// WebSocket shows in the minute in which it began.
    pub fn count(&self) {
        if let Some(object) = self.object.borrow_mut().take() {
            object.count_answer(AnswerClass::of(self.status.get().as_u16()), self.began.elapsed());
        }
    }

    /// The request has its place, after waiting that long.
    pub fn claimed(&self, claim: Claim, queued: Duration) {
        claim.instance().object.count_request();
        self.concerns(&claim.instance().object);
        self.queued.set(self.queued.get() + queued);
        *self.claim.borrow_mut() = Some(claim);
    }

    /// The request has a place on another instance, after the first did not accept it.
    pub fn claimed_again(&self, claim: Claim, queued: Duration) {
        self.queued.set(self.queued.get() + queued);
        *self.claim.borrow_mut() = Some(claim);
    }

    /// Gives the place back: another instance will be asked.
    pub fn unclaim(&self) {
        *self.claim.borrow_mut() = None;
    }

    /// The instance the exchange is on.
    pub fn instance(&self) -> Option<Arc<Instance>> {
        self.claim.borrow().as_ref().map(|claim| claim.instance().clone())
    }

    /// The connection to the instance, until the answer has come whole.
    pub fn carry(&self, upstream: Upstream) {
        *self.upstream.borrow_mut() = Some(upstream);
    }

    /// The answer came whole: the connection may carry the next request.
    pub fn answer_complete(&self) {
        self.down.set(Flow::Quiet);
        if let Some(upstream) = self.upstream.borrow_mut().take() {
            self.connection.worker.pool.put_back(upstream);
        }
    }

    /// Ends it; both bodies fail from here on. The first fate stays.
    pub fn end(&self, fate: Fate) {
        if self.fate.get().is_none() {
            self.fate.set(Some(fate));
        }
        let wakers = [self.up_waker.borrow_mut().take(), self.down_waker.borrow_mut().take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// How it was ended, if it was.
    pub fn fate(&self) -> Option<Fate> {
        self.fate.get()
    }

    /// The side of the request's body: fails when ended, otherwise remembers who to wake.
    pub fn watch_up(&self, context: &Context<'_>) -> Result<(), Fate> {
        watch(&self.fate, &self.up_waker, context)
    }

    /// The side of the answer.
    pub fn watch_down(&self, context: &Context<'_>) -> Result<(), Fate> {
        watch(&self.fate, &self.down_waker, context)
    }

    /// The request's body waits for the client, or no longer.
    pub fn upload_waits(&self, waits: bool) {
        set_flow(&self.up, waits, || self.connection.worker.clock.now());
    }

    /// The answer's body waits for the client, or no longer.
    pub fn download_waits(&self, waits: bool) {
        set_flow(&self.down, waits, || self.connection.worker.clock.now());
    }

    /// Bytes of the request's body went up.
    pub fn count_in(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
        self.up.set(Flow::Quiet);
    }

    /// Bytes of the answer's body were handed to the client's side.
    pub fn count_out(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
        self.down.set(Flow::Client(self.connection.worker.clock.now()));
    }

    /// What is wrong with it now, as the sweep finds it.
    pub fn overdue(&self, now: Tick, limit: u32) -> Option<Fate> {
        let late = |flow: Flow, limit: u32| matches!(flow, Flow::Client(since) if now.since(since) >= limit);
        // On HTTP/1 the socket tells how the client reads (`Watch`). On HTTP/2 one stream can stand still while others
        // move, and all that shows is when its next piece is asked for; a slow reader may need long for one piece.
        let http2 = self.connection.watch.is_http2();
        if late(self.up.get(), limit) {
            Some(Fate::UploadStalled)
        } else if http2 && late(self.down.get(), limit.saturating_mul(PIECE)) {
            Some(Fate::DownloadStalled)
        } else if self.claim.borrow().as_ref().is_some_and(|claim| claim.instance().is_cut()) {
            Some(Fate::Cut)
        } else {
            None
        }
    }

    /// Whether only the end of its connection can end it: the client reads nothing, so its side of the answer sleeps.
    pub fn needs_force(&self) -> bool {
        matches!(self.down.get(), Flow::Client(_))
    }

    fn write_access_line(&self) {
        let Some(asked) = self.asked.borrow_mut().take() else { return };
        let claim = self.claim.borrow();
        let instance = claim.as_ref().map(Claim::instance);
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.connection.worker.shared.access_log.write(AccessLine {
            at: asked.at,
            request_id: text(&asked.request_id),
            client: asked.client.as_ref().map_or_else(|| self.connection.peer.ip().to_string(), text),
            method: asked.method.as_str().to_owned(),
            host: asked.host,
            path: asked.uri.path().to_owned(),
            status: self.status.get().as_u16(),
            app: instance.map(|instance| instance.object.app.to_string()),
            object: instance.map(|instance| instance.object.name.to_string()),
            version: instance.map(|instance| instance.version),
            instance: instance.map(|instance| instance.id.to_string()),
            duration_ms: millis(self.began.elapsed()),
            queued_ms: millis(self.queued.get()),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            reason: self.reason.get().map(str::to_owned),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.count();
        self.write_access_line();
        self.connection.worker.exchanges.remove(self.slot.get());
        self.connection.exchange_ends();
    }
}

/// So many times the limit for silence may one piece of an answer take on an HTTP/2 stream.
const PIECE: u32 = 5;

/// "Client closed request" in the access log; never sent.
const CLIENT_WENT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

fn set_flow(flow: &Cell<Flow>, waits: bool, now: impl FnOnce() -> Tick) {
    match (flow.get(), waits) {
        (Flow::Quiet, true) => flow.set(Flow::Client(now())),
        (Flow::Client(_), false) => flow.set(Flow::Quiet),
        (Flow::Quiet, false) | (Flow::Client(_), true) => {}
    }
}

fn watch(fate: &Cell<Option<Fate>>, slot: &RefCell<Option<Waker>>, context: &Context<'_>) -> Result<(), Fate> {
    if let Some(fate) = fate.get() {
        return Err(fate);
    }
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *slot = Some(context.waker().clone());
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    // Microseconds are all that is true of it.
    duration.as_micros() as f64 / 1000.0
}
