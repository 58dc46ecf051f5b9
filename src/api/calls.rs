//! Calls of functions: handed to the proxies as they come and answered as they go.
//!
//! Bodies flow in both directions, over the connections of `proxies.rs`.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Uri, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::extract::{Asked, Json, Named, name};
use super::problem::Refusal;
use super::routes::{Context, InEnvironment};
use crate::domain::{FunctionKey, ObjectName, VersionNumber};
use crate::engine::Caller;
use crate::wire::api;

/// How a proxy marks its own answers.
const LANDFALL_ERROR: &str = "landfall-error";
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

/// Which function of which version.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallQuery {
    /// The app's environment.
    pub environment: Option<String>,
    /// The version whose code is to run.
    pub version: Option<String>,
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
    // What says who calls is for this agent alone.
    parts.headers.remove(header::COOKIE);
    let socket = context.engine().calls_socket();
    let answer = context.proxies().send(&socket, Request::from_parts(parts, body)).await?;
    let word = answer.headers().get(LANDFALL_ERROR).map(HeaderValue::as_bytes);
    if matches!(word, Some(b"unknown_app" | b"unknown_function"))
        && let Some(error) = context.engine().not_found(&caller.scope, &FunctionKey::new(key, function)).await
    {
        // The proxy knows only what is live; the record knows what may have been meant.
        return Err(error.into());
    }
    Ok(answer.map(Body::new).into_response())
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
