//! How the remotes of one source are reached: which login and which key goes where, and whose certificates are trusted.
//!
//! Owned by the source's `RemoteRepository`, shared with the transports of its looks. Proxies come from the
//! environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`). Invariant: credentials are bound to an origin.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use reqwest::{Certificate, Client, ClientBuilder, Url};

use super::super::error::{SourceErrorKind, Trouble};
use super::refusal::chain;
use crate::files::config::{Credentials, GitSource, SshConfig};
use crate::files::ssh_url::{self, SshAddress};

/// Servers tell git clients by this beginning.
const USER_AGENT: &str = concat!("git/2.0 (landfall ", env!("CARGO_PKG_VERSION"), ")");

/// A larger bundle than all authorities of the world is a mistake.
const MAX_BUNDLE: u64 = 4 * 1024 * 1024;

/// How the remotes of one source are reached.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    logins: Vec<(Place, Credentials)>,
    /// The key for ssh, and the one server it is shown to.
    ssh: Option<(String, u16, SshConfig)>,
    ca_file: Option<PathBuf>,
    /// The client for the bundle read last: a changed file makes a new one.
    own: Mutex<Option<(Vec<u8>, Client)>>,
}

/// Where credentials may go: scheme, host, port.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Place {
    fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default(),
        })
    }
}

impl Reach {
    pub(crate) fn new(git: &GitSource) -> Self {
        let source = Url::parse(&git.url).ok();
        let own = source.as_ref().and_then(Place::of).zip(git.credentials.clone());
        // A `.gitmodules` that says `http://` must not make a password travel in plain text, unless the source itself
        // is read that way.
        let scheme = source.as_ref().map_or("https", |url| if url.scheme() == "http" { "http" } else { "https" });
        let others = git.submodule_credentials.iter().flat_map(|entry| {
            let places = ["https", scheme].into_iter().filter_map(|scheme| {
                Url::parse(&format!("{scheme}://{}/", entry.host)).ok().as_ref().and_then(Place::of)
            });
            places.map(|place| (place, entry.credentials.clone())).collect::<Vec<_>>()
        });
        let address = SshAddress::parse(&git.url).ok().filter(|_| ssh_url::is_ssh(&git.url));
        Self {
            logins: own.into_iter().chain(others).collect(),
            ssh: address.zip(git.ssh.clone()).map(|(address, config)| (address.host, address.port, config)),
            ca_file: git.ca_file.clone(),
            own: Mutex::default(),
        }
    }

    /// How to sign in at `address`. A `.gitmodules` that names another server does not get this source's key used there.
    pub(crate) fn ssh(&self, address: &SshAddress) -> Option<&SshConfig> {
        let (host, port, config) = self.ssh.as_ref()?;
        (*host == address.host && *port == address.port).then_some(config)
    }

    /// The credentials for `url`, with the number by which a look remembers what it read for them.
    pub(crate) fn credentials(&self, url: &Url) -> Option<(usize, &Credentials)> {
        let place = Place::of(url)?;
        let found = self.logins.iter().enumerate().find(|(_, (there, _))| *there == place);
        found.map(|(number, (_, credentials))| (number, credentials))
    }

    /// The client to ask with.
    pub(super) fn client(&self) -> Result<Client, Trouble> {
        let Some(path) = &self.ca_file else { return common().cloned() };
        let bundle = read(path)?;
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_before, client)) = own.as_ref()
            && *read_before == bundle
        {
            return Ok(client.clone());
        }
        let unusable = |error: reqwest::Error| not_trusted(path, &chain(&error));
        let authorities = Certificate::from_pem_bundle(&bundle).map_err(unusable)?;
        if authorities.is_empty() {
            return Err(not_trusted(path, "it holds no certificate"));
        }
        let client = builder().tls_certs_only(authorities).build().map_err(unusable)?;
        *own = Some((bundle, client.clone()));
        Ok(client)
    }
}

fn not_trusted(path: &Path, why: &str) -> Trouble {
    Trouble::new(
        SourceErrorKind::Tls,
        format!("the authorities in {} cannot be used: {why}", path.display()),
        "put the certificate of the authority there, in PEM form, readable by the agent's user",
    )
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    let failed = |error: std::io::Error| not_trusted(path, &error.to_string());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BUNDLE {
        return Err(not_trusted(path, "it is too long for a bundle of certificates"));
    }
    std::fs::read(path).map_err(failed)
}

/// Redirects are followed by the transport itself, which knows what a login is bound to.
fn builder() -> ClientBuilder {
    // Already installed by somebody else in this process is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().user_agent(USER_AGENT).redirect(reqwest::redirect::Policy::none())
}

/// The client of all sources that trust what the machine trusts.
fn common() -> Result<&'static Client, Trouble> {
    static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
    CLIENT.get_or_init(|| builder().build().map_err(|error| chain(&error))).as_ref().map_err(|error| {
        let mend = "check the proxy variables, and that this machine has certificates of authorities";
        Trouble::new(SourceErrorKind::Tls, error.clone(), mend)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::{HostCredentials, PasswordFrom};

    fn reach(url: &str, host: &str) -> Reach {
        let named = |name: &str| Credentials {
            username: name.to_owned(),
            password: PasswordFrom::Environment("NOTHING".to_owned()),
        };
        Reach::new(&GitSource {
            credentials: Some(named("source")),
            submodule_credentials: vec![HostCredentials { host: host.to_owned(), credentials: named("other") }],
            ..GitSource::at(url)
        })
    }

    #[test]
    fn credentials_go_to_the_scheme_host_and_port_they_are_for() {
        let reach = reach("https://git.example.com/a.git", "other.example.com:8443");
        let who = |url: &str| {
            let found = reach.credentials(&Url::parse(url).unwrap());
            found.map(|(_, credentials)| credentials.username.as_str().to_owned())
        };
        assert_eq!(who("https://git.example.com/b.git").as_deref(), Some("source"));
        assert_eq!(who("https://git.example.com:443/").as_deref(), Some("source"));
        assert_eq!(who("https://other.example.com:8443/x").as_deref(), Some("other"));
        for foreign in [
            "http://git.example.com/a.git",
            "https://git.example.com:8443/a.git",
            "https://git.example.com.evil.example/a.git",
            "https://example.com/a.git",
            "https://other.example.com/x",
            "http://other.example.com:8443/x",
        ] {
            assert_eq!(who(foreign), None, "{foreign}");
        }
    }
}
