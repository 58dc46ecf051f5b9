//! Calls that must not be lost: spawned, looked at, waited for, cancelled, tried anew.

use std::time::Duration;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::Deserialize;

use super::calls::NamedFunction;
use super::extract::{Asked, Named, name, optional_name};
use super::pages::List;
use super::problem::Refusal;
use super::routes::{Context, limit};
use crate::domain::{CallId, CallOutcome, CallState, FunctionKey, Trigger, VersionNumber};
use crate::engine::{CallFilter, CallResultView, Caller, SpawnRequest};
use crate::wire::api::Page;
use crate::wire::call_views::{CallDetail, CallView, Spawned};

/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Longest wait for a call; whoever wants to wait longer asks again.
const LONGEST_WAIT: u64 = 120;

/// Which function of which version.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpawnQuery {
    /// The app's environment.
    pub environment: Option<String>,
    /// The version whose code is to run.
    pub version: Option<String>,
}

/// `POST /v1/apps/{app}/functions/{function}/spawn`
pub async fn spawn(
    State(context): State<Context>,
    caller: Caller,
    named: NamedFunction,
    Asked(query): Asked<SpawnQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let (function, version) = which(&context, &named, query.environment.as_ref(), query.version)?;
    let limit = context.engine().max_body(&caller.scope, &function, version).await?;
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    let media = text_of(&parts.headers, &header::CONTENT_TYPE)?;
    let body = collect(body, limit).await?;
    let request = SpawnRequest { function, version, trigger: Trigger::Spawn, media, body, key };
    Ok(accepted(context.engine().spawn(caller, request).await?))
}

fn accepted(spawned: Spawned) -> Response {
    let location = HeaderValue::from_str(&format!("/v1/calls/{}", spawned.call));
    let mut response = (StatusCode::ACCEPTED, Answer(spawned)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(super) fn which(
    context: &Context,
    named: &NamedFunction,
    environment: Option<&String>,
    version: Option<String>,
) -> Result<(FunctionKey, Option<VersionNumber>), Refusal> {
    let app = context.app_key(&named.0, environment)?;
    let version = version.map(|text| text.parse::<VersionNumber>()).transpose();
    let version = version.map_err(|error| Refusal::invalid(error, "name a version of the app's history"))?;
    Ok((FunctionKey::new(app, name("function", &named.1)?), version))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    text_of(headers, &header::HeaderName::from_static("idempotency-key"))
}

fn text_of(headers: &HeaderMap, name: &header::HeaderName) -> Result<Option<String>, Refusal> {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned);
    headers
        .get(name)
        .map(text)
        .transpose()
        .map_err(|_| Refusal::unreadable(format!("the header `{name}` is not plain ASCII"), "correct the header"))
}

async fn collect(body: Body, limit: u64) -> Result<bytes::Bytes, Refusal> {
    let limit_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    match tokio::time::timeout(ARRIVAL, Limited::new(body, limit_bytes).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than the {limit} bytes this function takes"),
            "raise `max_body` of the function, or send less",
        )),
        Ok(Err(error)) => Err(Refusal::unreadable(format!("the body broke off: {error}"), "send it again")),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", ARRIVAL.as_secs()),
            "send it again",
        )),
    }
}

/// Which calls.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Only this app.
    app: Option<String>,
    /// Only this function of it.
    function: Option<String>,
    /// Only calls that are `queued`, `running` or `done`.
    state: Option<String>,
    /// Only those that ended like this.
    outcome: Option<String>,
    /// Only calls that failed and were not tried anew.
    #[serde(default)]
    dead: bool,
    /// Only calls older than this one.
    before: Option<String>,
    /// Most entries of the answer: 1 to 1000, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Go on behind the page before: its `next`.
    cursor: Option<String>,
}

/// `GET /v1/calls`
pub async fn list(
    State(context): State<Context>,
    Asked(query): Asked<ListQuery>,
) -> Result<Answer<Page<CallView>>, Refusal> {
    let word = |what: &str, text: String, all: Vec<&str>| {
        Refusal::invalid(format!("`{text}` is no {what} of a call"), format!("choose one of {}", all.join(", ")))
    };
    let state = query.state.map(|text| {
        CallState::from_recorded(&text)
            .ok_or_else(|| word("state", text, CallState::ALL.iter().map(|one| one.as_str()).collect()))
    });
    let outcome = query.outcome.map(|text| {
        CallOutcome::from_recorded(&text)
            .ok_or_else(|| word("outcome", text, CallOutcome::ALL.iter().map(|one| one.as_str()).collect()))
    });
    let app = query.app.map(|app| context.app_key(&app, query.environment.as_ref())).transpose()?;
    let function = optional_name("function", query.function.as_ref())?;
    if function.is_some() && app.is_none() {
        return Err(Refusal::invalid("a function is named, and no app", "name the app too"));
    }
    let limit = limit(query.limit)?;
    let before: Option<CallId> = query.before.map(|text| call_id(&text)).transpose()?;
    let filter = CallFilter {
        app,
        function,
        state: state.transpose()?,
        outcome: outcome.transpose()?,
        dead: query.dead,
        before: List::Calls.place(query.cursor.as_ref())?.or(before),
        limit: limit + 1,
    };
    Ok(Answer(List::Calls.page(context.engine().calls(filter).await?, limit, |call| call.call)))
}

pub(super) fn call_id(text: &str) -> Result<CallId, Refusal> {
    text.parse().map_err(|error: String| Refusal::invalid(error, "correct the identifier"))
}

/// How long to wait.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// Wait for the end of the call, at most so many seconds: 0 to 120.
    #[schemars(range(max = 120))]
    wait: Option<u64>,
}

impl WaitQuery {
    fn wait(&self) -> Result<Duration, Refusal> {
        match self.wait.unwrap_or(0) {
            wait if wait <= LONGEST_WAIT => Ok(Duration::from_secs(wait)),
            wait => Err(Refusal::invalid(
                format!("a wait of {wait} s is longer than {LONGEST_WAIT} s"),
                "wait less, and ask again",
            )),
        }
    }
}

/// `GET /v1/calls/{id}`
pub async fn one(
    State(context): State<Context>,
    id: Named,
    Asked(query): Asked<WaitQuery>,
) -> Result<Answer<CallDetail>, Refusal> {
    Ok(Answer(context.engine().call(call_id(&id.0)?, query.wait()?).await?))
}

/// How long to wait for a result.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultQuery {
    /// Wait for the end of the call, at most so many seconds: 0 to 120.
    #[schemars(range(max = 120))]
    wait: Option<u64>,
    /// Answer with the same address again while there is nothing: for clients that follow it by themselves.
    #[serde(default)]
    follow: bool,
}

/// `GET /v1/calls/{id}/result`
pub async fn result(
    State(context): State<Context>,
    id: Named,
    uri: Uri,
    Asked(query): Asked<ResultQuery>,
) -> Result<Response, Refusal> {
    let call = call_id(&id.0)?;
    let wait = WaitQuery { wait: query.wait }.wait()?;
    match context.engine().call_result(call, wait).await? {
        CallResultView::NotYet if query.follow && !wait.is_zero() => {
            let again = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
            Ok((StatusCode::SEE_OTHER, [(header::LOCATION, again)]).into_response())
        }
        CallResultView::Answer { media, bytes } => {
            let media = media.and_then(|media| HeaderValue::from_str(&media).ok());
            let media = media.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            Ok(([(header::CONTENT_TYPE, media)], Body::from(bytes)).into_response())
        }
        CallResultView::NotYet => Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("call {call} is not done"),
            "ask with `?wait=60`, or look at it with `landfall calls show`",
        )),
        CallResultView::None { outcome, error } => {
            let why = error.map(|error| format!(": {error}")).unwrap_or_default();
            Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("call {call} brought nothing back, it is {outcome}{why}"),
                format!(
                    "`landfall calls show {call}` shows its attempts, `landfall calls redrive {call}` tries it anew"
                ),
            ))
        }
        CallResultView::Expired => Err(Refusal::new(
            StatusCode::GONE,
            format!("the result of call {call} is expired: it is no longer kept"),
            "`retention.calls` says how long results are kept",
        )),
    }
}

/// `POST /v1/calls/{id}/cancel`
pub async fn cancel(State(context): State<Context>, caller: Caller, id: Named) -> Result<Answer<CallView>, Refusal> {
    Ok(Answer(context.engine().cancel_call(caller, call_id(&id.0)?).await?))
}

/// `POST /v1/calls/{id}/redrive`
pub async fn redrive(State(context): State<Context>, caller: Caller, id: Named) -> Result<Response, Refusal> {
    Ok(accepted(context.engine().redrive(caller, call_id(&id.0)?).await?))
}
