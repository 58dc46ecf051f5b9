//! Keeps what runs have written: the beginning and the end, beside the record, so that it is there when logs of that time
//! are gone. Of every run that failed, and now and then of another.
//!
//! Best effort beside the runs, a few at once, and never in their way.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::recording::EndedRun;
use crate::ledger::Ledger;
use crate::ledger::schedules::{self, Output, ScheduleId};
use crate::runtime::logs::{self, LogFilter};

/// Runs that wait to be looked at; those beyond are left out.
const MOST: usize = 1000;
/// Logs that are read at once.
const AT_ONCE: usize = 2;
/// What a process has written is in its log this much after its end.
const SETTLES: Duration = Duration::from_secs(1);
/// Lines are looked for this much before and after the run: clocks of two processes are read one after the other.
const AROUND: SignedDuration = SignedDuration::from_secs(2);
/// Of a schedule whose runs succeed one is looked at in this time: reading logs of every run would cost more than it is
/// worth.
const BETWEEN_SUCCESSES: Duration = Duration::from_secs(600);
/// A success is looked at only while at least so many others could wait too.
const ROOM_FOR_FAILURES: usize = 900;
/// Bytes that are kept of the beginning, and of the end.
const HEAD: usize = 16 * 1024;
const TAIL: usize = 48 * 1024;

/// Keeps outputs in the background.
#[derive(Debug)]
pub(super) struct Outputs {
    ledger: Ledger,
    logs: PathBuf,
    waiting: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    /// When a run that had not failed was last looked at.
    successes: HashMap<ScheduleId, Instant>,
    shutdown: CancellationToken,
}

impl Outputs {
    pub(super) fn new(ledger: Ledger, logs: PathBuf, shutdown: CancellationToken) -> Self {
        let (waiting, reading) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(AT_ONCE)));
        Self { ledger, logs, waiting, reading, successes: HashMap::new(), shutdown }
    }

    /// Keeps what this run has written, unless it has not failed and neither had one shortly before.
    pub(super) fn keep(&mut self, run: &EndedRun) {
        let Some(started_at) = run.started_at else { return };
        if !run.outcome.is_failure() && !self.is_turn_of_success(run.id) {
            return;
        }
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            warn!(function = %run.function, call = %run.call, "too many runs fail at once; what this one wrote is in its log only");
            return;
        };
        let filter = LogFilter {
            since: started_at.checked_sub(AROUND).ok(),
            until: run.ended_at.checked_add(AROUND).ok(),
            object: Some(run.function.function.to_string()),
            call: Some(run.call),
            ..LogFilter::default()
        };
        let (ledger, logs, reading) = (self.ledger.clone(), self.logs.clone(), Arc::clone(&self.reading));
        let (shutdown, run) = (self.shutdown.clone(), run.clone());
        tokio::spawn(async move {
            let _place = place;
            let keep = async {
                tokio::time::sleep(SETTLES).await;
                let Ok(_turn) = reading.acquire().await else { return };
                let mut lines = logs::read(&logs, &run.function.app, filter);
                let mut kept = Kept::default();
                while let Some(line) = lines.recv().await {
                    kept.add(line.line);
                }
                let (id, at, output) = (run.id, run.at, kept.output());
                if let Err(error) = ledger.write(move |ledger| schedules::keep_output(ledger, id, at, &output)).await {
                    warn!(function = %run.function, %error, "what a run has written cannot be kept");
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = keep => {}
            }
        });
    }

    fn is_turn_of_success(&mut self, id: ScheduleId) -> bool {
        if self.waiting.available_permits() < ROOM_FOR_FAILURES {
            return false;
        }
        if self.successes.get(&id).is_some_and(|last| last.elapsed() < BETWEEN_SUCCESSES) {
            return false;
        }
        self.successes.insert(id, Instant::now());
        true
    }
}

/// Lines on their way to an [`Output`].
#[derive(Debug, Default)]
struct Kept {
    head: String,
    /// The beginning is full.
    full: bool,
    tail: VecDeque<String>,
    length: usize,
    left_out: u64,
}

impl Kept {
    fn add(&mut self, line: String) {
        if !self.full && self.head.len() + line.len() < HEAD {
            self.head.push_str(&line);
            self.head.push('\n');
            return;
        }
        self.full = true;
        self.length += line.len() + 1;
        self.tail.push_back(line);
        while self.length > TAIL
            && let Some(line) = self.tail.pop_front()
        {
            self.length -= line.len() + 1;
            self.left_out += 1;
        }
    }

    fn output(self) -> Output {
        let tail = self.tail.into_iter().map(|line| line + "\n").collect();
        Output { head: self.head, left_out: self.left_out, tail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_stay_and_what_lies_between_is_counted() {
        let mut kept = Kept::default();
        let line = |number: usize| format!("{number:>99}");
        for number in 0..10_000 {
            kept.add(line(number));
        }
        let output = kept.output();
        let (head, tail) = (output.head.lines().count(), output.tail.lines().count());
        assert_eq!(head + tail + usize::try_from(output.left_out).unwrap(), 10_000);
        assert!(output.head.len() <= HEAD && output.tail.len() <= TAIL);
        assert!(output.head.starts_with(&line(0)) && output.tail.ends_with(&format!("{}\n", line(9_999))));
        let mut short = Kept::default();
        short.add("woe".to_owned());
        assert_eq!(short.output(), Output { head: "woe\n".to_owned(), left_out: 0, tail: String::new() });
    }
}
