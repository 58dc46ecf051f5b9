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
}
