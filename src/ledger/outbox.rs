//! The outbox: what is to be told to others, written in the transaction of the fact it tells of.
//!
//! One queue per kind and destination, delivered in order and at least once by `engine::telling`. A newer message about
//! the same thing takes the place of one that was tried in vain; a queue that is full gives up its oldest.
//!
//! Invariant: a fact and what is to be told of it are durable together or not at all; nothing here holds a secret.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::Result;
use super::rows::{maybe_time, micros, time};
use crate::wire::channels::Standing;

/// Messages that may wait for one destination.
pub const BOUND: u32 = 500;

/// The kind of messages that go to forges; their destination is a source.
pub const COMMIT_STATUS: &str = "commit_status";
/// The kind of messages to people; their destination is a channel.
pub const NOTIFICATION: &str = "notification";

/// A message to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post<'p> {
    /// What kind of message.
    pub kind: &'p str,
    /// To whom.
    pub destination: &'p str,
    /// What it is about: it takes the place of an older one about the same that was tried in vain. Empty: of none.
    pub about: &'p str,
    /// What it says, as JSON.
    pub body: &'p str,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the order.
    pub id: i64,
    /// What it says, as JSON.
    pub body: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Not before.
    pub next_at: Timestamp,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Makes these the destinations of a kind; what waits for others is given up with them.
pub fn configure(connection: &Connection, kind: &str, names: &BTreeSet<String>) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT name FROM outbox_destinations WHERE kind = ?1")?;
    let known = statement.query_map([kind], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for gone in known.iter().filter(|name| !names.contains(*name)) {
        connection
            .prepare_cached("DELETE FROM outbox_destinations WHERE kind = ?1 AND name = ?2")?
            .execute(params![kind, gone])?;
    }
    for name in names {
        connection
            .prepare_cached("INSERT OR IGNORE INTO outbox_destinations (kind, name) VALUES (?1, ?2)")?
            .execute(params![kind, name])?;
    }
    Ok(())
}

/// Whether messages of this kind go there.
pub fn is_destination(connection: &Connection, kind: &str, name: &str) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM outbox_destinations WHERE kind = ?1 AND name = ?2")?;
    Ok(statement.exists(params![kind, name])?)
}

/// Writes a message; call it in the transaction of what it tells of. The destination must be configured.
pub fn post(connection: &Connection, post: &Post<'_>, at: Timestamp) -> Result<()> {
    let Post { kind, destination, about, body } = *post;
    let next_at = take_place(connection, post)?.unwrap_or_else(|| micros(at));
    connection
        .prepare_cached(
            "INSERT INTO outbox (kind, destination, about, body, next_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![kind, destination, about, body, next_at, micros(at)])?;
    let too_many: usize = connection
        .prepare_cached(
            "DELETE FROM outbox WHERE kind = ?1 AND destination = ?2 AND id <=
             (SELECT id FROM outbox WHERE kind = ?1 AND destination = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![kind, destination, BOUND])?;
    if too_many > 0 {
        connection
            .prepare_cached("UPDATE outbox_destinations SET given_up = given_up + ?3 WHERE kind = ?1 AND name = ?2")?
            .execute(params![kind, destination, i64::try_from(too_many).unwrap_or(i64::MAX)])?;
    }
    Ok(())
}

/// Removes the newest message about the same if it says the same or was tried in vain; answers when it was due.
fn take_place(connection: &Connection, post: &Post<'_>) -> Result<Option<i64>> {
    if post.about.is_empty() {
        return Ok(None);
    }
    let newest = connection
        .prepare_cached(
            "SELECT id, body, attempts, next_at FROM outbox WHERE kind = ?1 AND destination = ?2 AND about = ?3
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row(params![post.kind, post.destination, post.about], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?, row.get::<_, i64>(3)?))
        })
        .optional()?;
    let Some((id, body, attempts, next_at)) = newest else { return Ok(None) };
    if attempts == 0 && body != post.body {
        return Ok(None);
    }
    connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
    Ok(Some(next_at))
}

/// The message that is to be delivered next, due or not.
pub fn next(connection: &Connection, kind: &str, destination: &str) -> Result<Option<Message>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, body, attempts, next_at, created_at FROM outbox WHERE kind = ?1 AND destination = ?2
         ORDER BY id LIMIT 1",
    )?;
    let mut rows = statement.query(params![kind, destination])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Message {
        id: row.get(0)?,
        body: row.get(1)?,
        attempts: row.get(2)?,
        next_at: time(row.get(3)?)?,
        created_at: time(row.get(4)?)?,
    }))
}

/// Records that a message was taken.
pub fn delivered(connection: &Connection, kind: &str, destination: &str, id: i64, at: Timestamp) -> Result<()> {
    connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
    connection
        .prepare_cached(
            "UPDATE outbox_destinations SET delivered = delivered + 1, delivered_at = ?3, error = NULL,
             failing_since = NULL WHERE kind = ?1 AND name = ?2",
        )?
        .execute(params![kind, destination, micros(at)])?;
    Ok(())
}

/// Has what waits for a destination tried at once: it was seen to take something.
pub fn hurry(connection: &Connection, kind: &str, destination: &str, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE outbox SET next_at = min(next_at, ?3) WHERE kind = ?1 AND destination = ?2")?
        .execute(params![kind, destination, micros(at)])?;
    connection
        .prepare_cached(
            "UPDATE outbox_destinations SET error = NULL, failing_since = NULL WHERE kind = ?1 AND name = ?2",
        )?
        .execute(params![kind, destination])?;
    Ok(())
}

/// Records that nothing can be told there at all.
pub fn unusable(connection: &Connection, kind: &str, destination: &str, why: &str, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox_destinations SET error = ?3, failing_since = coalesce(failing_since, ?4)
             WHERE kind = ?1 AND name = ?2 AND error IS NOT ?3",
        )?
        .execute(params![kind, destination, why, micros(at)])?;
    Ok(())
}

/// Records that messages can be told there again, if nothing waits whose fate says otherwise.
pub fn usable(connection: &Connection, kind: &str, destination: &str) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox_destinations SET error = NULL, failing_since = NULL WHERE kind = ?1 AND name = ?2
             AND error IS NOT NULL AND NOT EXISTS
                 (SELECT 1 FROM outbox WHERE kind = ?1 AND destination = ?2 AND attempts > 0)",
        )?
        .execute(params![kind, destination])?;
    Ok(())
}

/// A try in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The message.
    pub id: i64,
    /// Why.
    pub why: String,
    /// When it is tried again; `None` gives it up.
    pub next_at: Option<Timestamp>,
    /// When it was tried.
    pub at: Timestamp,
}

/// Records a try in vain. A newer message about the same then takes its place, and waits as long: it goes to the
/// same server.
pub fn missed(connection: &Connection, kind: &str, destination: &str, miss: &Miss) -> Result<()> {
    let id = miss.id;
    match miss.next_at {
        Some(next_at) => {
            let next_at = micros(next_at);
            connection
                .prepare_cached("UPDATE outbox SET attempts = attempts + 1, next_at = ?2 WHERE id = ?1")?
                .execute(params![id, next_at])?;
            connection
                .prepare_cached(
                    "UPDATE outbox SET next_at = max(next_at, ?4) WHERE kind = ?1 AND destination = ?2 AND id > ?3
                     AND about <> '' AND about = (SELECT about FROM outbox WHERE id = ?3)",
                )?
                .execute(params![kind, destination, id, next_at])?;
            connection
                .prepare_cached(
                    "DELETE FROM outbox WHERE id = ?1 AND about <> '' AND EXISTS (SELECT 1 FROM outbox newer
                     WHERE newer.kind = outbox.kind AND newer.destination = outbox.destination
                     AND newer.about = outbox.about AND newer.id > outbox.id)",
                )?
                .execute([id])?;
        }
        None => {
            connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
        }
    }
    connection
        .prepare_cached(
            "UPDATE outbox_destinations SET failed = failed + 1, given_up = given_up + ?5, error = ?3,
             failing_since = coalesce(failing_since, ?4) WHERE kind = ?1 AND name = ?2",
        )?
        .execute(params![kind, destination, miss.why, micros(miss.at), u8::from(miss.next_at.is_none())])?;
    Ok(())
}

/// How all destinations of a kind stand, by name.
pub fn standings(connection: &Connection, kind: &str) -> Result<Vec<(String, Standing)>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, delivered, failed, given_up, delivered_at, error, failing_since,
             (SELECT count(*) FROM outbox o WHERE o.kind = d.kind AND o.destination = d.name),
             (SELECT o.next_at FROM outbox o WHERE o.kind = d.kind AND o.destination = d.name ORDER BY o.id LIMIT 1)
         FROM outbox_destinations d WHERE kind = ?1 ORDER BY name",
    )?;
    let mut rows = statement.query([kind])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let count = |index: usize| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0));
        let error: Option<String> = row.get(5)?;
        let next_at = maybe_time(row.get(8)?)?.filter(|_| error.is_some());
        let standing = Standing {
            delivered: count(1)?,
            failed: count(2)?,
            given_up: count(3)?,
            delivered_at: maybe_time(row.get(4)?)?,
            error,
            failing_since: maybe_time(row.get(6)?)?,
            queued: row.get(7)?,
            next_at,
        };
        found.push((row.get(0)?, standing));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::schema;

    const KIND: &str = "test";

    fn ledger() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        schema::migrate(&mut connection, &path).unwrap();
        configure(&connection, KIND, &BTreeSet::from(["one".to_owned(), "two".to_owned()])).unwrap();
        (dir, connection)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn put(ledger: &Connection, about: &str, body: &str) {
        post(ledger, &Post { kind: KIND, destination: "one", about, body }, at(1)).unwrap();
    }

    fn take(ledger: &Connection) -> Option<Message> {
        let message = next(ledger, KIND, "one").unwrap()?;
        delivered(ledger, KIND, "one", message.id, at(2)).unwrap();
        Some(message)
    }

    fn bodies(ledger: &Connection) -> Vec<String> {
        std::iter::from_fn(|| take(ledger)).map(|message| message.body).collect()
    }

    fn standing(ledger: &Connection) -> Standing {
        standings(ledger, KIND).unwrap().into_iter().find(|(name, _)| name == "one").unwrap().1
    }

    #[test]
    fn messages_come_in_their_order_and_are_gone_when_taken() {
        let (_dir, ledger) = ledger();
        for body in ["a", "b", "c"] {
            put(&ledger, "", body);
        }
        assert_eq!(bodies(&ledger), ["a", "b", "c"]);
        assert_eq!((standing(&ledger).delivered, standing(&ledger).queued), (3, 0));
        assert_eq!(next(&ledger, KIND, "two").unwrap(), None);
    }

    #[test]
    fn old_news_tried_in_vain_makes_room_for_newer_about_the_same_which_waits_as_long() {
        let (_dir, ledger) = ledger();
        put(&ledger, "x", "pending");
        put(&ledger, "y", "other");
        let first = next(&ledger, KIND, "one").unwrap().unwrap();
        let miss = Miss { id: first.id, why: "no".into(), next_at: Some(at(60)), at: at(3) };
        missed(&ledger, KIND, "one", &miss).unwrap();
        assert_eq!(standing(&ledger).failing_since, Some(at(3)));
        put(&ledger, "x", "success");
        let left = next(&ledger, KIND, "one").unwrap().unwrap();
        assert_eq!(left.body, "other");
        delivered(&ledger, KIND, "one", left.id, at(4)).unwrap();
        let newest = next(&ledger, KIND, "one").unwrap().unwrap();
        assert_eq!((newest.body.as_str(), newest.next_at, newest.attempts), ("success", at(60), 0));
        assert_eq!(standing(&ledger).error, None, "one was taken meanwhile");
    }

    #[test]
    fn a_newer_one_written_during_the_try_takes_the_place_as_well() {
        let (_dir, ledger) = ledger();
        put(&ledger, "x", "pending");
        let first = next(&ledger, KIND, "one").unwrap().unwrap();
        put(&ledger, "x", "success");
        put(&ledger, "x", "success");
        let miss = Miss { id: first.id, why: "no".into(), next_at: Some(at(60)), at: at(3) };
        missed(&ledger, KIND, "one", &miss).unwrap();
        let newest = next(&ledger, KIND, "one").unwrap().unwrap();
        assert_eq!((newest.body.as_str(), newest.next_at), ("success", at(60)));
        assert_eq!(bodies(&ledger), ["success"], "the same is not told twice in a row");
    }

    #[test]
    fn a_queue_is_bounded_and_says_what_it_gave_up() {
        let (_dir, ledger) = ledger();
        for number in 0..BOUND + 3 {
            put(&ledger, "", &number.to_string());
        }
        assert_eq!((standing(&ledger).queued, standing(&ledger).given_up), (BOUND, 3));
        assert_eq!(take(&ledger).unwrap().body, "3");
        let refused = next(&ledger, KIND, "one").unwrap().unwrap();
        missed(&ledger, KIND, "one", &Miss { id: refused.id, why: "never".into(), next_at: None, at: at(5) }).unwrap();
        assert_eq!((standing(&ledger).given_up, standing(&ledger).error.as_deref()), (4, Some("never")));
    }

    #[test]
    fn what_waits_for_a_destination_that_is_gone_goes_with_it() {
        let (_dir, ledger) = ledger();
        put(&ledger, "", "a");
        configure(&ledger, KIND, &BTreeSet::from(["two".to_owned()])).unwrap();
        assert!(!is_destination(&ledger, KIND, "one").unwrap());
        assert_eq!(next(&ledger, KIND, "one").unwrap(), None);
    }
}
