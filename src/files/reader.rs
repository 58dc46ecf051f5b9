//! Reads a tree against a table of keys, completes it with defaults and collects every mistake.
//!
//! What comes out is a [`Record`]: every key of the table with its value, its place, and whether it was
//! written or is a default. A value that is wrong becomes [`Value::Broken`], so that the checks which
//! compare keys still see all others.

use super::errors::FileError;
use super::json;
use super::keys::{Default, Form, Key, Kind, Root, Table};
use super::record::{Entry, Record, Value, default_value};
use super::source::Source;
use super::values::{format_cores, format_duration, format_size, parse_brake, parse_cores, parse_duration, parse_size};
use super::yaml::{Meaning, Node, NodeKind, Place, Scalar, Style};
use crate::domain::Brake;

/// Most names a map of an author's own names may hold.
const MAX_NAMES: usize = 1000;
/// Longest piece of a wrong text that an error repeats, in characters.
const QUOTED: usize = 60;

/// Reads one tree and keeps what is wrong with it.
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a Source<'a>,
    root: &'static Root,
    errors: Vec<FileError>,
}

impl<'a> Reader<'a> {
    /// A reader of one file.
    pub fn new(source: &'a Source<'a>, root: &'static Root, errors: Vec<FileError>) -> Self {
        Self { source, root, errors }
    }

    /// Every mistake so far.
    pub fn into_errors(self) -> Vec<FileError> {
        self.errors
    }

    /// Records a mistake.
    pub fn error(&mut self, place: &Place, path: &str, message: impl Into<String>, hint: Option<&str>) {
        self.errors.push(self.source.error(place, path, message, hint.map(str::to_owned)));
    }

    /// Reads the whole document.
    pub fn document(&mut self, node: &Node) -> Option<Record> {
        self.record(node, self.root.table, "")
    }

    /// Reads a table.
    fn record(&mut self, node: &Node, table: &'static Table, path: &str) -> Option<Record> {
        let no_entries = Vec::new();
        let written = match &node.kind {
            NodeKind::Map(entries) => entries,
            // `health:` with nothing behind it is a table without keys.
            NodeKind::Scalar(scalar) if scalar.meaning() == Meaning::Null => &no_entries,
            NodeKind::Broken => return None,
            NodeKind::Scalar(_) | NodeKind::List(_) => {
                let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
                let message = format!("{what} must be a map with keys of {}, this is {}", table.what, describe(node));
                self.error(&node.place, path, message, Some(&known_keys(table)));
                return None;
            }
        };
        for (key, _) in written {
            if table.key(&key.text).is_none() {
                self.unknown(&key.place, &join(path, &key.text), &key.text, table);
            }
        }
        let entries = table.keys.iter().map(|key| {
            let found = written.iter().find(|(written, _)| written.text == key.name);
            (key, self.entry(key, found, &node.place, path))
        });
        let entries = entries.collect();
        Some(Record { table, place: node.place.clone(), entries })
    }

    fn entry(
        &mut self,
        key: &'static Key,
        found: Option<&(super::yaml::Key, Node)>,
        place: &Place,
        path: &str,
    ) -> Entry {
        let path = join(path, key.name);
        match found {
            Some((written, _)) if matches!(key.kind, Kind::Later) => {
                let message = format!(
                    "`{}` is known, but not available in this version of Landfall; {}",
                    key.name, self.root.later
                );
                self.error(&written.place, &path, message, Some("remove the key until a version has it"));
                Entry::written(&written.place, Value::Broken)
            }
            Some((_, node)) => {
                let value = self.value(node, &key.kind, &path).unwrap_or(Value::Broken);
                Entry::written(&node.place, value)
            }
            None => {
                if matches!(key.default, Default::Required) {
                    let message = format!("`{path}` is missing: {}", lower_first(key.doc));
                    self.error(place, &path, message, Some(&format!("write `{}: {}`", key.name, example(&key.kind))));
                }
                Entry { place: Place::NOWHERE, given: false, value: default_value(key) }
            }
        }
    }

    fn unknown(&mut self, place: &Place, path: &str, name: &str, table: &'static Table) {
        let guess = closest(name, table.keys.iter().map(|key| key.name));
        let (message, hint) = match guess {
            Some(guess) => (format!("unknown key `{}`, did you mean `{guess}`?", cut(name)), None),
            None => (format!("unknown key `{}` in {}", cut(name), table.what), Some(known_keys(table))),
        };
        self.error(place, path, message, hint.as_deref());
    }

    /// Reads a value of a kind; `None` when it was wrong and has been reported.
    fn value(&mut self, node: &Node, kind: &'static Kind, path: &str) -> Option<Value> {
        if node.kind == NodeKind::Broken {
            return None;
        }
        match kind {
            Kind::Text(form) => self.text(node, form, path).map(Value::Text),
            Kind::Variable => self.variable(node, path).map(Value::Text),
            Kind::Bool => self.truth(node, path).map(Value::Bool),
            Kind::Number(min, max) => self.number(node, *min, *max, path).map(Value::Number),
            Kind::Duration(min, max) => {
                let bounds = (format_duration(*min), format_duration(*max));
                self.measure(node, path, parse_duration, |value| (*min..=*max).contains(&value), bounds)
                    .map(Value::Duration)
            }
            Kind::Size(min, max) => {
                let bounds = (format_size(*min), format_size(*max));
                self.measure(node, path, parse_size, |value| (*min..=*max).contains(&value), bounds).map(Value::Size)
            }
            Kind::Cores(min, max) => {
                let bounds = (format_cores(*min), format_cores(*max));
                self.measure(node, path, parse_cores, |value| (*min..=*max).contains(&value), bounds).map(Value::Cores)
            }
            Kind::CountOrPart(max) => self
                .measure(node, path, parse_brake, |brake| within_count(brake, *max), ("0".into(), max.to_string()))
                .map(|brake| Value::Text(brake.to_string())),
            Kind::Choice { now, later } => self.choice(node, now, later, path).map(Value::Text),
            Kind::Command => self.command(node, path).map(Value::List),
            Kind::List(kind, max) => self.list(node, *max, path, |reader, node, path| reader.value(node, kind, path)),
            Kind::Tables(table, max) => {
                self.list(node, *max, path, |reader, node, path| reader.record(node, table, path).map(Value::Record))
            }
            Kind::Map(form, kind) => self.map(node, form, path, |reader, node, path| reader.value(node, kind, path)),
            Kind::NamedTables(form, table) => {
                self.map(node, form, path, |reader, node, path| reader.record(node, table, path).map(Value::Record))
            }
            Kind::Table(table) => self.record(node, table, path).map(Value::Record),
            Kind::NumberOr(min, max, table) => match &node.kind {
                NodeKind::Map(_) => self.record(node, table, path).map(Value::Record),
                NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Broken => {
                    self.number(node, *min, *max, path).map(Value::Number)
                }
            },
            Kind::TextOr(form, table) => match &node.kind {
                NodeKind::Map(_) => self.record(node, table, path).map(Value::Record),
                NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Broken => {
                    self.text(node, form, path).map(Value::Text)
                }
            },
            Kind::Json(most) => self.json(node, *most, path).map(Value::Json),
            Kind::Later => None,
        }
    }

    fn json(&mut self, node: &Node, most: usize, path: &str) -> Option<String> {
        let text = match json::from_node(node) {
            Ok(value) => value?.to_string(),
            Err(wrong) => {
                self.error(&wrong.place, path, format!("`{path}`: {}", wrong.message), None);
                return None;
            }
        };
        if text.len() > most {
            let message = format!("`{path}` has {} bytes as JSON, at most {most} are allowed", text.len());
            self.error(&node.place, path, message, None);
            return None;
        }
        Some(text)
    }

    fn scalar<'n>(&mut self, node: &'n Node, wanted: &str, path: &str) -> Option<&'n Scalar> {
        match &node.kind {
            NodeKind::Scalar(scalar) if scalar.meaning() != Meaning::Null => Some(scalar),
            NodeKind::Broken => None,
            NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                let message = format!("`{path}` must be {wanted}, this is {}", describe(node));
                self.error(&node.place, path, message, None);
                None
            }
        }
    }

    /// A text that YAML takes for one: a bare number, boolean or `yes` needs quotes, because other readers
    /// of the same file would disagree about what it is.
    fn plain_text(&mut self, node: &Node, wanted: &str, path: &str) -> Option<String> {
        let scalar = self.scalar(node, wanted, path)?;
        let other = match (scalar.style, scalar.meaning()) {
            (Style::Variable | Style::Text, _) | (_, Meaning::Text | Meaning::Null) => {
                return Some(scalar.text.clone());
            }
            (Style::Plain, Meaning::Bool(_)) => "a boolean",
            (Style::Plain, Meaning::OldBool) => "a boolean to many YAML readers",
            (Style::Plain, Meaning::Number) => "a number",
        };
        let message = format!("`{path}` must be {wanted}, `{}` without quotes is {other}", cut(&scalar.text));
        self.error(&node.place, path, message, Some(&format!("quote it: \"{}\"", cut(&scalar.text))));
        None
    }

    fn text(&mut self, node: &Node, form: &Form, path: &str) -> Option<String> {
        let text = self.plain_text(node, form.what, path)?;
        match (form.check)(&text) {
            Ok(text) => Some(text),
            Err(problem) => {
                self.error(&node.place, path, format!("`{path}`: {}", problem.message), problem.hint.as_deref());
                None
            }
        }
    }

    fn variable(&mut self, node: &Node, path: &str) -> Option<String> {
        let null = matches!(&node.kind, NodeKind::Scalar(scalar) if scalar.meaning() == Meaning::Null && scalar.style != Style::Variable);
        if null {
            let message = format!("`{path}` has no value");
            self.error(&node.place, path, message, Some("write \"\" for an empty one"));
            return None;
        }
        let NodeKind::Scalar(scalar) = &node.kind else {
            self.scalar(node, "a text", path);
            return None;
        };
        if scalar.style == Style::Plain && scalar.meaning() == Meaning::OldBool {
            return self.plain_text(node, "a text", path);
        }
        if scalar.text.contains('\0') {
            self.error(&node.place, path, format!("`{path}` contains a NUL, which no variable can hold"), None);
            return None;
        }
        Some(scalar.text.clone())
    }

    fn truth(&mut self, node: &Node, path: &str) -> Option<bool> {
        let scalar = self.scalar(node, "true or false", path)?;
        if let Meaning::Bool(value) = scalar.meaning() {
            return Some(value);
        }
        let message = format!("`{path}` must be true or false, this is `{}`", cut(&scalar.text));
        self.error(&node.place, path, message, None);
        None
    }

    fn number(&mut self, node: &Node, min: u64, max: u64, path: &str) -> Option<u64> {
        let wanted = format!("a whole number from {min} to {max}");
        let scalar = self.scalar(node, &wanted, path)?;
        let digits = !scalar.text.is_empty() && scalar.text.bytes().all(|b| b.is_ascii_digit());
        let number = if scalar.style != Style::Text && digits { scalar.text.parse::<u64>().ok() } else { None };
        if let Some(number) = number.filter(|number| (min..=max).contains(number)) {
            return Some(number);
        }
        let hint = (scalar.style == Style::Text && digits).then_some("write it without quotes");
        self.error(&node.place, path, format!("`{path}` must be {wanted}, this is `{}`", cut(&scalar.text)), hint);
        None
    }

    fn measure<T: Copy>(
        &mut self,
        node: &Node,
        path: &str,
        parse: fn(&str) -> Result<T, String>,
        within: impl Fn(T) -> bool,
        (min, max): (String, String),
    ) -> Option<T> {
        let scalar = self.scalar(node, &format!("from {min} to {max}"), path)?;
        match parse(&scalar.text) {
            Ok(value) if within(value) => Some(value),
            Ok(_) => {
                let message = format!("`{path}` must be from {min} to {max}, this is `{}`", cut(&scalar.text));
                self.error(&node.place, path, message, None);
                None
            }
            Err(message) => {
                self.error(&node.place, path, format!("`{path}`: {message}"), None);
                None
            }
        }
    }

    fn choice(&mut self, node: &Node, now: &[&str], later: &[&str], path: &str) -> Option<String> {
        let wanted = now.join(" or ");
        let scalar = self.scalar(node, &wanted, path)?;
        let word = scalar.text.as_str();
        if now.contains(&word) {
            return Some(word.to_owned());
        }
        let message = if later.contains(&word) {
            format!("`{path}: {word}` is known, but not available in this version of Landfall; {}", self.root.later)
        } else {
            match closest(word, now.iter().copied()) {
                Some(guess) => format!("`{path}` must be {wanted}, `{}` is not; did you mean `{guess}`?", cut(word)),
                None => format!("`{path}` must be {wanted}, this is `{}`", cut(word)),
            }
        };
        self.error(&node.place, path, message, None);
        None
    }

    /// A list of texts as it is; one text is handed to the shell.
    fn command(&mut self, node: &Node, path: &str) -> Option<Vec<Entry>> {
        const WANTED: &str = "a list of texts, or one text for the shell";
        let entry = |place: &Place, text: String| Entry::written(place, Value::Text(text));
        let items = match &node.kind {
            NodeKind::List(items) => items,
            NodeKind::Scalar(_) | NodeKind::Map(_) | NodeKind::Broken => {
                let text = self.plain_text(node, WANTED, path)?;
                self.argument(&text, true, &node.place, path)?;
                return Some(["sh", "-c", &text].into_iter().map(|part| entry(&node.place, part.to_owned())).collect());
            }
        };
        if items.is_empty() {
            self.error(&node.place, path, format!("`{path}` is empty, name the program to run"), None);
            return None;
        }
        let mut arguments = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let text = self.plain_text(item, "a text", &path).and_then(|text| {
                self.argument(&text, index == 0, &item.place, &path)?;
                Some(text)
            });
            arguments.extend(text.map(|text| entry(&item.place, text)));
        }
        (arguments.len() == items.len()).then_some(arguments)
    }

    fn argument(&mut self, text: &str, program: bool, place: &Place, path: &str) -> Option<()> {
        let message = match (text.contains('\0'), program && text.trim().is_empty()) {
            (true, _) => "contains a NUL, which no program can be given",
            (false, true) => "is empty, name the program to run",
            (false, false) => return Some(()),
        };
        self.error(place, path, format!("`{path}` {message}"), None);
        None
    }

    fn list(
        &mut self,
        node: &Node,
        max: usize,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<Value>,
    ) -> Option<Value> {
        let single;
        let items: &[Node] = match &node.kind {
            NodeKind::List(items) => items,
            // A variable lists with commas.
            NodeKind::Scalar(Scalar { text, style: Style::Variable }) => {
                single = split_variable(text, &node.place);
                &single
            }
            NodeKind::Broken => return None,
            NodeKind::Scalar(_) | NodeKind::Map(_) => {
                let message = format!("`{path}` must be a list, this is {}", describe(node));
                self.error(
                    &node.place,
                    path,
                    message,
                    Some("write each entry on its own line after `- `, or all in `[…]`"),
                );
                return None;
            }
        };
        if items.len() > max {
            self.error(
                &node.place,
                path,
                format!("`{path}` has {} entries, at most {max} are allowed", items.len()),
                None,
            );
            return None;
        }
        let read = |(index, item): (usize, &Node)| {
            let value = read(self, item, &format!("{path}[{index}]")).unwrap_or(Value::Broken);
            Entry::written(&item.place, value)
        };
        Some(Value::List(items.iter().enumerate().map(read).collect()))
    }

    fn map(
        &mut self,
        node: &Node,
        form: &Form,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<Value>,
    ) -> Option<Value> {
        let none = Vec::new();
        let written = match &node.kind {
            NodeKind::Map(entries) => entries,
            NodeKind::Scalar(scalar) if scalar.meaning() == Meaning::Null => &none,
            NodeKind::Broken => return None,
            NodeKind::Scalar(_) | NodeKind::List(_) => {
                let message = format!("`{path}` must be a map, each key {}, this is {}", form.what, describe(node));
                self.error(&node.place, path, message, None);
                return None;
            }
        };
        if written.len() > MAX_NAMES {
            let message = format!("`{path}` has {} entries, at most {MAX_NAMES} are allowed", written.len());
            self.error(&node.place, path, message, None);
            return None;
        }
        let mut entries = Vec::with_capacity(written.len());
        for (key, node) in written {
            let path = join(path, &key.text);
            let name = match (form.check)(&key.text) {
                Ok(name) => name,
                Err(problem) => {
                    self.error(
                        &key.place,
                        &path,
                        format!("`{}`: {}", cut(&path), problem.message),
                        problem.hint.as_deref(),
                    );
                    key.text.clone()
                }
            };
            let value = read(self, node, &path).unwrap_or(Value::Broken);
            entries.push((name, key.place.clone(), Entry::written(&node.place, value)));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Value::Map(entries))
    }
}

fn split_variable(text: &str, place: &Place) -> Vec<Node> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let scalar = |part: &str| NodeKind::Scalar(Scalar { text: part.to_owned(), style: Style::Variable });
    parts.map(|part| Node { place: place.clone(), kind: scalar(part) }).collect()
}

/// `web.main.drain`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The known word closest to a wrong one, if one is close enough to be meant.
pub fn closest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word = cut(word).to_lowercase().replace('-', "_");
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .map(|name| (strsim::damerau_levenshtein(&word, &name.replace('-', "_")), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn within_count(brake: Brake, max: u32) -> bool {
    match brake {
        Brake::Percent(_) => true,
        Brake::Apps(apps) => apps <= max,
    }
}

fn known_keys(table: &Table) -> String {
    let names: Vec<_> = table.keys.iter().filter(|key| !matches!(key.kind, Kind::Later)).map(|key| key.name).collect();
    format!("{} has the keys {}", table.what, names.join(", "))
}

fn describe(node: &Node) -> String {
    match &node.kind {
        NodeKind::Scalar(scalar) if scalar.meaning() == Meaning::Null => "nothing".to_owned(),
        NodeKind::Scalar(scalar) => format!("`{}`", cut(&scalar.text)),
        NodeKind::List(_) => "a list".to_owned(),
        NodeKind::Broken => "unreadable".to_owned(),
        NodeKind::Map(_) => "a map".to_owned(),
    }
}

/// What to write for a missing key.
fn example(kind: &Kind) -> &'static str {
    match kind {
        Kind::Command => "[python3, server.py]",
        Kind::Text(_) | Kind::Variable => "…",
        Kind::Number(..) | Kind::NumberOr(..) => "1",
        _ => "…",
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Keeps an error readable when the wrong text is a page long.
fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTED).is_some() {
        short.push('…');
    }
    short
}
