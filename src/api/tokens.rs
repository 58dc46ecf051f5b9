//! The routes of tokens.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json as Answer, Router};

use super::extract::{Asked, Json, Named};
use super::problem::Refusal;
use super::routes::{Context, Empty, Nothing, Reply, Shared};
use crate::engine::Caller;
use crate::wire::tokens::{Token, TokenMade, TokenRequest};

/// The routes, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/tokens", get(list).post(create)).route("/v1/tokens/{token}/revoke", post(revoke))
}

async fn list(State(context): Shared, _: Asked<Nothing>) -> Reply<Vec<Token>> {
    Ok(Answer(context.engine().tokens().await?))
}

async fn create(State(context): Shared, caller: Caller, Json(request): Json<Option<TokenRequest>>) -> Reply<TokenMade> {
    let request = request.ok_or_else(|| Refusal::unreadable("the body is empty", "name the token and its scope"))?;
    Ok(Answer(context.engine().create_token(caller, request).await?))
}

async fn revoke(State(context): Shared, caller: Caller, token: Named, _: Json<Empty>) -> Reply<Token> {
    Ok(Answer(context.engine().revoke_token(caller, &token.0).await?))
}
