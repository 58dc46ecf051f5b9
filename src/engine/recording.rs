//! What is recorded together with a new version, in one transaction: holds, quarantine, and the ends of deployments
//! it makes up for.

use jiff::Timestamp;

use super::records;
use crate::domain::{Actor, AppKey, ContentId, DeploymentId, DeploymentOutcome, EventKind, Failure, VersionNumber};
use crate::ledger::{Connection, LedgerError, Result as LedgerResult, apps, deployments, facts};

/// Cancels a deployment that is not live yet, and tells of it.
pub(super) fn cancel_in(ledger: &Connection, key: &AppKey, id: DeploymentId, at: Timestamp) -> LedgerResult<()> {
    if !deployments::cancel(ledger, id, at)? {
        return Ok(());
    }
    let Some(deployment) = deployments::one(ledger, id)? else { return Ok(()) };
    records::hold_falls_back(ledger, key, deployment.version, at)?;
    match records::end_event(key, Some(deployment.version), DeploymentOutcome::Cancelled, None, at) {
        Some(event) => facts::event(ledger, &event),
        None => Ok(()),
    }
}

/// The end of a deployment, with the event that tells of it.
#[derive(Debug)]
pub(super) struct Finished {
    pub id: DeploymentId,
    pub outcome: DeploymentOutcome,
    pub failure: Option<Failure>,
}

impl Finished {
    pub(super) fn record(
        &self,
        ledger: &Connection,
        key: &AppKey,
        at: Timestamp,
    ) -> std::result::Result<(), LedgerError> {
        let Some(deployment) = deployments::one(ledger, self.id)? else { return Ok(()) };
        let (outcome, failure) = (self.outcome, self.failure.as_ref());
        if !deployments::finish(ledger, self.id, outcome, failure, at)? {
            return Ok(());
        }
        if !deployment.phase.is_live() {
            records::hold_falls_back(ledger, key, deployment.version, at)?;
        }
        match records::end_event(key, Some(deployment.version), outcome, failure, at) {
            Some(event) => facts::event(ledger, &event),
            None => Ok(()),
        }
    }
}

/// What is recorded in the same transaction as a new version.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// The deployment this one makes up for has ended.
    pub finished: Option<Finished>,
    /// The hold ends.
    pub ends_hold: bool,
    /// This hold begins, at the new version.
    pub hold: Option<NewHold>,
    /// This content is quarantined.
    pub quarantine: Option<(ContentId, VersionNumber, String)>,
    /// This content's quarantine is lifted.
    pub lift: Option<ContentId>,
    /// Who, for the hold and the quarantine.
    pub actor: Option<Actor>,
    /// An event besides that of the new version.
    pub event: Option<(EventKind, String)>,
}

/// A hold that begins with a new version.
#[derive(Debug, Clone)]
pub(super) struct NewHold {
    pub reason: String,
    pub until: Option<Timestamp>,
    pub over: Option<ContentId>,
}

impl Extra {
    pub(super) fn record(
        &self,
        ledger: &Connection,
        key: &AppKey,
        version: VersionNumber,
        at: Timestamp,
    ) -> std::result::Result<(), LedgerError> {
        let actor = self.actor.clone().unwrap_or(Actor::Agent);
        if let Some(finished) = &self.finished {
            finished.record(ledger, key, at)?;
        }
        if self.ends_hold && apps::end_hold(ledger, key)? {
            let words = format!("the hold on {} ended: git has new content", key.app);
            facts::event(ledger, &records::event(EventKind::Released, key, Some(version), at, words))?;
        }
        if let Some(content) = &self.lift {
            apps::lift_quarantine(ledger, key, content)?;
        }
        if let Some((content, found_in, reason)) = &self.quarantine {
            apps::set_quarantine(ledger, key, content, *found_in, reason, &actor, at)?;
        }
        if let Some(hold) = &self.hold {
            let over = hold.over.as_ref();
            let hold =
                crate::domain::Hold { version, reason: hold.reason.clone(), actor, since: at, until: hold.until };
            apps::set_hold(ledger, key, &hold, over)?;
        }
        if let Some((kind, words)) = &self.event {
            facts::event(ledger, &records::event(*kind, key, Some(version), at, words.clone()))?;
        }
        Ok(())
    }
}
