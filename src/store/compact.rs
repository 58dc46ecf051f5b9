//! Frees the space of trees that no recorded version needs any more.
//!
//! What is still needed is packed anew beside the old packs; only when that pack is durable are the old ones removed.
//! A crash in between leaves everything twice, which the next compaction mends.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use git2::{Odb, Oid};

use super::error::StoreError;
use super::import::{Kind, entries};
use super::{Store, files, lock, oid};
use crate::domain::TreeId;

/// Trees added but never pinned (a directory's snapshot that held nothing new) are kept this long.
const FRESH: Duration = Duration::from_secs(3600);

/// Each import leaves a pack, and each lookup asks every pack.
const MANY_PACKS: usize = 50;

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Objects that are still needed.
    pub objects_kept: u64,
    /// Size of the object database before, in bytes.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

impl Store {
    /// Whether so many packs have come together that [`Store::compact`] pays.
    pub fn wants_compaction(&self) -> bool {
        self.packs().iter().filter(|path| path.extension().is_some_and(|e| e == "pack")).count() > MANY_PACKS
    }

    /// Drops every object that neither a pin, nor a tree of `wanted`, nor one added within the last hour needs.
    /// Pin all recorded versions first. Everything else on the store waits meanwhile.
    pub fn compact(&self, wanted: &[TreeId]) -> Result<Compacted, StoreError> {
        let _exclusive = self.access.write().unwrap_or_else(PoisonError::into_inner);
        // Asked for before anything else: pins of versions recorded by now.
        let mut roots: Vec<Oid> = Vec::new();
        for (_, _, tree) in self.pinned()? {
            roots.push(oid(&tree)?);
        }
        for tree in wanted.iter().filter(|tree| self.has_tree(tree)) {
            roots.push(oid(tree)?);
        }
        {
            let mut fresh = lock(&self.fresh);
            fresh.retain(|_, added| added.elapsed() < FRESH);
            roots.extend(fresh.keys());
        }
        let old: Vec<PathBuf> = self.packs().into_iter().chain(self.loose()).collect();
        let bytes_before = total(&old);
        let (kept, new) = self.with(|repository| {
            let odb = repository.odb().map_err(|error| self.git("opening the store", &error))?;
            let mut kept = Kept { odb: &odb, seen: HashSet::new(), objects: Vec::new() };
            for root in roots {
                kept.add(root, "")?;
            }
            let new = if kept.objects.is_empty() { Vec::new() } else { self.add_pack(repository, &kept.objects)? };
            Ok((kept.objects, new))
        })?;
        // A pack's name tells its content: when nothing changed, the new one is one of the old ones.
        let mut doomed: Vec<&PathBuf> = old.iter().filter(|path| !new.contains(*path)).collect();
        // Index first: a pack without an index is not looked at.
        doomed.sort_by_key(|path| path.extension().is_none_or(|extension| extension != "idx"));
        for path in doomed {
            fs::remove_file(path).map_err(|error| StoreError::io("removing old objects", path, error))?;
        }
        files::sync_directory(&self.objects.join("objects/pack"))?;
        // They have the old packs mapped.
        lock(&self.idle).clear();
        let left: Vec<PathBuf> = self.packs().into_iter().chain(self.loose()).collect();
        Ok(Compacted { objects_kept: kept.len() as u64, bytes_before, bytes_after: total(&left) })
    }
}

impl Store {
    /// The files of all packs.
    fn packs(&self) -> Vec<PathBuf> {
        let pack = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pack-"));
        list(&self.objects.join("objects/pack")).into_iter().filter(pack).collect()
    }

    /// The files of all objects outside of packs: `objects/ab/cdef…`.
    fn loose(&self) -> Vec<PathBuf> {
        let two_digits = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
        let directories = list(&self.objects.join("objects")).into_iter().filter(two_digits);
        directories.flat_map(|directory| list(&directory)).collect()
    }
}

fn list(directory: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn total(paths: &[PathBuf]) -> u64 {
    paths.iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// Everything below a set of trees.
struct Kept<'a> {
    odb: &'a Odb<'a>,
    seen: HashSet<Oid>,
    objects: Vec<(Oid, String)>,
}

impl Kept<'_> {
    fn add(&mut self, tree: Oid, name: &str) -> Result<(), StoreError> {
        if !self.seen.insert(tree) {
            return Ok(());
        }
        self.objects.push((tree, name.to_owned()));
        for entry in entries(self.odb, tree)? {
            match entry.kind {
                Kind::Directory => self.add(entry.id, &entry.name)?,
                Kind::File | Kind::Executable | Kind::Link => {
                    if self.seen.insert(entry.id) {
                        self.objects.push((entry.id, entry.name));
                    }
                }
                Kind::Submodule => {}
            }
        }
        Ok(())
    }
}
