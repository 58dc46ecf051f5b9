//! The tables, and how an older database becomes the present one.
//!
//! Each migration runs once, in a transaction with the number it leads to (`user_version`). Migrations that
//! were released are never edited.

use std::path::Path;

use rusqlite::Connection;

use super::{LedgerError, Result, from_sqlite};

const MIGRATIONS: &[&str] = &[
    V1,
    V2,
    WAITS,
    HOOKS,
    CLAIMS,
    SOURCE_SUSPENSIONS,
    CALLS,
    TALLIES,
    SCHEDULES,
    OUTBOX,
    CRASHES,
    CHANNELS,
    RUNS,
    TOKENS,
    SCALED,
    SECRETS,
    CERTIFICATES,
    IMAGES,
    SERVICES,
];

const V1: &str = "
CREATE TABLE apps (
    id              INTEGER PRIMARY KEY,
    environment     TEXT NOT NULL,
    name            TEXT NOT NULL,
    source          TEXT,
    path            TEXT,
    -- what git says: 'content', 'unknown', 'absent', 'nobody'
    wanted          TEXT NOT NULL,
    -- the newest content git gave, as JSON; stays while the manifest is broken
    material        TEXT,
    manifest_error  TEXT,
    live_version    INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    UNIQUE (environment, name)
) STRICT;

CREATE TABLE versions (
    app         INTEGER NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number > 0),
    kind        TEXT NOT NULL,
    kind_of     INTEGER,
    status      TEXT NOT NULL,
    healthy     INTEGER NOT NULL DEFAULT 0,
    kept        INTEGER NOT NULL DEFAULT 1,
    content     TEXT NOT NULL,
    material    TEXT NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (app, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    app         INTEGER NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    replaces    INTEGER,
    phase       TEXT NOT NULL,
    outcome     TEXT,
    failure     TEXT,
    created_at  INTEGER NOT NULL,
    live_at     INTEGER,
    ended_at    INTEGER
) STRICT;
CREATE INDEX deployments_by_app ON deployments (app, id);
CREATE INDEX deployments_open ON deployments (id) WHERE outcome IS NULL;

CREATE TABLE phases (
    deployment  INTEGER NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    phase       TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (deployment, phase)
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
    app     INTEGER PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    over    TEXT,
    reason  TEXT NOT NULL,
    actor   TEXT NOT NULL,
    since   INTEGER NOT NULL,
    until   INTEGER
) STRICT;

CREATE TABLE quarantine (
    app     INTEGER NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    content TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason  TEXT NOT NULL,
    actor   TEXT NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (app, content)
) STRICT, WITHOUT ROWID;

CREATE TABLE suspensions (
    app     INTEGER PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    reason  TEXT NOT NULL,
    actor   TEXT NOT NULL,
    since   INTEGER NOT NULL,
    until   INTEGER
) STRICT;

CREATE TABLE stops (
    app     INTEGER PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    content TEXT,
    reason  TEXT,
    actor   TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE TABLE sources (
    name        TEXT PRIMARY KEY,
    -- what the cursor was made from; another location or reference starts anew
    fingerprint TEXT NOT NULL,
    commit_id   TEXT,
    tree        TEXT,
    -- the directory that was read
    path        TEXT,
    read_at     INTEGER,
    error       TEXT,
    dirty       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE manifests (
    source      TEXT NOT NULL REFERENCES sources (name) ON DELETE CASCADE,
    path        TEXT NOT NULL,
    app         TEXT,
    -- the name belongs to this directory
    owner       INTEGER NOT NULL,
    includes    TEXT NOT NULL,
    problem     TEXT,
    PRIMARY KEY (source, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    environment TEXT,
    app     TEXT,
    detail  TEXT NOT NULL
) STRICT;
";

const V2: &str = "
CREATE TABLE events (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    event       TEXT NOT NULL,
    environment TEXT,
    app         TEXT,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_app ON events (environment, app, sequence);
CREATE INDEX manifests_by_app ON manifests (app);
";

const WAITS: &str = "
CREATE TABLE waits (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    source      TEXT NOT NULL REFERENCES sources (name) ON DELETE CASCADE,
    kind        TEXT NOT NULL,
    -- what waits, as JSON
    reason      TEXT NOT NULL,
    revision    TEXT,
    since       INTEGER NOT NULL,
    -- who has approved it, as JSON; such a row goes when it is carried out
    approved_by TEXT,
    UNIQUE (source, kind)
) STRICT;
";

/// The last genuine hook of each source, as JSON.
const HOOKS: &str = "
ALTER TABLE sources ADD COLUMN last_hook TEXT;
";

const CLAIMS: &str = "
CREATE TABLE claims (
    source      TEXT NOT NULL REFERENCES sources (name) ON DELETE CASCADE,
    path        TEXT NOT NULL,
    environment TEXT NOT NULL,
    app         TEXT NOT NULL,
    -- what the manifest asks for, as JSON; none while it cannot be read
    material    TEXT,
    problem     TEXT,
    since       INTEGER NOT NULL,
    PRIMARY KEY (source, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_by_app ON claims (environment, app, since);
CREATE INDEX manifests_with_problems ON manifests (source, path) WHERE problem IS NOT NULL;
CREATE INDEX apps_by_source ON apps (source);
";

const SOURCE_SUSPENSIONS: &str = "
CREATE TABLE source_suspensions (
    source      TEXT PRIMARY KEY REFERENCES sources (name) ON DELETE CASCADE,
    reason      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    since       INTEGER NOT NULL,
    until       INTEGER
) STRICT;
-- a stable word for what `error` says
ALTER TABLE sources ADD COLUMN error_kind TEXT;
";

/// Calls that must not be lost. A row's blobs come last, so that reading what is before them touches no more pages.
const CALLS: &str = "
CREATE TABLE functions (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL,
    app         TEXT NOT NULL,
    name        TEXT NOT NULL,
    UNIQUE (environment, app, name)
) STRICT;

CREATE TABLE calls (
    seq         INTEGER PRIMARY KEY,
    id          BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    function    INTEGER NOT NULL REFERENCES functions (id),
    state       TEXT NOT NULL,
    -- the next attempt begins not before this
    due_at      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    -- what of them used up the user's retries, and how many in a row had no fair chance
    failures    INTEGER NOT NULL DEFAULT 0,
    lost        INTEGER NOT NULL DEFAULT 0,
    -- the version it must run on; none for the live one
    pin         INTEGER,
    trigger     TEXT NOT NULL,
    actor       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    -- the instant a schedule's run stands for
    scheduled_at INTEGER,
    -- no further attempt begins later
    retry_until INTEGER,
    outcome     TEXT,
    ended_at    INTEGER,
    error       TEXT,
    -- who asked for its end
    cancelled_by TEXT,
    redrive_of  BLOB,
    redriven_as BLOB,
    key         TEXT,
    key_digest  BLOB,
    media       TEXT,
    body_bytes  INTEGER NOT NULL,
    -- 'inline', 'file', 'expired'
    body_at     TEXT NOT NULL,
    body        BLOB
) STRICT;
CREATE INDEX calls_queued ON calls (function, due_at, seq) WHERE state = 'queued';
CREATE INDEX calls_running ON calls (function) WHERE state = 'running';
CREATE INDEX calls_by_function ON calls (function, id);
CREATE INDEX calls_dead ON calls (id) WHERE outcome IN ('failed', 'timed_out') AND redriven_as IS NULL;
CREATE INDEX calls_ended ON calls (ended_at) WHERE state = 'done' AND body_at <> 'expired';
-- one call for one key, one run for one instant
CREATE UNIQUE INDEX calls_by_key ON calls (function, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX calls_by_instant ON calls (function, scheduled_at) WHERE scheduled_at IS NOT NULL;

CREATE TABLE attempts (
    call        INTEGER NOT NULL REFERENCES calls (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number > 0),
    begun_at    INTEGER NOT NULL,
    ended_at    INTEGER,
    outcome     TEXT,
    version     INTEGER,
    instance    TEXT,
    -- microseconds in the proxy's queue, of these waiting for an instance to start, and in the function
    queued      INTEGER,
    starting    INTEGER,
    running     INTEGER,
    error       TEXT,
    PRIMARY KEY (call, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE results (
    call        INTEGER PRIMARY KEY REFERENCES calls (seq) ON DELETE CASCADE,
    status      INTEGER NOT NULL,
    media       TEXT,
    bytes       INTEGER NOT NULL,
    -- 'inline', 'file', 'expired'
    at          TEXT NOT NULL,
    body        BLOB
) STRICT;
";

/// Orders of certificates, and what people were told of certificates. A subject is a host or the path of a file.
const CERTIFICATES: &str = "
CREATE TABLE certificates (
    subject         TEXT PRIMARY KEY,
    order_directory TEXT,
    order_url       TEXT,
    rehearsed       TEXT,
    failures        INTEGER NOT NULL,
    not_before      INTEGER,
    problem         TEXT,
    told            TEXT
) STRICT, WITHOUT ROWID;
";

/// How often each kind of event has happened; events themselves are forgotten after a while.
const TALLIES: &str = "
CREATE TABLE tallies (
    event       TEXT PRIMARY KEY,
    count       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tallies SELECT event, count(*) FROM events GROUP BY event;
";

const SCHEDULES: &str = "
CREATE TABLE schedules (
    id          INTEGER PRIMARY KEY,
    app         INTEGER NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    function    TEXT NOT NULL,
    -- what it was last planned by; another expression begins anew
    planned_by  TEXT NOT NULL,
    -- whether the live version has it
    active      INTEGER NOT NULL,
    -- every instant up to here is decided
    decided_at  INTEGER NOT NULL,
    -- who paused it, since when and until when, as JSON
    pause       TEXT,
    -- successes, failures and skips in a row, and the kind of failure, as JSON
    streak      TEXT NOT NULL,
    last_at     INTEGER,
    last_outcome TEXT,
    last_success_at INTEGER,
    UNIQUE (app, function)
) STRICT;

CREATE TABLE schedule_runs (
    schedule    INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    -- the instant; the moment of a run that somebody asked for; the first instant of a gap of missed ones
    at          INTEGER NOT NULL,
    -- the last instant of such a gap, and how many it has at least
    last        INTEGER,
    count       INTEGER NOT NULL DEFAULT 1,
    more        INTEGER NOT NULL DEFAULT 0,
    -- 'waiting', 'running', 'done'
    state       TEXT NOT NULL,
    outcome     TEXT,
    trigger     TEXT NOT NULL,
    actor       TEXT,
    caught_up   INTEGER NOT NULL DEFAULT 0,
    call        BLOB,
    decided_at  INTEGER NOT NULL,
    started_at  INTEGER,
    ended_at    INTEGER,
    error       TEXT,
    -- one record for an instant
    PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_runs_open ON schedule_runs (call) WHERE state = 'running';
CREATE INDEX schedule_runs_waiting ON schedule_runs (schedule) WHERE state <> 'done';
CREATE INDEX schedule_runs_failed ON schedule_runs (schedule, at) WHERE outcome IN ('failed', 'timed_out');
CREATE INDEX schedule_gaps ON schedule_runs (schedule, last) WHERE last IS NOT NULL;
";

const OUTBOX: &str = "
CREATE TABLE outbox_destinations (
    kind        TEXT NOT NULL,
    name        TEXT NOT NULL,
    -- messages taken by it, tries in vain, and messages that were given up
    delivered   INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    given_up    INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER,
    -- why the last try failed, and since when every try does
    error       TEXT,
    failing_since INTEGER,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- a newer message about the same takes the place of one tried in vain; '' is about nothing else
    about       TEXT NOT NULL,
    body        TEXT NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    next_at     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    FOREIGN KEY (kind, destination) REFERENCES outbox_destinations (kind, name) ON DELETE CASCADE
) STRICT;
CREATE INDEX outbox_by_destination ON outbox (kind, destination, id);
CREATE INDEX outbox_by_subject ON outbox (kind, destination, about, id) WHERE about <> '';
";

const CRASHES: &str = "
-- attempts in a row under which an instance ended
ALTER TABLE calls ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
";

const CHANNELS: &str = "
CREATE TABLE channels (
    name        TEXT PRIMARY KEY,
    -- the place of the newest event it has heard of
    heard       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE episodes (
    channel     TEXT NOT NULL REFERENCES channels (name) ON DELETE CASCADE,
    topic       TEXT NOT NULL,
    -- a trouble that has not ended, as JSON
    body        TEXT NOT NULL,
    PRIMARY KEY (channel, topic)
) STRICT, WITHOUT ROWID;
";

const RUNS: &str = "
-- how many runs of a schedule have ended in each way, those that are forgotten included
CREATE TABLE schedule_tallies (
    schedule    INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    outcome     TEXT NOT NULL,
    count       INTEGER NOT NULL,
    PRIMARY KEY (schedule, outcome)
) STRICT, WITHOUT ROWID;
INSERT INTO schedule_tallies
    SELECT schedule, outcome, sum(count) FROM schedule_runs WHERE outcome IS NOT NULL GROUP BY schedule, outcome;
-- what runs that failed have written: the beginning, the end, and how many lines lie between
CREATE TABLE schedule_outputs (
    schedule    INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    head        TEXT NOT NULL,
    left_out    INTEGER NOT NULL,
    tail        TEXT NOT NULL,
    PRIMARY KEY (schedule, at),
    FOREIGN KEY (schedule, at) REFERENCES schedule_runs (schedule, at) ON DELETE CASCADE
) STRICT;
";

const TOKENS: &str = "
CREATE TABLE tokens (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    -- whom it was made for
    holder      TEXT NOT NULL,
    -- SHA-256 of the token; the token itself is kept nowhere
    hash        BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    scope       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    expires_at  INTEGER,
    used_at     INTEGER,
    revoked_at  INTEGER,
    revoked_by  TEXT
) STRICT;
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;
CREATE TABLE sessions (
    -- SHA-256 of what the browser keeps
    hash        BLOB PRIMARY KEY CHECK (length(hash) = 32),
    token       INTEGER NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- who asked from where, how they were known, how the app stood before and after, and what was answered
ALTER TABLE audit ADD COLUMN address TEXT;
ALTER TABLE audit ADD COLUMN via TEXT;
ALTER TABLE audit ADD COLUMN before TEXT;
ALTER TABLE audit ADD COLUMN after TEXT;
ALTER TABLE audit ADD COLUMN result TEXT;
CREATE INDEX audit_by_app ON audit (environment, app, id);
";

const SCALED: &str = "
-- bounds of instances set by hand; they hold while the version is live
CREATE TABLE scaled (
    environment TEXT NOT NULL,
    app         TEXT NOT NULL,
    object      TEXT NOT NULL,
    version     INTEGER NOT NULL,
    min         INTEGER NOT NULL,
    max         INTEGER NOT NULL,
    PRIMARY KEY (environment, app, object)
) STRICT, WITHOUT ROWID;
";

const SECRETS: &str = "
CREATE TABLE secrets (
    environment TEXT NOT NULL,
    -- '' for all apps of the environment
    app         TEXT NOT NULL,
    name        TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    -- name of the key that opens it
    key         TEXT NOT NULL,
    -- NULL after it was removed
    sealed      BLOB,
    actor       TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (environment, app, name)
) STRICT;
CREATE TABLE version_secrets (
    app         INTEGER NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    variable    TEXT NOT NULL,
    name        TEXT NOT NULL,
    -- where it came from: 'app', 'environment', or the kind of a provider
    origin      TEXT NOT NULL,
    -- a number, or a provider's mark; never a value
    revision    TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (app, version, variable, name, origin, revision)
) STRICT;
";

const IMAGES: &str = "
-- the very image of a version that runs in containers, as JSON
ALTER TABLE versions ADD COLUMN image TEXT;
";

const SERVICES: &str = "
-- the very images of the services of a version that is a Compose project, as JSON by the service's name
ALTER TABLE versions ADD COLUMN services TEXT;
";

/// Brings the database to the newest schema. An older one is copied beside first.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let sqlite = |e| from_sqlite(e, path);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(LedgerError::Newer { path: path.display().to_string(), found, known });
    }
    if found > 0 && found < known {
        let copy = path.with_extension(format!("db.before-{known}"));
        connection.backup("main", &copy, None::<fn(rusqlite::backup::Progress)>).map_err(sqlite)?;
    }
    let pending = usize::try_from(found).map_or(&[][..], |done| &MIGRATIONS[done..]);
    for (number, sql) in (found + 1..).zip(pending) {
        let transaction = connection.transaction().map_err(sqlite)?;
        transaction.execute_batch(sql).map_err(sqlite)?;
        transaction.pragma_update(None, "user_version", number).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_older_ledger_keeps_everything_and_a_copy_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger.db");
        let mut old = Connection::open(&path).expect("opens");
        old.execute_batch(V1).expect("schema 1");
        old.pragma_update(None, "user_version", 1).expect("numbered");
        old.execute_batch(
            "INSERT INTO apps VALUES (1,'main','shop','fleet','apps/shop','content','{}',NULL,2,10,20);
             INSERT INTO versions VALUES (1,1,'deploy',NULL,'superseded',1,1,'aa','{}','{}',NULL,10);
             INSERT INTO versions VALUES (1,2,'deploy',NULL,'live',1,1,'bb','{}','{}','why',20);
             INSERT INTO audit VALUES (1,20,'{}','rollback','main','shop','{}');",
        )
        .expect("filled");
        migrate(&mut old, &path).expect("migrates");
        let count = |sql: &str| old.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("counts");
        assert_eq!(count("SELECT count(*) FROM versions"), 2);
        assert_eq!(count("SELECT count(*) FROM audit"), 1);
        assert_eq!(count("SELECT count(*) FROM events"), 0);
        assert_eq!(count("PRAGMA user_version"), MIGRATIONS.len() as i64);
        let copy = Connection::open(dir.path().join(format!("ledger.db.before-{}", MIGRATIONS.len()))).expect("a copy");
        let version: i64 = copy.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("reads");
        assert_eq!(version, 1);
    }

    #[test]
    fn a_newer_ledger_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger.db");
        let mut newer = Connection::open(&path).expect("opens");
        newer.pragma_update(None, "user_version", 999).expect("numbered");
        let error = migrate(&mut newer, &path).expect_err("refused");
        assert!(matches!(error, LedgerError::Newer { found: 999, .. }), "{error}");
        assert!(error.to_string().contains("newer Landfall"), "{error}");
    }
}
