//! Tokens and the sessions of browsers that were signed in with them. Of both only a hash is here.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use super::rows::{from_json, json, maybe_time, micros, time};
use crate::domain::{Actor, Grant, Scope, TokenHash, TokenId};

/// A token on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// What it gives while it is neither revoked nor over.
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: Actor,
    /// When it was last used.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<Actor>,
}

/// A token about to be recorded.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// Whom it is for.
    pub holder: String,
    /// Its hash.
    pub hash: TokenHash,
    /// What may be done with it.
    pub scope: Scope,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A signed-in browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The hash of what the browser keeps.
    pub hash: TokenHash,
    /// The token it was signed in with.
    pub token: TokenId,
    /// When it ends.
    pub expires_at: Timestamp,
}

const SELECT: &str = "SELECT id, name, holder, hash, scope, created_at, created_by, expires_at, used_at, revoked_at, revoked_by FROM tokens";

/// All tokens, newest first.
pub fn all(connection: &Connection) -> Result<Vec<TokenRecord>> {
    list(connection, &format!("{SELECT} ORDER BY id DESC"))
}

/// Those that are not revoked.
pub fn grants(connection: &Connection) -> Result<Vec<Grant>> {
    let found = list(connection, &format!("{SELECT} WHERE revoked_at IS NULL ORDER BY id"))?;
    Ok(found.into_iter().map(|record| record.grant).collect())
}

/// The token of that name that is not revoked.
pub fn named(connection: &Connection, name: &str) -> Result<Option<TokenRecord>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE name = ?1 AND revoked_at IS NULL"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(read).transpose()
}

fn list(connection: &Connection, sql: &str) -> Result<Vec<TokenRecord>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<TokenRecord> {
    let actor = |text: String| from_json("actor", &text);
    Ok(TokenRecord {
        grant: Grant {
            id: TokenId(row.get(0)?),
            token: row.get(1)?,
            name: row.get(2)?,
            hash: TokenHash::from_bytes(row.get(3)?),
            scope: from_json("scope", &row.get::<_, String>(4)?)?,
            expires_at: maybe_time(row.get(7)?)?,
        },
        created_at: time(row.get(5)?)?,
        created_by: actor(row.get(6)?)?,
        used_at: maybe_time(row.get(8)?)?,
        revoked_at: maybe_time(row.get(9)?)?,
        revoked_by: row.get::<_, Option<String>>(10)?.map(actor).transpose()?,
    })
}

/// Records a token; `None` if another one has its name.
pub fn create(connection: &Connection, new: &NewToken, by: &Actor, at: Timestamp) -> Result<Option<TokenRecord>> {
    if named(connection, &new.name)?.is_some() {
        return Ok(None);
    }
    connection
        .prepare_cached(
            "INSERT INTO tokens (name, holder, hash, scope, created_at, created_by, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            new.name,
            new.holder,
            new.hash.to_bytes(),
            json(&new.scope)?,
            micros(at),
            json(by)?,
            new.expires_at.map(micros),
        ])?;
    named(connection, &new.name)
}

/// Revokes the token of that name and ends its sessions; `None` if there is none.
pub fn revoke(connection: &Connection, name: &str, by: &Actor, at: Timestamp) -> Result<Option<TokenRecord>> {
    let Some(record) = named(connection, name)? else { return Ok(None) };
    let id = record.grant.id.0;
    connection.prepare_cached("UPDATE tokens SET revoked_at = ?2, revoked_by = ?3 WHERE id = ?1")?.execute(params![
        id,
        micros(at),
        json(by)?
    ])?;
    connection.prepare_cached("DELETE FROM sessions WHERE token = ?1")?.execute([id])?;
    let revoked = TokenRecord { revoked_at: Some(at), revoked_by: Some(by.clone()), ..record };
    Ok(Some(revoked))
}

/// Notes that these were used.
pub fn used(connection: &Connection, tokens: &[TokenId], at: Timestamp) -> Result<()> {
    let mut update =
        connection.prepare_cached("UPDATE tokens SET used_at = max(coalesce(used_at, 0), ?2) WHERE id = ?1")?;
    for token in tokens {
        update.execute(params![token.0, micros(at)])?;
    }
    Ok(())
}

/// Records a session. The oldest beyond `most` of the same token end.
pub fn open_session(connection: &Connection, session: &Session, most: u32, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO sessions (hash, token, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![session.hash.to_bytes(), session.token.0, micros(at), micros(session.expires_at)])?;
    connection
        .prepare_cached(
            "DELETE FROM sessions WHERE token = ?1 AND hash NOT IN
             (SELECT hash FROM sessions WHERE token = ?1 ORDER BY created_at DESC LIMIT ?2)",
        )?
        .execute(params![session.token.0, most])?;
    Ok(())
}

/// Ends a session.
pub fn close_session(connection: &Connection, hash: &TokenHash) -> Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE hash = ?1")?.execute([hash.to_bytes()])?;
    Ok(())
}

/// The session of that hash, unless it is over.
pub fn session(connection: &Connection, hash: &TokenHash, now: Timestamp) -> Result<Option<Session>> {
    let mut statement = connection
        .prepare_cached("SELECT hash, token, expires_at FROM sessions WHERE hash = ?1 AND expires_at > ?2")?;
    let row = statement.query_row(params![hash.to_bytes(), micros(now)], |row| {
        Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
    });
    let Some((hash, token, end)) = row.optional()? else { return Ok(None) };
    Ok(Some(Session { hash: TokenHash::from_bytes(hash), token: TokenId(token), expires_at: time(end)? }))
}

/// Drops sessions that are over.
pub fn forget_sessions(connection: &Connection, now: Timestamp) -> Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE expires_at <= ?1")?.execute([micros(now)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verb;
    use crate::ledger::in_memory;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn new(name: &str) -> NewToken {
        NewToken {
            name: name.into(),
            holder: "ada".into(),
            hash: TokenHash::of(name),
            scope: Scope { verbs: vec![Verb::Read, Verb::Call], apps: vec!["shop-*".parse().expect("a pattern")] },
            expires_at: Some(at(900)),
        }
    }

    #[test]
    fn a_revoked_token_gives_nothing_and_its_name_is_free_again() {
        let ledger = in_memory();
        let root = Actor::User { name: "root".into() };
        let made = create(&ledger, &new("ci"), &root, at(1)).expect("written").expect("the name is free");
        assert_eq!(create(&ledger, &new("ci"), &root, at(2)).expect("read"), None);
        assert_eq!(grants(&ledger).expect("read"), std::slice::from_ref(&made.grant));
        used(&ledger, &[made.grant.id], at(5)).expect("noted");
        let session = Session { hash: TokenHash::of("browser"), token: made.grant.id, expires_at: at(100) };
        open_session(&ledger, &session, 10, at(6)).expect("opened");
        assert_eq!(super::session(&ledger, &session.hash, at(99)).expect("read"), Some(session.clone()));
        assert_eq!(super::session(&ledger, &session.hash, at(100)).expect("read"), None);
        let revoked = revoke(&ledger, "ci", &root, at(7)).expect("written").expect("it was there");
        assert_eq!((revoked.used_at, revoked.revoked_by), (Some(at(5)), Some(root.clone())));
        assert_eq!(super::session(&ledger, &session.hash, at(8)).expect("read"), None);
        assert!(grants(&ledger).expect("read").is_empty());
        assert_eq!(revoke(&ledger, "ci", &root, at(8)).expect("read"), None);
        let other = NewToken { hash: TokenHash::of("another"), ..new("ci") };
        let again = create(&ledger, &other, &root, at(9)).expect("written").expect("the name is free again");
        assert!(again.grant.id > made.grant.id);
        assert_eq!(all(&ledger).expect("read").len(), 2);
    }

    #[test]
    fn a_token_has_so_many_sessions_and_the_oldest_ends_first() {
        let ledger = in_memory();
        let made = create(&ledger, &new("ci"), &Actor::Agent, at(1)).expect("written").expect("the name is free");
        for number in 0..4 {
            let hash = TokenHash::of(&number.to_string());
            let session = Session { hash, token: made.grant.id, expires_at: at(100) };
            open_session(&ledger, &session, 2, at(number)).expect("opened");
        }
        let living =
            |number: i64| session(&ledger, &TokenHash::of(&number.to_string()), at(10)).expect("read").is_some();
        assert_eq!([0, 1, 2, 3].map(living), [false, false, true, true]);
    }
}
