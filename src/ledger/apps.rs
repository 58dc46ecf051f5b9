//! Apps: what git says about them, what is live, and what people have decreed (hold, quarantine, suspension, stop).

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::Result;
use super::rows::{app_id, bad, find_app, from_json, json, maybe_time, maybe_version, micros, parse, time, version};
use crate::domain::{
    Actor, AppKey, AppName, CommitId, ContentId, EnvironmentName, Hold, Manifest, SourceName, Suspension, TreeId,
    VersionNumber,
};

/// Everything needed to run a content: what a version is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// Identity.
    pub content: ContentId,
    /// The file tree in the store, included directories and all.
    pub tree: TreeId,
    /// The app's directory within that tree; empty for its root.
    pub workdir: String,
    /// The app.
    pub manifest: Manifest,
    /// The commit it came with.
    pub commit: Option<CommitId>,
    /// The commit's author.
    pub author: Option<String>,
    /// The commit's first line.
    pub subject: Option<String>,
}

/// What git says about an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// This content.
    Content(Box<Material>),
    /// Its manifest cannot be read, for this reason.
    Unknown(String),
    /// It is gone.
    Absent,
}

/// Which part of what git says is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedKind {
    /// `material` is it.
    Content,
    /// The manifest cannot be read; `material` is the last good one.
    Unknown,
    /// The app is gone from git.
    Absent,
    /// No source speaks of it.
    Nobody,
}

impl WantedKind {
    fn as_str(self) -> &'static str {
        match self {
            WantedKind::Content => "content",
            WantedKind::Unknown => "unknown",
            WantedKind::Absent => "absent",
            WantedKind::Nobody => "nobody",
        }
    }

    fn from_recorded(text: &str) -> Result<Self> {
        [Self::Content, Self::Unknown, Self::Absent, Self::Nobody]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| bad("app", format!("wanted = {text}")))
    }
}

/// An app as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRecord {
    /// Its key.
    pub key: AppKey,
    /// Who owns it: source and directory within it; `None` for uploads.
    pub owner: Option<(SourceName, String)>,
    /// What git says.
    pub wanted: WantedKind,
    /// The newest content git gave.
    pub material: Option<Material>,
    /// Why the manifest cannot be read.
    pub manifest_error: Option<String>,
    /// The version that receives new work.
    pub live: Option<VersionNumber>,
    /// The hold, and what git asked for when it was made.
    pub hold: Option<(Hold, Option<ContentId>)>,
    /// Content that must not be started by itself.
    pub quarantine: BTreeSet<ContentId>,
    /// Why it is frozen.
    pub suspension: Option<Suspension>,
    /// When, why and by whom it was stopped.
    pub stop: Option<StopRecord>,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

/// A stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRecord {
    /// What git asked for then; other content starts the app again.
    pub content: Option<ContentId>,
    /// Why.
    pub reason: Option<String>,
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
}

/// All apps.
pub fn all(connection: &Connection) -> Result<Vec<AppRecord>> {
    select(connection, "ORDER BY environment, name", &[])
}

/// One app.
pub fn one(connection: &Connection, key: &AppKey) -> Result<Option<AppRecord>> {
    let found =
        select(connection, "WHERE environment = ?1 AND name = ?2", &[&key.environment.as_str(), &key.app.as_str()])?;
    Ok(found.into_iter().next())
}

fn select(connection: &Connection, rest: &str, arguments: &[&dyn rusqlite::ToSql]) -> Result<Vec<AppRecord>> {
    let sql = format!(
        "SELECT id, environment, name, source, path, wanted, material, manifest_error, live_version, updated_at,
                h.version, h.over, h.reason, h.actor, h.since, h.until,
                s.reason, s.actor, s.since, s.until,
                t.content, t.reason, t.actor, t.at
         FROM apps LEFT JOIN holds h ON h.app = id LEFT JOIN suspensions s ON s.app = id
              LEFT JOIN stops t ON t.app = id {rest}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(arguments)?;
    let mut apps = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, mut app) = read_app(row)?;
        app.quarantine = quarantine(connection, id)?;
        apps.push(app);
    }
    Ok(apps)
}

fn read_app(row: &Row<'_>) -> Result<(i64, AppRecord)> {
    let key =
        AppKey::new(parse::<EnvironmentName>("environment", row.get(1)?)?, parse::<AppName>("app name", row.get(2)?)?);
    let source: Option<String> = row.get(3)?;
    let path: Option<String> = row.get(4)?;
    let material: Option<String> = row.get(6)?;
    let app = AppRecord {
        key,
        owner: match source {
            Some(source) => Some((parse::<SourceName>("source", source)?, path.unwrap_or_default())),
            None => None,
        },
        wanted: WantedKind::from_recorded(&row.get::<_, String>(5)?)?,
        material: material.map(|text| from_json("material", &text)).transpose()?,
        manifest_error: row.get(7)?,
        live: maybe_version(row.get(8)?)?,
        hold: read_hold(row)?,
        quarantine: BTreeSet::new(),
        suspension: read_suspension(row)?,
        stop: read_stop(row)?,
        updated_at: time(row.get(9)?)?,
    };
    Ok((row.get(0)?, app))
}

fn read_hold(row: &Row<'_>) -> Result<Option<(Hold, Option<ContentId>)>> {
    let Some(number) = row.get::<_, Option<u32>>(10)? else { return Ok(None) };
    let over: Option<String> = row.get(11)?;
    let hold = Hold {
        version: version(number)?,
        reason: row.get(12)?,
        actor: from_json("actor", &row.get::<_, String>(13)?)?,
        since: time(row.get(14)?)?,
        until: maybe_time(row.get(15)?)?,
    };
    Ok(Some((hold, over.map(|text| parse("content", text)).transpose()?)))
}

fn read_suspension(row: &Row<'_>) -> Result<Option<Suspension>> {
    let Some(since) = row.get::<_, Option<i64>>(18)? else { return Ok(None) };
    Ok(Some(Suspension {
        reason: row.get(16)?,
        actor: from_json("actor", &row.get::<_, String>(17)?)?,
        since: time(since)?,
        until: maybe_time(row.get(19)?)?,
    }))
}

fn read_stop(row: &Row<'_>) -> Result<Option<StopRecord>> {
    let Some(at) = row.get::<_, Option<i64>>(23)? else { return Ok(None) };
    let content: Option<String> = row.get(20)?;
    Ok(Some(StopRecord {
        content: content.map(|text| parse("content", text)).transpose()?,
        reason: row.get(21)?,
        actor: from_json("actor", &row.get::<_, String>(22)?)?,
        at: time(at)?,
    }))
}

fn quarantine(connection: &Connection, app: i64) -> Result<BTreeSet<ContentId>> {
    let mut statement = connection.prepare_cached("SELECT content FROM quarantine WHERE app = ?1")?;
    let rows = statement.query_map([app], |row| row.get::<_, String>(0))?;
    rows.map(|text| parse("content", text?)).collect()
}

/// Records what a source says about an app, and that the source owns it. An app that is not known yet is made.
pub fn observe(
    connection: &Connection,
    key: &AppKey,
    owner: (&SourceName, &str),
    observed: &Observed,
    at: Timestamp,
) -> Result<()> {
    let id = ensure(connection, key, WantedKind::Unknown, at)?;
    let (kind, material, error) = match observed {
        Observed::Content(material) => (WantedKind::Content, Some(json(material)?), None),
        Observed::Unknown(error) => (WantedKind::Unknown, None, Some(error)),
        Observed::Absent => (WantedKind::Absent, None, None),
    };
    connection
        .prepare_cached(
            "UPDATE apps SET source = ?2, path = ?3, wanted = ?4, material = coalesce(?5, material),
                    manifest_error = ?6, updated_at = ?7 WHERE id = ?1",
        )?
        .execute(params![id, owner.0.as_str(), owner.1, kind.as_str(), material, error, micros(at)])?;
    Ok(())
}

/// Makes an app nobody but its uploader speaks of, if it is not known yet.
pub fn ensure_uploaded(connection: &Connection, key: &AppKey, at: Timestamp) -> Result<()> {
    ensure(connection, key, WantedKind::Nobody, at).map(drop)
}

/// An app whose source is no longer configured goes on as if it had been uploaded.
pub fn disown(connection: &Connection, source: &SourceName, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE apps SET source = NULL, path = NULL, wanted = 'nobody', manifest_error = NULL, updated_at = ?2
             WHERE source = ?1",
        )?
        .execute(params![source.as_str(), micros(at)])?;
    Ok(())
}

fn ensure(connection: &Connection, key: &AppKey, kind: WantedKind, at: Timestamp) -> Result<i64> {
    if let Some(id) = find_app(connection, key)? {
        return Ok(id);
    }
    connection
        .prepare_cached(
            "INSERT INTO apps (environment, name, wanted, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        )?
        .execute(params![key.environment.as_str(), key.app.as_str(), kind.as_str(), micros(at)])?;
    Ok(connection.last_insert_rowid())
}

/// Removes an app and everything recorded of it. Its events and audit stay.
pub fn remove(connection: &Connection, key: &AppKey) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM apps WHERE environment = ?1 AND name = ?2")?
        .execute(params![key.environment.as_str(), key.app.as_str()])?;
    Ok(())
}

/// Sets or replaces the hold.
pub fn set_hold(connection: &Connection, key: &AppKey, hold: &Hold, over: Option<&ContentId>) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO holds (app, version, over, reason, actor, since, until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            app_id(connection, key)?,
            hold.version.get(),
            over.map(ContentId::as_str),
            hold.reason,
            json(&hold.actor)?,
            micros(hold.since),
            hold.until.map(micros),
        ])?;
    Ok(())
}

/// Ends the hold; `false` when there was none.
pub fn end_hold(connection: &Connection, key: &AppKey) -> Result<bool> {
    let ended = connection.prepare_cached("DELETE FROM holds WHERE app = ?1")?.execute([app_id(connection, key)?])?;
    Ok(ended > 0)
}

/// Quarantines a content.
pub fn set_quarantine(
    connection: &Connection,
    key: &AppKey,
    content: &ContentId,
    found_in: VersionNumber,
    reason: &str,
    actor: &Actor,
    at: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO quarantine (app, content, version, reason, actor, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            app_id(connection, key)?,
            content.as_str(),
            found_in.get(),
            reason,
            json(actor)?,
            micros(at)
        ])?;
    Ok(())
}

/// Lifts the quarantine of a content.
pub fn lift_quarantine(connection: &Connection, key: &AppKey, content: &ContentId) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM quarantine WHERE app = ?1 AND content = ?2")?
        .execute(params![app_id(connection, key)?, content.as_str()])?;
    Ok(())
}

/// Freezes an app.
pub fn set_suspension(connection: &Connection, key: &AppKey, suspension: &Suspension) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO suspensions (app, reason, actor, since, until) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            app_id(connection, key)?,
            suspension.reason,
            json(&suspension.actor)?,
            micros(suspension.since),
            suspension.until.map(micros),
        ])?;
    Ok(())
}

/// Thaws an app; `false` when it was not frozen.
pub fn end_suspension(connection: &Connection, key: &AppKey) -> Result<bool> {
    let id = app_id(connection, key)?;
    Ok(connection.prepare_cached("DELETE FROM suspensions WHERE app = ?1")?.execute([id])? > 0)
}

/// Records that an app is stopped: nothing of it is live any more.
pub fn set_stop(connection: &Connection, key: &AppKey, stop: &StopRecord) -> Result<()> {
    let id = app_id(connection, key)?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO stops (app, content, reason, actor, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            id,
            stop.content.as_ref().map(ContentId::as_str),
            stop.reason,
            json(&stop.actor)?,
            micros(stop.at)
        ])?;
    connection
        .prepare_cached("UPDATE versions SET status = 'superseded' WHERE app = ?1 AND status = 'live'")?
        .execute([id])?;
    connection
        .prepare_cached("UPDATE apps SET live_version = NULL, updated_at = ?2 WHERE id = ?1")?
        .execute(params![id, micros(stop.at)])?;
    Ok(())
}

/// Forgets that an app was stopped.
pub fn end_stop(connection: &Connection, key: &AppKey) -> Result<()> {
    let id = app_id(connection, key)?;
    connection.prepare_cached("DELETE FROM stops WHERE app = ?1")?.execute([id])?;
    Ok(())
}

/// The source and directory that own an app, with what the source says of it; `None` when nobody owns it.
pub fn owner(connection: &Connection, key: &AppKey) -> Result<Option<(SourceName, String, WantedKind)>> {
    let mut statement =
        connection.prepare_cached("SELECT source, path, wanted FROM apps WHERE environment = ?1 AND name = ?2")?;
    let found = statement
        .query_row(params![key.environment.as_str(), key.app.as_str()], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    match found {
        Some((Some(source), path, wanted)) => {
            Ok(Some((parse("source", source)?, path.unwrap_or_default(), WantedKind::from_recorded(&wanted)?)))
        }
        Some((None, _, _)) | None => Ok(None),
    }
}

/// An environment that has apps of this source, and is not this one.
pub fn environment_besides(
    connection: &Connection,
    source: &SourceName,
    environment: &EnvironmentName,
) -> Result<Option<EnvironmentName>> {
    let mut statement = connection.prepare_cached(
        "SELECT environment FROM apps WHERE source = ?1 AND environment <> ?2 AND wanted <> 'absent' LIMIT 1",
    )?;
    let mut rows = statement.query([source.as_str(), environment.as_str()])?;
    rows.next()?.map(|row| parse("environment", row.get(0)?)).transpose()
}

/// How many apps a source has, those it has lost not counted.
pub fn count_of(connection: &Connection, source: &SourceName) -> Result<usize> {
    let mut statement =
        connection.prepare_cached("SELECT count(*) FROM apps WHERE source = ?1 AND wanted <> 'absent'")?;
    let count: u32 = statement.query_row([source.as_str()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}
