//! Records of calls that somebody waited for, and counts of what web objects answered, from the proxies into the history.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(in crate::engine) use crate::ledger::history::History;

use super::tallies::{Tallies, minute_of};
use crate::decide::tally::KEPT;
use crate::engine::records::Settings;
use crate::engine::traces::Traces;
use crate::wire::calls::CallRecord;
use crate::wire::proxy::ObjectAnswers;

/// What one message of a proxy said.
#[derive(Debug)]
pub enum Batch {
    /// Calls that are over.
    Calls {
        /// Their records.
        records: Vec<CallRecord>,
        /// How many more there were that could not be kept.
        dropped: u64,
    },
    /// Web requests that were answered.
    Answers(Vec<ObjectAnswers>),
}

/// Batches that may wait for the disk.
const BATCHES: usize = 64;
/// What is no longer kept is looked for this often.
const TIDY: Duration = Duration::from_secs(60);
/// What was counted of functions is kept this often.
const FIGURES: Duration = Duration::from_secs(10);
/// Records forgotten in one commit.
const AT_ONCE: u32 = 5000;

/// The way of the records; proxies write to it before [`keep`] is started.
pub(in crate::engine) fn records() -> (mpsc::Sender<Batch>, mpsc::Receiver<Batch>) {
    mpsc::channel(BATCHES)
}

/// Writes records down until told to stop.
pub(in crate::engine) async fn keep(
    history: History,
    tallies: Tallies,
    traces: Traces,
    settings: Arc<ArcSwap<Settings>>,
    mut batches: mpsc::Receiver<Batch>,
    shutdown: CancellationToken,
) {
    let mut tidy = interval(TIDY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut figures = interval(FIGURES);
    figures.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            batch = batches.recv() => {
                let records = match batch {
                    None => break,
                    Some(Batch::Answers(objects)) => {
                        answered(&tallies, objects);
                        continue;
                    }
                    Some(Batch::Calls { records, dropped }) => {
                        if dropped > 0 {
                            warn!(dropped, "calls ran whose records a proxy could not keep while no controller was there");
                        }
                        records
                    }
                };
                count(&tallies, &records);
                traces.calls(&records);
                if let Err(error) = history.add(records).await {
                    warn!(%error, "records of calls cannot be written");
                }
            }
            _ = tidy.tick() => {
                let keep = SignedDuration::try_from(settings.load().keep_calls).unwrap_or(SignedDuration::MAX);
                let before = Timestamp::now().checked_sub(keep).unwrap_or(Timestamp::MIN);
                if let Err(error) = history.forget(before, AT_ONCE).await {
                    warn!(%error, "old records of calls cannot be removed");
                }
            }
            _ = figures.tick() => keep_figures(&history, &tallies).await,
            () = shutdown.cancelled() => break,
        }
    }
    // The proxies ended before, and what they had to tell has come.
    let mut last = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        match batch {
            Batch::Calls { records, dropped: _ } => {
                count(&tallies, &records);
                last.extend(records);
            }
            Batch::Answers(objects) => answered(&tallies, objects),
        }
    }
    keep_figures(&history, &tallies).await;
    if !last.is_empty()
        && let Err(error) = history.add(last).await
    {
        warn!(%error, "the last records of calls cannot be written");
    }
}

fn count(tallies: &Tallies, records: &[CallRecord]) {
    let now = Timestamp::now();
    for record in records {
        if record.instance.is_some() {
            tallies.time(&record.function, record.times, now);
        }
        tallies.end(&record.function, record.outcome, now);
    }
}

fn answered(tallies: &Tallies, objects: Vec<ObjectAnswers>) {
    let now = Timestamp::now();
    objects.into_iter().for_each(|one| tallies.answered(one, now));
}

/// What a controller that dies has counted since is missing in the figures of the next.
async fn keep_figures(history: &History, tallies: &Tallies) {
    let now = Timestamp::now();
    let changed = tallies.changed(now);
    if !changed.is_empty()
        && let Err(error) = history.keep_minutes(changed, minute_of(now) - KEPT).await
    {
        warn!(%error, "figures of functions cannot be kept");
    }
}
