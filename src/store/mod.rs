//! The store: file trees of recorded versions in `store.git`, and releases laid out on disk.
//!
//! Owned by the controller; one per data directory. Blocking: call it on a thread that may block. Neighbours:
//! takes over trees from any object database it is pointed at (a source's repository or cache), and knows nothing
//! of sources.
//!
//! ```text
//! import ─► pin ─► … ─► unpin ─► compact          trees, in store.git
//! begin ─► (build) ─► publish ─► … ─► collect     releases, in releases/<env>/<app>/<content>/
//!    └─► dropped: nothing is left
//! ```
//!
//! Invariants:
//! - A tree that is in the store is there with everything below it; what is pinned stays.
//! - A release is published by one rename; what has that name is complete and never changes again.
//! - Nothing in a tree that is imported points or is written outside of it.

mod checkout;
mod compact;
mod contents;
mod error;
mod files;
mod import;
mod links;
mod patch;
mod pins;
mod releases;
mod shelf;
mod snapshot;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

use git2::{Oid, Repository};

pub use compact::Compacted;
pub use contents::Difference;
pub use error::StoreError;
pub use import::Parts;
pub use patch::{Bounds, FilePatch, PatchKind, TreePatch};
pub use releases::{Collected, Collection, Preparation, Release};
pub use shelf::{Laid, Shelf};

use crate::domain::TreeId;
use snapshot::FileCache;

/// Trees and releases of one data directory. Shared between threads.
#[derive(Debug)]
pub struct Store {
    /// `store.git`
    objects: PathBuf,
    /// `releases`
    releases: PathBuf,
    /// Open handles that wait for their next use; opening one costs more than most uses.
    idle: Mutex<Vec<Handle>>,
    /// Shared by everything that reads or adds objects, exclusive for what removes them.
    access: RwLock<()>,
    /// Trees that were added and not yet pinned: a compaction must not take them away in between.
    fresh: Mutex<HashMap<Oid, Instant>>,
    /// Releases somebody has asked for, so that a collection does not take them away in the same moment.
    asked: Mutex<releases::Asked>,
    /// What is known of files in snapshotted directories.
    files: Mutex<HashMap<PathBuf, FileCache>>,
}

/// `Repository` in a coat that says what it is when printed.
struct Handle(Repository);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

/// Handles kept open at most.
const IDLE: usize = 8;

impl Store {
    /// Opens the store of `data_dir`, creating it if there is none, and removes what killed writes left behind.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let objects = data_dir.join("store.git");
        let releases = data_dir.join("releases");
        std::fs::create_dir_all(&releases).map_err(|error| StoreError::io("creating", &releases, error))?;
        let store = Self {
            objects,
            releases,
            idle: Mutex::default(),
            access: RwLock::default(),
            fresh: Mutex::default(),
            asked: Mutex::default(),
            files: Mutex::default(),
        };
        files::remove_object_leftovers(&store.objects)?;
        if !store.objects.join("HEAD").exists() {
            Repository::init_bare(&store.objects).map_err(|error| store.git("creating the store", &error))?;
            files::sync_directory(data_dir)?;
        }
        store.with(|_| Ok(()))?;
        store.remove_release_leftovers();
        Ok(store)
    }

    /// The repository itself, for readers of its object database.
    pub fn objects(&self) -> &Path {
        &self.objects
    }

    /// Whether `tree` is in the store; if it is, everything below it is too.
    pub fn has_tree(&self, tree: &TreeId) -> bool {
        let Ok(id) = oid(tree) else { return false };
        self.with(|repository| Ok(repository.find_tree(id).is_ok())).unwrap_or(false)
    }

    /// Runs `work` with an open handle. libgit2's handles are for one thread at a time.
    fn with<T>(&self, work: impl FnOnce(&Repository) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let waiting = lock(&self.idle).pop();
        let handle = match waiting {
            Some(handle) => handle,
            None => {
                Handle(Repository::open_bare(&self.objects).map_err(|error| self.git("opening the store", &error))?)
            }
        };
        let result = work(&handle.0);
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE {
            idle.push(handle);
        }
        result
    }

    fn git(&self, doing: &str, error: &git2::Error) -> StoreError {
        StoreError::git(doing, &self.objects, error)
    }
}

/// A lock whose holder panicked guards data that is still fit to use: every change here is one statement.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shared(lock: &RwLock<()>) -> std::sync::RwLockReadGuard<'_, ()> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn oid(tree: &TreeId) -> Result<Oid, StoreError> {
    Oid::from_str(tree.as_str()).map_err(|_| StoreError::UnknownTree { tree: tree.to_string() })
}

fn tree_id(oid: Oid) -> Result<TreeId, StoreError> {
    TreeId::try_from(oid.to_string()).map_err(|tree| StoreError::UnknownTree { tree })
}
