//! `landfall check --explain`: the file as Landfall understands it, every default marked and explained.

use super::keys::{Default, Key, Kind};
use super::record::{Entry, Record, Value};
use super::values::{format_cores, format_duration, format_size};

/// The column in which comments start, where the value leaves room.
const COMMENT_COLUMN: usize = 40;

/// The whole file with defaults, as YAML with a comment behind each key. It reads back as the same file.
pub fn explain(record: &Record) -> String {
    let mut text = String::new();
    table(&mut text, record, 0);
    text
}

fn table(out: &mut String, record: &Record, indent: usize) {
    for (key, entry) in &record.entries {
        if matches!(key.kind, Kind::Later) {
            continue;
        }
        entry_of(out, key.name, entry, indent, &comment(key, entry));
    }
}

fn comment(key: &Key, entry: &Entry) -> String {
    match (entry.given, key.default) {
        (true, _) => key.doc.to_owned(),
        (false, Default::Nothing(meaning)) => format!("default: {meaning} · {}", key.doc),
        (false, _) => format!("default · {}", key.doc),
    }
}

fn entry_of(out: &mut String, name: &str, entry: &Entry, indent: usize, comment: &str) {
    let pad = " ".repeat(indent);
    match &entry.value {
        // A key without a value would not read back; it is shown as a comment.
        Value::Nothing | Value::Broken => line(out, &format!("{pad}# {name}:"), comment),
        Value::Record(record) => {
            line(out, &format!("{pad}{name}:"), comment);
            table(out, record, indent + 2);
        }
        Value::Map(entries) if entries.is_empty() => line(out, &format!("{pad}{name}: {{}}"), comment),
        Value::Map(entries) => {
            line(out, &format!("{pad}{name}:"), comment);
            for (name, _, entry) in entries {
                entry_of(out, name, entry, indent + 2, "");
            }
        }
        Value::List(items) if items.iter().any(|item| item.record().is_some()) => {
            line(out, &format!("{pad}{name}:"), comment);
            for record in items.iter().filter_map(Entry::record) {
                line(out, &format!("{pad}  -"), "");
                table(out, record, indent + 4);
            }
        }
        value => line(out, &format!("{pad}{name}: {}", scalar(value)), comment),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Duration(value) => format_duration(*value),
        Value::Size(value) => format_size(*value),
        Value::Cores(value) => format_cores(*value),
        // JSON is YAML.
        Value::Json(text) => text.clone(),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| scalar(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Nothing | Value::Broken | Value::Map(_) | Value::Record(_) => String::new(),
    }
}

/// Without quotes only what no YAML reader takes for anything but this text.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/.".contains(c))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && text.len() > 3
        && !["true", "false", "null", ".inf", ".nan"].iter().any(|word| word.eq_ignore_ascii_case(text))
        && !text.starts_with('.')
        || text == "/";
    // A JSON string is a YAML string.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn line(out: &mut String, text: &str, comment: &str) {
    if comment.is_empty() {
        out.push_str(&format!("{text}\n"));
    } else {
        out.push_str(&format!("{text:<COMMENT_COLUMN$} # {comment}\n"));
    }
}
