//! What is asked about calls: lists, one with its attempts, what it brought back; and how one is ended.
//!
//! A call is in one of three places: in the ledger, if it must not be lost; in the history, if somebody waited for it and
//! it is over; with a proxy, if somebody waits for it now. One that goes on without its caller moves from there to the ledger.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::handle::Engine;
use super::reconciler::internal;
use super::{Caller, CommandError, Result};
use crate::domain::{
    AttemptEnd, AttemptId, AttemptOutcome, CallError, CallId, CallOutcome, CallState, FunctionKey, Trigger,
};
use crate::ledger::calls::{self, Call, Cancelled, Filter};
use crate::wire::call_views::{AttemptView, CallDetail, CallView, Progress};
use crate::wire::calls::{CallRecord, RunningCall, Seeking};

/// A call that somebody waits for is looked for this often by whoever wants to know its end.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The record of such a call follows its end so much later: proxies hand them over in batches.
const RECORDS_FOLLOW: Duration = Duration::from_millis(600);

/// What a call brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResultView {
    /// What the function answered.
    Answer {
        /// Its media type.
        media: Option<String>,
        /// It.
        bytes: Vec<u8>,
    },
    /// The call is not done.
    NotYet,
    /// The call brought nothing back.
    None {
        /// How it ended.
        outcome: CallOutcome,
        /// Why.
        error: Option<CallError>,
    },
    /// It is no longer kept.
    Expired,
}

/// A call, where it was found.
#[derive(Debug)]
pub(super) enum Found {
    /// On record from its beginning, or since its caller went on without it.
    Recorded(Call),
    /// Somebody waited for it, and it is over.
    Past(CallRecord),
    /// Somebody waits for it.
    Running(RunningCall),
}

impl Found {
    /// What was called.
    pub fn function(&self) -> &FunctionKey {
        match self {
            Found::Recorded(call) => &call.function,
            Found::Past(past) => &past.function,
            Found::Running(running) => &running.function,
        }
    }
}

impl Engine {
    /// Calls, newest first.
    pub async fn calls(&self, filter: Filter) -> Result<Vec<CallView>> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        // First, for one that ends meanwhile is on record afterwards.
        let running = self.running_calls(&filter).await;
        let wanted = filter.clone();
        let found = self.parts.ledger.read(move |ledger| calls::list(ledger, &wanted)).await.map_err(internal)?;
        let past = self.parts.history.list(filter).await.map_err(internal)?;
        let on_record = found.into_iter().map(view).chain(past.iter().map(view_of_past));
        let mut all: Vec<CallView> = on_record.chain(running.iter().map(view_of_running)).collect();
        // What is on record of a call stands before what a proxy has said of it.
        all.sort_by_key(|call| std::cmp::Reverse(call.call));
        all.dedup_by_key(|call| call.call);
        all.truncate(limit);
        Ok(all)
    }

    async fn running_calls(&self, filter: &Filter) -> Vec<RunningCall> {
        let Filter { app, function, state, outcome, dead, before, limit } = filter;
        if *dead || outcome.is_some() || state.is_some_and(|state| state != CallState::Running) {
            return Vec::new();
        }
        let (app, function) = (app.clone(), function.clone());
        self.parts.seeker.seek(Seeking::Newest { app, function, before: *before, limit: *limit }).await
    }

    /// A call, wherever it is.
    pub(super) async fn find_call(&self, call: CallId) -> Result<Option<Found>> {
        let on_record = self.find_on_record(call).await?;
        if on_record.is_some() {
            return Ok(on_record);
        }
        match self.parts.seeker.seek(Seeking::One { call }).await.pop() {
            Some(running) => Ok(Some(Found::Running(running))),
            None => self.find_soon_on_record(call).await,
        }
    }

    /// A call that is not under way: it may have ended a moment ago.
    async fn find_soon_on_record(&self, call: CallId) -> Result<Option<Found>> {
        let deadline = Instant::now() + RECORDS_FOLLOW;
        loop {
            let found = self.find_on_record(call).await?;
            if found.is_some() || Instant::now() >= deadline {
                return Ok(found);
            }
            tokio::time::sleep(RECORDS_FOLLOW / 6).await;
        }
    }

    async fn find_on_record(&self, call: CallId) -> Result<Option<Found>> {
        let recorded = self.parts.ledger.read(move |ledger| calls::one(ledger, call)).await.map_err(internal)?;
        if let Some(recorded) = recorded {
            return Ok(Some(Found::Recorded(recorded)));
        }
        Ok(self.parts.history.one(call).await.map_err(internal)?.map(Found::Past))
    }

    /// A call once it is done, or after this long.
    async fn settled(&self, call: CallId, wait: Duration) -> Result<Found> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                // Answers at once for one that is not in the ledger.
                self.parts.caller.wait(call, left).await?;
            }
            match self.find_call(call).await? {
                Some(Found::Running(running)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(Found::Running(running));
                    }
                    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                }
                Some(found) => return Ok(found),
                None => return Err(unknown(call)),
            }
        }
    }

    /// One call with its attempts, once it is done, or after this long.
    pub async fn call(&self, call: CallId, wait: Duration) -> Result<CallDetail> {
        let record = match self.settled(call, wait).await? {
            Found::Recorded(record) => record,
            Found::Past(past) => {
                let end = Some(end_of_past(&past));
                let tries = vec![AttemptView { attempt: 1, begun_at: past.created_at, progress: None, end }];
                return Ok(CallDetail { call: view_of_past(&past), tries });
            }
            Found::Running(running) => {
                let begun_at = running.created_at;
                let progress = Some(progress(&running));
                let tries = vec![AttemptView { attempt: 1, begun_at, progress, end: None }];
                return Ok(CallDetail { call: view_of_running(&running), tries });
            }
        };
        let attempts = self.parts.ledger.read(move |ledger| calls::attempts(ledger, call)).await.map_err(internal)?;
        let tries = attempts.into_iter().map(|attempt| AttemptView {
            attempt: attempt.number,
            begun_at: attempt.begun_at,
            progress: None,
            end: attempt.end,
        });
        Ok(CallDetail { call: view(record), tries: tries.collect() })
    }

    /// What a call brought back.
    pub async fn call_result(&self, call: CallId, wait: Duration) -> Result<CallResultView> {
        let record = match self.settled(call, wait).await? {
            Found::Recorded(record) => record,
            Found::Running(_) => return Ok(CallResultView::NotYet),
            Found::Past(past) => {
                let words = "whoever waited for it has its result; it is not kept";
                let error = Some(CallError::new("not_kept", words));
                return Ok(CallResultView::None { outcome: past.outcome, error });
            }
        };
        let Some(outcome) = record.outcome else { return Ok(CallResultView::NotYet) };
        let found = self.parts.ledger.read(move |ledger| calls::result(ledger, call)).await.map_err(internal)?;
        let Some((result, attempt)) = found else {
            return Ok(CallResultView::None { outcome, error: record.error });
        };
        let (media, attempt) = (result.payload.media.clone(), AttemptId { call, attempt });
        let bytes = self.parts.caller.bodies().result(attempt, result.payload).await;
        let bytes = bytes.map_err(|error| CommandError::Internal { what: format!("the result of {call}: {error}") })?;
        Ok(bytes.map_or(CallResultView::Expired, |bytes| CallResultView::Answer { media, bytes }))
    }

    /// Ends a call.
    pub async fn cancel_call(&self, caller: Caller, call: CallId) -> Result<CallView> {
        let actor = caller.actor.to_string();
        match self.parts.caller.cancel(call, caller.actor).await? {
            Cancelled::Done | Cancelled::Asked(_) => match self.find_on_record(call).await? {
                Some(Found::Recorded(record)) => return Ok(view(record)),
                Some(Found::Past(_) | Found::Running(_)) | None => return Err(unknown(call)),
            },
            Cancelled::Over(outcome) => return Err(over(call, outcome)),
            Cancelled::Unknown => {}
        }
        let running = self.parts.seeker.seek(Seeking::End { call, actor }).await.pop();
        match (self.find_soon_on_record(call).await?, running) {
            (Some(Found::Recorded(record)), Some(_)) => Ok(view(record)),
            (Some(Found::Past(past)), Some(_)) => Ok(view_of_past(&past)),
            (Some(Found::Past(past)), None) => Err(over(call, past.outcome)),
            // A function that is slow to let go of the call, or a busy machine: it ends all the same.
            (_, Some(running)) => Ok(view_of_running(&running)),
            (_, None) => Err(unknown(call)),
        }
    }
}

fn over(call: CallId, outcome: CallOutcome) -> CommandError {
    CommandError::Conflict {
        what: format!("call {call} is over: {outcome}"),
        mend: "there is nothing to cancel".into(),
    }
}

pub(super) fn unknown(call: CallId) -> CommandError {
    CommandError::NotFound {
        what: format!("there is no call {call}, neither on record nor under way"),
        mend: "`landfall calls list` shows those there are".into(),
    }
}

/// When a call somebody waited for was over.
fn ended(past: &CallRecord) -> Timestamp {
    let all = Duration::from_micros(past.times.queued_us.saturating_add(past.times.running_us));
    past.created_at.checked_add(all).unwrap_or(past.created_at)
}

fn end_of_past(past: &CallRecord) -> AttemptEnd {
    let outcome = match past.outcome {
        CallOutcome::Succeeded => AttemptOutcome::Succeeded,
        CallOutcome::TimedOut => AttemptOutcome::TimedOut,
        CallOutcome::Cancelled => AttemptOutcome::Cancelled,
        CallOutcome::Failed | CallOutcome::SkippedOverlap | CallOutcome::Missed => AttemptOutcome::Failed,
    };
    AttemptEnd {
        outcome,
        ended_at: ended(past),
        version: past.version,
        instance: past.instance.clone(),
        times: past.times,
        error: past.error.clone(),
    }
}

fn view_of_past(past: &CallRecord) -> CallView {
    let FunctionKey { app, function } = past.function.clone();
    CallView {
        call: past.id,
        app: app.app,
        environment: app.environment,
        function,
        version: past.version,
        trigger: past.trigger,
        actor: past.actor.clone(),
        state: CallState::Done,
        outcome: Some(past.outcome),
        error: past.error.clone(),
        attempts: 1,
        created_at: past.created_at,
        progress: None,
        due_at: None,
        scheduled_at: None,
        ended_at: Some(ended(past)),
        cancelled_by: None,
        redrive_of: None,
        redriven_as: None,
        body_bytes: past.bytes_in,
        result_bytes: Some(past.bytes_out),
    }
}

fn progress(running: &RunningCall) -> Progress {
    Progress { version: running.version, instance: running.instance.clone(), times: running.times }
}

fn view_of_running(running: &RunningCall) -> CallView {
    let FunctionKey { app, function } = running.function.clone();
    CallView {
        call: running.id,
        app: app.app,
        environment: app.environment,
        function,
        version: running.version,
        trigger: Trigger::Call,
        actor: running.actor.clone(),
        state: CallState::Running,
        outcome: None,
        error: None,
        attempts: 1,
        created_at: running.created_at,
        progress: Some(progress(running)),
        due_at: None,
        scheduled_at: None,
        ended_at: None,
        cancelled_by: running.cancelled_by.clone(),
        redrive_of: None,
        redriven_as: None,
        body_bytes: 0,
        result_bytes: None,
    }
}

fn view(call: Call) -> CallView {
    let FunctionKey { app, function } = call.function;
    CallView {
        call: call.id,
        app: app.app,
        environment: app.environment,
        function,
        version: call.version,
        trigger: call.trigger,
        actor: call.actor.to_string(),
        state: call.state,
        outcome: call.outcome,
        error: call.error,
        attempts: call.attempts,
        created_at: call.created_at,
        progress: None,
        due_at: (call.state == CallState::Queued).then_some(call.due_at),
        scheduled_at: call.scheduled_at,
        ended_at: call.ended_at,
        cancelled_by: call.cancelled_by.map(|actor| actor.to_string()),
        redrive_of: call.redrive_of,
        redriven_as: call.redriven_as,
        body_bytes: call.body_bytes,
        result_bytes: call.result_bytes,
    }
}
