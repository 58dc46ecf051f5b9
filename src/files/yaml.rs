//! YAML text to a tree in which every key and value knows its place.
//!
//! Owned by nobody: a pure function. `reader` reads the tree against a table of known keys; because the
//! tree survives the first mistake, all mistakes of a file are found in one pass.
//!
//! Strict by choice, each for a reason an operator has met: one document per file, no duplicate keys, no
//! custom tags, no merge keys, and hard limits on size, depth and what aliases may expand to, so that a
//! hostile or broken file costs milliseconds and is refused, never the agent's memory.

use std::collections::HashMap;
use std::sync::Arc;

use serde_yaml::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag, options};

use super::errors::FileError;
use super::source::Source;

/// Longest document, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;
/// Most keys and values a document may hold, aliases expanded.
pub const MAX_NODES: usize = 50_000;
/// Most bytes of text a document may hold, aliases expanded.
pub const MAX_TEXT: usize = 4 * MAX_DOCUMENT;
/// Deepest nesting of lists and maps, aliases expanded.
pub const MAX_DEPTH: usize = 32;

/// The key that brings the keys of other maps.
const MERGE: &str = "<<";

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line from 1; 0 when it does not stand in the text.
    pub line: usize,
    /// Column in characters from 1; 0 when it does not stand in the text.
    pub column: usize,
    /// How many characters it is wide on its line.
    pub width: usize,
    /// The environment variable it came from, if it did.
    pub variable: Option<Arc<str>>,
}

impl Place {
    /// The place of something that an environment variable says.
    pub fn variable(name: &str) -> Self {
        Self { line: 0, column: 0, width: 0, variable: Some(name.into()) }
    }

    /// No place in the text.
    pub const NOWHERE: Self = Self { line: 0, column: 0, width: 0, variable: None };

    fn of(span: &Span) -> Self {
        let (start, end) = (span.start, span.end);
        let width = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { 0 };
        Self { line: start.line(), column: start.col() + 1, width: width.max(1), variable: None }
    }
}

/// A value of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it starts.
    pub place: Place,
    /// What it is.
    pub kind: NodeKind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A text, number, boolean or null.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file; keys are unique.
    Map(Vec<(Key, Node)>),
    /// Wrong in itself, and already reported.
    Broken,
}

/// The key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it starts.
    pub place: Place,
    /// Its text.
    pub text: String,
}

/// A value without parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, quotes and escapes resolved.
    pub text: String,
    /// How it was written, which decides what it may mean.
    pub style: Style,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: may be a number, a boolean, null or text.
    Plain,
    /// Quoted or a block: always text.
    Text,
    /// From an environment variable: whatever is wanted.
    Variable,
}

/// What a plain scalar means in YAML 1.2 (core schema).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number,
    /// Text that YAML 1.1 readers take for a boolean (`yes`, `no`, `on`, `off`, `y`, `n`).
    OldBool,
    /// Anything else.
    Text,
}

impl Scalar {
    /// What it means.
    pub fn meaning(&self) -> Meaning {
        match self.style {
            Style::Text => Meaning::Text,
            Style::Plain | Style::Variable => meaning_of(&self.text),
        }
    }
}

fn meaning_of(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
        "true" | "True" | "TRUE" => Meaning::Bool(true),
        "false" | "False" | "FALSE" => Meaning::Bool(false),
        _ if is_old_bool(text) => Meaning::OldBool,
        _ if is_number(text) => Meaning::Number,
        _ => Meaning::Text,
    }
}

fn is_old_bool(text: &str) -> bool {
    text.len() <= 3 && ["y", "n", "yes", "no", "on", "off"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// The numbers of the core schema: decimal, `0x`, `0o`, floats, infinities and not-a-number.
fn is_number(text: &str) -> bool {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(digits) = body.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(digits) = body.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if matches!(body, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let starts = body.bytes().next().is_some_and(|b| b.is_ascii_digit())
        || (body.starts_with('.') && body.as_bytes().get(1).is_some_and(u8::is_ascii_digit));
    starts && body.bytes().all(|b| b.is_ascii_digit() || b"eE.+-".contains(&b)) && body.parse::<f64>().is_ok()
}

/// Reads one document. A mistake in the syntax ends the reading; mistakes in the meaning (a duplicate
/// key, a tag, an unknown alias) are collected beside a tree that is whole but for them.
pub fn parse(source: &Source<'_>) -> (Option<Node>, Vec<FileError>) {
    parse_with(source, false)
}

/// The same for files of others, where merge keys (`<<`) are usual: what they bring stands in the map, behind its own keys.
pub fn parse_merging(source: &Source<'_>) -> (Option<Node>, Vec<FileError>) {
    let (root, errors) = parse_with(source, true);
    (root.map(merged), errors)
}

/// A tree in which merge keys are carried out. Aliases are expanded by then, so that it cannot grow.
fn merged(node: Node) -> Node {
    let kind = match node.kind {
        NodeKind::List(items) => NodeKind::List(items.into_iter().map(merged).collect()),
        NodeKind::Map(entries) => {
            let (merges, mut own): (Vec<_>, Vec<_>) =
                entries.into_iter().map(|(key, value)| (key, merged(value))).partition(|(key, _)| key.text == MERGE);
            let brought = merges.into_iter().flat_map(|(_, value)| match value.kind {
                NodeKind::List(maps) => maps,
                _ => vec![value],
            });
            for map in brought {
                let NodeKind::Map(entries) = map.kind else { continue };
                for (key, value) in entries {
                    if own.iter().all(|(known, _)| known.text != key.text) {
                        own.push((key, value));
                    }
                }
            }
            NodeKind::Map(own)
        }
        kind @ (NodeKind::Scalar(_) | NodeKind::Broken) => kind,
    };
    Node { place: node.place, kind }
}

fn parse_with(source: &Source<'_>, merging: bool) -> (Option<Node>, Vec<FileError>) {
    let mut builder = Builder {
        source,
        merging,
        errors: Vec::new(),
        stack: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        nodes: 0,
        text: 0,
    };
    match builder.run() {
        Ok(()) => (builder.root.map(|tree| tree.node), builder.errors),
        Err(error) => {
            builder.errors.push(error);
            (None, builder.errors)
        }
    }
}

/// A finished value with what it costs to copy it.
#[derive(Debug, Clone)]
struct Tree {
    node: Node,
    nodes: usize,
    text: usize,
    height: usize,
}

/// A list or map under construction.
struct Frame {
    place: Place,
    anchor: usize,
    nodes: usize,
    text: usize,
    height: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: HashMap<String, usize>, key: Option<PendingKey> },
}

/// A key that waits for its value.
enum PendingKey {
    Good(Key),
    /// Already reported; its value is read and dropped.
    Bad,
}

struct Builder<'s, 't> {
    source: &'s Source<'t>,
    /// Merge keys are kept, for `merged`.
    merging: bool,
    errors: Vec<FileError>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Tree>,
    root: Option<Tree>,
    nodes: usize,
    text: usize,
}

impl Builder<'_, '_> {
    fn run(&mut self) -> Result<(), FileError> {
        let text = self.source.text;
        if text.len() > MAX_DOCUMENT {
            let message = format!("the file has {} bytes, at most {MAX_DOCUMENT} (1 MiB) are read", text.len());
            return Err(self.source.error(&Place::NOWHERE, "", message, None));
        }
        // One level more than our own limit: ours is hit first and names the mend.
        let options = options! {
            emit_unresolved_aliases: true,
            emit_comments: false,
            flow_nesting_limit: MAX_DEPTH + 1,
            block_nesting_limit: MAX_DEPTH + 1,
        };
        for next in Parser::new_from_str_with_options(text, options) {
            let (event, span) = next.map_err(|error| self.syntax(&error))?;
            self.event(event, &Place::of(&span))?;
        }
        let empty = self.root.as_ref().is_none_or(|tree| match &tree.node.kind {
            NodeKind::Scalar(scalar) => scalar.meaning() == Meaning::Null,
            NodeKind::List(_) | NodeKind::Map(_) | NodeKind::Broken => false,
        });
        if empty {
            return Err(self.source.error(&Place::NOWHERE, "", "the file is empty", None));
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, place: &Place) -> Result<(), FileError> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let hint = "put each document into a file of its own".to_owned();
                Err(self.source.error(place, "", "a second document starts here, one file holds one", Some(hint)))
            }
            Event::Alias(anchor) => self.alias(anchor, place),
            Event::UnresolvedAlias(name) => {
                let message = format!("`*{name}` refers to nothing, no `&{name}` stands before it");
                self.errors.push(self.source.error(place, "", message, None));
                self.broken(place)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let style = if style == ScalarStyle::Plain { Style::Plain } else { Style::Text };
                let style = self.tagged(style, tag.as_deref(), place);
                self.leaf(text.into_owned(), style, anchor, place)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tagged(Style::Text, tag.as_deref(), place);
                self.open(anchor, place, Parts::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tagged(Style::Text, tag.as_deref(), place);
                self.open(anchor, place, Parts::Map { entries: Vec::new(), seen: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            // Start and end of stream and document, and whatever a later parser tells beside the content.
            _ => Ok(()),
        }
    }

    /// `!!str 5` is text and `!!int "5"` a number; every other tag asks for types that do not exist here.
    fn tagged(&mut self, style: Style, tag: Option<&Tag>, place: &Place) -> Style {
        let Some(tag) = tag else { return style };
        match tag.core_suffix() {
            Some("str") => Style::Text,
            Some("int" | "float" | "bool" | "null") => Style::Plain,
            Some("seq" | "map") => style,
            Some(_) | None => {
                let message = format!("the tag `{}` means nothing here", tag.original());
                self.errors.push(self.source.error(place, "", message, Some("remove it".to_owned())));
                style
            }
        }
    }

    fn leaf(&mut self, text: String, style: Style, anchor: usize, place: &Place) -> Result<(), FileError> {
        let size = text.len();
        let node = Node { place: place.clone(), kind: NodeKind::Scalar(Scalar { text, style }) };
        self.spend(1, size, place)?;
        self.finish(anchor, Tree { node, nodes: 1, text: size, height: 0 });
        Ok(())
    }

    fn broken(&mut self, place: &Place) -> Result<(), FileError> {
        self.spend(1, 0, place)?;
        self.finish(
            0,
            Tree { node: Node { place: place.clone(), kind: NodeKind::Broken }, nodes: 1, text: 0, height: 0 },
        );
        Ok(())
    }

    fn open(&mut self, anchor: usize, place: &Place, parts: Parts) -> Result<(), FileError> {
        self.deep(self.stack.len() + 1, place)?;
        self.spend(1, 0, place)?;
        self.stack.push(Frame { place: place.clone(), anchor, nodes: 1, text: 0, height: 1, parts });
        Ok(())
    }

    fn close(&mut self) -> Result<(), FileError> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let kind = match frame.parts {
            Parts::List(items) => NodeKind::List(items),
            Parts::Map { entries, .. } => NodeKind::Map(entries),
        };
        let node = Node { place: frame.place, kind };
        self.finish(frame.anchor, Tree { node, nodes: frame.nodes, text: frame.text, height: frame.height });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: &Place) -> Result<(), FileError> {
        // Unknown here means unfinished: the alias stands inside the value it names.
        let Some(tree) = self.anchors.get(&anchor) else {
            self.errors.push(self.source.error(place, "", "this alias contains itself", None));
            return self.broken(place);
        };
        let (nodes, text, height) = (tree.nodes, tree.text, tree.height);
        // Paid before it is copied, so that a bomb is refused at the cost of its fuse.
        self.spend(nodes, text, place)?;
        self.deep(self.stack.len() + height, place)?;
        if let Some(tree) = self.anchors.get(&anchor).cloned() {
            self.finish(0, tree);
        }
        Ok(())
    }

    fn spend(&mut self, nodes: usize, text: usize, place: &Place) -> Result<(), FileError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.nodes <= MAX_NODES && self.text <= MAX_TEXT {
            return Ok(());
        }
        let message =
            format!("the document grows beyond {MAX_NODES} values or {MAX_TEXT} bytes here, aliases counted in full");
        Err(self.source.error(place, "", message, Some("write less, or use fewer aliases".to_owned())))
    }

    fn deep(&self, depth: usize, place: &Place) -> Result<(), FileError> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        Err(self.source.error(place, "", format!("nested deeper than {MAX_DEPTH} levels"), None))
    }

    /// Hands a finished value to what contains it.
    fn finish(&mut self, anchor: usize, tree: Tree) {
        if anchor != 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(tree);
            return;
        };
        frame.nodes += tree.nodes;
        frame.text += tree.text;
        frame.height = frame.height.max(tree.height + 1);
        match &mut frame.parts {
            Parts::List(items) => items.push(tree.node),
            Parts::Map { entries, seen, key } => match key.take() {
                Some(PendingKey::Good(key)) => entries.push((key, tree.node)),
                Some(PendingKey::Bad) => {}
                None => *key = Some(pending(self.source, self.merging, &mut self.errors, seen, tree.node)),
            },
        }
    }

    fn syntax(&self, error: &ScanError) -> FileError {
        let marker = error.marker();
        // Some mistakes are noticed behind the last line; the end of the text is the place then.
        let lines = self.source.text.lines().count().max(1);
        let place = if marker.line() > lines {
            let width = self.source.text.lines().last().map_or(0, |line| line.chars().count());
            Place { line: lines, column: width + 1, width: 1, variable: None }
        } else {
            Place { line: marker.line().max(1), column: marker.col() + 1, width: 1, variable: None }
        };
        self.source.error(&place, "", format!("not valid YAML: {}", error.info()), syntax_hint(error.kind()))
    }
}

/// Checks a value that stands where a key belongs.
fn pending(
    source: &Source<'_>,
    merging: bool,
    errors: &mut Vec<FileError>,
    seen: &mut HashMap<String, usize>,
    node: Node,
) -> PendingKey {
    let NodeKind::Scalar(scalar) = node.kind else {
        errors.push(source.error(&node.place, "", "a key must be a text, this is a list or a map", None));
        return PendingKey::Bad;
    };
    if scalar.text == MERGE && scalar.style == Style::Plain && !merging {
        let hint = "write the keys out, or use an alias for the whole value (`env: *common`)".to_owned();
        errors.push(source.error(&node.place, "", "merge keys (`<<`) are not part of YAML 1.2", Some(hint)));
        return PendingKey::Bad;
    }
    if let Some(first) = seen.insert(scalar.text.clone(), node.place.line) {
        let message = format!("the key `{}` stands here a second time, first in line {first}", scalar.text);
        errors.push(source.error(&node.place, "", message, Some("keep one of them".to_owned())));
        return PendingKey::Bad;
    }
    PendingKey::Good(Key { place: node.place, text: scalar.text })
}

/// The mend for the mistakes that people make most.
fn syntax_hint(kind: &ErrorKind) -> Option<String> {
    let hint = match kind {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => "indent with spaces, YAML forbids tabs there",
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => {
            "a `[` before this has no `]`"
        }
        ErrorKind::UnexpectedEofFlowMapping | ErrorKind::ExpectedFlowMappingSeparator => "a `{` before this has no `}`",
        ErrorKind::SimpleKeyExpected => "a key is followed by `: `, with the space",
        ErrorKind::InvalidIndentation => "keys of one map start in one column",
        _ => return None,
    };
    Some(hint.to_owned())
}
