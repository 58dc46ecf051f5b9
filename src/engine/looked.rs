//! What looks at a source leave to be told, beside its revision and its error: the size of the cache, and notes on apps.
//!
//! Owned by the source's `Shared`; in memory only, the first look after a start fills it anew. Invariant: a note lasts until
//! its app is read again.

use crate::source::{Note, Reading};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    /// What the cache of a remote repository takes.
    pub cache_bytes: Option<u64>,
    notes: Vec<Note>,
}

impl Looked {
    /// Takes in a reading that is recorded.
    pub(super) fn read(&mut self, reading: &Reading) {
        let again = |path: &str| reading.first || reading.read.iter().any(|app| app.path == path);
        self.notes.retain(|note| !again(&note.path) && !reading.removed.contains(&note.path));
        self.notes.extend(reading.notes.iter().cloned());
    }

    /// The notes, ready to show.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.iter().map(|note| note.message.clone()).collect()
    }
}
