//! Calls that must not be lost: recorded before their identifier is given out, until long after their outcome.
//!
//! | file | what |
//! |---|---|
//! | here | the words, and how a call comes in |
//! | `turns` | attempts begin and end, calls are cancelled |
//! | `look` | what people and programs ask |
//! | `keep` | what is no longer kept |
//!
//! Owner: `engine::caller`. A call is found by its identifier; `seq`, the order of commits, never leaves this
//! module. Invariants: an attempt is recorded before it is sent anywhere; the attempts of a call are numbered 1, 2, …
//! and at most the last one has no end; an outcome is written once and never changed; there is at most one call for a
//! key of a function, and at most one for an instant of its schedule.

mod keep;
mod look;
#[cfg(test)]
mod tests;
mod turns;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

pub use keep::{Expired, body_files, expire, forget};
pub(super) use look::Conditions;
pub use look::{Attempt, Backlog, Call, Filter, attempts, backlogs, body, list, one, queued, result};
pub use turns::{
    Begun, Cancelled, Ended, OpenAttempt, Turn, Turns, begin, cancel, end, functions_with_queue, give_up,
    open_attempts, waiting,
};

use super::Result;
use super::rows::{bad, json, micros};
use crate::domain::attempt::Blob;
use crate::domain::{Actor, AttemptId, CallId, CallState, FunctionKey, Payload, Place, Trigger, VersionNumber};
use crate::wire::calls::Detached;

/// The number of a call's first attempt.
const FIRST: u32 = 1;

/// A call as it comes in.
#[derive(Debug, Clone)]
pub struct NewCall {
    /// Its identifier, which nobody has been told yet.
    pub id: CallId,
    /// What is called.
    pub function: FunctionKey,
    /// The version it must run on; `None` for the one that is live when it runs.
    pub version: Option<VersionNumber>,
    /// What made it.
    pub trigger: Trigger,
    /// Who.
    pub actor: Actor,
    /// When.
    pub created_at: Timestamp,
    /// It begins not before this.
    pub due_at: Timestamp,
    /// The instant a schedule's run stands for.
    pub scheduled_at: Option<Timestamp>,
    /// No further attempt begins later than this, whatever the function's retries say.
    pub retry_until: Option<Timestamp>,
    /// What it is called with.
    pub body: Payload,
    /// At most one call is made for it.
    pub key: Option<Key>,
    /// The call that is tried anew.
    pub redrive_of: Option<CallId>,
}

/// What makes a call the same call when it is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As the caller wrote it.
    pub text: String,
    /// A digest of everything that must be the same too.
    pub digest: [u8; 32],
}

/// What became of a call that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is recorded.
    New,
    /// There is one for its key already, with the same body; or one for its instant.
    Known(CallId),
    /// There is one for its key, and it is another.
    KeyUsed(CallId),
    /// The call that was to be tried anew is being tried anew already.
    Redriven(CallId),
}

/// Records a call that waits for its turn.
pub fn take(connection: &Connection, new: &NewCall) -> Result<Taken> {
    record(connection, new, CallState::Queued)
}

fn record(connection: &Connection, new: &NewCall, state: CallState) -> Result<Taken> {
    let function = function_id(connection, &new.function)?;
    if let Some(key) = &new.key
        && let Some((id, same)) = by_key(connection, function, key)?
    {
        return Ok(if same { Taken::Known(id) } else { Taken::KeyUsed(id) });
    }
    if let Some(known) = by_instant(connection, function, new)? {
        return Ok(Taken::Known(known));
    }
    if let Some(old) = new.redrive_of {
        let marked = connection
            .prepare_cached("UPDATE calls SET redriven_as = ?2 WHERE id = ?1 AND redriven_as IS NULL")?
            .execute(params![old.to_bytes(), new.id.to_bytes()])?;
        if marked == 0 {
            let mut as_which = connection.prepare_cached("SELECT redriven_as FROM calls WHERE id = ?1")?;
            let known: Option<Option<[u8; 16]>> = as_which.query_row([old.to_bytes()], |row| row.get(0)).optional()?;
            let known = known.flatten().ok_or_else(|| bad("call", format!("{old} is not recorded")))?;
            return Ok(Taken::Redriven(CallId::from_bytes(known)));
        }
    }
    insert(connection, function, new, state)?;
    Ok(Taken::New)
}

/// Records a call together with the beginning of its first attempt, for one that need not wait for its turn. What has
/// begun is to be sent; there is nothing where no new call is recorded.
pub fn take_begun(connection: &Connection, new: &NewCall) -> Result<(Taken, Option<Begun>)> {
    let taken = record(connection, new, CallState::Running)?;
    let begun = || -> Result<Begun> {
        turns::add_attempt(connection, connection.last_insert_rowid(), FIRST, new.created_at)?;
        Ok(Begun {
            attempt: AttemptId { call: new.id, attempt: FIRST },
            function: new.function.clone(),
            version: new.version,
            trigger: new.trigger,
            scheduled_at: new.scheduled_at,
            body: new.body.clone(),
        })
    };
    Ok((taken, (taken == Taken::New).then(begun).transpose()?))
}

/// Records a call that runs already, somewhere, for somebody who does not wait any longer. It has one attempt and no
/// other, for nobody has its body. Answers whether it runs by the record: one that is known may be over.
pub fn detach(connection: &Connection, call: &Detached, now: Timestamp) -> Result<bool> {
    let id = call.attempt.call;
    let mut known = connection.prepare_cached("SELECT state FROM calls WHERE id = ?1")?;
    if let Some(state) = known.query_row([id.to_bytes()], |row| row.get::<_, String>(0)).optional()? {
        return Ok(CallState::from_recorded(&state) == Some(CallState::Running));
    }
    let new = NewCall {
        id,
        function: call.function.clone(),
        version: call.version,
        trigger: Trigger::Call,
        actor: Actor::User { name: call.actor.clone() },
        created_at: call.created_at,
        due_at: call.created_at,
        scheduled_at: None,
        // Past already: whatever becomes of its attempt, no other follows.
        retry_until: Some(call.created_at),
        body: Payload::inline(None, Vec::new()),
        key: None,
        redrive_of: None,
    };
    let function = function_id(connection, &new.function)?;
    insert(connection, function, &new, CallState::Queued)?;
    begin(connection, &[id], now)?;
    Ok(true)
}

fn by_key(connection: &Connection, function: i64, key: &Key) -> Result<Option<(CallId, bool)>> {
    let mut statement =
        connection.prepare_cached("SELECT id, key_digest = ?3 FROM calls WHERE function = ?1 AND key = ?2")?;
    let found = statement.query_row(params![function, key.text, key.digest], |row| {
        Ok((CallId::from_bytes(row.get(0)?), row.get::<_, bool>(1)?))
    });
    Ok(found.optional()?)
}

fn by_instant(connection: &Connection, function: i64, new: &NewCall) -> Result<Option<CallId>> {
    let Some(instant) = new.scheduled_at else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT id FROM calls WHERE function = ?1 AND scheduled_at = ?2")?;
    let found = statement.query_row(params![function, micros(instant)], |row| row.get(0));
    Ok(found.optional()?.map(CallId::from_bytes))
}

/// One that runs has its first attempt.
fn insert(connection: &Connection, function: i64, new: &NewCall, state: CallState) -> Result<()> {
    let attempts = if state == CallState::Running { FIRST } else { 0 };
    let (place, body) = place_columns(&new.body.place);
    connection
        .prepare_cached(
            "INSERT INTO calls (id, function, state, attempts, due_at, pin, trigger, actor, created_at, scheduled_at,
                 retry_until, redrive_of, key, key_digest, media, body_bytes, body_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        )?
        .execute(params![
            new.id.to_bytes(),
            function,
            state.as_str(),
            attempts,
            micros(new.due_at),
            new.version.map(VersionNumber::get),
            new.trigger.as_str(),
            json(&new.actor)?,
            micros(new.created_at),
            new.scheduled_at.map(micros),
            new.retry_until.map(micros),
            new.redrive_of.map(CallId::to_bytes),
            new.key.as_ref().map(|key| key.text.as_str()),
            new.key.as_ref().map(|key| key.digest),
            new.body.media,
            i64::try_from(new.body.bytes).unwrap_or(i64::MAX),
            place,
            body,
        ])?;
    Ok(())
}

/// The number of a function, which it keeps for all time.
fn function_id(connection: &Connection, key: &FunctionKey) -> Result<i64> {
    if let Some(id) = find_function(connection, key)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO functions (environment, app, name) VALUES (?1, ?2, ?3)")?
        .execute(params![key.app.environment.as_str(), key.app.app.as_str(), key.function.as_str()])?;
    Ok(connection.last_insert_rowid())
}

fn find_function(connection: &Connection, key: &FunctionKey) -> Result<Option<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM functions WHERE environment = ?1 AND app = ?2 AND name = ?3")?;
    let names = params![key.app.environment.as_str(), key.app.app.as_str(), key.function.as_str()];
    Ok(statement.query_row(names, |row| row.get(0)).optional()?)
}

const INLINE: &str = "inline";
const FILE: &str = "file";
const EXPIRED: &str = "expired";

fn place_columns(place: &Place) -> (&'static str, Option<&[u8]>) {
    match place {
        Place::Inline(Blob(bytes)) => (INLINE, Some(bytes)),
        Place::File => (FILE, None),
        Place::Expired => (EXPIRED, None),
    }
}

/// The body of a row is only fetched when it is asked for: then `body` is its bytes.
fn read_place(place: &str, body: Option<Vec<u8>>) -> Result<Place> {
    match place {
        INLINE => Ok(Place::Inline(Blob(body.unwrap_or_default()))),
        FILE => Ok(Place::File),
        EXPIRED => Ok(Place::Expired),
        other => Err(bad("body", format!("it is at `{other}`"))),
    }
}

fn read_bytes(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}
