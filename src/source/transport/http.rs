//! `http(s)://`: the smart protocol, one request and one answer at a time.

use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, Response};

use super::super::error::{SourceErrorKind, Trouble};
use super::Context;
use super::refusal::{broken, chain, refused};

/// Redirects followed in one request.
const MAX_REDIRECTS: usize = 5;

/// Servers tell git clients by this beginning.
const USER_AGENT: &str = concat!("git/2.0 (landfall ", env!("CARGO_PKG_VERSION"), ")");

/// Makes the streams of an `http(s)://` remote.
pub(crate) struct HttpTransport {
    context: Context,
    /// Where the listing was really found; after a redirect the pack is asked for there too.
    base: Arc<Mutex<Option<String>>>,
}

impl HttpTransport {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, base: Arc::default() }
    }
}

impl SmartSubtransport for HttpTransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let state = match action {
            Service::UploadPackLs => State::List,
            Service::UploadPack => State::Asking(Vec::new()),
            Service::ReceivePackLs | Service::ReceivePack => {
                let mend = "push by other means";
                let trouble = Trouble::new(SourceErrorKind::Unsupported, "sources are only read", mend);
                return Err(self.context.fail_git(trouble));
            }
        };
        let url = url.trim_end_matches('/').to_owned();
        Ok(Box::new(Stream { context: self.context.clone(), base: self.base.clone(), url, state }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// ```text
/// List ──read──► Answering          (GET info/refs)
/// Asking ──read──► Answering        (POST git-upload-pack with all that was written)
/// ```
enum State {
    /// The listing has not been asked for yet.
    List,
    /// Collects the request.
    Asking(Vec<u8>),
    /// Hands out the answer as it comes.
    Answering(Box<Response>, Cursor<bytes::Bytes>),
}

struct Stream {
    context: Context,
    base: Arc<Mutex<Option<String>>>,
    url: String,
    state: State,
}

impl Stream {
    fn list(&self) -> Result<Response, Trouble> {
        let request = client()?
            .get(format!("{}/info/refs?service=git-upload-pack", self.url))
            .header(ACCEPT, "application/x-git-upload-pack-advertisement, */*");
        let response = self.send(request, "application/x-git-upload-pack-advertisement")?;
        let mut found = response.url().clone();
        found.set_query(None);
        if let Some(base) = found.as_str().strip_suffix("/info/refs") {
            *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base.to_owned());
        }
        Ok(response)
    }

    fn ask(&self, body: Vec<u8>) -> Result<Response, Trouble> {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let url = base.unwrap_or_else(|| self.url.clone());
        let request = client()?
            .post(format!("{url}/git-upload-pack"))
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .body(body);
        self.send(request, "application/x-git-upload-pack-result")
    }

    fn send(&self, request: RequestBuilder, wanted: &str) -> Result<Response, Trouble> {
        let response = self.context.wait("waiting for the server's answer", request.send())?.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, response.headers(), false));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("nothing");
        if kind.split(';').next().is_some_and(|kind| kind.trim() == wanted) {
            return Ok(response);
        }
        Err(Trouble::new(
            SourceErrorKind::NotFound,
            format!("the server answers with `{kind}`, not with git's smart protocol"),
            "check that the `url` is the one `git clone` takes, not that of a web page",
        ))
    }

    fn fill(&mut self) -> Result<(), Trouble> {
        let response = match &mut self.state {
            State::List => self.list()?,
            State::Asking(body) => {
                let body = std::mem::take(body);
                self.ask(body)?
            }
            State::Answering(response, rest) => {
                if let Some(more) =
                    self.context.wait("reading the server's answer", response.chunk())?.map_err(broken)?
                {
                    *rest = Cursor::new(more);
                }
                return Ok(());
            }
        };
        self.state = State::Answering(Box::new(response), Cursor::default());
        self.fill()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let State::Answering(_, rest) = &mut self.state {
            let count = rest.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
        }
        self.fill().map_err(|trouble| self.context.fail(trouble))?;
        match &mut self.state {
            State::Answering(_, rest) => rest.read(buffer),
            State::List | State::Asking(_) => Ok(0),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.state {
            State::Asking(body) => {
                body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            State::List | State::Answering(..) => Err(std::io::Error::other("nothing more can be asked here")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The client of all sources; proxies come from the environment.
fn client() -> Result<&'static Client, Trouble> {
    static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
    CLIENT
        .get_or_init(|| {
            // Already installed by somebody else in this process is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Client::builder().user_agent(USER_AGENT).redirect(same_host()).build().map_err(|error| chain(&error))
        })
        .as_ref()
        .map_err(|error| Trouble::new(SourceErrorKind::Network, error.clone(), "check the proxy variables"))
}

/// Follows redirects on one host, never from TLS to plain text: what was configured is what is trusted.
fn same_host() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let Some(first) = attempt.previous().first() else { return attempt.follow() };
        let next = attempt.url();
        let plainer = first.scheme() == "https" && next.scheme() != "https";
        if first.host_str() != next.host_str() || plainer || attempt.previous().len() > MAX_REDIRECTS {
            attempt.stop()
        } else {
            attempt.follow()
        }
    })
}
