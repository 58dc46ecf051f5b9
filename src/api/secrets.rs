//! The routes of secrets. A value comes in and never goes out.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json as Answer, Router};
use serde::de::DeserializeOwned;

use super::extract::Json;
use super::problem::Refusal;
use super::routes::{Context, Empty, Reply, Shared};
use crate::engine::Caller;
use crate::wire::secrets as api;

/// The routes, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v1/secrets", get(list).post(set))
        .route("/v1/secrets/remove", post(remove))
        .route("/v1/secrets/rotate-key", post(rotate))
}

/// What a request asks for. What is wrong with it is not repeated: it may hold a value.
fn read<T: DeserializeOwned>(body: serde_json::Value) -> Result<T, Refusal> {
    serde_json::from_value(body).map_err(|_| {
        Refusal::unreadable(
            "the request about a secret cannot be read",
            "send {\"secret\": NAME, \"value\": TEXT}, with \"environment\" and \"app\" where they are meant; names hold a-z, 0-9 and -",
        )
    })
}

async fn list(State(context): Shared) -> Reply<Vec<api::Secret>> {
    Ok(Answer(context.engine().secrets().await?))
}

async fn set(State(context): Shared, caller: Caller, Json(body): Json<serde_json::Value>) -> Reply<api::Secret> {
    Ok(Answer(context.engine().set_secret(caller, read(body)?).await?))
}

async fn remove(
    State(context): Shared,
    caller: Caller,
    Json(body): Json<serde_json::Value>,
) -> Reply<serde_json::Value> {
    context.engine().remove_secret(caller, read(body)?).await?;
    Ok(Answer(serde_json::json!({})))
}

async fn rotate(State(context): Shared, caller: Caller, _: Json<Empty>) -> Reply<api::Rotated> {
    Ok(Answer(context.engine().rotate_secrets_key(caller).await?))
}
