//! Making files durable, and clearing up after writers that were killed.

use std::fs::{self, File};
use std::path::Path;

use super::error::StoreError;

/// Makes the entries of `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    let sync = || File::open(directory)?.sync_all();
    sync().map_err(|error| StoreError::io("making a directory durable", directory, error))
}

/// Makes everything on the file system of `path` durable. The journal is written once for all files, so that already for
/// five small ones this takes a third of what syncing each takes (medians 1.8 and 5.9 ms while others write, 0.4 and
/// 0.9 ms on a quiet disk); for the thousands of a release the difference is seconds.
pub(crate) fn sync_file_system(path: &Path) -> Result<(), StoreError> {
    let sync = || {
        let file = File::open(path)?;
        nix::unistd::syncfs(&file).map_err(std::io::Error::from)
    };
    sync().map_err(|error| StoreError::io("making files durable", path, error))
}

/// Removes a directory and all below it, whatever its permissions say. Never follows a symbolic link.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Lets the owner write into every directory again.
fn unlock(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

/// Name prefix of directories in which packs are made before they are moved into place.
pub(crate) const INCOMING: &str = "incoming-";

/// Removes what killed writes left in a repository: there is one agent per data directory, so nobody else is writing.
pub(crate) fn remove_object_leftovers(repository: &Path) -> Result<(), StoreError> {
    for_each_entry(repository, &mut |name, path| {
        if name.starts_with(INCOMING) {
            let _ = fs::remove_dir_all(path);
        }
        if name.ends_with(".lock") {
            let _ = fs::remove_file(path);
        }
    })?;
    for_each_entry(&repository.join("objects"), &mut |name, path| {
        if name.starts_with("tmp_obj") {
            let _ = fs::remove_file(path);
        }
    })?;
    for_each_entry(&repository.join("objects/pack"), &mut |name, path| {
        let orphan = name.ends_with(".pack") && !path.with_extension("idx").exists();
        if orphan || !name.starts_with("pack-") {
            let _ = fs::remove_file(path);
        }
    })
}

fn for_each_entry(directory: &Path, visit: &mut dyn FnMut(&str, &Path)) -> Result<(), StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("looking into", directory, error)),
    };
    for entry in entries.flatten() {
        visit(&entry.file_name().to_string_lossy(), &entry.path());
    }
    Ok(())
}
