//! The cache of one remote repository: bare, shallow, disposable.
//!
//! Owned by one `RemoteRepository`; nobody else writes to it. Invariant: throwing it away at any moment, also
//! half-way through anything here, costs one fetch and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository};

use super::error::{SourceErrorKind, Trouble};

/// Where the commit fetched last is pinned.
pub(crate) const FETCHED: &str = "refs/landfall/fetched";

/// Below this the commits of submodules are pinned.
pub(crate) const SUBMODULES: &str = "refs/landfall/submodules/";

/// What a repacked cache still holds.
#[derive(Debug)]
pub(crate) struct Keep {
    /// The commit fetched last.
    pub(crate) commit: Oid,
    /// The commit or tree read before it, to compare with; where they are gone there is nothing to compare.
    pub(crate) before: Vec<Oid>,
}

/// Each fetch leaves a pack; with more than this the cache is packed anew, because each read asks every pack.
const MAX_PACKS: usize = 24;

/// Opens the cache at `path`, making it if there is none that can be opened.
pub(crate) fn open(path: &Path) -> Result<Repository, Trouble> {
    remove_leftovers(path);
    if path.exists() {
        match Repository::open_bare(path) {
            Ok(repository) => return Ok(repository),
            Err(error) => {
                tracing::warn!(cache = %path.display(), reason = %error.message(), "cache is damaged, starting a new one");
                discard(path)?;
            }
        }
    }
    let doing = format!("creating {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Trouble::io(&doing, &error))?;
    }
    Ok(Repository::init_bare(path)?)
}

/// Throws the cache away: out of the way at once, off the disk after.
pub(crate) fn discard(path: &Path) -> Result<(), Trouble> {
    let aside = beside(path, "old");
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Trouble::io(&format!("moving {} away", path.display()), &error)),
    }
    if let Err(error) = remove(&aside) {
        tracing::warn!(path = %aside.display(), %error, "an old cache could not be removed");
    }
    Ok(())
}

/// Whether fetches have left so many packs that it is time for [`repack`].
pub(crate) fn has_grown(path: &Path) -> bool {
    let packs = fs::read_dir(path.join("objects/pack"));
    packs.is_ok_and(|entries| {
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "pack")).count() > MAX_PACKS
    })
}

/// A fresh cache with only what is to be kept, and the submodules; made beside the old one and put in its place.
pub(crate) fn repack(old: &Repository, path: &Path, keep: &Keep) -> Result<(), Trouble> {
    let fresh = beside(path, "new");
    let made = fill(old, &fresh, keep);
    if made.is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    made?;
    discard(path)?;
    fs::rename(&fresh, path).map_err(|error| Trouble::io(&format!("replacing {}", path.display()), &error))
}

fn fill(old: &Repository, fresh: &Path, keep: &Keep) -> Result<(), Trouble> {
    let new = Repository::init_bare(fresh)?;
    let mut pins = vec![(FETCHED.to_owned(), keep.commit)];
    for reference in old.references_glob(&format!("{SUBMODULES}*"))?.flatten() {
        pins.extend(reference.name().ok().map(str::to_owned).zip(reference.target()));
    }
    let odb = old.odb()?;
    let before = keep.before.iter().copied().filter(|id| odb.exists(*id));
    let all: Vec<Oid> = pins.iter().map(|(_, commit)| *commit).chain(before).collect();
    let mut pack = old.packbuilder()?;
    let mut shallow = String::new();
    for id in &all {
        if odb.read_header(*id)?.1 == ObjectType::Commit {
            pack.insert_commit(*id)?;
            shallow.push_str(&format!("{id}\n"));
        } else {
            pack.insert_tree(*id)?;
        }
    }
    // A tag that led to the commit stays: its signature may be what makes the commit trusted.
    let fetched = old.refname_to_id(FETCHED)?;
    if odb.read_header(fetched)?.1 == ObjectType::Tag {
        pack.insert_object(fetched, None)?;
        pins[0].1 = fetched;
    }
    pack.write(&new.path().join("objects/pack"), 0o444)?;
    // The parents of the commits are not here, and that is no damage.
    fs::write(new.path().join("shallow"), shallow)
        .map_err(|error| Trouble::io("marking the cache as shallow", &error))?;
    let new = Repository::open_bare(fresh)?;
    for (name, commit) in pins {
        new.reference(&name, commit, true, "landfall: repacked")?;
    }
    Ok(())
}

/// The bytes of all files of a cache.
pub(crate) fn size(path: &Path) -> u64 {
    let mut total = 0;
    let mut todo = vec![path.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => todo.push(entry.path()),
                Ok(about) => total += about.len(),
                // Gone between the listing and the look.
                Err(_) => {}
            }
        }
    }
    total
}

/// Removes at the agent's start what no configured source owns: caches of sources that are gone, and what a killed agent
/// left beside the others. `names` are those of the configured sources.
pub fn sweep(root: &Path, names: &[&str]) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let kept = name.to_str().and_then(|name| name.strip_suffix(".git")).is_some_and(|name| names.contains(&name));
        if kept {
            remove_leftovers(&entry.path());
        } else if let Err(error) = remove(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a leftover in the cache directory could not be removed");
        }
    }
}

/// Removes the cache of a source that is not followed any more; its owner is gone.
pub fn forget(root: &Path, name: &str) {
    let cache = root.join(format!("{name}.git"));
    remove_leftovers(&cache);
    match remove(&cache) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %cache.display(), %error, "the cache of a source that is gone could not be removed; the next start does it");
        }
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}-{:016x}", fastrand::u64(..)));
    path.with_file_name(name)
}

/// Removes what a killed fetch, repacking or removal left behind. There is one agent per data directory, and one
/// owner per cache, so nothing here is somebody else's work in progress.
fn remove_leftovers(path: &Path) {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let other = entry.file_name();
            let rest = other.to_str().and_then(|other| other.strip_prefix(name));
            if rest.is_some_and(|rest| rest.starts_with(".old-") || rest.starts_with(".new-")) {
                let _ = remove(&entry.path());
            }
        }
    }
    remove_files(&path.join("objects/pack"), &|name, path| {
        let orphan = name.ends_with(".pack") && !path.with_extension("idx").exists();
        orphan || !(name.starts_with("pack-") && (name.ends_with(".pack") || name.ends_with(".idx")))
    });
    let locks: &dyn Fn(&str, &Path) -> bool = &|name, _| name.ends_with(".lock");
    for directory in ["", "refs", "refs/landfall", "refs/landfall/submodules"] {
        remove_files(&path.join(directory), locks);
    }
}

/// Whatever it is: where a cache should be, somebody may have put a file.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn remove_files(directory: &Path, unwanted: &dyn Fn(&str, &Path) -> bool) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if entry.file_type().is_ok_and(|kind| kind.is_file()) && unwanted(&name.to_string_lossy(), &entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the commit and its tree are there, and pinned by way of `head`: the commit itself, or a tag.
pub(crate) fn holds(repository: &Repository, commit: Oid, head: Oid, pin: &str) -> bool {
    repository.find_commit(commit).and_then(|commit| commit.tree()).is_ok()
        && repository.refname_to_id(pin).is_ok_and(|fetched| fetched == head)
}

/// The commit that was fetched and pinned.
pub(crate) fn fetched(repository: &Repository, pin: &str) -> Result<Oid, Trouble> {
    let commit = repository.find_reference(pin).and_then(|reference| Ok(reference.peel_to_commit()?.id()));
    commit.map_err(|error| Trouble::new(SourceErrorKind::Corrupt, error.message(), "it is fetched anew"))
}
