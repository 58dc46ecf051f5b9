//! Trees of versions at a stable path for others to read: the runtime that publishes.
//!
//! ```text
//! /srv/www/current            ─► .current.landfall/<leaf>       the link people name; relative, replaced by one rename
//! /srv/www/.current.landfall/
//!     owner                   whose it is: nobody else's app is published over it
//!     <leaf>/                 a whole tree, read-only; the leaf names the commit
//!     <leaf>.json             what it is of, and since when it is not current
//!     *.part, *.gone          on the way in and out; never linked to
//! ```
//!
//! The contract is git-sync's: whoever reads the link learns the commit from its last part, and sees a whole tree in whatever
//! moment they look. One writer: the agent that owns the place.
//!
//! Invariants: what has a leaf's name is complete and never changes; the link points to such a tree or does not exist; a
//! tree that was replaced stays for as long as it was promised to readers, and longer while a process is seen in it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::checkout;
use super::error::StoreError;
use super::files;
use crate::domain::ContentId;
use crate::whole;

/// Ending of what is being made.
const PART: &str = ".part";
/// Ending of what is being removed.
const GONE: &str = ".gone";
/// Ending of what is known of a tree.
const NOTE: &str = ".json";
/// Whose the place is.
const OWNER: &str = "owner";

/// A stable path, and the trees behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    link: PathBuf,
    trees: PathBuf,
    owner: String,
}

/// A tree that is laid and can be linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// The last part of its path.
    pub leaf: String,
    /// Where it is.
    pub dir: PathBuf,
}

/// What is known of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    content: ContentId,
    /// Since when another one is current.
    #[serde(default)]
    replaced_at: Option<Timestamp>,
}

impl Shelf {
    /// The place behind a link, for this owner. `link` is absolute and names something below the root.
    pub fn new(link: &Path, owner: &str) -> Result<Self, StoreError> {
        let parts = link.parent().zip(link.file_name()).filter(|_| link.is_absolute());
        let Some((parent, name)) = parts else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no absolute path of a link");
            return Err(StoreError::io("publishing", link, error));
        };
        let mut trees = OsString::from(".");
        trees.push(name);
        trees.push(".landfall");
        Ok(Self { link: link.to_owned(), trees: parent.join(trees), owner: owner.to_owned() })
    }

    /// Lays a tree behind the link, without linking to it. One that is there already is taken as it is. The leaf is `name`,
    /// or begins with it where that stands for another content.
    pub fn lay(&self, name: &str, content: &ContentId, from: &Path) -> Result<Laid, StoreError> {
        self.take()?;
        let leaf = match self.note(name) {
            Some(note) if note.content != *content && self.trees.join(name).exists() => {
                let short: String = content.as_str().chars().filter(char::is_ascii_alphanumeric).take(12).collect();
                format!("{name}-{short}")
            }
            _ => name.to_owned(),
        };
        let dir = self.trees.join(&leaf);
        if !dir.exists() {
            let part = self.trees.join(format!("{leaf}{PART}"));
            clear(&part)?;
            copy(from, &part)?;
            checkout::freeze(&part)?;
            files::sync_file_system(&part)?;
            self.write_note(&leaf, &Note { content: content.clone(), replaced_at: None })?;
            fs::rename(&part, &dir).map_err(|error| StoreError::io("publishing a tree", &dir, error))?;
            files::sync_directory(&self.trees)?;
        }
        Ok(Laid { leaf, dir })
    }

    /// Makes a laid tree the current one. Answers whether it was not before.
    pub fn switch(&self, laid: &Laid, now: Timestamp) -> Result<bool, StoreError> {
        self.take()?;
        let before = self.current()?;
        if before.as_deref() == Some(&*laid.leaf) {
            return Ok(false);
        }
        // Noted first: a tree that is current is never tidied, whatever its note says.
        if let Some(before) = &before {
            self.set_replaced(before, Some(now))?;
        }
        let part = self.trees.join(format!("link{PART}"));
        clear(&part)?;
        let doing = "replacing the link to the published tree";
        let target = Path::new(self.trees.file_name().unwrap_or_default()).join(&laid.leaf);
        symlink(target, &part).map_err(|error| StoreError::io(doing, &part, error))?;
        fs::rename(&part, &self.link).map_err(|error| StoreError::io(doing, &self.link, error))?;
        files::sync_directory(self.link.parent().unwrap_or(Path::new("/")))?;
        self.set_replaced(&laid.leaf, None)?;
        Ok(true)
    }

    /// The leaf that the link points to; `None` when there is no link. An error if something else has its name.
    pub fn current(&self) -> Result<Option<String>, StoreError> {
        let doing = "reading the link to the published tree";
        match fs::read_link(&self.link) {
            Ok(target) => Ok(target.file_name().map(|leaf| leaf.to_string_lossy().into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let what =
                    "there is a file or directory that Landfall has not made, where the link is to be: move it away";
                Err(StoreError::io(doing, &self.link, io::Error::new(io::ErrorKind::AlreadyExists, what)))
            }
            Err(error) => Err(StoreError::io(doing, &self.link, error)),
        }
    }

    /// Removes trees that were replaced: never the current one or one of the `keep` that were current last, none that was
    /// replaced less than `linger` ago, none that a process is seen in. Answers how many went, with what crashes left behind.
    pub fn tidy(&self, keep: usize, linger: Duration, now: Timestamp) -> Result<usize, StoreError> {
        self.take()?;
        let current = self.current()?;
        let mut replaced = Vec::new();
        let mut removed = 0;
        let doing = "looking at published trees";
        for entry in fs::read_dir(&self.trees).map_err(|error| StoreError::io(doing, &self.trees, error))? {
            let entry = entry.map_err(|error| StoreError::io(doing, &self.trees, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(PART) || name.ends_with(GONE) {
                clear(&entry.path())?;
                removed += 1;
            } else if let Some(leaf) = name.strip_suffix(NOTE) {
                if !self.trees.join(leaf).exists() {
                    clear(&entry.path())?;
                }
            } else if name != OWNER && current.as_deref() != Some(&*name) {
                // One that was never current counts from when it was laid.
                let noted = self.note(&name).and_then(|note| note.replaced_at);
                let laid = || entry.metadata().and_then(|about| about.modified()).ok()?.try_into().ok();
                replaced.push((noted.or_else(laid).unwrap_or(now), name));
            }
        }
        replaced.sort();
        let linger = SignedDuration::try_from(linger).unwrap_or(SignedDuration::MAX);
        let old = replaced.iter().rev().skip(keep).filter(|(since, _)| now.duration_since(*since) >= linger);
        for (_, leaf) in old {
            if is_looked_into(leaf) {
                continue;
            }
            let (tree, gone) = (self.trees.join(leaf), self.trees.join(format!("{leaf}{GONE}")));
            clear(&gone)?;
            fs::rename(&tree, &gone).map_err(|error| StoreError::io("removing a published tree", &tree, error))?;
            clear(&self.trees.join(format!("{leaf}{NOTE}")))?;
            clear(&gone)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Makes the place, and makes sure that it is this owner's.
    fn take(&self) -> Result<(), StoreError> {
        let doing = "making the place for published trees";
        fs::create_dir_all(&self.trees).map_err(|error| StoreError::io(doing, &self.trees, error))?;
        let path = self.trees.join(OWNER);
        match fs::read_to_string(&path) {
            Ok(owner) if owner.trim_end() == self.owner => Ok(()),
            Ok(owner) => {
                let owner = owner.trim_end();
                let what =
                    format!("it belongs to {owner}: publish at another path, or remove {}", self.trees.display());
                Err(StoreError::io("publishing", &self.link, io::Error::new(io::ErrorKind::AlreadyExists, what)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = self.current()?;
                // Not by chance without the right to enter: others read here.
                let open = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&self.trees, open).map_err(|error| StoreError::io(doing, &self.trees, error))?;
                let part = self.trees.join(format!("{OWNER}{PART}"));
                let written = whole::write(&path, &part, format!("{}\n", self.owner).as_bytes());
                written.map_err(|error| StoreError::io(doing, &path, error))
            }
            Err(error) => Err(StoreError::io(doing, &path, error)),
        }
    }

    fn note(&self, leaf: &str) -> Option<Note> {
        serde_json::from_slice(&fs::read(self.trees.join(format!("{leaf}{NOTE}"))).ok()?).ok()
    }

    fn write_note(&self, leaf: &str, note: &Note) -> Result<(), StoreError> {
        let path = self.trees.join(format!("{leaf}{NOTE}"));
        let part = self.trees.join(format!("{leaf}{NOTE}{PART}"));
        let bytes = serde_json::to_vec(note).map_err(|error| StoreError::io("writing", &path, error.into()))?;
        whole::write(&path, &part, &bytes).map_err(|error| StoreError::io("writing", &path, error))
    }

    fn set_replaced(&self, leaf: &str, at: Option<Timestamp>) -> Result<(), StoreError> {
        match self.note(leaf) {
            Some(note) if note.replaced_at != at => self.write_note(leaf, &Note { replaced_at: at, ..note }),
            _ => Ok(()),
        }
    }
}

/// Copies a tree: files with their right to be executed, links as they are.
fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let doing = "copying a tree to where it is published";
    fs::create_dir(to).map_err(|error| StoreError::io(doing, to, error))?;
    for entry in fs::read_dir(from).map_err(|error| StoreError::io(doing, from, error))? {
        let entry = entry.map_err(|error| StoreError::io(doing, from, error))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| StoreError::io(doing, &from, error))?;
        if kind.is_dir() {
            copy(&from, &to)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(|error| StoreError::io(doing, &from, error))?;
            symlink(target, &to).map_err(|error| StoreError::io(doing, &to, error))?;
        } else if kind.is_file() {
            fs::copy(&from, &to).map_err(|error| StoreError::io(doing, &to, error))?;
        }
    }
    Ok(())
}

/// Removes a file, a link or a whole tree; nothing there is fine.
fn clear(path: &Path) -> Result<(), StoreError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => files::remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("removing what is not needed any more", path, error))
        }
        _ => Ok(()),
    }
}

/// Whether a process of this machine that can be seen from here works in a tree or has a file of it open, in whichever
/// mount namespace: the leaf is part of the path as its own kernel entry shows it.
fn is_looked_into(leaf: &str) -> bool {
    let inside = |path: PathBuf| path.iter().any(|part| part == OsStr::new(leaf));
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let numbered = |name: &OsStr| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    processes.flatten().filter(|process| numbered(&process.file_name())).any(|process| {
        let process = process.path();
        let place = |of: &str| fs::read_link(process.join(of)).is_ok_and(inside);
        let open = || fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        place("cwd") || place("root") || open().any(|file| fs::read_link(file.path()).is_ok_and(inside))
    })
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
