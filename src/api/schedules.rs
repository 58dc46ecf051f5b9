//! The routes of schedules.

use axum::extract::{FromRequestParts, Path, State};
use axum::routing::{get, post};
use axum::{Json as Answer, Router};
use http::request::Parts;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::extract::{Asked, Json, name, optional_name};
use super::pages::List;
use super::problem::Refusal;
use super::routes::{Context, Empty, InEnvironment, Reply, Shared, limit};
use crate::domain::{AppKey, AppName, CallOutcome, EnvironmentName, FunctionKey, ObjectName};
use crate::engine::Caller;
use crate::wire::api::{Page, SuspendRequest};
use crate::wire::schedules as api;

/// The routes, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v1/schedules", get(list))
        .route("/v1/apps/{app}/schedules/{function}", get(show))
        .route("/v1/apps/{app}/schedules/{function}/runs", get(runs))
        .route("/v1/apps/{app}/schedules/{function}/output", get(output))
        .route("/v1/apps/{app}/schedules/{function}/run", post(run))
        .route("/v1/apps/{app}/schedules/{function}/pause", post(pause))
        .route("/v1/apps/{app}/schedules/{function}/resume", post(resume))
}

/// App and function of a request's path.
struct InPath {
    app: AppName,
    function: ObjectName,
}

impl InPath {
    fn key(self, context: &Context, environment: Option<&String>) -> Result<FunctionKey, Refusal> {
        Ok(FunctionKey::new(AppKey::new(context.environment(environment)?, self.app), self.function))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((app, function))) => Ok(Self { app: name("app", &app)?, function: name("function", &function)? }),
            Err(error) => Err(Refusal::unreadable(
                format!("the path cannot be read: {}", error.body_text()),
                "write names with a-z, 0-9 and - only",
            )),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Only this app.
    app: Option<String>,
}

async fn list(State(context): Shared, Asked(query): Asked<ListQuery>) -> Reply<Vec<api::Schedule>> {
    let environment: Option<EnvironmentName> = optional_name("environment", query.environment.as_ref())?;
    let app: Option<AppName> = optional_name("app", query.app.as_ref())?;
    let wanted = |key: &AppKey| {
        environment.as_ref().is_none_or(|name| *name == key.environment)
            && app.as_ref().is_none_or(|name| *name == key.app)
    };
    let all = context.engine().schedules().await?;
    Ok(Answer(all.into_iter().filter(|(key, _)| wanted(key)).map(|(_, schedule)| schedule).collect()))
}

async fn show(State(context): Shared, path: InPath, Asked(query): Asked<InEnvironment>) -> Reply<api::Schedule> {
    let function = path.key(&context, query.environment.as_ref())?;
    Ok(Answer(context.engine().schedule(&function).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Most entries of the answer: 1 to 1000, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Go on behind the page before: its `next`.
    cursor: Option<String>,
    /// Only runs of earlier instants.
    before: Option<Timestamp>,
    /// Only those that ended like this.
    outcome: Option<CallOutcome>,
}

async fn runs(State(context): Shared, path: InPath, Asked(query): Asked<RunsQuery>) -> Reply<Page<api::Run>> {
    let function = path.key(&context, query.environment.as_ref())?;
    let limit = limit(query.limit)?;
    let before = List::Runs.place(query.cursor.as_ref())?.or(query.before);
    let found = context.engine().schedule_runs(function, before, query.outcome, limit + 1).await?;
    Ok(Answer(List::Runs.page(found, limit, |run| run.scheduled_at)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// The instant of the run.
    at: Timestamp,
}

async fn output(State(context): Shared, path: InPath, Asked(query): Asked<OutputQuery>) -> Reply<api::RunOutput> {
    let function = path.key(&context, query.environment.as_ref())?;
    Ok(Answer(context.engine().run_output(function, query.at).await?))
}

async fn run(
    State(context): Shared,
    caller: Caller,
    path: InPath,
    Asked(query): Asked<InEnvironment>,
    _: Json<Empty>,
) -> Reply<api::RunStarted> {
    let function = path.key(&context, query.environment.as_ref())?;
    Ok(Answer(context.engine().run_schedule(caller, function).await?))
}

async fn pause(
    State(context): Shared,
    caller: Caller,
    path: InPath,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<SuspendRequest>,
) -> Reply<api::Schedule> {
    let function = path.key(&context, query.environment.as_ref())?;
    Ok(Answer(context.engine().pause_schedule(caller, function, request).await?))
}

async fn resume(
    State(context): Shared,
    caller: Caller,
    path: InPath,
    Asked(query): Asked<InEnvironment>,
    _: Json<Empty>,
) -> Reply<api::Schedule> {
    let function = path.key(&context, query.environment.as_ref())?;
    Ok(Answer(context.engine().resume_schedule(caller, function).await?))
}
