//! What is on record of calls and deployments, as spans.
//!
//! ```text
//! call                    deployment
//! └ attempt n             ├ preparing
//!   ├ queue               ├ starting
//!   │ └ start             └ …
//!   └ run  (the function's own spans are below the attempt)
//! ```

use jiff::{SignedDuration, Timestamp};

use super::otlp::{Kind, Span, Value};
use crate::domain::trace::{CallTrace, SpanId};
use crate::domain::{
    AttemptEnd, CallError, CallId, CallOutcome, DeploymentOutcome, FunctionKey, InstanceId, Phase, Times, Trigger,
    VersionNumber,
};
use crate::ledger::calls::{Attempt, Call};
use crate::ledger::deployments::DeploymentRecord;
use crate::wire::calls::CallRecord;

/// The parts of an attempt.
const QUEUE: u64 = 1;
const START: u64 = 2;
const RUN: u64 = 3;

/// A call that somebody waited for.
pub(super) fn of_record(record: &CallRecord, one_in: u32) -> Vec<Span> {
    let trace = CallTrace::new(record.id, record.trace);
    if !trace.is_sampled(one_in) {
        return Vec::new();
    }
    let Times { queued_us, running_us, .. } = record.times;
    let end = later(record.created_at, queued_us.saturating_add(running_us));
    let whole = Whole {
        trace,
        function: &record.function,
        trigger: record.trigger,
        actor: record.actor.clone(),
        outcome: record.outcome,
        error: record.error.as_ref(),
        start: record.created_at,
        end,
    };
    let mut spans = vec![whole.span(record.id)];
    let done = Tried { start: record.created_at, end, times: record.times, error: record.error.as_ref() };
    let (version, instance) = (record.version, record.instance.as_ref());
    spans.extend(attempt(trace, 1, &done, &record.function, version, instance));
    spans
}

/// A call that was recorded before it ran; nothing while it is not over.
pub(super) fn of_call(call: &Call, attempts: &[Attempt], one_in: u32) -> Vec<Span> {
    let trace = CallTrace::new(call.id, None);
    let (Some(outcome), Some(end), true) = (call.outcome, call.ended_at, trace.is_sampled(one_in)) else {
        return Vec::new();
    };
    let whole = Whole {
        trace,
        function: &call.function,
        trigger: call.trigger,
        actor: call.actor.to_string(),
        outcome,
        error: call.error.as_ref(),
        start: call.created_at,
        end,
    };
    let mut spans = vec![whole.span(call.id)];
    for Attempt { number, begun_at, end } in attempts {
        let Some(AttemptEnd { ended_at, times, error, version, instance, .. }) = end else { continue };
        let done = Tried { start: *begun_at, end: *ended_at, times: *times, error: error.as_ref() };
        spans.extend(attempt(trace, *number, &done, &call.function, *version, instance.as_ref()));
    }
    spans
}

struct Whole<'a> {
    trace: CallTrace,
    function: &'a FunctionKey,
    trigger: Trigger,
    actor: String,
    outcome: CallOutcome,
    error: Option<&'a CallError>,
    start: Timestamp,
    end: Timestamp,
}

impl Whole<'_> {
    fn span(self, call: CallId) -> Span {
        let FunctionKey { app, function } = self.function;
        Span {
            trace: self.trace.trace(),
            id: self.trace.span(),
            parent: self.trace.parent(),
            name: format!("call {} {function}", app.app),
            kind: if self.trigger == Trigger::Call { Kind::Server } else { Kind::Consumer },
            start: self.start,
            end: self.end.max(self.start),
            attributes: vec![
                ("landfall.app", app.app.to_string().into()),
                ("landfall.environment", app.environment.to_string().into()),
                ("landfall.function", function.to_string().into()),
                ("landfall.call", call.to_string().into()),
                ("landfall.actor", self.actor.into()),
                ("landfall.trigger", self.trigger.as_str().into()),
                ("landfall.outcome", self.outcome.as_str().into()),
            ],
            error: (self.outcome != CallOutcome::Succeeded).then(|| words(self.error, self.outcome.as_str())),
        }
    }
}

struct Tried<'a> {
    start: Timestamp,
    end: Timestamp,
    times: Times,
    error: Option<&'a CallError>,
}

fn attempt(
    trace: CallTrace,
    number: u32,
    tried: &Tried<'_>,
    function: &FunctionKey,
    version: Option<VersionNumber>,
    instance: Option<&InstanceId>,
) -> Vec<Span> {
    let id = trace.attempt(number);
    let Times { queued_us, starting_us, running_us } = tried.times;
    let mut attributes: Vec<(&'static str, Value)> = vec![("landfall.attempt", u64::from(number).into())];
    attributes.extend(version.map(|version| ("landfall.version", u64::from(version.get()).into())));
    attributes.extend(instance.map(|instance| ("landfall.instance", instance.to_string().into())));
    let span = |id: SpanId, parent: SpanId, name: String, start: Timestamp, end: Timestamp| Span {
        trace: trace.trace(),
        id,
        parent: Some(parent),
        name,
        kind: Kind::Internal,
        start,
        end: end.max(start),
        attributes: Vec::new(),
        error: None,
    };
    // A proxy measures lengths only, and both end together.
    let run = earlier(tried.end, running_us).max(tried.start);
    let queue = earlier(run, queued_us).max(tried.start);
    let whole = span(id, trace.span(), format!("attempt {number}"), tried.start, tried.end);
    let mut spans = vec![Span { attributes, error: tried.error.map(|error| words(Some(error), "")), ..whole }];
    if queued_us > 0 {
        spans.push(span(id.part(QUEUE), id, "queue".to_owned(), queue, run));
    }
    if starting_us > 0 {
        let start = earlier(run, starting_us).max(queue);
        spans.push(span(id.part(START), id.part(QUEUE), "start an instance".to_owned(), start, run));
    }
    if running_us > 0 {
        spans.push(span(id.part(RUN), id, format!("run {}", function.function), run, tried.end));
    }
    spans
}

/// A deployment with its phases; nothing while it is not over. All are kept: they are few.
pub(super) fn of_deployment(deployment: &DeploymentRecord) -> Vec<Span> {
    let (Some(outcome), Some(end)) = (deployment.outcome, deployment.ended_at) else { return Vec::new() };
    let id = deployment.id.0.unsigned_abs();
    // The same number may be another agent's.
    let made = u128::from(deployment.created_at.as_microsecond().unsigned_abs());
    let (trace, root) = (format!("{:032x}", made << 64 | u128::from(id)), SpanId::new(id).part(0));
    let key = &deployment.key;
    let failed = deployment.failure.as_ref().map(|failure| failure.message.clone());
    let whole = Span {
        trace: trace.clone(),
        id: root,
        parent: None,
        name: format!("deploy {}", key.app),
        kind: Kind::Internal,
        start: deployment.created_at,
        end: end.max(deployment.created_at),
        attributes: vec![
            ("deployment.id", id.to_string().into()),
            ("deployment.status", if outcome == DeploymentOutcome::Succeeded { "succeeded" } else { "failed" }.into()),
            ("landfall.app", key.app.to_string().into()),
            ("landfall.environment", key.environment.to_string().into()),
            ("landfall.version", u64::from(deployment.version.get()).into()),
            ("landfall.outcome", outcome.as_str().into()),
        ],
        error: (outcome != DeploymentOutcome::Succeeded)
            .then(|| failed.clone().unwrap_or_else(|| outcome.as_str().to_owned())),
    };
    let mut spans = vec![whole];
    let starts = deployment.phases.iter().filter(|(phase, _)| *phase != Phase::Done);
    for (number, (phase, start)) in (1..).zip(starts) {
        let next = deployment.phases.iter().map(|(_, at)| *at).filter(|at| at > start).min();
        let broke = deployment.failure.as_ref().is_some_and(|failure| failure.phase == *phase);
        spans.push(Span {
            trace: trace.clone(),
            id: root.part(number),
            parent: Some(root),
            name: phase.as_str().to_owned(),
            kind: Kind::Internal,
            start: *start,
            end: next.unwrap_or(end).max(*start),
            attributes: Vec::new(),
            error: failed.clone().filter(|_| broke),
        });
    }
    spans
}

fn words(error: Option<&CallError>, otherwise: &str) -> String {
    error.map_or_else(|| otherwise.to_owned(), ToString::to_string)
}

fn micros(length: u64) -> SignedDuration {
    SignedDuration::from_micros(i64::try_from(length).unwrap_or(i64::MAX))
}

fn later(at: Timestamp, length: u64) -> Timestamp {
    at.checked_add(micros(length)).unwrap_or(at)
}

fn earlier(at: Timestamp, length: u64) -> Timestamp {
    at.checked_sub(micros(length)).unwrap_or(at)
}
