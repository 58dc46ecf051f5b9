//! What is known of certificates besides the certificates themselves: orders, failures, and what people were told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Result;
use super::rows::{micros, time};

/// What is on record of a host, or of a certificate from a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateRecord {
    /// The order that is open.
    pub order: Option<OpenOrder>,
    /// The directory at which an order was tried out with success.
    pub rehearsed: Option<String>,
    /// Orders in vain, in a row.
    pub failures: u32,
    /// Nothing is tried before this moment.
    pub not_before: Option<Timestamp>,
    /// Why the last order was in vain.
    pub problem: Option<String>,
    /// The event people were told last, if the trouble it tells of goes on.
    pub told: Option<String>,
}

/// An order that an authority has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOrder {
    /// The authority's directory.
    pub directory: String,
    /// The order's own address there.
    pub url: String,
}

/// Everything that is on record, by subject.
pub fn all(connection: &Connection) -> Result<BTreeMap<String, CertificateRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT order_directory, order_url, rehearsed, failures, not_before, problem, told, subject FROM certificates",
    )?;
    let mut rows = statement.query([])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        found.insert(row.get(7)?, read(row)?);
    }
    Ok(found)
}

/// The record of a subject: a host, or the path of a file.
pub fn of(connection: &Connection, subject: &str) -> Result<CertificateRecord> {
    let found = connection
        .prepare_cached(
            "SELECT order_directory, order_url, rehearsed, failures, not_before, problem, told FROM certificates WHERE subject = ?1",
        )?
        .query_row([subject], |row| Ok(read(row)))
        .optional()?;
    found.unwrap_or_else(|| Ok(CertificateRecord::default()))
}

fn read(row: &Row<'_>) -> Result<CertificateRecord> {
    let directory: Option<String> = row.get(0)?;
    let url: Option<String> = row.get(1)?;
    Ok(CertificateRecord {
        order: directory.zip(url).map(|(directory, url)| OpenOrder { directory, url }),
        rehearsed: row.get(2)?,
        failures: row.get(3)?,
        not_before: row.get::<_, Option<i64>>(4)?.map(time).transpose()?,
        problem: row.get(5)?,
        told: row.get(6)?,
    })
}

/// Puts a record in place of the one before.
pub fn set(connection: &Connection, subject: &str, record: &CertificateRecord) -> Result<()> {
    let (directory, url) = record.order.as_ref().map(|order| (&order.directory, &order.url)).unzip();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO certificates (subject, order_directory, order_url, rehearsed, failures, not_before, problem, told)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            subject,
            directory,
            url,
            record.rehearsed,
            record.failures,
            record.not_before.map(micros),
            record.problem,
            record.told
        ])?;
    Ok(())
}
