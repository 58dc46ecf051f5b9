//! A person lets a source have what waits. Exactly what was shown: what has come to wait since is refused.
//!
//! Held-back removals are recorded as absent in the transaction of the approval. A rewritten branch is approved in
//! the record first and then looked at again; a controller that dies in between finds the approval when it starts.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tracing::info;

use super::handle::Engine;
use super::reconciler::{Input, internal};
use super::{Caller, CommandError, Result, vanishing};
use crate::domain::{Actor, AppKey, CommitId, EnvironmentName, Event, EventKind, SourceName, WaitReason, Waiting};
use crate::ledger::{Connection, Result as LedgerResult, facts, waits};
use crate::wire::api;

/// What an approval led to.
struct Done {
    approved: Vec<Waiting>,
    touched: BTreeSet<AppKey>,
    commit: Option<CommitId>,
}

/// An approval about to be recorded.
struct Approval {
    source: SourceName,
    environment: EnvironmentName,
    actor: Actor,
    request: api::ApproveRequest,
}

impl Engine {
    /// Lets a source have what waits.
    pub async fn approve(
        &self,
        caller: Caller,
        name: SourceName,
        request: api::ApproveRequest,
    ) -> Result<api::Approved> {
        let watching = self.watching(&name)?;
        let environment = watching.config.environment(&self.parts.environment).clone();
        let approval = Approval { source: name.clone(), environment, actor: caller.actor, request };
        let recorded = self.parts.ledger.write(move |ledger| approval.record(ledger, Timestamp::now()));
        let done = recorded.await.map_err(internal)??;
        info!(source = %name, approved = done.approved.len(), "approved");
        // The queue is the reconciler's own; if it is gone, the record tells the next controller.
        let _ = self.parts.inputs.send(Input::Observed { touched: done.touched }).await;
        if let Some(commit) = done.commit {
            watching.shared.approve(commit);
        }
        let source = self.look_at(&name).await?;
        let words: Vec<String> = done.approved.iter().map(carried_out).collect();
        Ok(api::Approved { message: format!("source {name}: {}", words.join("; ")), approved: done.approved, source })
    }
}

impl Approval {
    fn record(&self, ledger: &Connection, at: Timestamp) -> LedgerResult<Result<Done>> {
        let now = waits::of(ledger, &self.source)?;
        let wanted = match self.choose(&now) {
            Ok(wanted) => wanted,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut done = Done { approved: Vec::new(), touched: BTreeSet::new(), commit: None };
        for waiting in wanted {
            match &waiting.reason {
                WaitReason::PruneBrake { apps, .. } => {
                    let absent = vanishing::let_go_approved(ledger, &self.environment, &self.source, apps, at)?;
                    done.touched.extend(absent);
                    waits::end(ledger, waiting.id)?;
                }
                WaitReason::ForcePush { commit, .. } => {
                    waits::approve(ledger, waiting.id, &self.actor)?;
                    done.commit = Some(commit.clone());
                }
                WaitReason::Unverified { .. } => continue,
            }
            self.tell(ledger, waiting, at)?;
            done.approved.push(waiting.clone());
        }
        Ok(Ok(done))
    }

    fn tell(&self, ledger: &Connection, waiting: &Waiting, at: Timestamp) -> LedgerResult<()> {
        let why = self.request.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let message = format!("source `{}`: {}, approved by {}{why}", self.source, carried_out(waiting), self.actor);
        let source = Some(self.source.clone());
        let event = Event {
            at,
            kind: EventKind::SourceApproved,
            app: None,
            version: None,
            source,
            object: None,
            cause: None,
            message,
        };
        facts::event(ledger, &event)?;
        let detail = (&self.source, waiting, &self.request.reason);
        facts::audit(ledger, &self.actor, "approve", None, &detail, at)
    }

    /// What of all that waits is meant.
    fn choose<'w>(&self, now: &'w [Waiting]) -> Result<Vec<&'w Waiting>> {
        let source = &self.source;
        let conflict = |what: String, mend: String| CommandError::Conflict { what, mend };
        let shown = &self.request.waits;
        if shown.iter().any(|id| now.iter().all(|waiting| waiting.id != *id)) {
            return Err(conflict(
                format!("what waits in source {source} is no longer what was shown; nothing was approved"),
                format!("`landfall source show {source}` shows what waits now"),
            ));
        }
        let meant = now.iter().filter(|waiting| shown.contains(&waiting.id));
        let (wanted, refused): (Vec<_>, Vec<_>) = meant.partition(|waiting| waiting.reason.can_be_approved());
        match (wanted.is_empty(), refused.first()) {
            (false, _) => Ok(wanted),
            (true, None) if !now.is_empty() => Err(CommandError::Invalid {
                what: "the approval names nothing that waits".into(),
                mend: format!("name in `waits` what `landfall source show {source} --json` shows"),
            }),
            (true, None) => Err(conflict(
                format!("nothing of source {source} waits for an approval"),
                "`landfall source list` shows how each source stands".into(),
            )),
            (true, Some(refused)) => Err(conflict(refused.reason.words_for(source), "this cannot be approved".into())),
        }
    }
}

/// What an approval means, in words.
fn carried_out(waiting: &Waiting) -> String {
    match &waiting.reason {
        WaitReason::PruneBrake { apps, .. } => {
            let apps: Vec<&str> = apps.iter().map(|app| app.as_str()).collect();
            format!("{} stopped as their manifests are gone", apps.join(", "))
        }
        WaitReason::ForcePush { last, commit } => {
            format!("commit {} is taken although it does not descend from {}", commit.short(), last.short())
        }
        WaitReason::Unverified { .. } => waiting.reason.to_string(),
    }
}
