//! `http(s)://`: the smart protocol, one request and one answer at a time.
//!
//! Invariant: a login goes to the scheme, host and port it was configured for, and a redirect never takes it elsewhere.

use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{RequestBuilder, Response, Url};

use super::super::error::{SourceErrorKind, Trouble};
use super::Context;
use super::refusal::{broken, refused};

/// Redirects followed in one request.
const MAX_REDIRECTS: usize = 5;

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
        let mut url = parse(&format!("{}/info/refs?service=git-upload-pack", self.url))?;
        let client = self.context.reach.client()?;
        let mut hops = 0;
        let response = loop {
            let request = client.get(url.clone()).header(ACCEPT, "application/x-git-upload-pack-advertisement, */*");
            let (response, logged_in) = self.send(request, &url)?;
            match next_hop(&response, &url, logged_in) {
                Some(next) if hops < MAX_REDIRECTS => url = next,
                Some(_) | None => break accepted(response, logged_in, "application/x-git-upload-pack-advertisement")?,
            }
            hops += 1;
        };
        url.set_query(None);
        if let Some(base) = url.as_str().strip_suffix("/info/refs") {
            *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base.to_owned());
        }
        Ok(response)
    }

    fn ask(&self, body: Vec<u8>) -> Result<Response, Trouble> {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let url = parse(&format!("{}/git-upload-pack", base.unwrap_or_else(|| self.url.clone())))?;
        let client = self.context.reach.client()?;
        let request = client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .body(body);
        let (response, logged_in) = self.send(request, &url)?;
        accepted(response, logged_in, "application/x-git-upload-pack-result")
    }

    /// Sends a request, with a login if there is one for where it goes; says whether there was.
    fn send(&self, request: RequestBuilder, url: &Url) -> Result<(Response, bool), Trouble> {
        let login = self.context.login(url)?;
        let request = match &login {
            Some(login) => request.basic_auth(&login.username, Some(login.password.expose())),
            None => request,
        };
        let during = format!("waiting for an answer from {}", url.host_str().unwrap_or("the server"));
        let response = self.context.wait(&during, request.send())?.map_err(broken)?;
        Ok((response, login.is_some()))
    }

    fn fill(&mut self) -> Result<(), Trouble> {
        let (mut response, asked) = match &mut self.state {
            State::List => (self.list()?, false),
            State::Asking(body) => {
                let body = std::mem::take(body);
                (self.ask(body)?, true)
            }
            State::Answering(response, rest) => {
                *rest = Cursor::new(next_chunk(&self.context, response)?);
                return Ok(());
            }
        };
        let first = next_chunk(&self.context, &mut response)?;
        if let Some(trouble) = said_no(&first).filter(|_| asked) {
            return Err(trouble);
        }
        self.state = State::Answering(Box::new(response), Cursor::new(first));
        Ok(())
    }
}

/// What comes next of an answer; nothing at its end.
fn next_chunk(context: &Context, response: &mut Response) -> Result<bytes::Bytes, Trouble> {
    let chunk = context.wait("reading the server's answer", response.chunk())?;
    Ok(chunk.map_err(broken)?.unwrap_or_default())
}

/// The error that stands in an answer's first packet: libgit2 looks for a pack there and only says that it is none.
fn said_no(first: &[u8]) -> Option<Trouble> {
    let text = first.get(4..)?.strip_prefix(b"ERR ")?;
    let text = String::from_utf8_lossy(text);
    let line = text.lines().next().unwrap_or_default();
    Some(Trouble::remote_error(format!("remote error: {line}")))
}

/// The URL without user and password: whoever may log in is configured, and a submodule's URL is not.
fn parse(text: &str) -> Result<Url, Trouble> {
    let bad = || {
        let mend = "write https://HOST[:PORT]/PATH";
        Trouble::new(SourceErrorKind::Unsupported, "the URL is not understood", mend)
    };
    let mut url = Url::parse(text).map_err(|_| bad())?;
    url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| bad())?;
    Ok(url)
}

/// Where a redirect leads, if it is one to follow. With a login only to the same scheme, host and port; without one
/// also from plain text to TLS on the same host. What was configured is what is trusted.
fn next_hop(response: &Response, from: &Url, logged_in: bool) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    let target = response.headers().get(LOCATION)?.to_str().ok()?;
    let next = from.join(target).ok()?;
    let same_host = next.host() == from.host();
    let upgrade = same_host && from.scheme() == "http" && next.scheme() == "https";
    (next.origin() == from.origin() || (upgrade && !logged_in)).then_some(next)
}

fn accepted(response: Response, logged_in: bool, wanted: &str) -> Result<Response, Trouble> {
    let status = response.status();
    if !status.is_success() {
        return Err(refused(status, response.headers(), logged_in));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("nothing");
    if kind.split(';').next().is_some_and(|kind| kind.trim() == wanted) {
        return Ok(response);
    }
    Err(Trouble::new(
        SourceErrorKind::Protocol,
        format!("the server answers with `{kind}`, not with git's smart protocol"),
        "check that the `url` is the one `git clone` takes, not that of a web page",
    ))
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
