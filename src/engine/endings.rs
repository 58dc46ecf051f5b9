//! What ends by itself (holds, suspensions), and saying once why nothing is done.

use jiff::Timestamp;
use tracing::info;

use super::commands::end_suspension;
use super::reconciler::Reconciler;
use super::records;
use crate::decide::reconcile::{HoldEnd, Why};
use crate::domain::{Actor, AppKey, EventKind};
use crate::ledger::{LedgerError, apps, facts};

impl Reconciler {
    /// A hold that ended by itself.
    pub(super) async fn end_hold(
        &mut self,
        key: &AppKey,
        end: HoldEnd,
        at: Timestamp,
    ) -> std::result::Result<(), LedgerError> {
        let words = match end {
            HoldEnd::GitAgrees => format!("the hold on {} ended: its source asks for the held content", key.app),
            HoldEnd::Expired => format!("the hold on {} ended: its time is over", key.app),
        };
        info!(app = %key, "{words}");
        let app = key.clone();
        self.tools
            .ledger
            .write(move |ledger| {
                apps::end_hold(ledger, &app)?;
                facts::event(ledger, &records::event(EventKind::Released, &app, None, at, words))
            })
            .await?;
        self.reload(key).await;
        Ok(())
    }

    /// A suspension whose time is over.
    pub(super) async fn end_suspension(&mut self, key: &AppKey, at: Timestamp) -> std::result::Result<(), LedgerError> {
        end_suspension(self, key, Actor::Agent, at).await
    }

    /// Tells once why nothing is done although git asks for something else.
    pub(super) async fn say_why(
        &mut self,
        key: &AppKey,
        why: Why,
        at: Timestamp,
    ) -> std::result::Result<(), LedgerError> {
        let Some(entry) = self.apps.get_mut(key) else { return Ok(()) };
        let said = Some((why, entry.git_content()));
        if entry.said == said {
            return Ok(());
        }
        entry.said = said;
        match why {
            Why::Quarantined => {
                let words = format!(
                    "{}: the source asks for quarantined content; nothing is started. Push other content, or `landfall app release --force {}`",
                    key.app, key.app
                );
                info!("{words}");
                self.note(records::event(EventKind::Quarantined, key, None, at, words)).await
            }
            Why::Suspended | Why::Held | Why::Failed | Why::Stopped | Why::Unknown => Ok(()),
        }
    }
}
