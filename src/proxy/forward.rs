//! One request's way: admitted, its headers prepared, sent to an instance, the answer passed back.
//!
//! Called by `connection.rs` for every request. Neighbours: `admit.rs`, `headers.rs`, `pool.rs`, `upgrade.rs`, `answer.rs`.
//!
//! A request is sent again at most once, and only if it certainly did not reach an instance: no connection could be
//! made, or hyper gives the request back because the idle connection had ended before it was written.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tracing::debug;

use super::admit::{Admitted, Asking, Target, admit, limit_of, object_of};
use super::answer::{Trouble, prefers_page};
use super::body::{AnswerBody, RequestBody, ResponseBody, WebBody};
use super::call;
use super::claim::Instance;
use super::connection::Connection;
use super::exchange::{Asked, Exchange, Fate};
use super::guarding;
use super::headers::{self, X_FORWARDED_FOR, X_FORWARDED_PREFIX, X_REQUEST_ID};
use super::pool::Upstream;
use super::table::Route;
use super::upgrade;

/// Answers a request, from an instance or with the reason why not.
pub async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    if call::serve::is_meant(&connection, &request) {
        return call::serve::handle_outside(connection, request).await.map(|answer| answer.map(AnswerBody::Call));
    }
    let exchange = Exchange::begin(&connection);
    let id = connection.headers.request_id(request.headers());
    let page = prefers_page(request.headers());
    let has_body = !request.body().is_end_stream();
    let mut response = match forward(&exchange, request, &id).await {
        Ok(response) => response,
        Err(trouble) => {
            if has_body {
                connection.watch.linger();
            }
            own_answer(&exchange, &trouble, page)
        }
    };
    exchange.count();
    response.headers_mut().insert(X_REQUEST_ID, id);
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if connection.worker.says_goodbye() && !connection.watch.is_http2() && !switches {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn own_answer(exchange: &Rc<Exchange>, trouble: &Trouble, page: bool) -> Response<AnswerBody> {
    let (status, code) = trouble.code();
    exchange.answered(status, Some(code));
    trouble.response(page).map(|text| AnswerBody::Own(Some(text), Rc::clone(exchange)))
}

async fn forward(
    exchange: &Rc<Exchange>,
    mut request: Request<Incoming>,
    id: &HeaderValue,
) -> Result<Response<AnswerBody>, Trouble> {
    let host = host_of(&request);
    remember(exchange, &request, id, host.as_ref());
    match *request.method() {
        Method::CONNECT => return Err(Trouble::Connect),
        Method::TRACE => return Err(Trouble::Trace),
        _ => {}
    }
    let host = host.ok_or(Trouble::BadHost)?;
    let name = host.to_str().map_err(|_| Trouble::BadHost)?;
    let shared = &exchange.connection.worker.shared;
    if !headers::came_secure(&exchange.connection, request.headers())
        && let Some((word, answer)) = shared.tls.instead(name, request.uri())
    {
        if !request.body().is_end_stream() {
            exchange.connection.watch.linger();
        }
        exchange.answered(answer.status(), Some(word));
        return Ok(answer.map(|text| AnswerBody::Own(Some(text), Rc::clone(exchange))));
    }
    let length = request.body().size_hint().exact();
    let target = Target::Web { host: name, path: request.uri().path() };
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let bearer = authorization.as_ref().and_then(guarding::bearer);
    let asking = Asking { target, length, bearer, avoid: None };
    let hoping = Hoping { exchange, asking };
    let admitted = admit(shared, asking).await;
    let Admitted { route, claim, queued, .. } = match admitted {
        Ok(admitted) => admitted,
        Err(trouble) => return Err(guarding::slow_down(shared, Some(exchange.connection.peer.ip()), trouble).await),
    };
    exchange.claimed(claim, queued);
    std::mem::forget(hoping);

    let wanted = headers::wanted_upgrade(request.version(), request.headers());
    let client = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.clone();
    prepare(&mut parts, exchange, &route, &host, id, wanted.clone());
    let body = RequestBody::Web(WebBody::new(body, Rc::clone(exchange), route.max_body));
    let request = Request::from_parts(parts, body);

    let asking = Asking { target: Target::Web { host: name, path: path.path() }, length, bearer, avoid: None };
    let sent = Sending { exchange, asking };
    let answered = timeout(route.request_timeout, sent.send(request, route.max_body)).await;
    let answer = answered.unwrap_or(Err(Trouble::Timeout))?;
    exchange.answered(answer.status(), None);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(exchange, answer, client, wanted);
    }
    Ok(pass(exchange, answer))
}

/// A request without its place. Which object it is counted with is looked up only if it never gets one: it was refused,
/// or its client went.
struct Hoping<'a> {
    exchange: &'a Exchange,
    asking: Asking<'a>,
}

impl Drop for Hoping<'_> {
    fn drop(&mut self) {
        if let Some(object) = object_of(&self.exchange.connection.worker.shared, self.asking) {
            self.exchange.concerns(&object);
        }
    }
}

/// What the request is for: its target's authority, else its only `Host`.
pub fn host_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
        return HeaderValue::from_str(host).ok();
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !host.is_empty() => Some(host.clone()),
        _ => None,
    }
}

fn remember(exchange: &Exchange, request: &Request<Incoming>, id: &HeaderValue, host: Option<&HeaderValue>) {
    let connection = &exchange.connection;
    if !connection.worker.shared.settings.load().access_log {
        return;
    }
    let client = request.headers().get(X_FORWARDED_FOR).filter(|_| connection.headers.trusted());
    exchange.remember(Asked {
        at: jiff::Timestamp::now(),
        request_id: id.clone(),
        client: client.cloned(),
        method: request.method().clone(),
        uri: request.uri().clone(),
        host: host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).unwrap_or_default(),
    });
}

/// Makes the client's request into the one an instance gets.
fn prepare(
    parts: &mut Parts,
    exchange: &Exchange,
    route: &Route,
    host: &HeaderValue,
    id: &HeaderValue,
    upgrade: Option<HeaderValue>,
) {
    headers::clean_request(&mut parts.headers);
    if route.needs_token {
        let shared = &exchange.connection.worker.shared;
        guarding::introduce(shared, &route.object.app, &mut parts.headers);
    }
    exchange.connection.headers.introduce(&mut parts.headers, host);
    parts.headers.insert(X_REQUEST_ID, id.clone());
    if parts.uri.authority().is_some() || !parts.headers.contains_key(HOST) {
        parts.headers.insert(HOST, host.clone());
    }
    if let Some(protocol) = upgrade {
        headers::keep_upgrade(&mut parts.headers, protocol);
    }
    // HTTP/2 clients may send several cookie lines; HTTP/1 servers know one.
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    if let Some(target) = target(&parts.uri, route) {
        parts.uri = target;
        if route.strip_prefix && !route.prefix.is_empty() {
            add_prefix(&mut parts.headers, &route.prefix);
        }
    }
}

/// The target as the instance sees it; `None` when it is the one the client sent.
fn target(uri: &Uri, route: &Route) -> Option<Uri> {
    let path = uri.path_and_query();
    let stripped = path.filter(|_| route.strip_prefix && !route.prefix.is_empty());
    if let Some(rest) = stripped.and_then(|path| path.as_str().strip_prefix(&*route.prefix)) {
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let mut text = BytesMut::with_capacity(rest.len() + 1);
        text.extend_from_slice(slash.as_bytes());
        text.extend_from_slice(rest.as_bytes());
        return PathAndQuery::from_maybe_shared(text.freeze()).ok().map(Uri::from);
    }
    uri.authority()?;
    Some(Uri::from(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))))
}

fn add_prefix(headers: &mut HeaderMap, prefix: &str) {
    let mut text = BytesMut::new();
    if let Some(earlier) = headers.get(X_FORWARDED_PREFIX) {
        text.extend_from_slice(earlier.as_bytes());
    }
    text.extend_from_slice(prefix.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(text.freeze()) {
        headers.insert(X_FORWARDED_PREFIX, value);
    }
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(http::header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = BytesMut::from(first.as_bytes());
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(http::header::COOKIE, joined);
    }
}

/// What sending needs besides the request.
struct Sending<'a> {
    exchange: &'a Rc<Exchange>,
    asking: Asking<'a>,
}

/// How a try ended without an answer.
enum Failed {
    /// The request came back whole: no byte of it left.
    NotSent(Box<Request<RequestBody>>),
    /// It may have reached the instance.
    Sent(Trouble),
}

impl Sending<'_> {
    /// Sends the request and waits for the answer's head.
    async fn send(&self, mut request: Request<RequestBody>, max_body: u64) -> Result<Response<Incoming>, Trouble> {
        let pool = &self.exchange.connection.worker.pool;
        let mut retried = false;
        loop {
            let instance = self.exchange.instance().ok_or(Trouble::Broken)?;
            let idle = if retried { None } else { pool.take(&instance) };
            let upstream = match idle {
                Some(upstream) => upstream,
                None => match pool.connect(&instance).await {
                    Ok(upstream) => upstream,
                    Err(error) => {
                        debug!(instance = %instance.id, %error, "no connection to an instance");
                        if retried {
                            return Err(Trouble::Unreachable);
                        }
                        retried = true;
                        self.move_on(&instance, max_body).await?;
                        continue;
                    }
                },
            };
            match self.attempt(upstream, request).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::NotSent(_)) if retried => return Err(Trouble::Broken),
                Err(Failed::NotSent(back)) => {
                    retried = true;
                    request = *back;
                }
                Err(Failed::Sent(trouble)) => return Err(trouble),
            }
        }
    }

    /// The instance did not accept: another one of the same object, if there is one.
    async fn move_on(&self, failed: &Arc<Instance>, max_body: u64) -> Result<(), Trouble> {
        self.exchange.unclaim();
        let shared = &self.exchange.connection.worker.shared;
        let asking = Asking { avoid: Some(failed.serial), ..self.asking };
        let Admitted { route, claim, queued, .. } = admit(shared, asking).await?;
        // The request was prepared for one object with its prefix and limits; it must not go to another.
        if !Arc::ptr_eq(&route.object, &failed.object) || route.max_body < max_body {
            return Err(Trouble::Unreachable);
        }
        let same = claim.instance().serial == failed.serial;
        self.exchange.claimed_again(claim, queued);
        if same { Err(Trouble::Unreachable) } else { Ok(()) }
    }

    async fn attempt(
        &self,
        mut upstream: Upstream,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Failed> {
        let mut sending = pin!(upstream.sender.try_send_request(request));
        let sent = poll_fn(|context| {
            if let Err(fate) = self.exchange.watch_down(context) {
                return Poll::Ready(Err(Failed::Sent(trouble_of(fate, &self.asking, self.exchange))));
            }
            sending.as_mut().poll(context).map(|sent| {
                sent.map_err(|mut failed| match failed.take_message() {
                    Some(request) => Failed::NotSent(Box::new(request)),
                    None => {
                        let error = failed.into_error();
                        debug!(%error, "an instance broke off");
                        Failed::Sent(match self.exchange.fate() {
                            Some(fate) => trouble_of(fate, &self.asking, self.exchange),
                            None => Trouble::Broken,
                        })
                    }
                })
            })
        })
        .await;
        let answer = sent?;
        upstream.heard(answer.headers());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.exchange.carry(upstream);
        }
        Ok(answer)
    }
}

fn trouble_of(fate: Fate, asking: &Asking<'_>, exchange: &Exchange) -> Trouble {
    match fate {
        Fate::TooLarge => {
            let limit = limit_of(&exchange.connection.worker.shared, *asking);
            Trouble::TooLarge { limit }
        }
        Fate::UploadStalled => Trouble::UploadStalled,
        Fate::Cut => Trouble::Cut,
        Fate::DownloadStalled => Trouble::Broken,
    }
}

/// An instance's answer on its way to the client.
fn pass(exchange: &Rc<Exchange>, answer: Response<Incoming>) -> Response<AnswerBody> {
    let (mut parts, body) = answer.into_parts();
    headers::clean_answer(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, AnswerBody::Passed(ResponseBody::new(body, Rc::clone(exchange))))
}

/// The instance agreed to change the protocol: from here on bytes go through unread.
fn switch(
    exchange: &Rc<Exchange>,
    mut answer: Response<Incoming>,
    client: Option<OnUpgrade>,
    wanted: Option<HeaderValue>,
) -> Result<Response<AnswerBody>, Trouble> {
    let (Some(client), Some(wanted)) = (client, wanted) else { return Err(Trouble::Broken) };
    let instance = hyper::upgrade::on(&mut answer);
    let protocol = answer.headers().get(http::header::UPGRADE).cloned().unwrap_or_else(|| wanted.clone());
    upgrade::tunnel(exchange, client, instance, &protocol);
    let (mut parts, _) = answer.into_parts();
    headers::clean_answer(&mut parts.headers);
    headers::keep_upgrade(&mut parts.headers, protocol);
    Ok(Response::from_parts(parts, AnswerBody::Empty))
}
