//! One order of a certificate: what is tried at which directory in which way, and what is on record afterwards.
//!
//! Runs in a task of its own, made by the owner of all certificates; [`super::authority`] talks to the authority.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::authority::{Errand, Issued, Refused};
use super::board::Board;
use crate::decide::renewal;
use crate::files::config::AcmeConfig;
use crate::ledger::certificates::{self as record, CertificateRecord, OpenOrder};
use crate::ledger::{Ledger, LedgerError};
use crate::wire::proxy::ChallengeKind;

/// One order, with everything it needs.
pub(super) struct Job {
    pub host: String,
    pub acme: AcmeConfig,
    /// What is on record of the host.
    pub known: CertificateRecord,
    /// Where accounts and keys are kept.
    pub kept: PathBuf,
    pub ledger: Ledger,
    pub board: Arc<Board>,
    /// Held while an account is looked for or made.
    pub accounts: Arc<Mutex<()>>,
}

impl Job {
    /// Carries it out and records how it ended; `None` when there is no certificate yet.
    pub async fn run(self) -> (String, Result<Option<Issued>, LedgerError>) {
        let host = self.host.clone();
        (host, self.carry_out().await)
    }

    async fn carry_out(&self) -> Result<Option<Issued>, LedgerError> {
        let trial = self.acme.staging.clone().filter(|staging| self.known.rehearsed.as_ref() != Some(staging));
        let directory = trial.as_ref().unwrap_or(&self.acme.directory);
        let kind = way(self.known.failures);
        let errand = Errand {
            acme: &self.acme,
            directory,
            host: &self.host,
            kept: &self.kept,
            kind,
            board: &self.board,
            accounts: &self.accounts,
        };
        let open = self.known.order.as_ref().filter(|order| order.directory == *directory);
        let opened = async |url: String| {
            let (host, directory) = (self.host.clone(), directory.clone());
            let write = self.ledger.write(move |ledger| {
                let known = record::of(ledger, &host)?;
                let order = Some(OpenOrder { directory, url });
                record::set(ledger, &host, &CertificateRecord { order, ..known })
            });
            write.await.map_err(|error| error.to_string())
        };
        let issued = errand.run(open.map(|order| order.url.clone()), opened).await;
        match (issued, trial.clone()) {
            (Ok(issued), None) => Ok(Some(issued)),
            (Ok(_), Some(staging)) => {
                info!(host = self.host, staging, "the order was tried out; now it is meant");
                let rehearsed = Some(staging);
                self.record(move |known| CertificateRecord {
                    rehearsed,
                    failures: worked(known.failures),
                    told: known.told,
                    ..CertificateRecord::default()
                })
                .await?;
                Ok(None)
            }
            (Err(refused), _) => {
                warn!(host = self.host, directory, "no certificate: {}", refused.reason);
                self.record(move |known| failed(known, refused, Timestamp::now())).await?;
                Ok(None)
            }
        }
    }

    async fn record(
        &self,
        change: impl FnOnce(CertificateRecord) -> CertificateRecord + Send + 'static,
    ) -> Result<(), LedgerError> {
        let host = self.host.clone();
        let write = self.ledger.write(move |ledger| {
            let known = record::of(ledger, &host)?;
            record::set(ledger, &host, &change(known))
        });
        write.await
    }
}

/// Which way a host is looked at after so many orders in vain: every other one goes the other way, for some machines are
/// reached on one port only.
fn way(failures: u32) -> ChallengeKind {
    if failures.is_multiple_of(2) { ChallengeKind::Http } else { ChallengeKind::Tls }
}

/// What is counted as failures after a success, so that the next order begins with the way that worked.
pub(super) fn worked(failures: u32) -> u32 {
    failures % 2
}

/// What is on record after an order in vain.
pub(super) fn failed(known: CertificateRecord, refused: Refused, now: Timestamp) -> CertificateRecord {
    let failures = known.failures.saturating_add(1);
    CertificateRecord {
        order: known.order.filter(|_| !refused.over),
        failures,
        not_before: Some(renewal::after_failure(now, failures, refused.wait)),
        problem: Some(refused.reason),
        ..known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_in_vain_is_kept_only_while_it_can_be_gone_on_with() {
        let now = Timestamp::UNIX_EPOCH;
        let open = OpenOrder { directory: "d".to_owned(), url: "u".to_owned() };
        let known = CertificateRecord { order: Some(open), failures: 1, ..CertificateRecord::default() };
        let refused = |over| Refused { reason: "why".to_owned(), wait: None, over, stale: false };
        let after = failed(known.clone(), refused(false), now);
        assert_eq!((after.order.is_some(), after.failures, after.problem.as_deref()), (true, 2, Some("why")));
        assert!(after.not_before > Some(now));
        assert!(failed(known, refused(true), now).order.is_none());
    }

    #[test]
    fn the_way_that_worked_comes_first_the_next_time() {
        assert_eq!([way(0), way(1), way(2)], [ChallengeKind::Http, ChallengeKind::Tls, ChallengeKind::Http]);
        for failures in 0..5 {
            assert_eq!(way(worked(failures)), way(failures));
        }
    }
}
