//! HTTPS: which certificate a client is shown, and what plain HTTP does for certificates.
//!
//! Made by `mod.rs`, kept up to date by `link.rs`, asked by `connection.rs` (handshakes) and `forward.rs` (challenges, the way
//! to HTTPS). The certificates lie in `<data_dir>/certificates`, one file each, written whole by the controller; a proxy that
//! starts without a controller therefore has them too.
//!
//! Invariants: a certificate that cannot be used takes no other down; a host without a certificate gets a failed handshake,
//! never another host's certificate; challenges are answered to everybody who asks, as their protocol wants it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode, Uri};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use crate::tls;
use crate::wire::proxy::{ACME_PATH, Challenge, ChallengeKind, TlsOptions};

/// What clients that validate a host ask for (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a connection in TLS speaks inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1, also when the client did not say.
    Http1,
    /// HTTP/2.
    Http2,
    /// Nothing: the handshake was all the client wanted.
    Nothing,
}

/// Everything of HTTPS that the threads share.
pub struct Tls {
    directory: PathBuf,
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    options: ArcSwap<TlsOptions>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Tls {
    /// With the certificates that lie in the directory now.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        let shown = Arc::new(Shown::default());
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = [HTTP2, HTTP1, ACME_TLS].map(<[u8]>::to_vec).to_vec();
        let tls = Self {
            directory,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            shown,
            options: ArcSwap::from_pointee(TlsOptions::default()),
        };
        tls.look();
        Ok(tls)
    }

    /// Takes over what the controller says. Certificates are read again if it says that they have changed.
    pub fn set(&self, options: TlsOptions) {
        let before = self.options.load();
        if before.certificates != options.certificates {
            self.look();
        }
        if before.challenges != options.challenges {
            self.shown.challenges.store(Arc::new(challenge_certificates(&options.challenges)));
        }
        self.options.store(Arc::new(options));
    }

    fn look(&self) {
        match read_all(&self.directory) {
            Ok(certificates) => self.shown.certificates.store(Arc::new(certificates)),
            Err(error) => {
                warn!(directory = %self.directory.display(), %error, "the certificates cannot be read; those read before stay in use");
            }
        }
    }

    /// The handshake of a client.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Inside)> {
        let stream = self.acceptor.accept(stream).await?;
        let inside = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Inside::Http2,
            Some(ACME_TLS) => Inside::Nothing,
            Some(_) | None => Inside::Http1,
        };
        Ok((stream, inside))
    }

    /// What a request over plain HTTP gets instead of an answer by its app: the answer to a challenge, or the way to HTTPS.
    /// The word is for the access log.
    pub fn instead(&self, host: &str, uri: &Uri) -> Option<(&'static str, Response<Bytes>)> {
        let options = self.options.load();
        let host = bare(host);
        if let Some(token) = uri.path().strip_prefix(ACME_PATH) {
            let answer = options.challenges.iter().find(|challenge| {
                challenge.kind == ChallengeKind::Http
                    && challenge.token == token
                    && challenge.host.eq_ignore_ascii_case(host)
            })?;
            let mut response = Response::new(Bytes::from(answer.answer.clone()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return Some(("acme_challenge", response));
        }
        let port = options.redirect?;
        self.shown.certificates.load().find(host)?;
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        let location = match port {
            443 => format!("https://{host}{target}"),
            port => format!("https://{host}:{port}{target}"),
        };
        let mut response = Response::new(Bytes::new());
        // 308: the method stays, and so does a POST.
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, HeaderValue::from_maybe_shared(Bytes::from(location)).ok()?);
        Some(("https", response))
    }
}

/// A host without its port and the dot at its end.
fn bare(host: &str) -> &str {
    let end = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => colon,
        Some(_) | None => host.len(),
    };
    host[..end].trim_end_matches('.')
}

/// What clients are shown.
#[derive(Debug, Default)]
struct Shown {
    certificates: ArcSwap<Certificates>,
    challenges: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.trim_end_matches('.');
        // A validating client offers this protocol and no other.
        if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS)) {
            return self.challenges.load().get(&host.to_ascii_lowercase()).cloned();
        }
        self.certificates.load().find(host)
    }
}

/// Certificates by the names they are for.
#[derive(Debug, Default)]
struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        let by_wildcard = || {
            let (label, rest) = host.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(rest) }
        };
        self.exact.get(host).or_else(by_wildcard).cloned()
    }
}

/// Reads every certificate of the directory. Of two for one name the one that is valid longer is taken.
fn read_all(directory: &Path) -> io::Result<Certificates> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Certificates::default()),
        Err(error) => return Err(error),
    };
    let mut pairs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "pem") {
            continue;
        }
        match tls::read(&path) {
            Ok(pair) => pairs.push(pair),
            // The controller wrote it after a look at it, so this is damage; the others serve all the same.
            Err(error) => warn!("a certificate is left out: {error}"),
        }
    }
    pairs.sort_by_key(|pair| pair.not_after);
    let mut certificates = Certificates::default();
    for pair in pairs {
        for name in pair.names {
            match name.strip_prefix("*.") {
                Some(parent) => certificates.wildcard.insert(parent.to_owned(), Arc::clone(&pair.key)),
                None => certificates.exact.insert(name, Arc::clone(&pair.key)),
            };
        }
    }
    Ok(certificates)
}

fn challenge_certificates(challenges: &[Challenge]) -> HashMap<String, Arc<CertifiedKey>> {
    let mut certificates = HashMap::new();
    for challenge in challenges.iter().filter(|challenge| challenge.kind == ChallengeKind::Tls) {
        match tls::challenge(&challenge.host, challenge.answer.as_bytes()) {
            Ok(key) => drop(certificates.insert(challenge.host.to_ascii_lowercase(), key)),
            Err(error) => warn!("a challenge cannot be answered: {error}"),
        }
    }
    certificates
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(directory: &Path, file: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        fs::write(directory.join(file), certificate.pem() + &key.serialize_pem()).unwrap();
    }

    fn opened(directory: &Path) -> Tls {
        Tls::open(directory.to_owned()).unwrap()
    }

    fn location(tls: &Tls, host: &str, uri: &str) -> Option<String> {
        let (_, response) = tls.instead(host, &uri.parse().unwrap())?;
        Some(response.headers().get(LOCATION)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_damaged_certificate_takes_no_other_down() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.pem", &["a.example.com"]);
        write(directory.path(), "wild.pem", &["*.example.com"]);
        fs::write(directory.path().join("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        fs::write(directory.path().join("a.pem.tmp"), "half").unwrap();
        let tls = opened(directory.path());
        let certificates = tls.shown.certificates.load();
        let exact = certificates.find("A.example.com").unwrap();
        let wild = certificates.find("b.example.com").unwrap();
        assert!(!Arc::ptr_eq(&exact, &wild));
        assert!(certificates.find("example.com").is_none() && certificates.find("x.y.example.com").is_none());
    }

    #[test]
    fn plain_http_is_sent_to_https_where_there_is_a_certificate() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.pem", &["a.example.com"]);
        let tls = opened(directory.path());
        assert_eq!(location(&tls, "a.example.com", "/x?y=1"), None, "nobody asked for it yet");
        tls.set(TlsOptions { redirect: Some(443), ..TlsOptions::default() });
        assert_eq!(location(&tls, "a.example.com:80", "/x?y=1").as_deref(), Some("https://a.example.com/x?y=1"));
        assert_eq!(location(&tls, "b.example.com", "/"), None, "it would lead nowhere");
        tls.set(TlsOptions { redirect: Some(8443), ..TlsOptions::default() });
        assert_eq!(location(&tls, "A.example.com", "/").as_deref(), Some("https://A.example.com:8443/"));
    }

    #[test]
    fn a_challenge_is_answered_for_its_host_and_token_alone() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.pem", &["a.example.com"]);
        let tls = opened(directory.path());
        let challenge = Challenge {
            host: "a.example.com".to_owned(),
            kind: ChallengeKind::Http,
            token: "tok".to_owned(),
            answer: "tok.thumb".to_owned(),
        };
        tls.set(TlsOptions { redirect: Some(443), challenges: vec![challenge], certificates: 0 });
        let at = |host: &str, path: &str| tls.instead(host, &path.parse().unwrap());
        let (word, response) = at("a.example.com", "/.well-known/acme-challenge/tok").unwrap();
        assert_eq!(
            (word, response.status(), &response.body()[..]),
            ("acme_challenge", StatusCode::OK, &b"tok.thumb"[..])
        );
        assert!(at("a.example.com", "/.well-known/acme-challenge/other").is_none(), "the app may have one of its own");
        assert!(at("b.example.com", "/.well-known/acme-challenge/tok").is_none());
    }

    #[test]
    fn certificates_are_read_again_when_the_controller_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let tls = opened(&directory.path().join("certificates"));
        fs::create_dir(directory.path().join("certificates")).unwrap();
        write(&directory.path().join("certificates"), "a.pem", &["a.example.com"]);
        tls.set(TlsOptions::default());
        assert!(tls.shown.certificates.load().find("a.example.com").is_none());
        tls.set(TlsOptions { certificates: 1, ..TlsOptions::default() });
        assert!(tls.shown.certificates.load().find("a.example.com").is_some());
    }
}
