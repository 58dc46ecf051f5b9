//! Calls whose callers wait: `POST /v1/apps/{app}/functions/{function}/call`.
//!
//! A caller that goes away does not end its call: what was begun runs to its end in a task of its own, and is recorded
//! as it ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use jiff::Timestamp;

use crate::domain::{AppKey, CallId};
use crate::proxy::answer::{LANDFALL_ERROR, Trouble};
use crate::proxy::body::BodyError;
use crate::proxy::connection::Connection;
use crate::proxy::headers;

use super::Ask;
use super::body::Given;
use super::run::{LANDFALL_CALL, Running, run};

/// Answers a call that came in on a connection of the controller.
pub async fn handle(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<CallAnswer>, Infallible> {
    let active = Active::begin(&connection);
    let (parts, body) = request.into_parts();
    // Whoever is let in by the controller may have named its call, to find its log while it runs.
    let named = parts.headers.get(LANDFALL_CALL).and_then(|id| id.to_str().ok()?.parse().ok());
    let call = named.unwrap_or_else(new_call);
    let ask = read(&parts.method, &parts.uri).map(|asked| Ask {
        app: asked.app,
        function: asked.function,
        version: asked.version,
        call,
        attempt: 1,
        headers: parts.headers,
    });
    let answered = match ask {
        Ok(ask) => Work::new(&connection, ask, Given::Stream(body)).await,
        Err(trouble) => Err(trouble),
    };
    let mut response = match answered {
        Ok(running) => pass(running, active),
        Err(trouble) => trouble.response(false).map(|text| CallAnswer::Own(Some(text), active)),
    };
    if let Ok(call) = HeaderValue::from_str(&call.to_string()) {
        response.headers_mut().insert(LANDFALL_CALL, call);
    }
    if connection.worker.says_goodbye() {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A new identifier for a call that is accepted now.
pub fn new_call() -> CallId {
    CallId::new(Timestamp::now(), fastrand::u128(..))
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    app: AppKey,
    function: crate::domain::ObjectName,
    version: Option<crate::domain::VersionNumber>,
}

fn read(method: &Method, uri: &Uri) -> Result<Asked, Trouble> {
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
    let environment = environment.ok_or_else(|| bad("the call names no environment"))?;
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
fn pass(running: Running, active: Active) -> Response<CallAnswer> {
    let mut head = running.head.clone();
    headers::clean_answer(&mut head.headers);
    head.version = http::Version::HTTP_11;
    let own_error = running.is_own_error();
    head.headers.remove(LANDFALL_ERROR);
    if own_error {
        head.headers.insert(LANDFALL_ERROR, HeaderValue::from_static("function_failed"));
    }
    if let Some(instance) = &running.record().instance {
        let number = HeaderValue::from(instance.version.get());
        head.headers.insert("landfall-version", number);
        if let Ok(id) = HeaderValue::from_str(instance.id.as_str()) {
            head.headers.insert("landfall-instance", id);
        }
    }
    Response::from_parts(head, CallAnswer::Running(Box::new(running), active))
}

/// The call itself, which outlives whoever waits for it.
struct Work(Option<Pin<Box<dyn Future<Output = Begun>>>>);

/// How a call began to be answered.
type Begun = Result<Running, Trouble>;

impl Work {
    fn new(connection: &Rc<Connection>, ask: Ask, given: Given) -> Self {
        let worker = Rc::clone(&connection.worker);
        Self(Some(Box::pin(async move { run(&worker, ask, given).await })))
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
    fn begin(connection: &Rc<Connection>) -> Self {
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
    /// Landfall's own.
    Own(Option<Bytes>, Active),
}

impl Body for CallAnswer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            CallAnswer::Running(running, _) => running.poll_frame(context),
            CallAnswer::Own(text, _) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            CallAnswer::Running(running, _) => running.is_end_stream(),
            CallAnswer::Own(text, _) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            CallAnswer::Running(running, _) => running.size_hint(),
            CallAnswer::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &'static str) -> Result<Asked, Trouble> {
        read(&Method::POST, &Uri::from_static(uri))
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
        assert!(read(&Method::GET, &Uri::from_static("/v1/apps/p/functions/f/call?environment=main")).is_err());
    }
}
