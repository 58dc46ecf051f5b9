//! One service of a Compose file, key by key.
//!
//! Whatever has no counterpart in a manifest becomes a [`Note`] at its line; nothing is dropped in silence but what Landfall does anyway.

use std::collections::BTreeMap;

use crate::files::yaml::{Key, Meaning, Node, NodeKind};

use super::untold;
use super::words::{self, Filled};
use super::yaml_out::{Map, Value};

/// Something that was not translated, or not as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// The line in the file, from 1.
    pub line: usize,
    /// The key, with dots.
    pub key: String,
    /// What became of it and why.
    pub text: String,
}

/// Where the image of a service comes from. Services with the same are objects of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Image(String),
    Build { context: String, more: Map },
}

/// A service another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    pub line: usize,
    pub service: String,
    /// It has to end well, rather than to run.
    pub completed: bool,
}

/// What a service says.
#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    pub name: String,
    pub line: usize,
    pub origin: Option<Origin>,
    /// `user`, `read_only`, `pull`: what all containers of an app share.
    pub shared: Map,
    pub command: Option<Vec<String>>,
    /// Ports within the container, in their order.
    pub ports: Vec<u16>,
    pub env: Map,
    /// Variables whose values only the secret of this name has.
    pub secrets: Vec<(String, String)>,
    /// Named volumes and their paths, with their lines.
    pub volumes: Vec<(usize, String, String)>,
    pub health: Map,
    pub needs: Vec<Need>,
    pub resources: Map,
    pub instances: Option<String>,
    pub grace: Option<String>,
    /// It runs when it is asked for, and ends.
    pub once: bool,
}

/// What is read besides the service itself.
pub(super) struct Reading<'a> {
    /// Values of variables.
    pub values: &'a BTreeMap<String, String>,
    /// The text of a file beside this one.
    pub beside: &'a dyn Fn(&str) -> Option<String>,
    pub notes: Vec<Note>,
}

impl Reading<'_> {
    pub(super) fn note(&mut self, line: usize, key: impl Into<String>, text: impl Into<String>) {
        self.notes.push(Note { line, key: key.into(), text: text.into() });
    }

    /// A scalar with its variables filled in; what has none is said.
    fn text(&mut self, path: &str, node: &Node) -> Option<String> {
        let filled = self.filled(node)?;
        for missing in &filled.missing {
            self.note(node.place.line, path, format!("`${{{missing}}}` has no value here; written without it"));
        }
        Some(filled.text)
    }

    /// The text of this key of a map.
    fn field(&self, map: &Node, key: &str) -> Option<String> {
        let (_, value) = entries(map).find(|(known, _)| known.text == key)?;
        self.filled(value).map(|filled| filled.text)
    }

    fn filled(&self, node: &Node) -> Option<Filled> {
        match &node.kind {
            NodeKind::Scalar(scalar) if scalar.meaning() != Meaning::Null => {
                Some(words::fill(&scalar.text, self.values))
            }
            _ => None,
        }
    }

    /// A scalar, or each of a list.
    fn texts(&mut self, path: &str, node: &Node) -> Vec<String> {
        match &node.kind {
            NodeKind::List(items) => items.iter().filter_map(|item| self.text(path, item)).collect(),
            _ => self.text(path, node).into_iter().collect(),
        }
    }

    /// Reads a service.
    pub(super) fn service(&mut self, key: &Key, node: &Node) -> Service {
        let mut service = Service { name: key.text.clone(), line: key.place.line, ..Service::default() };
        for (key, value) in entries(node) {
            let path = format!("services.{}.{}", service.name, key.text);
            if !key.text.starts_with("x-") {
                self.key(&mut service, key, &path, value);
            }
        }
        service
    }

    fn key(&mut self, service: &mut Service, key: &Key, path: &str, value: &Node) {
        let line = key.place.line;
        match key.text.as_str() {
            // A service that has both is built; the image is what the result is called.
            "image" if matches!(service.origin, Some(Origin::Build { .. })) => {}
            "image" => service.origin = self.text(path, value).map(Origin::Image),
            "build" => self.build(service, line, path, value),
            "command" => service.command = self.command(path, value),
            "environment" => self.environment(service, path, value),
            "env_file" => self.env_file(service, line, path, value),
            "ports" => self.ports(service, path, value),
            "expose" => self.expose(service, path, value),
            "volumes" => self.volumes(service, path, value),
            "healthcheck" => self.healthcheck(service, path, value),
            "depends_on" => self.depends_on(service, value),
            "deploy" => self.deploy(service, path, value),
            "cpus" | "mem_limit" | "pids_limit" => self.limit(service, line, path, &key.text, value),
            "scale" => service.instances = self.text(path, value),
            "stop_grace_period" => service.grace = self.duration(path, value),
            "user" => _ = self.text(path, value).map(|user| service.shared.text("user", user)),
            "read_only" => {
                _ = self.text(path, value).filter(|it| it == "true").map(|it| service.shared.bare("read_only", it))
            }
            "pull_policy" => self.pull(service, line, path, value),
            "profiles" if matches!(&value.kind, NodeKind::List(profiles) if profiles.is_empty()) => {}
            "profiles" => {
                service.once = true;
                self.note(line, path, "written as a function, which runs when it is called");
            }
            // Whatever else it says: instances are started again whenever they end.
            "restart" => service.once |= self.text(path, value).is_some_and(|when| when == "no"),
            other => self.note(line, path, untold::of_service(other)),
        }
    }

    fn build(&mut self, service: &mut Service, line: usize, path: &str, value: &Node) {
        let mut more = Map::default();
        let (mut context, mut dockerfile) = (".".to_owned(), "Dockerfile".to_owned());
        if let Some(text) = self.text(path, value) {
            context = text;
        }
        for (key, value) in entries(value) {
            let path = format!("{path}.{}", key.text);
            match key.text.as_str() {
                "context" => context = self.text(&path, value).unwrap_or(context),
                "dockerfile" => dockerfile = self.text(&path, value).unwrap_or(dockerfile),
                "target" => _ = self.text(&path, value).map(|target| more.text("target", target)),
                "args" => {
                    let mut args = Map::default();
                    for (name, value, line) in self.variables(&path, value) {
                        match value {
                            Some(value) => args.text(&name, value),
                            None => self.note(
                                line,
                                &path,
                                format!("`{name}` is taken from the environment of who builds; give it a value"),
                            ),
                        }
                    }
                    more.map("args", args);
                }
                _ => self.note(key.place.line, path, "builds know `dockerfile`, `context`, `target` and `args`"),
            }
        }
        let context = context.trim_start_matches("./").trim_end_matches('/').to_owned();
        let context = if context.is_empty() { ".".to_owned() } else { context };
        if context.contains("://")
            || context.starts_with(['/', '~'])
            || context.split('/').any(|part| part == "..")
            || context.starts_with("git@")
        {
            return self.note(line, path, untold::of_service("build"));
        }
        let mut build = Map::default();
        build.text("dockerfile", dockerfile.trim_start_matches("./"));
        for key in ["target", "args"] {
            if let Some(value) = more.get(key) {
                build.set(key, value.clone());
            }
        }
        service.origin = Some(Origin::Build { context, more: build });
    }

    fn command(&mut self, path: &str, value: &Node) -> Option<Vec<String>> {
        if matches!(value.kind, NodeKind::List(_)) {
            return Some(self.texts(path, value)).filter(|words| !words.is_empty());
        }
        let line = self.text(path, value)?;
        let words = words::split(&line);
        if words.is_none() {
            self.note(value.place.line, path, "a quote in it has no end; written without the command");
        }
        words.filter(|words| !words.is_empty())
    }

    /// `NAME: value`, or `- NAME=value`; without a value it is taken from elsewhere. With the line of each.
    fn variables(&mut self, path: &str, value: &Node) -> Vec<(String, Option<String>, usize)> {
        let mut all = Vec::new();
        let mut take = |filled: Option<Filled>, name: &str, line: usize| {
            // What a variable that nobody has set here would fill in is another one's to know.
            let value = filled.filter(|filled| filled.missing.is_empty()).map(|filled| filled.text);
            all.push((name.to_owned(), value, line));
        };
        match &value.kind {
            NodeKind::List(items) => {
                for item in items {
                    let NodeKind::Scalar(scalar) = &item.kind else { continue };
                    match scalar.text.split_once('=') {
                        Some((name, value)) => take(Some(words::fill(value, &BTreeMap::new())), name, item.place.line),
                        None => take(None, &scalar.text, item.place.line),
                    }
                }
            }
            NodeKind::Map(entries) => {
                for (key, value) in entries {
                    let filled = match &value.kind {
                        NodeKind::Scalar(scalar) if scalar.meaning() != Meaning::Null => {
                            Some(words::fill(&scalar.text, &BTreeMap::new()))
                        }
                        _ => None,
                    };
                    take(filled, &key.text, key.place.line);
                }
            }
            NodeKind::Scalar(_) | NodeKind::Broken => self.note(value.place.line, path, "neither a list nor a map"),
        }
        all
    }

    fn environment(&mut self, service: &mut Service, path: &str, value: &Node) {
        for (name, value, line) in self.variables(path, value) {
            match value {
                Some(value) => service.env.text(&name, value),
                None => {
                    let secret = secret(service, &name);
                    self.note(
                        line,
                        format!("{path}.{name}"),
                        format!("its value comes from outside this file; written as a secret: `landfall secret set {secret}`"),
                    );
                }
            }
        }
    }

    /// Files like these hold passwords more often than not, so that their values are not copied.
    fn env_file(&mut self, service: &mut Service, line: usize, path: &str, value: &Node) {
        let files: Vec<String> = match &value.kind {
            NodeKind::List(items) => items.iter().flat_map(|item| self.env_file_name(path, item)).collect(),
            _ => self.env_file_name(path, value).into_iter().collect(),
        };
        for file in files {
            let Some(text) = (self.beside)(&file) else {
                self.note(
                    line,
                    path,
                    format!("`{file}` cannot be read; write its variables into `env`, or as `secrets`"),
                );
                continue;
            };
            let names: Vec<String> = assignments(&text).map(|(name, _)| name.to_owned()).collect();
            for name in &names {
                secret(service, name);
            }
            let commands: Vec<String> = names.iter().map(|name| format!("`{}`", words::name(name, "secret"))).collect();
            self.note(
                line,
                path,
                format!("values of `{file}` are not copied; its variables are written as secrets, to be stored with `landfall secret set`: {}", commands.join(", ")),
            );
        }
    }

    fn env_file_name(&mut self, path: &str, node: &Node) -> Option<String> {
        match entries(node).find(|(key, _)| key.text == "path") {
            Some((_, value)) => self.text(path, value),
            None => self.text(path, node),
        }
    }

    fn ports(&mut self, service: &mut Service, path: &str, value: &Node) {
        let NodeKind::List(items) = &value.kind else { return };
        for item in items {
            let line = item.place.line;
            let (published, target, protocol) = if matches!(item.kind, NodeKind::Map(_)) {
                let of = |key: &str| self.field(item, key);
                (of("published"), of("target").unwrap_or_default(), of("protocol"))
            } else {
                let Some(text) = self.text(path, item) else { continue };
                let (ports, protocol) = match text.split_once('/') {
                    Some((ports, protocol)) => (ports.to_owned(), Some(protocol.to_owned())),
                    None => (text, None),
                };
                match ports.rsplit_once(':') {
                    Some((published, target)) => (Some(published.to_owned()), target.to_owned(), protocol),
                    None => (None, ports, protocol),
                }
            };
            let Ok(port) = target.parse::<u16>() else {
                self.note(line, path, format!("`{target}` is not one port; each endpoint has one"));
                continue;
            };
            if protocol.is_some_and(|protocol| protocol != "tcp") {
                self.note(line, path, "the proxy speaks HTTP only");
                continue;
            }
            if !service.ports.contains(&port) {
                service.ports.push(port);
            }
            if let Some(published) = published.filter(|_| untold::not_http(port).is_none()) {
                self.note(line, path, format!("not at port {published} of the machine but at the app's URL, by the proxy (`proxy.listen` of the agent)"));
            }
        }
    }

    fn expose(&mut self, service: &mut Service, path: &str, value: &Node) {
        for text in self.texts(path, value) {
            match text.trim_end_matches("/tcp").parse() {
                Ok(port) if !service.ports.contains(&port) => service.ports.push(port),
                Ok(_) => {}
                Err(_) => self.note(value.place.line, path, format!("`{text}` is not one port; each endpoint has one")),
            }
        }
    }

    fn volumes(&mut self, service: &mut Service, path: &str, value: &Node) {
        let NodeKind::List(items) = &value.kind else { return };
        for item in items {
            let line = item.place.line;
            let (source, target, mode) = if matches!(item.kind, NodeKind::Map(_)) {
                let of = |key: &str| self.field(item, key);
                if of("type").is_some_and(|kind| kind == "tmpfs") {
                    self.note(line, path, untold::of_service("tmpfs"));
                    continue;
                }
                (
                    of("source"),
                    of("target").unwrap_or_default(),
                    of("read_only").filter(|it| it == "true").map(|_| "ro".to_owned()),
                )
            } else {
                let Some(text) = self.text(path, item) else { continue };
                let mut parts = text.splitn(3, ':').map(str::to_owned);
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(source), Some(target), mode) => (Some(source), target, mode),
                    (first, ..) => (None, first.unwrap_or_default(), None),
                }
            };
            match source {
                None => self.note(
                    line,
                    path,
                    format!("a volume without a name would be lost with each version; give `{target}` one"),
                ),
                Some(source) if source.starts_with(['.', '/', '~']) => {
                    let text = if service.origin.as_ref().is_some_and(|origin| matches!(origin, Origin::Build { .. })) {
                        format!(
                            "directories of the machine are not mounted: let the Dockerfile copy `{source}`, or make it a volume with a name"
                        )
                    } else {
                        format!(
                            "directories of the machine are not mounted: the app's own is at `/landfall/app`, read-only; data belongs into a volume with a name instead of `{source}`"
                        )
                    };
                    self.note(line, path, text);
                }
                Some(source) => {
                    if mode.is_some_and(|mode| mode.split(',').any(|word| word == "ro")) {
                        self.note(line, path, format!("`{source}` can be written to: volumes of an app always can"));
                    }
                    service.volumes.push((line, source, target));
                }
            }
        }
    }

    fn depends_on(&mut self, service: &mut Service, value: &Node) {
        match &value.kind {
            NodeKind::List(items) => {
                for item in items {
                    if let NodeKind::Scalar(scalar) = &item.kind {
                        service.needs.push(Need {
                            line: item.place.line,
                            service: scalar.text.clone(),
                            completed: false,
                        });
                    }
                }
            }
            NodeKind::Map(needed) => {
                for (key, value) in needed {
                    let condition =
                        entries(value).find(|(key, _)| key.text == "condition").map(|(_, value)| &value.kind);
                    let completed = matches!(condition, Some(NodeKind::Scalar(scalar)) if scalar.text == "service_completed_successfully");
                    service.needs.push(Need { line: key.place.line, service: key.text.clone(), completed });
                }
            }
            NodeKind::Scalar(_) | NodeKind::Broken => {}
        }
    }

    fn deploy(&mut self, service: &mut Service, path: &str, value: &Node) {
        for (key, value) in entries(value) {
            let path = format!("{path}.{}", key.text);
            match key.text.as_str() {
                "replicas" => service.instances = self.text(&path, value),
                "resources" => {
                    for (key, value) in entries(value) {
                        let path = format!("{path}.{}", key.text);
                        if key.text != "limits" {
                            self.note(key.place.line, path, "only limits are known: `resources`");
                            continue;
                        }
                        for (key, value) in entries(value) {
                            let path = format!("{path}.{}", key.text);
                            self.limit(service, key.place.line, &path, &key.text, value);
                        }
                    }
                }
                other => self.note(key.place.line, &path, untold::of_deploy(other)),
            }
        }
    }

    fn limit(&mut self, service: &mut Service, line: usize, path: &str, key: &str, value: &Node) {
        let Some(text) = self.text(path, value) else { return };
        match key {
            "cpus" => service.resources.bare("cpu", text),
            "pids" | "pids_limit" => service.resources.bare("processes", text),
            "memory" | "mem_limit" => match size(&text) {
                Some(size) => service.resources.bare("memory", size),
                None => self.note(line, path, format!("`{text}` is not a size")),
            },
            _ => self.note(line, path, "limits are memory, processors and processes"),
        }
    }

    fn pull(&mut self, service: &mut Service, line: usize, path: &str, value: &Node) {
        match self.text(path, value).as_deref() {
            Some("always") => service.shared.text("pull", "always"),
            Some("never") => service.shared.text("pull", "never"),
            Some("missing" | "if_not_present" | "build") | None => {}
            Some(other) => {
                self.note(line, path, format!("`{other}`: an image is fetched when it is missing, always, or never"))
            }
        }
    }

    /// A duration, which is written as Landfall writes it too.
    pub(super) fn duration(&mut self, path: &str, value: &Node) -> Option<String> {
        let text = self.text(path, value)?;
        let plain =
            !text.contains('.') && text.ends_with(['s', 'm', 'h']) && !text.ends_with("us") && !text.ends_with("ns");
        if !plain {
            self.note(value.place.line, path, format!("`{text}`: write a duration like 500ms, 30s or 5m"));
        }
        plain.then_some(text)
    }
}

/// The keys of a map; none of anything else.
pub(super) fn entries(node: &Node) -> impl Iterator<Item = (&Key, &Node)> {
    let entries = match &node.kind {
        NodeKind::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, value)| (key, value))
}

/// Lines `NAME=value` of an environment file.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| {
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        Some((name.trim(), value.trim().trim_matches(['"', '\''])))
    })
}

/// Makes a variable a secret; answers the secret's name.
fn secret(service: &mut Service, variable: &str) -> String {
    let name = words::name(variable, "secret");
    if service.secrets.iter().all(|(known, _)| known != variable) {
        service.secrets.push((variable.to_owned(), name.clone()));
    }
    name
}

/// `512m`, `1gb`, `1.5g` or a number of bytes, in Landfall's words.
fn size(text: &str) -> Option<String> {
    let small = text.trim().to_ascii_lowercase();
    let digits = small.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)?;
    let shift = match &small[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    // The largest unit in which it is whole.
    let bytes = (number * f64::from(1_u32 << shift)).round();
    let (unit, word) = units.into_iter().find(|(unit, _)| (bytes / f64::from(1_u32 << unit)).fract() == 0.0)?;
    Some(format!("{}{word}", bytes / f64::from(1_u32 << unit)))
}

/// The values that stand for a value in `Map`, for those who look into one.
pub(super) fn texts_of(map: &Map) -> impl Iterator<Item = (&str, &str)> {
    map.iter().filter_map(|(key, value)| match value {
        Value::Text(text) => Some((key, text.as_str())),
        Value::Bare(_) | Value::List(_) | Value::Map(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_fits() {
        for (text, written) in
            [("512m", "512MiB"), ("1.5g", "1536MiB"), ("1gb", "1GiB"), ("1024", "1KiB"), ("100", "100B")]
        {
            assert_eq!(size(text).as_deref(), Some(written));
        }
        assert_eq!((size("much"), size("-1g"), size("1x")), (None, None, None));
    }
}
