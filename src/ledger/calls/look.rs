//! What people and programs ask about calls.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params};

use super::turns::{read_function, read_trigger};
use super::{find_function, read_bytes, read_place};
use crate::domain::{
    Actor, AppKey, AttemptEnd, AttemptOutcome, CallError, CallId, CallOutcome, CallResult, CallState, FunctionKey,
    InstanceId, ObjectName, Payload, Times, Trigger, VersionNumber,
};
use crate::ledger::Result;
use crate::ledger::rows::{bad, from_json, maybe_time, maybe_version, time};

/// A call as recorded, without what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its identifier.
    pub id: CallId,
    /// What is called.
    pub function: FunctionKey,
    /// The version it must run on.
    pub version: Option<VersionNumber>,
    /// What made it.
    pub trigger: Trigger,
    /// Who.
    pub actor: Actor,
    /// How it stands.
    pub state: CallState,
    /// How it ended.
    pub outcome: Option<CallOutcome>,
    /// Why it did not succeed.
    pub error: Option<CallError>,
    /// How many attempts have begun.
    pub attempts: u32,
    /// When it came in.
    pub created_at: Timestamp,
    /// The next attempt begins not before this, while it is queued.
    pub due_at: Timestamp,
    /// The instant a schedule's run stands for.
    pub scheduled_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who asked for its end.
    pub cancelled_by: Option<Actor>,
    /// The call that is tried anew by this one.
    pub redrive_of: Option<CallId>,
    /// The call that tries this one anew.
    pub redriven_as: Option<CallId>,
    /// Length of what it was called with, in bytes.
    pub body_bytes: u64,
    /// Length of its result.
    pub result_bytes: Option<u64>,
}

/// An attempt as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it was about to be sent.
    pub begun_at: Timestamp,
    /// How it ended; `None` while it is under way.
    pub end: Option<AttemptEnd>,
}

/// Which calls are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this app.
    pub app: Option<AppKey>,
    /// Only of this function of it.
    pub function: Option<ObjectName>,
    /// Only those that stand like this.
    pub state: Option<CallState>,
    /// Only those that ended like this.
    pub outcome: Option<CallOutcome>,
    /// Only those that failed and were not tried anew.
    pub dead: bool,
    /// Only those older than this one.
    pub before: Option<CallId>,
    /// At most so many.
    pub limit: u32,
}

/// What a list of calls `c` of functions `f` is narrowed to: what both records of calls have in common.
#[derive(Debug)]
pub(in crate::ledger) struct Conditions {
    text: String,
    values: Vec<(&'static str, Value)>,
}

impl Conditions {
    /// Those of app, function, outcome and place in the list.
    pub(in crate::ledger) fn of(filter: &Filter) -> Self {
        let mut all = Self { text: "1 = 1".to_owned(), values: vec![(":limit", Value::from(filter.limit))] };
        if let Some(app) = &filter.app {
            all.and("f.environment = :environment", ":environment", Value::from(app.environment.to_string()));
            all.and("f.app = :app", ":app", Value::from(app.app.to_string()));
        }
        if let Some(function) = &filter.function {
            all.and("f.name = :function", ":function", Value::from(function.to_string()));
        }
        if let Some(outcome) = filter.outcome {
            all.and("c.outcome = :outcome", ":outcome", Value::from(outcome.as_str().to_owned()));
        }
        if let Some(before) = filter.before {
            all.and("c.id < :before", ":before", Value::from(before.to_bytes().to_vec()));
        }
        all
    }

    fn and(&mut self, condition: &str, name: &'static str, value: Value) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
        self.values.push((name, value));
    }

    /// The whole question, newest first.
    pub(in crate::ledger) fn newest(&self, select: &str) -> String {
        format!("{select} WHERE {} ORDER BY c.id DESC LIMIT :limit", self.text)
    }

    /// The values by the names they have in it.
    pub(in crate::ledger) fn named(&self) -> Vec<(&str, &dyn rusqlite::ToSql)> {
        self.values.iter().map(|(name, value)| (*name, value as &dyn rusqlite::ToSql)).collect()
    }
}

const COLUMNS: &str = "c.id, f.environment, f.app, f.name, c.pin, c.trigger, c.actor, c.state, c.outcome, c.error,
    c.attempts, c.created_at, c.due_at, c.scheduled_at, c.ended_at, c.cancelled_by, c.redrive_of, c.redriven_as,
    c.body_bytes, (SELECT bytes FROM results r WHERE r.call = c.seq)";

/// One call.
pub fn one(connection: &Connection, id: CallId) -> Result<Option<Call>> {
    let sql = format!("SELECT {COLUMNS} FROM calls c JOIN functions f ON f.id = c.function WHERE c.id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.to_bytes()])?;
    rows.next()?.map(read).transpose()
}

/// Calls, newest first.
pub fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Call>> {
    let mut conditions = Conditions::of(filter);
    if let Some(state) = filter.state {
        conditions.and("c.state = :state", ":state", Value::from(state.as_str().to_owned()));
    }
    if filter.dead {
        conditions
            .text
            .push_str(" AND c.outcome IN ('failed', 'timed_out') AND c.redriven_as IS NULL AND c.trigger <> 'call'");
    }
    let sql = conditions.newest(&format!("SELECT {COLUMNS} FROM calls c JOIN functions f ON f.id = c.function"));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(conditions.named().as_slice())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Call> {
    let word = |at: usize| row.get::<_, String>(at);
    let (state, outcome) = (word(7)?, row.get::<_, Option<String>>(8)?);
    let id = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 16]>>(at)?.map(CallId::from_bytes));
    Ok(Call {
        id: CallId::from_bytes(row.get(0)?),
        function: read_function(row, 1)?,
        version: maybe_version(row.get(4)?)?,
        trigger: read_trigger(word(5)?)?,
        actor: from_json("actor", &word(6)?)?,
        state: CallState::from_recorded(&state).ok_or_else(|| bad("call", format!("state = {state}")))?,
        outcome: outcome.map(read_outcome).transpose()?,
        error: row.get::<_, Option<String>>(9)?.map(|text| from_json("error of a call", &text)).transpose()?,
        attempts: row.get(10)?,
        created_at: time(row.get(11)?)?,
        due_at: time(row.get(12)?)?,
        scheduled_at: maybe_time(row.get(13)?)?,
        ended_at: maybe_time(row.get(14)?)?,
        cancelled_by: row.get::<_, Option<String>>(15)?.map(|text| from_json("actor", &text)).transpose()?,
        redrive_of: id(16)?,
        redriven_as: id(17)?,
        body_bytes: read_bytes(row.get(18)?),
        result_bytes: row.get::<_, Option<i64>>(19)?.map(read_bytes),
    })
}

fn read_outcome(text: String) -> Result<CallOutcome> {
    CallOutcome::from_recorded(&text).ok_or_else(|| bad("call", format!("outcome = {text}")))
}

/// The attempts of a call, in order.
pub fn attempts(connection: &Connection, id: CallId) -> Result<Vec<Attempt>> {
    let mut statement = connection.prepare_cached(
        "SELECT a.number, a.begun_at, a.ended_at, a.outcome, a.version, a.instance, a.queued, a.starting, a.running,
             a.error
         FROM attempts a JOIN calls c ON c.seq = a.call WHERE c.id = ?1 ORDER BY a.number",
    )?;
    let mut rows = statement.query([id.to_bytes()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let ended_at = maybe_time(row.get(2)?)?;
        let end = ended_at.map(|ended_at| read_end(row, ended_at)).transpose()?;
        found.push(Attempt { number: row.get(0)?, begun_at: time(row.get(1)?)?, end });
    }
    Ok(found)
}

fn read_end(row: &Row<'_>, ended_at: Timestamp) -> Result<AttemptEnd> {
    let outcome: String = row.get(3)?;
    let micros = |at: usize| Ok::<_, rusqlite::Error>(read_bytes(row.get::<_, Option<i64>>(at)?.unwrap_or(0)));
    Ok(AttemptEnd {
        outcome: AttemptOutcome::from_recorded(&outcome)
            .ok_or_else(|| bad("attempt", format!("outcome = {outcome}")))?,
        ended_at,
        version: maybe_version(row.get(4)?)?,
        instance: row.get::<_, Option<String>>(5)?.map(InstanceId::from_recorded),
        times: Times { queued_us: micros(6)?, starting_us: micros(7)?, running_us: micros(8)? },
        error: row.get::<_, Option<String>>(9)?.map(|text| from_json("error of an attempt", &text)).transpose()?,
    })
}

/// What a call was called with.
pub fn body(connection: &Connection, id: CallId) -> Result<Option<Payload>> {
    let mut statement =
        connection.prepare_cached("SELECT media, body_bytes, body_at, body FROM calls WHERE id = ?1")?;
    let mut rows = statement.query([id.to_bytes()])?;
    rows.next()?.map(|row| read_payload(row, 0)).transpose()
}

/// The result of a call, with the attempt that brought it; `None` for calls without one.
pub fn result(connection: &Connection, id: CallId) -> Result<Option<(CallResult, u32)>> {
    let mut statement = connection.prepare_cached(
        "SELECT r.media, r.bytes, r.at, r.body, r.status, c.attempts
         FROM results r JOIN calls c ON c.seq = r.call WHERE c.id = ?1",
    )?;
    let mut rows = statement.query([id.to_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((CallResult { payload: read_payload(row, 0)?, status: row.get(4)? }, row.get(5)?)))
}

fn read_payload(row: &Row<'_>, at: usize) -> Result<Payload> {
    Ok(Payload {
        media: row.get(at)?,
        bytes: read_bytes(row.get(at + 1)?),
        place: read_place(&row.get::<_, String>(at + 2)?, row.get(at + 3)?)?,
    })
}

/// What a function has yet to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Calls that wait for their turn, or for their next attempt.
    pub queued: u64,
    /// Calls with an attempt under way.
    pub running: u64,
    /// Since when the oldest of those that could begin has been waiting.
    pub oldest: Option<Timestamp>,
}

/// What each function has yet to do; those that are not named have nothing.
pub fn backlogs(connection: &Connection) -> Result<HashMap<FunctionKey, Backlog>> {
    let mut found: HashMap<FunctionKey, Backlog> = HashMap::new();
    // Each is answered from an index that holds such calls only.
    let mut queued = connection.prepare_cached(
        "SELECT f.environment, f.app, f.name, count(*), min(c.due_at) FROM calls c JOIN functions f ON f.id = c.function
         WHERE c.state = 'queued' GROUP BY c.function",
    )?;
    let mut rows = queued.query([])?;
    while let Some(row) = rows.next()? {
        let backlog = found.entry(read_function(row, 0)?).or_default();
        (backlog.queued, backlog.oldest) = (read_bytes(row.get(3)?), maybe_time(row.get(4)?)?);
    }
    let mut running = connection.prepare_cached(
        "SELECT f.environment, f.app, f.name, count(*) FROM calls c JOIN functions f ON f.id = c.function
         WHERE c.state = 'running' GROUP BY c.function",
    )?;
    let mut rows = running.query([])?;
    while let Some(row) = rows.next()? {
        found.entry(read_function(row, 0)?).or_default().running = read_bytes(row.get(3)?);
    }
    Ok(found)
}

/// How many calls of a function wait, counted up to `most`.
pub fn queued(connection: &Connection, key: &FunctionKey, most: u64) -> Result<u64> {
    let Some(function) = find_function(connection, key)? else { return Ok(0) };
    let mut count = connection.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM calls WHERE function = ?1 AND state = 'queued' LIMIT ?2)",
    )?;
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(read_bytes(count.query_row(params![function, limit], |row| row.get(0))?))
}
