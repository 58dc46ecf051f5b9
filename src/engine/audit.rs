//! The audit log as the API writes and shows it.

use jiff::Timestamp;
use serde_json::json;

use super::reconciler::internal;
use super::{Engine, Result};
use crate::domain::AppKey;
use crate::ledger::audit::{self, Entry};
pub use crate::ledger::audit::{Filter as AuditFilter, NewEntry};
use crate::wire::tokens::AuditEntry;

impl Engine {
    /// How an app stands, in the few words that say what a change did to it; `None` when it is not there.
    pub async fn standing(&self, key: &AppKey) -> Option<serde_json::Value> {
        let app = self.app(key.clone()).await.ok()?;
        Some(json!({
            "state": app.state,
            "live_version": app.live_version,
            "held_at": app.hold.map(|hold| hold.version),
            "suspended": app.suspension.is_some(),
            "stopped": app.stopped.is_some(),
        }))
    }

    /// Records what is about to be done. Answers the entry's number.
    pub async fn audit_begin(&self, entry: NewEntry) -> Result<i64> {
        let now = Timestamp::now();
        self.ledger().write(move |ledger| audit::begin(ledger, &entry, now)).await.map_err(internal)
    }

    /// Records something that is done, or was refused, as it is recorded.
    pub async fn audit_done(&self, entry: NewEntry, result: serde_json::Value) -> Result<()> {
        let now = Timestamp::now();
        let write = self.ledger().write(move |ledger| {
            let id = audit::begin(ledger, &entry, now)?;
            audit::end(ledger, id, None, None, &result)
        });
        write.await.map_err(internal)
    }

    /// Records what came of it.
    pub async fn audit_end(
        &self,
        id: i64,
        app: Option<AppKey>,
        after: Option<serde_json::Value>,
        result: serde_json::Value,
    ) -> Result<()> {
        let write = self.ledger().write(move |ledger| audit::end(ledger, id, app.as_ref(), after.as_ref(), &result));
        write.await.map_err(internal)
    }

    /// Entries of the audit log, newest first.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEntry>> {
        let found = self.ledger().read(move |ledger| audit::list(ledger, &filter)).await.map_err(internal)?;
        Ok(found.into_iter().map(view).collect())
    }
}

fn view(entry: Entry) -> AuditEntry {
    let (environment, app) = entry.app.map(|key| (key.environment, key.app)).unzip();
    AuditEntry {
        id: entry.id,
        at: entry.at,
        actor: entry.actor.to_string(),
        via: entry.via.unwrap_or_else(|| "agent".to_owned()),
        address: entry.address,
        action: entry.action,
        environment,
        app,
        detail: entry.detail,
        before: entry.before,
        after: entry.after,
        result: entry.result,
    }
}
