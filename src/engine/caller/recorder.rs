//! A caller that records and tells, and carries nothing out: for tests of those who only need that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use super::{Bodies, Caller, Done, ENDS, Shared, Tallies, intake};
use crate::decide::retry::Policy;
use crate::domain::{AttemptEnd, AttemptOutcome, CallId};
use crate::engine::records::Settings;
use crate::ledger::Ledger;
use crate::ledger::calls;

impl Caller {
    /// A caller without a task: what is recorded stays as it is until [`Caller::carried_out`].
    pub(in crate::engine) fn recorder(ledger: Ledger, data_dir: PathBuf) -> Self {
        let keep = Duration::from_secs(3600);
        let settings = Settings { keep_versions: 1, keep_stopped: keep, keep_audit: keep, keep_calls: keep, data_dir };
        let bodies = Bodies::new(Arc::new(ArcSwap::from_pointee(settings)));
        let shared = Shared {
            ledger,
            bodies,
            inputs: mpsc::channel(1).0,
            intake: mpsc::channel::<intake::Spawning>(1).0,
            waiting: Mutex::default(),
            ends: broadcast::channel(ENDS).0,
            tallies: Tallies::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Records that a call that waits for its turn had it and ended like this, and tells of it.
    pub(in crate::engine) async fn carried_out(&self, call: CallId, outcome: AttemptOutcome, now: Timestamp) {
        let ended = self.shared.ledger.write(move |ledger| {
            let begun = calls::begin(ledger, &[call], now)?;
            let Some(begun) = begun.into_iter().next() else { return Ok(None) };
            let end = AttemptEnd::without_report(outcome, now, None);
            Ok(match calls::end(ledger, begun.attempt, &end, None, &Policy::NEVER, now)? {
                calls::Ended::Done(outcome) => {
                    Some(Done { call, function: begun.function, trigger: begun.trigger, outcome })
                }
                calls::Ended::Again(_) | calls::Ended::Stale => None,
            })
        });
        // Nothing is to be told of a call that somebody has cancelled meanwhile.
        if let Some(done) = ended.await.expect("recorded") {
            self.tell(done);
        }
    }
}
