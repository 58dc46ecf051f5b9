//! Writes decisions about runs into the ledger: run, call and news of a schedule in one transaction. The first attempt of
//! a call that has a place reserved begins in it too.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::decide::runs::{Cause, Decision, Gap, News};
use crate::domain::{Actor, CallError, CallId, CallOutcome, Event, EventKind, FunctionKey, Payload, Trigger};
use crate::ledger::calls::{self, Begun, NewCall, Taken};
use crate::ledger::schedules::{self, Ended, NewRun, ScheduleId};
use crate::ledger::{Connection, Result, facts};

/// Decisions about one schedule, with everything that recording them takes.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub id: ScheduleId,
    pub function: FunctionKey,
    /// Everything up to here is decided with them.
    pub decided: Timestamp,
    pub decisions: Vec<Planned>,
    pub body: Option<String>,
    pub notify_after: u32,
    /// Who asked for the run that was asked for.
    pub actor: Option<Actor>,
}

/// A decision, and the call that a start makes.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub decision: Decision,
    pub call: CallId,
    /// No attempt of it begins later.
    pub slot_end: Option<Timestamp>,
}

/// What recording came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recorded {
    /// The run of this instant has this call now; `asked` by somebody, or by its schedule. It has begun, or is in line.
    Started { id: ScheduleId, at: Timestamp, call: CallId, asked: bool, begun: bool },
    /// The instant is on record already; nothing starts.
    Known { id: ScheduleId, at: Timestamp },
}

/// Places that calls have, and those that took theirs.
struct Places<'a> {
    reserved: &'a HashSet<CallId>,
    begun: Vec<Begun>,
}

/// Records what was decided. Calls that are `reserved` need not wait for their turn: they are answered as begun.
pub(super) fn record(
    ledger: &Connection,
    jobs: &[Job],
    reserved: &HashSet<CallId>,
    now: Timestamp,
) -> Result<(Vec<Recorded>, Vec<Begun>)> {
    let mut places = Places { reserved, begun: Vec::with_capacity(reserved.len()) };
    let mut recorded = Vec::new();
    for job in jobs {
        for planned in &job.decisions {
            recorded.extend(record_one(ledger, job, planned, &mut places, now)?);
        }
        schedules::decided(ledger, job.id, job.decided)?;
    }
    Ok((recorded, places.begun))
}

fn record_one(
    ledger: &Connection,
    job: &Job,
    planned: &Planned,
    places: &mut Places<'_>,
    now: Timestamp,
) -> Result<Option<Recorded>> {
    let id = job.id;
    match &planned.decision {
        Decision::Start { at, cause } => {
            return start(ledger, job, planned, (*at, *cause), places, now).map(Some);
        }
        Decision::Wait { at } => {
            let (trigger, actor) = asked(job, *at);
            let run = NewRun { at: *at, trigger, actor, caught_up: false, call: None, decided_at: now };
            if !schedules::add(ledger, id, &run)? {
                return Ok(Some(Recorded::Known { id, at: *at }));
            }
        }
        Decision::Skip { at } => {
            if schedules::skip(ledger, id, *at, now)? {
                settle(ledger, job, *at, CallOutcome::SkippedOverlap, None, now)?;
            }
        }
        Decision::GiveUp { at } => schedules::give_up(ledger, id, *at, CallOutcome::SkippedOverlap, now)?,
        Decision::Missed(gap) => {
            if schedules::missed(ledger, id, gap, now)? {
                settle(ledger, job, gap.last, CallOutcome::Missed, None, now)?;
                let words = missed_words(&job.function, gap);
                facts::event(ledger, &event(EventKind::ScheduleMissed, &job.function, now, words))?;
            }
        }
        Decision::Resumed => {
            schedules::set_pause(ledger, id, None)?;
            facts::audit(ledger, &Actor::Agent, "schedule resume", Some(&job.function.app), &job.function, now)?;
        }
        // Its end is recorded when it has ended.
        Decision::Cancel { .. } => {}
    }
    Ok(None)
}

fn asked(job: &Job, at: Timestamp) -> (Trigger, Option<Actor>) {
    // A run that somebody asked for is the latest of its job.
    match &job.actor {
        Some(actor) if at > job.decided => (Trigger::Manual, Some(actor.clone())),
        Some(_) | None => (Trigger::Schedule, None),
    }
}

fn start(
    ledger: &Connection,
    job: &Job,
    planned: &Planned,
    (at, cause): (Timestamp, Cause),
    places: &mut Places<'_>,
    now: Timestamp,
) -> Result<Recorded> {
    let (id, call) = (job.id, planned.call);
    let (trigger, actor) = match cause {
        Cause::OnTime | Cause::CatchUp => (Trigger::Schedule, None),
        Cause::Asked => (Trigger::Manual, job.actor.clone()),
        Cause::Waited => schedules::asked_by(ledger, id, at)?.unwrap_or((Trigger::Schedule, None)),
    };
    let fresh = if cause == Cause::Waited {
        schedules::start_waiting(ledger, id, at, call, now)?
    } else {
        let caught_up = cause == Cause::CatchUp;
        let run = NewRun { at, trigger, actor: actor.clone(), caught_up, call: Some(call), decided_at: now };
        schedules::add(ledger, id, &run)?
    };
    if !fresh {
        return Ok(Recorded::Known { id, at });
    }
    let body = job.body.as_ref().map_or_else(Vec::new, |body| body.clone().into_bytes());
    let media = job.body.as_ref().map(|_| "application/json".to_owned());
    let new = NewCall {
        id: call,
        function: job.function.clone(),
        version: None,
        trigger,
        actor: actor.unwrap_or(Actor::Agent),
        created_at: now,
        due_at: now,
        scheduled_at: (trigger == Trigger::Schedule).then_some(at),
        retry_until: planned.slot_end,
        body: Payload::inline(media, body),
        key: None,
        redrive_of: None,
    };
    let (taken, begun) = if places.reserved.contains(&call) {
        calls::take_begun(ledger, &new)?
    } else {
        (calls::take(ledger, &new)?, None)
    };
    let has_begun = begun.is_some();
    places.begun.extend(begun);
    let call = match taken {
        Taken::New | Taken::KeyUsed(_) | Taken::Redriven(_) => call,
        Taken::Known(known) => {
            schedules::set_call(ledger, id, at, known)?;
            known
        }
    };
    Ok(Recorded::Started { id, at, call, asked: trigger != Trigger::Schedule, begun: has_begun })
}

/// What a run's outcome does to the streak, and the news of it.
fn settle(
    ledger: &Connection,
    job: &Job,
    at: Timestamp,
    outcome: CallOutcome,
    error: Option<&CallError>,
    now: Timestamp,
) -> Result<()> {
    let Some((_, streak)) = schedules::streak(ledger, job.id)? else { return Ok(()) };
    let (streak, news) = streak.after(outcome, error.map(|error| error.kind.as_str()), job.notify_after);
    schedules::remember(ledger, job.id, &streak, at, outcome)?;
    if let Some(news) = news {
        let (kind, words) = tell(&job.function, news, error);
        let cause = error.map(|error| error.kind.clone()).filter(|_| kind == EventKind::ScheduleFailed);
        facts::event(ledger, &Event { cause, ..event(kind, &job.function, now, words) })?;
    }
    Ok(())
}

/// Records the ends of calls that are runs: those that are over by the record of calls. Answers the ones that ended.
pub(super) fn record_ends(
    ledger: &Connection,
    ended: &[CallId],
    notify_after: impl Fn(ScheduleId) -> u32,
    now: Timestamp,
) -> Result<Vec<EndedRun>> {
    let mut found = Vec::new();
    for call in ended {
        let (outcome, error, ended_at) = match calls::one(ledger, *call)? {
            Some(record) => match record.outcome {
                Some(outcome) => (outcome, record.error, record.ended_at.unwrap_or(now)),
                None => continue,
            },
            // It is long over: calls are kept for a time after their end.
            None => (CallOutcome::Cancelled, None, now),
        };
        let Some(run) = schedules::finish(ledger, *call, outcome, error.as_ref(), ended_at)? else { continue };
        let Some((function, _)) = schedules::streak(ledger, run.schedule)? else { continue };
        let job = Job {
            id: run.schedule,
            function: function.clone(),
            decided: Timestamp::MIN,
            decisions: Vec::new(),
            body: None,
            notify_after: notify_after(run.schedule),
            actor: None,
        };
        settle(ledger, &job, run.at, outcome, error.as_ref(), now)?;
        let Ended { schedule: id, at, started_at } = run;
        let exit_code = error.and_then(|error| error.exit_code);
        found.push(EndedRun { id, function, at, call: *call, outcome, exit_code, started_at, ended_at });
    }
    Ok(found)
}

/// A run that has its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndedRun {
    pub id: ScheduleId,
    pub function: FunctionKey,
    pub at: Timestamp,
    pub call: CallId,
    pub outcome: CallOutcome,
    pub exit_code: Option<i32>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Timestamp,
}

/// A schedule that failed is not there any more: with it goes the trouble that people were told of.
pub(super) fn record_removal(
    ledger: &Connection,
    function: &FunctionKey,
    id: ScheduleId,
    now: Timestamp,
) -> Result<()> {
    let failures = schedules::streak(ledger, id)?.map_or(0, |(_, streak)| streak.failures);
    schedules::deactivate(ledger, id)?;
    if failures > 0 {
        let (app, name) = (&function.app.app, &function.function);
        let times = if failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
        let words = format!("schedule {name} of {app} is not there any more; it had failed {times}");
        facts::event(ledger, &event(EventKind::ScheduleRemoved, function, now, words))?;
    }
    Ok(())
}

fn event(kind: EventKind, function: &FunctionKey, at: Timestamp, message: String) -> Event {
    let object = Some(function.function.clone());
    Event { at, kind, app: Some(function.app.clone()), version: None, source: None, object, cause: None, message }
}

fn tell(key: &FunctionKey, news: News, error: Option<&CallError>) -> (EventKind, String) {
    let (app, function) = (&key.app.app, &key.function);
    match news {
        News::Failed(times) => {
            let times = if times == 1 { String::new() } else { format!(" {times} times in a row") };
            let why = error.map(|error| format!(": {error}")).unwrap_or_default();
            let look = format!("`landfall schedule history {app} {function}` shows its runs");
            (EventKind::ScheduleFailed, format!("schedule {function} of {app} failed{times}{why}; {look}"))
        }
        News::Recovered(times) => {
            let after = if times == 1 { "a failure".to_owned() } else { format!("{times} failures") };
            (EventKind::ScheduleRecovered, format!("schedule {function} of {app} succeeded again after {after}"))
        }
        News::Skipped(times) => {
            let words = format!(
                "schedule {function} of {app} was skipped {times} times in a row: the run before is still under way"
            );
            (EventKind::ScheduleSkipped, words)
        }
    }
}

fn missed_words(key: &FunctionKey, gap: &Gap) -> String {
    let (app, function) = (&key.app.app, &key.function);
    match (gap.count, gap.more) {
        (1, false) => format!("schedule {function} of {app} missed its run of {}", gap.first),
        (count, more) => {
            let count = if more { format!("more than {count}") } else { count.to_string() };
            format!("schedule {function} of {app} missed {count} runs, from {} to {}", gap.first, gap.last)
        }
    }
}
