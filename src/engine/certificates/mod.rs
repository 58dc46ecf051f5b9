//! Certificates: those from files, those from an authority, and what proxies show.
//!
//! One task owns all of it. What proxies may show lies in `<data_dir>/certificates`, one file each, written whole and only after a
//! look at it; what is known besides lies in the ledger. Neighbours: [`board`] tells the proxies, [`authority`] carries out one order.
//!
//! ```text
//! file changed ─► read ─► usable ─► laid where proxies find it ─► proxies told
//!                     └► not ─► the one before stays, people are told
//! host without a certificate, or due ─► staging, the first time ─► order ─► laid ─► proxies told
//!                                             └──────────► in vain ─► later, ever later; people are told
//! ```
//!
//! Invariant: a certificate in use is replaced only by one that can be used; no host's trouble is another host's.

mod authority;
mod board;
mod files;
mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::authority::{Issued, Refused, key_file};
use self::board::Board;
use self::order::{Job, failed, worked};
use super::fleet::Fleet;
use super::reload::Current;
use crate::decide::renewal::{self, Life, Orders};
use crate::domain::{Event, EventKind};
use crate::files::config::AcmeConfig;
use crate::ledger::certificates::{self as record, CertificateRecord};
use crate::ledger::{Ledger, LedgerError, facts};
use crate::tls::{self, Pair};

/// How often files, hosts and times are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Orders at once.
const ORDERS: usize = 4;

/// A certificate, or the want of one, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateState {
    /// The host, or the path of the file.
    pub subject: String,
    /// Whether it comes from a file.
    pub from_file: bool,
    /// What is in use.
    pub in_use: Option<InUse>,
    /// What is wrong, if something is.
    pub problem: Option<String>,
    /// When the authority is asked next.
    pub next_order: Option<Timestamp>,
}

/// What is read in a certificate that proxies show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The hosts it names.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// When it began to be valid.
    pub not_before: Timestamp,
    /// The last moment it is valid.
    pub not_after: Timestamp,
}

impl InUse {
    fn of(pair: &Pair) -> Self {
        Self {
            names: pair.names.clone(),
            issuer: pair.issuer.clone(),
            not_before: pair.not_before,
            not_after: pair.not_after,
        }
    }

    fn life(&self) -> Life {
        Life { from: self.not_before, to: self.not_after }
    }
}

/// Which hosts are reached over HTTPS, and at which port. For URLs; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Secure(Arc<ArcSwap<Reached>>);

#[derive(Debug, PartialEq, Eq, Default)]
struct Reached {
    /// The port, where HTTPS is served.
    port: Option<u16>,
    /// The names in all certificates.
    names: BTreeSet<String>,
}

impl PartialEq for Secure {
    fn eq(&self, other: &Self) -> bool {
        **self.0.load() == **other.0.load()
    }
}

impl Eq for Secure {}

impl Secure {
    /// The port at which this host is reached over HTTPS.
    pub fn port(&self, host: &str) -> Option<u16> {
        let reached = self.0.load();
        reached.port.filter(|_| reached.names.iter().any(|name| tls::covers(name, host)))
    }

    fn set(&self, reached: Reached) {
        if **self.0.load() != reached {
            self.0.store(Arc::new(reached));
        }
    }
}

/// The states of all certificates, for whoever looks.
pub(super) type States = watch::Receiver<Arc<Vec<CertificateState>>>;

/// The task.
pub(super) struct Certificates {
    data_dir: PathBuf,
    ledger: Ledger,
    fleet: Fleet,
    current: Arc<ArcSwap<Current>>,
    board: Arc<Board>,
    accounts: Arc<Mutex<()>>,
    states: watch::Sender<Arc<Vec<CertificateState>>>,
    secure: Secure,
    files: files::Files,
    /// What is laid for hosts of the authority.
    laid: BTreeMap<String, InUse>,
    orders: JoinSet<(String, Result<Option<Issued>, LedgerError>)>,
    open: BTreeSet<String>,
}

impl Certificates {
    pub(super) fn new(
        data_dir: PathBuf,
        ledger: Ledger,
        fleet: Fleet,
        current: Arc<ArcSwap<Current>>,
        secure: Secure,
    ) -> (Self, States) {
        let (states, seen) = watch::channel(Arc::default());
        let certificates = Self {
            files: files::Files::new(data_dir.join("certificates")),
            data_dir,
            ledger,
            board: Arc::new(Board::new(fleet.clone())),
            fleet,
            current,
            secure,
            accounts: Arc::default(),
            states,
            laid: BTreeMap::new(),
            orders: JoinSet::new(),
            open: BTreeSet::new(),
        };
        (certificates, seen)
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        self.find_laid();
        loop {
            if let Err(error) = self.look().await {
                warn!(%error, "certificates cannot be looked after; this is tried again by itself");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = self.orders.join_next() => self.ended(ended).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        // An order that is given up here is on record, and gone on with by the next controller.
        self.orders.shutdown().await;
    }

    /// What an earlier controller laid for hosts.
    fn find_laid(&mut self) {
        let directory = self.data_dir.join("certificates");
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(host) = name.strip_prefix(ACME_PREFIX).and_then(|name| name.strip_suffix(".pem")) else {
                continue;
            };
            match tls::read(&entry.path()) {
                Ok(pair) => drop(self.laid.insert(host.to_owned(), InUse::of(&pair))),
                Err(error) => warn!("a certificate is ordered anew: {error}"),
            }
        }
    }

    async fn look(&mut self) -> Result<(), LedgerError> {
        let current = self.current.load_full();
        let config = current.config.proxy.tls.clone();
        let Some(config) = config else {
            self.board.redirect(None).await;
            self.secure.set(Reached::default());
            self.states.send_if_modified(|states| !std::mem::take(states).is_empty());
            return Ok(());
        };
        if self.files.look(&config.certificates) {
            self.board.certificates().await;
        }
        let port = config.listen.first().map(std::net::SocketAddr::port);
        self.board.redirect(port.filter(|_| config.redirect)).await;
        let known = self.ledger.read(record::all).await?;
        let of = |subject: &str| known.get(subject).cloned().unwrap_or_default();
        let mut states = self.files.states();
        if let Some(acme) = &config.acme {
            for host in self.wanted(acme).await {
                let known = of(&host);
                states.push(self.host(host, acme, known));
            }
        }
        for state in &mut states {
            let told = of(&state.subject).told;
            self.tell(state, told).await?;
        }
        let names =
            states.iter().filter_map(|state| state.in_use.as_ref()).flat_map(|in_use| in_use.names.iter().cloned());
        self.secure.set(Reached { port, names: names.collect() });
        self.states.send_if_modified(|seen| {
            let changed = **seen != states;
            if changed {
                *seen = Arc::new(states);
            }
            changed
        });
        Ok(())
    }

    /// The hosts that want a certificate of the authority.
    async fn wanted(&self, acme: &AcmeConfig) -> Vec<String> {
        let hosts = self.fleet.hosts().await;
        let covered = |host: &str| self.files.covers(host);
        let allowed = |host: &str| acme.hosts.is_empty() || acme.hosts.iter().any(|name| tls::covers(name, host));
        hosts.into_iter().filter(|host| can_be_had(host) && allowed(host) && !covered(host)).collect()
    }

    /// Orders for a host if it is time; tells how it stands.
    fn host(&mut self, host: String, acme: &AcmeConfig, known: CertificateRecord) -> CertificateState {
        let in_use = self.laid.get(&host).cloned();
        let orders = Orders { failures: known.failures, not_before: known.not_before };
        let due = renewal::due(&host, in_use.as_ref().map(InUse::life), orders);
        let busy = self.open.contains(&host);
        let problem = known.problem.clone();
        if !busy && due <= Timestamp::now() && self.open.len() < ORDERS {
            self.order(&host, acme, known);
        }
        CertificateState {
            subject: host,
            from_file: false,
            in_use,
            problem,
            next_order: (!busy).then_some(due).filter(|due| *due > Timestamp::now()),
        }
    }

    fn order(&mut self, host: &str, acme: &AcmeConfig, known: CertificateRecord) {
        self.open.insert(host.to_owned());
        let job = Job {
            host: host.to_owned(),
            acme: acme.clone(),
            known,
            kept: self.kept(),
            ledger: self.ledger.clone(),
            board: Arc::clone(&self.board),
            accounts: Arc::clone(&self.accounts),
        };
        self.orders.spawn(job.run());
    }

    async fn ended(&mut self, ended: Result<(String, Result<Option<Issued>, LedgerError>), tokio::task::JoinError>) {
        let (host, result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                warn!(%error, "an order of a certificate broke off; this is a defect");
                // Which host it was is not known; all may order again, and what is on record holds them back.
                self.open.clear();
                return;
            }
        };
        self.open.remove(&host);
        let issued = match result {
            Ok(Some(issued)) => issued,
            Ok(None) => return,
            Err(error) => {
                warn!(host, %error, "what became of an order cannot be recorded");
                return;
            }
        };
        match self.lay(&host, &issued).await {
            Ok(()) => self.board.certificates().await,
            Err(reason) => self.cannot_lay(host, reason).await,
        }
    }

    /// An issued certificate that cannot be put to use counts as an order in vain: it is tried again later, not at every look.
    async fn cannot_lay(&self, host: String, reason: String) {
        warn!(host, reason, "an issued certificate cannot be used");
        let reason = format!("the certificate was issued and cannot be used: {reason}");
        let refused = Refused { reason, wait: None, over: false, stale: false };
        let write = self.ledger.write(move |ledger| {
            let known = record::of(ledger, &host)?;
            record::set(ledger, &host, &failed(known, refused, Timestamp::now()))
        });
        if let Err(error) = write.await {
            warn!(%error, "that a certificate cannot be used is not on record");
        }
    }

    /// Where accounts and the keys of open orders are kept.
    fn kept(&self) -> PathBuf {
        self.data_dir.join("acme")
    }

    /// Lays an issued certificate where proxies find it.
    async fn lay(&mut self, host: &str, issued: &Issued) -> Result<(), String> {
        let pair = tls::pair(host, issued.pem.as_bytes(), issued.pem.as_bytes()).map_err(|error| error.to_string())?;
        let directory = self.data_dir.join("certificates");
        files::write(&directory, &format!("{ACME_PREFIX}{host}.pem"), issued.pem.as_bytes())
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let in_use = InUse::of(&pair);
        info!(host, issuer = in_use.issuer, not_after = %in_use.not_after, "a certificate was issued");
        let message =
            format!("the certificate of {host} was issued by {}, valid until {}", in_use.issuer, in_use.not_after);
        let subject = host.to_owned();
        let write = self.ledger.write(move |ledger| {
            let known = record::of(ledger, &subject)?;
            let done = CertificateRecord {
                told: known.told,
                rehearsed: known.rehearsed,
                failures: worked(known.failures),
                ..CertificateRecord::default()
            };
            record::set(ledger, &subject, &done)?;
            facts::event(ledger, &event(EventKind::CertificateIssued, &subject, message))
        });
        if let Err(error) = write.await {
            warn!(host, %error, "that a certificate was issued is not on record");
        }
        // Only now: until then the order that is on record can be gone on with, which takes its key.
        let _ = std::fs::remove_file(key_file(&self.kept(), host));
        self.laid.insert(host.to_owned(), in_use);
        Ok(())
    }

    /// Tells people of a trouble once, and of its end once.
    async fn tell(&self, state: &mut CertificateState, told: Option<String>) -> Result<(), LedgerError> {
        let worries = state.in_use.as_ref().is_some_and(|in_use| in_use.life().worries(Timestamp::now()));
        let trouble = match (&state.problem, &state.in_use, worries) {
            (_, Some(in_use), true) => {
                let reason = state.problem.as_ref().map(|problem| format!(". {problem}")).unwrap_or_default();
                let words = format!("the certificate of {} is valid until {}{reason}", state.subject, in_use.not_after);
                Some((EventKind::CertificateExpiring, words))
            }
            (Some(problem), _, _) => Some((EventKind::CertificateFailing, problem.clone())),
            (None, _, _) => None,
        };
        if worries && state.problem.is_none() {
            state.problem = Some("expires soon, and has not been renewed".to_owned());
        }
        let wanted = trouble.as_ref().map(|(kind, _)| kind.as_str());
        // A new try has not ended the trouble yet.
        if wanted == told.as_deref() || wanted.is_none() && self.open.contains(&state.subject) {
            return Ok(());
        }
        let subject = state.subject.clone();
        let write = self.ledger.write(move |ledger| {
            let known = record::of(ledger, &subject)?;
            let (told, kind, message) = match trouble {
                Some((kind, message)) => (Some(kind.as_str().to_owned()), kind, message),
                None => {
                    (None, EventKind::CertificateRecovered, format!("the certificate of {subject} is in order again"))
                }
            };
            record::set(ledger, &subject, &CertificateRecord { told, ..known })?;
            facts::event(ledger, &event(kind, &subject, message)).map(drop)
        });
        write.await
    }
}

/// What the files of hosts begin with.
const ACME_PREFIX: &str = "acme-";

fn event(kind: EventKind, subject: &str, message: String) -> Event {
    let cause = Some(subject.to_owned());
    Event { at: Timestamp::now(), kind, app: None, version: None, source: None, object: None, cause, message }
}

/// Whether an authority can look at a host of this name: not at this machine's own names, not at addresses, and not at
/// wildcards, which it grants only to whoever changes the DNS.
fn can_be_had(host: &str) -> bool {
    let local = host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local");
    !local && !host.contains('*') && host.contains('.') && host.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_that_an_authority_can_see_are_ordered_for() {
        for (host, wanted) in [
            ("shop.example.com", true),
            ("shop.localhost", false),
            ("localhost", false),
            ("*.example.com", false),
            ("192.0.2.1", false),
            ("printer.local", false),
            ("shop", false),
        ] {
            assert_eq!(can_be_had(host), wanted, "{host}");
        }
    }
}
