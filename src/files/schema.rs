//! JSON Schema of both files (draft 2020-12), from the tables the reader uses, for editors to complete and
//! check by. What only the reader can check (two keys against each other) is not in it: a schema may
//! accept what `landfall check` refuses, never the other way round.

use serde_json::{Map, Value, json};

use super::config_keys::CONFIG;
use super::keys::{Default, Form, Key, Kind, Root, Table};
use super::manifest_keys::MANIFEST;
use super::values::{BRAKE_FORMS, CORES_FORMS, DURATION_FORMS, SIZE_FORMS, format_duration, format_size};

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// `landfall.yaml`: one app.
    Manifest,
    /// The agent's configuration.
    Config,
}

impl Which {
    /// The tables of its keys.
    pub fn root(self) -> &'static Root {
        match self {
            Which::Manifest => &MANIFEST,
            Which::Config => &CONFIG,
        }
    }
}

/// The JSON Schema of a file.
pub fn schema(which: Which) -> Value {
    let root = which.root();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": root.title,
    });
    if let (Value::Object(schema), Value::Object(keys)) = (&mut schema, table(root.table)) {
        schema.extend(keys);
    }
    schema
}

fn table(table: &Table) -> Value {
    let available = || table.keys.iter().filter(|key| !matches!(key.kind, Kind::Later));
    let properties: Map<_, _> = available().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> =
        available().filter(|key| matches!(key.default, Default::Required)).map(|key| key.name).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    schema["description"] = json!(key.doc);
    if let Some(default) = default(key) {
        schema["default"] = default;
    }
    schema
}

fn default(key: &Key) -> Option<Value> {
    Some(match key.default {
        Default::Required | Default::Nothing(_) | Default::Empty | Default::Table => return None,
        Default::Text(text) if matches!(key.kind, Kind::List(..)) => json!([text]),
        Default::Text(text) => json!(text),
        Default::Bool(value) => json!(value),
        Default::Number(value) => json!(value),
        Default::Duration(value) => json!(format_duration(value)),
        Default::Size(value) => json!(format_size(value)),
    })
}

fn kind(of: &Kind) -> Value {
    match of {
        Kind::Text(form) => text(form),
        Kind::Variable => json!({"type": ["string", "number", "boolean"]}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Number(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Duration(..) => measure("^([0-9]+(d|h|ms|m|s))+$", DURATION_FORMS),
        Kind::Size(..) => measure("^[0-9]+(B|[KMGT]i?B)$", SIZE_FORMS),
        Kind::Cores(min, max) => {
            let cores = |millis: &u32| f64::from(*millis) / 1000.0;
            json!({"type": ["number", "string"], "minimum": cores(min), "maximum": cores(max), "title": CORES_FORMS})
        }
        Kind::CountOrPart(max) => json!({"title": BRAKE_FORMS, "oneOf": [
            {"type": "integer", "minimum": 0, "maximum": max},
            {"type": "string", "pattern": "^[0-9]+%?$"},
        ]}),
        Kind::Choice { now, .. } => json!({"enum": now}),
        Kind::Command => json!({
            "title": "program and arguments, or one text for `sh -c`",
            "oneOf": [
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "string", "minLength": 1},
            ],
        }),
        Kind::List(item, max) => json!({"type": "array", "items": kind(item), "maxItems": max}),
        Kind::Tables(inner, max) => json!({"type": "array", "items": table(inner), "maxItems": max}),
        Kind::Map(name, value) => named(name, kind(value)),
        Kind::NamedTables(name, inner) => named(name, table(inner)),
        Kind::Table(inner) => {
            let mut schema = table(inner);
            // `health:` with nothing behind it is a table without keys, where none is required.
            if inner.keys.iter().all(|key| !matches!(key.default, Default::Required)) {
                schema["type"] = json!(["object", "null"]);
            }
            schema
        }
        Kind::NumberOr(min, max, inner) => {
            json!({"oneOf": [{"type": "integer", "minimum": min, "maximum": max}, table(inner)]})
        }
        Kind::TextOr(form, inner) => json!({"oneOf": [text(form), table(inner)]}),
        Kind::Json(_) => json!({}),
        // Left out of every table.
        Kind::Later => json!(false),
    }
}

fn named(name: &Form, value: Value) -> Value {
    json!({"type": ["object", "null"], "propertyNames": text(name), "additionalProperties": value})
}

fn text(form: &Form) -> Value {
    let mut schema = json!({"type": "string", "title": form.what});
    if !form.pattern.is_empty() {
        schema["pattern"] = json!(form.pattern);
    }
    schema
}

fn measure(pattern: &str, forms: &str) -> Value {
    json!({"type": "string", "pattern": pattern, "title": forms})
}
