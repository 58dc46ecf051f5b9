//! Manifests that ask for an app they cannot have yet, because another source has its name. What they ask for is kept,
//! so that it can be taken over in the transaction that makes way for it.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::Result;
use super::apps::{Material, Observed};
use super::rows::{bad, from_json, json, micros, parse};
use crate::domain::{AppKey, AppName, EnvironmentName, SourceName, TreeId};

/// A manifest that waits for its app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The app.
    pub key: AppKey,
    /// The source.
    pub source: SourceName,
    /// The manifest's directory in it.
    pub path: String,
    /// What it asks for.
    pub observed: Observed,
}

/// Sets or replaces what a manifest waits for. Its place in the queue for a name stays.
pub fn set(connection: &Connection, claim: &Claim, at: Timestamp) -> Result<()> {
    let (material, problem) = match &claim.observed {
        Observed::Content(material) => (Some(json(material)?), None),
        Observed::Unknown(problem) => (None, Some(problem)),
        Observed::Absent => return Err(bad("claim", "nothing is asked for")),
    };
    connection
        .prepare_cached(
            "INSERT INTO claims (source, path, environment, app, material, problem, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (source, path) DO UPDATE SET environment = ?3, app = ?4, material = ?5, problem = ?6,
                 since = CASE WHEN app = ?4 THEN since ELSE ?7 END",
        )?
        .execute(params![
            claim.source.as_str(),
            claim.path,
            claim.key.environment.as_str(),
            claim.key.app.as_str(),
            material,
            problem,
            micros(at),
        ])?;
    Ok(())
}

/// Forgets what a manifest waits for.
pub fn remove(connection: &Connection, source: &SourceName, path: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM claims WHERE source = ?1 AND path = ?2")?
        .execute(params![source.as_str(), path])?;
    Ok(())
}

/// Who has waited longest for an app whose name another has.
pub fn next_for(connection: &Connection, key: &AppKey) -> Result<Option<Claim>> {
    let sql = "SELECT source, path, environment, app, material, problem FROM claims
               WHERE environment = ?1 AND app = ?2 ORDER BY since, source, path LIMIT 1";
    let found = select(connection, sql, &[&key.environment.as_str(), &key.app.as_str()])?;
    Ok(found.into_iter().next())
}

/// Claims on apps that nobody has, as after their source has left the configuration.
pub fn free(connection: &Connection) -> Result<Vec<Claim>> {
    let sql = "SELECT c.source, c.path, c.environment, c.app, c.material, c.problem FROM claims c
               JOIN apps a ON a.environment = c.environment AND a.name = c.app
               WHERE a.source IS NULL ORDER BY c.since, c.source, c.path";
    select(connection, sql, &[])
}

/// The trees of everything that is waited for; they must outlive a clean-up.
pub fn trees(connection: &Connection) -> Result<Vec<TreeId>> {
    let sql = "SELECT source, path, environment, app, material, problem FROM claims WHERE material IS NOT NULL";
    let tree = |claim: Claim| match claim.observed {
        Observed::Content(material) => Some(material.tree),
        Observed::Unknown(_) | Observed::Absent => None,
    };
    Ok(select(connection, sql, &[])?.into_iter().filter_map(tree).collect())
}

fn select(connection: &Connection, sql: &str, arguments: &[&dyn rusqlite::ToSql]) -> Result<Vec<Claim>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(arguments)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Claim> {
    let environment = parse::<EnvironmentName>("environment", row.get(2)?)?;
    let observed = match (row.get::<_, Option<String>>(4)?, row.get::<_, Option<String>>(5)?) {
        (Some(text), _) => Observed::Content(Box::new(from_json::<Material>("material", &text)?)),
        (None, problem) => Observed::Unknown(problem.unwrap_or_default()),
    };
    Ok(Claim {
        source: parse("source", row.get(0)?)?,
        path: row.get(1)?,
        key: AppKey::new(environment, parse::<AppName>("app name", row.get(3)?)?),
        observed,
    })
}
