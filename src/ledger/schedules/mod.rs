//! Schedules: up to which instant each is decided, whether it is paused, and what became of every instant.
//!
//! | file | what |
//! |---|---|
//! | here | the schedules themselves |
//! | `runs` | their instants: one row each, or one for a gap of missed ones |
//! | `kept` | what stays of runs: numbers, and what those that failed have written |
//!
//! Owner: `engine::scheduler`. A schedule is its function; one that is gone from the live version keeps its row and
//! its history while the app is known. Invariants: there is at most one row for an instant; a run's row and its
//! call's row are written in one transaction; `decided_at` never says more than the rows.

mod kept;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use kept::count;
pub use kept::{Output, keep_output, output, tallies};
pub use runs::{
    Ended, NewRun, Open, Run, RunState, add, asked_by, cut_gap, finish, gaps_beyond, give_up, history, instants_after,
    last_failure, missed, open, prune, running, set_call, skip, start_waiting,
};

use super::Result;
use super::rows::{bad, find_app, from_json, json, maybe_time, micros, parse, time};
use crate::decide::runs::Streak;
use crate::domain::{Actor, AppKey, CallOutcome, FunctionKey};

/// Which schedule, within the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId(i64);

/// A pause, and who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// Who.
    pub actor: Actor,
    /// Since when.
    pub since: Timestamp,
    /// It ends by itself then.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// A schedule as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Its row.
    pub id: ScheduleId,
    /// The function it calls.
    pub function: FunctionKey,
    /// What it was last planned by, as its author wrote it.
    pub planned_by: String,
    /// The live version has it.
    pub active: bool,
    /// Every instant up to here is decided.
    pub decided_at: Timestamp,
    /// Nothing starts by itself.
    pub pause: Option<PauseRecord>,
    /// How its runs went.
    pub streak: Streak,
    /// The last run that has an outcome.
    pub last: Option<(Timestamp, CallOutcome)>,
    /// The instant of the last run that succeeded.
    pub last_success: Option<Timestamp>,
}

const COLUMNS: &str =
    "s.id, a.environment, a.name, s.function, s.planned_by, s.active, s.decided_at, s.pause, s.streak,
    s.last_at, s.last_outcome, s.last_success_at FROM schedules s JOIN apps a ON a.id = s.app";

fn read(row: &Row<'_>) -> Result<ScheduleRecord> {
    let app = AppKey::new(parse("environment", row.get(1)?)?, parse("app name", row.get(2)?)?);
    let pause: Option<String> = row.get(7)?;
    let streak: String = row.get(8)?;
    let last = match (maybe_time(row.get(9)?)?, row.get::<_, Option<String>>(10)?) {
        (Some(at), Some(word)) => Some((at, outcome(&word)?)),
        _ => None,
    };
    let (successes, failures, skips, kind) = from_json("streak", &streak)?;
    Ok(ScheduleRecord {
        id: ScheduleId(row.get(0)?),
        function: FunctionKey::new(app, parse("function", row.get(3)?)?),
        planned_by: row.get(4)?,
        active: row.get(5)?,
        decided_at: time(row.get(6)?)?,
        pause: pause.map(|text| from_json("pause", &text)).transpose()?,
        streak: Streak { successes, failures, skips, kind },
        last,
        last_success: maybe_time(row.get(11)?)?,
    })
}

fn outcome(word: &str) -> Result<CallOutcome> {
    CallOutcome::from_recorded(word).ok_or_else(|| bad("run", format!("outcome = {word}")))
}

/// All schedules, with those that are gone.
pub fn all(connection: &Connection) -> Result<Vec<ScheduleRecord>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} ORDER BY a.environment, a.name, s.function"))?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// All schedules of an app, with those that are gone.
pub fn of_app(connection: &Connection, key: &AppKey) -> Result<Vec<ScheduleRecord>> {
    let Some(app) = find_app(connection, key)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} WHERE s.app = ?1 ORDER BY s.function"))?;
    let mut rows = statement.query([app])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The schedule of a function, though it may be gone.
pub fn one(connection: &Connection, key: &FunctionKey) -> Result<Option<ScheduleRecord>> {
    let Some(app) = find_app(connection, &key.app)? else { return Ok(None) };
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} WHERE s.app = ?1 AND s.function = ?2"))?;
    let mut rows = statement.query(params![app, key.function.as_str()])?;
    rows.next()?.map(read).transpose()
}

/// The live version has this schedule. A new one, one that was gone, and one that is planned by something else than
/// before start with everything up to `begins` decided; for the others nothing changes. `None` for an app that is not
/// recorded.
pub fn activate(
    connection: &Connection,
    key: &FunctionKey,
    planned_by: &str,
    begins: Timestamp,
) -> Result<Option<ScheduleRecord>> {
    let Some(app) = find_app(connection, &key.app)? else { return Ok(None) };
    connection
        .prepare_cached(
            "INSERT INTO schedules (app, function, planned_by, active, decided_at, streak)
             VALUES (?1, ?2, ?3, 1, ?4, ?5)
             ON CONFLICT (app, function) DO UPDATE SET
                 decided_at = CASE WHEN active AND planned_by = excluded.planned_by THEN decided_at
                              ELSE max(decided_at, excluded.decided_at) END,
                 active = 1, planned_by = excluded.planned_by",
        )?
        .execute(params![app, key.function.as_str(), planned_by, micros(begins), streak_text(&Streak::default())?])?;
    one(connection, key)
}

/// The live version does not have it any more; how its runs went in a row is over with that.
pub fn deactivate(connection: &Connection, id: ScheduleId) -> Result<()> {
    connection
        .prepare_cached("UPDATE schedules SET active = 0, streak = ?2 WHERE id = ?1")?
        .execute(params![id.0, streak_text(&Streak::default())?])?;
    Ok(())
}

/// Every instant up to here is decided; call it in the transaction that records what was decided.
pub fn decided(connection: &Connection, id: ScheduleId, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE schedules SET decided_at = ?2 WHERE id = ?1")?
        .execute(params![id.0, micros(at)])?;
    Ok(())
}

/// Begins a pause, in place of one that is there; `None` ends it.
pub fn set_pause(connection: &Connection, id: ScheduleId, pause: Option<&PauseRecord>) -> Result<()> {
    connection
        .prepare_cached("UPDATE schedules SET pause = ?2 WHERE id = ?1")?
        .execute(params![id.0, pause.map(json).transpose()?])?;
    Ok(())
}

/// What is remembered of the runs, after one that has an outcome.
pub fn remember(
    connection: &Connection,
    id: ScheduleId,
    streak: &Streak,
    at: Timestamp,
    outcome: CallOutcome,
) -> Result<()> {
    let success = (outcome == CallOutcome::Succeeded).then(|| micros(at));
    connection
        .prepare_cached(
            "UPDATE schedules SET streak = ?2, last_at = ?3, last_outcome = ?4,
                 last_success_at = coalesce(?5, last_success_at) WHERE id = ?1",
        )?
        .execute(params![id.0, streak_text(streak)?, micros(at), outcome.as_str(), success])?;
    Ok(())
}

/// The streak of a schedule.
pub fn streak(connection: &Connection, id: ScheduleId) -> Result<Option<(FunctionKey, Streak)>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} WHERE s.id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    Ok(rows.next()?.map(read).transpose()?.map(|record| (record.function, record.streak)))
}

fn streak_text(streak: &Streak) -> Result<String> {
    json(&(streak.successes, streak.failures, streak.skips, &streak.kind))
}
