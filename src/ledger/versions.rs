//! Versions: numbered, immutable records of an app's content.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::Result;
use super::apps::Material;
use super::rows::{app_id, bad, from_json, json, maybe_version, micros, parse, time, version};
use crate::domain::{
    Actor, AppKey, CommitId, DeploymentId, Manifest, Phase, PinnedImage, VersionKind, VersionNumber, VersionStatus,
};

/// A version as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its number.
    pub number: VersionNumber,
    /// Why it exists.
    pub kind: VersionKind,
    /// How it stands.
    pub status: VersionStatus,
    /// It was live and did not fail while watched.
    pub healthy: bool,
    /// Its tree is still kept.
    pub kept: bool,
    /// What it is.
    pub material: Material,
    /// Who caused it.
    pub actor: Actor,
    /// Why.
    pub reason: Option<String>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Its newest deployment.
    pub deployment: Option<DeploymentId>,
    /// The image it was given, for an app in containers.
    pub image: Option<PinnedImage>,
    /// The images its services were given, for a Compose project.
    pub services: BTreeMap<String, PinnedImage>,
}

/// What a new version is made from.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Why it exists.
    pub kind: VersionKind,
    /// What it is.
    pub material: Material,
    /// Who caused it.
    pub actor: Actor,
    /// Why.
    pub reason: Option<String>,
}

/// Appends a version and its deployment in phase `pending`; both are in the record before anything starts.
pub fn append(
    connection: &Connection,
    key: &AppKey,
    new: &NewVersion,
    at: Timestamp,
) -> Result<(VersionNumber, DeploymentId)> {
    let app = app_id(connection, key)?;
    let newest: Option<u32> = connection
        .prepare_cached("SELECT max(number) FROM versions WHERE app = ?1")?
        .query_row([app], |row| row.get(0))?;
    let number = maybe_version(newest)?.map_or(VersionNumber::FIRST, VersionNumber::next);
    connection
        .prepare_cached(
            "INSERT INTO versions (app, number, kind, kind_of, status, content, material, actor, reason, created_at)
             VALUES (?1, ?2, ?3, ?4, 'deploying', ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            app,
            number.get(),
            new.kind.as_str(),
            new.kind.of().map(VersionNumber::get),
            new.material.content.as_str(),
            json(&new.material)?,
            json(&new.actor)?,
            new.reason,
            micros(at),
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO deployments (app, version, replaces, phase, created_at)
             VALUES (?1, ?2, (SELECT live_version FROM apps WHERE id = ?1), 'pending', ?3)",
        )?
        .execute(params![app, number.get(), micros(at)])?;
    let deployment = DeploymentId(connection.last_insert_rowid());
    super::deployments::note_phase(connection, deployment, Phase::Pending, at)?;
    connection.prepare_cached("UPDATE apps SET updated_at = ?2 WHERE id = ?1")?.execute(params![app, micros(at)])?;
    Ok((number, deployment))
}

const COLUMNS: &str = "number, kind, kind_of, status, healthy, kept, material, actor, reason, created_at,
    (SELECT max(d.id) FROM deployments d WHERE d.app = versions.app AND d.version = versions.number), image,
    services";

/// All versions of an app, newest first.
pub fn all(connection: &Connection, key: &AppKey) -> Result<Vec<VersionRecord>> {
    before(connection, key, None, u32::MAX)
}

/// The newest versions of an app, or the newest of those before one of them.
pub fn before(
    connection: &Connection,
    key: &AppKey,
    before: Option<VersionNumber>,
    limit: u32,
) -> Result<Vec<VersionRecord>> {
    let app = app_id(connection, key)?;
    let sql = format!("SELECT {COLUMNS} FROM versions WHERE app = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let before = before.map_or(i64::MAX, |number| i64::from(number.get()));
    let mut rows = statement.query(params![app, before, limit])?;
    let mut versions = Vec::new();
    while let Some(row) = rows.next()? {
        versions.push(read(row)?);
    }
    Ok(versions)
}

/// One version of an app.
pub fn one(connection: &Connection, key: &AppKey, number: VersionNumber) -> Result<Option<VersionRecord>> {
    let app = app_id(connection, key)?;
    let sql = format!("SELECT {COLUMNS} FROM versions WHERE app = ?1 AND number = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![app, number.get()])?;
    rows.next()?.map(read).transpose()
}

/// What lists show of a live version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveVersion {
    /// Its number.
    pub version: VersionNumber,
    /// The commit it came with.
    pub commit: Option<CommitId>,
    /// What it is.
    pub manifest: Manifest,
}

/// From the record of a switch until its routes are published requests still meet the version before, so that one
/// is what may be called live.
const PUBLISHED: &str = "SELECT a.environment, a.name, v.number, v.material FROM apps a
    LEFT JOIN deployments d ON d.app = a.id AND d.phase = 'switching' AND d.outcome IS NULL
    JOIN versions v ON v.app = a.id AND v.number = CASE WHEN d.id IS NULL THEN a.live_version ELSE d.replaces END";

/// The version of every app that new work surely meets.
pub fn all_published(connection: &Connection) -> Result<Vec<(AppKey, LiveVersion)>> {
    let mut statement = connection.prepare_cached(PUBLISHED)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_published(row)?);
    }
    Ok(found)
}

/// The version of an app that new work surely meets.
pub fn published(connection: &Connection, key: &AppKey) -> Result<Option<LiveVersion>> {
    let mut statement = connection.prepare_cached(&format!("{PUBLISHED} WHERE a.environment = ?1 AND a.name = ?2"))?;
    let mut rows = statement.query([key.environment.as_str(), key.app.as_str()])?;
    Ok(rows.next()?.map(read_published).transpose()?.map(|(_, live)| live))
}

fn read_published(row: &Row<'_>) -> Result<(AppKey, LiveVersion)> {
    let key = AppKey::new(parse("environment", row.get(0)?)?, parse("app name", row.get(1)?)?);
    let material: Material = from_json("material", &row.get::<_, String>(3)?)?;
    let live = LiveVersion { version: version(row.get(2)?)?, commit: material.commit, manifest: material.manifest };
    Ok((key, live))
}

/// The newest version of an app.
pub fn newest(connection: &Connection, key: &AppKey) -> Result<Option<VersionRecord>> {
    newest_where(connection, key, "")
}

/// The newest version of an app that brought content of its own: no rollback, no rollover.
pub fn newest_deploy(connection: &Connection, key: &AppKey) -> Result<Option<VersionRecord>> {
    newest_where(connection, key, "AND kind = 'deploy'")
}

fn newest_where(connection: &Connection, key: &AppKey, condition: &str) -> Result<Option<VersionRecord>> {
    let app = app_id(connection, key)?;
    let sql = format!("SELECT {COLUMNS} FROM versions WHERE app = ?1 {condition} ORDER BY number DESC LIMIT 1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([app])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<VersionRecord> {
    let of = maybe_version(row.get(2)?)?;
    let kind = match (row.get::<_, String>(1)?.as_str(), of) {
        ("deploy", _) => VersionKind::Deploy,
        ("rollback", Some(of)) => VersionKind::Rollback { of },
        ("rollover", Some(of)) => VersionKind::Rollover { of },
        (other, _) => return Err(bad("version", format!("kind = {other}"))),
    };
    let status: String = row.get(3)?;
    Ok(VersionRecord {
        number: version(row.get(0)?)?,
        kind,
        status: VersionStatus::from_recorded(&status).ok_or_else(|| bad("version", format!("status = {status}")))?,
        healthy: row.get(4)?,
        kept: row.get(5)?,
        material: from_json("material", &row.get::<_, String>(6)?)?,
        actor: from_json("actor", &row.get::<_, String>(7)?)?,
        reason: row.get(8)?,
        created_at: time(row.get(9)?)?,
        deployment: row.get::<_, Option<i64>>(10)?.map(DeploymentId),
        image: row.get::<_, Option<String>>(11)?.map(|text| from_json("image", &text)).transpose()?,
        services: row
            .get::<_, Option<String>>(12)?
            .map_or_else(|| Ok(BTreeMap::new()), |text| from_json("services", &text))?,
    })
}

/// Marks versions whose tree is no longer kept: all but the newest `keep`, the live one, the held one, the one a
/// deployment is open for and `spare` (still draining). Returns those newly marked.
pub fn expire(connection: &Connection, key: &AppKey, keep: u32, spare: &[VersionNumber]) -> Result<Vec<VersionNumber>> {
    let app = app_id(connection, key)?;
    let mut statement = connection.prepare_cached(
        "UPDATE versions SET kept = 0
         WHERE app = ?1 AND kept = 1 AND status <> 'live' AND status <> 'deploying'
           AND number NOT IN (SELECT number FROM versions WHERE app = ?1 ORDER BY number DESC LIMIT ?2)
           AND number NOT IN (SELECT version FROM holds WHERE app = ?1)
           AND number NOT IN (SELECT value FROM json_each(?3))
         RETURNING number",
    )?;
    let spared = json(&spare.iter().map(|number| number.get()).collect::<Vec<_>>())?;
    let rows = statement.query_map(params![app, keep, spared], |row| row.get::<_, u32>(0))?;
    rows.map(|number| version(number?)).collect()
}

/// The contents of an app that must stay on disk: those of all kept versions.
pub fn kept_contents(connection: &Connection, key: &AppKey) -> Result<std::collections::BTreeSet<String>> {
    let app = app_id(connection, key)?;
    let mut statement = connection.prepare_cached("SELECT content FROM versions WHERE app = ?1 AND kept = 1")?;
    let rows = statement.query_map([app], |row| row.get::<_, String>(0))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Records the very image that a version runs.
pub fn pin_image(connection: &Connection, key: &AppKey, number: VersionNumber, image: &PinnedImage) -> Result<()> {
    let app = app_id(connection, key)?;
    connection.prepare_cached("UPDATE versions SET image = ?3 WHERE app = ?1 AND number = ?2")?.execute(params![
        app,
        number.get(),
        json(image)?
    ])?;
    Ok(())
}

/// Records the very images that the services of a version run.
pub fn pin_services(
    connection: &Connection,
    key: &AppKey,
    number: VersionNumber,
    images: &BTreeMap<String, PinnedImage>,
) -> Result<()> {
    let app = app_id(connection, key)?;
    let sql = "UPDATE versions SET services = ?3 WHERE app = ?1 AND number = ?2";
    connection.prepare_cached(sql)?.execute(params![app, number.get(), json(images)?])?;
    Ok(())
}

/// Whether any kept version runs in containers.
pub fn any_in_container(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM versions WHERE kept = 1 AND image IS NOT NULL)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// The images of all kept versions of all apps.
pub fn kept_images(connection: &Connection) -> Result<Vec<PinnedImage>> {
    let sql = "SELECT image FROM versions WHERE kept = 1 AND image IS NOT NULL
         UNION ALL SELECT each.value FROM versions, json_each(services) AS each WHERE kept = 1 AND services IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|text| from_json("image", &text?)).collect()
}

/// Whether a version was made of just this content in just this commit.
pub(super) fn is_of_a_version(connection: &Connection, key: &AppKey, wanted: &Material) -> Result<bool> {
    let same = |material: &Material| material.content == wanted.content && material.commit == wanted.commit;
    Ok(all(connection, key)?.iter().any(|version| same(&version.material)))
}
