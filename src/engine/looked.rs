//! What looks at a source leave to be told, beside its revision and its error: the error's word, how long the remote wants
//! to be left alone, the size of the cache, and notes on apps.
//!
//! Owned by the source's `Shared`; in memory only, the first look after a start fills it anew. Invariant: a note lasts until
//! its app is read again.

use std::time::Duration;

use crate::source::{Look, Note, Reading, SourceError};

/// Longest that a remote's wish is obeyed: its clock may be wrong by years.
const LONGEST_WISH: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    /// The word of the error that the last look ended with.
    pub error_kind: Option<&'static str>,
    /// The remote asked not to be asked again for so long.
    pub retry_after: Option<Duration>,
    /// What the cache of a remote repository takes.
    pub cache_bytes: Option<u64>,
    notes: Vec<Note>,
}

impl Looked {
    /// Takes in how a look ended.
    pub(super) fn learn(&mut self, look: &Result<Look, SourceError>, cache_bytes: Option<u64>) {
        let error = look.as_ref().err();
        self.error_kind = error.map(|error| error.kind.word());
        self.retry_after = error.and_then(|error| error.retry_after).map(|wish| wish.min(LONGEST_WISH));
        self.cache_bytes = cache_bytes;
    }

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
