//! Calls whose callers wait, handed over by the controller or made by instances with their tokens: `POST /v1/apps/{app}/functions/{function}/call`.
//!
//! A caller that goes away does not end its call: what was begun runs to its end in a task of its own, and is recorded
//! as it ended.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use jiff::Timestamp;

use crate::domain::{Actor, AppKey, CallId, EnvironmentName};
use crate::proxy::answer::{LANDFALL_ERROR, Trouble};
use crate::proxy::body::BodyError;
use crate::proxy::connection::Connection;
use crate::proxy::forward;
use crate::proxy::guarding;
use crate::proxy::headers;
use crate::proxy::table::Lookup;
use crate::proxy::token::Identity;
use crate::proxy::worker::Worker;

use super::Ask;
use super::body::{Given, Upload};
use super::detached::{self, Waited};
use super::relay;
use super::run::{LANDFALL_CALL, Running, TRACEPARENT, run};

/// Who makes a call, in the controller's words.
const ACTOR: &str = "landfall-actor";

/// Answers a call that came in on a connection of the controller.
pub async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<CallAnswer>, Infallible> {
    let (parts, body) = request.into_parts();
    // Whoever is let in by the controller may have named its call, to find its log while it runs.
    let named = parts.headers.get(LANDFALL_CALL).and_then(|id| id.to_str().ok()?.parse().ok());
    let call = named.unwrap_or_else(new_call);
    let asked = read(&parts.method, &parts.uri, None);
    // The controller knows by the record what may have been meant, and who asks.
    Ok(answer(&connection, asked, call, parts.headers, body, &|_| false).await)
}

/// Whether a request at a web address is meant for Landfall itself: no app has this host, it names this machine as
/// `LANDFALL_URL` does or brings a token of this agent's people, and the path is one of the API's.
pub fn is_meant(connection: &Connection, request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    if !path.starts_with("/v1/") {
        return false;
    }
    let Some(host) = forward::host_of(request) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let name = host.parse::<Authority>().map(|authority| authority.host().to_owned()).unwrap_or_default();
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    let here = name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok();
    // Whoever calls from elsewhere comes by any name that leads here.
    let bearer = request.headers().get(AUTHORIZATION).and_then(guarding::bearer);
    (here || bearer.is_some_and(guarding::is_made_by_people))
        && matches!(connection.worker.shared.table.load().find(host, path), Lookup::UnknownHost)
}

/// Answers what an instance asks for, by the token it was given: a call here, everything else by the controller. Somebody
/// elsewhere calls with a token of theirs.
pub async fn handle_outside(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<CallAnswer>, Infallible> {
    let bearer = request.headers().get(AUTHORIZATION).and_then(guarding::bearer);
    if let Some(token) = bearer.filter(|token| guarding::is_made_by_people(token)).map(str::to_owned) {
        let token = token.as_str();
        let by_token = by_token(&connection, request.method(), request.uri(), token);
        let (parts, body) = request.into_parts();
        let may_know = |app: &AppKey| guarding::may_call(&connection.worker.shared, app, Some(token)).is_ok();
        return Ok(answer_people(&connection, by_token, parts, body, &may_know).await);
    }
    let Some(identity) = bearer.and_then(|token| connection.worker.shared.tokens.check(token)) else {
        let (parts, body) = request.into_parts();
        return Ok(answer(&connection, Err(Trouble::NoToken), new_call(), parts.headers, body, &|_| false).await);
    };
    let own = &identity.app.environment;
    let asked = read(request.method(), request.uri(), Some(own.as_str()))
        .and_then(|asked| within(asked, own))
        .map(|asked| own_version(&connection, asked, &identity));
    if relay::is_for_controller(&connection, request.uri().path(), asked.as_ref().ok()) {
        return Ok(relay::relay(&connection, request, &identity).await);
    }
    let (mut parts, body) = request.into_parts();
    // Whoever is called has no use for the caller's token.
    parts.headers.remove(AUTHORIZATION);
    let actor = format!("app {} {}", identity.app, identity.version);
    if let Ok(actor) = HeaderValue::from_str(&actor) {
        parts.headers.insert(ACTOR, actor);
    }
    let may_know = |app: &AppKey| app.environment == identity.app.environment;
    Ok(answer(&connection, asked, new_call(), parts.headers, body, &may_know).await)
}

fn within(asked: Asked, own: &EnvironmentName) -> Result<Asked, Trouble> {
    if asked.app.environment == *own {
        return Ok(asked);
    }
    Err(Trouble::BadCall { reason: "an app calls functions of its own environment only".to_owned() })
}

/// What somebody asks for, and who it is. The token comes first: a stranger learns nothing of what there is.
fn by_token(connection: &Connection, method: &Method, uri: &Uri, token: &str) -> Result<(Asked, Actor), Trouble> {
    let shared = &connection.worker.shared;
    guarding::is_known(shared, token)?;
    let table = shared.table.load();
    let app = uri.path().split('/').nth(3).unwrap_or_default();
    // An app that does not run is looked for where all others are.
    let environment = table.only_environment_of(app).or_else(|| table.only_environment());
    let asked = read(method, uri, environment.map(EnvironmentName::as_str))?;
    let actor = guarding::may_call(shared, &asked.app, Some(token))?;
    Ok((asked, actor))
}

/// Answers a call that somebody makes from elsewhere.
async fn answer_people(
    connection: &Rc<Connection>,
    by_token: Result<(Asked, Actor), Trouble>,
    mut parts: Parts,
    body: Incoming,
    may_know: &dyn Fn(&AppKey) -> bool,
) -> Response<CallAnswer> {
    parts.headers.remove(AUTHORIZATION);
    parts.headers.remove(ACTOR);
    let asked = match by_token {
        Ok((asked, actor)) => {
            if let Ok(actor) = HeaderValue::from_str(&actor.to_string()) {
                parts.headers.insert(ACTOR, actor);
            }
            Ok(asked)
        }
        Err(trouble) => Err(guarding::slow_down(&connection.worker.shared, Some(connection.peer.ip()), trouble).await),
    };
    answer(connection, asked, new_call(), parts.headers, body, may_know).await
}

/// Within an app code of one version calls code of the same, while that has instances or somebody has asked for that
/// version by its number; all of a version belongs together.
fn own_version(connection: &Connection, mut asked: Asked, identity: &Identity) -> Asked {
    if asked.version.is_none() && asked.app == identity.app {
        let table = connection.worker.shared.table.load();
        let found = table.find_function(&asked.app, &asked.function, Some(identity.version));
        let own = matches!(found, Lookup::Found(_)) || table.has_pinned(&identity.app, identity.version);
        asked.version = own.then_some(identity.version);
    }
    asked
}

async fn answer(
    connection: &Rc<Connection>,
    asked: Result<Asked, Trouble>,
    call: CallId,
    headers: HeaderMap,
    body: Incoming,
    may_know: &dyn Fn(&AppKey) -> bool,
) -> Response<CallAnswer> {
    let active = Active::begin(connection);
    let has_body = !body.is_end_stream();
    let actor = headers.get(ACTOR).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    let actor = actor.unwrap_or_default();
    let ask = asked.map(|asked| Ask {
        app: asked.app,
        function: asked.function,
        version: asked.version,
        call,
        attempt: 1,
        actor: Some(actor),
        trace: headers.get(TRACEPARENT).and_then(|parent| parent.to_str().ok()?.parse().ok()),
        kept: Cell::default(),
    });
    let waited = match ask {
        Ok(ask) => detached::wait(&connection.worker, ask, headers, Given::Stream(body)).await,
        Err(trouble) => Waited::Answered(Box::new(Err(trouble))),
    };
    let own = |response: Response<Bytes>, active| response.map(|text| CallAnswer::Own(Some(text), active));
    let mut response = match waited {
        Waited::Answered(begun) => match *begun {
            Ok(running) => pass(running, active),
            Err(trouble) => {
                if has_body {
                    connection.watch.linger();
                }
                own(hinted(trouble, connection, may_know).response(false), active)
            }
        },
        Waited::GoesOn => own(detached::elsewhere(call), active),
    };
    if let Ok(call) = HeaderValue::from_str(&call.to_string()) {
        response.headers_mut().insert(LANDFALL_CALL, call);
    }
    if connection.worker.says_goodbye() && !connection.watch.is_http2() {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Names an app that may have been meant, if whoever calls may know of it.
fn hinted(trouble: Trouble, connection: &Connection, may_know: &dyn Fn(&AppKey) -> bool) -> Trouble {
    match trouble {
        Trouble::UnknownApp { app, near: None } => {
            let near = connection.worker.shared.table.load().app_near(&app, may_know);
            Trouble::UnknownApp { app, near }
        }
        other => other,
    }
}

/// A new identifier for a call that is accepted now.
pub fn new_call() -> CallId {
    CallId::new(Timestamp::now(), fastrand::u128(..))
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) app: AppKey,
    pub(super) function: crate::domain::ObjectName,
    pub(super) version: Option<crate::domain::VersionNumber>,
}

/// What a path asks for, in the `usual` environment unless it names one.
fn read(method: &Method, uri: &Uri, usual: Option<&str>) -> Result<Asked, Trouble> {
    let bad = |reason: &str| Trouble::BadCall { reason: reason.to_owned() };
    if *method != Method::POST {
        return Err(bad("a call is made by POST"));
    }
    let segments: Vec<&str> = uri.path().split('/').collect();
    let ["", "v1", "apps", app, "functions", function, "call"] = segments.as_slice() else {
        return Err(bad("this is not the path of a call"));
    };
    let (mut environment, mut version) = (None, None);
    for (key, value) in uri.query().into_iter().flat_map(|query| query.split('&')).filter_map(|p| p.split_once('=')) {
        match key {
            "environment" => environment = Some(value),
            "version" => version = Some(value),
            other => return Err(bad(&format!("a call has no parameter `{other}`"))),
        }
    }
    let environment = environment.or(usual).ok_or_else(|| bad("the call names no environment"))?;
    Ok(Asked {
        app: AppKey::new(
            environment.parse().map_err(|error| bad(&format!("the environment's name is wrong: {error}")))?,
            app.parse().map_err(|error| bad(&format!("the app's name is wrong: {error}")))?,
        ),
        function: function.parse().map_err(|error| bad(&format!("the function's name is wrong: {error}")))?,
        version: version.map(str::parse).transpose().map_err(|error: String| bad(&error))?,
    })
}

/// An instance's answer on its way to the caller.
fn pass(mut running: Running, active: Active) -> Response<CallAnswer> {
    let own_error = running.is_own_error();
    let mut all = std::mem::take(&mut running.head.headers);
    headers::clean_answer(&mut all);
    all.remove(LANDFALL_ERROR);
    if own_error {
        all.insert(LANDFALL_ERROR, HeaderValue::from_static("function_failed"));
    }
    if let Some(instance) = running.record().call.instance() {
        all.insert("landfall-version", HeaderValue::from(instance.version.get()));
        if let Ok(id) = HeaderValue::from_str(instance.id.as_str()) {
            all.insert("landfall-instance", id);
        }
    }
    let status = running.head.status;
    let mut response = Response::new(CallAnswer::Running(Box::new(running), active));
    *response.status_mut() = status;
    *response.headers_mut() = all;
    response
}

/// The call itself, which outlives whoever waits for it.
pub(super) struct Work(Option<Pin<Box<dyn Future<Output = Begun>>>>);

/// How a call began to be answered.
pub type Begun = Result<Running, Trouble>;

impl Work {
    /// A call that begins when it is first awaited.
    pub(super) fn new(worker: &Rc<Worker>, ask: Rc<Ask>, headers: HeaderMap, given: Given, upload: Rc<Upload>) -> Self {
        let worker = Rc::clone(worker);
        Self(Some(Box::pin(async move { run(&worker, ask, headers, given, upload).await })))
    }

    /// The call without the promise to outlive whoever waits for it: dropping this gives it up.
    pub(super) fn into_mortal(mut self) -> impl Future<Output = Begun> {
        let work = self.0.take();
        async move {
            match work {
                Some(work) => work.await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Future for Work {
    type Output = Begun;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(work) = self.0.take() else { return };
        drop(tokio::task::spawn_local(async move {
            if let Ok(running) = work.await {
                running.finish().await;
            }
        }));
    }
}

/// A caller's connection is in use.
#[derive(Debug)]
pub struct Active(Rc<Connection>);

impl Active {
    pub(super) fn begin(connection: &Rc<Connection>) -> Self {
        connection.exchange_begins();
        Self(Rc::clone(connection))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.exchange_ends();
    }
}

/// The answer to a call.
#[derive(Debug)]
pub enum CallAnswer {
    /// From the instance.
    Running(Box<Running>, Active),
    /// From the controller.
    Controller(Incoming, Active),
    /// Landfall's own.
    Own(Option<Bytes>, Active),
}

impl Body for CallAnswer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            CallAnswer::Running(running, _) => running.poll_frame(context),
            CallAnswer::Controller(body, _) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
            CallAnswer::Own(text, _) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            CallAnswer::Running(running, _) => running.is_end_stream(),
            CallAnswer::Controller(body, _) => body.is_end_stream(),
            CallAnswer::Own(text, _) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            CallAnswer::Running(running, _) => running.size_hint(),
            CallAnswer::Controller(body, _) => body.size_hint(),
            CallAnswer::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &'static str) -> Result<Asked, Trouble> {
        read(&Method::POST, &Uri::from_static(uri), None)
    }

    #[test]
    fn a_call_is_read_from_its_path_and_query() {
        let good = asked("/v1/apps/pods/functions/resize/call?environment=main&version=3").expect("reads");
        assert_eq!((good.app.to_string().as_str(), good.function.as_str()), ("main/pods", "resize"));
        assert_eq!(good.version.map(|version| version.get()), Some(3));
        for bad in [
            "/v1/apps/pods/functions/resize/call",
            "/v1/apps/pods/functions/resize/call?environment=main&x=1",
            "/v1/apps/pods/functions/resize/call?environment=main&version=0",
            "/v1/apps/Pods/functions/resize/call?environment=main",
            "/v1/apps/pods/functions/call?environment=main",
            "/v1/apps/pods/functions/resize/call/?environment=main",
        ] {
            assert!(matches!(asked(bad), Err(Trouble::BadCall { .. })), "{bad}");
        }
        assert!(read(&Method::GET, &Uri::from_static("/v1/apps/p/functions/f/call?environment=main"), None).is_err());
    }
}
