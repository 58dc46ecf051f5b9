//! Between Rust values and SQLite columns.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LedgerError, Result};
use crate::domain::{AppKey, VersionNumber};

/// Times are whole microseconds since 1970.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

pub(super) fn time(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|e| bad("time", e))
}

pub(super) fn maybe_time(micros: Option<i64>) -> Result<Option<Timestamp>> {
    micros.map(time).transpose()
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| bad("value", e))
}

pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| bad(what, e))
}

pub(super) fn version(number: u32) -> Result<VersionNumber> {
    VersionNumber::new(number).ok_or_else(|| bad("version", "number 0"))
}

pub(super) fn maybe_version(number: Option<u32>) -> Result<Option<VersionNumber>> {
    number.map(version).transpose()
}

pub(super) fn parse<T>(what: &'static str, text: String) -> Result<T>
where
    T: TryFrom<String>,
    T::Error: std::fmt::Display,
{
    T::try_from(text).map_err(|e| bad(what, e))
}

pub(super) fn bad(what: &'static str, detail: impl std::fmt::Display) -> LedgerError {
    LedgerError::Row { what, detail: detail.to_string() }
}

/// The row of an app; an app that is not there is a bug in the caller, reported as such.
pub(super) fn app_id(connection: &Connection, key: &AppKey) -> Result<i64> {
    find_app(connection, key)?.ok_or_else(|| bad("app", format!("{key} is not recorded")))
}

pub(super) fn find_app(connection: &Connection, key: &AppKey) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM apps WHERE environment = ?1 AND name = ?2")?;
    let id = statement.query_row(params![key.environment.as_str(), key.app.as_str()], |row| row.get(0));
    Ok(id.optional()?)
}
