//! Reaching an engine elsewhere: over TLS, or in plain text where somebody has said that this is meant.

use std::net::IpAddr;
use std::path::PathBuf;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::connection::words;
use crate::tls::{self, PairFiles};

/// How an engine proves who it is, and this agent who it is. Read anew for each connection to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineTls {
    /// The authority that the engine's certificate must be of; no other is trusted.
    pub authority: PathBuf,
    /// The certificate that is shown to the engine, and its key.
    pub own: Option<PairFiles>,
}

/// A client for `host:port` over TLS.
pub(super) fn over_tls(place: &str, files: &EngineTls, seconds: u64) -> Result<Docker, String> {
    let config = tls::client(&files.authority, files.own.as_ref()).map_err(|error| error.to_string())?;
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    // Streams of events and logs have connections of their own; an engine ends idle ones when it likes.
    let client =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(HttpsConnector::from((plain, config)));
    let transport = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { answer.await.map_err(Error::from) }
    };
    let address = format!("https://{place}");
    let made = Docker::connect_with_custom_transport(transport, Some(address), seconds, API_DEFAULT_VERSION);
    made.map_err(|error| words(&error))
}

/// A client for `host:port` in plain text. To another machine only when that is meant.
pub(super) fn plain(place: &str, insecure: bool, seconds: u64) -> Result<Docker, String> {
    may_be_plain(place, insecure)?;
    let made = Docker::connect_with_http(&format!("http://{place}"), seconds, API_DEFAULT_VERSION);
    made.map_err(|error| words(&error))
}

/// Refuses plain text to another machine that nobody has meant.
pub(super) fn may_be_plain(place: &str, insecure: bool) -> Result<(), String> {
    match insecure || is_this_machine(place) {
        true => Ok(()),
        false => Err(
            "whoever is on the way would have that engine, and with it its machine: set `docker.tls`, or `docker.insecure: true` for a network that you trust"
                .to_owned(),
        ),
    }
}

/// Whether `host:port` is on the loopback.
fn is_this_machine(place: &str) -> bool {
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_to_another_machine_must_be_meant() {
        for (place, insecure, well) in [
            ("127.0.0.1:2375", false, true),
            ("[::1]:2375", false, true),
            ("localhost:2375", false, true),
            ("10.0.0.7:2375", false, false),
            ("engine.example.com:2375", false, false),
            ("127.0.0.1.example.com:2375", false, false),
            ("10.0.0.7:2375", true, true),
        ] {
            assert_eq!(plain(place, insecure, 1).is_ok(), well, "{place} {insecure}");
        }
    }
}
