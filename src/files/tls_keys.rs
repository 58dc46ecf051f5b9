//! `proxy.tls`: where HTTPS is served, and where its certificates come from.
//!
//! Keys, checks and values. Where an ACME directory implies another one (its staging), that is derived here.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::keys::{Default, Key, Kind, Table};
use super::reader::Reader;
use super::record::{Record, Value};
use super::{forms, notifications};
use crate::tls::PairFiles;

/// Let's Encrypt, where certificates come from unless another place is named.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Its staging: certificates nobody trusts, and limits nobody reaches.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Most addresses, files or names of one list.
const MAX_LIST: usize = 256;

/// HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Addresses.
    pub listen: Vec<SocketAddr>,
    /// Certificates from files.
    pub certificates: Vec<PairFiles>,
    /// Certificates from a certificate authority.
    pub acme: Option<AcmeConfig>,
    /// Whether plain HTTP is sent to HTTPS, for hosts that have a certificate.
    pub redirect: bool,
}

/// A certificate authority that speaks ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// Its directory.
    pub directory: String,
    /// Where an order is tried out first.
    pub staging: Option<String>,
    /// Who is written to when something is wrong with an account or certificate.
    pub email: Option<String>,
    /// Trusted beside what the machine trusts, for an authority of one's own.
    pub ca_file: Option<PathBuf>,
    /// Only these hosts, exact or `*.example.com`; empty is all hosts of apps.
    pub hosts: Vec<String>,
}

pub(super) const TLS: Key = Key {
    name: "tls",
    kind: Kind::Table(&TABLE),
    default: Default::Nothing("no HTTPS"),
    doc: "HTTPS; see docs/tls.md.",
};

static TABLE: Table = Table {
    what: "HTTPS",
    place: "proxy.tls",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::List(&Kind::Text(&forms::ADDRESS), MAX_LIST),
            default: Default::Required,
            doc: "Addresses that HTTPS comes in at.",
        },
        Key {
            name: "certificates",
            kind: Kind::Tables(&CERTIFICATE, MAX_LIST),
            default: Default::Empty,
            doc: "Certificates from files. They serve the hosts they name, and are read again when they change.",
        },
        Key {
            name: "acme",
            kind: Kind::Table(&ACME),
            default: Default::Nothing("only the certificates from files"),
            doc: "Asks a certificate authority for certificates of all hosts that no file covers, and renews them.",
        },
        Key {
            name: "redirect",
            kind: Kind::Bool,
            default: Default::Bool(true),
            doc: "Whether requests over plain HTTP are sent to HTTPS, for hosts that have a certificate.",
        },
    ],
};

static CERTIFICATE: Table = Table {
    what: "a certificate",
    place: "proxy.tls.certificates[]",
    keys: &[
        Key {
            name: "certificate_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Required,
            doc: "The chain in PEM, the host's own certificate first.",
        },
        Key {
            name: "key_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("in the same file"),
            doc: "Its private key in PEM, without a passphrase.",
        },
    ],
};

static ACME: Table = Table {
    what: "the certificate authority",
    place: "proxy.tls.acme",
    keys: &[
        Key {
            name: "accept_terms",
            kind: Kind::Bool,
            default: Default::Required,
            doc: "`true`: you have read the authority's terms of service and agree to them.",
        },
        Key {
            name: "directory",
            kind: Kind::Text(&forms::WEB_URL),
            default: Default::Text(LETS_ENCRYPT),
            doc: "The authority's ACME directory (RFC 8555); by default Let's Encrypt.",
        },
        Key {
            name: "staging",
            kind: Kind::Text(&forms::WEB_URL),
            default: Default::Nothing("Let's Encrypt's staging for Let's Encrypt, else none"),
            doc: "A directory at which the first order of a host is tried out, so that a wrong DNS entry does not use up the authority's limits.",
        },
        Key {
            name: "email",
            kind: Kind::Text(&notifications::MAIL_ADDRESS),
            default: Default::Nothing("nobody"),
            doc: "Whom the authority may write to.",
        },
        Key {
            name: "ca_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("what the machine trusts"),
            doc: "Certificates in PEM that the directory's own server is trusted by, for an authority of one's own.",
        },
        Key {
            name: "hosts",
            kind: Kind::List(&Kind::Text(&forms::HOST), MAX_LIST),
            default: Default::Empty,
            doc: "Only for these hosts (`shop.example.com`, `*.example.com`); without it for every host that an app names and the URLs by name below `proxy.domain`.",
        },
    ],
};

/// What no key can know for itself.
pub(super) fn check(reader: &mut Reader<'_>, proxy: &Record) {
    let Some(tls) = proxy.record("tls") else { return };
    if let Some(entry) = tls.entry("listen") {
        if matches!(&entry.value, Value::List(items) if items.is_empty()) {
            reader.error(
                &entry.place,
                "proxy.tls.listen",
                "`proxy.tls.listen` is empty",
                Some("write for example `listen: [\"0.0.0.0:443\"]`"),
            );
        }
        let plain = proxy.texts("listen");
        for address in tls.texts("listen").iter().filter(|address| plain.contains(address)) {
            let message = format!("{address} stands in `proxy.listen` too; one address speaks either HTTP or HTTPS");
            reader.error(&entry.place, "proxy.tls.listen", message, Some("use another port"));
        }
    }
    if tls.list("certificates").is_empty() && tls.record("acme").is_none() {
        let message = "`proxy.tls` has neither `certificates` nor `acme`, so there is no certificate to show";
        let hint =
            "write for example `certificates: [{certificate_file: …, key_file: …}]` or `acme: {accept_terms: true}`";
        let place = proxy.entry("tls").map(|entry| entry.place.clone());
        if let Some(place) = place {
            reader.error(&place, "proxy.tls", message, Some(hint));
        }
    }
    if let Some(acme) = tls.record("acme")
        && acme.bool("accept_terms") == Some(false)
        && let Some(entry) = acme.entry("accept_terms")
    {
        let message = "no certificates can be had without agreeing to the authority's terms of service";
        reader.error(
            &entry.place,
            "proxy.tls.acme.accept_terms",
            message,
            Some("read them and write `true`, or leave `acme` out"),
        );
    }
}

/// From a record without mistakes.
pub(super) fn build(proxy: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<Option<TlsConfig>> {
    let Some(tls) = proxy.record("tls") else { return Some(None) };
    let certificate = |record: &Record| {
        let certificate = resolve(record.text("certificate_file")?);
        let key = record.text("key_file").map_or_else(|| certificate.clone(), resolve);
        Some(PairFiles { certificate, key })
    };
    let acme = match tls.record("acme") {
        Some(acme) => {
            let directory = acme.text("directory")?.to_owned();
            let implied = (directory == LETS_ENCRYPT).then(|| LETS_ENCRYPT_STAGING.to_owned());
            Some(AcmeConfig {
                staging: acme.text("staging").map(str::to_owned).or(implied),
                directory,
                email: acme.text("email").map(str::to_owned),
                ca_file: acme.text("ca_file").map(resolve),
                hosts: acme.texts("hosts").into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            })
        }
        None => None,
    };
    Some(Some(TlsConfig {
        listen: tls.texts("listen").iter().map(|text| text.parse().ok()).collect::<Option<_>>()?,
        certificates: tls
            .list("certificates")
            .iter()
            .map(|entry| certificate(entry.record()?))
            .collect::<Option<_>>()?,
        acme,
        redirect: tls.bool("redirect")?,
    }))
}
