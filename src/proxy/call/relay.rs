//! What an instance asks for that only the controller can do: calls that are recorded first, looks at such calls, calls of
//! versions that have no instances.
//!
//! Handed over on a socket of the controller's own, with the caller's identity in headers that nobody else can set: they
//! are taken off everything that comes in. The other end is `api::apps`.

use std::rc::Rc;

use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tracing::debug;

use crate::proxy::answer::Trouble;
use crate::proxy::connection::Connection;
use crate::proxy::headers;
use crate::proxy::table::Lookup;
use crate::proxy::token::Identity;
use crate::wire::calls::{OF_APP, OF_PINNED, OF_VERSION};

use super::serve::{Active, Asked, CallAnswer};

/// Whether a path of the API is the controller's to answer; a call is, when its version has no instances here.
pub(super) fn is_for_controller(connection: &Connection, path: &str, asked: Option<&Asked>) -> bool {
    if let Some(asked) = asked {
        let table = connection.worker.shared.table.load();
        return asked.version.is_some()
            && matches!(table.find_function(&asked.app, &asked.function, asked.version), Lookup::UnknownVersion);
    }
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "v1", "apps", _, "functions", _, verb] => matches!(*verb, "spawn" | "map"),
        ["", "v1", "calls", ..] => true,
        _ => false,
    }
}

/// Has the controller answer.
pub async fn relay(
    connection: &Rc<Connection>,
    request: Request<Incoming>,
    identity: &Identity,
) -> Response<CallAnswer> {
    let active = Active::begin(connection);
    let has_body = !request.body().is_end_stream();
    match ask(connection, request, identity).await {
        Ok(answer) => {
            let (mut head, body) = answer.into_parts();
            headers::clean_answer(&mut head.headers);
            Response::from_parts(head, CallAnswer::Controller(body, active))
        }
        Err(trouble) => {
            if has_body {
                connection.watch.linger();
            }
            trouble.response(false).map(|text| CallAnswer::Own(Some(text), active))
        }
    }
}

async fn ask(
    connection: &Rc<Connection>,
    mut request: Request<Incoming>,
    identity: &Identity,
) -> Result<Response<Incoming>, Trouble> {
    let shared = &connection.worker.shared;
    let away = |error: &dyn std::fmt::Display| {
        debug!(%error, "the controller does not answer an app");
        Trouble::NoController
    };
    // A path alone is what the other end expects, also of clients that write the whole address.
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).parse();
    *request.uri_mut() = target.map_err(|_| Trouble::BadCall { reason: "the address cannot be read".to_owned() })?;
    let pinned = shared.table.load().has_pinned(&identity.app, identity.version);
    *request.version_mut() = Version::HTTP_11;
    let all = request.headers_mut();
    headers::clean_request(all);
    all.remove(CONNECTION);
    all.remove(AUTHORIZATION);
    for (name, value) in [
        (OF_APP, identity.app.to_string()),
        (OF_VERSION, identity.version.get().to_string()),
        (OF_PINNED, pinned.to_string()),
    ] {
        let value = HeaderValue::from_str(&value).map_err(|error| away(&error))?;
        all.insert(name, value);
    }
    let stream = UnixStream::connect(&*shared.apps_socket).await.map_err(|error| away(&error))?;
    let (mut sender, line) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = line.await {
            debug!(%error, "a line of an app to the controller ended early");
        }
    }));
    sender.send_request(request).await.map_err(|error| away(&error))
}
