//! One object (a `web` endpoint or a function) as all threads see it: its line of waiting requests and its counters.
//!
//! Owned by the registry in `table.rs`, shared over table generations. Neighbours: `admit.rs` lines up,
//! `claim.rs` says when a place became free, `link.rs` reads the counters and hears who is wanted.
//!
//! The line is first come, first served. Only the request at its front tries to claim. It is woken when a place
//! becomes free and when a new table is published; whoever leaves the front, for whatever reason, wakes the next.
//!
//! Invariant: nobody sleeps while a place is free. A request joins the line *before* it looks for a place, a
//! release gives its place back *before* it looks at the line, both sequentially consistent: one of them sees the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::traffic::Traffic;
use crate::domain::{AnswerClass, AppKey, ObjectName, VersionNumber};

/// The counters and the line of one object.
#[derive(Debug)]
pub struct Object {
    /// The app.
    pub app: AppKey,
    /// The object.
    pub name: ObjectName,
    /// The version, where it is one that calls are pinned to.
    pub pinned: Option<VersionNumber>,
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Arc<Notify>>>,
    requests: AtomicU64,
    /// What it answered, where it is a web object.
    pub traffic: Traffic,
    wanted: AtomicBool,
    /// Since when it has had ready instances without a break; `None` while it has none.
    ready_since: Mutex<Option<Instant>>,
    activity: Arc<Activity>,
}

impl Object {
    /// An object nobody waits for.
    pub fn new(app: AppKey, name: ObjectName, activity: Arc<Activity>) -> Self {
        Self {
            app,
            name,
            pinned: None,
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            requests: AtomicU64::new(0),
            traffic: Traffic::default(),
            wanted: AtomicBool::new(false),
            ready_since: Mutex::new(None),
            activity,
        }
    }

    /// The same for calls that are pinned to a version.
    #[must_use]
    pub fn pinned_to(self, version: VersionNumber) -> Self {
        Self { pinned: Some(version), ..self }
    }

    /// Requests in the line.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a request that was given to an instance.
    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.activity.mark();
    }

    /// Counts an answer that began so long after its request.
    pub fn count_answer(&self, answer: AnswerClass, after: Duration) {
        self.traffic.count(answer, after);
        self.activity.mark();
    }

    /// Joins the end of the line unless `limit` are in it already.
    pub fn line_up(self: &Arc<Self>, limit: u32) -> Option<Ticket> {
        let mut line = self.line();
        if line.len() >= limit as usize {
            return None;
        }
        let turn = Arc::new(Notify::new());
        line.push_back(Arc::clone(&turn));
        self.waiting.store(line.len(), Ordering::SeqCst);
        drop(line);
        self.activity.mark();
        Some(Ticket { object: Arc::clone(self), turn })
    }

    /// A place became free on one of its instances.
    pub fn released(&self) {
        self.activity.mark();
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_front();
        }
    }

    /// The first in the line looks again.
    pub fn wake_front(&self) {
        if let Some(turn) = self.line().front() {
            turn.notify_one();
        }
    }

    /// True for the first of a wave that needs an instance: the controller is told once per wave.
    pub fn begin_wave(&self) -> bool {
        !self.wanted.swap(true, Ordering::SeqCst)
    }

    /// There are instances (again): the next request without one begins a new wave.
    pub fn end_wave(&self) {
        self.wanted.store(false, Ordering::SeqCst);
    }

    /// A new table has ready instances of it, or none.
    pub fn is_ready(&self, ready: bool) {
        let mut since = self.ready_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if ready { Some(since.unwrap_or_else(Instant::now)) } else { None };
    }

    /// For how long of the time since `began` there was no ready instance. Ends once there was one.
    pub fn starting_since(&self, began: Instant) -> Duration {
        let since = *self.ready_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.unwrap_or_else(Instant::now).saturating_duration_since(began)
    }

    /// A wave has begun and not ended.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        // The line is whole after every statement that changes it, also if a thread died in between.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in an object's line; leaves it on drop.
#[derive(Debug)]
pub struct Ticket {
    object: Arc<Object>,
    turn: Arc<Notify>,
}

impl Ticket {
    /// Whether this is a place in that object's line.
    pub fn is_for(&self, object: &Arc<Object>) -> bool {
        Arc::ptr_eq(&self.object, object)
    }

    /// Whether nobody is before it.
    pub fn is_front(&self) -> bool {
        self.object.line().front().is_some_and(|turn| Arc::ptr_eq(turn, &self.turn))
    }

    /// Waits until it is worth to look again.
    pub async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.object.line();
        if let Some(at) = line.iter().position(|turn| Arc::ptr_eq(turn, &self.turn)) {
            line.remove(at);
            self.object.waiting.store(line.len(), Ordering::SeqCst);
            // Also when this one was served: one table change can bring many places, and a turn that was given to
            // a request which has just given up must not be lost.
            if at == 0
                && let Some(next) = line.front()
            {
                next.notify_one();
            }
            if line.is_empty() {
                // Whoever comes next begins a new wave: perhaps nobody heard of this one.
                self.object.end_wave();
            }
        }
        drop(line);
        self.object.activity.mark();
    }
}

/// Says once that some number of some object changed, so that an idle proxy reports nothing and wakes for nothing.
#[derive(Debug, Default)]
pub struct Activity {
    marked: AtomicBool,
    notify: Notify,
}

impl Activity {
    /// Something changed.
    pub fn mark(&self) {
        // Read first: under load the flag is set already and the cache line stays shared.
        if !self.marked.load(Ordering::Relaxed) && !self.marked.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Changes from here on are new ones. To be called before the numbers are read.
    pub fn clear(&self) {
        self.marked.store(false, Ordering::SeqCst);
    }
}
