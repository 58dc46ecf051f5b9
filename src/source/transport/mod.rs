//! How libgit2 reaches other machines: our own transports under its protocol code.
//!
//! libgit2's own ones wait without an end and want OpenSSL. These obey the look's deadline and cancellation in
//! every step, name resolution included, and speak TLS through rustls. libgit2 calls a transport on the thread
//! that started the fetch, so the limits of a look reach its transports through a thread-local.
//!
//! Invariant: no call into the network outlives the deadline of the look it serves.

mod http;
mod reach;
mod refusal;
mod ssh;
mod tcp;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use git2::transport::Transport;
use git2::{ErrorClass, ErrorCode, Remote};
use tokio::runtime::Runtime;

use super::LookLimits;
use super::credentials::{self, Login};
use super::error::{SourceErrorKind, Trouble};
use crate::files::ssh_url;

pub(crate) use reach::Reach;

/// The URL schemes served here.
pub(crate) const SCHEMES: [&str; 4] = ["http", "https", "git", "ssh"];

/// How soon a cancellation is noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// What the transports of one look share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    limits: LookLimits,
    reach: Arc<Reach>,
    /// The logins read in this look, by their number: a password command runs once, not once a request.
    logins: Arc<Mutex<HashMap<usize, Login>>>,
    /// What really went wrong: on its way through C an error keeps only its text.
    failure: Arc<Mutex<Option<Trouble>>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Runs `work`, whose transports obey `limits` and reach remotes as `reach` says; their failure wins over what
/// libgit2 makes of it.
pub(crate) fn within<T>(
    limits: &LookLimits,
    reach: &Arc<Reach>,
    work: impl FnOnce() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let (logins, failure) = Default::default();
    let context = Context { limits: limits.clone(), reach: Arc::clone(reach), logins, failure };
    let before = CURRENT.with(|current| current.replace(Some(context.clone())));
    let result = work();
    CURRENT.with(|current| current.replace(before));
    result.map_err(|trouble| context.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(trouble))
}

/// Makes the transport for one remote. libgit2 calls it.
pub(crate) fn create(remote: &Remote<'_>) -> Result<Transport, git2::Error> {
    let context = CURRENT.with(|current| current.borrow().clone());
    let context = context.ok_or_else(|| {
        git2::Error::new(ErrorCode::GenericError, ErrorClass::Net, "a remote was reached for outside of a look")
    })?;
    let url = remote.url()?;
    if url.starts_with("git://") {
        Transport::smart(remote, false, tcp::TcpTransport::new(context))
    } else if ssh_url::is_ssh(url) {
        Transport::smart(remote, false, ssh::SshTransport::new(context))
    } else {
        Transport::smart(remote, true, http::HttpTransport::new(context))
    }
}

impl Context {
    /// The login for `url`, if one is configured for where it points to.
    fn login(&self, url: &reqwest::Url) -> Result<Option<Login>, Trouble> {
        let Some((number, configured)) = self.reach.credentials(url) else { return Ok(None) };
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(login) = logins.get(&number) {
            return Ok(Some(login.clone()));
        }
        let login = credentials::login(configured, &self.limits)?;
        logins.insert(number, login.clone());
        Ok(Some(login))
    }

    /// Remembers `trouble` and gives libgit2 something to carry.
    fn fail(&self, trouble: Trouble) -> std::io::Error {
        let text = trouble.what.replace('\0', " ");
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(trouble);
        std::io::Error::other(text)
    }

    fn fail_git(&self, trouble: Trouble) -> git2::Error {
        let error = self.fail(trouble);
        git2::Error::new(ErrorCode::GenericError, ErrorClass::Net, error.to_string())
    }

    /// A connection to a server; name resolution included.
    fn connect(&self, host: &str, port: u16) -> Result<tokio::net::TcpStream, Trouble> {
        let during = format!("connecting to {host}:{port}");
        let unreachable = |error: std::io::Error| {
            let mend = "check the host name, that the server is up, and that it is reachable from this machine";
            Trouble::new(SourceErrorKind::Network, format!("{during}: {error}"), mend)
        };
        let stream = self.wait(&during, tokio::net::TcpStream::connect((host, port)))?.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    /// Waits for `future`, at most until the deadline or a cancellation.
    fn wait<T>(&self, during: &str, future: impl Future<Output = T>) -> Result<T, Trouble> {
        self.limits.check(during)?;
        let deadline = tokio::time::Instant::from_std(self.limits.deadline);
        let cancelled = async {
            while !self.limits.cancel.load(std::sync::atomic::Ordering::Relaxed) {
                tokio::time::sleep(NOTICE).await;
            }
        };
        runtime()?.block_on(async {
            tokio::select! {
                result = tokio::time::timeout_at(deadline, future) => result.map_err(|_| Trouble::timeout(during)),
                () = cancelled => Err(Trouble::cancelled()),
            }
        })
    }
}

/// The runtime all network steps of all sources run on. One thread: it waits, it does not work.
fn runtime() -> Result<&'static Runtime, Trouble> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(8)
                .thread_name("source-net")
                .enable_all()
                .build()
                .map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| Trouble::new(SourceErrorKind::Network, error.clone(), "the network threads could not start"))
}

/// `url` without user name and password, fit for messages.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_never_show_credentials() {
        assert_eq!(without_credentials("https://bot:s3cret@example.com/a.git"), "https://example.com/a.git");
        assert_eq!(without_credentials("https://example.com/a@b.git"), "https://example.com/a@b.git");
        assert_eq!(without_credentials("git://u@h"), "git://h");
    }
}
