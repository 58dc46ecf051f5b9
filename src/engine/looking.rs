//! Looking at one source: the looker, and what is known of the last reading.
//!
//! Shared by the source's watcher and by `plan`, which looks without recording. Invariants: one look at a time per
//! source; nothing but a look waits for a look, so what is known can be asked for on a thread that must not block.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::looked::Looked;
use crate::domain::CommitId;
use crate::source::{
    KnownApps, Look, LookLimits, Looker, ManifestReader, Reading, Seen, Snapshot, SnapshotFailure, Snapshotter,
    SourceError, SourceErrorKind,
};
use crate::store::Store;

/// The looker and what is known.
pub(super) struct Shared {
    /// Held for a whole look.
    looker: Mutex<Looker>,
    /// Held for moments only.
    memory: Mutex<Memory>,
    /// The repository, if it lies on this machine.
    local: Option<PathBuf>,
}

#[derive(Clone)]
struct Memory {
    known: Arc<KnownApps>,
    last: Option<Seen>,
    looked: Looked,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(super) fn new(looker: Looker, known: KnownApps, last: Option<Seen>) -> Self {
        let local = looker.local_repository().map(Path::to_owned);
        let memory = Memory { known: Arc::new(known), last, looked: Looked::default() };
        Self { looker: Mutex::new(looker), memory: Mutex::new(memory), local }
    }

    /// One look; blocking. With `again` the objects of the last reading turned out to be damaged.
    pub(super) fn look(&self, limits: &LookLimits, again: bool) -> Result<Look, SourceError> {
        let mut looker = self.looker.lock().unwrap_or_else(PoisonError::into_inner);
        if again {
            looker.distrust()?;
            // What was read from damaged objects is not trusted either: everything is read anew.
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).last = None;
        }
        let Memory { known, last, .. } = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let look = looker.look(last.as_ref(), &known, limits);
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).looked.cache_bytes = looker.cache_bytes();
        look
    }

    /// Lets a commit be taken although it leaves the last one behind. Blocking, while a look is under way.
    pub(super) fn approve(&self, commit: CommitId) {
        self.looker.lock().unwrap_or_else(PoisonError::into_inner).approve(commit);
    }

    /// Takes in that a reading is recorded; answers how many apps there are now.
    pub(super) fn recorded(&self, reading: &Reading) -> u32 {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut memory.known).apply(reading);
        memory.last = Some(reading.seen.clone());
        memory.looked.read(reading);
        u32::try_from(memory.known.len()).unwrap_or(u32::MAX)
    }

    /// What there is to tell of the last looks.
    pub(super) fn looked(&self) -> Looked {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).looked.clone()
    }

    /// What was read last.
    pub(super) fn last(&self) -> Option<Seen> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    /// The repository, if it lies on this machine.
    pub(super) fn local_repository(&self) -> Option<&Path> {
        self.local.as_deref()
    }
}

/// How manifests are read: the one parser there is.
pub(super) fn manifest_reader() -> ManifestReader {
    Arc::new(|name, text| crate::files::manifest::read_manifest(name, text).map_err(|errors| errors.to_string()))
}

/// How directories are snapshotted: by the store.
pub(super) fn snapshotter(store: &Arc<Store>) -> Snapshotter {
    let store = Arc::clone(store);
    Arc::new(move |path| match store.snapshot(path) {
        Ok(tree) => Ok(Snapshot { tree, objects: store.objects().to_owned() }),
        Err(error) => Err(SnapshotFailure {
            kind: if path.is_dir() { SourceErrorKind::Permission } else { SourceErrorKind::NotFound },
            what: error.to_string(),
            mend: String::new(),
        }),
    })
}
