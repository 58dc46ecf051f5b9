//! What a description of a key says. The tables themselves stand in `manifest_keys` and `config_keys`.
//!
//! Invariant: a key is described once. The reader, the suggestions, `check --explain`, the JSON Schema and
//! the reference pages all come from that one description, so that they cannot drift apart.

use crate::domain::manifest::{Bytes, Millis};

/// A place of a file with a fixed set of keys.
#[derive(Debug)]
pub struct Table {
    /// What it describes, with its article ("a web endpoint").
    pub what: &'static str,
    /// Where it stands in the file, for the reference page.
    pub place: &'static str,
    /// Its keys in the order they are documented.
    pub keys: &'static [Key],
}

impl Table {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// What holds when it is not there.
    pub default: Default,
    /// One or two sentences for people.
    pub doc: &'static str,
}

/// What holds when a key is not there.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// The file is refused.
    Required,
    /// Nothing; the words say what that means.
    Nothing(&'static str),
    /// An empty list or map.
    Empty,
    /// The defaults of the keys of its table.
    Table,
    /// This text.
    Text(&'static str),
    /// This truth.
    Bool(bool),
    /// This number.
    Number(u64),
    /// This duration.
    Duration(Millis),
    /// This size.
    Size(Bytes),
}

/// What may stand behind a key.
#[derive(Debug)]
pub enum Kind {
    /// A text of a certain form.
    Text(&'static Form),
    /// The value of a variable: text, or a number or boolean taken as it is written.
    Variable,
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Number(u64, u64),
    /// A duration within bounds.
    Duration(Millis, Millis),
    /// A size within bounds.
    Size(Bytes, Bytes),
    /// A number of cores, bounds in thousandths.
    Cores(u32, u32),
    /// A number of at most so many, or a part of them in percent (`30%`); kept as its text.
    CountOrPart(u32),
    /// One of these words.
    Choice {
        /// The words that work.
        now: &'static [&'static str],
        /// The words that a later version will know.
        later: &'static [&'static str],
    },
    /// Program and arguments: a list of texts, or one text for the shell.
    Command,
    /// A list of at most so many.
    List(&'static Kind, usize),
    /// A list of tables, at most so many.
    Tables(&'static Table, usize),
    /// A map whose keys are names that the author chooses.
    Map(&'static Form, &'static Kind),
    /// A map of tables under names that the author chooses.
    NamedTables(&'static Form, &'static Table),
    /// A table.
    Table(&'static Table),
    /// A number within bounds, or a table.
    NumberOr(u64, u64, &'static Table),
    /// A text of a certain form, or a table.
    TextOr(&'static Form, &'static Table),
    /// Any value that JSON has, of at most so many bytes.
    Json(usize),
    /// Known, but not in this version of Landfall.
    Later,
}

/// A form of text.
#[derive(Debug)]
pub struct Form {
    /// What it is, with its article ("a host name").
    pub what: &'static str,
    /// The regular expression (ECMA-262) of the JSON Schema; a superset of what is accepted. Empty for any text.
    pub pattern: &'static str,
    /// Checks a text and brings it into its normal form.
    pub check: fn(&str) -> Result<String, Problem>,
}

/// Why a text does not have its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem whose message says enough.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// A problem with a hint.
    pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// What all keys of a file have in common.
#[derive(Debug)]
pub struct Root {
    /// The file's title.
    pub title: &'static str,
    /// Its outermost keys.
    pub table: &'static Table,
    /// What follows from a key that is not available yet.
    pub later: &'static str,
}
