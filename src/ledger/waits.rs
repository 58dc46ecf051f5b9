//! What of a source is not carried out yet, and why: at most one of each kind.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::Result;
use super::rows::{from_json, json, micros, parse, time};
use crate::domain::{Actor, SourceName, WaitReason, Waiting};

/// Everything that waits, with its source, oldest first.
pub fn all(connection: &Connection) -> Result<Vec<(SourceName, Waiting)>> {
    let mut statement = connection
        .prepare_cached("SELECT id, reason, revision, since, approved_by, source FROM waits ORDER BY source, id")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((parse("source", row.get(5)?)?, read(row)?));
    }
    Ok(found)
}

/// What waits of one source, oldest first.
pub fn of(connection: &Connection, source: &SourceName) -> Result<Vec<Waiting>> {
    let mut statement = connection
        .prepare_cached("SELECT id, reason, revision, since, approved_by FROM waits WHERE source = ?1 ORDER BY id")?;
    let mut rows = statement.query([source.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Waiting> {
    let approved: Option<String> = row.get(4)?;
    Ok(Waiting {
        id: row.get(0)?,
        reason: from_json("wait", &row.get::<_, String>(1)?)?,
        revision: row.get(2)?,
        since: time(row.get(3)?)?,
        approved_by: approved.map(|text| from_json("actor", &text)).transpose()?,
    })
}

/// Records that something waits, in place of what waited of that kind. `false` when exactly this waits already: it
/// keeps its identifier, its time and its approval.
pub fn set(
    connection: &Connection,
    source: &SourceName,
    reason: &WaitReason,
    revision: Option<&str>,
    at: Timestamp,
) -> Result<bool> {
    if of(connection, source)?.iter().any(|waiting| waiting.reason.is_same(reason)) {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO waits (source, kind, reason, revision, since) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![source.as_str(), reason.kind(), json(reason)?, revision, micros(at)])?;
    Ok(true)
}

/// Ends a wait; `false` when there was none of that identifier.
pub fn end(connection: &Connection, id: i64) -> Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM waits WHERE id = ?1")?.execute([id])? > 0)
}

/// Records who has approved what waits, for what cannot be carried out in the same transaction.
pub fn approve(connection: &Connection, id: i64, actor: &Actor) -> Result<()> {
    connection.prepare_cached("UPDATE waits SET approved_by = ?2 WHERE id = ?1")?.execute(params![id, json(actor)?])?;
    Ok(())
}
