//! Takes trees over from another object database, as one pack.
//!
//! ```text
//! check (names, links, size) ─► list what is missing ─► one pack, made aside ─► synced ─► moved in ─► composed trees
//! ```
//!
//! Invariant: a tree is in the store only with everything below it. So the search for missing objects stops at each
//! tree that is there, and a pack becomes visible complete or not at all.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use git2::{ObjectType, Odb, OdbLookupFlags, Oid, Repository};

use super::error::StoreError;
use super::links::Links;
use super::{Store, files, lock, oid, shared, tree_id};
use crate::domain::TreeId;

/// Deeper directories than this are refused.
const MAX_DEPTH: usize = 64;

/// More files and directories than this in one app are refused: a crafted tree of a few kilobytes can unfold to
/// billions of them.
const MAX_ENTRIES: u64 = 500_000;

/// From so many objects on, packing uses all processors.
const BIG: usize = 2_000;

/// An app's files: directory (empty for the root) and tree, disjoint. One part at the root is taken as it is.
pub type Parts<'a> = &'a [(String, TreeId)];

impl Store {
    /// Copies the trees from the repository at `from`, whatever of them is not here yet, and returns for each
    /// app the one tree its parts make up. Nothing of the list is taken over if one of it is refused.
    pub fn import(&self, from: &Path, apps: &[Parts<'_>]) -> Result<Vec<TreeId>, StoreError> {
        let _shared = shared(&self.access);
        let from_objects = if from.join("objects").is_dir() { from.join("objects") } else { from.join(".git/objects") };
        let corrupt = |error: git2::Error| StoreError::git("copying trees into the store", from, &error);
        // A handle of its own: an alternate stays with a handle for good, and other users must not see through it.
        let repository = Repository::open_bare(&self.objects).map_err(corrupt)?;
        let both = repository.odb().map_err(corrupt)?;
        both.add_disk_alternate(&from_objects.to_string_lossy()).map_err(corrupt)?;
        for parts in apps {
            check(&both, parts).map_err(|error| self.relate(error, from))?;
        }
        let missing = self.with(|store| {
            let own = store.odb().map_err(|error| self.git("opening the store", &error))?;
            // Packs that came after this handle was opened.
            own.refresh().map_err(|error| self.git("opening the store", &error))?;
            let mut missing = Missing { own: &own, both: &both, found: Vec::new(), seen: HashSet::new() };
            for (directory, tree) in apps.iter().flat_map(|parts| parts.iter()) {
                missing.collect(oid(tree)?, directory, 0).map_err(|error| self.relate(error, from))?;
            }
            Ok(missing.found)
        })?;
        if !missing.is_empty() {
            self.add_pack(&repository, &missing)?;
        }
        let mut composed = Vec::with_capacity(apps.len());
        let mut written = false;
        for parts in apps {
            composed.push(match parts {
                [(directory, tree)] if directory.is_empty() => oid(tree)?,
                parts => {
                    written = true;
                    self.compose(parts)?
                }
            });
        }
        if written {
            files::sync_file_system(&self.objects)?;
        }
        let now = Instant::now();
        lock(&self.fresh).extend(composed.iter().map(|id| (*id, now)));
        composed.into_iter().map(tree_id).collect()
    }

    /// Damage shows up with the path of the store; where objects come from elsewhere it is that place which is damaged.
    fn relate(&self, error: StoreError, from: &Path) -> StoreError {
        match error {
            StoreError::Corrupt { doing, what, .. } => StoreError::Corrupt { doing, path: from.to_path_buf(), what },
            other => other,
        }
    }

    /// Packs `objects` as seen by `repository`, adds the pack to the store and says which files it is.
    pub(crate) fn add_pack(
        &self,
        repository: &Repository,
        objects: &[(Oid, String)],
    ) -> Result<Vec<PathBuf>, StoreError> {
        let staging = self.objects.join(format!("{}{:016x}", files::INCOMING, fastrand::u64(..)));
        fs::create_dir(&staging).map_err(|error| StoreError::io("creating", &staging, error))?;
        let result = self.pack_into(repository, objects, &staging).and_then(|()| self.move_in(&staging));
        let _ = fs::remove_dir_all(&staging);
        result
    }

    fn pack_into(&self, repository: &Repository, objects: &[(Oid, String)], staging: &Path) -> Result<(), StoreError> {
        let failed = |error: git2::Error| self.git("packing trees", &error);
        let mut pack = repository.packbuilder().map_err(failed)?;
        pack.set_threads(if objects.len() > BIG { 0 } else { 1 });
        for (id, name) in objects {
            pack.insert_object(*id, Some(name)).map_err(failed)?;
        }
        pack.write(staging, 0o444).map_err(failed)
    }

    /// Pack first, index last: objects are visible from the moment the index is there.
    fn move_in(&self, staging: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let target = self.objects.join("objects/pack");
        let mut entries: Vec<_> = fs::read_dir(staging)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>())
            .map_err(|error| StoreError::io("looking into", staging, error))?;
        entries.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "idx"));
        files::sync_file_system(staging)?;
        let mut moved = Vec::with_capacity(entries.len());
        for path in entries {
            let Some(name) = path.file_name() else { continue };
            let there = target.join(name);
            fs::rename(&path, &there).map_err(|error| StoreError::io("moving a pack in", &path, error))?;
            moved.push(there);
        }
        files::sync_directory(&target)?;
        Ok(moved)
    }

    /// Writes the trees above the parts. The parts are in the store already.
    fn compose(&self, parts: Parts<'_>) -> Result<Oid, StoreError> {
        let mut root = Level::default();
        for (directory, tree) in parts {
            root.insert(directory, oid(tree)?);
        }
        self.with(|repository| root.write(repository).map_err(|error| self.git("composing a tree", &error)))
    }
}

/// A directory above the parts.
#[derive(Default)]
struct Level {
    levels: BTreeMap<String, Level>,
    tree: Option<Oid>,
}

impl Level {
    fn insert(&mut self, path: &str, tree: Oid) {
        let mut here = self;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            here = here.levels.entry(part.to_owned()).or_default();
        }
        here.tree = Some(tree);
    }

    fn write(&self, repository: &Repository) -> Result<Oid, git2::Error> {
        if let Some(tree) = self.tree {
            return Ok(tree);
        }
        let mut builder = repository.treebuilder(None)?;
        for (name, level) in &self.levels {
            builder.insert(name, level.write(repository)?, 0o040_000)?;
        }
        builder.write()
    }
}

/// Finds what the store does not have.
struct Missing<'a> {
    own: &'a Odb<'a>,
    both: &'a Odb<'a>,
    found: Vec<(Oid, String)>,
    seen: HashSet<Oid>,
}

impl Missing<'_> {
    fn collect(&mut self, tree: Oid, name: &str, depth: usize) -> Result<(), StoreError> {
        if !self.want(tree, name) || depth > MAX_DEPTH {
            return Ok(());
        }
        for entry in entries(self.both, tree)? {
            match entry.kind {
                Kind::Directory => self.collect(entry.id, &entry.name, depth + 1)?,
                Kind::File | Kind::Executable | Kind::Link => {
                    self.want(entry.id, &entry.name);
                }
                Kind::Submodule => {}
            }
        }
        Ok(())
    }

    fn want(&mut self, id: Oid, name: &str) -> bool {
        // Without the refresh of the list of packs that a miss otherwise causes, object by object.
        let wanted = self.seen.insert(id) && !self.own.exists_ext(id, OdbLookupFlags::NO_REFRESH);
        if wanted {
            self.found.push((id, name.to_owned()));
        }
        wanted
    }
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A file that may be executed.
    Executable,
    /// A symbolic link.
    Link,
    /// A commit of another repository: left out, as `git archive` does.
    Submodule,
}

/// An entry of a tree.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) raw_name: Vec<u8>,
    pub(crate) id: Oid,
    pub(crate) kind: Kind,
}

/// The entries of a tree, each with a name fit for a disk.
pub(crate) fn entries(odb: &Odb<'_>, tree: Oid) -> Result<Vec<Entry>, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt { doing: "reading a tree".into(), path: "objects".into(), what };
    let object = odb.read(tree).map_err(|error| corrupt(error.message().to_owned()))?;
    if object.kind() != ObjectType::Tree {
        return Err(corrupt(format!("{tree} is not a tree")));
    }
    parse(object.data())
        .ok_or_else(|| corrupt(format!("tree {tree} is malformed")))?
        .into_iter()
        .map(refuse_bad)
        .collect()
}

fn parse(mut bytes: &[u8]) -> Option<Vec<(u32, Vec<u8>, Oid)>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
        let zero = space + 1 + bytes[space + 1..].iter().position(|b| *b == 0)?;
        let (entry, rest) = bytes.split_at_checked(zero + 21)?;
        entries.push((mode, entry[space + 1..zero].to_vec(), Oid::from_bytes(&entry[zero + 1..]).ok()?));
        bytes = rest;
    }
    Some(entries)
}

fn refuse_bad((mode, raw_name, id): (u32, Vec<u8>, Oid)) -> Result<Entry, StoreError> {
    let name = String::from_utf8_lossy(&raw_name).into_owned();
    let kind = match mode {
        0o040_000 => Some(Kind::Directory),
        0o120_000 => Some(Kind::Link),
        0o160_000 => Some(Kind::Submodule),
        // Group-writable files are what very old versions of git wrote.
        0o100_644 | 0o100_664 => Some(Kind::File),
        0o100_755 => Some(Kind::Executable),
        _ => None,
    };
    let bad = if name.is_empty() || name == "." || name == ".." || raw_name.contains(&b'/') {
        Some("its name would lead elsewhere".to_owned())
    } else if name.eq_ignore_ascii_case(".git") {
        Some("`.git` is not part of a tree".to_owned())
    } else if kind.is_none() {
        Some(format!("its mode {mode:o} is none that git knows"))
    } else {
        None
    };
    match (bad, kind) {
        (None, Some(kind)) => Ok(Entry { name, raw_name, id, kind }),
        (what, _) => Err(StoreError::BadEntry { path: name, what: what.unwrap_or_default() }),
    }
}

/// Checks an app's files: names, size, and that no link leads outside.
fn check(odb: &Odb<'_>, parts: Parts<'_>) -> Result<(), StoreError> {
    let mut checker = Checker { odb, links: Links::default(), entries: 0 };
    for (directory, tree) in parts {
        checker.walk(oid(tree)?, directory, 0)?;
    }
    checker.links.check()
}

struct Checker<'a> {
    odb: &'a Odb<'a>,
    links: Links,
    entries: u64,
}

impl Checker<'_> {
    fn walk(&mut self, tree: Oid, path: &str, depth: usize) -> Result<(), StoreError> {
        if depth > MAX_DEPTH {
            let what = format!("more than {MAX_DEPTH} directories in one another");
            return Err(StoreError::TooLarge { path: path.to_owned(), what });
        }
        let entries = entries(self.odb, tree).map_err(|error| at(path, error))?;
        self.entries += entries.len() as u64;
        if self.entries > MAX_ENTRIES {
            let what = format!("more than {MAX_ENTRIES} files and directories");
            return Err(StoreError::TooLarge { path: path.to_owned(), what });
        }
        for entry in entries {
            let path = if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
            match entry.kind {
                Kind::Directory => self.walk(entry.id, &path, depth + 1)?,
                Kind::Link => {
                    let target = self
                        .odb
                        .read(entry.id)
                        .map_err(|error| StoreError::git("reading a symbolic link", Path::new(&path), &error))?;
                    self.links.insert(path, String::from_utf8_lossy(target.data()).into_owned());
                }
                Kind::File | Kind::Executable => {}
                Kind::Submodule => tracing::debug!(%path, "a submodule is left out"),
            }
        }
        Ok(())
    }
}

/// Puts the directory before the name in an error about an entry.
fn at(directory: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::BadEntry { path, what } if !directory.is_empty() => {
            StoreError::BadEntry { path: format!("{directory}/{path}"), what }
        }
        other => other,
    }
}
