//! `landfall.yaml`: text in, a complete [`Manifest`] or every mistake out.
//!
//! Reading has three steps: the table of keys (`manifest_keys`) checks each key for itself, the checks
//! here compare keys with each other, and only a record without a mistake becomes a manifest.
//! Invariant: texts that mean the same give equal manifests.

use std::collections::{BTreeMap, HashMap};

use super::compose_keys;
use super::container_keys;
use super::errors::{FileError, FileErrors};
use super::manifest_keys::MANIFEST;
use super::manifest_schedule;
use super::publish_keys;
use super::reader::{Reader, join};
use super::record::{Entry, Record, Value};
use super::source::Source;
use super::yaml::{self, Place};
use crate::domain::manifest::{
    Auth, Build, Code, Function, Handler, Handover, Health, Instances, Resources, Retries, Strategy, Web, Worker,
    defaults,
};
use crate::domain::{Manifest, ObjectName, SecretName};

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
        let mut record = reader.document(&tree)?;
        complete(&mut record);
        check(&mut reader, &record);
        Some(record)
    });
    match (FileErrors::new(reader.into_errors()), record) {
        (Some(errors), _) => Err(errors),
        (None, Some(record)) => Ok(record),
        (None, None) => Err(disagree(file)),
    }
}

/// A mistake about a name in `depends_on` that shows only beside other manifests, at its place in the text.
pub fn dependency_error(file: &str, text: &str, name: &str, message: String, hint: String) -> FileError {
    let record = read_record(file, text).ok();
    let names = record.as_ref().map(|record| record.list("depends_on")).unwrap_or_default();
    let place = names.iter().find(|entry| entry.text() == Some(name)).map(|entry| entry.place.clone());
    Source { file, text }.error(&place.unwrap_or(Place::NOWHERE), "depends_on", message, Some(hint))
}

/// The one thing that only a mistake in Landfall itself can cause.
fn disagree(file: &str) -> FileErrors {
    let hint = "please report this with the file".to_owned();
    FileError::whole(file, "Landfall's tables of keys and its reader disagree", Some(hint)).into()
}

/// Defaults that depend on other keys.
fn complete(app: &mut Record) {
    let functions = app.entries.iter_mut().find(|(key, _)| key.name == "functions");
    let Some((_, Entry { value: Value::Map(functions), .. })) = functions else { return };
    for (_, _, entry) in functions {
        if let Value::Record(function) = &mut entry.value {
            manifest_schedule::complete(function);
        }
    }
}

/// What no key can know for itself.
fn check(reader: &mut Reader<'_>, app: &Record) {
    let (web, functions, workers) = (app.map("web"), app.map("functions"), app.map("workers"));
    let objects = web.len() + functions.len() + workers.len();
    publish_keys::check(reader, app);
    let published = publish_keys::is_published(app) || app.text("runtime") == Some("publish");
    let project = compose_keys::is_compose(app);
    if objects == 0 && !published && !project && !["web", "functions", "workers"].iter().any(|key| broken(app, key)) {
        let place = Place { width: 1, ..app.place.clone() };
        let hint = "add for example `web: {main: {command: [python3, server.py]}}`";
        let message = "the app has neither `web` nor `functions` nor `workers`, there is nothing to run";
        reader.error(&place, "", message, Some(hint));
    }
    if objects > MAX_OBJECTS {
        let message = format!("the app has {objects} objects, at most {MAX_OBJECTS} are allowed");
        reader.error(&app.place, "", message, Some("split it into several apps"));
    }
    check_names(
        reader,
        &[("web", "a web endpoint", web), ("functions", "a function", functions), ("workers", "", workers)],
    );
    for (name, _, entry) in functions {
        let Some(record) = entry.record() else { continue };
        check_code(reader, record, &join("functions", name));
        manifest_schedule::check(reader, record, &join("functions", name));
        check_instances(reader, record, &join("functions", name));
    }
    check_secrets(reader, app);
    match project {
        true => compose_keys::check(reader, app),
        false => container_keys::check(reader, app),
    }
    for (index, entry) in app.list("depends_on").iter().enumerate() {
        if entry.text().is_some() && entry.text() == app.text("app") {
            let message = "`depends_on` names the app itself, which would wait for ever";
            reader.error(&entry.place, &format!("depends_on[{index}]"), message, Some("take it out"));
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

/// A variable has one value: written down, or secret.
fn check_secrets(reader: &mut Reader<'_>, app: &Record) {
    let objects = ["web", "functions", "workers"].into_iter().flat_map(|key| app.map(key));
    let of_objects = objects.filter_map(|(_, _, entry)| entry.record()).flat_map(|object| object.map("env"));
    let written: Vec<&String> = app.map("env").iter().chain(of_objects).map(|(name, _, _)| name).collect();
    for key in ["secrets", "secret_files"] {
        for (name, place, _) in app.map(key) {
            let also_secret = key == "secret_files" && app.map("secrets").iter().any(|(other, _, _)| other == name);
            if written.contains(&name) || also_secret {
                let message = format!("`{name}` is under `{}` as well", if also_secret { "secrets" } else { "env" });
                reader.error(place, &join(key, name), message, Some("remove it from one of them"));
            }
        }
    }
}

pub(super) fn secrets(app: &Record, key: &str) -> Option<BTreeMap<String, SecretName>> {
    texts_by_name(app, key).into_iter().map(|(variable, name)| Some((variable, name.parse().ok()?))).collect()
}

/// An entry of a map with its name.
type Named = (String, Place, Entry);

/// Names are unique over all objects of an app.
fn check_names(reader: &mut Reader<'_>, kinds: &[(&str, &str, &[Named])]) {
    for (index, (key, _, objects)) in kinds.iter().enumerate() {
        for (name, place, _) in *objects {
            let earlier = kinds[..index].iter().find(|(_, _, others)| others.iter().any(|(other, _, _)| other == name));
            if let Some((_, what, _)) = earlier {
                let message = format!("`{name}` is also the name of {what}");
                reader.error(place, &join(key, name), message, Some("names are unique over all objects of an app"));
            }
        }
    }
}

/// Either a handler, or a command with its mode.
fn check_code(reader: &mut Reader<'_>, function: &Record, path: &str) {
    let given = |key: &str| function.entry(key).filter(|entry| entry.given);
    match (given("handler"), given("command"), given("mode")) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => {}
        (None, None, mode) => {
            let place = mode.map_or(&function.place, |mode| &mode.place);
            let hint = "write `handler: app.py:name`, or `command: [./program]` with `mode: exec` or `mode: server`";
            reader.error(place, path, format!("`{path}` has neither `handler` nor `command`"), Some(hint));
        }
        (Some(_), Some(command), _) => {
            let message = format!("`{path}` has both `handler` and `command`");
            reader.error(&command.place, &join(path, "command"), message, Some("remove one of them"));
        }
        (Some(_), None, Some(mode)) => {
            let message = "`mode` belongs to `command`; a handler is always kept warm".to_owned();
            reader.error(&mode.place, &join(path, "mode"), message, Some("remove it"));
        }
        (None, Some(command), None) => {
            let hint = "add `mode: exec` for a process per call, or `mode: server` for an HTTP server on $PORT";
            let message = format!("`{path}` needs `mode` beside `command`");
            reader.error(&command.place, &join(path, "mode"), message, Some(hint));
        }
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
        container: container_keys::build(app)?,
        build: match app.record("build").filter(|_| !container_keys::is_container(app)) {
            Some(build) => Some(Build { command: build.texts("command"), timeout: build.duration("timeout")? }),
            None => None,
        },
        include: sorted(app.texts("include")),
        env: texts_by_name(app, "env"),
        secrets: secrets(app, "secrets")?,
        secret_files: secrets(app, "secret_files")?,
        encrypted_files: sorted(app.texts("encrypted_files")),
        volumes: texts_by_name(app, "volumes"),
        depends_on: sorted(app.texts("depends_on")).iter().map(|name| name.parse().ok()).collect::<Option<_>>()?,
        strategy: match app.text("strategy")? {
            "rolling" => Strategy::Rolling,
            "recreate" => Strategy::Recreate,
            _ => return None,
        },
        bake: app.duration("bake")?,
        notify: sorted(app.texts("notify")),
        publish: publish_keys::build(app)?,
        compose: compose_keys::build(app)?,
        web: objects(app, "web", web)?,
        functions: objects(app, "functions", function)?,
        workers: match compose_keys::is_compose(app) {
            true => compose_keys::workers()?,
            false => objects(app, "workers", worker)?,
        },
    })
}

fn objects<T>(app: &Record, key: &str, object: fn(&Record) -> Option<T>) -> Option<BTreeMap<ObjectName, T>> {
    app.map(key).iter().map(|(name, _, entry)| Some((name.parse().ok()?, object(entry.record()?)?))).collect()
}

fn web(web: &Record) -> Option<Web> {
    let health = web.record("health")?;
    Some(Web {
        command: web.texts("command"),
        port: web.number("port").and_then(|port| u16::try_from(port).ok()),
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
        auth: if web.text("auth") == Some("token") { Auth::Token } else { Auth::None },
        resources: resources(web)?,
    })
}

fn function(function: &Record) -> Option<Function> {
    let retries = function.record("retries")?;
    Some(Function {
        code: code(function)?,
        env: texts_by_name(function, "env"),
        instances: instances(function)?,
        spare: match function.record("instances") {
            Some(range) => range.number("spare")?,
            None => defaults::SPARE,
        },
        concurrency: function.number("concurrency")?,
        schedule: manifest_schedule::build(function)?,
        timeout: function.duration("timeout")?,
        startup_timeout: function.duration("startup_timeout")?,
        retries: Retries {
            max: retries.number("max")?,
            delay: retries.duration("delay")?,
            backoff: retries.number("backoff")?,
            max_delay: retries.duration("max_delay")?,
        },
        queue: function.number("queue")?,
        backlog: function.number("backlog"),
        max_body: function.size("max_body")?,
        grace: function.duration("grace")?,
        resources: resources(function)?,
    })
}

fn code(function: &Record) -> Option<Code> {
    if let Some((file, name)) = function.text("handler").and_then(|text| text.rsplit_once(':')) {
        let handler = Handler { file: file.to_owned(), name: name.to_owned() };
        return Some(if file.ends_with(".py") { Code::Python(handler) } else { Code::JavaScript(handler) });
    }
    match function.text("mode")? {
        "server" => Some(Code::Server(function.texts("command"))),
        "exec" => Some(Code::Exec(function.texts("command"))),
        _ => None,
    }
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

pub(super) fn texts_by_name(record: &Record, key: &str) -> BTreeMap<String, String> {
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
