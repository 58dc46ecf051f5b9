//! What all threads of a proxy share.
//!
//! Made by `mod.rs`. Everything in it is read without locks on a request's way; only `link.rs` publishes tables and settings.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use super::access_log::AccessLog;
use super::call::detached::Detaching;
use super::call::durable::Order;
use super::call::records::Records;
use super::queue::{Activity, Object};
use super::settings::Live;
use super::table::Table;
use super::tls::Tls;
use super::token::Key;
use crate::decide::slowing::Failures;
use crate::domain::Grants;
use crate::wire::calls::Ended;

/// Objects the controller has not been told of yet that somebody waits for them.
pub const MOST_WANTED: usize = 1024;
/// Connections on their way from the thread that accepted them to a thread with fewer.
pub const MOST_HANDED_OVER: usize = 256;

/// Attempts on their way to a thread; the controller sends no more than functions can use.
pub const MOST_ORDERS: usize = 4096;

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    /// The routes.
    pub table: ArcSwap<Table>,
    /// The settings.
    pub settings: ArcSwap<Live>,
    /// That some number changed.
    pub activity: Arc<Activity>,
    /// Objects that need a first instance.
    pub wanted: mpsc::Sender<Arc<Object>>,
    /// That some instance was given up for a call that is overdue.
    pub given_up: Notify,
    /// HTTPS.
    pub tls: Tls,
    /// Checks who calls.
    pub tokens: Key,
    /// Checks who comes from elsewhere.
    pub grants: ArcSwap<Grants>,
    /// Where wrong tokens came from; looked at when one comes, and then only.
    pub failures: Mutex<Failures>,
    /// Lines about requests.
    pub access_log: AccessLog,
    /// The limit of connections.
    pub gate: Arc<Gate>,
    /// Where the ends of attempts go that are carried out for the controller.
    pub ends: mpsc::UnboundedSender<Ended>,
    /// Where calls go that last longer than their callers wait.
    pub detaching: mpsc::UnboundedSender<Detaching>,
    /// Bodies and results of calls that are too long for the record.
    pub calls_directory: Arc<Path>,
    /// Where the controller answers apps.
    pub apps_socket: Arc<Path>,
    /// Where calls that somebody waits for leave their records.
    pub records: Records,
    /// How many such attempts are under way or not acknowledged.
    pub held: AtomicUsize,
    /// The threads.
    pub threads: Vec<Peer>,
    /// Becomes true when the proxy is told to leave.
    pub leaving: watch::Receiver<bool>,
}

/// A thread as the others see it.
#[derive(Debug)]
pub struct Peer {
    /// Its client connections.
    pub connections: AtomicUsize,
    /// Asks it to look after its connections: some instance drains or was cut.
    pub look: Notify,
    /// Takes over a connection.
    pub handed_over: mpsc::Sender<TcpStreamParts>,
    /// Takes an attempt of a call to carry out.
    pub orders: mpsc::Sender<Order>,
}

/// A connection between two threads, registered with neither.
#[derive(Debug)]
pub struct TcpStreamParts {
    /// It.
    pub stream: std::net::TcpStream,
    /// Its place.
    pub permit: Permit,
    /// Whether it came in for HTTPS.
    pub secure: bool,
}

impl Shared {
    /// All threads look after their connections.
    pub fn look_everywhere(&self) {
        for thread in &self.threads {
            thread.look.notify_one();
        }
    }
}

/// Bounds the number of connections. Who finds it closed waits, and its connections stay in the listener's backlog.
#[derive(Debug)]
pub struct Gate {
    open: AtomicUsize,
    most: AtomicUsize,
    freed: Notify,
}

impl Gate {
    /// A gate for that many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), most: AtomicUsize::new(most.max(1)), freed: Notify::new() })
    }

    /// Changes the limit; connections above a lower one stay.
    pub fn set_limit(&self, most: usize) {
        self.most.store(most.max(1), Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Waits for a free place.
    pub async fn enter(self: &Arc<Self>) -> Permit {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before the count is looked at, so that a place freed in between is not missed.
            freed.as_mut().enable();
            let most = self.most.load(Ordering::SeqCst);
            let entered =
                self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| (open < most).then_some(open + 1));
            if entered.is_ok() {
                return Permit { gate: Arc::clone(self) };
            }
            freed.await;
        }
    }
}

/// A connection's place; leaves on drop.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::SeqCst);
        self.gate.freed.notify_waiters();
    }
}
