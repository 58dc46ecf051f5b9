//! Asks a remote for its references, once for all sources that follow it.
//!
//! One task per (remote, credentials), alive while a source subscribes to it. Neighbours: `watcher` subscribes, asks,
//! and compares each listing with what its source has read; `decide::poll` chooses when the next one is due.
//!
//! ```text
//! due, asked for, hook, or the host is back ─► list (one round trip) ─► published to all subscribers ─► wait
//! ```
//!
//! Invariants: a listing that a person asks for begins after the question, whatever back-off says; polling never
//! stops; a listing in which nothing is new writes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosts::{Host, Hosts, Verdict, verdict};
use crate::decide::poll::{self, Hooks, Situation};
use crate::source::{ListFailure, Listing, LookLimits, SharedRemote};

/// What a poller tells its subscribers.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// The newest listing.
    pub listed: Option<Listed>,
    /// When the next one comes by itself.
    pub next: Option<Timestamp>,
}

/// One listing.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Counts the listings of the remote.
    number: u64,
    /// When it was begun: what was pushed before is in it.
    pub began: Instant,
    /// What the remote said.
    pub outcome: Result<Arc<Listing>, Arc<ListFailure>>,
}

/// How a source wants its remote to be polled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    /// Time between two looks.
    pub poll: Duration,
    /// A listing must be over after this.
    pub timeout: Duration,
    /// When the last hook came.
    pub hook: Option<Instant>,
    /// When a poll found what no hook had announced.
    pub missed: Option<Instant>,
}

impl Rhythm {
    fn interval(&self, now: Instant) -> Duration {
        let ago = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        poll::interval(self.poll, &Hooks { last: ago(self.hook), missed: ago(self.missed) })
    }
}

struct Member {
    rhythm: Rhythm,
    /// It has just come and waits for its first listing.
    fresh: bool,
}

/// One remote, shared by its task and its subscribers.
struct Remote {
    remote: SharedRemote,
    host: Arc<Host>,
    members: Mutex<BTreeMap<u64, Member>>,
    /// Members came, went, or changed their rhythm.
    changed: Notify,
    asked: Notify,
    hooked: Notify,
    published: watch::Sender<Published>,
}

impl Remote {
    fn members(&self) -> MutexGuard<'_, BTreeMap<u64, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All pollers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pollers {
    registry: Arc<Registry>,
}

struct Registry {
    remotes: Mutex<Vec<Arc<Remote>>>,
    hosts: Hosts,
    next_id: AtomicU64,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Pollers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pollers")
    }
}

impl Pollers {
    pub(super) fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        let registry = Registry {
            remotes: Mutex::default(),
            hosts: Hosts::default(),
            next_id: AtomicU64::new(0),
            tasks,
            shutdown,
        };
        Self { registry: Arc::new(registry) }
    }

    /// Has the remote polled as long as the subscription lives, beginning now.
    pub(super) fn subscribe(&self, remote: SharedRemote, rhythm: Rhythm) -> Subscription {
        let registry = &self.registry;
        let id = registry.next_id.fetch_add(1, Ordering::Relaxed);
        let mut remotes = registry.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        let member = Member { rhythm, fresh: true };
        if let Some(known) = remotes.iter().find(|known| known.remote == remote) {
            // Before the member is there to be served, so that what serves it is seen.
            let published = known.published.subscribe();
            let seen = number(&published.borrow());
            // A member that comes under this lock keeps the task: it leaves only under it, and without members.
            known.members().insert(id, member);
            known.changed.notify_one();
            return Subscription { id, published, seen, remote: Arc::clone(known) };
        }
        let new = Arc::new(Remote {
            host: registry.hosts.named(&remote.host()),
            remote,
            members: Mutex::new(BTreeMap::from([(id, member)])),
            changed: Notify::new(),
            asked: Notify::new(),
            hooked: Notify::new(),
            published: watch::Sender::new(Published::default()),
        });
        remotes.push(Arc::clone(&new));
        let published = new.published.subscribe();
        let task =
            Task { remote: Arc::clone(&new), registry: Arc::clone(registry), failures: 0, last: None, luck: 0.5 };
        registry.tasks.spawn(task.run());
        Subscription { id, published, seen: 0, remote: new }
    }
}

impl Registry {
    /// Takes the remote out if nobody subscribes to it any more.
    fn retire(&self, remote: &Arc<Remote>) -> bool {
        let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = remote.members().is_empty();
        if unused {
            remotes.retain(|known| !Arc::ptr_eq(known, remote));
        }
        unused
    }
}

fn number(published: &Published) -> u64 {
    published.listed.as_ref().map_or(0, |listed| listed.number)
}

/// A source's hold on the poller of its remote.
pub(super) struct Subscription {
    id: u64,
    remote: Arc<Remote>,
    published: watch::Receiver<Published>,
    /// The number of the last listing that was handed on, or was there before this subscription.
    seen: u64,
}

impl Subscription {
    /// What the poller says next; each listing once.
    pub(super) async fn changed(&mut self) -> Published {
        // The sender lives as long as `remote`, which is held here.
        let _ = self.published.changed().await;
        let mut published = self.published.borrow_and_update().clone();
        if number(&published) <= self.seen {
            published.listed = None;
        } else {
            self.seen = number(&published);
        }
        published
    }

    /// A person wants a listing now.
    pub(super) fn ask(&self) {
        self.remote.asked.notify_one();
    }

    /// A hook wants one: now, unless the host has asked for a pause.
    pub(super) fn ask_for_hook(&self) {
        self.remote.hooked.notify_one();
    }

    /// From now on polled like this.
    pub(super) fn set_rhythm(&self, rhythm: Rhythm) {
        if let Some(member) = self.remote.members().get_mut(&self.id) {
            member.rhythm = rhythm;
        }
        self.remote.changed.notify_one();
    }

    /// The host the remote lies on.
    pub(super) fn host(&self) -> Arc<Host> {
        Arc::clone(&self.remote.host)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.remote.members().remove(&self.id);
        self.remote.changed.notify_one();
    }
}

struct Task {
    remote: Arc<Remote>,
    registry: Arc<Registry>,
    failures: u32,
    /// When the last listing began.
    last: Option<Instant>,
    luck: f64,
}

impl Task {
    async fn run(mut self) {
        let mut recovered = self.remote.host.recovered();
        while self.until_due(&mut recovered).await {
            // Whatever the host does from here on may be news for the wait after this listing.
            recovered.mark_unchanged();
            if !self.list().await {
                return;
            }
        }
    }

    /// Waits until the next listing is due; `false` when there is to be none.
    async fn until_due(&mut self, recovered: &mut watch::Receiver<u64>) -> bool {
        let remote = Arc::clone(&self.remote);
        let mut hooked = false;
        loop {
            if remote.members().is_empty() && self.registry.retire(&remote) {
                return false;
            }
            let due = self.due(hooked);
            self.publish_next(due);
            tokio::select! {
                biased;
                () = self.registry.shutdown.cancelled() => return false,
                () = remote.asked.notified() => return true,
                () = remote.hooked.notified() => hooked = true,
                () = remote.changed.notified() => {}
                _ = recovered.changed(), if self.failures > 0 => return true,
                () = tokio::time::sleep_until(due.into()) => return true,
            }
        }
    }

    fn due(&self, hooked: bool) -> Instant {
        let now = Instant::now();
        let host = self.remote.host.state();
        let members = self.remote.members();
        let fresh = members.values().any(|member| member.fresh);
        let (Some(last), false) = (self.last, hooked || fresh) else { return now + host.told(now) };
        let interval = members.values().map(|member| member.rhythm.interval(now)).min();
        let barred = host.barred(now);
        // Counted from the last look, like the wait it may prolong.
        let barred = if barred.is_zero() { barred } else { barred + now.saturating_duration_since(last) };
        let situation = Situation {
            interval: interval.unwrap_or(poll::LONGEST_NET),
            failures: self.failures,
            barred,
            luck: self.luck,
        };
        last + poll::wait(&situation)
    }

    fn publish_next(&self, due: Instant) {
        let wait = due.saturating_duration_since(Instant::now());
        let next = Timestamp::now().checked_add(wait).ok();
        let moved = |before: Option<Timestamp>| match (before, next) {
            // The two clocks are read one after the other; that alone is no news.
            (Some(before), Some(next)) => before.duration_since(next).abs() > jiff::SignedDuration::from_millis(100),
            (before, next) => before != next,
        };
        self.remote.published.send_if_modified(|published| {
            let moved = moved(published.next);
            if moved {
                published.next = next;
            }
            moved
        });
    }

    /// One listing, published. `false` when the agent ends.
    async fn list(&mut self) -> bool {
        let remote = Arc::clone(&self.remote);
        let shutdown = self.registry.shutdown.clone();
        let turn = tokio::select! {
            turn = remote.host.turn() => turn,
            () = shutdown.cancelled() => return false,
        };
        let began = Instant::now();
        let timeout = remote.members().values().map(|member| member.rhythm.timeout).max().unwrap_or_default();
        let cancel = Arc::new(AtomicBool::new(false));
        let limits = LookLimits { deadline: began + timeout, cancel: Arc::clone(&cancel) };
        let shared = remote.remote.clone();
        let listing = tokio::task::spawn_blocking(move || shared.list(&limits));
        tokio::pin!(listing);
        let listed = tokio::select! {
            listed = &mut listing => listed,
            () = shutdown.cancelled() => {
                cancel.store(true, Ordering::Relaxed);
                listing.await
            }
        };
        drop(turn);
        if shutdown.is_cancelled() {
            return false;
        }
        self.last = Some(began);
        self.luck = fastrand::f64();
        match listed {
            Ok(outcome) => self.publish(began, outcome),
            Err(error) => {
                tracing::error!(remote = remote.remote.place(), %error, "a listing broke off");
                self.failures = self.failures.saturating_add(1);
            }
        }
        true
    }

    fn publish(&mut self, began: Instant, outcome: Result<Listing, ListFailure>) {
        let verdict = match &outcome {
            Ok(_) => Verdict::Answered,
            Err(failure) => verdict(failure.kind(), failure.retry_after()),
        };
        self.remote.host.learn(began, verdict);
        self.failures = if outcome.is_ok() { 0 } else { self.failures.saturating_add(1) };
        // Also those who came while it was under way: they are told of it as well.
        self.remote.members().values_mut().for_each(|member| member.fresh = false);
        let outcome = outcome.map(Arc::new).map_err(Arc::new);
        self.remote.published.send_modify(|published| {
            let number = number(published) + 1;
            published.listed = Some(Listed { number, began, outcome });
        });
    }
}
