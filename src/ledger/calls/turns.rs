//! Attempts begin and end; calls are cancelled.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{function_id, place_columns, read_bytes, read_place};
use crate::decide::retry::{Next, Policy, Tries};
use crate::domain::{
    Actor, AppKey, AttemptEnd, AttemptId, AttemptOutcome, CallError, CallId, CallOutcome, CallResult, CallState,
    FunctionKey, ObjectName, Payload, Trigger, VersionNumber,
};
use crate::ledger::Result;
use crate::ledger::rows::{bad, json, maybe_time, maybe_version, micros, parse, time};

/// A call whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The call.
    pub id: CallId,
    /// Since when it could begin.
    pub due_at: Timestamp,
}

/// What of a function's queue can begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turns {
    /// In the order they are to begin.
    pub now: Vec<Turn>,
    /// When the next one after these can begin; `None` if there is none, or if there are more already.
    pub next_due: Option<Timestamp>,
    /// There are more that can begin already.
    pub more: bool,
}

/// The first `limit` calls of a function that can begin at `now`.
pub fn waiting(connection: &Connection, key: &FunctionKey, now: Timestamp, limit: usize) -> Result<Turns> {
    let function = function_id(connection, key)?;
    let mut statement = connection.prepare_cached(
        "SELECT id, due_at FROM calls WHERE function = ?1 AND state = 'queued' ORDER BY due_at, seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![function, i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX)])?;
    let mut turns = Turns::default();
    while let Some(row) = rows.next()? {
        let turn = Turn { id: CallId::from_bytes(row.get(0)?), due_at: time(row.get(1)?)? };
        if turn.due_at > now {
            turns.next_due = Some(turn.due_at);
            break;
        }
        if turns.now.len() == limit {
            turns.more = true;
            break;
        }
        turns.now.push(turn);
    }
    Ok(turns)
}

/// Functions with calls that wait for a turn.
pub fn functions_with_queue(connection: &Connection) -> Result<Vec<FunctionKey>> {
    let mut statement = connection.prepare_cached(
        "SELECT environment, app, name FROM functions f
         WHERE EXISTS (SELECT 1 FROM calls WHERE function = f.id AND state = 'queued') ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_function(row, 0)?);
    }
    Ok(found)
}

/// An attempt without an end: some proxy has it, or it is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAttempt {
    /// Which.
    pub attempt: AttemptId,
    /// Of what.
    pub function: FunctionKey,
    /// What made the call.
    pub trigger: Trigger,
    /// Its end was asked for.
    pub cancelled: bool,
}

/// All attempts without an end.
pub fn open_attempts(connection: &Connection) -> Result<Vec<OpenAttempt>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.id, c.attempts, c.cancelled_by IS NOT NULL, f.environment, f.app, f.name, c.trigger
         FROM functions f JOIN calls c ON c.function = f.id WHERE c.state = 'running' ORDER BY c.seq",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(OpenAttempt {
            attempt: AttemptId { call: CallId::from_bytes(row.get(0)?), attempt: row.get(1)? },
            cancelled: row.get(2)?,
            function: read_function(row, 3)?,
            trigger: read_trigger(row.get(6)?)?,
        });
    }
    Ok(found)
}

pub(super) fn read_trigger(text: String) -> Result<Trigger> {
    Trigger::from_recorded(&text).ok_or_else(|| bad("call", format!("trigger = {text}")))
}

pub(super) fn read_function(row: &Row<'_>, at: usize) -> Result<FunctionKey> {
    let function: ObjectName = parse("function name", row.get(at + 2)?)?;
    let app = AppKey::new(parse("environment", row.get(at)?)?, parse("app name", row.get(at + 1)?)?);
    Ok(FunctionKey::new(app, function))
}

/// An attempt that has begun, with everything that must be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Which.
    pub attempt: AttemptId,
    /// Of what.
    pub function: FunctionKey,
    /// The version it must run on.
    pub version: Option<VersionNumber>,
    /// What made the call.
    pub trigger: Trigger,
    /// The instant a schedule's run stands for.
    pub scheduled_at: Option<Timestamp>,
    /// What it is called with.
    pub body: Payload,
}

/// Records that attempts of these calls begin. Those that are not queued any more are left out of the answer.
pub fn begin(connection: &Connection, calls: &[CallId], now: Timestamp) -> Result<Vec<Begun>> {
    let mut begun = Vec::with_capacity(calls.len());
    for id in calls {
        begun.extend(begin_one(connection, *id, now)?);
    }
    Ok(begun)
}

fn begin_one(connection: &Connection, id: CallId, now: Timestamp) -> Result<Option<Begun>> {
    let mut update = connection.prepare_cached(
        "UPDATE calls SET state = 'running', attempts = attempts + 1 WHERE id = ?1 AND state = 'queued'
         RETURNING seq, attempts, function, pin, trigger, scheduled_at, media, body_bytes, body_at, body",
    )?;
    let mut rows = update.query([id.to_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (seq, attempt, function): (i64, u32, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let begun = Begun {
        attempt: AttemptId { call: id, attempt },
        function: function_of(connection, function)?,
        version: maybe_version(row.get(3)?)?,
        trigger: read_trigger(row.get(4)?)?,
        scheduled_at: maybe_time(row.get(5)?)?,
        body: Payload {
            media: row.get(6)?,
            bytes: read_bytes(row.get(7)?),
            place: read_place(&row.get::<_, String>(8)?, row.get(9)?)?,
        },
    };
    // The statement is finished before the next one writes.
    while rows.next()?.is_some() {}
    add_attempt(connection, seq, attempt, now)?;
    Ok(Some(begun))
}

/// Records that this attempt of the call with this `seq` begins.
pub(super) fn add_attempt(connection: &Connection, seq: i64, number: u32, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO attempts (call, number, begun_at) VALUES (?1, ?2, ?3)")?
        .execute(params![seq, number, micros(now)])?;
    Ok(())
}

fn function_of(connection: &Connection, id: i64) -> Result<FunctionKey> {
    let mut statement = connection.prepare_cached("SELECT environment, app, name FROM functions WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    let row = rows.next()?.ok_or_else(|| bad("function", format!("number {id} is not recorded")))?;
    read_function(row, 0)
}

/// What the record says after an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The call is done.
    Done(CallOutcome),
    /// Another attempt may begin then.
    Again(Timestamp),
    /// The attempt had its end already, or never was: nothing is changed.
    Stale,
}

/// Records the end of an attempt, and what follows from it.
pub fn end(
    connection: &Connection,
    attempt: AttemptId,
    ended: &AttemptEnd,
    result: Option<&CallResult>,
    policy: &Policy,
    now: Timestamp,
) -> Result<Ended> {
    let mut open = connection.prepare_cached(
        "SELECT seq, failures, lost, crashes, cancelled_by IS NOT NULL, retry_until FROM calls
         WHERE id = ?1 AND attempts = ?2 AND state = 'running'",
    )?;
    let found = open.query_row(params![attempt.call.to_bytes(), attempt.attempt], |row| {
        let tries = Tries { failures: row.get(1)?, lost_in_a_row: row.get(2)?, crashes_in_a_row: row.get(3)? };
        Ok((row.get::<_, i64>(0)?, tries, row.get::<_, bool>(4)?, row.get::<_, Option<i64>>(5)?))
    });
    let Some((seq, tries, cancelled, until)) = found.optional()? else { return Ok(Ended::Stale) };
    end_attempt(connection, seq, attempt.attempt, ended)?;
    let (tries, next) = tries.after(ended.outcome, policy);
    let due = |wait| {
        let due = SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok());
        micros(due.unwrap_or(Timestamp::MAX))
    };
    let again = match next {
        // What is done is done, even if somebody wanted its end.
        Next::Done(CallOutcome::Succeeded) => Err(CallOutcome::Succeeded),
        _ if cancelled => Err(CallOutcome::Cancelled),
        Next::Done(outcome) => Err(outcome),
        Next::Again(wait) if until.is_some_and(|until| due(wait) > until) => Err(match ended.outcome {
            AttemptOutcome::TimedOut => CallOutcome::TimedOut,
            _ => CallOutcome::Failed,
        }),
        Next::Again(wait) => Ok(due(wait)),
    };
    match again {
        Err(outcome) => {
            finish(connection, seq, tries, outcome, ended, now)?;
            if let Some(result) = result {
                keep_result(connection, seq, result)?;
            }
            Ok(Ended::Done(outcome))
        }
        Ok(due) => {
            connection
                .prepare_cached(
                    "UPDATE calls SET state = 'queued', due_at = ?2, failures = ?3, lost = ?4, crashes = ?5 WHERE seq = ?1",
                )?
                .execute(params![seq, due, tries.failures, tries.lost_in_a_row, tries.crashes_in_a_row])?;
            Ok(Ended::Again(time(due)?))
        }
    }
}

fn end_attempt(connection: &Connection, seq: i64, number: u32, ended: &AttemptEnd) -> Result<()> {
    let whole = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "UPDATE attempts SET ended_at = ?3, outcome = ?4, version = ?5, instance = ?6, queued = ?7, starting = ?8,
                 running = ?9, error = ?10
             WHERE call = ?1 AND number = ?2",
        )?
        .execute(params![
            seq,
            number,
            micros(ended.ended_at),
            ended.outcome.as_str(),
            ended.version.map(VersionNumber::get),
            ended.instance.as_ref().map(|instance| instance.as_str()),
            whole(ended.times.queued_us),
            whole(ended.times.starting_us),
            whole(ended.times.running_us),
            ended.error.as_ref().map(json).transpose()?,
        ])?;
    Ok(())
}

fn finish(
    connection: &Connection,
    seq: i64,
    tries: Tries,
    outcome: CallOutcome,
    ended: &AttemptEnd,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE calls SET state = 'done', outcome = ?2, ended_at = ?3, error = ?4, failures = ?5, lost = ?6,
                 crashes = ?7
             WHERE seq = ?1",
        )?
        .execute(params![
            seq,
            outcome.as_str(),
            micros(now),
            ended.error.as_ref().map(json).transpose()?,
            tries.failures,
            tries.lost_in_a_row,
            tries.crashes_in_a_row,
        ])?;
    Ok(())
}

fn keep_result(connection: &Connection, seq: i64, result: &CallResult) -> Result<()> {
    let (place, body) = place_columns(&result.payload.place);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO results (call, status, media, bytes, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            seq,
            result.status,
            result.payload.media,
            i64::try_from(result.payload.bytes).unwrap_or(i64::MAX),
            place,
            body
        ])?;
    Ok(())
}

/// Fails at most `limit` calls of a function that wait for its live version, without an attempt. Answers which.
pub fn give_up(
    connection: &Connection,
    key: &FunctionKey,
    error: &CallError,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(CallId, Trigger)>> {
    let function = function_id(connection, key)?;
    let mut statement = connection.prepare_cached(
        "UPDATE calls SET state = 'done', outcome = 'failed', ended_at = ?2, error = ?3
         WHERE seq IN (SELECT seq FROM calls WHERE function = ?1 AND state = 'queued' AND pin IS NULL LIMIT ?4)
         RETURNING id, trigger",
    )?;
    let mut rows = statement.query(params![function, micros(now), json(error)?, limit])?;
    let mut ended = Vec::new();
    while let Some(row) = rows.next()? {
        ended.push((CallId::from_bytes(row.get(0)?), read_trigger(row.get(1)?)?));
    }
    Ok(ended)
}

/// What became of a wish to end a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not begun, and never will.
    Done,
    /// An attempt is under way: it has to be ended.
    Asked(AttemptId),
    /// It has had its outcome for a while.
    Over(CallOutcome),
    /// No such call is recorded.
    Unknown,
}

/// Records that somebody wants a call to end.
pub fn cancel(connection: &Connection, id: CallId, actor: &Actor, now: Timestamp) -> Result<Cancelled> {
    let mut statement = connection.prepare_cached("SELECT seq, state, attempts, outcome FROM calls WHERE id = ?1")?;
    let found = statement.query_row([id.to_bytes()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?, row.get::<_, Option<String>>(3)?))
    });
    let Some((seq, state, attempt, outcome)) = found.optional()? else { return Ok(Cancelled::Unknown) };
    if let Some(text) = outcome {
        let outcome = CallOutcome::from_recorded(&text).ok_or_else(|| bad("call", format!("outcome = {text}")))?;
        return Ok(Cancelled::Over(outcome));
    }
    let running = CallState::from_recorded(&state) == Some(CallState::Running);
    let sql = if running {
        "UPDATE calls SET cancelled_by = coalesce(cancelled_by, ?2) WHERE seq = ?1 AND ?3 = ?3"
    } else {
        "UPDATE calls SET cancelled_by = ?2, state = 'done', outcome = 'cancelled', ended_at = ?3 WHERE seq = ?1"
    };
    connection.prepare_cached(sql)?.execute(params![seq, json(actor)?, micros(now)])?;
    Ok(if running { Cancelled::Asked(AttemptId { call: id, attempt }) } else { Cancelled::Done })
}
