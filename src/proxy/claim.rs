//! The claim: the right of one request to reach one instance.
//!
//! Owned by the registry in `table.rs`, which makes one [`Instance`] per identifier and hands the same one to
//! every table generation. Neighbours: `pick.rs` chooses which instance to claim, `exchange.rs` keeps the
//! [`Claim`] as long as request or answer are under way, `link.rs` drains.
//!
//! ```text
//! open, n in flight ──drain()──► draining, n in flight ──last release──► draining, 0, reported
//!                    (n = 0 goes straight to reported)
//! ```
//!
//! Invariant: draining bit and count share one atomic word. A claim is a compare-and-swap on that word which
//! fails once the bit is set, so after `drain()` the count only falls; whoever brings it to 0 (or `drain()` itself)
//! turns "draining, 0" into "reported" by a second compare-and-swap, which exactly one thread can win.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::domain::{CallId, InstanceId, VersionNumber};

use super::queue::Object;
use crate::wire::proxy::WhyOver;

const DRAINING: u64 = 1 << 63;
const REPORTED: u64 = 1 << 62;
const COUNT: u64 = u32::MAX as u64;

/// Why an instance could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It takes nothing new, for ever. The table must be looked at again.
    Draining,
    /// It has as many requests as it may have.
    Full,
}

/// How an instance's work comes to its end; what tunnels and long answers listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Not yet.
    No,
    /// Requests may finish; WebSockets are closed within this time.
    Drain(Duration),
    /// Everything ends now.
    Cut,
}

/// One instance as all threads and all tables see it.
#[derive(Debug)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// The version whose code it runs.
    pub version: VersionNumber,
    /// Its number within this process: the key of connection pools.
    pub serial: u64,
    /// The object it serves.
    pub object: Arc<Object>,
    state: AtomicU64,
    ending: watch::Sender<Ending>,
    drained: mpsc::UnboundedSender<InstanceId>,
    overdue: OnceLock<CallId>,
    over: watch::Sender<Option<WhyOver>>,
}

impl Instance {
    /// An open instance without requests. `drained` hears its identifier once, when it has drained;
    /// so that channel never holds more messages than there are instances.
    pub fn new(
        id: InstanceId,
        address: SocketAddr,
        version: VersionNumber,
        serial: u64,
        object: Arc<Object>,
        drained: mpsc::UnboundedSender<InstanceId>,
    ) -> Self {
        let (ending, _) = watch::channel(Ending::No);
        Self {
            id,
            address,
            version,
            serial,
            object,
            state: AtomicU64::new(0),
            ending,
            drained,
            overdue: OnceLock::new(),
            over: watch::Sender::new(None),
        }
    }

    /// Claims a place among `limit`.
    pub fn claim(self: &Arc<Self>, limit: u32) -> Result<Claim, Refusal> {
        // SeqCst pairs with the queue: see `Object::line_up`.
        let mut seen = self.state.load(Ordering::SeqCst);
        loop {
            if seen & DRAINING != 0 {
                return Err(Refusal::Draining);
            }
            if seen & COUNT >= u64::from(limit) {
                return Err(Refusal::Full);
            }
            match self.state.compare_exchange_weak(seen, seen + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(Claim { instance: Arc::clone(self) }),
                Err(now) => seen = now,
            }
        }
    }

    /// From now on no claim succeeds. True when no request is on it any more; otherwise the `drained`
    /// channel says when.
    pub fn drain(&self, stagger: Duration) -> bool {
        let before = self.state.fetch_or(DRAINING, Ordering::SeqCst);
        self.ending.send_if_modified(|ending| match ending {
            Ending::No => {
                *ending = Ending::Drain(stagger);
                true
            }
            Ending::Drain(_) | Ending::Cut => false,
        });
        if before & COUNT == 0 {
            // The bit stays for ever, so whoever wins this, nothing follows.
            let _ = self.state.compare_exchange(DRAINING, DRAINING | REPORTED, Ordering::SeqCst, Ordering::SeqCst);
            return true;
        }
        false
    }

    /// Like [`Instance::drain`], and whatever is still under way ends now.
    pub fn cut(&self) -> bool {
        let drained = self.drain(Duration::ZERO);
        self.ending.send_replace(Ending::Cut);
        drained
    }

    /// A call on it was not over at its deadline: it takes nothing new, and the controller is to end it. True for the
    /// first such call.
    pub fn give_up(&self, call: CallId) -> bool {
        let first = self.overdue.set(call).is_ok();
        self.drain(Duration::ZERO);
        first
    }

    /// The call it was given up for.
    pub fn given_up_for(&self) -> Option<CallId> {
        self.overdue.get().copied()
    }

    /// The controller says that it has ended, and why.
    pub fn set_over(&self, why: WhyOver) {
        self.over.send_replace(Some(why));
    }

    /// Why it has ended, if the controller has said so.
    pub fn why_over(&self) -> Option<WhyOver> {
        *self.over.borrow()
    }

    /// Why it has ended, once the controller says so.
    pub async fn over(&self) -> WhyOver {
        let mut over = self.over.subscribe();
        match over.wait_for(Option::is_some).await.ok().and_then(|why| *why) {
            Some(why) => why,
            None => WhyOver::Other,
        }
    }

    /// It takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.state.load(Ordering::SeqCst) & DRAINING != 0
    }

    /// Whatever is on it must end.
    pub fn is_cut(&self) -> bool {
        *self.ending.borrow() == Ending::Cut
    }

    /// Draining, and the last request has left.
    pub fn is_drained(&self) -> bool {
        self.state.load(Ordering::SeqCst) & !REPORTED == DRAINING
    }

    /// Requests on it now.
    pub fn in_flight(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) & COUNT) as u32
    }

    /// Hears how the instance comes to its end.
    pub fn ending(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    fn release(&self) {
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        if before == DRAINING | 1 {
            let won = self.state.compare_exchange(DRAINING, DRAINING | REPORTED, Ordering::SeqCst, Ordering::SeqCst);
            if won.is_ok() {
                // The receiver lives as long as the process; without it nobody is left to tell.
                let _ = self.drained.send(self.id.clone());
            }
        }
        self.object.released();
    }
}

/// A request's place on an instance; leaves on drop.
#[derive(Debug)]
pub struct Claim {
    instance: Arc<Instance>,
}

impl Claim {
    /// The instance this claim is for.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.instance.release();
    }
}
