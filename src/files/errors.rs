//! What is wrong with a file, and where: one type for both files, made for people.
//!
//! Invariant: whoever reads only this text knows the file, the line, the column, what stands there
//! and what to write instead.

use std::fmt;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The file as the reader knows it, or `$NAME` for an environment variable.
    pub file: String,
    /// The line, counted from 1; 0 when the mistake is not in the text (a missing file, a variable).
    pub line: usize,
    /// The column in characters, counted from 1; 0 when the mistake is not in the text.
    pub column: usize,
    /// The key the mistake belongs to (`web.main.health.path`); empty for the document as a whole.
    pub path: String,
    /// What is wrong, and what was meant where that can be guessed.
    pub message: String,
    /// What to do, where the message alone does not say it.
    pub hint: Option<String>,
    /// The line with a caret under the place; empty when there is none.
    pub snippet: String,
}

impl FileError {
    /// A mistake that belongs to a file but to no place in it.
    pub fn whole(file: impl Into<String>, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            hint,
            snippet: String::new(),
        }
    }

    /// The first line of the text form: place and message.
    pub fn headline(&self) -> String {
        if self.line == 0 {
            format!("{}: {}", self.file, self.message)
        } else {
            format!("{}:{}:{}: {}", self.file, self.line, self.column, self.message)
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if !self.snippet.is_empty() {
            write!(f, "\n{}", self.snippet)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FileError {}

/// Every mistake of one file, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileErrors(Vec<FileError>);

impl FileErrors {
    /// All mistakes together, sorted by place; `None` when there are none.
    pub fn new(mut errors: Vec<FileError>) -> Option<Self> {
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        errors.dedup();
        if errors.is_empty() { None } else { Some(Self(errors)) }
    }

    /// The mistakes one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, FileError> {
        self.0.iter()
    }

    /// How many there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<FileError> for FileErrors {
    fn from(error: FileError) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for FileErrors {
    type Item = FileError;
    type IntoIter = std::vec::IntoIter<FileError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a FileErrors {
    type Item = &'a FileError;
    type IntoIter = std::slice::Iter<'a, FileError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FileErrors {}
