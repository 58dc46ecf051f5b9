//! A value that only its receiver may see.

use std::fmt;

/// A password, token or key. However it is printed, it prints `[redacted]`; it is neither compared nor serialised.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Longest value, in bytes. A process takes variables twice as long; so much fits into a request with all its escapes.
    pub const LONGEST: usize = 48 * 1024;

    /// Takes the value over.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Shorter values are not taken out of texts: they would take half of the words along.
const MASKED: usize = 6;

/// A text without values of secrets in it, nor lines of those that have several: a log shows them line by line.
pub fn mask<'a>(text: &str, values: impl Iterator<Item = &'a str>) -> String {
    let parts = values.flat_map(|value| std::iter::once(value).chain(value.lines()));
    parts.filter(|part| part.len() >= MASKED).fold(text.to_owned(), |text, part| text.replace(part, "[redacted]"))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "[redacted] [redacted] Some([redacted])");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn texts_are_told_without_values_and_without_their_lines() {
        let values = ["hunter2", "//host/:_token=abc\nregistry\n", "short"];
        let text = mask("hunter2 wrote //host/:_token=abc and a short line", values.into_iter());
        assert_eq!(text, "[redacted] wrote [redacted] and a short line");
    }
}
