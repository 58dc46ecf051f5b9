//! What a file says, complete: every key of a table with its value and whether it was written.

use super::keys::{Default, Key, Kind, Table};
use super::yaml::Place;
use crate::domain::manifest::{Bytes, Millis};

/// All keys of one place of a file.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which keys.
    pub table: &'static Table,
    /// Where it starts.
    pub place: Place,
    /// Every key of the table, in the table's order.
    pub entries: Vec<(&'static Key, Entry)>,
}

/// A value that was read or completed.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it stands; [`Place::NOWHERE`] for a default.
    pub place: Place,
    /// Whether the author wrote it.
    pub given: bool,
    /// The value.
    pub value: Value,
}

/// A value of one of the kinds of [`Kind`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Value {
    /// Not there, and without a default.
    Nothing,
    /// Wrong, and already reported.
    Broken,
    Text(String),
    Bool(bool),
    Number(u64),
    Duration(Millis),
    Size(Bytes),
    /// Thousandths of a core.
    Cores(u32),
    List(Vec<Entry>),
    /// Sorted by name.
    Map(Vec<(String, Place, Entry)>),
    Record(Record),
    /// In its shortest form, keys sorted.
    Json(String),
}

impl Record {
    /// The entry of a key.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, entry)| entry)
    }

    /// The value of a key.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// A key's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.entry(name).and_then(Entry::text)
    }

    /// A key's truth.
    pub fn bool(&self, name: &str) -> Option<bool> {
        if let Some(Value::Bool(value)) = self.value(name) { Some(*value) } else { None }
    }

    /// A key's number.
    pub fn number(&self, name: &str) -> Option<u32> {
        if let Some(Value::Number(value)) = self.value(name) { u32::try_from(*value).ok() } else { None }
    }

    /// A key's duration.
    pub fn duration(&self, name: &str) -> Option<Millis> {
        if let Some(Value::Duration(value)) = self.value(name) { Some(*value) } else { None }
    }

    /// A key's size.
    pub fn size(&self, name: &str) -> Option<Bytes> {
        if let Some(Value::Size(value)) = self.value(name) { Some(*value) } else { None }
    }

    /// A key's table.
    pub fn record(&self, name: &str) -> Option<&Record> {
        if let Some(Value::Record(value)) = self.value(name) { Some(value) } else { None }
    }

    /// A key's list; empty when it is not there or wrong.
    pub fn list(&self, name: &str) -> &[Entry] {
        if let Some(Value::List(value)) = self.value(name) { value } else { &[] }
    }

    /// A key's map; empty when it is not there or wrong.
    pub fn map(&self, name: &str) -> &[(String, Place, Entry)] {
        if let Some(Value::Map(value)) = self.value(name) { value } else { &[] }
    }

    /// The texts of a list.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.list(name).iter().filter_map(Entry::text).map(str::to_owned).collect()
    }
}

impl Entry {
    /// The value as text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The value as a table, if it is one.
    pub fn record(&self) -> Option<&Record> {
        if let Value::Record(record) = &self.value { Some(record) } else { None }
    }

    /// A value that its author wrote.
    pub fn written(place: &Place, value: Value) -> Self {
        Self { place: place.clone(), given: true, value }
    }
}

/// The value of a key that is not there.
pub fn default_value(key: &'static Key) -> Value {
    match key.default {
        Default::Required => Value::Broken,
        Default::Nothing(_) => Value::Nothing,
        Default::Empty => match key.kind {
            Kind::List(..) | Kind::Tables(..) => Value::List(Vec::new()),
            _ => Value::Map(Vec::new()),
        },
        Default::Table => match key.kind {
            Kind::Table(table) => Value::Record(default_record(table)),
            _ => Value::Nothing,
        },
        Default::Text(text) => match key.kind {
            // One default may stand for a list of one.
            Kind::List(..) => {
                Value::List(vec![Entry { place: Place::NOWHERE, given: false, value: Value::Text(text.to_owned()) }])
            }
            _ => Value::Text(text.to_owned()),
        },
        Default::Bool(value) => Value::Bool(value),
        Default::Number(value) => Value::Number(value),
        Default::Duration(value) => Value::Duration(value),
        Default::Size(value) => Value::Size(value),
    }
}

/// A table of which nothing was written.
fn default_record(table: &'static Table) -> Record {
    let entry = |key: &'static Key| Entry { place: Place::NOWHERE, given: false, value: default_value(key) };
    Record { table, place: Place::NOWHERE, entries: table.keys.iter().map(|key| (key, entry(key))).collect() }
}
