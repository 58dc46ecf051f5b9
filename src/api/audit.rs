//! Every change on record: who asked, from where, for what, and what came of it.
//!
//! The entry is written before the route does anything and completed with its answer, in a task of its own: whoever goes
//! away in between is on record all the same. Of bodies and answers only known keys are kept, so that nothing secret
//! gets here by a new route. Calls of functions are no changes; they have records of their own.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json as Answer, Router};
use http::header;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::extract::{Asked, media_type};
use super::guard::Gate;
use super::pages::List;
use super::peer::Peer;
use super::problem::Refusal;
use super::routes::{Context, Reply, Shared, limit};
use super::rules::Rule;
use crate::domain::{Access, AppKey, AppName, EnvironmentName, SecretName, Via};
use crate::engine::{AuditFilter, Engine, NewEntry};
use crate::wire::api::Page;
use crate::wire::tokens::AuditEntry;

/// What of a request's body is kept.
const ASKED: [&str; 14] = [
    "version",
    "reason",
    "until",
    "force",
    "propose",
    "waits",
    "object",
    "min",
    "max",
    "name",
    "actor",
    "scope",
    "expires_at",
    "default",
];
/// What of an answer is kept.
const ANSWERED: [&str; 6] = ["message", "code", "title", "version", "deployment", "changed"];
/// Longer bodies are no JSON of ours.
const MAX_BODY: u64 = 64 * 1024;

/// What the guard found out of a change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The rule of its route.
    pub rule: &'static Rule,
    /// The app it is about, as far as its path says.
    pub app: Option<AppKey>,
    /// The variable parts of its path.
    pub named: Vec<(String, String)>,
}

/// The layer behind the guard.
pub async fn record(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let (Some(change), Some(access)) = (extensions.get::<Change>().cloned(), extensions.get::<Access>().cloned())
    else {
        return next.run(request).await;
    };
    let engine = gate.engine().clone();
    let recorded = tokio::spawn(async move { carry_out(engine, change, access, request, next).await });
    let failed = |error| Refusal::internal(format!("a change broke off: {error}")).into_response();
    recorded.await.unwrap_or_else(failed)
}

async fn carry_out(engine: Engine, change: Change, access: Access, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<Peer>().and_then(|peer| peer.address()).map(|address| address.to_string());
    let (request, detail) = match detail(request, &change).await {
        Ok(both) => both,
        Err(refusal) => return refusal.into_response(),
    };
    let before = match &change.app {
        Some(key) => engine.standing(key).await,
        None => None,
    };
    let entry = NewEntry {
        actor: access.actor,
        via: word(&access.via),
        address,
        action: change.rule.action(),
        app: change.app.clone(),
        detail,
        before,
    };
    // What cannot be recorded is not done.
    let id = match engine.audit_begin(entry).await {
        Ok(id) => id,
        Err(error) => return Refusal::from(error).into_response(),
    };
    let (response, result) = result(next.run(request).await).await;
    let app = change.app.or_else(|| uploaded(&result));
    let after = match &app {
        Some(key) => engine.standing(key).await,
        None => None,
    };
    let kept = Value::Object(
        result.into_iter().filter(|(key, _)| key == "status" || ANSWERED.contains(&key.as_str())).collect(),
    );
    if let Err(error) = engine.audit_end(id, app, after, kept).await {
        tracing::error!("what came of entry {id} of the audit log could not be recorded: {error}");
    }
    response
}

/// How somebody was known, in a word.
pub(super) fn word(via: &Via) -> &'static str {
    match via {
        Via::LocalUser => "local",
        Via::Loopback => "loopback",
        Via::Token(_) => "token",
        Via::Session(_) => "session",
        Via::Person(_) => "oidc",
    }
}

/// What is asked for: the names in the path, the query, the known keys of the body.
async fn detail(request: Request, change: &Change) -> Result<(Request, Value), Refusal> {
    let mut detail = Map::new();
    for (name, value) in change.named.iter().filter(|(name, _)| name != "app") {
        detail.insert(name.clone(), json!(value));
    }
    if let Ok(query) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri()) {
        detail.extend(
            query
                .0
                .into_iter()
                .filter(|(name, _)| ASKED.contains(&name.as_str()))
                .map(|(name, value)| (name, json!(value))),
        );
    }
    let is_json = media_type(request.headers()) == Some("application/json");
    if !is_json || request.body().size_hint().upper().is_none_or(|length| length > MAX_BODY) {
        return Ok((request, Value::Object(detail)));
    }
    let (parts, body) = request.into_parts();
    let bytes = super::extract::collect(body).await?;
    if let Ok(Value::Object(body)) = serde_json::from_slice(&bytes) {
        if change.rule.path.starts_with("/v1/secrets") {
            detail.extend(secret_named(&body));
        }
        detail.extend(body.into_iter().filter(|(name, value)| ASKED.contains(&name.as_str()) && !value.is_null()));
    }
    Ok((Request::from_parts(parts, Body::from(bytes)), Value::Object(detail)))
}

/// Which secret a body is about: names alone, and only where they are ones. Its value is in no place that is looked at.
fn secret_named(body: &Map<String, Value>) -> Vec<(String, Value)> {
    let name = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let secret = name("secret").filter(|text| text.parse::<SecretName>().is_ok());
    let environment = name("environment").filter(|text| text.parse::<EnvironmentName>().is_ok());
    let app = name("app").filter(|text| text.parse::<AppName>().is_ok());
    let named = [("secret", secret), ("environment", environment), ("app", app)];
    named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect()
}

/// What is answered, and its keys.
async fn result(response: Response) -> (Response, Map<String, Value>) {
    let mut result = Map::new();
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let is_json = matches!(media, "application/json" | "application/problem+json");
    let status = response.status().as_u16();
    let short = response.body().size_hint().exact().is_some_and(|length| length <= MAX_BODY);
    let response = if is_json && short {
        let (parts, body) = response.into_parts();
        // A body of known length is in memory already.
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if let Ok(Value::Object(answer)) = serde_json::from_slice(&bytes) {
            result = answer;
        }
        Response::from_parts(parts, Body::from(bytes))
    } else {
        response
    };
    result.insert("status".to_owned(), json!(status));
    (response, result)
}

/// The app in the answer to an upload.
fn uploaded(result: &Map<String, Value>) -> Option<AppKey> {
    let text = |key: &str| result.get(key).and_then(Value::as_str);
    let environment: EnvironmentName = text("environment")?.parse().ok()?;
    Some(AppKey::new(environment, text("app")?.parse::<AppName>().ok()?))
}

/// The route that shows it, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/audit", get(list))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Only this app.
    app: Option<String>,
    /// Only by whoever has this name, or a token of this name.
    actor: Option<String>,
    /// Not older than this.
    since: Option<Timestamp>,
    /// Only entries before the one with this number.
    before: Option<i64>,
    /// Most entries of the answer: 1 to 1000, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Go on behind the page before: its `next`.
    cursor: Option<String>,
}

async fn list(State(context): Shared, Asked(query): Asked<AuditQuery>) -> Reply<Page<AuditEntry>> {
    let app = query.app.map(|app| context.app_key(&app, query.environment.as_ref())).transpose()?;
    let (since, limit) = (query.since, limit(query.limit)?);
    let before = List::Audit.place(query.cursor.as_ref())?.or(query.before);
    let filter = AuditFilter { app, actor: query.actor, since, before, limit: limit + 1 };
    Ok(Answer(List::Audit.page(context.engine().audit(filter).await?, limit, |entry| entry.id)))
}
