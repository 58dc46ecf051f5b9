//! What proxies are told about HTTPS, and the wait until they know.

use tokio::sync::Mutex;

use crate::engine::fleet::Fleet;
use crate::wire::proxy::{Challenge, TlsOptions};

/// The one place that tells proxies about HTTPS.
pub(super) struct Board {
    fleet: Fleet,
    options: Mutex<TlsOptions>,
}

impl Board {
    pub(super) fn new(fleet: Fleet) -> Self {
        Self { fleet, options: Mutex::default() }
    }

    /// Changes what is told, and returns when every proxy knows. Held meanwhile: what is told later is never overtaken.
    async fn tell(&self, change: impl FnOnce(&mut TlsOptions)) {
        let mut options = self.options.lock().await;
        let before = options.clone();
        change(&mut options);
        if *options != before {
            self.fleet.set_tls(options.clone()).await;
        }
    }

    /// A challenge that is to be answered from now on.
    pub(super) async fn post(&self, challenge: Challenge) {
        self.tell(|options| {
            options.challenges.retain(|other| other.host != challenge.host);
            options.challenges.push(challenge);
        })
        .await;
    }

    /// Those of a host are over.
    pub(super) async fn withdraw(&self, host: &str) {
        self.tell(|options| options.challenges.retain(|challenge| challenge.host != host)).await;
    }

    /// Certificates on disk have changed.
    pub(super) async fn certificates(&self) {
        // A new controller must not count from where an earlier one was.
        let now = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(1);
        self.tell(|options| options.certificates = now.max(options.certificates + 1)).await;
    }

    /// Where plain HTTP is sent.
    pub(super) async fn redirect(&self, port: Option<u16>) {
        self.tell(|options| options.redirect = port).await;
    }
}
