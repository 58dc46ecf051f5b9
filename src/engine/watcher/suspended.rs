//! A watcher whose source is suspended: nothing is looked at until that ends, by its time or by a person.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Watcher, event};
use crate::domain::{Actor, EventKind, Suspension};
use crate::ledger::{facts, sources};

/// The wall clock is read again at least this often while waiting for a suspension's end.
const CLOCK: Duration = Duration::from_secs(30);

impl Watcher {
    /// Waits for the end of the suspension; `false` when the source is watched no more.
    pub(super) async fn sit_out(&mut self, suspension: Suspension, shutdown: &CancellationToken) -> bool {
        self.retry = None;
        // They see in the answer that it is suspended.
        self.answer(Instant::now());
        self.publish.send_modify(|state| {
            state.next_look_at = None;
            state.looking = false;
            state.suspension = Some(suspension.clone());
        });
        loop {
            let left = suspension.until.map(|until| until.duration_since(Timestamp::now()));
            let left = left.map(|left| Duration::try_from(left).unwrap_or(Duration::ZERO));
            let over = left.is_some_and(|left| left.is_zero());
            if over && self.end_suspension(&suspension).await {
                return true;
            }
            let pause = if over { CLOCK } else { left.map_or(CLOCK, |left| left.min(CLOCK)) };
            tokio::select! {
                () = shutdown.cancelled() => return false,
                _ = self.suspended.changed() => return true,
                asked = self.requests.recv() => if asked.is_none() { return false },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The suspension is over by itself. `false` when that cannot be recorded now.
    async fn end_suspension(&mut self, suspension: &Suspension) -> bool {
        let (name, at) = (self.config.name.clone(), Timestamp::now());
        let message = format!("source {name} is looked at again: its suspension is over");
        let words = message.clone();
        let recorded = self.tools.ledger.write(move |ledger| {
            if sources::end_suspension(ledger, &name)? {
                facts::event(ledger, &event(EventKind::Resumed, &name, at, words))?;
                facts::audit(ledger, &Actor::Agent, "source.resume", None, &serde_json::json!({"source": name}), at)?;
            }
            Ok(())
        });
        if let Err(error) = recorded.await {
            warn!(%error, "the end of a suspension cannot be recorded; tried again later");
            return false;
        }
        info!("{message}");
        self.suspension.send_if_modified(|now| {
            // Somebody may have suspended it anew meanwhile.
            let ended = now.as_ref() == Some(suspension);
            if ended {
                *now = None;
            }
            ended
        });
        true
    }
}
