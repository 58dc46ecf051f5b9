//! `GET /v1/certificates`.

use axum::Json as Answer;
use axum::Router;
use axum::extract::State;
use axum::routing::get;

use super::extract::Asked;
use super::routes::{Context, Nothing, Reply, Shared};
use crate::wire::certificates::Certificate;

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/certificates", get(list))
}

async fn list(State(context): Shared, _: Asked<Nothing>) -> Reply<Vec<Certificate>> {
    Ok(Answer(context.engine().certificates()))
}
