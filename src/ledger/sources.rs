//! Sources' cursors: which revision was read last, and which manifests it held.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use super::rows::{from_json, json, maybe_time, micros, parse, time};
use crate::domain::{AppName, CommitId, HookOutcome, LastHook, SourceName, Suspension, TreeId};

/// A source as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// Its name.
    pub name: SourceName,
    /// What the cursor was made from; another location or reference starts anew.
    pub fingerprint: String,
    /// The commit read last.
    pub commit: Option<CommitId>,
    /// The tree read last.
    pub tree: Option<TreeId>,
    /// The directory that was read.
    pub path: String,
    /// When it was read.
    pub read_at: Option<Timestamp>,
    /// Why it cannot be read now.
    pub error: Option<String>,
    /// What kind of error that is, in a stable word.
    pub error_kind: Option<String>,
    /// Why it is not looked at.
    pub suspension: Option<Suspension>,
    /// Something says there is more to see.
    pub dirty: bool,
    /// The last genuine hook.
    pub last_hook: Option<LastHook>,
}

/// A manifest of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its directory.
    pub path: String,
    /// The app it names, now or when it could last be read.
    pub app: Option<AppName>,
    /// The name belongs to this directory.
    pub owner: bool,
    /// Directories it includes.
    pub includes: Vec<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// All sources.
pub fn all(connection: &Connection) -> Result<Vec<SourceRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, fingerprint, commit_id, tree, read_at, error, dirty, path, last_hook, error_kind,
                s.reason, s.actor, s.since, s.until
         FROM sources LEFT JOIN source_suspensions s ON s.source = name ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(SourceRecord {
            name: parse("source", row.get(0)?)?,
            fingerprint: row.get(1)?,
            commit: row.get::<_, Option<String>>(2)?.map(|text| parse("commit", text)).transpose()?,
            tree: row.get::<_, Option<String>>(3)?.map(|text| parse("tree", text)).transpose()?,
            read_at: maybe_time(row.get(4)?)?,
            error: row.get(5)?,
            dirty: row.get(6)?,
            path: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
            last_hook: row.get::<_, Option<String>>(8)?.map(|text| from_json("hook", &text)).transpose()?,
            error_kind: row.get(9)?,
            suspension: read_suspension(row)?,
        });
    }
    Ok(found)
}

fn read_suspension(row: &Row<'_>) -> Result<Option<Suspension>> {
    let Some(since) = row.get::<_, Option<i64>>(12)? else { return Ok(None) };
    Ok(Some(Suspension {
        reason: row.get(10)?,
        actor: from_json("actor", &row.get::<_, String>(11)?)?,
        since: time(since)?,
        until: maybe_time(row.get(13)?)?,
    }))
}

/// The manifests of a source.
pub fn manifests(connection: &Connection, source: &SourceName) -> Result<Vec<ManifestRecord>> {
    let mut statement = connection
        .prepare_cached("SELECT path, app, includes, problem, owner FROM manifests WHERE source = ?1 ORDER BY path")?;
    let mut rows = statement.query([source.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(ManifestRecord {
            path: row.get(0)?,
            app: row.get::<_, Option<String>>(1)?.map(|text| parse("app name", text)).transpose()?,
            includes: from_json("includes", &row.get::<_, String>(2)?)?,
            problem: row.get(3)?,
            owner: row.get(4)?,
        });
    }
    Ok(found)
}

/// What is wrong with manifests, source by source in the order of their paths.
pub fn problems(connection: &Connection) -> Result<Vec<(SourceName, String)>> {
    let mut statement = connection
        .prepare_cached("SELECT source, problem FROM manifests WHERE problem IS NOT NULL ORDER BY source, path")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((parse("source", row.get(0)?)?, row.get(1)?));
    }
    Ok(found)
}

/// Records what is wrong with a manifest (`Some`), or that nothing is any more.
pub fn set_problem(connection: &Connection, source: &SourceName, path: &str, problem: Option<&str>) -> Result<()> {
    connection
        .prepare_cached("UPDATE manifests SET problem = ?3 WHERE source = ?1 AND path = ?2")?
        .execute(params![source.as_str(), path, problem])?;
    Ok(())
}

/// Makes the source known, or forgets its cursor when it now is something else than it was.
pub fn ensure(connection: &Connection, name: &SourceName, fingerprint: &str) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO sources (name, fingerprint) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET fingerprint = ?2, commit_id = NULL, tree = NULL, read_at = NULL,
                 error = NULL, error_kind = NULL WHERE fingerprint <> ?2",
        )?
        .execute(params![name.as_str(), fingerprint])?;
    Ok(())
}

/// Forgets a source that is no longer configured.
pub fn remove(connection: &Connection, name: &SourceName) -> Result<()> {
    connection.prepare_cached("DELETE FROM sources WHERE name = ?1")?.execute([name.as_str()])?;
    Ok(())
}

/// Moves the cursor; call it in the transaction that records what the revision says.
pub fn advance(
    connection: &Connection,
    name: &SourceName,
    commit: Option<&CommitId>,
    tree: &TreeId,
    path: &str,
    at: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE sources SET commit_id = ?2, tree = ?3, read_at = ?4, path = ?5, error = NULL,
                    error_kind = NULL WHERE name = ?1",
        )?
        .execute(params![name.as_str(), commit.map(CommitId::as_str), tree.as_str(), micros(at), path])?;
    Ok(())
}

/// Records that a source cannot be read (`Some`: the kind in a word, and the message) or can be again.
pub fn set_error(connection: &Connection, name: &SourceName, error: Option<(&str, &str)>) -> Result<()> {
    let (kind, message) = error.unzip();
    connection.prepare_cached("UPDATE sources SET error = ?2, error_kind = ?3 WHERE name = ?1")?.execute(params![
        name.as_str(),
        message,
        kind
    ])?;
    Ok(())
}

/// Freezes a source: it is not looked at until that ends.
pub fn set_suspension(connection: &Connection, name: &SourceName, suspension: &Suspension) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO source_suspensions (source, reason, actor, since, until)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            name.as_str(),
            suspension.reason,
            json(&suspension.actor)?,
            micros(suspension.since),
            suspension.until.map(micros),
        ])?;
    Ok(())
}

/// Thaws a source; `false` when it was not frozen.
pub fn end_suspension(connection: &Connection, name: &SourceName) -> Result<bool> {
    let ended =
        connection.prepare_cached("DELETE FROM source_suspensions WHERE source = ?1")?.execute([name.as_str()])?;
    Ok(ended > 0)
}

/// Records or forgets a hint that there is more to see. Clear it *before* looking: a hint that comes meanwhile
/// must survive.
pub fn set_dirty(connection: &Connection, name: &SourceName, dirty: bool) -> Result<()> {
    connection
        .prepare_cached("UPDATE sources SET dirty = ?2 WHERE name = ?1 AND dirty <> ?2")?
        .execute(params![name.as_str(), dirty])?;
    Ok(())
}

/// The last genuine hook of a source; `None` inside when there was none, outside when there is no such source.
pub fn last_hook(connection: &Connection, name: &SourceName) -> Result<Option<Option<LastHook>>> {
    let mut statement = connection.prepare_cached("SELECT last_hook FROM sources WHERE name = ?1")?;
    let found: Option<Option<String>> = statement.query_row([name.as_str()], |row| row.get(0)).optional()?;
    found.map(|text| text.map(|text| from_json("hook", &text)).transpose()).transpose()
}

/// Records a genuine hook, and with it that there is more to see, if it says so.
pub fn record_hook(connection: &Connection, name: &SourceName, hook: &LastHook) -> Result<()> {
    let marks = hook.outcome == HookOutcome::Accepted;
    connection
        .prepare_cached("UPDATE sources SET last_hook = ?2, dirty = max(dirty, ?3) WHERE name = ?1")?
        .execute(params![name.as_str(), json(hook)?, marks])?;
    Ok(())
}

/// Sets or replaces a manifest of a source.
pub fn set_manifest(connection: &Connection, source: &SourceName, manifest: &ManifestRecord) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO manifests (source, path, app, includes, problem, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            source.as_str(),
            manifest.path,
            manifest.app.as_ref().map(AppName::as_str),
            json(&manifest.includes)?,
            manifest.problem,
            manifest.owner,
        ])?;
    Ok(())
}

/// Removes a manifest that is gone from its source.
pub fn remove_manifest(connection: &Connection, source: &SourceName, path: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM manifests WHERE source = ?1 AND path = ?2")?
        .execute(params![source.as_str(), path])?;
    Ok(())
}
