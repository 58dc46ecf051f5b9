//! Calls that last longer than their callers are kept waiting: they go on, and their callers are told where the result will be.
//!
//! ```text
//! waiting ──call_wait──► detaching ──the controller has it on record──► 303 to the result's address
//!    └─ answered ─►         └───── the call itself runs on all the while, once ─────►  ended, as a spawned one
//! ```
//!
//! Without a controller its caller waits on: an address that leads nowhere would be no answer. Invariant: a caller is told
//! an address only after the call is on record.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::{AttemptId, CallId, FunctionKey};
use crate::proxy::worker::Worker;
use crate::wire::calls::Detached;

use super::Ask;
use super::body::{Given, Upload};
use super::durable::see_through;
use super::serve::{Begun, Work};

/// Whoever follows asks for so many seconds at a time.
const ASK_FOR: u64 = 120;

/// A call on its way onto the record.
#[derive(Debug)]
pub struct Detaching {
    /// It.
    pub call: Detached,
    /// Ends it.
    pub cancelled: CancellationToken,
    /// Hears that it is on record.
    pub kept: oneshot::Sender<()>,
}

/// What a caller gets.
pub enum Waited {
    /// The function's answer, or the reason why there is none.
    Answered(Box<Begun>),
    /// The call goes on; its result will be kept.
    GoesOn,
}

/// Makes a call and waits for the head of its answer, at most as long as callers are kept waiting.
pub async fn wait(worker: &Rc<Worker>, ask: Ask, headers: HeaderMap, given: Given) -> Waited {
    let limit = worker.shared.settings.load().call_wait;
    let began = Instant::now();
    let upload = Rc::new(Upload::default());
    let created_at = Timestamp::now();
    let ask = Rc::new(ask);
    let mut work = Work::new(worker, Rc::clone(&ask), headers, given, Rc::clone(&upload));
    loop {
        match timeout(limit.max(Duration::from_millis(1)), &mut work).await {
            Ok(begun) => return Waited::Answered(Box::new(begun)),
            // What is still to come of its body comes from its caller.
            Err(_) if !upload.complete.get() => {}
            Err(_) => break,
        }
    }
    ask.kept.set(true);
    let attempt = AttemptId { call: ask.call, attempt: ask.attempt };
    let call = Detached {
        attempt,
        function: FunctionKey::new(ask.app.clone(), ask.function.clone()),
        version: ask.version,
        actor: ask.actor.clone().unwrap_or_default(),
        created_at,
    };
    let (told, on_record) = oneshot::channel();
    let cancelled = CancellationToken::new();
    let detaching = Detaching { call, cancelled: cancelled.clone(), kept: told };
    // The other end lives as long as the process.
    let _ = worker.shared.detaching.send(detaching);
    let shared = Arc::clone(&worker.shared);
    tokio::task::spawn_local(async move {
        let ended =
            see_through(work.into_mortal(), attempt, began.into_std(), cancelled, &shared.calls_directory).await;
        let _ = shared.ends.send(ended);
    });
    let _ = on_record.await;
    Waited::GoesOn
}

/// Where the result of a call that goes on will be.
pub fn elsewhere(call: CallId) -> Response<Bytes> {
    let place = format!("/v1/calls/{call}/result?wait={ASK_FOR}&follow=true");
    let text = format!("{{\"call\":\"{call}\",\"result\":\"{place}\"}}\n");
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(place) = HeaderValue::from_str(&place) {
        headers.insert(LOCATION, place);
    }
    response
}
