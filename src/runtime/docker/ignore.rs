//! `.dockerignore`: what of a context is not sent.
//!
//! The rules are those of the Docker command line, where they are applied as well: one pattern a line, the last one that
//! matches decides, `!` takes an exclusion back, `**` stands for any directories, a pattern that matches a directory
//! matches all in it. The file `<Dockerfile>.dockerignore` wins over `.dockerignore`.

use std::io;
use std::path::Path;

/// A file with more patterns is a mistake.
const MOST: usize = 1000;

/// The patterns of a context.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<(Vec<String>, bool)>,
    /// What the engine itself needs.
    always: Vec<String>,
}

impl Ignore {
    /// Reads the patterns of a context; one without has none.
    pub(super) fn read(context: &Path, dockerfile: &str) -> io::Result<Self> {
        for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
            match std::fs::read_to_string(context.join(name)) {
                Ok(text) => return Ok(Self::parse(&text, dockerfile)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::default())
    }

    fn parse(text: &str, dockerfile: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let patterns = lines.take(MOST).map(|line| {
            let (line, keeps) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
            let parts = line.split('/').filter(|part| !matches!(*part, "" | "."));
            (parts.map(str::to_owned).collect(), keeps)
        });
        Self { patterns: patterns.collect(), always: vec![dockerfile.to_owned(), ".dockerignore".to_owned()] }
    }

    /// Whether some pattern takes an exclusion back, so that a directory that is left out must be looked into.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(_, keeps)| *keeps)
    }

    /// Whether a path of the context is not sent.
    pub(super) fn leaves_out(&self, path: &Path) -> bool {
        let Some(text) = path.to_str() else { return false };
        if self.always.iter().any(|always| always == text) {
            return false;
        }
        let parts: Vec<&str> = text.split('/').collect();
        let mut out = false;
        for (pattern, keeps) in &self.patterns {
            let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
            // A directory that matches takes all in it along.
            if (1..=parts.len()).any(|length| matches(&pattern, &parts[..length])) {
                out = !keeps;
            }
        }
        out
    }
}

fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        (Some((first, pattern)), Some((name, path))) => {
            part(&first.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>()) && matches(pattern, path)
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// One part of a path: `*` and `?` stand for characters.
fn part(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skip| part(rest, &name[skip..])),
        (Some(('?', pattern)), Some((_, name))) => part(pattern, name),
        (Some((first, pattern)), Some((letter, name))) => first == letter && part(pattern, name),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let ignore =
            Ignore::parse("# notes\n*.md\n!README.md\nnode_modules\n**/*.log\n/target/\nDockerfile\n", "Dockerfile");
        for out in ["a.md", "node_modules", "node_modules/x/y", "x.log", "a/b/x.log", "target/debug"] {
            assert!(ignore.leaves_out(Path::new(out)), "{out}");
        }
        for sent in ["README.md", "docs/a.md", "src/main.rs", "a/node_modules", "Dockerfile", ".dockerignore"] {
            assert!(!ignore.leaves_out(Path::new(sent)), "{sent}");
        }
        assert!(!Ignore::default().leaves_out(Path::new("a.md")));
    }
}
