//! `POST /v1/hooks/<source>`: the only route that strangers reach.
//!
//! What a stranger can cost: a body that is not claimed to be signed is not read; one that is may be so long, take so
//! long, and share so much memory with all others under way. What is in it is looked at after its signature.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json as Answer, Router};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::extract::Named;
use super::problem::Refusal;
use crate::domain::HookOutcome;
use crate::engine::{Engine, Hook, HookAnswer};
use crate::source::hook::{Claim, ClaimError, MAX_BODY};
use crate::wire::api;

/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Memory for all bodies under way, in pages.
const PAGES: usize = 64 * 1024 * 1024 / PAGE;
const PAGE: usize = 16 * 1024;
/// Of a body that is too long so much is taken in and dropped, so that its sender gets to read the answer.
const DRAINED: usize = 4 * MAX_BODY;

/// What the route has.
#[derive(Clone)]
struct Desk {
    engine: Engine,
    pages: Arc<Semaphore>,
}

/// The route of push hooks.
pub fn routes<S: Clone + Send + Sync + 'static>(engine: Engine) -> Router<S> {
    let desk = Desk { engine, pages: Arc::new(Semaphore::new(PAGES)) };
    Router::new().route("/v1/hooks/{source}", post(hook)).with_state(desk)
}

async fn hook(State(desk): State<Desk>, source: Named, request: Request) -> Result<Response, Refusal> {
    let claim = Claim::of(request.headers()).map_err(unsigned)?;
    let (body, _pages) = take(request.into_body(), &desk.pages).await?;
    let hook = Hook { source: source.0, claim, body };
    // In a task of its own: a sender that hangs up must not part the record from what follows from it.
    let taken = tokio::spawn(async move { desk.engine.hook(hook).await });
    let answer = taken.await.map_err(|error| Refusal::internal(format!("a push hook broke off: {error}")))??;
    match answer {
        HookAnswer::Refused => Err(refused()),
        HookAnswer::Unreadable { what, mend } => Err(Refusal::unreadable(what, mend)),
        HookAnswer::Taken { source, outcome, message } => {
            let status = match outcome {
                HookOutcome::Accepted => StatusCode::ACCEPTED,
                HookOutcome::Ignored | HookOutcome::Deleted | HookOutcome::Ping => StatusCode::OK,
            };
            Ok((status, Answer(api::HookTaken { source, outcome, message })).into_response())
        }
    }
}

fn unsigned(error: ClaimError) -> Refusal {
    Refusal::refused(error.to_string(), error.mend())
}

/// One answer for all reasons: a stranger does not learn which sources there are.
fn refused() -> Refusal {
    Refusal::refused(
        "the push hook is refused: no source of this name takes hooks, or the signature is not right",
        "check the source's name in the address, give the source `webhook: {secret_files: [FILE]}`, and the forge the secret in that file; the agent's log says which it was",
    )
}

fn too_long() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is longer than {} MiB", MAX_BODY / (1024 * 1024)),
        "send push events only; polling finds what this one was about",
    )
}

/// Reads a body within its bounds. The memory it takes is given back with the permit.
async fn take(body: Body, pages: &Arc<Semaphore>) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    match tokio::time::timeout(ARRIVAL, collect(body, pages)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", ARRIVAL.as_secs()),
            "send it again",
        )),
    }
}

async fn collect(mut body: Body, pages: &Arc<Semaphore>) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    if body.size_hint().lower() > DRAINED as u64 {
        return Err(too_long());
    }
    let (mut whole, mut length) = (BytesMut::new(), 0_usize);
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Refusal::unreadable(format!("the body broke off: {error}"), "send it again"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > DRAINED {
            break;
        }
        if length > MAX_BODY {
            (whole, held) = (BytesMut::new(), None);
            continue;
        }
        reserve(&mut held, length.div_ceil(PAGE), pages)?;
        whole.extend_from_slice(&data);
    }
    if length > MAX_BODY { Err(too_long()) } else { Ok((whole.freeze(), held)) }
}

/// Holds as many pages as are needed, or says at once that there are none: waiting would only add to the crowd.
fn reserve(held: &mut Option<OwnedSemaphorePermit>, needed: usize, pages: &Arc<Semaphore>) -> Result<(), Refusal> {
    let missing = needed.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
    if missing == 0 {
        return Ok(());
    }
    let count = u32::try_from(missing).unwrap_or(u32::MAX);
    let Ok(more) = Arc::clone(pages).try_acquire_many_owned(count) else {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many push hooks at once", "send it again"));
    };
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}
