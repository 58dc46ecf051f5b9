//! The proxy: the data plane process. It takes web traffic from the supervisor's sockets to ready instances.
//!
//! Started by the supervisor as `landfall internal-proxy`; told where everything is by the controller (`wire::proxy`); keeps
//! serving from the last table while the controller is away, and starts from `run/routes.json` only without one.
//!
//! | module | purpose |
//! |---|---|
//! | [`settings`], [`inherited`] | what it is told at its start |
//! | [`worker`], [`connection`] | one thread for each processor; one task for each client connection |
//! | [`forward`] | one request's way, using [`admit`], [`headers`], [`pool`], [`body`], [`upgrade`], [`answer`] |
//! | [`table`], [`path`], [`pick`], [`claim`], [`queue`] | which instance, and the right to reach it |
//! | [`token`], [`guarding`] | who an instance is that calls; who comes from elsewhere, with a token |
//! | [`tls`] | HTTPS: certificates, challenges, the way from HTTP |
//! | [`call`] | calls of functions: the same lines, claims and connections without a client's exchange |
//! | [`exchange`] | one request and its answer from head to last byte |
//! | [`link`] | the line to the controller |
//! | [`access_log`] | one JSON line for each request |
//!
//! Invariants:
//! - No request reaches an instance after the proxy said it has drained (`claim.rs`, `admit.rs`).
//! - A request is refused for want of an instance only if the table it saw is still the published one.
//! - Nothing is collected: bodies flow, and every queue has a bound.
//! - Listening sockets belong to the supervisor: leaving means to stop accepting, never to refuse.

pub mod access_log;
pub mod admit;
pub mod answer;
pub mod body;
pub mod call;
pub mod claim;
pub mod connection;
pub mod exchange;
pub mod forward;
pub mod guarding;
pub mod headers;
pub mod inherited;
pub mod link;
pub mod path;
pub mod pick;
pub mod pool;
pub mod queue;
pub mod settings;
pub mod shared;
pub mod table;
pub mod tls;
pub mod token;
pub mod traffic;
pub mod upgrade;
pub mod websocket;
pub mod worker;

#[cfg(test)]
mod admit_tests;
#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod table_tests;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tracing::info;

pub use self::settings::ProxySettings;
pub use self::worker::Timings;
pub use crate::wire::proxy::ProxyOptions;

use self::access_log::AccessLog;
use self::call::durable::{Held, Order};
use self::call::records::Records;
use self::link::Link;
use self::queue::Activity;
use self::settings::Live;
use self::shared::{Gate, MOST_HANDED_OVER, MOST_ORDERS, MOST_WANTED, Peer, Shared, TcpStreamParts};
use self::table::{Registry, Table};
use self::worker::{Listeners, Worker};

/// How long the controller has to hear what was answered last, before the proxy ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The inherited descriptors are not what they should be.
    #[error("proxy: {reason}")]
    Descriptors {
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to listen on.
    #[error("proxy: no listening socket was handed over; set `proxy.listen` in the configuration")]
    NoListeners,
    /// The system refused something.
    #[error("proxy: {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A thread died of a defect.
    #[error("proxy: thread {0} ended unexpectedly; this is a defect, please report it with the log")]
    ThreadDied(usize),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ProxyError {
    move |error| ProxyError::System { what, error }
}

/// Runs the proxy until SIGTERM or SIGINT, and then until everything under way is done.
pub fn run(settings: ProxySettings) -> Result<(), ProxyError> {
    let (leave, leaving) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("the runtime cannot be started"))?;
    let signals = {
        let _entered = runtime.enter();
        let terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM cannot be awaited"))?;
        let interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT cannot be awaited"))?;
        (terminate, interrupt)
    };
    runtime.block_on(async move {
        let (mut terminate, mut interrupt) = signals;
        let stopping = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("told to leave: accepting nothing new, finishing what is under way");
            leave.send_replace(true);
            std::future::pending::<()>().await
        };
        tokio::select! {
            ended = serve(settings, leaving) => ended,
            () = stopping => Ok(()),
        }
    })
}

/// Runs the proxy until `leaving` becomes true, and then until everything under way is done. To be awaited on a runtime
/// of its own thread: it works on the routes and blocks while the disk writes them.
pub async fn serve(settings: ProxySettings, leaving: watch::Receiver<bool>) -> Result<(), ProxyError> {
    if settings.listeners.is_empty() && settings.tls_listeners.is_empty() {
        return Err(ProxyError::NoListeners);
    }
    let count = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let (access_log, log_thread) = AccessLog::start(settings.access_log(), access_log::ROTATE)
        .map_err(system("the access log's thread cannot be started"))?;
    let (drained, hear_drained) = mpsc::unbounded_channel();
    let (wanted, hear_wanted) = mpsc::channel(MOST_WANTED);
    let (ends, hear_ends) = mpsc::unbounded_channel();
    let (detaching, hear_detaching) = mpsc::unbounded_channel();
    let (records, hear_records) = Records::new();
    let calls_directory: Arc<Path> = settings.calls_directory().into();
    let (batches, hear_batches) = call::records::batches();
    let (threads, handed_over) = peers(count);
    let shared = Arc::new(Shared {
        table: ArcSwap::from_pointee(Table::default()),
        settings: ArcSwap::from_pointee(Live::new(&settings.options)),
        activity: Arc::new(Activity::default()),
        wanted,
        given_up: Notify::new(),
        tls: tls::Tls::open(settings.certificates_directory()).map_err(system("HTTPS cannot be prepared"))?,
        tokens: token::Key::open(&settings.data_dir).map_err(system("the key of tokens cannot be read"))?,
        grants: ArcSwap::default(),
        failures: Mutex::default(),
        access_log,
        gate: Gate::new(settings.options.max_connections as usize),
        ends,
        detaching,
        calls_directory: Arc::clone(&calls_directory),
        apps_socket: settings.apps_socket().into(),
        records,
        held: 0.into(),
        threads,
        leaving: leaving.clone(),
    });
    let over = Arc::new(Notify::new());
    let mut link = Link {
        socket: settings.control_socket(),
        routes_file: settings.routes_file(),
        tokens_file: settings.tokens_file(),
        registry: Registry::new(Arc::clone(&shared.activity), drained),
        shared: Arc::clone(&shared),
        drained: hear_drained,
        wanted: hear_wanted,
        held: Held::new(calls_directory),
        ends: hear_ends,
        detaching: hear_detaching,
        found: mpsc::channel(call::underway::ANSWERS_WAITING),
        records: hear_batches,
        leaving,
        over: Arc::clone(&over),
    };
    let begun = link.begin().await;
    let (workers, mut ended) = start(&settings, shared, handed_over)?;
    if let Some(ready) = settings.ready {
        // Who waits at the other end may have gone; the proxy serves all the same.
        let _ = File::from(ready).write_all(b"1");
    }
    {
        let mut linked = pin!(link.run(begun));
        tokio::select! {
            () = call::records::gather(hear_records, batches) => {}
            () = &mut linked => {}
            _ = async { while ended.recv().await.is_some() {} } => {}
        }
        // What was answered last is told yet, if there is a controller to tell.
        over.notify_one();
        let _ = timeout(LAST_WORDS, linked).await;
    }
    // The link is gone, and with it its handle of the log.
    join(workers, log_thread)
}

/// What comes to a thread from others.
type HandedOver = Vec<(mpsc::Receiver<TcpStreamParts>, mpsc::Receiver<Order>)>;

fn peers(count: usize) -> (Vec<Peer>, HandedOver) {
    let peer = |_| {
        let (handed_over, receiver) = mpsc::channel(MOST_HANDED_OVER);
        let (orders, ordered) = mpsc::channel(MOST_ORDERS);
        (Peer { connections: 0.into(), look: Notify::new(), handed_over, orders }, (receiver, ordered))
    };
    (0..count).map(peer).unzip()
}

type Workers = Vec<JoinHandle<()>>;

/// Starts the threads and waits until all accept. The receiver closes when the last of them has ended.
fn start(
    settings: &ProxySettings,
    shared: Arc<Shared>,
    handed_over: HandedOver,
) -> Result<(Workers, mpsc::Receiver<()>), ProxyError> {
    let (started, starts) = std_mpsc::channel();
    let (alive, ended) = mpsc::channel(1);
    let mut workers = Vec::new();
    for (index, handed_over) in handed_over.into_iter().enumerate() {
        let listeners = duplicate(settings).map_err(system("a listening socket cannot be shared"))?;
        let (shared, started, alive) = (Arc::clone(&shared), started.clone(), alive.clone());
        let timings = settings.timings;
        let body = move || {
            let _alive = alive;
            let _ = started.send(run_thread(index, shared, timings, listeners, handed_over, &started));
        };
        let thread = std::thread::Builder::new().name(format!("proxy-{index}")).spawn(body);
        workers.push(thread.map_err(system("a thread cannot be started"))?);
    }
    for _ in 0..workers.len() {
        // Each thread says one thing at its start: that it accepts, or why not.
        match starts.recv() {
            Ok(result) => result.map_err(system("a thread's runtime cannot be started"))?,
            Err(_) => return Err(ProxyError::ThreadDied(0)),
        }
    }
    Ok((workers, ended))
}

fn duplicate(settings: &ProxySettings) -> io::Result<Listeners> {
    let web = |listener: &TcpListener| {
        let listener = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let calls = |listener: &UnixListener| -> io::Result<UnixListener> {
        let listener = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let secure = settings.tls_listeners.iter().map(web).collect::<io::Result<_>>()?;
    let web = settings.listeners.iter().map(web).collect::<io::Result<_>>()?;
    Ok(Listeners { web, secure, calls: settings.calls.as_ref().map(calls).transpose()? })
}

fn run_thread(
    index: usize,
    shared: Arc<Shared>,
    timings: Timings,
    listeners: Listeners,
    (handed_over, orders): (mpsc::Receiver<TcpStreamParts>, mpsc::Receiver<Order>),
    started: &std_mpsc::Sender<io::Result<()>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let worker = Worker::new(index, shared, timings);
    let _ = started.send(Ok(()));
    tasks.spawn_local(call::durable::serve(Rc::clone(&worker), orders));
    tasks.block_on(&runtime, worker.run(listeners, handed_over));
    Ok(())
}

fn join(workers: Workers, log_thread: JoinHandle<()>) -> Result<(), ProxyError> {
    for (index, worker) in workers.into_iter().enumerate() {
        worker.join().map_err(|_| ProxyError::ThreadDied(index))?;
    }
    // Every handle of the log went with the threads: what it had is written.
    let _ = log_thread.join();
    Ok(())
}
