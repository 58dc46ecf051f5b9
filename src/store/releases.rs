//! Releases: checked-out and built versions on disk.
//!
//! ```text
//!           begin                    publish
//! nothing ────────► <content>.tmp-… ────────► <content>      published: complete, read-only, found by `existing`
//!                        │ dropped                │ collect
//!                        ▼                        ▼
//!                     nothing                 <content>.gone-… ─► nothing
//! ```
//!
//! Invariant: a directory named after a content is complete and durable; it is made by one rename and removed
//! by one rename, so a crash at any moment leaves either a whole release or leftovers that the next start removes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::{Store, checkout, files, lock, oid, shared};
use crate::domain::{AppKey, ContentId, TreeId};

const MARKER: &str = "release.json";
const TREE: &str = "tree";

/// A published release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Absolute path of the root of its files.
    pub dir: PathBuf,
    /// The tree it was made from.
    pub tree: TreeId,
    /// What `publish` was told about the build.
    pub build: Option<String>,
}

/// What the marker file says.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    tree: TreeId,
    build: Option<String>,
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Releases.
    pub releases_removed: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// A collection that has begun: what is asked for from here on it does not remove, whatever it is told to keep.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Collection(u64);

/// When releases were last asked for, in numbers of collections. Those that are removed are forgotten.
#[derive(Debug, Default)]
pub(super) struct Asked {
    collections: u64,
    releases: HashMap<PathBuf, u64>,
}

/// A release that is being made. Dropped without [`Preparation::publish`] it leaves nothing.
#[derive(Debug)]
pub struct Preparation {
    /// Absolute path of the root of its files; the build runs here.
    pub dir: PathBuf,
    tree: TreeId,
    temporary: PathBuf,
    published: PathBuf,
    done: bool,
}

impl Store {
    /// Where the release of a content lies, whether it exists or not.
    pub fn release_dir(&self, key: &AppKey, content: &ContentId) -> PathBuf {
        self.app_dir(key).join(content.as_str())
    }

    /// Where the files of a content's release lie, whether it exists or not: [`Release::dir`].
    pub fn files_dir(&self, key: &AppKey, content: &ContentId) -> PathBuf {
        self.release_dir(key, content).join(TREE)
    }

    fn app_dir(&self, key: &AppKey) -> PathBuf {
        self.releases.join(key.environment.as_str()).join(key.app.as_str())
    }

    /// The published release of a content, if there is one.
    pub fn existing(&self, key: &AppKey, content: &ContentId) -> Option<Release> {
        let directory = self.release_dir(key, content);
        {
            let mut asked = lock(&self.asked);
            let now = asked.collections;
            asked.releases.insert(directory.clone(), now);
        }
        read_release(&directory)
    }

    /// Lays the files of `tree` out, to be built and then published. Everybody may read them: apps may run as another user.
    pub fn begin(&self, key: &AppKey, content: &ContentId, tree: &TreeId) -> Result<Preparation, StoreError> {
        let _shared = shared(&self.access);
        let published = self.release_dir(key, content);
        let temporary = with_suffix(&published, &format!("tmp-{:016x}", fastrand::u64(..)));
        // From here on, dropping it cleans up.
        let preparation =
            Preparation { dir: temporary.join(TREE), tree: tree.clone(), temporary, published, done: false };
        fs::create_dir_all(&preparation.dir).map_err(|error| StoreError::io("creating", &preparation.dir, error))?;
        let id = oid(tree)?;
        self.with(|repository| {
            let odb = repository.odb().map_err(|error| self.git("opening the store", &error))?;
            if !odb.exists(id) {
                return Err(StoreError::UnknownTree { tree: tree.to_string() });
            }
            checkout::write_tree(&odb, id, &preparation.dir)
        })?;
        Ok(preparation)
    }

    /// The published release of a content; lays it out and publishes it if there is none. For contents without a build.
    pub fn materialise(&self, key: &AppKey, content: &ContentId, tree: &TreeId) -> Result<Release, StoreError> {
        match self.existing(key, content) {
            Some(release) => Ok(release),
            None => self.begin(key, content, tree)?.publish(None),
        }
    }

    /// Begins a collection. Only after this may be found out what it is to keep: a version recorded before is among
    /// that, and the release of one recorded later is asked for later.
    pub fn begin_collection(&self) -> Collection {
        let mut asked = lock(&self.asked);
        asked.collections += 1;
        Collection(asked.collections)
    }

    /// Removes every release that `keep` does not want and nobody has asked for since the collection began.
    /// Releases under construction are not touched.
    pub fn collect(
        &self,
        begun: Collection,
        keep: &dyn Fn(&AppKey, &ContentId) -> bool,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for (key, directory) in self.app_dirs()? {
            for path in directories(&directory)? {
                let content = file_name(&path).parse::<ContentId>();
                if content.is_ok_and(|content| !keep(&key, &content))
                    && let Some(aside) = self.put_aside(begun, &path)?
                {
                    collected.bytes += remove_release(&aside)?;
                    collected.releases_removed += 1;
                }
            }
            // Fails while something is left in it, which is the point.
            let _ = fs::remove_dir(&directory);
        }
        Ok(collected)
    }

    /// Takes a release out of sight by one rename, unless it was asked for meanwhile.
    fn put_aside(&self, begun: Collection, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        // Held over the rename: whoever asks next finds either all of the release or nothing.
        let mut asked = lock(&self.asked);
        if asked.releases.get(path).is_some_and(|at| *at >= begun.0) {
            return Ok(None);
        }
        let aside = with_suffix(path, &format!("gone-{:016x}", fastrand::u64(..)));
        fs::rename(path, &aside).map_err(|error| StoreError::io("removing a release", path, error))?;
        asked.releases.remove(path);
        Ok(Some(aside))
    }

    fn app_dirs(&self) -> Result<Vec<(AppKey, PathBuf)>, StoreError> {
        let mut all = Vec::new();
        for environment in directories(&self.releases)? {
            let Ok(name) = file_name(&environment).parse() else { continue };
            for app in directories(&environment)? {
                if let Ok(app_name) = file_name(&app).parse() {
                    all.push((AppKey::new(std::clone::Clone::clone(&name), app_name), app));
                }
            }
        }
        Ok(all)
    }

    /// Removes what killed preparations and collections left. Only at the start, when nobody else is at work.
    pub(crate) fn remove_release_leftovers(&self) {
        for (_, directory) in self.app_dirs().unwrap_or_default() {
            for path in directories(&directory).unwrap_or_default() {
                let name = file_name(&path);
                if (name.contains(".tmp-") || name.contains(".gone-"))
                    && let Err(error) = files::remove_tree(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "leftovers of a release could not be removed");
                }
            }
        }
    }
}

impl Preparation {
    /// Makes the release durable, read-only and visible. `build` says what was built (and by what), for [`Release::build`].
    /// If somebody else has published the same content meanwhile, theirs stays and is returned.
    pub fn publish(mut self, build: Option<String>) -> Result<Release, StoreError> {
        checkout::freeze(&self.dir)?;
        let marker = Marker { tree: self.tree.clone(), build };
        let path = self.temporary.join(MARKER);
        let bytes = serde_json::to_vec(&marker).map_err(|error| StoreError::io("writing", &path, error.into()))?;
        fs::write(&path, bytes).map_err(|error| StoreError::io("writing", &path, error))?;
        // Everything of the release is on disk before its name is.
        files::sync_file_system(&self.temporary)?;
        match fs::rename(&self.temporary, &self.published) {
            Ok(()) => self.done = true,
            Err(error) => match read_release(&self.published) {
                Some(release) => return Ok(release),
                None => return Err(StoreError::io("publishing a release", &self.published, error)),
            },
        }
        if let Some(parent) = self.published.parent() {
            files::sync_directory(parent)?;
        }
        Ok(Release { dir: self.published.join(TREE), tree: marker.tree, build: marker.build })
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        match files::remove_tree(&self.temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = self.temporary.display();
                tracing::warn!(%path, %error, "an unfinished release could not be removed; the next start tries again");
            }
        }
    }
}

fn read_release(directory: &Path) -> Option<Release> {
    let marker: Marker = serde_json::from_slice(&fs::read(directory.join(MARKER)).ok()?).ok()?;
    let dir = directory.join(TREE);
    dir.is_dir().then_some(Release { dir, tree: marker.tree, build: marker.build })
}

/// Off the disk. Returns the bytes its files took.
fn remove_release(aside: &Path) -> Result<u64, StoreError> {
    let bytes = size(aside);
    files::remove_tree(aside).map_err(|error| StoreError::io("removing a release", aside, error))?;
    Ok(bytes)
}

fn size(path: &Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else { return 0 };
    if !about.is_dir() {
        return about.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(format!("{}.{suffix}", file_name(path)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn directories(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("looking into", path, error)),
    };
    let real = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.flatten().filter(real).map(|entry| entry.path()).collect())
}
