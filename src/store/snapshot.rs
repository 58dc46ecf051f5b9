//! Takes snapshots of directories: the files as they are now, as a git tree in the store.
//!
//! What `.gitignore` files name, every `.git`, and whatever is neither file, directory nor link (sockets, devices) is left
//! out. (libgit2 reads the rules, and with it a `!rule` takes back only what the same file said.) A file is read again only if its size, times or inode changed since the last snapshot.
//!
//! Invariant: a snapshot never mixes two states of one file; a file that changes while it is read is read again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use git2::{ObjectType, Odb, Oid, Repository};

use super::error::StoreError;
use super::{Store, files, lock, shared, tree_id};
use crate::domain::TreeId;

/// Attempts to read a directory that keeps changing.
const ATTEMPTS: u32 = 5;

/// A file changed this recently may change again within the same tick of the file system's clock, unseen.
const SETTLED: Duration = Duration::from_millis(100);

/// Deeper directories are refused.
const MAX_DEPTH: usize = 64;

/// Larger files are refused: they would be read into memory whole.
const MAX_FILE: u64 = 1024 * 1024 * 1024;

/// What is known of the files of one directory, by path.
pub(crate) type FileCache = HashMap<PathBuf, Known>;

/// One file as it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    stamp: Stamp,
    blob: Oid,
}

/// What changes with a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    /// Also moves when a program sets the modification time back.
    changed: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    fn of(about: &fs::Metadata) -> Self {
        Self {
            size: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            inode: (about.dev(), about.ino()),
        }
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = UNIX_EPOCH + Duration::new(self.changed.0.unsigned_abs(), self.changed.1.unsigned_abs() as u32);
        now.duration_since(changed).is_ok_and(|age| age > SETTLED)
    }
}

/// Why an attempt failed.
enum Failed {
    /// Something moved; another attempt may see it at rest.
    Moved(PathBuf),
    For(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::For(error)
    }
}

impl Store {
    /// The tree of `directory` as it is now, durable in the store.
    pub fn snapshot(&self, directory: &Path) -> Result<TreeId, StoreError> {
        let _shared = shared(&self.access);
        let known = lock(&self.files).remove(directory).unwrap_or_default();
        let mut files = known;
        let mut moved = directory.to_path_buf();
        for _ in 0..ATTEMPTS {
            match self.snapshot_once(directory, &files) {
                Ok((tree, seen, written)) => {
                    if written {
                        files::sync_file_system(&self.objects)?;
                    }
                    lock(&self.fresh).insert(tree, Instant::now());
                    lock(&self.files).insert(directory.to_path_buf(), seen);
                    return tree_id(tree);
                }
                Err(Failed::Moved(path)) => moved = path,
                Err(Failed::For(error)) => return Err(error),
            }
            files.retain(|path, _| *path != moved);
        }
        Err(StoreError::Busy { path: moved })
    }

    fn snapshot_once(&self, directory: &Path, known: &FileCache) -> Result<(Oid, FileCache, bool), Failed> {
        let failed = |error: git2::Error| StoreError::git("taking a snapshot", directory, &error);
        // A handle of its own, made to believe that the directory is its working tree: that is how libgit2 finds the
        // `.gitignore` files. Nothing is written to the directory.
        let repository = Repository::open_bare(&self.objects).map_err(failed)?;
        let about = fs::metadata(directory).map_err(|error| StoreError::io("taking a snapshot", directory, error))?;
        if !about.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(StoreError::io("taking a snapshot", directory, error).into());
        }
        repository.set_workdir(directory, false).map_err(failed)?;
        let odb = repository.odb().map_err(failed)?;
        let mut walk = Walk {
            root: directory,
            repository: &repository,
            odb: &odb,
            known,
            seen: FileCache::new(),
            written: false,
            now: SystemTime::now(),
        };
        let tree = walk.directory(Path::new(""), 0)?;
        let tree = match tree {
            Some(tree) => tree,
            None => walk.add(ObjectType::Tree, b"", directory)?,
        };
        Ok((tree, walk.seen, walk.written))
    }
}

struct Walk<'a> {
    root: &'a Path,
    repository: &'a Repository,
    odb: &'a Odb<'a>,
    known: &'a FileCache,
    seen: FileCache,
    written: bool,
    now: SystemTime,
}

impl Walk<'_> {
    /// The tree of a directory; `None` if there is nothing in it, because git knows no empty directories.
    fn directory(&mut self, relative: &Path, depth: usize) -> Result<Option<Oid>, Failed> {
        let path = self.root.join(relative);
        if depth > MAX_DEPTH {
            let what = format!("more than {MAX_DEPTH} directories in one another");
            return Err(StoreError::TooLarge { path: path.display().to_string(), what }.into());
        }
        let mut entries: Vec<(Vec<u8>, u32, Oid)> = Vec::new();
        for entry in fs::read_dir(&path).map_err(|error| vanished(&path, error))? {
            let name = entry.map_err(|error| vanished(&path, error))?.file_name();
            let relative = relative.join(&name);
            if name.eq_ignore_ascii_case(".git") {
                continue;
            }
            if let Some((mode, id)) = self.entry(&relative, depth)? {
                entries.push((name.as_encoded_bytes().to_vec(), mode, id));
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        // Git sorts directories as if their names ended in a slash.
        let key = |(name, mode, _): &(Vec<u8>, u32, Oid)| {
            let mut key = name.clone();
            key.extend((*mode == 0o040_000).then_some(b'/'));
            key
        };
        entries.sort_by_cached_key(key);
        let mut bytes = Vec::new();
        for (name, mode, id) in entries {
            bytes.extend_from_slice(format!("{mode:o} ").as_bytes());
            bytes.extend_from_slice(&name);
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
        }
        Ok(Some(self.add(ObjectType::Tree, &bytes, &path)?))
    }

    fn entry(&mut self, relative: &Path, depth: usize) -> Result<Option<(u32, Oid)>, Failed> {
        let path = self.root.join(relative);
        let about = fs::symlink_metadata(&path).map_err(|error| vanished(&path, error))?;
        let kind = about.file_type();
        if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) || self.is_ignored(relative, kind.is_dir())? {
            return Ok(None);
        }
        if kind.is_dir() {
            return Ok(self.directory(relative, depth + 1)?.map(|id| (0o040_000, id)));
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| vanished(&path, error))?;
            let id = self.add(ObjectType::Blob, target.as_os_str().as_encoded_bytes(), &path)?;
            return Ok(Some((0o120_000, id)));
        }
        let mode = if about.mode() & 0o100 == 0 { 0o100_644 } else { 0o100_755 };
        Ok(Some((mode, self.file(relative, &path, &about)?)))
    }

    fn is_ignored(&self, relative: &Path, directory: bool) -> Result<bool, Failed> {
        // Rules like `target/` hold for directories only, and a slash at the end is how libgit2 is told.
        let mut path = relative.as_os_str().to_owned();
        if directory {
            path.push("/");
        }
        let ignored = self.repository.is_path_ignored(Path::new(&path));
        ignored.map_err(|error| StoreError::git("reading .gitignore", &self.root.join(relative), &error).into())
    }

    fn file(&mut self, relative: &Path, path: &Path, about: &fs::Metadata) -> Result<Oid, Failed> {
        let stamp = Stamp::of(about);
        let known = self.known.get(relative).filter(|known| known.stamp == stamp);
        // A compaction may have taken the blob of a file that nothing pins.
        let blob = match known.filter(|known| self.odb.exists(known.blob)) {
            Some(known) => known.blob,
            None => self.read(path, &stamp)?,
        };
        if stamp.is_settled(self.now) {
            self.seen.insert(relative.to_path_buf(), Known { stamp, blob });
        }
        Ok(blob)
    }

    fn read(&mut self, path: &Path, stamp: &Stamp) -> Result<Oid, Failed> {
        if stamp.size > MAX_FILE {
            let what = format!("{} bytes, at most {MAX_FILE} are taken", stamp.size);
            return Err(StoreError::TooLarge { path: path.display().to_string(), what }.into());
        }
        let bytes = fs::read(path).map_err(|error| vanished(path, error))?;
        let after = fs::symlink_metadata(path).map_err(|error| vanished(path, error))?;
        if Stamp::of(&after) != *stamp || bytes.len() as u64 != stamp.size {
            return Err(Failed::Moved(path.to_path_buf()));
        }
        Ok(self.add(ObjectType::Blob, &bytes, path)?)
    }

    fn add(&mut self, kind: ObjectType, bytes: &[u8], path: &Path) -> Result<Oid, StoreError> {
        let failed = |error: git2::Error| StoreError::git("storing a file", path, &error);
        let id = Oid::hash_object(kind, bytes).map_err(failed)?;
        if !self.odb.exists(id) {
            self.odb.write(kind, bytes).map_err(failed)?;
            self.written = true;
        }
        Ok(id)
    }
}

/// What was listed a moment ago and is gone, or became something else, is a change, not an error.
fn vanished(path: &Path, error: io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failed::Moved(path.to_path_buf()),
        _ => Failed::For(StoreError::io("taking a snapshot", path, error)),
    }
}
