//! Bounds of instances that somebody has set by hand, for as long as a version is live.

use rusqlite::{Connection, params};

use super::Result;
use super::rows::{bad, parse};
use crate::domain::{AppKey, ObjectName, VersionNumber};

/// Bounds that hold for an object of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// The app.
    pub key: AppKey,
    /// The object.
    pub object: ObjectName,
    /// The version that was live.
    pub version: VersionNumber,
    /// Fewest and most instances.
    pub bounds: (u32, u32),
}

/// Sets the bounds of an object.
pub fn set(connection: &Connection, scaled: &Scaled) -> Result<()> {
    let (min, max) = scaled.bounds;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO scaled (environment, app, object, version, min, max) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            scaled.key.environment.as_str(),
            scaled.key.app.as_str(),
            scaled.object.as_str(),
            scaled.version.get(),
            min,
            max,
        ])?;
    Ok(())
}

/// The manifest's bounds hold again.
pub fn clear(connection: &Connection, key: &AppKey, object: &ObjectName) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM scaled WHERE environment = ?1 AND app = ?2 AND object = ?3")?
        .execute(params![key.environment.as_str(), key.app.as_str(), object.as_str()])?;
    Ok(())
}

/// All of them, also those of versions that are live no more.
pub fn all(connection: &Connection) -> Result<Vec<Scaled>> {
    let mut statement =
        connection.prepare_cached("SELECT environment, app, object, version, min, max FROM scaled ORDER BY 1, 2, 3")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let version: u32 = row.get(3)?;
        found.push(Scaled {
            key: AppKey::new(parse("environment", row.get(0)?)?, parse("app name", row.get(1)?)?),
            object: parse("object name", row.get(2)?)?,
            version: VersionNumber::new(version).ok_or_else(|| bad("scaled", "version = 0"))?,
            bounds: (row.get(4)?, row.get(5)?),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept_until_they_are_cleared() {
        let ledger = crate::ledger::in_memory();
        let key = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
        let object: ObjectName = "resize".parse().expect("a name");
        let mut scaled =
            Scaled { key: key.clone(), object: object.clone(), version: VersionNumber::FIRST, bounds: (2, 4) };
        set(&ledger, &scaled).expect("set");
        scaled.bounds = (0, 9);
        set(&ledger, &scaled).expect("set anew");
        assert_eq!(all(&ledger).expect("read"), [scaled]);
        clear(&ledger, &key, &object).expect("cleared");
        assert!(all(&ledger).expect("read").is_empty());
    }
}
