//! Events (facts for people and programs) and the audit (who changed what).

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::Serialize;

use super::rows::{from_json, json, micros};
use super::{Result, commit_status};
use crate::domain::{Actor, AppKey, Event};

/// Records an event, and what is to be told of it elsewhere; call it in the transaction that makes it true.
pub fn event(connection: &Connection, event: &Event) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO events (at, event, environment, app, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            micros(event.at),
            event.kind.as_str(),
            event.app.as_ref().map(|key| key.environment.as_str()),
            event.app.as_ref().map(|key| key.app.as_str()),
            json(event)?,
        ])?;
    connection
        .prepare_cached("INSERT INTO tallies VALUES (?1, 1) ON CONFLICT (event) DO UPDATE SET count = count + 1")?
        .execute([event.kind.as_str()])?;
    commit_status::tell(connection, event)
}

/// How often each kind of event has happened, since the ledger was made. Kinds that never happened are not in it.
pub fn tallies(connection: &Connection) -> Result<Vec<(String, u64)>> {
    let mut statement = connection.prepare_cached("SELECT event, count FROM tallies ORDER BY event")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Events after a place in their order, oldest first.
pub fn events_after(connection: &Connection, after: i64, limit: u32) -> Result<Vec<(i64, Event)>> {
    let mut statement = connection
        .prepare_cached("SELECT sequence, body FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")?;
    let rows =
        statement.query_map(params![after, limit], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (sequence, body) = row?;
        Ok((sequence, from_json("event", &body)?))
    })
    .collect()
}

/// The newest `limit` events, oldest first.
pub fn newest_events(connection: &Connection, limit: u32) -> Result<Vec<(i64, Event)>> {
    let newest: i64 =
        connection.prepare_cached("SELECT coalesce(max(sequence), 0) FROM events")?.query_row([], |row| row.get(0))?;
    events_after(connection, newest.saturating_sub(i64::from(limit)), limit)
}

/// Drops events older than `before`, all but the newest `keep`.
pub fn forget_events(connection: &Connection, before: Timestamp, keep: u32) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM events WHERE at < ?1 AND sequence <= (SELECT coalesce(max(sequence), 0) FROM events) - ?2",
        )?
        .execute(params![micros(before), keep])?;
    Ok(())
}

/// Records a change that nobody asked for; call it in the transaction of the change. What somebody asks the API for is on
/// record before anything is done ([`super::audit`]), and is not recorded twice.
pub fn audit(
    connection: &Connection,
    actor: &Actor,
    action: &str,
    key: Option<&AppKey>,
    detail: &impl Serialize,
    at: Timestamp,
) -> Result<()> {
    if matches!(actor, Actor::User { .. } | Actor::Token { .. } | Actor::Person { .. }) {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO audit (at, actor, action, environment, app, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            micros(at),
            json(actor)?,
            action,
            key.map(|key| key.environment.as_str()),
            key.map(|key| key.app.as_str()),
            json(detail)?,
        ])?;
    Ok(())
}
