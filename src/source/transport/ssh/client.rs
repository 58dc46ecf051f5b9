//! Our side of the ssh protocol: who the server must be, and what it may ask of us, which is nothing.

use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Channel, Preferred, SshId};

use super::super::super::error::Trouble;
use super::known_hosts::Endpoint;
use super::trust::Trust;

/// Answers what the protocol asks during one connection.
pub(super) struct Client {
    pub(super) trust: Trust,
    pub(super) host: Endpoint,
    /// Why the server was refused; on its way through the protocol an error keeps nothing.
    pub(super) refusal: Refusal,
}

/// Where a refusal is left for who waits for the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal(Arc<Mutex<Option<Trouble>>>);

impl Refusal {
    pub(super) fn take(&self) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Client {
    /// What is offered to the server: the types of pinned keys first, so that it shows one that can be compared.
    pub(super) fn config(&self) -> Config {
        let mut keys: Vec<Algorithm> = Vec::new();
        let pinned = self.trust.algorithms(&self.host);
        let usual = Preferred::DEFAULT.key;
        // An RSA key is pinned once and can be shown with several hashes; SHA-1 is none of them.
        let usable = || usual.iter().filter(|algorithm| **algorithm != Algorithm::Rsa { hash: None });
        let is_pinned = |algorithm: &Algorithm| pinned.iter().any(|pinned| pinned.as_str() == plain(algorithm));
        keys.extend(usable().filter(|algorithm| is_pinned(algorithm)).cloned());
        keys.extend(usable().filter(|algorithm| !is_pinned(algorithm)).cloned());
        Config {
            client_id: SshId::Standard(concat!("SSH-2.0-landfall_", env!("CARGO_PKG_VERSION")).into()),
            preferred: Preferred { key: keys.into(), ..Preferred::DEFAULT },
            nodelay: true,
            ..Config::default()
        }
    }
}

/// The type of the key behind an algorithm.
fn plain(algorithm: &Algorithm) -> &str {
    match algorithm {
        Algorithm::Rsa { .. } => "ssh-rsa",
        other => other.as_str(),
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        match self.trust.check(&self.host, &shown.public_key()) {
            Ok(()) => Ok(true),
            Err(trouble) => {
                self.refusal.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
                Ok(false)
            }
        }
    }

    // A server has no reason to open a channel to us. Dropping the handle says no.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }
}
