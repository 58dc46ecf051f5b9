//! The route about how two versions differ.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json as Answer, Router};
use serde::Deserialize;

use super::extract::Asked;
use super::problem::Refusal;
use super::routes::{Context, Reply, Shared};
use crate::domain::VersionNumber;
use crate::wire::diffs::VersionDiff;

/// The routes, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/apps/{app}/versions/{from}/diff/{to}", get(diff))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    environment: Option<String>,
    #[serde(default)]
    stat: bool,
}

/// `3` or `v3`.
pub(super) fn version(text: &str) -> Result<VersionNumber, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(error, "name a version of the app's history"))
}

async fn diff(
    State(context): Shared,
    Path((app, from, to)): Path<(String, String, String)>,
    Asked(query): Asked<DiffQuery>,
) -> Reply<VersionDiff> {
    let key = context.app_key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine().diff(key, version(&from)?, version(&to)?, query.stat).await?))
}
