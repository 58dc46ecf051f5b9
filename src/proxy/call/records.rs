//! Records of calls on their way to the controller: in batches, bounded, and never in a call's way.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::wire::calls::CallRecord;

/// Records that are kept while the controller is away; more are counted and dropped.
const KEPT: usize = 65_536;
/// Most records in one message.
const BATCH: usize = 512;
/// Batches that may wait for the line.
const BATCHES: usize = 4;
/// A batch waits so long for more.
const GATHER: Duration = Duration::from_millis(250);

/// Where calls leave their records.
#[derive(Debug)]
pub struct Records {
    sender: mpsc::Sender<CallRecord>,
    /// Left here and not yet on the line.
    unsent: AtomicUsize,
    dropped: AtomicU64,
}

impl Records {
    /// With the other end, for [`gather`].
    pub fn new() -> (Self, mpsc::Receiver<CallRecord>) {
        let (sender, receiver) = mpsc::channel(KEPT);
        (Self { sender, unsent: AtomicUsize::new(0), dropped: AtomicU64::new(0) }, receiver)
    }

    /// Leaves a record, or counts it where there is no place.
    pub fn tell(&self, record: CallRecord) {
        self.unsent.fetch_add(1, Ordering::SeqCst);
        if self.sender.try_send(record).is_err() {
            self.unsent.fetch_sub(1, Ordering::SeqCst);
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many have no place on the line yet.
    pub fn unsent(&self) -> usize {
        self.unsent.load(Ordering::SeqCst)
    }

    /// So many are on the line. Answers how many were dropped since the last time.
    pub fn sent(&self, count: usize) -> u64 {
        self.unsent.fetch_sub(count, Ordering::SeqCst);
        self.dropped.swap(0, Ordering::SeqCst)
    }
}

/// Hands records on in batches; ends with the proxy.
pub async fn gather(mut records: mpsc::Receiver<CallRecord>, batches: mpsc::Sender<Vec<CallRecord>>) {
    loop {
        let mut batch = Vec::new();
        if records.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        if batch.len() < BATCH {
            sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(record) = records.try_recv()
            {
                batch.push(record);
            }
        }
        if batches.send(batch).await.is_err() {
            return;
        }
    }
}

/// Batches on their way from [`gather`] to the line.
pub fn batches() -> (mpsc::Sender<Vec<CallRecord>>, mpsc::Receiver<Vec<CallRecord>>) {
    mpsc::channel(BATCHES)
}
