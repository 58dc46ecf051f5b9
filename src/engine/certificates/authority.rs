//! Orders of certificates at an authority that speaks ACME (RFC 8555).
//!
//! One order at a time for a host, each in a task of its own. What must survive a crash is on disk or in the ledger before it
//! matters: the account's key before the first order, the order's address as soon as there is one, the certificate's key before the
//! authority is asked to sign it. An order that is found open is gone on with instead of made anew.
//!
//! Files: `<data_dir>/acme/account-<hash of the directory>.json` and `<data_dir>/acme/<host>.key`, both 0600.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error as AcmeError, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, info};

use super::board::Board;
use crate::domain::hex;
use crate::files::config::AcmeConfig;
use crate::whole;
use crate::wire::proxy::{Challenge, ChallengeKind};

/// One step at the authority that is not a wait for it.
const STEP: Duration = Duration::from_secs(60);
/// How long an authority may take to look at a host, or to sign.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a request is made that the authority took nothing of, for a nonce that had gone stale (RFC 8555, 6.5). The crate makes
/// each up to three times by itself.
const NONCES: usize = 6;
/// First pause between two looks at an order; each is half as long again as the one before.
const LOOK: Duration = Duration::from_millis(500);

/// A certificate as it was issued.
pub(super) struct Issued {
    /// The chain and the key, as PEM.
    pub pem: String,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// In words, with the mend where it is known.
    pub reason: String,
    /// The authority wants to be left alone for this long.
    pub wait: Option<Duration>,
    /// The order is over; the next try is a new one.
    pub over: bool,
    /// Nothing was taken of the request: its nonce was stale. It can be made again at once.
    pub stale: bool,
}

impl Refused {
    fn new(doing: &str, why: impl std::fmt::Display) -> Self {
        Self { reason: format!("{doing}: {why}"), wait: None, over: false, stale: false }
    }
}

/// Makes a request again while the authority takes nothing of it but for its nonce.
macro_rules! again {
    ($request:expr) => {{
        let mut made = 1;
        loop {
            match $request {
                Err(refused) if refused.stale && made < NONCES => made += 1,
                done => break done,
            }
        }
    }};
}

/// One host at one directory.
pub(super) struct Errand<'a> {
    pub acme: &'a AcmeConfig,
    /// The directory: the authority's own, or that of its staging.
    pub directory: &'a str,
    pub host: &'a str,
    /// Where accounts and keys are kept.
    pub kept: &'a Path,
    pub kind: ChallengeKind,
    pub board: &'a Board,
    /// Held while an account is looked for or made.
    pub accounts: &'a Mutex<()>,
}

impl Errand<'_> {
    /// Gets a certificate. `order` is one that is open from before; `opened` hears of a new one before anything follows from it.
    pub async fn run<F>(&self, order: Option<String>, opened: impl FnOnce(String) -> F) -> Result<Issued, Refused>
    where
        F: Future<Output = Result<(), String>>,
    {
        let account = {
            let _alone = self.accounts.lock().await;
            self.account().await?
        };
        let key = self.key()?;
        let mut order = match order {
            Some(url) => again!(self.step("looking at the open order", account.order(url.clone())).await).map_err(
                |mut refused| {
                    refused.over = true;
                    refused
                },
            )?,
            None => {
                let identifiers = [Identifier::Dns(self.host.to_owned())];
                let order = NewOrder::new(&identifiers);
                let order = again!(self.step("ordering a certificate", account.new_order(&order)).await)?;
                opened(order.url().to_owned()).await.map_err(|error| Refused::new("recording the order", error))?;
                order
            }
        };
        let done = self.drive(&mut order, &key).await;
        self.board.withdraw(self.host).await;
        let chain = done?;
        Ok(Issued { pem: format!("{}\n{}", chain.trim_end(), key.serialize_pem()) })
    }

    async fn drive(&self, order: &mut Order, key: &KeyPair) -> Result<String, Refused> {
        if order.state().status == OrderStatus::Pending {
            again!(self.prove(order).await)?;
            let doing = "waiting for the authority's look at this host";
            let looked = again!(order.poll_ready(&patience()).await.map_err(|error| refused(doing, error)));
            debug!(host = self.host, ?looked, "the authority has looked");
            match (looked, order.state().status) {
                // What the authority saw is told below, by its own words.
                (Ok(_), _) | (Err(_), OrderStatus::Invalid) => {}
                (Err(refused), _) => return Err(refused),
            }
        }
        match order.state().status {
            OrderStatus::Ready => {
                let request = self.request(key)?;
                again!(self.step("sending the request to sign", order.finalize_csr(&request)).await)?;
            }
            OrderStatus::Processing | OrderStatus::Valid => {}
            OrderStatus::Pending | OrderStatus::Invalid => return Err(self.why_not(order).await),
        }
        let doing = "waiting for the certificate";
        again!(order.poll_certificate(&patience()).await.map_err(|error| refused(doing, error)))
    }

    /// Proves that the host is served from here.
    async fn prove(&self, order: &mut Order) -> Result<(), Refused> {
        let wanted = match self.kind {
            ChallengeKind::Http => ChallengeType::Http01,
            ChallengeKind::Tls => ChallengeType::TlsAlpn01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization =
                authorization.map_err(|error| refused("reading what the authority wants to be shown", error))?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                _ => {
                    let reason = "the authority has given this order up".to_owned();
                    return Err(Refused { reason, wait: None, over: true, stale: false });
                }
            }
            let mut challenge = authorization.challenge(wanted.clone()).ok_or_else(|| {
                Refused::new(
                    "reading what the authority wants to be shown",
                    format!("it offers no {wanted:?}; the other way is tried next"),
                )
            })?;
            let proof = challenge.key_authorization();
            let answer = match self.kind {
                ChallengeKind::Http => proof.as_str().to_owned(),
                ChallengeKind::Tls => self.alpn_certificate(proof.digest().as_ref())?,
            };
            let post =
                Challenge { host: self.host.to_owned(), kind: self.kind, token: challenge.token.clone(), answer };
            // Every proxy can answer before the authority is told to ask.
            self.board.post(post).await;
            self.step("asking the authority to look", challenge.set_ready()).await?;
        }
        Ok(())
    }

    /// What the authority says of an order that leads nowhere.
    async fn why_not(&self, order: &mut Order) -> Refused {
        let mut reasons: Vec<String> = order.state().error.iter().map(ToString::to_string).collect();
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            reasons.extend(errors.map(|error| error.detail.clone().unwrap_or_else(|| error.to_string())));
        }
        let why = if reasons.is_empty() { "it does not say why".to_owned() } else { reasons.join("; ") };
        let (way, port) = match self.kind {
            ChallengeKind::Http => ("HTTP", 80),
            ChallengeKind::Tls => ("TLS", 443),
        };
        Refused {
            reason: format!(
                "the authority could not see by {way} that {} is served from here: {why}. Its name must lead to this machine, and port {port} must reach this agent",
                self.host
            ),
            wait: None,
            over: true,
            stale: false,
        }
    }

    async fn step<T>(&self, doing: &str, step: impl Future<Output = Result<T, AcmeError>>) -> Result<T, Refused> {
        match timeout(STEP, step).await {
            Ok(done) => done.map_err(|error| refused(doing, error)),
            Err(_) => {
                Err(Refused::new(doing, format!("no answer from {} within {} s", self.directory, STEP.as_secs())))
            }
        }
    }

    async fn account(&self) -> Result<Account, Refused> {
        let doing = "opening the account";
        let builder = || match &self.acme.ca_file {
            Some(file) => Account::builder_with_root(file)
                .map_err(|error| Refused::new(doing, format!("`ca_file` {}: {error}", file.display()))),
            None => Account::builder().map_err(|error| Refused::new(doing, error)),
        };
        let hash = Sha256::digest(self.directory.as_bytes());
        let file = self.kept.join(format!("account-{}.json", hex::encode(&hash[..8])));
        match fs::read(&file) {
            Ok(bytes) => {
                let credentials: AccountCredentials = serde_json::from_slice(&bytes).map_err(|error| {
                    Refused::new(
                        doing,
                        format!("{} is damaged ({error}); remove it and a new account is made", file.display()),
                    )
                })?;
                return self.step(doing, builder()?.from_credentials(credentials)).await;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Refused::new(doing, format!("{}: {error}", file.display()))),
        }
        let contact = self.acme.email.as_ref().map(|address| format!("mailto:{address}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) =
            again!(self.step("making an account", builder()?.create(&new, self.directory.to_owned(), None)).await)?;
        let text = serde_json::to_vec(&credentials).map_err(|error| Refused::new(doing, error))?;
        write_private(&file, &text).map_err(|error| Refused::new(doing, error))?;
        info!(directory = self.directory, "an account was made at the certificate authority");
        Ok(account)
    }

    /// The key of this host's order; made when there is none.
    fn key(&self) -> Result<KeyPair, Refused> {
        let doing = "making a key";
        let file = key_file(self.kept, self.host);
        if let Ok(text) = fs::read_to_string(&file)
            && let Ok(key) = KeyPair::from_pem(&text)
        {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(|error| Refused::new(doing, error))?;
        write_private(&file, key.serialize_pem().as_bytes()).map_err(|error| Refused::new(doing, error))?;
        Ok(key)
    }

    fn request(&self, key: &KeyPair) -> Result<Vec<u8>, Refused> {
        let failed = |error: rcgen::Error| Refused::new("writing the request to sign", error);
        let mut parameters = CertificateParams::new([self.host.to_owned()]).map_err(failed)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        Ok(parameters.serialize_request(key).map_err(failed)?.der().to_vec())
    }

    /// The certificate that answers in TLS (RFC 8737, 3), with its key.
    fn alpn_certificate(&self, digest: &[u8]) -> Result<String, Refused> {
        let failed = |error: rcgen::Error| Refused::new("making the answer to a challenge", error);
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = CertificateParams::new([self.host.to_owned()]).map_err(failed)?;
        parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        Ok(parameters.self_signed(&key).map_err(failed)?.pem() + &key.serialize_pem())
    }
}

/// Where the key of a host's open order lies, until its certificate is laid.
pub(super) fn key_file(kept: &Path, host: &str) -> PathBuf {
    kept.join(format!("{host}.key"))
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().initial_delay(LOOK).backoff(1.5).timeout(PATIENCE)
}

/// An authority's refusal in words.
fn refused(doing: &str, error: AcmeError) -> Refused {
    let mut refused = Refused::new(doing, &error);
    if let AcmeError::Api(problem) = &error {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        refused.stale = kind.ends_with(":badNonce");
        if kind.ends_with(":rateLimited") {
            refused.wait = Some(Duration::from_secs(60 * 60));
        }
        // What is asked about is not there any more, or not ours.
        refused.over = kind.ends_with(":malformed") || kind.ends_with(":unauthorized") || problem.status == Some(404);
    }
    refused
}

fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    whole::write_private(file, &file.with_extension("tmp"), bytes)
}
