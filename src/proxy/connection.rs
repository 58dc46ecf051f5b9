//! One client connection: HTTP/1.1 or cleartext HTTP/2, served until either side is done with it.
//!
//! Owned by a task on its `worker.rs` thread. The [`Watch`] travels with the socket into hyper and notes when bytes move;
//! the sweep reads it and gives a verdict.
//!
//! ```text
//! detecting ─► serving ─► done
//!                │  ├─ Finish: no further request (Connection: close, GOAWAY), then done
//!                │  └─ Kill: done at once
//!                └─ upgraded: the socket goes to a tunnel, see upgrade.rs
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::headers::ClientHeaders;
use super::shared::Permit;
use super::tls::Inside;
use super::worker::{Clock, Tick, Timings, Worker};
use super::{call, forward};
use crate::linger::Linger;

/// Largest head of a request, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;
/// Most header lines of a request.
const MOST_HEADERS: usize = 128;
/// Streams at once on an HTTP/2 connection.
const MOST_STREAMS: u32 = 128;
/// Streams a client may open and reset before they were served; more is an attack (CVE-2023-44487).
const MOST_RESETS: usize = 64;
/// HTTP/2 clients that are silent get a ping, and this long to answer it.
const PING: Duration = Duration::from_secs(20);
/// A client that was just accepted may have spoken already; a leaving proxy listens this long.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its thread.
    pub worker: Rc<Worker>,
    /// The client.
    pub peer: SocketAddr,
    /// What its requests have in common.
    pub headers: ClientHeaders,
    /// Its movements.
    pub watch: Arc<Watch>,
    /// Whether it is in TLS.
    pub secure: bool,
    slot: std::cell::Cell<usize>,
    _permit: Option<Permit>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(worker: &Rc<Worker>, stream: &TcpStream, secure: bool, permit: Option<Permit>) -> io::Result<Rc<Self>> {
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        stream.set_nodelay(true)?;
        let trusted = worker.shared.settings.load().trusts(peer.ip());
        let connection = Rc::new(Self {
            worker: Rc::clone(worker),
            peer,
            headers: ClientHeaders::new(peer, local, trusted, secure),
            watch: Arc::new(Watch::new(Arc::clone(&worker.clock))),
            secure,
            slot: std::cell::Cell::new(0),
            _permit: permit,
        });
        connection.slot.set(worker.connections.insert(&connection));
        worker.shared.threads[worker.index].connections.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// A connection of the controller, which brings calls.
    pub fn of_controller(worker: &Rc<Worker>) -> Rc<Self> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let connection = Rc::new(Self {
            worker: Rc::clone(worker),
            peer: nowhere,
            headers: ClientHeaders::new(nowhere, nowhere, false, false),
            watch: Arc::new(Watch::new(Arc::clone(&worker.clock))),
            secure: false,
            slot: std::cell::Cell::new(0),
            _permit: None,
        });
        connection.slot.set(worker.connections.insert(&connection));
        worker.shared.threads[worker.index].connections.fetch_add(1, Ordering::Relaxed);
        connection
    }

    /// A request has come.
    pub fn exchange_begins(&self) {
        self.watch.active.fetch_add(1, Ordering::Relaxed);
        self.watch.head_since.store(0, Ordering::Relaxed);
    }

    /// A request and its answer are through.
    pub fn exchange_ends(&self) {
        self.watch.active.fetch_sub(1, Ordering::Relaxed);
        self.watch.idle_since.store(self.worker.clock.now().number(), Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.connections.remove(self.slot.get());
        self.worker.shared.threads[self.worker.index].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end.
pub async fn serve(connection: Rc<Connection>, stream: TcpStream) {
    let limit = Duration::from_secs(connection.worker.timings.head.into());
    if connection.secure {
        let accepted = timeout(limit, connection.worker.shared.tls.accept(stream)).await;
        // A handshake that fails is the client's news; it says nothing that could be answered.
        let Ok(Ok((stream, inside))) = accepted else { return };
        let protocol = match inside {
            Inside::Http1 => Protocol::Http1,
            Inside::Http2 => Protocol::Http2,
            Inside::Nothing => return,
        };
        if connection.watch.verdict() != Verdict::Go {
            // The client has had no word in yet; what it says now is answered, then the connection ends.
            let _ = timeout(FIRST_WORD, stream.get_ref().0.readable()).await;
        }
        return speak(connection, stream, protocol).await;
    }
    let Ok(Some(protocol)) = timeout(limit, detect(&stream, &connection.watch)).await else { return };
    speak(connection, stream, protocol).await;
}

async fn speak<S>(connection: Rc<Connection>, stream: S, protocol: Protocol)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::clone(&connection.watch);
    let io = TokioIo::new(Watched { stream, watch: Arc::clone(&watch), linger: Linger::default() });
    // How a connection ended is told by its exchanges; a client that leaves is no news.
    match protocol {
        Protocol::Http1 => {
            let service = service_fn(move |request| forward::handle(Rc::clone(&connection), request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                // The sweep does it, without a timer for each request, and tells idle from slow.
                .header_read_timeout(None)
                .max_headers(MOST_HEADERS)
                .max_header_size(LARGEST_HEAD)
                .serve_connection(io, service)
                .with_upgrades();
            drive(served, &watch, |served| served.graceful_shutdown()).await;
        }
        Protocol::Http2 => {
            watch.http2.store(true, Ordering::Relaxed);
            let service = service_fn(move |request| forward::handle(Rc::clone(&connection), request));
            let served = http2::Builder::new(OnThisThread)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MOST_STREAMS)
                .max_pending_accept_reset_streams(MOST_RESETS)
                .max_local_error_reset_streams(MOST_RESETS)
                .max_header_list_size(LARGEST_HEAD as u32)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .serve_connection(io, service);
            drive(served, &watch, |served| served.graceful_shutdown()).await;
        }
    }
}

/// Serves a connection of the controller to its end.
pub async fn serve_calls(connection: Rc<Connection>, stream: UnixStream) {
    let watch = Arc::clone(&connection.watch);
    let io = TokioIo::new(Watched { stream, watch: Arc::clone(&watch), linger: Linger::default() });
    let service = service_fn(move |request| call::serve::handle(Rc::clone(&connection), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MOST_HEADERS)
        .max_header_size(LARGEST_HEAD)
        .serve_connection(io, service);
    drive(served, &watch, |served| served.graceful_shutdown()).await;
}

/// Polls hyper's connection and carries out verdicts.
async fn drive<C, E>(served: C, watch: &Watch, graceful: impl Fn(Pin<&mut C>))
where
    C: Future<Output = Result<(), E>>,
{
    let mut served = std::pin::pin!(served);
    let mut asked = false;
    poll_fn(|context| {
        watch.waker.register(context.waker());
        let verdict = watch.verdict();
        if verdict == Verdict::Kill {
            return Poll::Ready(());
        }
        // First take what has arrived: hyper closes a connection on which it has seen nothing yet, and the request
        // in the socket would be lost.
        let polled = served.as_mut().poll(context).map(drop);
        if polled.is_ready() || asked || verdict == Verdict::Go {
            return polled;
        }
        asked = true;
        graceful(served.as_mut());
        served.as_mut().poll(context).map(drop)
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// HTTP/2 begins with `PRI `, which is no method of HTTP/1. `None` when the client went, or the proxy is leaving and the
/// client has said nothing.
async fn detect(stream: &TcpStream, watch: &Watch) -> Option<Protocol> {
    const PREFACE: &[u8] = b"PRI ";
    /// Peeking leaves the bytes where they are, so the socket stays readable: the rest is waited for by looking again.
    const AGAIN: Duration = Duration::from_millis(5);
    let mut start = [0; PREFACE.len()];
    let finishing = async {
        poll_fn(|context| {
            watch.waker.register(context.waker());
            if watch.verdict() == Verdict::Go { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        sleep(FIRST_WORD).await;
    };
    let mut finishing = std::pin::pin!(finishing);
    loop {
        let seen = tokio::select! {
            biased;
            seen = stream.peek(&mut start) => seen.ok().filter(|seen| *seen > 0)?,
            () = &mut finishing => return None,
        };
        let start = &start[..seen];
        if start == PREFACE {
            return Some(Protocol::Http2);
        }
        if !PREFACE.starts_with(start) {
            return Some(Protocol::Http1);
        }
        sleep(AGAIN).await;
    }
}

/// Spawns on the runtime of this thread.
#[derive(Debug, Clone, Copy)]
struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

/// What the sweep decided about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Go,
    Finish,
    Kill,
}

/// When bytes last moved. Ticks are stored as their number, 0 is never.
///
/// Atomic because hyper wants sockets that could change threads; all of it is used on one.
#[derive(Debug)]
pub struct Watch {
    clock: Arc<Clock>,
    /// Requests under way.
    active: AtomicU32,
    /// The first byte of a request's head came, and the rest did not.
    head_since: AtomicU32,
    idle_since: AtomicU32,
    /// The socket takes no more bytes.
    stuck_since: AtomicU32,
    http2: AtomicBool,
    linger: AtomicBool,
    verdict: AtomicU8,
    waker: AtomicWaker,
}

impl Watch {
    fn new(clock: Arc<Clock>) -> Self {
        let now = clock.now().number();
        Self {
            clock,
            active: AtomicU32::new(0),
            head_since: AtomicU32::new(0),
            idle_since: AtomicU32::new(now),
            stuck_since: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            verdict: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        }
    }

    /// No further request on this connection.
    pub fn finish(&self) {
        self.verdict.fetch_max(1, Ordering::Relaxed);
        self.waker.wake();
    }

    /// The connection ends now.
    pub fn kill(&self) {
        self.verdict.fetch_max(2, Ordering::Relaxed);
        self.waker.wake();
    }

    /// What the client still sends is read and thrown away for a while at the end, so that it gets to read its answer.
    pub fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    /// Whether it carries several exchanges at once.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Relaxed) {
            0 => Verdict::Go,
            1 => Verdict::Finish,
            _ => Verdict::Kill,
        }
    }

    /// Gives a verdict.
    pub fn sweep(&self, now: Tick, timings: Timings) {
        let since = |tick: &AtomicU32| Tick::from_number(tick.load(Ordering::Relaxed)).map(|then| now.since(then));
        let http2 = self.is_http2();
        if since(&self.stuck_since).is_some_and(|seconds| seconds >= timings.stall) {
            self.kill();
        }
        if self.active.load(Ordering::Relaxed) > 0 {
            return;
        }
        // On HTTP/2 any byte may come between requests; there the idle time bounds a slow head.
        if !http2 && since(&self.head_since).is_some_and(|seconds| seconds >= timings.head) {
            self.kill();
        }
        let idle = since(&self.idle_since).unwrap_or(0);
        if idle >= timings.idle {
            // GOAWAY first, and a little time for the client to read it.
            const FAREWELL: u32 = 5;
            if http2 && idle < timings.idle + FAREWELL { self.finish() } else { self.kill() }
        }
    }

    fn has_read(&self, bytes: usize) {
        if bytes > 0 && self.active.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.clock.now().number(), Ordering::Relaxed);
        }
    }

    fn has_written<T>(&self, polled: &Poll<T>) {
        let stuck = self.stuck_since.load(Ordering::Relaxed);
        match (polled, stuck) {
            (Poll::Pending, 0) => self.stuck_since.store(self.clock.now().number(), Ordering::Relaxed),
            (Poll::Ready(_), 1..) => self.stuck_since.store(0, Ordering::Relaxed),
            (Poll::Pending, 1..) | (Poll::Ready(_), 0) => {}
        }
    }
}

/// A client's socket that tells its [`Watch`] of every movement.
struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
    linger: Linger,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.watch.has_read(buffer.filled().len() - before);
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch.has_written(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.watch.has_written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        if !this.watch.linger.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        this.linger.poll(&mut this.stream, context).map(Ok)
    }
}
