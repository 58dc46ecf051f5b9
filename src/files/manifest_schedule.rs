//! `schedule` of a function: what its keys must agree on, and the value it becomes.

use super::reader::{Reader, join};
use super::record::{Entry, Record, Value};
use crate::domain::schedule::Every;
use crate::domain::scheduled::{Overlap, Scheduled, When, defaults};

/// A function with a schedule may run for longer than others, unless its author says how long.
pub(super) fn complete(function: &mut Record) {
    let scheduled = function.entry("schedule").is_some_and(|entry| entry.given);
    let timeout = function.entries.iter_mut().find(|(key, _)| key.name == "timeout");
    if let Some((_, entry)) = timeout.filter(|(_, entry)| scheduled && !entry.given) {
        entry.value = Value::Duration(defaults::TIMEOUT);
    }
}

/// Either an expression or an interval, and of the other keys only what goes with it.
pub(super) fn check(reader: &mut Reader<'_>, function: &Record, path: &str) {
    let path = join(path, "schedule");
    let Some(schedule) = function.record("schedule") else { return };
    let given = |key: &str| schedule.entry(key).filter(|entry| entry.given);
    match (given("cron"), given("every")) {
        (Some(_), None) => {}
        (None, Some(every)) => {
            check_every(reader, every, &join(&path, "every"));
            if let Some(zone) = given("timezone") {
                let message = "`timezone` belongs to `cron`; an interval asks no clock on a wall".to_owned();
                let hint = "remove it, or write a cron expression";
                reader.error(&zone.place, &join(&path, "timezone"), message, Some(hint));
            }
        }
        (Some(_), Some(every)) => {
            let message = format!("`{path}` has both `cron` and `every`");
            reader.error(&every.place, &join(&path, "every"), message, Some("remove one of them"));
        }
        (None, None) => {
            let message = format!("`{path}` has neither `cron` nor `every`");
            let hint = "write `cron: \"0 4 * * *\"` or `every: 15m`";
            reader.error(&schedule.place, &path, message, Some(hint));
        }
    }
}

fn check_every(reader: &mut Reader<'_>, entry: &Entry, path: &str) {
    let Value::Duration(length) = entry.value else { return };
    if let Err(error) = Every::new(length.duration()) {
        reader.error(&entry.place, path, format!("`{path}`: {}", error.message), Some(&error.hint));
    }
}

/// The schedule of a function, `Some(None)` where it has none.
pub(super) fn build(function: &Record) -> Option<Option<Scheduled>> {
    if let Some(expression) = function.text("schedule") {
        let when = When::Cron { expression: expression.to_owned(), timezone: defaults::TIMEZONE.to_owned() };
        return Some(Some(Scheduled {
            when,
            overlap: defaults::OVERLAP,
            catch_up: defaults::CATCH_UP,
            jitter: defaults::JITTER,
            body: None,
            notify_after: defaults::NOTIFY_AFTER,
            ping: None,
        }));
    }
    let Some(schedule) = function.record("schedule") else { return Some(None) };
    let when = match (schedule.text("cron"), schedule.duration("every")) {
        (Some(expression), None) => {
            When::Cron { expression: expression.to_owned(), timezone: schedule.text("timezone")?.to_owned() }
        }
        (None, Some(length)) => When::Every(length),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let overlap = match schedule.text("overlap")? {
        "skip" => Overlap::Skip,
        "queue" => Overlap::Queue,
        "replace" => Overlap::Replace,
        "allow" => Overlap::Allow,
        _ => return None,
    };
    let body = if let Some(Value::Json(text)) = schedule.value("body") { Some(text.clone()) } else { None };
    Some(Some(Scheduled {
        when,
        overlap,
        catch_up: schedule.duration("catch_up")?,
        jitter: schedule.duration("jitter")?,
        body,
        notify_after: schedule.number("notify_after")?,
        ping: schedule.text("ping").map(str::to_owned),
    }))
}
