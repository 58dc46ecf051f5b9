//! Commands in instances: frames in the request's body, frames in the answer's ([`crate::wire::exec`]), both at once.
//!
//! ```text
//! client ─frames─► request body ─► channel of 8 ─► the program beside the instance
//!        ◄─frames─ answer body  ◄─ channel of 8 ◄─┘
//! ```
//!
//! Invariants: nothing is run before it is on record who runs it where; the command ends when the client goes, when the
//! agent ends, and when neither side has said anything for [`IDLE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::audit::word;
use super::extract::{Named, media_type};
use super::peer::{Asker, Peer};
use super::problem::Refusal;
use super::routes::{Context, Shared};
use crate::domain::{Access, AppKey};
use crate::engine::{Engine, NewEntry};
use crate::runtime::ExecStream;
use crate::wire::exec::{ExecEnd, Frame, Frames, MEDIA_TYPE};

/// Commands at once, for all apps together.
pub(super) const AT_ONCE: usize = 32;
/// What is to be run must be said within this time.
const START: Duration = Duration::from_secs(10);
/// How long what comes after a refusal is still taken, so that the sender gets to read why.
const DISCARD: Duration = Duration::from_secs(5);
/// A command of which nothing is heard and which nobody tells anything is ended after this long.
const IDLE: Duration = Duration::from_secs(3600);

/// The route, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/instances/{instance}/exec", post(exec))
}

async fn exec(
    State(context): Shared,
    Asker(access): Asker,
    peer: axum::Extension<Peer>,
    instance: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let mut asked = Asked { body, frames: Frames::default() };
    let kind = media_type(&headers);
    let (session, stream) = match begin(&context, access, peer.0, &instance.0, kind, &mut asked).await {
        Ok(begun) => begun,
        Err(refusal) => {
            // What is not read is an error to whoever sends it, who then does not get to read why.
            tokio::spawn(tokio::time::timeout(DISCARD, async move { while asked.next().await.is_some() {} }));
            return Err(refusal);
        }
    };
    let (answer, pieces) = mpsc::channel(1);
    tokio::spawn(session.carry(asked, stream, answer));
    let pieces = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    let body = Body::from_stream(pieces);
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// Reads what is to be run, records it, runs it.
async fn begin(
    context: &Context,
    access: Access,
    peer: Peer,
    instance: &str,
    kind: Option<&str>,
    asked: &mut Asked,
) -> Result<(Session, ExecStream), Refusal> {
    if kind != Some(MEDIA_TYPE) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is no sequence of frames",
            format!("send it with `content-type: {MEDIA_TYPE}`; `landfall instance exec` does"),
        ));
    }
    let place = Arc::clone(context.execs()).try_acquire_owned().map_err(|_| {
        let what = format!("{AT_ONCE} commands run in instances already");
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, what, "end one of them, or wait until one has ended")
    })?;
    let (app, found) = context.engine().instance(instance).await?;
    let start = match tokio::time::timeout(START, asked.next()).await {
        Ok(Some(Frame::Start(start))) => start,
        Ok(_) => {
            let what = "the first frame does not say what is to be run";
            return Err(Refusal::unreadable(what, "send a start frame first"));
        }
        Err(_) => {
            let what = format!("nothing was said within {} s", START.as_secs());
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, what, "send a start frame first"));
        }
    };
    let entry = NewEntry {
        actor: access.actor,
        via: word(&access.via),
        address: peer.address().map(|address| address.to_string()),
        action: "instance.exec".to_owned(),
        app: Some(app.clone()),
        detail: json!({"instance": instance, "command": start.command, "terminal": start.terminal.is_some()}),
        before: None,
    };
    // What cannot be recorded is not done.
    let engine = context.engine().clone();
    let entry = engine.audit_begin(entry).await?;
    match engine.exec(&found, start).await {
        Ok(stream) => {
            let session =
                Session { engine, entry, app, shutdown: context.shutdown(), _place: place, began: Instant::now() };
            Ok((session, stream))
        }
        Err(error) => {
            let refusal = Refusal::from(error);
            let result = json!({"status": refusal.status().as_u16(), "title": refusal.title()});
            engine.audit_end(entry, Some(app), None, result).await?;
            Err(refusal)
        }
    }
}

/// What the client says.
struct Asked {
    body: Body,
    frames: Frames,
}

impl Asked {
    /// The next frame; `None` once the client is gone, or says what makes no sense. May be dropped and called again.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "a client's frames for a command make no sense");
                    return None;
                }
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.extend(&data);
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

type Piece = Result<Bytes, std::convert::Infallible>;

/// A command under way, for the record of it.
struct Session {
    engine: Engine,
    entry: i64,
    app: AppKey,
    shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
    began: Instant,
}

impl Session {
    /// Hands frames on in both directions until there is nothing more to hand on, and records how it ended.
    async fn carry(self, asked: Asked, stream: ExecStream, answer: mpsc::Sender<Piece>) {
        let end = self.converse(asked, stream, &answer).await;
        let mut result = match &end {
            Ok(ExecEnd::Exited { code }) => json!({"status": 200, "exit_code": code}),
            Ok(ExecEnd::Killed { signal }) => json!({"status": 200, "signal": signal}),
            Ok(ExecEnd::Failed { code, message }) => json!({"status": 200, "code": code, "message": message}),
            Err(why) => json!({"status": 200, "message": why}),
        };
        result["seconds"] = json!(self.began.elapsed().as_secs());
        if let Err(error) = self.engine.audit_end(self.entry, Some(self.app), None, result).await {
            tracing::error!("what came of entry {} of the audit log could not be recorded: {error}", self.entry);
        }
    }

    /// How the command ended, or why nobody waited for it.
    async fn converse(
        &self,
        mut asked: Asked,
        mut stream: ExecStream,
        answer: &mpsc::Sender<Piece>,
    ) -> Result<ExecEnd, &'static str> {
        let mut heard = true;
        loop {
            let frame = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err("the agent ended"),
                () = answer.closed() => return Err("the client went away"),
                // Taken only while there is room for it: what waits holds the client back, not the answers.
                (permit, said) = async { (stream.input.reserve().await, asked.next().await) }, if heard => {
                    match (permit, said) {
                        (Ok(permit), Some(frame)) => permit.send(frame),
                        // A client may end its request and go on to listen.
                        (Ok(permit), None) => {
                            permit.send(Frame::InputEnd);
                            heard = false;
                        }
                        (Err(_), _) => heard = false,
                    }
                    continue;
                }
                frame = stream.output.recv() => frame,
                () = tokio::time::sleep(IDLE) => return Err("nothing was heard of it for an hour"),
            };
            let Some(frame) = frame else { return Err("nobody knows how it ended") };
            let Ok(bytes) = frame.encode() else { return Err("it said what cannot be handed on") };
            tokio::select! {
                () = self.shutdown.cancelled() => return Err("the agent ended"),
                sent = tokio::time::timeout(IDLE, answer.send(Ok(bytes.into()))) => match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err("the client went away"),
                    Err(_) => return Err("the client took nothing for an hour"),
                },
            }
            if let Frame::Ended(end) = frame {
                return Ok(end);
            }
        }
    }
}
