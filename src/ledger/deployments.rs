//! Deployments: phases, outcomes, and the switch.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use super::rows::{app_id, bad, from_json, json, maybe_time, maybe_version, micros, parse, time, version};
use crate::domain::{AppKey, DeploymentId, DeploymentOutcome, Failure, Phase, VersionNumber, VersionStatus};

/// A deployment as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentRecord {
    /// Its identifier.
    pub id: DeploymentId,
    /// The app.
    pub key: AppKey,
    /// The version it makes live.
    pub version: VersionNumber,
    /// The version that was live when it was recorded; from the switch on, the one that was live until then.
    pub replaces: Option<VersionNumber>,
    /// How far it has come.
    pub phase: Phase,
    /// How it ended.
    pub outcome: Option<DeploymentOutcome>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its version became live.
    pub live_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Each phase with its start, in order.
    pub phases: Vec<(Phase, Timestamp)>,
}

const SELECT: &str = "SELECT d.id, a.environment, a.name, d.version, d.replaces, d.phase, d.outcome, d.failure,
    d.created_at, d.live_at, d.ended_at FROM deployments d JOIN apps a ON a.id = d.app";

/// Deployments without an outcome, oldest first: what a controller has to drive on after its start.
pub fn open(connection: &Connection) -> Result<Vec<DeploymentRecord>> {
    select(connection, "WHERE d.outcome IS NULL ORDER BY d.id", &[])
}

/// One deployment.
pub fn one(connection: &Connection, id: DeploymentId) -> Result<Option<DeploymentRecord>> {
    Ok(select(connection, "WHERE d.id = ?1", &[&id.0])?.into_iter().next())
}

/// The newest deployments of an app, newest first.
pub fn of_app(
    connection: &Connection,
    key: &AppKey,
    before: Option<DeploymentId>,
    limit: u32,
) -> Result<Vec<DeploymentRecord>> {
    let app = app_id(connection, key)?;
    let before = before.map_or(i64::MAX, |id| id.0);
    select(connection, "WHERE d.app = ?1 AND d.id < ?2 ORDER BY d.id DESC LIMIT ?3", &[&app, &before, &limit])
}

/// The newest deployment of each app.
pub fn newest_of_all(connection: &Connection) -> Result<Vec<DeploymentRecord>> {
    select(connection, "WHERE d.id IN (SELECT max(id) FROM deployments GROUP BY app)", &[])
}

fn select(connection: &Connection, rest: &str, arguments: &[&dyn rusqlite::ToSql]) -> Result<Vec<DeploymentRecord>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {rest}"))?;
    let mut rows = statement.query(arguments)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut deployment = read(row)?;
        deployment.phases = phases(connection, deployment.id)?;
        found.push(deployment);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<DeploymentRecord> {
    let phase: String = row.get(5)?;
    let outcome: Option<String> = row.get(6)?;
    let failure: Option<String> = row.get(7)?;
    Ok(DeploymentRecord {
        id: DeploymentId(row.get(0)?),
        key: AppKey::new(parse("environment", row.get(1)?)?, parse("app name", row.get(2)?)?),
        version: version(row.get(3)?)?,
        replaces: maybe_version(row.get(4)?)?,
        phase: Phase::from_recorded(&phase).ok_or_else(|| bad("deployment", format!("phase = {phase}")))?,
        outcome: outcome
            .map(|text| {
                DeploymentOutcome::from_recorded(&text).ok_or_else(|| bad("deployment", format!("outcome = {text}")))
            })
            .transpose()?,
        failure: failure.map(|text| from_json("failure", &text)).transpose()?,
        created_at: time(row.get(8)?)?,
        live_at: maybe_time(row.get(9)?)?,
        ended_at: maybe_time(row.get(10)?)?,
        phases: Vec::new(),
    })
}

fn phases(connection: &Connection, id: DeploymentId) -> Result<Vec<(Phase, Timestamp)>> {
    let mut statement = connection.prepare_cached("SELECT phase, at FROM phases WHERE deployment = ?1")?;
    let mut rows = statement.query([id.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let phase = Phase::from_recorded(&text).ok_or_else(|| bad("phase", &text))?;
        found.push((phase, time(row.get(1)?)?));
    }
    found.sort_unstable();
    Ok(found)
}

/// Records that a phase begins. A phase entered again after a crash keeps its first time.
pub fn enter(connection: &Connection, id: DeploymentId, phase: Phase, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE deployments SET phase = ?2 WHERE id = ?1")?
        .execute(params![id.0, phase.as_str()])?;
    note_phase(connection, id, phase, at)
}

pub(super) fn note_phase(connection: &Connection, id: DeploymentId, phase: Phase, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO phases (deployment, phase, at) VALUES (?1, ?2, ?3)")?
        .execute(params![id.0, phase.as_str(), micros(at)])?;
    Ok(())
}

/// The switch: the deployment's version is live from this commit on, the one before is superseded, and a stop
/// is forgotten. The routes are published after it, from the record. Answers `false`, and changes nothing, when the
/// deployment was ended meanwhile: a stop or a newer version has won.
pub fn switch(connection: &Connection, id: DeploymentId, at: Timestamp) -> Result<bool> {
    let open = connection
        .prepare_cached("SELECT app, version FROM deployments WHERE id = ?1 AND outcome IS NULL")?
        .query_row([id.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?)))
        .optional()?;
    let Some((app, number)) = open else { return Ok(false) };
    connection
        .prepare_cached(
            "UPDATE deployments SET replaces = (SELECT live_version FROM apps a WHERE a.id = app) WHERE id = ?1",
        )?
        .execute([id.0])?;
    connection
        .prepare_cached(
            "UPDATE versions SET status = 'superseded' WHERE app = ?1 AND status = 'live' AND number <> ?2",
        )?
        .execute(params![app, number])?;
    connection
        .prepare_cached("UPDATE versions SET status = 'live' WHERE app = ?1 AND number = ?2")?
        .execute(params![app, number])?;
    connection.prepare_cached("UPDATE apps SET live_version = ?2, updated_at = ?3 WHERE id = ?1")?.execute(params![
        app,
        number,
        micros(at)
    ])?;
    connection.prepare_cached("DELETE FROM stops WHERE app = ?1")?.execute([app])?;
    connection
        .prepare_cached("UPDATE deployments SET live_at = coalesce(live_at, ?2) WHERE id = ?1")?
        .execute(params![id.0, micros(at)])?;
    enter(connection, id, Phase::Switching, at)?;
    Ok(true)
}

/// Ends a deployment as cancelled unless its version is live already. Whichever of this and [`switch`] is recorded
/// first wins.
pub fn cancel(connection: &Connection, id: DeploymentId, at: Timestamp) -> Result<bool> {
    let mut live = connection.prepare_cached("SELECT live_at IS NOT NULL FROM deployments WHERE id = ?1")?;
    let live = live.query_row([id.0], |row| row.get::<_, bool>(0)).optional()?;
    if live != Some(false) {
        return Ok(false);
    }
    finish(connection, id, DeploymentOutcome::Cancelled, None, at)
}

/// Records how a deployment ended. Answers `false`, and changes nothing, when it had ended already.
pub fn finish(
    connection: &Connection,
    id: DeploymentId,
    outcome: DeploymentOutcome,
    failure: Option<&Failure>,
    at: Timestamp,
) -> Result<bool> {
    let ended = connection
        .prepare_cached(
            "UPDATE deployments SET outcome = ?2, failure = ?3, ended_at = ?4 WHERE id = ?1 AND outcome IS NULL
             RETURNING app, version",
        )?
        .query_row(params![id.0, outcome.as_str(), failure.map(json).transpose()?, micros(at)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?))
        })
        .optional()?;
    let Some((app, number)) = ended else { return Ok(false) };
    let status = match outcome {
        DeploymentOutcome::Succeeded | DeploymentOutcome::RolledBack => None,
        DeploymentOutcome::Failed => Some(VersionStatus::Failed),
        DeploymentOutcome::Cancelled => Some(VersionStatus::Cancelled),
    };
    if let Some(status) = status {
        connection
            .prepare_cached("UPDATE versions SET status = ?3 WHERE app = ?1 AND number = ?2 AND status = 'deploying'")?
            .execute(params![app, number, status.as_str()])?;
    }
    if outcome == DeploymentOutcome::Succeeded {
        connection
            .prepare_cached("UPDATE versions SET healthy = 1 WHERE app = ?1 AND number = ?2")?
            .execute(params![app, number])?;
    }
    connection.prepare_cached("UPDATE apps SET updated_at = ?2 WHERE id = ?1")?.execute(params![app, micros(at)])?;
    enter(connection, id, Phase::Done, at)?;
    Ok(true)
}
