//! The routes: each reads its request, asks the engine, and passes on what it says.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json as Answer, Router, middleware};
use http::{Method, StatusCode, Uri};
use hyper::body::Body as _;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::extract::{Asked, Json, Named, media_type, name, optional_name};
use super::guard::{Gate, guard};
use super::pages::List;
use super::peer::Asker;
use super::places::{InLog, InStates, Resumed, mark};
use super::problem::Refusal;
use super::proxies::Proxies;
use super::{
    audit, call_records, calls, certificates, dashboard, diffs, events, exec, facts, functions, hooks, map, metrics,
    oidc, openapi, schedules, secrets, session, tokens, upload,
};
use crate::domain::{AppKey, CallId, DeploymentId, EnvironmentName, VersionNumber};
use crate::engine::{Caller, Engine, LogQuery};
use crate::wire::api::{self, Page};

/// How many uploads are taken at once; each may fill half a gigabyte of disk.
const UPLOADS: usize = 4;
/// Entries of a list when the caller names no number, and the most it may name.
const LIMIT: (u32, u32) = (100, 1000);

/// What every route has.
#[derive(Debug, Clone)]
pub struct Context {
    engine: Engine,
    shutdown: CancellationToken,
    uploads: Arc<Semaphore>,
    execs: Arc<Semaphore>,
    proxies: Arc<Proxies>,
}

pub(super) type Reply<T> = Result<Answer<T>, Refusal>;
pub(super) type Shared = State<Context>;

/// All routes, behind the guard.
pub fn router(engine: Engine, shutdown: CancellationToken) -> Router {
    let gate = Gate::new(engine.clone());
    let context = Context::new(engine, shutdown);
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/v1/status", get(status))
        .route("/v1/apps", get(apps))
        .route("/v1/apps/{app}", get(app))
        .route("/v1/apps/{app}/versions", get(versions))
        .route("/v1/apps/{app}/deployments", get(deployments))
        .route("/v1/apps/{app}/logs", get(logs))
        .route("/v1/apps/{app}/rollback", post(rollback))
        .route("/v1/apps/{app}/release", post(release))
        .route("/v1/apps/{app}/rollover", post(rollover))
        .route("/v1/apps/{app}/suspend", post(suspend))
        .route("/v1/apps/{app}/resume", post(resume))
        .route("/v1/apps/{app}/stop", post(stop))
        .route("/v1/apps/{app}/scale", post(calls::scale))
        .route("/v1/apps/{app}/requests", get(functions::requests))
        .route("/v1/apps/{app}/services", get(functions::services))
        .route("/v1/apps/{app}/functions", get(functions::list))
        .route("/v1/apps/{app}/functions/{function}", get(functions::one))
        .route("/v1/apps/{app}/functions/{function}/call", post(calls::call))
        .route("/v1/apps/{app}/functions/{function}/spawn", post(call_records::spawn))
        .route("/v1/apps/{app}/functions/{function}/map", post(map::map))
        .route("/v1/calls", get(call_records::list))
        .route("/v1/calls/{call}", get(call_records::one))
        .route("/v1/calls/{call}/result", get(call_records::result))
        .route("/v1/calls/{call}/logs", get(logs_of_call))
        .route("/v1/calls/{call}/cancel", post(call_records::cancel))
        .route("/v1/calls/{call}/redrive", post(call_records::redrive))
        .route("/v1/deploy", post(deploy))
        .route("/v1/deployments/{deployment}", get(deployment))
        .route("/v1/deployments/{deployment}/events", get(follow_deployment))
        .route("/v1/sources", get(sources))
        .route("/v1/sources/{source}", get(source))
        .route("/v1/sources/{source}/sync", post(sync))
        .route("/v1/sources/{source}/approve", post(approve))
        .merge(hooks::routes(context.engine.clone()))
        .merge(schedules::routes())
        .merge(audit::routes())
        .merge(tokens::routes())
        .merge(session::routes(gate.clone()))
        .merge(oidc::routes(gate.clone()))
        .merge(secrets::routes())
        .merge(certificates::routes())
        .merge(openapi::routes())
        .merge(dashboard::routes())
        .merge(diffs::routes())
        .merge(exec::routes())
        .route("/v1/sources/{source}/suspend", post(suspend_source))
        .route("/v1/sources/{source}/resume", post(resume_source))
        .route("/v1/channels", get(channels))
        .route("/v1/channels/{channel}/test", post(test_channel))
        .route("/v1/plan", get(plan))
        .route("/v1/instances", get(instances))
        .route("/v1/instances/{instance}/stop", post(stop_instance))
        .route("/v1/events", get(facts::list))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(dashboard::remember))
        .layer(middleware::from_fn_with_state(gate.clone(), audit::record))
        .layer(middleware::from_fn_with_state(gate, guard))
        .layer(middleware::from_fn(dashboard::dress))
        .with_state(context)
}

pub(super) async fn no_route(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no {path} in this API"), "all routes begin with /v1")
}

pub(super) async fn no_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
        "use one of the methods in the `allow` header of this answer",
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InEnvironment {
    /// The environment; the agent's own where none is named.
    pub(super) environment: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl Context {
    /// What the routes of one listener share.
    pub fn new(engine: Engine, shutdown: CancellationToken) -> Self {
        Self {
            engine,
            shutdown,
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            execs: Arc::new(Semaphore::new(exec::AT_ONCE)),
            proxies: Arc::default(),
        }
    }

    /// Cancelled when the agent ends.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Commands that may run in instances at once.
    pub(super) fn execs(&self) -> &Arc<Semaphore> {
        &self.execs
    }

    /// Connections to the proxies.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    pub(super) fn environment(&self, text: Option<&String>) -> Result<EnvironmentName, Refusal> {
        Ok(optional_name("environment", text)?.unwrap_or_else(|| self.engine.environment()))
    }

    fn key(&self, app: &Named, environment: Option<&String>) -> Result<AppKey, Refusal> {
        self.app_key(&app.0, environment)
    }

    /// The app of that name in the named environment, else in the agent's own.
    pub fn app_key(&self, app: &str, environment: Option<&String>) -> Result<AppKey, Refusal> {
        Ok(AppKey::new(self.environment(environment)?, name("app", app)?))
    }
}

pub(super) fn limit(asked: Option<u32>) -> Result<u32, Refusal> {
    let (usual, most) = LIMIT;
    match asked.unwrap_or(usual) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        other => Err(Refusal::unreadable(format!("the limit {other} is not between 1 and {most}"), "choose another")),
    }
}

async fn status(State(context): Shared, _: Asked<Nothing>) -> Reply<api::Status> {
    Ok(Answer(context.engine.status().await?))
}

async fn apps(
    State(context): Shared,
    Asker(access): Asker,
    Asked(query): Asked<InEnvironment>,
) -> Reply<Vec<api::App>> {
    let environment = optional_name("environment", query.environment.as_ref())?;
    let mut apps = context.engine.apps(environment).await?;
    apps.retain(|app| access.sees(&AppKey::new(app.environment.clone(), app.app.clone())));
    Ok(Answer(apps))
}

async fn app(State(context): Shared, app: Named, Asked(query): Asked<InEnvironment>) -> Reply<api::App> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.app(key).await?))
}

async fn versions(State(context): Shared, app: Named, Asked(query): Asked<PagesQuery>) -> Reply<Page<api::Version>> {
    let key = context.key(&app, query.environment.as_ref())?;
    let (limit, before) = (limit(query.limit)?, List::Versions.place(query.cursor.as_ref())?);
    let found = context.engine.versions_before(key, before, limit + 1).await?;
    Ok(Answer(List::Versions.page(found, limit, |version| version.version)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PagesQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Most entries of the answer: 1 to 1000, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Go on behind the page before: its `next`.
    cursor: Option<String>,
}

async fn deployments(
    State(context): Shared,
    app: Named,
    Asked(query): Asked<PagesQuery>,
) -> Reply<Page<api::Deployment>> {
    let key = context.key(&app, query.environment.as_ref())?;
    let (limit, before) = (limit(query.limit)?, List::Deployments.place(query.cursor.as_ref())?);
    let found = context.engine.deployments(key, before.map(DeploymentId), limit + 1).await?;
    Ok(Answer(List::Deployments.page(found, limit, |deployment| deployment.id)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Go on with what comes.
    #[serde(default)]
    follow: bool,
    /// Not older than this.
    since: Option<Timestamp>,
    /// Not newer than this.
    until: Option<Timestamp>,
    /// Only the last so many lines of what is there already.
    tail: Option<usize>,
    /// Only this object (`build` for builds).
    object: Option<String>,
    /// Only this version: `3` or `v3`.
    version: Option<String>,
    /// Only this instance.
    instance: Option<String>,
    /// Only `stdout`, `stderr` or `system`.
    source: Option<String>,
    /// Only what was written in this call.
    call: Option<String>,
}

impl LogsQuery {
    fn check(self) -> Result<LogQuery, Refusal> {
        let version = self.version.map(|text| text.parse::<VersionNumber>()).transpose();
        let version = version.map_err(|error| Refusal::invalid(error, "name a version of the app's history"))?;
        let call = self.call.map(|text| text.parse::<CallId>()).transpose();
        let call = call.map_err(|error| Refusal::invalid(error, "correct the identifier"))?;
        if let Some(source) = self.source.as_deref().filter(|source| !matches!(*source, "stdout" | "stderr" | "system"))
        {
            let title = format!("`{source}` is no source of log lines");
            return Err(Refusal::invalid(title, "choose stdout, stderr or system"));
        }
        Ok(LogQuery {
            follow: self.follow,
            since: self.since,
            until: self.until,
            tail: self.tail,
            object: self.object,
            version,
            instance: self.instance,
            source: self.source,
            call,
            after: None,
        })
    }
}

async fn logs(
    State(context): Shared,
    app: Named,
    resumed: Resumed,
    Asked(query): Asked<LogsQuery>,
) -> Result<Response, Refusal> {
    let key = context.key(&app, query.environment.as_ref())?;
    let after = resumed.read()?;
    let lines = context.engine.logs(key, LogQuery { after, ..query.check()? }).await?;
    Ok(events::answer(lines, InLog::after(after), context.shutdown))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CallLogsQuery {
    /// Go on with what comes, until the call is done.
    #[serde(default)]
    follow: bool,
}

/// What a call wrote, in all its attempts.
async fn logs_of_call(
    State(context): Shared,
    call: Named,
    resumed: Resumed,
    Asked(query): Asked<CallLogsQuery>,
) -> Result<Response, Refusal> {
    let after = resumed.read()?;
    let call = call_records::call_id(&call.0)?;
    let made = context.engine.call(call, std::time::Duration::ZERO).await?.call;
    let object = Some(made.function.to_string());
    let since = Some(made.created_at);
    let wanted = LogQuery { follow: query.follow, object, call: Some(call), since, after, ..LogQuery::default() };
    let lines = context.engine.logs(AppKey::new(made.environment, made.app), wanted).await?;
    Ok(events::answer(lines, InLog::after(after), context.shutdown))
}

async fn rollback(
    State(context): Shared,
    caller: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<api::RollbackRequest>,
) -> Reply<api::Accepted> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.rollback(caller, key, request).await?))
}

async fn release(
    State(context): Shared,
    caller: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<api::ReleaseRequest>,
) -> Reply<api::Accepted> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.release(caller, key, request).await?))
}

async fn rollover(
    State(context): Shared,
    caller: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<api::ReasonRequest>,
) -> Reply<api::Accepted> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.rollover(caller, key, request).await?))
}

async fn suspend(
    State(context): Shared,
    caller: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<api::SuspendRequest>,
) -> Reply<api::App> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.suspend(caller, key, request).await?))
}

async fn resume(
    State(context): Shared,
    caller: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    _: Json<Empty>,
) -> Reply<api::App> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.resume(caller, key).await?))
}

async fn stop(
    State(context): Shared,
    caller: Caller,
    app: Named,
    Asked(query): Asked<InEnvironment>,
    Json(request): Json<api::ReasonRequest>,
) -> Reply<api::Accepted> {
    let key = context.key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine.stop(caller, key, request).await?))
}

/// The body of a change that has nothing to say.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Why, in the caller's words.
    reason: Option<String>,
}

async fn deploy(
    State(context): Shared,
    caller: Caller,
    Asked(query): Asked<DeployQuery>,
    request: Request,
) -> Reply<api::Accepted> {
    let environment = context.environment(query.environment.as_ref())?;
    if !matches!(media_type(request.headers()), None | Some("application/x-tar" | "application/octet-stream")) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not marked as a tar archive",
            "send the archive, not compressed, with `content-type: application/x-tar`",
        ));
    }
    if request.body().size_hint().lower() > api::MAX_UPLOAD {
        return Err(upload::too_large());
    }
    // In a task of its own: a caller that goes away must not stop the clean-up, nor a deploy that has begun.
    let carried_out = tokio::spawn(carry_out(context, caller, environment, query.reason, request));
    carried_out.await.unwrap_or_else(|error| Err(Refusal::internal(format!("a deploy broke off: {error}"))))
}

async fn carry_out(
    context: Context,
    caller: Caller,
    environment: EnvironmentName,
    reason: Option<String>,
    request: Request,
) -> Reply<api::Accepted> {
    let Ok(_turn) = context.uploads.try_acquire() else {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{UPLOADS} uploads are under way already"),
            "try again when one has ended",
        ));
    };
    let directory = upload::receive(request.into_body(), &context.engine.upload_dir()).await?;
    let place = directory.path().to_owned();
    let accepted = context.engine.deploy(caller, environment, place, reason).await;
    upload::remove(directory).await;
    Ok(Answer(accepted?))
}

fn deployment_id(text: &Named) -> Result<DeploymentId, Refusal> {
    match text.0.parse() {
        Ok(id) => Ok(DeploymentId(id)),
        Err(_) => Err(Refusal::invalid("the identifier of a deployment is a number", "correct it")),
    }
}

async fn deployment(State(context): Shared, id: Named, _: Asked<Nothing>) -> Reply<api::Deployment> {
    Ok(Answer(context.engine.deployment(deployment_id(&id)?).await?))
}

async fn follow_deployment(
    State(context): Shared,
    id: Named,
    Resumed(known): Resumed,
    _: Asked<Nothing>,
) -> Result<Response, Refusal> {
    let mut states = context.engine.follow_deployment(deployment_id(&id)?).await?;
    let Some(known) = known else { return Ok(events::answer(states, InStates, context.shutdown)) };
    // The state that the caller has seen is not said again.
    let (sender, rest) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut known = Some(known);
        while let Some(state) = states.recv().await {
            let is_known = known.take().is_some_and(|known| known == mark(&state));
            if !is_known && sender.send(state).await.is_err() {
                return;
            }
        }
    });
    Ok(events::answer(rest, InStates, context.shutdown))
}

async fn sources(State(context): Shared, _: Asked<Nothing>) -> Reply<Vec<api::Source>> {
    Ok(Answer(context.engine.sources().await?))
}

async fn sync(State(context): Shared, caller: Caller, source: Named, _: Json<Empty>) -> Reply<api::Source> {
    let source = name("source", &source.0)?;
    Ok(Answer(context.engine.sync(caller, source).await?))
}

async fn approve(
    State(context): Shared,
    caller: Caller,
    source: Named,
    Json(request): Json<api::ApproveRequest>,
) -> Reply<api::Approved> {
    let source = name("source", &source.0)?;
    Ok(Answer(context.engine.approve(caller, source, request).await?))
}

async fn source(State(context): Shared, source: Named, _: Asked<Nothing>) -> Reply<api::Source> {
    let source = name("source", &source.0)?;
    Ok(Answer(context.engine.source(&source).await?))
}

async fn suspend_source(
    State(context): Shared,
    caller: Caller,
    source: Named,
    Json(request): Json<api::SuspendRequest>,
) -> Reply<api::Source> {
    let source = name("source", &source.0)?;
    Ok(Answer(context.engine.suspend_source(caller, source, request).await?))
}

async fn resume_source(State(context): Shared, caller: Caller, source: Named, _: Json<Empty>) -> Reply<api::Source> {
    let source = name("source", &source.0)?;
    Ok(Answer(context.engine.resume_source(caller, source).await?))
}

async fn channels(State(context): Shared, _: Asked<Nothing>) -> Reply<Vec<api::Channel>> {
    Ok(Answer(context.engine.channels().await?))
}

async fn test_channel(State(context): Shared, channel: Named, _: Json<Empty>) -> Reply<api::ChannelTested> {
    Ok(Answer(context.engine.test_channel(&channel.0).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    /// Only this source.
    source: Option<String>,
}

async fn plan(State(context): Shared, Asked(query): Asked<PlanQuery>) -> Reply<Vec<api::PlanItem>> {
    let source = optional_name("source", query.source.as_ref())?;
    Ok(Answer(context.engine.plan(source).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InstancesQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Only this app.
    app: Option<String>,
}

async fn instances(State(context): Shared, Asked(query): Asked<InstancesQuery>) -> Reply<Vec<api::Instance>> {
    let environment = optional_name("environment", query.environment.as_ref())?;
    let app = optional_name("app", query.app.as_ref())?;
    Ok(Answer(context.engine.instances(environment, app).await?))
}

async fn stop_instance(State(context): Shared, _: Caller, instance: Named, _: Json<Empty>) -> Reply<api::Instance> {
    Ok(Answer(context.engine.stop_instance(&instance.0).await?))
}
