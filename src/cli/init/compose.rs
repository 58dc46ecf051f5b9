//! A Compose file as manifests: services of one image are objects of one app, each image an app of its own.
//!
//! ```text
//! text ─ yaml, merge keys carried out ─► service by service (`service`) ─► groups by image ─► drafts of manifests
//!                                              └──────────── notes ◄────────────┘
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::files::source::Source;
use crate::files::{FileErrors, yaml};

use super::service::{Need, Origin, Reading, Service, entries, texts_of};
use super::yaml_out::{Map, Value};
use super::{Draft, Translation, untold, words};

/// What is known besides the file's own text.
pub(super) struct Around<'a> {
    /// What the project is called unless the file says so: the directory's name.
    pub project: &'a str,
    /// Values of variables, from `.env` beside the file.
    pub values: &'a BTreeMap<String, String>,
    /// The text of a file beside it.
    pub beside: &'a dyn Fn(&str) -> Option<String>,
}

/// Translates a Compose file. `file` is only shown in errors.
pub(super) fn translate(file: &str, text: &str, around: &Around<'_>) -> Result<Translation, FileErrors> {
    let source = Source { file, text };
    let (tree, errors) = yaml::parse_merging(&source);
    if let Some(errors) = FileErrors::new(errors) {
        return Err(errors);
    }
    let mut reading = Reading { values: around.values, beside: around.beside, notes: Vec::new() };
    let (mut services, mut project) = (Vec::new(), words::name(around.project, "app"));
    for (key, value) in tree.iter().flat_map(entries) {
        match key.text.as_str() {
            "services" => services = entries(value).map(|(key, value)| reading.service(key, value)).collect(),
            "name" => {
                if let yaml::NodeKind::Scalar(scalar) = &value.kind {
                    project = words::name(&words::fill(&scalar.text, around.values).text, "app");
                }
            }
            "volumes" => top_volumes(&mut reading, value),
            "version" => {}
            key_of_others if key_of_others.starts_with("x-") => {}
            other => reading.note(key.place.line, other, untold::of_file(other)),
        }
    }
    if services.is_empty() {
        let hint = "name a Compose file, with `services`".to_owned();
        return Err(source.error(&yaml::Place::NOWHERE, "", "there are no services in it", Some(hint)).into());
    }
    one_off(&mut services);
    let drafts = grouped(&mut reading, services, &project);
    let mut notes = reading.notes;
    notes.sort_by_key(|note| note.line);
    // What several services have from one place by an alias is said once.
    notes.dedup_by(|again, first| again.line == first.line && again.text == first.text);
    Ok(Translation { drafts, notes })
}

fn top_volumes(reading: &mut Reading<'_>, value: &yaml::Node) {
    for (key, value) in entries(value) {
        if entries(value).next().is_some() {
            let text = "an app's volume is made by Landfall, empty and with the engine's defaults; copy what is in the old one";
            reading.note(key.place.line, format!("volumes.{}", key.text), text);
        }
    }
}

/// What others wait for until it has ended is run once.
fn one_off(services: &mut [Service]) {
    let all: Vec<String> = services
        .iter()
        .flat_map(|service| &service.needs)
        .filter(|need| need.completed)
        .map(|need| need.service.clone())
        .collect();
    for service in services.iter_mut().filter(|service| all.contains(&service.name)) {
        service.once = true;
    }
}

fn grouped(reading: &mut Reading<'_>, services: Vec<Service>, project: &str) -> Vec<Draft> {
    let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
    let mut groups: Vec<Vec<Service>> = Vec::new();
    for service in services {
        if service.origin.is_none() {
            let text = "left out: it has neither an image nor a directory below this file to build";
            reading.note(service.line, format!("services.{}", service.name), text);
            continue;
        }
        for (name, value) in texts_of(&service.env) {
            mentions(reading, &service, name, value, &names);
        }
        match groups.iter_mut().find(|group| group[0].origin == service.origin && group[0].shared == service.shared) {
            Some(group) => group.push(service),
            None => groups.push(vec![service]),
        }
    }
    let apps: Vec<String> = (0..groups.len()).map(|index| app_name(&groups, index, project)).collect();
    let of_service = |service: &str| {
        let group = groups.iter().position(|group| group.iter().any(|member| member.name == service))?;
        apps.get(group).cloned()
    };
    let alone = groups.len() == 1;
    let drafts: Vec<Draft> =
        groups.iter().zip(&apps).map(|(group, app)| draft(reading, group, app, alone, &of_service)).collect();
    shared_volumes(reading, &groups);
    if !alone && let Some(draft) = drafts.iter().find(|draft| draft.directory.as_os_str().is_empty()) {
        let text = format!(
            "app `{}` is this whole directory, and so has the directories of the other apps in it: a change of theirs is a change of it. Its own directory would end that",
            draft.app
        );
        reading.note(1, "services", text);
    }
    drafts
}

/// The one whose directory this is has the project's name, and so has the only one.
fn app_name(groups: &[Vec<Service>], index: usize, project: &str) -> String {
    let group = &groups[index];
    let is_here = |group: &[Service]| matches!(&group[0].origin, Some(Origin::Build { context, .. }) if context == ".");
    let first_here = groups.iter().position(|group| is_here(group));
    if groups.len() == 1 || first_here == Some(index) { project.to_owned() } else { words::name(&group[0].name, "app") }
}

/// Values that name another service will not find it.
fn mentions(reading: &mut Reading<'_>, service: &Service, variable: &str, value: &str, names: &[String]) {
    let key = format!("services.{}.environment.{variable}", service.name);
    let parts = || value.split(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
    let address = value.contains("://") || value.contains(':') || variable.to_ascii_uppercase().contains("HOST");
    if let Some(name) =
        names.iter().find(|name| address && **name != service.name && parts().any(|part| part == name.as_str()))
    {
        let text = format!(
            "names the service `{name}`, and containers have no names for each other here: call an app's URL, or leave `{name}` in Compose, publish its port and say `host.docker.internal`"
        );
        reading.note(service.line, &key, text);
    }
    let upper = variable.to_ascii_uppercase();
    if ["PASSWORD", "SECRET", "TOKEN", "API_KEY"].iter().any(|word| upper.contains(word)) && !value.is_empty() {
        reading.note(
            service.line,
            key,
            "its value stands in the manifest as it does here; a secret is better kept by `landfall secret set`",
        );
    }
}

fn shared_volumes(reading: &mut Reading<'_>, groups: &[Vec<Service>]) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (group, services) in groups.iter().enumerate() {
        for service in services {
            for (line, name, _) in &service.volumes {
                if *seen.entry(name).or_insert(group) != group {
                    let text = format!(
                        "`{name}` is used by services of two images, and so of two apps; a volume belongs to one: each gets its own"
                    );
                    reading.note(*line, format!("services.{}.volumes", service.name), text);
                }
            }
        }
    }
}

fn draft(
    reading: &mut Reading<'_>,
    group: &[Service],
    app: &str,
    alone: bool,
    of_service: &dyn Fn(&str) -> Option<String>,
) -> Draft {
    let mut manifest = Map::default();
    manifest.text("app", app);
    let mut directory = PathBuf::new();
    match &group[0].origin {
        Some(Origin::Build { context, more }) => {
            let mut build = more.clone();
            if alone && context != "." {
                build.text("context", context.clone());
            } else if context != "." {
                directory.push(context);
            }
            manifest.map("build", build);
        }
        Some(Origin::Image(image)) => {
            manifest.text("image", image.clone());
            if !alone {
                directory.push(app);
            }
        }
        None => {}
    }
    for (key, value) in group[0].shared.iter() {
        // Users of images are texts, also where they are numbers.
        manifest.set(key, value.clone());
    }
    let (mut secrets, mut volumes, mut needed) = (Map::default(), Map::default(), Vec::new());
    for service in group {
        for (variable, secret) in &service.secrets {
            secrets.text(variable, secret.clone());
        }
        for (line, name, path) in &service.volumes {
            let key = words::name(name, "data");
            if let Some(Value::Text(other)) = volumes.get(&key)
                && other != path
            {
                let text = format!("an app's volume has one path for all its objects: `{path}` here, `{other}` there");
                reading.note(*line, format!("services.{}.volumes", service.name), text);
            }
            volumes.text(&key, path.clone());
        }
        for need in &service.needs {
            needs(reading, service, need, app, of_service, &mut needed);
        }
    }
    manifest.map("secrets", secrets);
    manifest.map("volumes", volumes);
    if !needed.is_empty() {
        manifest.set("depends_on", Value::List(needed));
    }
    for service in group {
        object(reading, service, &mut manifest);
    }
    Draft { directory, app: app.to_owned(), manifest, from: group.iter().map(|service| service.name.clone()).collect() }
}

fn needs(
    reading: &mut Reading<'_>,
    service: &Service,
    need: &Need,
    app: &str,
    of_service: &dyn Fn(&str) -> Option<String>,
    needed: &mut Vec<String>,
) {
    let path = format!("services.{}.depends_on.{}", service.name, need.service);
    if need.completed {
        let text = "nothing waits for a function: call it before you push what needs it, or do its work in `build` or when the program starts";
        return reading.note(need.line, path, text);
    }
    match of_service(&need.service) {
        None => reading.note(need.line, path, "there is no app of this service"),
        Some(other) if other == app => {
            reading.note(need.line, path, "objects of one app start together; the switch waits until all are ready");
        }
        Some(other) if needed.contains(&other) => {}
        Some(other) => needed.push(other),
    }
}

/// A service as what it is: an endpoint, a function or a worker.
fn object(reading: &mut Reading<'_>, service: &Service, manifest: &mut Map) {
    let path = format!("services.{}", service.name);
    let name = words::name(&service.name, "main");
    let mut object = Map::default();
    if let Some(command) = &service.command {
        object.set("command", Value::List(command.clone()));
    }
    let http: Vec<u16> = service.ports.iter().copied().filter(|port| untold::not_http(*port).is_none()).collect();
    for (port, what) in service.ports.iter().filter_map(|port| Some((port, untold::not_http(*port)?))) {
        let text = format!(
            "port {port} is {what}, and the proxy speaks HTTP only: nothing reaches it from outside its network. Leaving this service in Compose may suit it better"
        );
        reading.note(service.line, &path, text);
    }
    if service.once {
        if service.command.is_none() {
            return reading.note(service.line, path, "left out: a function needs a `command`");
        }
        object.text("mode", "exec");
        object.map("env", service.env.clone());
        object.map("resources", service.resources.clone());
        return manifest.below("functions").map(&name, object);
    }
    if let (Some(port), more) = (http.first(), http.get(1..).unwrap_or_default()) {
        for other in more {
            reading.note(
                service.line,
                &path,
                format!("port {other}: an endpoint has one port; make another endpoint of it"),
            );
        }
        object.bare("port", port);
        object.map("health", service.health.clone());
        common(service, &mut object);
        let web = manifest.below("web");
        let name = if web.is_empty() { "main".to_owned() } else { name };
        return web.map(&name, object);
    }
    if !service.health.is_empty() {
        reading.note(service.line, format!("{path}.healthcheck"), "a worker is healthy while it runs");
    }
    common(service, &mut object);
    // A worker of an image that knows what to run says nothing else.
    manifest.below("workers").set(&name, Value::Map(object));
}

fn common(service: &Service, object: &mut Map) {
    object.map("env", service.env.clone());
    if let Some(instances) = &service.instances {
        object.bare("instances", instances);
    }
    if let Some(grace) = &service.grace {
        object.bare("grace", grace);
    }
    object.map("resources", service.resources.clone());
}
