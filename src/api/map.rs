//! Many bodies at once: each line of the request is a call, each line of the answer what became of one.
//!
//! ```text
//! request ──lines──► spawned (at most `in_flight` open) ──done──► answer, in the order asked for
//! ```
//!
//! Every call is recorded before it runs, so whoever loses the connection finds them with `landfall calls list`.
//! Invariant: no more than `in_flight` calls are open, no line is read before there is a place for it, and every line
//! that was read is answered by exactly one.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::call_records::which;
use super::calls::NamedFunction;
use super::extract::Asked;
use super::problem::Refusal;
use super::routes::Context;
use crate::domain::{CallError, CallId, FunctionKey, Trigger, VersionNumber};
use crate::engine::{CallResultView, Caller, Engine, SpawnRequest};
use crate::wire::call_views::Mapped;

/// Calls that are open at once when the caller names no number, and the most it may name.
const IN_FLIGHT: (usize, usize) = (64, 1000);
/// The sender may be silent so long while there is a place for another line.
const SILENCE: Duration = Duration::from_secs(150);
/// One look at a call waits so long; then another begins.
const ONE_WAIT: Duration = Duration::from_secs(60);
/// Lines of the answer that may wait for a slow reader.
const LINES: usize = 64;

/// What is mapped, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapQuery {
    /// The app's environment.
    pub environment: Option<String>,
    /// The version whose code is to run.
    pub version: Option<String>,
    /// `input` or `completed`.
    pub order: Option<String>,
    /// Calls that are open at once.
    #[schemars(range(min = 1, max = 1000))]
    pub in_flight: Option<usize>,
}

/// `POST /v1/apps/{app}/functions/{function}/map`
pub async fn map(
    State(context): State<Context>,
    caller: Caller,
    named: NamedFunction,
    Asked(query): Asked<MapQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let (function, version) = which(&context, &named, query.environment.as_ref(), query.version)?;
    let ordered = match query.order.as_deref() {
        None | Some("input") => true,
        Some("completed") => false,
        Some(other) => {
            let title = format!("`{other}` is no order of results");
            return Err(Refusal::invalid(title, "choose `input` or `completed`"));
        }
    };
    let (usual, most) = IN_FLIGHT;
    let in_flight = query.in_flight.unwrap_or(usual);
    if !(1..=most).contains(&in_flight) {
        let title = format!("{in_flight} calls at once are not between 1 and {most}");
        return Err(Refusal::invalid(title, "choose another number for `in_flight`"));
    }
    let engine = context.engine().clone();
    let limit = usize::try_from(engine.max_body(&caller.scope, &function, version).await?).unwrap_or(usize::MAX);
    let lines = Lines { body: request.into_body(), buffer: BytesMut::new(), limit, over: false };
    let (sender, receiver) = mpsc::channel(LINES);
    let one = One { engine, caller, function, version };
    tokio::spawn(async move { Mapping { one, in_flight, ordered, sender }.run(lines).await });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let mapped: Mapped = receiver.recv().await?;
        let mut line = serde_json::to_vec(&mapped).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

/// The lines of a body.
struct Lines {
    body: Body,
    buffer: BytesMut,
    limit: usize,
    over: bool,
}

impl Lines {
    /// The next line that is not empty; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(at + 1).freeze();
                let line = trimmed(&line);
                if line.is_empty() {
                    continue;
                }
                return Some(Ok(line));
            }
            if self.buffer.len() > self.limit {
                self.over = true;
                self.buffer.clear();
                let words = format!("a line is longer than the {} bytes the function takes", self.limit);
                return Some(Err(CallError::new("too_large", words)));
            }
            if self.over {
                let rest = trimmed(&self.buffer.split().freeze());
                return (!rest.is_empty()).then_some(Ok(rest));
            }
            match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Ok(None) => self.over = true,
                Ok(Some(Err(error))) => return self.broken(format!("the body broke off: {error}")),
                Err(_) => return self.broken(format!("no line came for {} s", SILENCE.as_secs())),
            }
        }
    }

    fn broken(&mut self, words: String) -> Option<Result<Bytes, CallError>> {
        self.over = true;
        self.buffer.clear();
        Some(Err(CallError::new("body", words)))
    }
}

fn trimmed(line: &Bytes) -> Bytes {
    line.slice_ref(line.trim_ascii())
}

/// What carries one line out.
#[derive(Clone)]
struct One {
    engine: Engine,
    caller: Caller,
    function: FunctionKey,
    version: Option<VersionNumber>,
}

impl One {
    async fn spawn(&self, body: Bytes) -> Result<CallId, CallError> {
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
            return Err(CallError::new("invalid", format!("the line is not JSON: {error}")));
        }
        let request = SpawnRequest {
            function: self.function.clone(),
            version: self.version,
            trigger: Trigger::Map,
            media: Some("application/json".to_owned()),
            body,
            key: None,
        };
        let spawned = self.engine.spawn(self.caller.clone(), request).await;
        spawned.map(|spawned| spawned.call).map_err(|error| CallError::new("refused", error.to_string()))
    }

    /// Spawns a line and waits for its end.
    async fn carry_out(self, index: u64, line: Bytes) -> Mapped {
        let empty = Mapped { index, call: None, outcome: None, result: None, error: None };
        let call = match self.spawn(line).await {
            Ok(call) => call,
            Err(error) => return Mapped { error: Some(error), ..empty },
        };
        let mapped = Mapped { call: Some(call), ..empty };
        loop {
            match self.engine.call_result(call, ONE_WAIT).await {
                Ok(CallResultView::NotYet) => {}
                Ok(CallResultView::Answer { bytes, .. }) => {
                    let text = || serde_json::Value::String(String::from_utf8_lossy(&bytes).into_owned());
                    let result = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
                    let outcome = Some(crate::domain::CallOutcome::Succeeded);
                    return Mapped { outcome, result: Some(result), ..mapped };
                }
                Ok(CallResultView::None { outcome, error }) => {
                    return Mapped { outcome: Some(outcome), error, ..mapped };
                }
                Ok(CallResultView::Expired) => {
                    return Mapped { error: Some(CallError::new("expired", "the result is no longer kept")), ..mapped };
                }
                Err(error) => {
                    return Mapped { error: Some(CallError::new("unavailable", error.to_string())), ..mapped };
                }
            }
        }
    }
}

struct Mapping {
    one: One,
    in_flight: usize,
    ordered: bool,
    sender: mpsc::Sender<Mapped>,
}

impl Mapping {
    async fn run(self, mut lines: Lines) {
        let mut open = JoinSet::new();
        let mut results = Results { ordered: self.ordered, next: 0, waiting: BTreeMap::new() };
        let (mut index, mut more) = (0_u64, true);
        while more || !open.is_empty() {
            // In order, what is done and waits for its turn has a place too: otherwise it had no bound.
            let place = open.len() + results.waiting.len() < self.in_flight;
            let ready = tokio::select! {
                line = lines.next(), if more && place => match line {
                    Some(Ok(line)) => {
                        open.spawn(self.one.clone().carry_out(index, line));
                        index += 1;
                        VecDeque::new()
                    }
                    Some(Err(error)) => {
                        let mapped = Mapped { index, call: None, outcome: None, result: None, error: Some(error) };
                        index += 1;
                        results.add(mapped)
                    }
                    None => {
                        more = false;
                        VecDeque::new()
                    }
                },
                Some(Ok(mapped)) = open.join_next() => results.add(mapped),
                // Whoever asked has gone: the calls that were made stand, no more are.
                () = self.sender.closed() => return,
            };
            for mapped in ready {
                if self.sender.send(mapped).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Results until it is their turn.
struct Results {
    ordered: bool,
    next: u64,
    waiting: BTreeMap<u64, Mapped>,
}

impl Results {
    /// Takes one in; answers those whose turn it is.
    fn add(&mut self, mapped: Mapped) -> VecDeque<Mapped> {
        if !self.ordered {
            return VecDeque::from([mapped]);
        }
        self.waiting.insert(mapped.index, mapped);
        let mut ready = VecDeque::new();
        while let Some(mapped) = self.waiting.remove(&self.next) {
            self.next += 1;
            ready.push_back(mapped);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(index: u64) -> Mapped {
        Mapped { index, call: None, outcome: None, result: None, error: None }
    }

    #[test]
    fn results_come_in_the_order_asked_for() {
        let mut ordered = Results { ordered: true, next: 0, waiting: BTreeMap::new() };
        let mut seen = Vec::new();
        for index in [2, 0, 3, 1] {
            seen.push(ordered.add(mapped(index)).iter().map(|one| one.index).collect::<Vec<_>>());
        }
        assert_eq!(seen, [vec![], vec![0], vec![], vec![1, 2, 3]]);
        let mut as_completed = Results { ordered: false, next: 0, waiting: BTreeMap::new() };
        assert_eq!(as_completed.add(mapped(2)).len(), 1);
    }

    #[tokio::test]
    async fn lines_are_found_however_they_arrive_and_long_ones_end_it() {
        async fn all(pieces: &[&'static str], limit: usize) -> Vec<Result<String, String>> {
            let pieces: Vec<Result<Bytes, Infallible>> = pieces.iter().map(|text| Ok(Bytes::from(*text))).collect();
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            let mut lines = Lines { body, buffer: BytesMut::new(), limit, over: false };
            let mut found = Vec::new();
            while let Some(line) = lines.next().await {
                found.push(line.map(|line| String::from_utf8_lossy(&line).into_owned()).map_err(|error| error.kind));
            }
            found
        }
        let ok = |texts: &[&str]| texts.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(all(&["{\"a\":", "1}\n\n[2]\r\n", "3"], 100).await, ok(&["{\"a\":1}", "[2]", "3"]));
        assert_eq!(all(&[], 100).await, ok(&[]));
        assert_eq!(all(&["1\n", "22222222222"], 5).await, [Ok("1".to_owned()), Err("too_large".to_owned())]);
    }
}
