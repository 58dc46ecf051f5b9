//! What the demo's channel was told: lines of a file that a program of the channel writes, as yours would write to a chat.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The file, and how far it was read.
#[derive(Debug)]
pub struct Notices {
    file: PathBuf,
    read: u64,
}

impl Notices {
    /// What comes from now on; an earlier demo in this directory may have left some.
    pub fn after(file: &Path) -> Self {
        Self { file: file.to_owned(), read: file.metadata().map_or(0, |about| about.len()) }
    }

    /// Whole lines that are new. Until the first one comes there is no file.
    pub fn read(&mut self) -> Vec<String> {
        let mut text = Vec::new();
        let read = File::open(&self.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut text)
        });
        let Some(end) = read.ok().and_then(|_| text.iter().rposition(|byte| *byte == b'\n')) else { return Vec::new() };
        self.read += end as u64 + 1;
        String::from_utf8_lossy(&text[..end]).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_whole_lines_that_are_new_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notices");
        let mut notices = Notices::after(&path);
        assert!(notices.read().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(notices.read(), ["one", "two"]);
        file.write_all(b"ee\n").unwrap();
        assert_eq!(notices.read(), ["three"]);
        assert!(Notices::after(&path).read().is_empty(), "an earlier demo's are not told again");
    }
}
