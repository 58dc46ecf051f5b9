//! Secrets that are stored, sealed, and which of them each version was given.
//!
//! A secret is of an environment, or of one app in it. Its revisions count from 1 and never come again, also after it was
//! removed; only the newest is kept. Invariant: no value is here but sealed, and none is recorded with a version.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use super::rows::{app_id, find_app, from_json, json, micros, parse, time};
use crate::domain::{Actor, AppKey, AppName, EnvironmentName, SecretName, VersionNumber};

/// What a secret is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The environment.
    pub environment: EnvironmentName,
    /// One app of it, or all.
    pub app: Option<AppName>,
    /// Its name.
    pub name: SecretName,
}

impl Place {
    /// What a sealed revision of it is bound to.
    pub fn label(&self, revision: u32) -> String {
        let app = self.app.as_ref().map_or("", AppName::as_str);
        format!("landfall secret {}/{app}/{}/{revision}", self.environment, self.name)
    }
}

/// A secret as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRecord {
    /// What it is of.
    pub place: Place,
    /// Its newest revision.
    pub revision: u32,
    /// Name of the key it is sealed with.
    pub key: String,
    /// Sealed; `None` after it was removed.
    pub sealed: Option<Vec<u8>>,
    /// Who set or removed it.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
}

/// What a version was given for a variable, or for its build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Used {
    /// The variable, or the key that gave it to a build: `build.secrets.npmrc`.
    pub variable: String,
    /// The secret's name.
    pub name: SecretName,
    /// `app` or `environment` for stored ones, `file PATH` for those of a file of the tree, else the kind of the provider.
    pub from: String,
    /// The revision of a stored one; of others a mark that is another for another value.
    pub revision: String,
}

const COLUMNS: &str = "SELECT environment, app, name, revision, key, sealed, actor, at FROM secrets";

fn read(row: &Row<'_>) -> Result<SecretRecord> {
    let app: String = row.get(1)?;
    Ok(SecretRecord {
        place: Place {
            environment: parse("environment", row.get(0)?)?,
            app: if app.is_empty() { None } else { Some(parse("app name", app)?) },
            name: parse("secret", row.get(2)?)?,
        },
        revision: row.get(3)?,
        key: row.get(4)?,
        sealed: row.get(5)?,
        actor: from_json("actor", &row.get::<_, String>(6)?)?,
        at: time(row.get(7)?)?,
    })
}

/// The secret of a place, removed or not.
pub fn one(connection: &Connection, place: &Place) -> Result<Option<SecretRecord>> {
    let mut statement =
        connection.prepare_cached(&format!("{COLUMNS} WHERE environment = ?1 AND app = ?2 AND name = ?3"))?;
    let app = place.app.as_ref().map_or("", AppName::as_str);
    let mut rows = statement.query(params![place.environment.as_str(), app, place.name.as_str()])?;
    rows.next()?.map(read).transpose()
}

/// All secrets that are there.
pub fn all(connection: &Connection) -> Result<Vec<SecretRecord>> {
    let mut statement =
        connection.prepare_cached(&format!("{COLUMNS} WHERE sealed IS NOT NULL ORDER BY environment, app, name"))?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Writes a secret, in place of the one that was there.
pub fn put(connection: &Connection, record: &SecretRecord) -> Result<()> {
    let SecretRecord { place, revision, key, sealed, actor, at } = record;
    connection
        .prepare_cached("INSERT OR REPLACE INTO secrets (environment, app, name, revision, key, sealed, actor, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            place.environment.as_str(),
            place.app.as_ref().map_or("", AppName::as_str),
            place.name.as_str(),
            revision,
            key,
            sealed,
            json(actor)?,
            micros(*at),
        ])?;
    Ok(())
}

/// Records what a version was given; what is on record already stays as it is.
pub fn record_used(
    connection: &Connection,
    key: &AppKey,
    version: VersionNumber,
    used: &[Used],
    at: Timestamp,
) -> Result<()> {
    let app = app_id(connection, key)?;
    for one in used {
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO version_secrets (app, version, variable, name, origin, revision, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                app,
                version.get(),
                one.variable,
                one.name.as_str(),
                one.from,
                one.revision,
                micros(at),
            ])?;
    }
    Ok(())
}

/// What the versions of an app were given, by variable, the newest last.
pub fn used(connection: &Connection, key: &AppKey) -> Result<Vec<(VersionNumber, Used)>> {
    let Some(app) = find_app(connection, key)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT version, variable, name, origin, revision FROM version_secrets WHERE app = ?1
         ORDER BY version, variable, at, rowid",
    )?;
    let mut rows = statement.query([app])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let used = Used {
            variable: row.get(1)?,
            name: parse("secret", row.get(2)?)?,
            from: row.get(3)?,
            revision: row.get(4)?,
        };
        found.push((super::rows::version(row.get(0)?)?, used));
    }
    Ok(found)
}

/// Whether any secret is stored: then the key file must be there.
pub fn any(connection: &Connection) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM secrets WHERE sealed IS NOT NULL LIMIT 1")?;
    Ok(statement.query_row([], |_| Ok(())).optional()?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::schema;

    #[test]
    fn revisions_never_come_again_and_versions_keep_what_they_were_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut ledger = Connection::open(&path).unwrap();
        schema::migrate(&mut ledger, &path).unwrap();
        ledger
            .execute_batch("INSERT INTO apps VALUES (1,'main','shop',NULL,NULL,'content',NULL,NULL,NULL,10,20);")
            .unwrap();
        let place = Place { environment: "main".parse().unwrap(), app: None, name: "token".parse().unwrap() };
        let at = Timestamp::UNIX_EPOCH;
        let record = |revision: u32, sealed: Option<Vec<u8>>| SecretRecord {
            place: place.clone(),
            revision,
            key: "k".into(),
            sealed,
            actor: Actor::Agent,
            at,
        };
        assert!(!any(&ledger).unwrap());
        put(&ledger, &record(1, Some(vec![1]))).unwrap();
        put(&ledger, &record(2, None)).unwrap();
        assert_eq!((any(&ledger).unwrap(), all(&ledger).unwrap().len()), (false, 0));
        assert_eq!(one(&ledger, &place).unwrap().unwrap().revision, 2, "what was removed is counted on");
        let key = AppKey::new("main".parse().unwrap(), "shop".parse().unwrap());
        let given = |revision: &str| Used {
            variable: "TOKEN".into(),
            name: "token".parse().unwrap(),
            from: "environment".into(),
            revision: revision.into(),
        };
        let one = VersionNumber::new(1).unwrap();
        for revision in ["1", "1", "3"] {
            record_used(&ledger, &key, one, &[given(revision)], at).unwrap();
        }
        assert_eq!(used(&ledger, &key).unwrap(), [(one, given("1")), (one, given("3"))]);
    }
}
