//! The routes of functions, web requests and services: how many instances, how much work, how it goes.

use axum::Json as Answer;
use axum::extract::State;

use super::calls::NamedFunction;
use super::extract::{Asked, Named, name};
use super::problem::Refusal;
use super::routes::{Context, InEnvironment, Reply};
use crate::domain::FunctionKey;
use crate::wire::functions::{FunctionDetail, FunctionView};
use crate::wire::services::ServiceView;
use crate::wire::traffic::ObjectTraffic;

/// `GET /v1/apps/{app}/functions`
pub async fn list(
    State(context): State<Context>,
    app: Named,
    Asked(query): Asked<InEnvironment>,
) -> Reply<Vec<FunctionView>> {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    Ok(Answer(context.engine().functions(key).await?))
}

/// `GET /v1/apps/{app}/requests`
pub async fn requests(
    State(context): State<Context>,
    app: Named,
    Asked(query): Asked<InEnvironment>,
) -> Reply<Vec<ObjectTraffic>> {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    Ok(Answer(context.engine().traffic(key).await?))
}

/// `GET /v1/apps/{app}/services`
pub async fn services(
    State(context): State<Context>,
    app: Named,
    Asked(query): Asked<InEnvironment>,
) -> Reply<Vec<ServiceView>> {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    Ok(Answer(context.engine().services(key).await?))
}

/// `GET /v1/apps/{app}/functions/{function}`
pub async fn one(
    State(context): State<Context>,
    named: NamedFunction,
    Asked(query): Asked<InEnvironment>,
) -> Result<Answer<FunctionDetail>, Refusal> {
    let app = context.app_key(&named.0, query.environment.as_ref())?;
    let key = FunctionKey::new(app, name("function", &named.1)?);
    Ok(Answer(context.engine().function_detail(key).await?))
}
