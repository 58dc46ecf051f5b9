//! A clock that a test turns, one step at a time.
//!
//! The scheduler is asleep between two turns: [`Turned::to`] answers once it has done everything that the new time
//! asks for. So a test sees each state that the real clock would only pass through.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

/// Nothing takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// The clock.
#[derive(Debug)]
pub(in crate::engine) struct Turned {
    /// What it shows, and how often it was turned.
    shown: watch::Sender<(Timestamp, u64)>,
    /// The turn after which somebody fell asleep, and for how long.
    asleep: watch::Sender<(u64, Duration)>,
}

impl Turned {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { shown: watch::Sender::new((now, 1)), asleep: watch::Sender::new((0, Duration::ZERO)) }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shown.borrow().0
    }

    /// Waits until the clock is turned, however far: whoever turns it steps no further than the sleeper asks for,
    /// unless it means to be late.
    pub(super) async fn sleep(&self, length: Duration) {
        let mut shown = self.shown.subscribe();
        let (_, turn) = *shown.borrow_and_update();
        self.asleep.send_replace((turn, length));
        // The other end is in this very value.
        let _ = shown.changed().await;
    }

    /// Shows another time without waiting for anybody.
    pub(super) fn set(&self, now: Timestamp) {
        self.shown.send_modify(|shown| *shown = (now, shown.1 + 1));
    }

    /// Until the scheduler has nothing more to do; answers how long it wants to sleep.
    pub(super) async fn settled(&self) -> Duration {
        let (_, turn) = *self.shown.borrow();
        let mut asleep = self.asleep.subscribe();
        let settled = tokio::time::timeout(DEADLINE, asleep.wait_for(|(seen, _)| *seen == turn)).await;
        settled.expect("the scheduler falls asleep").expect("the clock is there").1
    }

    /// Shows another time, and waits until everything is done about it.
    pub(super) async fn to(&self, now: Timestamp) -> Duration {
        self.set(now);
        self.settled().await
    }
}
