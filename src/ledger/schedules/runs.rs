//! What became of each instant of a schedule.

use std::collections::BTreeMap;

use super::*;
use crate::decide::runs::Gap;
use crate::domain::{CallError, CallId, Trigger};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It waits for the one before it.
    Waiting,
    /// Its call is under way, or waits for its turn.
    Running,
    /// It has its outcome.
    Done,
}

impl RunState {
    /// The word in the record and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Waiting => "waiting",
            RunState::Running => "running",
            RunState::Done => "done",
        }
    }

    fn from_recorded(text: &str) -> Result<Self> {
        let all = [RunState::Waiting, RunState::Running, RunState::Done];
        all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| bad("run", format!("state = {text}")))
    }
}

/// A run as recorded, or several that were missed in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The instant it stands for; the first of a gap; the moment somebody asked.
    pub at: Timestamp,
    /// The last instant of a gap of missed ones.
    pub last: Option<Timestamp>,
    /// How many instants it stands for.
    pub count: u32,
    /// It stands for more than `count`.
    pub more: bool,
    /// How it stands.
    pub state: RunState,
    /// How it ended.
    pub outcome: Option<CallOutcome>,
    /// What made it: [`Trigger::Schedule`] or [`Trigger::Manual`].
    pub trigger: Trigger,
    /// Who asked for it.
    pub actor: Option<Actor>,
    /// It was missed first and started later.
    pub caught_up: bool,
    /// Its call, where it has one.
    pub call: Option<CallId>,
    /// When its call was made.
    pub started_at: Option<Timestamp>,
    /// When it had its outcome.
    pub ended_at: Option<Timestamp>,
    /// Why it did not succeed.
    pub error: Option<CallError>,
}

/// A run that comes to be.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The instant it stands for, or the moment somebody asked.
    pub at: Timestamp,
    /// What makes it.
    pub trigger: Trigger,
    /// Who asked for it.
    pub actor: Option<Actor>,
    /// It was missed first.
    pub caught_up: bool,
    /// Its call; `None` while it waits for the run before it.
    pub call: Option<CallId>,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// Records a run that starts, or waits. `false` if its instant is recorded already: then nothing may start.
pub fn add(connection: &Connection, id: ScheduleId, new: &NewRun) -> Result<bool> {
    let state = if new.call.is_some() { RunState::Running } else { RunState::Waiting };
    let added = connection
        .prepare_cached(
            "INSERT INTO schedule_runs (schedule, at, state, trigger, actor, caught_up, call, decided_at, started_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id.0,
            micros(new.at),
            state.as_str(),
            new.trigger.as_str(),
            new.actor.as_ref().map(json).transpose()?,
            new.caught_up,
            new.call.map(CallId::to_bytes),
            micros(new.decided_at),
            new.call.map(|_| micros(new.decided_at)),
        ])?;
    Ok(added > 0)
}

/// A run that waited has its call now. `false` if it does not wait.
pub fn start_waiting(
    connection: &Connection,
    id: ScheduleId,
    at: Timestamp,
    call: CallId,
    now: Timestamp,
) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE schedule_runs SET state = 'running', call = ?3, started_at = ?4
             WHERE schedule = ?1 AND at = ?2 AND state = 'waiting'",
        )?
        .execute(params![id.0, micros(at), call.to_bytes(), micros(now)])?;
    Ok(changed > 0)
}

/// The trigger and the actor of a run that waits.
pub fn asked_by(connection: &Connection, id: ScheduleId, at: Timestamp) -> Result<Option<(Trigger, Option<Actor>)>> {
    let mut statement =
        connection.prepare_cached("SELECT trigger, actor FROM schedule_runs WHERE schedule = ?1 AND at = ?2")?;
    let mut rows = statement.query(params![id.0, micros(at)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let actor: Option<String> = row.get(1)?;
    Ok(Some((trigger(&row.get::<_, String>(0)?)?, actor.map(|text| from_json("actor", &text)).transpose()?)))
}

/// Records that the run of an instant does not start because another one is under way.
pub fn skip(connection: &Connection, id: ScheduleId, at: Timestamp, now: Timestamp) -> Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO schedule_runs (schedule, at, state, outcome, trigger, decided_at, ended_at)
             VALUES (?1, ?2, 'done', ?3, 'schedule', ?4, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![id.0, micros(at), CallOutcome::SkippedOverlap.as_str(), micros(now)])?;
    count(connection, id, CallOutcome::SkippedOverlap, added)?;
    Ok(added > 0)
}

/// A run that waited does not start any more.
pub fn give_up(
    connection: &Connection,
    id: ScheduleId,
    at: Timestamp,
    outcome: CallOutcome,
    now: Timestamp,
) -> Result<()> {
    let ended = connection
        .prepare_cached(
            "UPDATE schedule_runs SET state = 'done', outcome = ?3, ended_at = ?4
             WHERE schedule = ?1 AND at = ?2 AND state = 'waiting'",
        )?
        .execute(params![id.0, micros(at), outcome.as_str(), micros(now)])?;
    count(connection, id, outcome, ended)
}

/// Records instants that were missed.
pub fn missed(connection: &Connection, id: ScheduleId, gap: &Gap, now: Timestamp) -> Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO schedule_runs
                 (schedule, at, last, count, more, state, outcome, trigger, decided_at, ended_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'done', ?6, 'schedule', ?7, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id.0,
            micros(gap.first),
            micros(gap.last),
            gap.count,
            gap.more,
            CallOutcome::Missed.as_str(),
            micros(now),
        ])?;
    count(connection, id, CallOutcome::Missed, added * usize::try_from(gap.count).unwrap_or(usize::MAX))?;
    Ok(added > 0)
}

/// Gaps of missed instants that end after this.
pub fn gaps_beyond(connection: &Connection, id: ScheduleId, clock: Timestamp) -> Result<Vec<Gap>> {
    let mut statement = connection.prepare_cached(
        "SELECT at, last, count, more FROM schedule_runs WHERE schedule = ?1 AND last > ?2 ORDER BY at",
    )?;
    let mut rows = statement.query(params![id.0, micros(clock)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Gap { first: time(row.get(0)?)?, last: time(row.get(1)?)?, count: row.get(2)?, more: row.get(3)? });
    }
    Ok(found)
}

/// A gap that was recorded by a wrong clock ends earlier, or never was.
pub fn cut_gap(connection: &Connection, id: ScheduleId, first: Timestamp, left: Option<&Gap>) -> Result<()> {
    match left {
        Some(gap) => connection
            .prepare_cached(
                "UPDATE schedule_runs SET last = ?3, count = ?4, more = ?5 WHERE schedule = ?1 AND at = ?2",
            )?
            .execute(params![id.0, micros(first), micros(gap.last), gap.count, gap.more])?,
        None => connection
            .prepare_cached("DELETE FROM schedule_runs WHERE schedule = ?1 AND at = ?2 AND last IS NOT NULL")?
            .execute(params![id.0, micros(first)])?,
    };
    Ok(())
}

/// Instants after this one that have a row of their own, the first `limit` of them.
pub fn instants_after(
    connection: &Connection,
    id: ScheduleId,
    after: Timestamp,
    limit: u32,
) -> Result<BTreeSet<Timestamp>> {
    let mut statement = connection.prepare_cached(
        "SELECT at FROM schedule_runs WHERE schedule = ?1 AND at > ?2 AND last IS NULL ORDER BY at LIMIT ?3",
    )?;
    let rows = statement.query_map(params![id.0, micros(after), limit], |row| row.get::<_, i64>(0))?;
    rows.map(|row| time(row?)).collect()
}

/// Runs of a schedule without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Open {
    /// Those with a call.
    pub running: BTreeMap<Timestamp, CallId>,
    /// Those that wait for one of these.
    pub waiting: BTreeSet<Timestamp>,
}

/// The runs of a schedule that have no outcome.
pub fn open(connection: &Connection, id: ScheduleId) -> Result<Open> {
    let mut statement =
        connection.prepare_cached("SELECT at, call FROM schedule_runs WHERE schedule = ?1 AND state <> 'done'")?;
    let mut rows = statement.query([id.0])?;
    let mut open = Open::default();
    while let Some(row) = rows.next()? {
        let at = time(row.get(0)?)?;
        match row.get::<_, Option<[u8; 16]>>(1)? {
            Some(call) => drop(open.running.insert(at, CallId::from_bytes(call))),
            None => drop(open.waiting.insert(at)),
        }
    }
    Ok(open)
}

/// The calls of all runs under way.
pub fn running(connection: &Connection) -> Result<Vec<CallId>> {
    let mut statement =
        connection.prepare_cached("SELECT call FROM schedule_runs WHERE state = 'running' ORDER BY call")?;
    let rows = statement.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
    rows.map(|row| Ok(CallId::from_bytes(row?))).collect()
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Of which schedule.
    pub schedule: ScheduleId,
    /// Its instant.
    pub at: Timestamp,
    /// When its call was made.
    pub started_at: Option<Timestamp>,
}

/// Records the outcome of the run whose call this is; `None` if there is none without an outcome.
pub fn finish(
    connection: &Connection,
    call: CallId,
    outcome: CallOutcome,
    error: Option<&CallError>,
    ended_at: Timestamp,
) -> Result<Option<Ended>> {
    let mut statement = connection.prepare_cached(
        "UPDATE schedule_runs SET state = 'done', outcome = ?2, error = ?3, ended_at = ?4
         WHERE call = ?1 AND state = 'running' RETURNING schedule, at, started_at",
    )?;
    let error = error.map(json).transpose()?;
    let mut rows = statement.query(params![call.to_bytes(), outcome.as_str(), error, micros(ended_at)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let ended =
        Ended { schedule: ScheduleId(row.get(0)?), at: time(row.get(1)?)?, started_at: maybe_time(row.get(2)?)? };
    // The statement is finished before the next one writes.
    while rows.next()?.is_some() {}
    count(connection, ended.schedule, outcome, 1)?;
    Ok(Some(ended))
}

fn trigger(word: &str) -> Result<Trigger> {
    Trigger::from_recorded(word).ok_or_else(|| bad("run", format!("trigger = {word}")))
}

const RUN: &str =
    "SELECT at, last, count, more, state, outcome, trigger, actor, caught_up, call, started_at, ended_at, error
    FROM schedule_runs";

fn read_run(row: &Row<'_>) -> Result<Run> {
    let word: Option<String> = row.get(5)?;
    let actor: Option<String> = row.get(7)?;
    let error: Option<String> = row.get(12)?;
    Ok(Run {
        at: time(row.get(0)?)?,
        last: maybe_time(row.get(1)?)?,
        count: row.get(2)?,
        more: row.get(3)?,
        state: RunState::from_recorded(&row.get::<_, String>(4)?)?,
        outcome: word.map(|word| outcome(&word)).transpose()?,
        trigger: trigger(&row.get::<_, String>(6)?)?,
        actor: actor.map(|text| from_json("actor", &text)).transpose()?,
        caught_up: row.get(8)?,
        call: row.get::<_, Option<[u8; 16]>>(9)?.map(CallId::from_bytes),
        started_at: maybe_time(row.get(10)?)?,
        ended_at: maybe_time(row.get(11)?)?,
        error: error.map(|text| from_json("error", &text)).transpose()?,
    })
}

/// Runs of a schedule, the latest instant first, only those before `before` and with this outcome.
pub fn history(
    connection: &Connection,
    id: ScheduleId,
    before: Option<Timestamp>,
    only: Option<CallOutcome>,
    limit: u32,
) -> Result<Vec<Run>> {
    let mut statement = connection.prepare_cached(&format!(
        "{RUN} WHERE schedule = ?1 AND at < ?2 AND (?3 IS NULL OR outcome = ?3) ORDER BY at DESC LIMIT ?4"
    ))?;
    let before = before.map_or(i64::MAX, micros);
    let mut rows = statement.query(params![id.0, before, only.map(CallOutcome::as_str), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_run(row)?);
    }
    Ok(found)
}

/// The latest run that failed, which is kept however old it is.
pub fn last_failure(connection: &Connection, id: ScheduleId) -> Result<Option<Run>> {
    let mut statement = connection.prepare_cached(&format!(
        "{RUN} WHERE schedule = ?1 AND outcome IN ('failed', 'timed_out') ORDER BY at DESC LIMIT 1"
    ))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read_run).transpose()
}

/// Forgets runs that are over and older than this, all but the newest `keep` and the last failure of each schedule;
/// and of each schedule everything beyond the newest `most`. Answers how many.
pub fn prune(connection: &Connection, before: Timestamp, keep: u32, most: u32) -> Result<usize> {
    let ids: Vec<i64> = connection
        .prepare_cached("SELECT id FROM schedules")?
        .query_map([], |row| row.get(0))?
        .collect::<std::result::Result<_, _>>()?;
    let nth = |id: i64, skip: u32| {
        connection
            .prepare_cached("SELECT at FROM schedule_runs WHERE schedule = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2")?
            .query_row(params![id, skip], |row| row.get::<_, i64>(0))
            .optional()
    };
    let mut forgotten = 0;
    for id in ids {
        let Some(kept) = nth(id, keep)? else { continue };
        let border = kept.min(micros(before)).max(nth(id, most)?.unwrap_or(i64::MIN));
        forgotten += connection
            .prepare_cached(
                "DELETE FROM schedule_runs WHERE schedule = ?1 AND at <= ?2 AND state = 'done'
                 AND at <> coalesce((SELECT max(at) FROM schedule_runs
                     WHERE schedule = ?1 AND outcome IN ('failed', 'timed_out')), 0)",
            )?
            .execute(params![id, border])?;
    }
    Ok(forgotten)
}

/// The run has another call than was meant.
pub fn set_call(connection: &Connection, id: ScheduleId, at: Timestamp, call: CallId) -> Result<()> {
    connection
        .prepare_cached("UPDATE schedule_runs SET call = ?3 WHERE schedule = ?1 AND at = ?2")?
        .execute(params![id.0, micros(at), call.to_bytes()])?;
    Ok(())
}
