//! What all receivers over HTTP have in common, collectors of traces too: one client, one request with a deadline, and how an
//! answer is judged.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, RequestBuilder};

use super::{Delivery, chain, shown};

/// A request without an answer after this long has failed.
const DEADLINE: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!("landfall/", env!("CARGO_PKG_VERSION"));
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// A client without redirects: what is sent goes to nobody but the address that was configured. Reads the file of
/// authorities, if there is one, and starts no connection.
pub(crate) fn client(ca_file: Option<&Path>) -> Result<Client, String> {
    // Already installed by somebody else in this process is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One connection a message: they are rare, and one that is kept could end just as it is used.
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .timeout(DEADLINE)
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(file) = ca_file {
        let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| chain(&error))
}

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The status code.
    pub status: u16,
    /// `401 Unauthorized`
    pub line: String,
    /// When the receiver asks to be asked again.
    pub after: Option<Duration>,
    /// The beginning of its body.
    pub body: String,
}

/// Sends a request; `Ok` if it was taken, else the refusal, or why there was no answer at all.
pub(crate) async fn send(request: RequestBuilder) -> Result<(), Result<Refusal, String>> {
    let mut response = request.send().await.map_err(|error| Err(chain(&error.without_url())))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let after = retry_after(response.headers());
    let mut body = Vec::new();
    while body.len() < MAX_ANSWER
        && let Ok(Some(piece)) = response.chunk().await
    {
        body.extend_from_slice(&piece);
    }
    body.truncate(MAX_ANSWER);
    let body = String::from_utf8_lossy(&body).into_owned();
    Err(Ok(Refusal { status: status.as_u16(), line: status.to_string(), after, body }))
}

/// Sends a message of a channel; `secrets` are taken out of what is said about it.
pub(super) async fn deliver(request: RequestBuilder, place: &str, secrets: &[&str]) -> Delivery {
    match send(request).await {
        Ok(()) => Delivery::Delivered,
        Err(Err(why)) => Delivery::Later { after: None, why: shown(&why, secrets) },
        Err(Ok(refusal)) => {
            let why = format!("{place} answers {}: {}", refusal.line, refusal.body);
            let why = shown(why.trim_end_matches([' ', ':']), secrets);
            match refusal.status {
                // What is wrong with this message will be wrong with it tomorrow.
                400 | 413 | 414 | 415 | 422 => Delivery::Never { why },
                _ => Delivery::Later { after: refusal.after, why },
            }
        }
    }
}

/// What a server asks for: `Retry-After` in seconds or as a date, or GitHub's own word for an exhausted allowance.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let until = |at: Timestamp| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    if let Some(value) = text(RETRY_AFTER.as_str()) {
        let seconds = value.trim().parse().ok().filter(|wait: &f64| wait.is_finite() && (0.0..1e9).contains(wait));
        return seconds
            .map(Duration::from_secs_f64)
            .or_else(|| Some(until(jiff::fmt::rfc2822::parse(value).ok()?.timestamp())));
    }
    if text("x-ratelimit-remaining") == Some("0") {
        let reset = text("x-ratelimit-reset")?.parse().ok()?;
        return Some(until(Timestamp::from_second(reset).ok()?));
    }
    None
}
