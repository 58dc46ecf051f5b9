//! The formats of encrypted files as one tree, in the order of the file: the MAC of SOPS goes over values in order.

use serde_json::Value as Json;

use crate::files::source::Source;
use crate::files::yaml::{self, Meaning, Node, NodeKind};

/// What a file is, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
    Dotenv,
    Age,
}

impl Format {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "env" => Some(Self::Dotenv),
            "age" => Some(Self::Age),
            _ => None,
        }
    }
}

/// A value with all below it. Not printable: it may hold what nobody may see.
pub(super) enum Value {
    Plain(Plain),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// A value without parts, a number as it is written.
#[derive(PartialEq, Eq)]
pub(super) enum Plain {
    Null,
    Text(String),
    Number(String),
    Bool(bool),
}

impl Value {
    /// A text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Plain(Plain::Text(text)) => Some(text),
            Value::Plain(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What a map has under a name.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            Value::Plain(_) | Value::List(_) => None,
        }
    }
}

/// The entries at the top of a document.
pub(super) fn read(format: Format, text: &str) -> Result<Vec<(String, Value)>, String> {
    let whole = match format {
        Format::Yaml => of_yaml(text)?,
        Format::Json => {
            let json = serde_json::from_str(text);
            of_json(json.map_err(|error| format!("it is not JSON (line {})", error.line()))?)
        }
        Format::Dotenv | Format::Age => return dotenv(text),
    };
    match whole {
        Value::Map(entries) => Ok(entries),
        Value::Plain(_) | Value::List(_) => Err("it has no names at its top".to_owned()),
    }
}

/// Lines `NAME=value`, as SOPS reads and writes them: no quotes, `\n` for an end of line, `#` before a comment.
pub(super) fn dotenv(text: &str) -> Result<Vec<(String, Value)>, String> {
    let mut entries: Vec<(String, Value)> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("its line {} is not NAME=value", index + 1));
        };
        if entries.iter().any(|(known, _)| known == name) {
            return Err(format!("its line {} gives a name again", index + 1));
        }
        entries.push((name.to_owned(), Value::Plain(Plain::Text(value.replace("\\n", "\n")))));
    }
    Ok(entries)
}

fn of_yaml(text: &str) -> Result<Value, String> {
    let (node, errors) = yaml::parse(&Source { file: "", text });
    // Not the error's snippet: it shows what stands there.
    let wrong = |line: usize| format!("it is not YAML as a manifest may be (line {line})");
    match (node, errors.first()) {
        (Some(node), None) => of_node(node),
        (_, error) => Err(wrong(error.map_or(1, |error| error.line))),
    }
}

fn of_node(node: Node) -> Result<Value, String> {
    Ok(match node.kind {
        NodeKind::Scalar(scalar) => Value::Plain(match scalar.meaning() {
            Meaning::Null => Plain::Null,
            Meaning::Bool(value) => Plain::Bool(value),
            Meaning::Number => Plain::Number(scalar.text),
            Meaning::OldBool | Meaning::Text => Plain::Text(scalar.text),
        }),
        NodeKind::List(nodes) => Value::List(nodes.into_iter().map(of_node).collect::<Result<_, _>>()?),
        NodeKind::Map(entries) => {
            let entry = |(key, node): (yaml::Key, Node)| Ok((key.text, of_node(node)?));
            Value::Map(entries.into_iter().map(entry).collect::<Result<_, String>>()?)
        }
        NodeKind::Broken => return Err(format!("its line {} cannot be read", node.place.line)),
    })
}

fn of_json(json: Json) -> Value {
    match json {
        Json::Null => Value::Plain(Plain::Null),
        Json::Bool(value) => Value::Plain(Plain::Bool(value)),
        Json::Number(number) => Value::Plain(Plain::Number(number.to_string())),
        Json::String(text) => Value::Plain(Plain::Text(text)),
        Json::Array(items) => Value::List(items.into_iter().map(of_json).collect()),
        Json::Object(entries) => Value::Map(entries.into_iter().map(|(key, value)| (key, of_json(value))).collect()),
    }
}
