//! The cache of one remote repository: bare, shallow, disposable.
//!
//! Owned by one `RemoteRepository`; nobody else writes to it. Invariant: throwing it away at any moment, also
//! half-way through anything here, costs one fetch and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use super::error::{SourceErrorKind, Trouble};

/// Where the commit fetched last is pinned.
pub(crate) const FETCHED: &str = "refs/landfall/fetched";

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

/// A fresh cache with only `commit` in it, and `last` if that is there, to compare with; made beside the old one and put
/// in its place.
pub(crate) fn repack(old: &Repository, path: &Path, commit: Oid, last: Option<Oid>) -> Result<(), Trouble> {
    let fresh = beside(path, "new");
    let last = last.filter(|last| old.find_commit(*last).is_ok());
    let made = fill(old, &fresh, commit, last);
    if made.is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    made?;
    discard(path)?;
    fs::rename(&fresh, path).map_err(|error| Trouble::io(&format!("replacing {}", path.display()), &error))
}

fn fill(old: &Repository, fresh: &Path, commit: Oid, last: Option<Oid>) -> Result<(), Trouble> {
    let new = Repository::init_bare(fresh)?;
    let mut pack = old.packbuilder()?;
    let commits: Vec<Oid> = [commit].into_iter().chain(last).collect();
    for commit in &commits {
        pack.insert_commit(*commit)?;
    }
    pack.write(&new.path().join("objects/pack"), 0o444)?;
    // Their parents are not here, and that is no damage.
    let shallow = new.path().join("shallow");
    let lines: String = commits.iter().map(|commit| format!("{commit}\n")).collect();
    fs::write(&shallow, lines).map_err(|error| Trouble::io("marking the cache as shallow", &error))?;
    let new = Repository::open_bare(fresh)?;
    new.reference(FETCHED, commit, true, "landfall: repacked")?;
    Ok(())
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
    for directory in ["", "refs", "refs/landfall"] {
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

/// Whether the commit and its tree are there.
pub(crate) fn holds(repository: &Repository, commit: Oid) -> bool {
    repository.find_commit(commit).and_then(|commit| commit.tree()).is_ok()
        && repository.refname_to_id(FETCHED).is_ok_and(|fetched| fetched == commit)
}

/// The commit that was fetched.
pub(crate) fn fetched(repository: &Repository) -> Result<Oid, Trouble> {
    let commit = repository.find_reference(FETCHED).and_then(|reference| Ok(reference.peel_to_commit()?.id()));
    commit.map_err(|error| Trouble::new(SourceErrorKind::Corrupt, error.message(), "it is fetched anew"))
}
