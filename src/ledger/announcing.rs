//! What each channel has heard of, and the troubles it was told of: the announcer's memory, over restarts.
//!
//! A channel hears of every event once: how far it has come is recorded in the transaction that writes its messages
//! into the outbox.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::{self, NOTIFICATION};
use super::rows::{from_json, json};
use super::{Result, apps, deployments, facts, schedules, versions};
use crate::decide::announce::bundle::Memory;
use crate::decide::announce::happening::Facts;
use crate::domain::{Actor, Event, EventKind, FunctionKey, VersionKind};

/// Makes these the channels. A new one hears of what happens from now on; one that is gone forgets everything.
pub fn configure(connection: &Connection, names: &BTreeSet<String>) -> Result<()> {
    outbox::configure(connection, NOTIFICATION, names)?;
    let mut statement = connection.prepare_cached("SELECT name FROM channels")?;
    let known = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for gone in known.iter().filter(|name| !names.contains(*name)) {
        connection.prepare_cached("DELETE FROM channels WHERE name = ?1")?.execute([gone])?;
    }
    let newest = newest(connection)?;
    for name in names {
        connection
            .prepare_cached("INSERT OR IGNORE INTO channels (name, heard) VALUES (?1, ?2)")?
            .execute(params![name, newest])?;
    }
    Ok(())
}

/// The newest event's place in their order.
pub fn newest(connection: &Connection) -> Result<i64> {
    let mut statement = connection.prepare_cached("SELECT coalesce(max(sequence), 0) FROM events")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// How far each channel has come in the order of events.
pub fn heard(connection: &Connection) -> Result<BTreeMap<String, i64>> {
    let mut statement = connection.prepare_cached("SELECT name, heard FROM channels")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The troubles that a channel was told of, or counts.
pub fn memory(connection: &Connection, channel: &str) -> Result<Memory> {
    let mut statement = connection.prepare_cached("SELECT topic, body FROM episodes WHERE channel = ?1")?;
    let mut rows = statement.query([channel])?;
    let mut memory = Memory::default();
    while let Some(row) = rows.next()? {
        let body: String = row.get(1)?;
        memory.episodes.insert(row.get(0)?, from_json("trouble", &body)?);
    }
    Ok(memory)
}

/// Records how far a channel has come and what changed of its troubles.
pub fn save(connection: &Connection, channel: &str, heard: i64, memory: &Memory) -> Result<()> {
    connection
        .prepare_cached("UPDATE channels SET heard = max(heard, ?2) WHERE name = ?1")?
        .execute(params![channel, heard])?;
    for topic in &memory.changed {
        match memory.episodes.get(topic) {
            Some(episode) => connection
                .prepare_cached("INSERT OR REPLACE INTO episodes (channel, topic, body) VALUES (?1, ?2, ?3)")?
                .execute(params![channel, topic, json(episode)?])?,
            None => connection
                .prepare_cached("DELETE FROM episodes WHERE channel = ?1 AND topic = ?2")?
                .execute(params![channel, topic])?,
        };
    }
    Ok(())
}

/// What the record says of an event's version and app.
pub fn facts_of(connection: &Connection, event: &Event) -> Result<Facts> {
    let mut found = Facts::default();
    let Some(key) = &event.app else { return Ok(found) };
    let version = match event.version {
        Some(number) => versions::one(connection, key, number)?,
        None => None,
    };
    if let Some(version) = &version {
        found.kind = Some(version.kind);
        found.by_agent = version.actor == Actor::Agent && matches!(version.kind, VersionKind::Rollback { .. });
        found.notify.clone_from(&version.material.manifest.notify);
        let deployment = version.deployment.filter(|_| event.kind == EventKind::DeploymentFailed);
        if let Some(deployment) = deployment.map(|id| deployments::one(connection, id)).transpose()?.flatten() {
            found.outcome = deployment.outcome;
            found.failure = deployment.failure;
        }
    } else if let Some(material) = apps::one(connection, key)?.and_then(|app| app.material) {
        found.known_content =
            event.kind == EventKind::Quarantined && versions::is_of_a_version(connection, key, &material)?;
        found.notify = material.manifest.notify;
    }
    if let (EventKind::ScheduleFailed, Some(function)) = (event.kind, &event.object) {
        let run = last_failure(connection, &FunctionKey::new(key.clone(), function.clone()))?;
        let error = run.and_then(|run| run.error);
        found.run_tail = error.and_then(|error| error.traceback).iter().flat_map(|text| lines(text)).collect();
    }
    Ok(found)
}

fn last_failure(connection: &Connection, function: &FunctionKey) -> Result<Option<schedules::Run>> {
    let Some(schedule) = schedules::one(connection, function)? else { return Ok(None) };
    schedules::last_failure(connection, schedule.id)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Records what the disk says, if that is news.
pub fn disk(connection: &Connection, event: &Event) -> Result<bool> {
    let last: Option<String> = connection
        .prepare_cached(
            "SELECT event FROM events WHERE event IN ('disk.low', 'disk.recovered') ORDER BY sequence DESC LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    let news = match event.kind {
        EventKind::DiskLow => last.as_deref() != Some("disk.low"),
        _ => last.as_deref() == Some("disk.low"),
    };
    if news {
        facts::event(connection, event)?;
    }
    Ok(news)
}
