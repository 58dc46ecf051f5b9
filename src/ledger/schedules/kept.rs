//! What stays of runs: how many ended in each way, and what the latest of them have written.

use super::*;

/// Failed runs of each schedule whose output is kept; the last one is among them.
const OUTPUTS_OF_FAILURES: u32 = 5;
/// Other runs whose output is kept.
const OUTPUTS_OF_OTHERS: u32 = 3;

/// The beginning and the end of what a run has written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Its first lines.
    pub head: String,
    /// Lines between the two that are not kept.
    pub left_out: u64,
    /// Its last lines.
    pub tail: String,
}

/// Counts runs that have their outcome.
pub(super) fn count(connection: &Connection, id: ScheduleId, outcome: CallOutcome, runs: usize) -> Result<()> {
    if runs > 0 {
        connection
            .prepare_cached(
                "INSERT INTO schedule_tallies (schedule, outcome, count) VALUES (?1, ?2, ?3)
                 ON CONFLICT (schedule, outcome) DO UPDATE SET count = count + excluded.count",
            )?
            .execute(params![id.0, outcome.as_str(), i64::try_from(runs).unwrap_or(i64::MAX)])?;
    }
    Ok(())
}

/// How many runs of the schedules of live versions have ended in each way.
pub fn tallies(connection: &Connection) -> Result<Vec<(FunctionKey, CallOutcome, u64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT a.environment, a.name, s.function, t.outcome, t.count FROM schedule_tallies t
         JOIN schedules s ON s.id = t.schedule JOIN apps a ON a.id = s.app WHERE s.active
         ORDER BY a.environment, a.name, s.function, t.outcome",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let app = AppKey::new(parse("environment", row.get(0)?)?, parse("app name", row.get(1)?)?);
        let function = FunctionKey::new(app, parse("function", row.get(2)?)?);
        found.push((function, outcome(&row.get::<_, String>(3)?)?, u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0)));
    }
    Ok(found)
}

/// Keeps what a run has written, and forgets that of runs long before it: others crowd out no failure.
pub fn keep_output(connection: &Connection, id: ScheduleId, at: Timestamp, output: &Output) -> Result<()> {
    let left_out = i64::try_from(output.left_out).unwrap_or(i64::MAX);
    // A run that is forgotten already has no output.
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO schedule_outputs (schedule, at, head, left_out, tail)
             SELECT schedule, at, ?3, ?4, ?5 FROM schedule_runs WHERE schedule = ?1 AND at = ?2",
        )?
        .execute(params![id.0, micros(at), output.head, left_out, output.tail])?;
    let mut forget = connection.prepare_cached(
        "DELETE FROM schedule_outputs WHERE schedule = ?1 AND at IN
         (SELECT o.at FROM schedule_outputs o JOIN schedule_runs r ON r.schedule = o.schedule AND r.at = o.at
          WHERE o.schedule = ?1 AND (r.outcome IN ('failed', 'timed_out')) = ?2 ORDER BY o.at DESC LIMIT -1 OFFSET ?3)",
    )?;
    forget.execute(params![id.0, true, OUTPUTS_OF_FAILURES])?;
    forget.execute(params![id.0, false, OUTPUTS_OF_OTHERS])?;
    Ok(())
}

/// What a run has written, if that is kept.
pub fn output(connection: &Connection, id: ScheduleId, at: Timestamp) -> Result<Option<Output>> {
    let mut statement = connection
        .prepare_cached("SELECT head, left_out, tail FROM schedule_outputs WHERE schedule = ?1 AND at = ?2")?;
    let found = statement.query_row(params![id.0, micros(at)], |row| {
        let left_out = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
        Ok(Output { head: row.get(0)?, left_out, tail: row.get(2)? })
    });
    Ok(found.optional()?)
}
