//! A file's name and text: where errors get their line and their caret from.

use super::errors::FileError;
use super::yaml::Place;

/// Widest piece of a line shown in a snippet, in characters.
const SNIPPET_WIDTH: usize = 110;
/// Characters kept before the caret when a long line is cut.
const SNIPPET_BEFORE: usize = 40;

/// A file's name and text, from which errors are made.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The name shown in errors.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
}

impl Source<'_> {
    /// An error at a place of this file.
    pub fn error(&self, place: &Place, path: &str, message: impl Into<String>, hint: Option<String>) -> FileError {
        let file = match &place.variable {
            Some(name) => format!("${name}"),
            None => self.file.to_owned(),
        };
        FileError {
            file,
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            message: message.into(),
            hint,
            snippet: self.snippet(place),
        }
    }

    /// The line of a place with a caret under it; empty when the place is not in the text.
    fn snippet(&self, place: &Place) -> String {
        if place.line == 0 {
            return String::new();
        }
        let line = self.text.lines().nth(place.line - 1).unwrap_or_default();
        let skipped = if place.column > SNIPPET_WIDTH { place.column - 1 - SNIPPET_BEFORE } else { 0 };
        let shown: String =
            line.chars().skip(skipped).take(SNIPPET_WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let before = place.column.saturating_sub(1 + skipped);
        let room = shown.chars().count().saturating_sub(before).max(1);
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let carets = "^".repeat(place.width.clamp(1, room));
        format!("  {number} | {}\n  {margin} | {}{carets}", shown.trim_end(), " ".repeat(before))
    }
}
