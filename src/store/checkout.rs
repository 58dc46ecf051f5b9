//! Writes a tree's files to disk, and makes them read-only when they are finished.
//!
//! No filters, no line-end conversion, no attributes: the bytes of the commit are the bytes on disk.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use git2::{Odb, Oid};

use super::error::StoreError;
use super::import::{Kind, entries};

/// Writes the entries of `tree` into the empty directory `directory`. Nothing that is written is ever followed: each
/// file is created anew, and the tree's links were checked when it was imported.
pub(crate) fn write_tree(odb: &Odb<'_>, tree: Oid, directory: &Path) -> Result<(), StoreError> {
    for entry in entries(odb, tree)? {
        let path = directory.join(OsStr::from_bytes(&entry.raw_name));
        let doing = "laying out files";
        match entry.kind {
            Kind::Directory => {
                fs::create_dir(&path).map_err(|error| StoreError::io(doing, &path, error))?;
                write_tree(odb, entry.id, &path)?;
                continue;
            }
            Kind::Submodule => continue,
            Kind::File | Kind::Executable | Kind::Link => {}
        }
        let object = odb.read(entry.id).map_err(|error| StoreError::git(doing, &path, &error))?;
        if entry.kind == Kind::Link {
            std::os::unix::fs::symlink(OsStr::from_bytes(object.data()), &path)
                .map_err(|error| StoreError::io(doing, &path, error))?;
        } else {
            let mode = if entry.kind == Kind::Executable { 0o755 } else { 0o644 };
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
                .map_err(|error| StoreError::io(doing, &path, error))?;
            file.write_all(object.data()).map_err(|error| StoreError::io(doing, &path, error))?;
        }
    }
    Ok(())
}

/// Takes away everybody's right to write, directories included: a release is shared by all instances of a version and
/// by later rollbacks to it, so none may leave anything in it. Data belongs into volumes. Who owns it may read it, and so
/// may everybody: apps may run as another user than the agent.
pub(crate) fn freeze(path: &Path) -> Result<(), StoreError> {
    let doing = "making a release read-only";
    let about = fs::symlink_metadata(path).map_err(|error| StoreError::io(doing, path, error))?;
    if about.is_symlink() {
        return Ok(());
    }
    if about.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| StoreError::io(doing, path, error))? {
            freeze(&entry.map_err(|error| StoreError::io(doing, path, error))?.path())?;
        }
    }
    let before = about.permissions().mode();
    let owners = before & 0o500;
    let mode = (before & 0o7555) | (owners >> 3) | (owners >> 6);
    if mode == about.permissions().mode() & 0o7777 {
        return Ok(());
    }
    // By descriptor and without following: a build may have left a process behind that swaps the file for a link.
    let open = || {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        OpenOptions::new().read(true).custom_flags(flags).open(path)?.set_permissions(Permissions::from_mode(mode))
    };
    match open() {
        Ok(()) => Ok(()),
        // One that its owner may not read cannot be opened either, and need not be.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::PermissionDenied) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => Ok(()),
        Err(error) => Err(StoreError::io(doing, path, error)),
    }
}
