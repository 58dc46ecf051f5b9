//! What is no longer kept: first what calls carried, later that they ever were.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{EXPIRED, FILE};
use crate::domain::attempt::{body_file, result_file};
use crate::domain::{AttemptId, CallId};
use crate::ledger::Result;
use crate::ledger::rows::micros;

/// What was given up, and the files that go with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// How many calls.
    pub calls: usize,
    /// Files below `<data_dir>/calls` that nobody needs any more.
    pub files: Vec<String>,
}

/// Gives up bodies and results of at most `limit` calls that ended before this. The calls stay on record.
pub fn expire(connection: &Connection, before: Timestamp, limit: u32) -> Result<Expired> {
    let mut statement = connection.prepare_cached(
        "SELECT c.seq, c.id, c.attempts, c.body_at, r.at FROM calls c LEFT JOIN results r ON r.call = c.seq
         WHERE c.ended_at < ?1 AND c.state = 'done' AND c.body_at <> 'expired' ORDER BY c.ended_at LIMIT ?2",
    )?;
    let mut rows = statement.query(params![micros(before), limit])?;
    let mut expired = Expired::default();
    let mut over = Vec::new();
    while let Some(row) = rows.next()? {
        over.push(row.get::<_, i64>(0)?);
        let (call, attempt) = (CallId::from_bytes(row.get(1)?), row.get(2)?);
        if row.get::<_, String>(3)? == FILE {
            expired.files.push(body_file(call));
        }
        if row.get::<_, Option<String>>(4)?.as_deref() == Some(FILE) {
            expired.files.push(result_file(AttemptId { call, attempt }));
        }
    }
    drop(rows);
    for seq in &over {
        connection
            .prepare_cached("UPDATE calls SET body_at = ?2, body = NULL WHERE seq = ?1")?
            .execute(params![seq, EXPIRED])?;
        connection
            .prepare_cached("UPDATE results SET at = ?2, body = NULL WHERE call = ?1")?
            .execute(params![seq, EXPIRED])?;
    }
    expired.calls = over.len();
    Ok(expired)
}

/// Drops at most `limit` calls that ended and were made before this, and have expired. Answers how many.
pub fn forget(connection: &Connection, before: Timestamp, limit: u32) -> Result<usize> {
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM calls WHERE seq IN (SELECT seq FROM calls
                 WHERE id < ?1 AND state = 'done' AND body_at = 'expired' ORDER BY id LIMIT ?2)",
        )?
        .execute(params![CallId::first_at(before).to_bytes(), limit])?;
    Ok(forgotten)
}

/// The files that recorded calls need: everything else below `<data_dir>/calls` was left over by a crash.
pub fn body_files(connection: &Connection) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut bodies = connection.prepare_cached("SELECT id FROM calls WHERE body_at = 'file'")?;
    let mut rows = bodies.query([])?;
    while let Some(row) = rows.next()? {
        files.insert(body_file(CallId::from_bytes(row.get(0)?)));
    }
    let mut results = connection
        .prepare_cached("SELECT c.id, c.attempts FROM results r JOIN calls c ON c.seq = r.call WHERE r.at = 'file'")?;
    let mut rows = results.query([])?;
    while let Some(row) = rows.next()? {
        files.insert(result_file(AttemptId { call: CallId::from_bytes(row.get(0)?), attempt: row.get(1)? }));
    }
    // An attempt under way may have written its result already.
    let mut open = connection.prepare_cached("SELECT id, attempts FROM calls WHERE state = 'running'")?;
    let mut rows = open.query([])?;
    while let Some(row) = rows.next()? {
        files.insert(result_file(AttemptId { call: CallId::from_bytes(row.get(0)?), attempt: row.get(1)? }));
    }
    Ok(files)
}
