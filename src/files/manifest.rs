//! `landfall.yaml`: text in, a complete [`Manifest`] or every mistake out.
//!
//! Reading has three steps: the table of keys (`manifest_keys`) checks each key for itself, the checks
//! here compare keys with each other, and only a record without a mistake becomes a manifest.
//! Invariant: texts that mean the same give equal manifests.

use std::collections::{BTreeMap, HashMap};

use super::errors::{FileError, FileErrors};
use super::manifest_keys::MANIFEST;
use super::reader::{Reader, join};
use super::record::{Entry, Record, Value};
use super::source::Source;
use super::yaml::{self, Place};
use crate::domain::manifest::{Build, Handover, Health, Instances, Resources, Strategy, Web, Worker, defaults};
use crate::domain::{Manifest, ObjectName};

/// Most objects of one app.
const MAX_OBJECTS: usize = 50;

/// Reads one app's manifest. `file` is only shown in errors.
pub fn read_manifest(file: &str, text: &str) -> Result<Manifest, FileErrors> {
    let record = read_record(file, text)?;
    build(&record).ok_or_else(|| disagree(file))
}

/// Reads and checks without building the manifest: what `check --explain` prints.
pub fn read_record(file: &str, text: &str) -> Result<Record, FileErrors> {
    let source = Source { file, text };
    let (tree, errors) = yaml::parse(&source);
    let mut reader = Reader::new(&source, &MANIFEST, errors);
    let record = tree.and_then(|tree| {
        let record = reader.document(&tree)?;
        check(&mut reader, &record);
        Some(record)
    });
    match (FileErrors::new(reader.into_errors()), record) {
        (Some(errors), _) => Err(errors),
        (None, Some(record)) => Ok(record),
        (None, None) => Err(disagree(file)),
    }
}

/// The one thing that only a mistake in Landfall itself can cause.
fn disagree(file: &str) -> FileErrors {
    let hint = "please report this with the file".to_owned();
    FileError::whole(file, "Landfall's tables of keys and its reader disagree", Some(hint)).into()
}

/// What no key can know for itself.
fn check(reader: &mut Reader<'_>, app: &Record) {
    let (web, workers) = (app.map("web"), app.map("workers"));
    if web.is_empty() && workers.is_empty() && !broken(app, "web") && !broken(app, "workers") {
        let place = Place { width: 1, ..app.place.clone() };
        let hint = "add for example `web: {main: {command: [python3, server.py]}}`";
        reader.error(&place, "", "the app has neither `web` nor `workers`, there is nothing to run", Some(hint));
    }
    if web.len() + workers.len() > MAX_OBJECTS {
        let message = format!("the app has {} objects, at most {MAX_OBJECTS} are allowed", web.len() + workers.len());
        reader.error(&app.place, "", message, Some("split it into several apps"));
    }
    for (name, place, _) in workers {
        if web.iter().any(|(other, _, _)| other == name) {
            let message = format!("`{name}` is also the name of a web endpoint");
            reader.error(place, &join("workers", name), message, Some("names are unique over all objects of an app"));
        }
    }
    let mut claims = HashMap::new();
    for (name, _, entry) in web {
        let Some(record) = entry.record() else { continue };
        check_instances(reader, record, &join("web", name));
        check_hosts(reader, record, name, &mut claims);
        check_health(reader, record, &join("web", name));
    }
}

fn broken(record: &Record, name: &str) -> bool {
    matches!(record.value(name), Some(Value::Broken))
}

fn check_instances(reader: &mut Reader<'_>, web: &Record, path: &str) {
    let Some(range) = web.record("instances") else { return };
    let (Some(min), Some(max)) = (range.number("min"), range.number("max")) else { return };
    if min > max {
        let entry = range.entry("min").filter(|entry| entry.given).or_else(|| range.entry("max"));
        let place = entry.map_or(Place::NOWHERE, |entry| entry.place.clone());
        let message = format!("`{path}.instances`: min is {min}, more than max, which is {max}");
        reader.error(&place, &format!("{path}.instances.min"), message, None);
    }
}

fn check_health(reader: &mut Reader<'_>, web: &Record, path: &str) {
    let Some(health) = web.record("health") else { return };
    let (Some(deadline), Some(interval), Some(rise)) =
        (health.duration("deadline"), health.duration("interval"), health.number("rise"))
    else {
        return;
    };
    // The first probe is sent at once, each further one an interval later.
    let least = interval.0.saturating_mul(u64::from(rise.saturating_sub(1)));
    if least > deadline.0 {
        let message = format!("`{path}.health`: {rise} probes {} ms apart never fit into the deadline", interval.0);
        reader.error(
            &health.place,
            &format!("{path}.health"),
            message,
            Some("raise `deadline` or lower `interval` or `rise`"),
        );
    }
}

/// Two endpoints must not claim the same host and path, and none may name a host twice.
fn check_hosts(reader: &mut Reader<'_>, web: &Record, name: &str, claims: &mut HashMap<(String, String), String>) {
    let Some(path) = web.text("path") else { return };
    for (index, entry) in web.list("hosts").iter().enumerate() {
        let Some(host) = entry.text() else { continue };
        let Some(other) = claims.insert((host.to_owned(), path.to_owned()), name.to_owned()) else { continue };
        let message = if other == name {
            format!("`{host}` stands twice in the hosts of `web.{name}`")
        } else {
            format!("`{host}` with the path `{path}` already belongs to `web.{other}`")
        };
        reader.error(&entry.place, &format!("web.{name}.hosts[{index}]"), message, None);
    }
}

/// A manifest from a record without mistakes; `None` only if the table of keys lacks one that is asked for.
fn build(app: &Record) -> Option<Manifest> {
    Some(Manifest {
        app: app.text("app")?.parse().ok()?,
        build: match app.record("build") {
            Some(build) => Some(Build { command: build.texts("command"), timeout: build.duration("timeout")? }),
            None => None,
        },
        include: sorted(app.texts("include")),
        env: texts_by_name(app, "env"),
        volumes: texts_by_name(app, "volumes"),
        strategy: match app.text("strategy")? {
            "rolling" => Strategy::Rolling,
            "recreate" => Strategy::Recreate,
            _ => return None,
        },
        bake: app.duration("bake")?,
        web: objects(app, "web", web)?,
        workers: objects(app, "workers", worker)?,
    })
}

fn objects<T>(app: &Record, key: &str, object: fn(&Record) -> Option<T>) -> Option<BTreeMap<ObjectName, T>> {
    app.map(key).iter().map(|(name, _, entry)| Some((name.parse().ok()?, object(entry.record()?)?))).collect()
}

fn web(web: &Record) -> Option<Web> {
    let health = web.record("health")?;
    Some(Web {
        command: web.texts("command"),
        env: texts_by_name(web, "env"),
        health: Health {
            path: health.text("path").map(str::to_owned),
            deadline: health.duration("deadline")?,
            interval: health.duration("interval")?,
            timeout: health.duration("timeout")?,
            rise: health.number("rise")?,
            fall: health.number("fall")?,
        },
        instances: instances(web)?,
        concurrency: web.number("concurrency")?,
        request_timeout: web.duration("request_timeout")?,
        max_body: web.size("max_body")?,
        drain: web.duration("drain")?,
        grace: web.duration("grace")?,
        hosts: sorted(web.texts("hosts")),
        path: web.text("path")?.to_owned(),
        strip_prefix: web.bool("strip_prefix")?,
        resources: resources(web)?,
    })
}

fn worker(worker: &Record) -> Option<Worker> {
    Some(Worker {
        command: worker.texts("command"),
        env: texts_by_name(worker, "env"),
        instances: worker.number("instances")?,
        handover: match worker.text("handover")? {
            "stop-first" => Handover::StopFirst,
            "start-first" => Handover::StartFirst,
            _ => return None,
        },
        grace: worker.duration("grace")?,
        resources: resources(worker)?,
    })
}

fn instances(web: &Record) -> Option<Instances> {
    if let Some(range) = web.record("instances") {
        return Some(Instances { min: range.number("min")?, max: range.number("max")?, idle: range.duration("idle")? });
    }
    let number = web.number("instances")?;
    Some(Instances { min: number, max: number, idle: defaults::IDLE })
}

fn resources(object: &Record) -> Option<Resources> {
    let limits = object.record("resources")?;
    let cpu = if let Some(Value::Cores(millis)) = limits.value("cpu") { Some(*millis) } else { None };
    Some(Resources { memory: limits.size("memory"), cpu_millis: cpu, processes: limits.number("processes") })
}

fn texts_by_name(record: &Record, key: &str) -> BTreeMap<String, String> {
    let text = |(name, _, entry): &(String, Place, Entry)| Some((name.clone(), entry.text()?.to_owned()));
    record.map(key).iter().filter_map(text).collect()
}

/// Order means nothing here, so that it must not change the content's identity either.
fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
