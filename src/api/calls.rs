//! Calls of functions: handed to the proxies as they come and answered as they go.
//!
//! Bodies flow in both directions. The proxies' socket belongs to the supervisor, so a call waits in its backlog while a
//! proxy is replaced.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::extract::{Asked, Json, Named, name};
use super::problem::Refusal;
use super::routes::{Context, InEnvironment};
use crate::domain::{ObjectName, VersionNumber};
use crate::engine::Caller;
use crate::wire::api;

/// Where the actor of a call is told to the proxy.
const ACTOR: &str = "landfall-actor";

/// An app and one of its functions, still as text.
pub struct NamedFunction(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for NamedFunction {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((app, function))) => Ok(Self(app, function)),
            Err(error) => Err(Refusal::unreadable(
                format!("the path cannot be read: {}", error.body_text()),
                "write names with a-z, 0-9 and - only",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallQuery {
    environment: Option<String>,
    version: Option<String>,
}

/// `POST /v1/apps/{app}/functions/{function}/call`
pub async fn call(
    State(context): State<Context>,
    caller: Caller,
    named: NamedFunction,
    Asked(query): Asked<CallQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let key = context.app_key(&named.0, query.environment.as_ref())?;
    let function: ObjectName = name("function", &named.1)?;
    let version = query.version.map(|text| text.parse::<VersionNumber>()).transpose();
    let version = version.map_err(|error| Refusal::invalid(error, "name a version of the app's history"))?;
    if let Some(version) = version {
        context.engine().pin(key.clone(), function.clone(), version).await?;
    }
    let version = version.map(|version| format!("&version={}", version.get())).unwrap_or_default();
    let target = format!("/v1/apps/{}/functions/{function}/call?environment={}{version}", key.app, key.environment);
    let (mut parts, body) = request.into_parts();
    parts.uri = target.parse::<Uri>().map_err(|error| Refusal::internal(format!("{target}: {error}")))?;
    parts.extensions.clear();
    // Names of users come from the system's database and may have any character.
    let actor = HeaderValue::from_bytes(caller.actor.to_string().as_bytes());
    parts.headers.insert(ACTOR, actor.unwrap_or(HeaderValue::from_static("unknown")));
    parts.headers.remove(header::CONNECTION);
    forward(&context, Request::from_parts(parts, body)).await
}

/// `POST /v1/apps/{app}/scale`
pub async fn scale(
    State(context): State<Context>,
    _: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<Option<api::ScaleRequest>>,
) -> Result<axum::Json<api::Scaled>, Refusal> {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let request =
        request.ok_or_else(|| Refusal::unreadable("the body is empty", "name the `object`, `min` and `max`"))?;
    Ok(axum::Json(context.engine().scale(key, request).await?))
}

async fn forward(context: &Context, request: Request) -> Result<Response, Refusal> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the proxy cannot be reached: {error}"),
            "try again shortly; `landfall status` shows whether a proxy runs",
        )
    };
    let stream = UnixStream::connect(context.engine().calls_socket()).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a call's connection to the proxy ended early: {error}");
        }
    });
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    Ok(answer.map(Body::new).into_response())
}
