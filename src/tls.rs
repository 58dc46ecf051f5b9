//! Certificates and their keys: PEM text in, what a TLS server needs out, with everything checked that can be.
//!
//! Floor 0, because the API, the proxy and the engine all read certificates and must find the same faults in them.
//! Nothing here does I/O but [`read`] and [`PairFiles`], and nothing keeps anything.
//!
//! Invariant: a [`Pair`] is usable: there is a chain, the key belongs to its first certificate, and that names hosts.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest file that is read: far above every chain.
const LONGEST: u64 = 1024 * 1024;

/// Why a certificate and key cannot be used. The message names the file and the mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{path}: {error}; it must be readable by the user the agent runs as")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is far too long to be one.
    #[error("{path}: has {length} bytes; a certificate chain in PEM has a few thousand")]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// There is no certificate in the file.
    #[error("{origin}: no certificate in it; it must hold `-----BEGIN CERTIFICATE-----` blocks, the host's own first")]
    NoCertificate {
        /// Where it comes from.
        origin: String,
    },
    /// There is no key in the file.
    #[error(
        "{origin}: no private key in it; it must hold one `-----BEGIN PRIVATE KEY-----` block without a passphrase"
    )]
    NoKey {
        /// Where it comes from.
        origin: String,
    },
    /// The text is damaged.
    #[error("{origin}: {reason}")]
    Damaged {
        /// Where it comes from.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// Key and certificate are not of one pair.
    #[error(
        "{origin}: the key is not the one of the first certificate; name the key that belongs to it, and put the host's certificate first"
    )]
    Mismatch {
        /// Where they come from.
        origin: String,
    },
    /// The certificate names no host.
    #[error(
        "{origin}: the certificate names no host; browsers look only at its subject alternative names, so it must have some"
    )]
    NoNames {
        /// Where it comes from.
        origin: String,
    },
}

/// A chain of certificates with the key of the first.
#[derive(Clone)]
pub struct Pair {
    /// For a TLS server.
    pub key: Arc<CertifiedKey>,
    /// Of the first certificate: host names in lower case, `*.example.com` for a wildcard, addresses as text.
    pub names: Vec<String>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// The last moment it is valid.
    pub not_after: Timestamp,
    /// Who issued it, as people read it.
    pub issuer: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("names", &self.names).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Pair {
    /// Whether it is for this host, by an exact name or a wildcard for its first label.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| covers(name, host))
    }
}

/// Whether a name of a certificate is for this host (RFC 6125: a wildcard stands for exactly one whole label).
pub fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == host,
    }
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The chain, the host's own certificate first.
    pub certificate: PathBuf,
    /// The key; may be the same file.
    pub key: PathBuf,
}

/// What tells one state of such files from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Option<FileStamp>, Option<FileStamp>);

/// Inode, length, seconds and nanoseconds of the last change.
type FileStamp = (u64, u64, i64, i64);

impl PairFiles {
    /// Their state now.
    pub fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let about = fs::metadata(path).ok()?;
            Some((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
        };
        Stamp(of(&self.certificate), of(&self.key))
    }

    /// Reads the pair; with it, its text as one file.
    pub fn read(&self) -> Result<(Pair, Vec<u8>), TlsError> {
        let is_one = self.certificate == self.key;
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let origin = if is_one { certificate.to_string() } else { format!("{certificate} with {key}") };
        let mut whole = text(&self.certificate)?;
        let key_text = if is_one { whole.clone() } else { text(&self.key)? };
        let pair = pair(&origin, &whole, &key_text).map_err(|error| match error {
            TlsError::NoCertificate { .. } => TlsError::NoCertificate { origin: certificate.to_string() },
            TlsError::NoKey { .. } => TlsError::NoKey { origin: key.to_string() },
            other => other,
        })?;
        if !is_one {
            whole.push(b'\n');
            whole.extend(key_text);
        }
        Ok((pair, whole))
    }
}

/// Reads a pair from one file.
pub fn read(file: &Path) -> Result<Pair, TlsError> {
    let files = PairFiles { certificate: file.to_owned(), key: file.to_owned() };
    files.read().map(|(pair, _)| pair)
}

fn text(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::Read { path: path.to_owned(), error };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > LONGEST {
        return Err(TlsError::TooLong { path: path.to_owned(), length });
    }
    fs::read(path).map_err(failed)
}

/// A pair from PEM text. `origin` is where it comes from, for messages.
pub fn pair(origin: &str, chain: &[u8], key: &[u8]) -> Result<Pair, TlsError> {
    let damaged = |reason: String| TlsError::Damaged { origin: origin.to_owned(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(format!("the PEM text is damaged ({error})")))?;
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate { origin: origin.to_owned() })?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => TlsError::NoKey { origin: origin.to_owned() },
        other => damaged(format!("the PEM text of the key is damaged ({other})")),
    })?;
    let facts = facts(first).map_err(&damaged)?;
    if facts.names.is_empty() {
        return Err(TlsError::NoNames { origin: origin.to_owned() });
    }
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { origin: origin.to_owned() },
        other => damaged(format!("the key cannot be used ({other})")),
    })?;
    Ok(Pair {
        key: Arc::new(key),
        names: facts.names,
        not_before: facts.not_before,
        not_after: facts.not_after,
        issuer: facts.issuer,
    })
}

/// A certificate and key that answer a challenge: made here, and with a critical extension (RFC 8737) that whoever checks a pair
/// must refuse, so they are not checked.
pub fn challenge(host: &str, pem: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let damaged = |reason: String| TlsError::Damaged { origin: host.to_owned(), reason };
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|error| damaged(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| damaged(error.to_string()))?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| damaged(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

struct Facts {
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: String,
}

fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("the first certificate is damaged ({error})"))?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.trim_end_matches('.').to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|address| address.to_string())),
                _ => {}
            }
        }
    }
    let time = |seconds: i64| {
        Timestamp::from_second(seconds).map_err(|_| "the first certificate is valid at impossible times".to_owned())
    };
    let issuer = parsed.issuer();
    let issuer = [issuer.iter_organization().next(), issuer.iter_common_name().next()]
        .into_iter()
        .flatten()
        .filter_map(|attribute| attribute.as_str().ok())
        .collect::<Vec<_>>()
        .join(", ");
    Ok(Facts {
        names,
        not_before: time(parsed.validity().not_before.timestamp())?,
        not_after: time(parsed.validity().not_after.timestamp())?,
        issuer: if issuer.is_empty() { "unnamed".to_owned() } else { issuer },
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A client that trusts one authority alone, and shows a certificate of its own where it has one.
pub fn client(authority: &Path, own: Option<&PairFiles>) -> Result<ClientConfig, TlsError> {
    let damaged = |path: &Path, reason: String| TlsError::Damaged { origin: path.display().to_string(), reason };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text(path)?).collect();
        let all = all.map_err(|error| damaged(path, format!("the PEM text is damaged ({error})")))?;
        match all.is_empty() {
            true => Err(TlsError::NoCertificate { origin: path.display().to_string() }),
            false => Ok(all),
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        let added = roots.add(certificate);
        added.map_err(|error| damaged(authority, format!("a certificate cannot be used ({error})")))?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| damaged(authority, error.to_string()))?
        .with_root_certificates(roots);
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(&text(&own.key)?);
    let key = key.map_err(|error| damaged(&own.key, format!("the PEM text of the key is damaged ({error})")))?;
    let config = builder.with_client_auth_cert(certificates(&own.certificate)?, key);
    config.map_err(|error| damaged(&own.certificate, format!("it cannot be used with its key ({error})")))
}

/// The cryptography everything here uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server that shows one pair to everybody: TLS 1.2 and 1.3. `protocols` are those offered by ALPN, best first.
pub fn server(pair: &Pair, protocols: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from((*pair.key).clone())));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn read_pair(chain: &str, key: &str) -> Result<Pair, String> {
        pair("here", chain.as_bytes(), key.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pair_tells_its_names_and_times() {
        let (chain, key) = made(&["Shop.example.com", "*.apps.example.com", "192.0.2.7"]);
        let pair = read_pair(&chain, &key).unwrap();
        assert_eq!(pair.names, ["shop.example.com", "*.apps.example.com", "192.0.2.7"]);
        assert!(pair.not_before < pair.not_after);
        for (host, covered) in [
            ("shop.example.com", true),
            ("a.apps.example.com", true),
            ("a.b.apps.example.com", false),
            ("apps.example.com", false),
            (".apps.example.com", false),
            ("other.example.com", false),
        ] {
            assert_eq!(pair.covers(host), covered, "{host}");
        }
        assert_eq!(server(&pair, &[b"h2", b"http/1.1"]).unwrap().alpn_protocols.len(), 2);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let (chain, key) = made(&["a.example.com"]);
        let (_, other_key) = made(&["a.example.com"]);
        let nameless = made(&[]);
        let cut = &chain[..chain.len() / 2];
        for (chain, key, expected) in [
            ("", key.as_str(), "here: no certificate in it"),
            (key.as_str(), key.as_str(), "here: no certificate in it"),
            (chain.as_str(), "", "here: no private key in it"),
            (chain.as_str(), chain.as_str(), "here: no private key in it"),
            (chain.as_str(), other_key.as_str(), "here: the key is not the one of the first certificate"),
            (nameless.0.as_str(), nameless.1.as_str(), "here: the certificate names no host"),
            (cut, key.as_str(), "here: the PEM text is damaged"),
        ] {
            let error = read_pair(chain, key).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = made(&["a.example.com"]);
        let (chain_file, key_file) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        let files = PairFiles { certificate: chain_file.clone(), key: key_file.clone() };
        let read_both = || files.read();
        fs::write(&chain_file, &chain).unwrap();
        let error = read_both().unwrap_err().to_string();
        assert!(error.starts_with(&key_file.display().to_string()), "{error}");
        fs::write(&key_file, "").unwrap();
        let error = read_both().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: no private key", key_file.display())), "{error}");
        fs::write(&key_file, key).unwrap();
        assert_eq!(read_both().unwrap().0.names, ["a.example.com"]);
        let both = directory.path().join("both.pem");
        fs::write(&both, [fs::read(&chain_file).unwrap(), fs::read(&key_file).unwrap()].concat()).unwrap();
        assert_eq!(read(&both).unwrap().names, ["a.example.com"]);
    }
}
