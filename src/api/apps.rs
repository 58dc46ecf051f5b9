//! The API as apps see it, on a socket that only the proxies reach: calls of functions in the app's own environment.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/apps/{app}/functions/{function}/call` | of a version that had no instances when the proxy looked |
//! | `POST …/spawn`, `POST …/map` | |
//! | `GET /v1/calls/{call}`, `…/result`, `POST …/cancel` | calls of functions of its environment |
//!
//! The proxy has checked the app's token and says in headers whose it was (`proxy::call::relay`). Owner of the socket: the
//! controller, which makes it anew at each start. Invariants: nothing else of the API is here; no answer tells of another
//! environment. Code of a version that somebody has asked for by its number calls code of the same version.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::request::Parts;
use http::{HeaderName, Uri};
use tokio_util::sync::CancellationToken;

use super::call_records::{self, ResultQuery, SpawnQuery, WaitQuery, call_id};
use super::calls::{self, CallQuery, NamedFunction};
use super::extract::{Asked, Named};
use super::map::{self, MapQuery};
use super::problem::Refusal;
use super::routes::{Context, no_method, no_route};
use super::serve::{ApiError, Listener, accept_all};
use crate::domain::{Actor, AppKey, Scope, Verb, VersionNumber};
use crate::engine::{Caller, Engine};
use crate::wire::calls::{OF_APP, OF_PINNED, OF_VERSION};

/// Serves apps until `shutdown` is cancelled.
pub async fn serve_apps(engine: Engine, socket: &Path, shutdown: CancellationToken) -> Result<(), ApiError> {
    let listener = bind(socket).map_err(|why| ApiError::Socket { what: "socket for apps", why })?;
    let router = Router::new()
        .route("/v1/apps/{app}/functions/{function}/call", post(call))
        .route("/v1/apps/{app}/functions/{function}/spawn", post(spawn))
        .route("/v1/apps/{app}/functions/{function}/map", post(map))
        .route("/v1/calls/{call}", get(one))
        .route("/v1/calls/{call}/result", get(result))
        .route("/v1/calls/{call}/cancel", post(cancel))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(Context::new(engine, shutdown.clone()));
    accept_all(Listener::unix(listener)?, &router, &shutdown).await;
    Ok(())
}

fn bind(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The app that asks.
struct OfApp {
    app: AppKey,
    version: VersionNumber,
    pinned: bool,
}

impl<S: Sync> FromRequestParts<S> for OfApp {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let read = || {
            let (environment, app) = text(&OF_APP)?.split_once('/')?;
            let app = AppKey::new(environment.parse().ok()?, app.parse().ok()?);
            let version = text(&OF_VERSION)?.parse().ok()?;
            Some(Self { app, version, pinned: text(&OF_PINNED) == Some("true") })
        };
        read().ok_or_else(|| Refusal::refused("this socket is for proxies", "use the agent's own socket"))
    }
}

impl OfApp {
    /// An app calls within its environment, and does nothing else.
    fn caller(&self) -> Caller {
        let scope = match format!("{}/*", self.app.environment).parse() {
            Ok(pattern) => Scope { verbs: vec![Verb::Call], apps: vec![pattern] },
            // Names of environments are patterns; if one were not, it must not stand for all.
            Err(_) => Scope { verbs: Vec::new(), apps: Vec::new() },
        };
        Caller { actor: Actor::App { app: self.app.clone(), version: self.version }, scope }
    }

    /// The environment of what is asked for.
    fn environment(&self, named: Option<String>) -> Result<Option<String>, Refusal> {
        let own = self.app.environment.to_string();
        match named {
            Some(other) if other != own => Err(Refusal::unreadable(
                "an app calls functions of its own environment only",
                "leave `environment` out",
            )),
            Some(_) | None => Ok(Some(own)),
        }
    }

    fn version(&self, named: Option<String>, function: &NamedFunction) -> Option<String> {
        let own = self.pinned && function.0 == self.app.app.as_str();
        named.or_else(|| own.then(|| self.version.to_string()))
    }

    /// Refuses to tell of calls of another environment, as if there were none.
    async fn may_see(&self, context: &Context, id: &Named) -> Result<(), Refusal> {
        let call = call_id(&id.0)?;
        let shown = context.engine().call(call, std::time::Duration::ZERO).await?;
        if shown.call.environment == self.app.environment {
            return Ok(());
        }
        let title = format!("there is no call {call} on record");
        Err(Refusal::new(http::StatusCode::NOT_FOUND, title, "an app sees calls of its own environment"))
    }
}

async fn call(
    state: State<Context>,
    of: OfApp,
    named: NamedFunction,
    Asked(query): Asked<CallQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let CallQuery { environment, version } = query;
    let query = CallQuery { environment: of.environment(environment)?, version: of.version(version, &named) };
    calls::call(state, of.caller(), named, Asked(query), request).await
}

async fn spawn(
    state: State<Context>,
    of: OfApp,
    named: NamedFunction,
    Asked(query): Asked<SpawnQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let SpawnQuery { environment, version } = query;
    let query = SpawnQuery { environment: of.environment(environment)?, version: of.version(version, &named) };
    call_records::spawn(state, of.caller(), named, Asked(query), request).await
}

async fn map(
    state: State<Context>,
    of: OfApp,
    named: NamedFunction,
    Asked(query): Asked<MapQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let MapQuery { environment, version, order, in_flight } = query;
    let (environment, version) = (of.environment(environment)?, of.version(version, &named));
    map::map(state, of.caller(), named, Asked(MapQuery { environment, version, order, in_flight }), request).await
}

async fn one(state: State<Context>, of: OfApp, id: Named, query: Asked<WaitQuery>) -> Result<Response, Refusal> {
    use axum::response::IntoResponse;
    of.may_see(&state, &id).await?;
    Ok(call_records::one(state, id, query).await?.into_response())
}

async fn result(
    state: State<Context>,
    of: OfApp,
    id: Named,
    uri: Uri,
    query: Asked<ResultQuery>,
) -> Result<Response, Refusal> {
    of.may_see(&state, &id).await?;
    call_records::result(state, id, uri, query).await
}

async fn cancel(state: State<Context>, of: OfApp, id: Named) -> Result<Response, Refusal> {
    use axum::response::IntoResponse;
    of.may_see(&state, &id).await?;
    Ok(call_records::cancel(state, of.caller(), id).await?.into_response())
}
