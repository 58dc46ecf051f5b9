//! What differs between two manifests, field by field, for people: what a new revision would change, or how one version
//! differs from another.
//!
//! Values are shown as they stand in the manifest, variables too: a manifest lies in git for all who may read it, and
//! secrets are never part of one.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::domain::Manifest;
use crate::domain::manifest::{Bytes, Millis};

/// Longest value that is shown whole, in characters.
const SHOWN: usize = 80;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Its dotted path, as it is written in the manifest: `web.main.instances`.
    pub field: String,
    /// How it differs.
    pub how: How,
}

/// How a field differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// A whole part of the manifest is new.
    Added,
    /// A whole part of the manifest is gone.
    Removed,
    /// A value is another.
    Value {
        /// Before, in words.
        before: String,
        /// After, in words.
        after: String,
    },
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Added => write!(f, "{}: added", self.field),
            How::Removed => write!(f, "{}: removed", self.field),
            How::Value { before, after } => write!(f, "{}: {before} → {after}", self.field),
        }
    }
}

/// All fields that differ, in the order of their paths.
pub fn changes(before: &Manifest, after: &Manifest) -> Vec<FieldChange> {
    // Manifests are plain data; nothing in them cannot be a JSON value.
    let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    compare("", &before, &after, &mut found);
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<FieldChange>) {
    if before == after {
        return;
    }
    let mut tell = |how: How| found.push(FieldChange { field: written(path), how });
    if let (Some(before), Some(after)) = (fixed_number(path, before), fixed_number(path, after)) {
        return tell(How::Value { before, after });
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let deeper = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let value = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or(Value::Null);
                compare(&deeper, &value(old), &value(new), found);
            }
        }
        (Value::Null, Value::Object(_)) => tell(How::Added),
        (Value::Object(_), Value::Null) => tell(How::Removed),
        (before, after) => tell(How::Value { before: words(path, before), after: words(path, after) }),
    }
}

/// The path as people write it where the normalised form differs.
fn written(path: &str) -> String {
    match path.strip_suffix("cpu_millis") {
        Some(before) => format!("{before}cpu"),
        None => path.to_owned(),
    }
}

/// A range of instances that is just a number.
fn fixed_number(path: &str, value: &Value) -> Option<String> {
    let range = value.as_object().filter(|_| path.ends_with(".instances"))?;
    let (min, max) = (range.get("min")?, range.get("max")?);
    (min == max).then(|| min.to_string())
}

fn words(path: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| words(path, item)).collect();
            format!("[{}]", items.join(", "))
        }
        // Only typed fields are numbers: what an author named is a text.
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), |number| measure(path, number)),
        Value::Bool(_) | Value::Object(_) => value.to_string(),
    };
    if text.chars().count() <= SHOWN {
        return text;
    }
    let cut: String = text.chars().take(SHOWN).collect();
    format!("{cut}…")
}

/// A number with the unit that its field has.
fn measure(path: &str, number: u64) -> String {
    match path.rsplit('.').next().unwrap_or(path) {
        "bake" | "timeout" | "linger" | "drain" | "grace" | "request_timeout" | "deadline" | "interval" | "idle"
        | "startup_timeout" | "delay" | "max_delay" => Millis(number).to_string(),
        "max_body" | "memory" => Bytes(number).to_string(),
        "cpu_millis" => {
            format!("{}.{:03}", number / 1000, number % 1000).trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::{Bytes, Handover, Instances, Millis, Resources, Strategy, Worker};

    fn manifest() -> Manifest {
        let worker = Worker {
            command: vec!["python3".into(), "mailer.py".into()],
            env: Default::default(),
            instances: 1,
            handover: Handover::StopFirst,
            grace: Millis::seconds(10),
            resources: Resources { memory: Some(Bytes::mib(64)), cpu_millis: None, processes: None },
        };
        Manifest {
            app: "shop".parse().expect("a name"),
            container: None,
            build: None,
            include: Vec::new(),
            secrets: Default::default(),
            secret_files: Default::default(),
            encrypted_files: Vec::new(),
            env: [("LOG_LEVEL".to_owned(), "info".to_owned())].into(),
            volumes: Default::default(),
            depends_on: Vec::new(),
            strategy: Strategy::Rolling,
            bake: Millis::seconds(30),
            notify: Vec::new(),
            publish: None,
            compose: None,
            web: Default::default(),
            functions: Default::default(),
            workers: [("mailer".parse().expect("a name"), worker)].into(),
        }
    }

    fn told(change: impl FnOnce(&mut Manifest)) -> Vec<String> {
        let (before, mut after) = (manifest(), manifest());
        change(&mut after);
        changes(&before, &after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_manifests_do_not_differ() {
        assert_eq!(told(|_| {}), [""; 0]);
    }

    #[test]
    fn a_field_is_named_with_both_values_in_their_units() {
        assert_eq!(told(|m| drop(m.env.insert("LOG_LEVEL".into(), "debug".into()))), ["env.LOG_LEVEL: info → debug"]);
        assert_eq!(told(|m| drop(m.env.insert("NEW".into(), String::new()))), ["env.NEW: none → \"\""]);
        assert_eq!(told(|m| m.bake = Millis::seconds(90)), ["bake: 30s → 1m30s"]);
        let worker = |m: &mut Manifest, change: &dyn Fn(&mut Worker)| m.workers.values_mut().for_each(change);
        assert_eq!(told(|m| worker(m, &|w| w.instances = 2)), ["workers.mailer.instances: 1 → 2"]);
        assert_eq!(
            told(|m| worker(m, &|w| w.resources.memory = Some(Bytes::mib(1024)))),
            ["workers.mailer.resources.memory: 64MiB → 1GiB"]
        );
        assert_eq!(
            told(|m| worker(m, &|w| w.resources.cpu_millis = Some(500))),
            ["workers.mailer.resources.cpu: none → 0.5"]
        );
        assert_eq!(
            told(|m| worker(m, &|w| w.command = vec!["./mailer".into()])),
            ["workers.mailer.command: [python3, mailer.py] → [./mailer]"]
        );
    }

    #[test]
    fn a_whole_object_is_added_or_removed() {
        assert_eq!(told(|m| m.workers.clear()), ["workers.mailer: removed"]);
    }

    #[test]
    fn a_range_that_is_a_number_is_shown_as_one() {
        let range =
            |min, max| serde_json::to_value(Instances { min, max, idle: Millis::seconds(60) }).expect("a value");
        let mut found = Vec::new();
        compare("web.main.instances", &range(1, 1), &range(2, 2), &mut found);
        compare("web.main.instances", &range(1, 1), &range(1, 4), &mut found);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["web.main.instances: 1 → 2", "web.main.instances.max: 1 → 4"]);
    }
}
