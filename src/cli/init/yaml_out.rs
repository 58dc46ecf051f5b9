//! Manifests as they are written: a map in the order of its making, to YAML that people would have written.

use std::fmt::Write;

use crate::files::yaml::{Meaning, Scalar, Style};

/// A value of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Text, quoted where that is needed.
    Text(String),
    /// A number, a boolean, a duration or a size: written as it is.
    Bare(String),
    /// Texts, on one line.
    List(Vec<String>),
    /// Keys of its own.
    Map(Map),
}

/// Keys and values in the order in which they were set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map(Vec<(String, Value)>);

impl Map {
    /// Sets a key, in the place where it stood if it did.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    pub(super) fn text(&mut self, key: &str, text: impl Into<String>) {
        self.set(key, Value::Text(text.into()));
    }

    pub(super) fn bare(&mut self, key: &str, text: impl ToString) {
        self.set(key, Value::Bare(text.to_string()));
    }

    /// Sets a list or a map, unless there is nothing in it.
    pub(super) fn map(&mut self, key: &str, map: Map) {
        if !map.0.is_empty() {
            self.set(key, Value::Map(map));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The map at a key, made where there is none.
    pub(super) fn below(&mut self, key: &str) -> &mut Map {
        if !matches!(self.get(key), Some(Value::Map(_))) {
            self.set(key, Value::Map(Map::default()));
        }
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, Value::Map(map))) => map,
            // Set two lines above.
            _ => unreachable!("the map that was just made"),
        }
    }

    /// The text of the file.
    pub(super) fn written(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text
    }

    fn write(&self, text: &mut String, indent: usize) {
        for (key, value) in &self.0 {
            let _ = write!(text, "{:indent$}{}:", "", scalar(key));
            match value {
                Value::Text(value) => _ = writeln!(text, " {}", scalar(value)),
                Value::Bare(value) => _ = writeln!(text, " {value}"),
                Value::List(values) => {
                    let all: Vec<_> = values.iter().map(|value| scalar(value)).collect();
                    _ = writeln!(text, " [{}]", all.join(", "));
                }
                Value::Map(map) if map.is_empty() => text.push_str(" {}\n"),
                Value::Map(map) => {
                    text.push('\n');
                    map.write(text, indent + 2);
                }
            }
        }
    }
}

/// Text as a scalar that reads as this text: bare where nothing in it could be taken for something else.
fn scalar(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_./@+=:-".contains(c);
    let bare = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_./".contains(c))
        && text.chars().all(harmless)
        && !text.ends_with(':')
        // Older readers take `1000:1000` for a number to the base of 60.
        && text.contains(|c: char| c.is_ascii_alphabetic())
        && Scalar { text: text.to_owned(), style: Style::Plain }.meaning() == Meaning::Text;
    // A JSON string is a YAML string.
    if bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::source::Source;
    use crate::files::yaml::{NodeKind, parse};

    #[test]
    fn every_text_reads_as_itself() {
        for text in [
            "",
            "a",
            "on",
            "12",
            "1e3",
            "null",
            "a: b",
            "a #b",
            "x:",
            "- a",
            "[a]",
            "{a}",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "\"",
            "'",
            "\\n",
            "ä",
            "a\nb",
            "\t",
            "nginx:1.27",
            "0x1f",
            "2001:db8::1",
            "~",
            "?",
            "=",
            "<<",
            "12:30",
            "\u{1}",
        ] {
            let mut map = Map::default();
            map.text("key", text);
            map.set("list", Value::List(vec![text.to_owned()]));
            let written = map.written();
            let (tree, errors) = parse(&Source { file: "x", text: &written });
            assert_eq!(errors, [], "{written}");
            let NodeKind::Map(entries) = tree.unwrap().kind else { panic!("{written}") };
            let NodeKind::Scalar(read) = &entries[0].1.kind else { panic!("{written}") };
            assert_eq!((read.text.as_str(), read.meaning()), (text, Meaning::Text), "{written}");
            let NodeKind::List(list) = &entries[1].1.kind else { panic!("{written}") };
            assert_eq!(list.len(), 1, "{written}");
        }
    }
}
