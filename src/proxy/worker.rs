//! One thread of the proxy: accepts, serves, sweeps.
//!
//! Started by `mod.rs`, one for each processor, each with a single-threaded runtime and its own pool of connections to
//! instances, so that a request never leaves its thread. Neighbours: `connection.rs` serves one connection,
//! `shared.rs` is what threads have in common.
//!
//! ```text
//! accepting ──leaving──► finishing (no new connection, idle ones closed) ──last exchange ended──► done
//! ```
//!
//! Once a second the thread *sweeps*: it looks for clients that stopped moving and connections nobody needs. Requests
//! therefore set no timers of their own for any of this; they only note the second in which they last moved.

use std::cell::{Cell, RefCell};
use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{debug, warn};

use super::call::underway::UnderWay;
use super::connection::{self, Connection};
use super::exchange::Exchange;
use super::pool::Pool;
use super::shared::{Permit, Shared, TcpStreamParts};

/// How long clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Seconds for a request's head.
    pub head: u32,
    /// Seconds a connection may be open without a request.
    pub idle: u32,
    /// Seconds a client may send nothing of a body it has announced, or read nothing of its answer.
    pub stall: u32,
}

impl Default for Timings {
    fn default() -> Self {
        Self { head: 30, idle: 75, stall: 60 }
    }
}

/// What a thread accepts on.
#[derive(Debug)]
pub struct Listeners {
    /// Clients' requests over plain HTTP.
    pub web: Vec<StdListener>,
    /// Clients' requests in TLS.
    pub secure: Vec<StdListener>,
    /// Calls handed over by the controller.
    pub calls: Option<StdUnixListener>,
}

/// A second in the life of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// Seconds since an earlier one.
    pub fn since(self, earlier: Tick) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// As a number that is never 0.
    pub fn number(self) -> u32 {
        self.0
    }

    /// From a number of [`Tick::number`].
    pub fn from_number(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }
}

/// Counts seconds. Reading it costs a memory access, so every byte that moves can be noted.
#[derive(Debug)]
pub struct Clock(AtomicU32);

impl Clock {
    /// The present second.
    pub fn now(&self) -> Tick {
        Tick(self.0.load(Ordering::Relaxed))
    }

    fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Things of one kind that the sweep looks at. They leave by themselves when they are dropped.
#[derive(Debug)]
pub struct Slots<T> {
    inner: RefCell<(Vec<Weak<T>>, Vec<usize>)>,
}

impl<T> Slots<T> {
    fn new() -> Self {
        Self { inner: RefCell::new((Vec::new(), Vec::new())) }
    }

    /// Takes a thing in; the number is what [`Slots::remove`] wants.
    pub fn insert(&self, thing: &Rc<T>) -> usize {
        let (things, free) = &mut *self.inner.borrow_mut();
        match free.pop() {
            Some(slot) => {
                things[slot] = Rc::downgrade(thing);
                slot
            }
            None => {
                things.push(Rc::downgrade(thing));
                things.len() - 1
            }
        }
    }

    /// Lets it go. Called from the thing's own drop.
    pub fn remove(&self, slot: usize) {
        let (things, free) = &mut *self.inner.borrow_mut();
        if let Some(thing) = things.get_mut(slot) {
            *thing = Weak::new();
            free.push(slot);
        }
        // A burst is over: give its memory back.
        if free.len() == things.len() && things.capacity() > 1024 {
            (*things, *free) = (Vec::new(), Vec::new());
        }
    }

    /// All there are, held, so that looking at one may drop another.
    pub fn all(&self) -> Vec<Rc<T>> {
        self.inner.borrow().0.iter().filter_map(Weak::upgrade).collect()
    }

    fn is_empty(&self) -> bool {
        let (things, free) = &*self.inner.borrow();
        things.len() == free.len()
    }
}

/// The state of one thread.
#[derive(Debug)]
pub struct Worker {
    /// Which of [`Shared::threads`].
    pub index: usize,
    /// What the threads share.
    pub shared: Arc<Shared>,
    /// Seconds.
    pub clock: Arc<Clock>,
    /// Connections to instances.
    pub pool: Pool,
    /// Requests and tunnels under way.
    pub exchanges: Slots<Exchange>,
    /// Client connections.
    pub connections: Slots<Connection>,
    /// How long clients may take.
    pub timings: Timings,
    /// Calls under way.
    pub under_way: Slots<UnderWay>,
    leaving: Cell<bool>,
}

impl Worker {
    /// The state of the thread `index`.
    pub fn new(index: usize, shared: Arc<Shared>, timings: Timings) -> Rc<Self> {
        let clock = Arc::new(Clock(AtomicU32::new(1)));
        Rc::new(Self {
            index,
            shared,
            pool: Pool::new(Arc::clone(&clock)),
            clock,
            exchanges: Slots::new(),
            connections: Slots::new(),
            timings,
            under_way: Slots::new(),
            leaving: Cell::new(false),
        })
    }

    /// Whether the proxy was told to leave.
    pub fn is_leaving(&self) -> bool {
        *self.shared.leaving.borrow()
    }

    /// Whether each answer on an HTTP/1 connection is the last one there.
    pub fn says_goodbye(&self) -> bool {
        self.leaving.get()
    }

    /// Runs until the proxy was told to leave and everything under way is done.
    pub async fn run(self: Rc<Self>, listeners: Listeners, mut handed_over: mpsc::Receiver<TcpStreamParts>) {
        let mut acceptors = Vec::new();
        if let Some(listener) = listeners.calls {
            match UnixListener::from_std(listener) {
                Ok(listener) => acceptors.push(tokio::task::spawn_local(Rc::clone(&self).accept_calls(listener))),
                Err(error) => warn!(%error, "this thread cannot listen for calls"),
            }
        }
        let plain = listeners.web.into_iter().map(|listener| (listener, false));
        for (listener, secure) in plain.chain(listeners.secure.into_iter().map(|listener| (listener, true))) {
            match TcpListener::from_std(listener) {
                Ok(listener) => acceptors.push(tokio::task::spawn_local(Rc::clone(&self).accept(listener, secure))),
                Err(error) => warn!(%error, "this thread cannot listen on one of the sockets"),
            }
        }
        let second = Duration::from_secs(1);
        let mut seconds = interval_at(Instant::now() + second, second);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut leaving = self.shared.leaving.clone();
        while !self.is_leaving() {
            tokio::select! {
                Some(parts) = handed_over.recv() => self.take_over(parts),
                _ = seconds.tick() => self.sweep_all(),
                () = self.shared.threads[self.index].look.notified() => self.sweep_exchanges(),
                _ = leaving.changed() => {}
            }
        }
        for acceptor in acceptors {
            // They look at `leaving` too. What one has just accepted is served.
            if acceptor.await.is_err() {
                warn!("an accepting task died; this is a defect");
            }
        }
        handed_over.close();
        // Ends when nothing more can come: places that were reserved before the close are waited for.
        while let Some(parts) = handed_over.recv().await {
            self.take_over(parts);
        }
        self.finish(&mut seconds).await;
    }

    /// Connections finish what they have. Ends when nothing is left; the supervisor ends the process if that takes too long.
    async fn finish(&self, seconds: &mut tokio::time::Interval) {
        /// Short: the last answer's end should be the process's end.
        const LOOK: Duration = Duration::from_millis(20);
        /// An HTTP/1 client may be sending its next request just now, and would lose it if its connection were closed.
        /// Busy ones are told with the answer to that request; what is still idle after this time is closed.
        const NEXT_REQUEST: Duration = Duration::from_secs(1);
        self.leaving.set(true);
        let began = Instant::now();
        for connection in self.connections.all().iter().filter(|connection| connection.watch.is_http2()) {
            connection.watch.finish();
        }
        let close_idle = Instant::now() + NEXT_REQUEST;
        while !(self.connections.is_empty()
            && self.exchanges.is_empty()
            && self.under_way.is_empty()
            && self.holds_nothing(began))
        {
            if Instant::now() >= close_idle {
                self.connections.all().iter().for_each(|connection| connection.watch.finish());
            }
            tokio::select! {
                _ = seconds.tick() => self.sweep_all(),
                () = self.shared.threads[self.index].look.notified() => self.sweep_exchanges(),
                () = sleep(LOOK) => {}
            }
        }
        self.pool.clear();
    }

    /// Whether the controller has on record how every attempt ended that it gave this proxy.
    fn holds_nothing(&self, began: Instant) -> bool {
        /// Records are worth a short wait for the controller, and no more.
        const RECORDS: Duration = Duration::from_secs(2);
        let told = self.shared.records.unsent() == 0 || began.elapsed() >= RECORDS;
        told && self.shared.held.load(Ordering::SeqCst) == 0
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, secure: bool) {
        let take = async |stream| {
            let mut leaving = self.shared.leaving.clone();
            // Accepted is accepted: on leaving it is served without a place.
            let permit = tokio::select! {
                permit = self.shared.gate.enter() => Some(permit),
                _ = leaving.changed() => None,
            };
            self.place(stream, secure, permit);
        };
        self.accept_all(async || listener.accept().await.map(|(stream, _)| stream), take).await;
    }

    /// Connections of this machine's controller: they are few, so they are served where they were accepted and take no
    /// place of a client's.
    async fn accept_calls(self: Rc<Self>, listener: UnixListener) {
        let take = async |stream| {
            let connection = Connection::of_controller(&self);
            drop(tokio::task::spawn_local(connection::serve_calls(connection, stream)));
        };
        self.accept_all(async || listener.accept().await.map(|(stream, _)| stream), take).await;
    }

    /// Takes connections until the proxy is told to leave.
    async fn accept_all<S>(&self, next: impl AsyncFn() -> std::io::Result<S>, take: impl AsyncFn(S)) {
        /// Out of descriptors or memory: others must finish first.
        const PAUSE: Duration = Duration::from_millis(50);
        let mut leaving = self.shared.leaving.clone();
        while !self.is_leaving() {
            let accepted = tokio::select! {
                accepted = next() => accepted,
                _ = leaving.changed() => return,
            };
            match accepted {
                Ok(stream) => {
                    take(stream).await;
                    // One at a time, so that the other threads, woken by the same connection, find the next.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "connections cannot be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection here, or hands it to a thread that has fewer.
    fn place(self: &Rc<Self>, stream: TcpStream, secure: bool, permit: Option<Permit>) {
        let threads = &self.shared.threads;
        let open = |index: usize| threads[index].connections.load(Ordering::Relaxed);
        let least = (0..threads.len()).min_by_key(|index| open(*index)).unwrap_or(self.index);
        if let Some(permit) = permit {
            if open(least) < open(self.index) && !self.is_leaving() {
                self.hand_over(least, stream, secure, permit);
            } else {
                self.serve(stream, secure, Some(permit));
            }
        } else {
            self.serve(stream, secure, None);
        }
    }

    fn hand_over(self: &Rc<Self>, to: usize, stream: TcpStream, secure: bool, permit: Permit) {
        let peer = &self.shared.threads[to];
        match (stream.into_std(), peer.handed_over.try_reserve()) {
            (Ok(stream), Ok(place)) => {
                // Counted at once, or the next connections would all go there too.
                peer.connections.fetch_add(1, Ordering::Relaxed);
                place.send(TcpStreamParts { stream, permit, secure });
            }
            (Ok(stream), Err(_)) => match TcpStream::from_std(stream) {
                Ok(stream) => self.serve(stream, secure, Some(permit)),
                Err(error) => debug!(%error, "a new connection is lost"),
            },
            (Err(error), _) => debug!(%error, "a new connection is lost"),
        }
    }

    fn take_over(self: &Rc<Self>, parts: TcpStreamParts) {
        let TcpStreamParts { stream, permit, secure } = parts;
        self.shared.threads[self.index].connections.fetch_sub(1, Ordering::Relaxed);
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve(stream, secure, Some(permit)),
            Err(error) => debug!(%error, "a new connection is lost"),
        }
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, secure: bool, permit: Option<Permit>) {
        match Connection::new(self, &stream, secure, permit) {
            Ok(connection) => drop(tokio::task::spawn_local(connection::serve(connection, stream))),
            // It was gone before it began.
            Err(error) => debug!(%error, "a new connection has no addresses"),
        }
    }

    fn sweep_all(&self) {
        self.clock.advance();
        self.sweep_exchanges();
        let now = self.clock.now();
        for connection in self.connections.all() {
            connection.watch.sweep(now, self.timings);
        }
    }

    /// Ends exchanges that are overdue or whose instance was cut.
    fn sweep_exchanges(&self) {
        let now = self.clock.now();
        self.pool.sweep();
        for exchange in self.exchanges.all() {
            if let Some(fate) = exchange.overdue(now, self.timings.stall) {
                exchange.end(fate);
                if exchange.needs_force() {
                    exchange.connection.watch.kill();
                }
            }
        }
    }
}

/// Errors of accept(2) that concern the connection that was to be accepted, not the listener.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
