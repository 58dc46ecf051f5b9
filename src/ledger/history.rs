//! Records of calls that somebody waited for: many, not needed to carry anything out, and in a file of their own.
//!
//! `history.db` is written in batches and not flushed to the disk each time (`synchronous=NORMAL`): a power cut may cost
//! the last moments, never the file's integrity. It may be deleted while the agent is stopped; a damaged one is put
//! aside by itself and a new one begun.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tracing::warn;

use super::calls::{Conditions, Filter};
use super::rows::{bad, from_json, json, maybe_version, micros, parse, time};
use super::{Ledger, LedgerError, Result, from_sqlite, make_private, open_connection};
use crate::decide::tally::Sum;
use crate::domain::{
    AppKey, CallId, CallOutcome, CallState, FunctionKey, InstanceId, ObjectName, Times, Trigger, VersionNumber,
};
use crate::wire::calls::CallRecord;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS functions (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL,
    app         TEXT NOT NULL,
    name        TEXT NOT NULL,
    UNIQUE (environment, app, name)
) STRICT;
CREATE TABLE IF NOT EXISTS calls (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    function    INTEGER NOT NULL REFERENCES functions (id),
    version     INTEGER,
    instance    TEXT,
    trigger     TEXT NOT NULL,
    actor       TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    status      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    queued      INTEGER NOT NULL,
    starting    INTEGER NOT NULL,
    running     INTEGER NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    error       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_by_function ON calls (function, id);
CREATE TABLE IF NOT EXISTS minutes (
    function    INTEGER NOT NULL REFERENCES functions (id),
    minute      INTEGER NOT NULL,
    sum         TEXT NOT NULL,
    PRIMARY KEY (minute, function)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// How the calls of a function fared in one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionMinute {
    /// The function.
    pub function: FunctionKey,
    /// The minute, counted since 1970.
    pub minute: i64,
    /// What ended in it.
    pub sum: Sum,
}

/// Most minutes of functions that are taken up again.
const MINUTES: i64 = 200_000;

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History(Ledger);

impl History {
    /// Opens or creates it. Blocking.
    pub fn open(path: &Path) -> Result<Self> {
        match Self::try_open(path) {
            Err(LedgerError::Corrupt { detail, .. }) => {
                let aside = path.with_extension(format!("db.damaged-{}", Timestamp::now().as_second()));
                warn!(path = %path.display(), aside = %aside.display(), detail, "the history is damaged; it is put aside and a new one begun");
                put_aside(path, &aside)?;
                Self::try_open(path)
            }
            opened => opened,
        }
    }

    fn try_open(path: &Path) -> Result<Self> {
        make_private(path)?;
        let connection = open_connection(path, true)?;
        let sqlite = |error| from_sqlite(error, path);
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(sqlite)?;
        connection.execute_batch(SCHEMA).map_err(sqlite)?;
        Ok(Self(Ledger::start(connection, path)?))
    }

    /// Adds records. One that is there already stays as it is.
    pub async fn add(&self, records: Vec<CallRecord>) -> Result<()> {
        self.0.write(move |connection| records.iter().try_for_each(|record| insert(connection, record))).await
    }

    /// Records, newest first.
    pub async fn list(&self, filter: Filter) -> Result<Vec<CallRecord>> {
        // What is here is done, and nobody tries it anew.
        if filter.dead || filter.state.is_some_and(|state| state != CallState::Done) {
            return Ok(Vec::new());
        }
        self.0.read(move |connection| list(connection, &filter)).await
    }

    /// One record.
    pub async fn one(&self, call: CallId) -> Result<Option<CallRecord>> {
        self.0
            .read(move |connection| {
                let sql = format!("{SELECT} WHERE c.id = ?1");
                let mut statement = connection.prepare_cached(&sql)?;
                let mut rows = statement.query([call.to_bytes()])?;
                rows.next()?.map(read).transpose()
            })
            .await
    }

    /// Keeps minutes, in place of what was kept of them; those before `oldest` are dropped.
    pub async fn keep_minutes(&self, minutes: Vec<FunctionMinute>, oldest: i64) -> Result<()> {
        self.0
            .write(move |connection| {
                let mut keep =
                    connection.prepare_cached("REPLACE INTO minutes (function, minute, sum) VALUES (?1, ?2, ?3)")?;
                for FunctionMinute { function, minute, sum } in &minutes {
                    keep.execute(params![function_id(connection, function)?, minute, json(sum)?])?;
                }
                connection.prepare_cached("DELETE FROM minutes WHERE minute < ?1")?.execute([oldest])?;
                Ok(())
            })
            .await
    }

    /// The minutes from this one on, in order.
    pub async fn minutes(&self, from: i64) -> Result<Vec<FunctionMinute>> {
        self.0
            .read(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT f.environment, f.app, f.name, m.minute, m.sum FROM minutes m JOIN functions f ON f.id = m.function
                     WHERE m.minute >= ?1 ORDER BY m.minute LIMIT ?2",
                )?;
                let mut rows = statement.query(params![from, MINUTES])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    let word = |at: usize| row.get::<_, String>(at);
                    let app = AppKey::new(parse("environment", word(0)?)?, parse("app name", word(1)?)?);
                    let function = FunctionKey::new(app, parse("function name", word(2)?)?);
                    let sum = from_json("figures of a function", &word(4)?)?;
                    found.push(FunctionMinute { function, minute: row.get(3)?, sum });
                }
                Ok(found)
            })
            .await
    }

    /// Drops at most `limit` of those made before this. Answers how many.
    pub async fn forget(&self, before: Timestamp, limit: u32) -> Result<usize> {
        self.0
            .write(move |connection| {
                let mut delete = connection.prepare_cached(
                    "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE id < ?1 ORDER BY id LIMIT ?2)",
                )?;
                Ok(delete.execute(params![CallId::first_at(before).to_bytes(), limit])?)
            })
            .await
    }
}

fn put_aside(path: &Path, aside: &Path) -> Result<()> {
    let unusable =
        |error: std::io::Error| LedgerError::Unusable { path: path.display().to_string(), detail: error.to_string() };
    std::fs::rename(path, aside).map_err(unusable)?;
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // Gone already is as good.
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
    Ok(())
}

fn insert(connection: &Connection, record: &CallRecord) -> Result<()> {
    let function = function_id(connection, &record.function)?;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO calls (id, function, version, instance, trigger, actor, outcome, status, created_at,
                 queued, starting, running, bytes_in, bytes_out, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            record.id.to_bytes(),
            function,
            record.version.map(VersionNumber::get),
            record.instance.as_ref().map(|instance| instance.as_str()),
            record.trigger.as_str(),
            record.actor,
            record.outcome.as_str(),
            record.status,
            micros(record.created_at),
            whole(record.times.queued_us),
            whole(record.times.starting_us),
            whole(record.times.running_us),
            whole(record.bytes_in),
            whole(record.bytes_out),
            record.error.as_ref().map(json).transpose()?,
        ])?;
    Ok(())
}

fn function_id(connection: &Connection, key: &FunctionKey) -> Result<i64> {
    let names = params![key.app.environment.as_str(), key.app.app.as_str(), key.function.as_str()];
    let mut find =
        connection.prepare_cached("SELECT id FROM functions WHERE environment = ?1 AND app = ?2 AND name = ?3")?;
    if let Some(id) = find.query_row(names, |row| row.get(0)).optional()? {
        return Ok(id);
    }
    connection.prepare_cached("INSERT INTO functions (environment, app, name) VALUES (?1, ?2, ?3)")?.execute(names)?;
    Ok(connection.last_insert_rowid())
}

const SELECT: &str = "SELECT c.id, f.environment, f.app, f.name, c.version, c.instance, c.trigger, c.actor, c.outcome,
    c.status, c.created_at, c.queued, c.starting, c.running, c.bytes_in, c.bytes_out, c.error
    FROM calls c JOIN functions f ON f.id = c.function";

fn list(connection: &Connection, filter: &Filter) -> Result<Vec<CallRecord>> {
    let conditions = Conditions::of(filter);
    let sql = conditions.newest(SELECT);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(conditions.named().as_slice())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<CallRecord> {
    let word = |at: usize| row.get::<_, String>(at);
    let number = |at: usize| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
    let (trigger, outcome) = (word(6)?, word(8)?);
    let function: ObjectName = parse("function name", word(3)?)?;
    Ok(CallRecord {
        id: CallId::from_bytes(row.get(0)?),
        function: FunctionKey::new(
            AppKey::new(parse("environment", word(1)?)?, parse("app name", word(2)?)?),
            function,
        ),
        version: maybe_version(row.get(4)?)?,
        instance: row.get::<_, Option<String>>(5)?.map(InstanceId::from_recorded),
        trigger: Trigger::from_recorded(&trigger).ok_or_else(|| bad("call", format!("trigger = {trigger}")))?,
        actor: word(7)?,
        outcome: CallOutcome::from_recorded(&outcome).ok_or_else(|| bad("call", format!("outcome = {outcome}")))?,
        status: row.get(9)?,
        created_at: time(row.get(10)?)?,
        times: Times { queued_us: number(11)?, starting_us: number(12)?, running_us: number(13)? },
        bytes_in: number(14)?,
        bytes_out: number(15)?,
        error: row.get::<_, Option<String>>(16)?.map(|text| from_json("error of a call", &text)).transpose()?,
        trace: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: i64, function: &str) -> CallRecord {
        let created_at = Timestamp::from_second(1_767_225_600 + second).expect("a time");
        let app = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
        CallRecord {
            id: CallId::new(created_at, 7),
            function: FunctionKey::new(app, function.parse().expect("a name")),
            version: VersionNumber::new(3),
            instance: Some(InstanceId::from_recorded("shop-resize-v3-abcdefgh")),
            trigger: Trigger::Call,
            actor: "ada".into(),
            outcome: CallOutcome::Succeeded,
            status: 200,
            created_at,
            times: Times { queued_us: 5, starting_us: 0, running_us: 120 },
            bytes_in: 8,
            bytes_out: 2,
            error: None,
            trace: None,
        }
    }

    #[tokio::test]
    async fn records_come_back_newest_first_and_the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let history = History::open(&dir.path().join("history.db")).expect("opens");
        let records: Vec<CallRecord> =
            (0..10).map(|second| record(second, if second % 2 == 0 { "resize" } else { "notify" })).collect();
        history.add(records.clone()).await.expect("added");
        history.add(records[..1].to_vec()).await.expect("known");
        let all = Filter { limit: 100, ..Filter::default() };
        let newest_first: Vec<CallRecord> = records.iter().rev().cloned().collect();
        assert_eq!(history.list(all.clone()).await.expect("read"), newest_first);
        let page = Filter { limit: 3, before: Some(records[5].id), ..Filter::default() };
        assert_eq!(history.list(page).await.expect("read"), newest_first[5..8]);
        let resize = Filter { function: Some("resize".parse().expect("a name")), ..all.clone() };
        assert_eq!(history.list(resize).await.expect("read").len(), 5);
        assert!(history.list(Filter { dead: true, ..all.clone() }).await.expect("read").is_empty());
        assert_eq!(history.one(records[4].id).await.expect("read"), Some(records[4].clone()));
        assert_eq!(history.forget(records[4].created_at, 100).await.expect("forgotten"), 4);
        assert_eq!(history.list(all).await.expect("read").len(), 6);
    }

    #[tokio::test]
    async fn minutes_are_replaced_and_read_in_order_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let history = History::open(&dir.path().join("history.db")).expect("opens");
        let minute = |minute: i64, calls: u64| {
            let sum = Sum { outcomes: [(CallOutcome::Succeeded, calls)].into(), ..Sum::default() };
            FunctionMinute { function: record(0, "resize").function, minute, sum }
        };
        history.keep_minutes(vec![minute(12, 1), minute(11, 5), minute(10, 7)], 0).await.expect("kept");
        history.keep_minutes(vec![minute(12, 3)], 11).await.expect("kept");
        assert_eq!(history.minutes(0).await.expect("read"), [minute(11, 5), minute(12, 3)]);
        assert_eq!(history.minutes(12).await.expect("read"), [minute(12, 3)]);
    }

    #[tokio::test]
    async fn a_damaged_history_is_put_aside_and_a_new_one_begun() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("history.db");
        std::fs::write(&path, "this is no database, and long enough to be taken for one".repeat(100)).expect("written");
        let history = History::open(&path).expect("opens");
        history.add(vec![record(1, "resize")]).await.expect("added");
        let names: Vec<String> = std::fs::read_dir(dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert!(names.iter().any(|name| name.starts_with("history.db.damaged-")), "{names:?}");
    }
}
