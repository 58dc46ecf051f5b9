//! The record: versions, deployments, holds, quarantine, sources' cursors, events and the audit, in SQLite.
//!
//! Owner: one writer thread; callers hand it closures and wait for their commit. Several waiting closures
//! share one durable commit (each in a savepoint of its own, so that one failure undoes only itself). Reads
//! use connections of their own. Neighbours: only `engine` calls this; only this module knows SQL.
//!
//! Invariants: history is only appended; version numbers are dense per app and never reused; an action is
//! recorded before it is taken, together with the event that tells of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{ErrorCode, OpenFlags};

/// What the closures given to [`Ledger::write`] and [`Ledger::read`] work on. Callers only hand it on to the
/// functions of this module.
pub use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

pub mod announcing;
pub mod apps;
pub mod audit;
pub mod calls;
pub mod certificates;
pub mod claims;
mod commit_status;
pub mod deployments;
pub mod facts;
pub mod history;
pub mod outbox;
mod rows;
pub mod scaled;
pub mod schedules;
mod schema;
pub mod secrets;
pub mod sources;
pub mod tokens;
pub mod versions;
pub mod waits;

/// Most closures that share one commit.
const GROUP: usize = 64;
/// Closures that may wait for the writer; more callers wait for a place.
const QUEUE: usize = 1024;
/// Read connections kept open.
const READERS: usize = 4;
/// Prepared statements that a connection keeps: more than there are in this module.
const STATEMENTS: usize = 512;
/// How long a statement waits for a lock of another connection.
const BUSY: Duration = Duration::from_secs(10);

/// Why the ledger could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The file is not a healthy database.
    #[error(
        "the ledger {path} is damaged: {detail}. Stop the agent, keep the file, and restore ledger.db from a backup; \
         apps that run go on meanwhile"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// What SQLite says.
        detail: String,
    },
    /// A newer Landfall wrote it.
    #[error(
        "the ledger {path} has schema {found}, this program knows up to {known}: it was written by a newer Landfall. \
         Install that version again, or restore the backup made before the upgrade"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// The disk is full.
    #[error("the disk with the ledger {path} is full: free some space; nothing was changed")]
    Full {
        /// The file.
        path: String,
    },
    /// It cannot be opened or written.
    #[error("the ledger {path} cannot be used: {detail}")]
    Unusable {
        /// The file.
        path: String,
        /// Why.
        detail: String,
    },
    /// A row is not what this program writes.
    #[error("the ledger holds a {what} that cannot be understood: {detail}")]
    Row {
        /// What sort of row.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// The writer has ended.
    #[error("the ledger is closed")]
    Closed,
}

/// What every operation answers.
pub type Result<T> = std::result::Result<T, LedgerError>;

type Job = Box<dyn FnOnce(&mut Group<'_>) + Send>;

/// The handle. Cheap to clone; the last one closes the database.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Job>,
    readers: Arc<Readers>,
    commits: watch::Receiver<u64>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.readers.path).finish_non_exhaustive()
    }
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Ledger {
    /// Opens or creates the ledger, brings an older one up to date (after copying it to `<path>.before-<n>`) and
    /// checks it. Blocking.
    pub fn open(path: &Path) -> Result<Self> {
        make_private(path)?;
        let mut connection = open_connection(path, true)?;
        check(&connection, path)?;
        schema::migrate(&mut connection, path)?;
        Self::start(connection, path)
    }

    fn start(connection: Connection, path: &Path) -> Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let writer_path = path.to_owned();
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write_loop(connection, queue, &committed, &writer_path))
            .map_err(|e| LedgerError::Unusable { path: path.display().to_string(), detail: e.to_string() })?;
        Ok(Self { jobs, readers: Arc::new(Readers { path: path.to_owned(), idle: Mutex::default() }), commits })
    }

    /// Runs `work` in a transaction and returns once it is durable. An error undoes all of `work`.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |group| group.run(work, answer));
        self.jobs.send(job).await.map_err(|_| LedgerError::Closed)?;
        answered.await.map_err(|_| LedgerError::Closed)?
    }

    /// Changes with every commit, for those who look for something new.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Runs `work` on a read connection.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with(work)).await.map_err(|_| LedgerError::Closed)?
    }
}

impl Readers {
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open_connection(&self.path, false)?,
        };
        let result = work(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(connection);
        }
        result
    }
}

/// Tells a caller how the commit of its work ended.
type Answer = Box<dyn FnOnce(std::result::Result<(), LedgerError>) + Send>;

/// The closures of one commit; their answers are sent after it.
struct Group<'c> {
    connection: &'c Connection,
    path: &'c Path,
    /// Whether the transaction is open; without it nothing may run, it would be durable at once and alone.
    begun: Result<()>,
    answers: Vec<Answer>,
}

impl Group<'_> {
    fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T>,
        answer: oneshot::Sender<Result<T>>,
    ) {
        let result = self.begun.clone().and_then(|()| self.in_savepoint(work));
        self.answers.push(Box::new(move |committed| {
            // Whoever asked may have gone; the record stands all the same.
            let _ = answer.send(committed.and(result));
        }));
    }

    fn in_savepoint<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let step = |sql: &str| self.connection.execute_batch(sql).map_err(|e| from_sqlite(e, self.path));
        step("SAVEPOINT job")?;
        match work(self.connection) {
            Ok(value) => step("RELEASE job").map(|()| value),
            Err(error) => {
                step("ROLLBACK TO job; RELEASE job")?;
                Err(locate(error, self.path))
            }
        }
    }
}

fn write_loop(connection: Connection, mut queue: mpsc::Receiver<Job>, commits: &watch::Sender<u64>, path: &Path) {
    while let Some(first) = queue.blocking_recv() {
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| from_sqlite(e, path));
        let mut group = Group { connection: &connection, path, begun, answers: Vec::new() };
        first(&mut group);
        while group.answers.len() < GROUP
            && let Ok(job) = queue.try_recv()
        {
            job(&mut group);
        }
        let commit = || connection.execute_batch("COMMIT").map_err(|e| from_sqlite(e, path));
        let committed = group.begun.clone().and_then(|()| commit());
        if committed.is_err() {
            // A commit that failed half-way (full disk) may leave the transaction open.
            let _ = connection.execute_batch("ROLLBACK");
        }
        if committed.is_ok() {
            commits.send_modify(|count| *count += 1);
        }
        for answer in group.answers {
            answer(committed.clone());
        }
    }
    // Folds the write-ahead log into the database, so that a copy of the one file is complete.
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// An empty ledger that no file holds, for tests of what works on a record.
#[cfg(test)]
#[allow(clippy::expect_used)]
pub(crate) fn in_memory() -> Connection {
    let mut connection = Connection::open_in_memory().expect("a database");
    schema::migrate(&mut connection, Path::new("in memory")).expect("a schema");
    connection.pragma_update(None, "foreign_keys", true).expect("a pragma");
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection
}

/// The ledger is its owner's alone: apps may run as another user of the same machine. SQLite gives the files beside
/// it the same mode.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let private = || {
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    };
    private().map_err(|error| match error.kind() {
        std::io::ErrorKind::StorageFull => LedgerError::Full { path: path.display().to_string() },
        _ => LedgerError::Unusable { path: path.display().to_string(), detail: error.to_string() },
    })
}

fn open_connection(path: &Path, writer: bool) -> Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        if writer {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
        } else {
            connection.pragma_update(None, "query_only", true)?;
        }
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    };
    open().map_err(|e| from_sqlite(e, path))
}

fn check(connection: &Connection, path: &Path) -> Result<()> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| from_sqlite(e, path))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(LedgerError::Corrupt { path: path.display().to_string(), detail: verdict })
}

fn from_sqlite(error: rusqlite::Error, path: &Path) -> LedgerError {
    let path = path.display().to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            LedgerError::Corrupt { path, detail: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => LedgerError::Full { path },
        _ => LedgerError::Unusable { path, detail: error.to_string() },
    }
}

/// Gives an error from inside a closure the path it could not know.
fn locate(error: LedgerError, at: &Path) -> LedgerError {
    match error {
        LedgerError::Corrupt { path, detail } if path.is_empty() => {
            LedgerError::Corrupt { path: at.display().to_string(), detail }
        }
        LedgerError::Full { path } if path.is_empty() => LedgerError::Full { path: at.display().to_string() },
        LedgerError::Unusable { path, detail } if path.is_empty() => {
            LedgerError::Unusable { path: at.display().to_string(), detail }
        }
        other => other,
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        from_sqlite(error, Path::new(""))
    }
}
