//! A revision whose signature does not count: recorded as waiting and told once; settled when another one is taken.
//!
//! Called by the watcher, between its look and its wait. What was read before stays in force all the while.

use jiff::Timestamp;
use tracing::warn;

use crate::domain::{Event, EventKind, SourceName, WaitReason};
use crate::ledger::{Ledger, LedgerError, facts, waits};
use crate::source::Refusal;

/// Records that a revision is not taken, unless that is known.
pub(super) async fn record(ledger: &Ledger, source: &SourceName, refusal: Refusal) -> Result<(), LedgerError> {
    let reason = WaitReason::Unverified { commit: refusal.commit.clone(), problem: refusal.problem };
    let message = format!("source {source}: {reason}");
    let (name, at, words) = (source.clone(), Timestamp::now(), message.clone());
    let news = ledger.write(move |ledger| {
        // A key that was added or taken away changes the problem, not the commit: that is worth telling as well.
        let known = waits::of(ledger, &name)?.into_iter().any(|waiting| waiting.reason == reason);
        if known {
            return Ok(false);
        }
        for waiting in waits::of(ledger, &name)?.iter().filter(|waiting| is_unverified(&waiting.reason)) {
            waits::end(ledger, waiting.id)?;
        }
        waits::set(ledger, &name, &reason, Some(refusal.commit.as_str()), at)?;
        facts::event(ledger, &event(EventKind::SourceWaiting, &name, at, words))?;
        Ok(true)
    });
    if news.await? {
        warn!("{message}");
    }
    Ok(())
}

/// Records that no revision waits for a signature any more.
pub(super) async fn settle(ledger: &Ledger, source: &SourceName) -> Result<(), LedgerError> {
    let name = source.clone();
    let waiting = ledger.read(move |ledger| waits::of(ledger, &name)).await?;
    let Some(waiting) = waiting.into_iter().find(|waiting| is_unverified(&waiting.reason)) else { return Ok(()) };
    let (name, at) = (source.clone(), Timestamp::now());
    let message = format!("source {source}: no revision waits for a trusted signature any more");
    let settled = ledger.write(move |ledger| {
        if waits::end(ledger, waiting.id)? {
            facts::event(ledger, &event(EventKind::SourceSettled, &name, at, message))?;
        }
        Ok(())
    });
    settled.await
}

fn is_unverified(reason: &WaitReason) -> bool {
    matches!(reason, WaitReason::Unverified { .. })
}

fn event(kind: EventKind, source: &SourceName, at: Timestamp, message: String) -> Event {
    Event { at, kind, app: None, version: None, source: Some(source.clone()), message }
}
