//! The route about how two versions differ.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json as Answer, Router};
use schemars::JsonSchema;
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

/// What is compared.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// The environment; the agent's own where none is named.
    environment: Option<String>,
    /// Without the text of the differences.
    #[serde(default)]
    stat: bool,
}

/// `3` or `v3`.
pub(super) fn version(text: &str) -> Result<VersionNumber, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(error, "name a version of the app's history"))
}

async fn diff(
    State(context): Shared,
    path: Result<Path<(String, String, String)>, PathRejection>,
    Asked(query): Asked<DiffQuery>,
) -> Reply<VersionDiff> {
    let Path((app, from, to)) = path.map_err(|error| {
        let title = format!("the path cannot be read: {}", error.body_text());
        Refusal::unreadable(title, "write names with a-z, 0-9 and - only")
    })?;
    let key = context.app_key(&app, query.environment.as_ref())?;
    Ok(Answer(context.engine().diff(key, version(&from)?, version(&to)?, query.stat).await?))
}
