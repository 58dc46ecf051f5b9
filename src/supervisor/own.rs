//! Giving directories to users: what only root can do for a controller and apps that are not.
//!
//! With `users` configured a build must write into its copy of the files, which belongs to the agent's user, and an
//! app into its volumes. The supervisor gives the copy to the apps' user for the time of the build and takes it back
//! when nothing of the build lives any more; volumes it makes itself.
//!
//! Invariant: only what lies below `<data_dir>/releases` or `<data_dir>/volumes` is ever given. Every step goes by
//! descriptor and follows no symbolic link, so nobody who may write there can point root somewhere else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use crate::wire::supervisor::Identity as User;

/// Builds lie below this.
pub(super) const RELEASES: &str = "releases";
/// Volumes lie below this.
const VOLUMES: &str = "volumes";
/// Deeper trees than this are refused, as they are when an app is recorded.
const MAX_DEPTH: usize = 128;
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Gives a directory below `releases` and everything in it to a user.
pub(super) fn give(data_dir: &Path, path: &Path, user: &User) -> io::Result<()> {
    let directory = descend(data_dir, RELEASES, path, false)?;
    give_all(directory, Uid::from_raw(user.uid), Gid::from_raw(user.gid), 0)
}

/// Makes a volume; its top directory belongs to the apps' user.
pub(super) fn volume(data_dir: &Path, path: &Path, user: Option<&User>) -> io::Result<()> {
    let directory = descend(data_dir, VOLUMES, path, true)?;
    match user {
        Some(user) => Ok(fchown(&directory, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?),
        None => Ok(()),
    }
}

/// Opens `path`, which must lie below `<data_dir>/<below>`, one component at a time.
fn descend(data_dir: &Path, below: &str, path: &Path, make: bool) -> io::Result<OwnedFd> {
    let outside = || io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not in {below}", path.display()));
    let inside = path.strip_prefix(data_dir.join(below)).map_err(|_| outside())?;
    if inside.as_os_str().is_empty() {
        return Err(outside());
    }
    let mut directory = open(data_dir, DIRECTORY, Mode::empty())?;
    for component in [Component::Normal(below.as_ref())].into_iter().chain(inside.components()) {
        let Component::Normal(name) = component else { return Err(outside()) };
        if make {
            match mkdirat(&directory, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        directory = openat(&directory, name, DIRECTORY, Mode::empty())?;
    }
    Ok(directory)
}

fn give_all(directory: OwnedFd, uid: Uid, gid: Gid, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    fchown(&directory, Some(uid), Some(gid))?;
    let mut entries = Dir::from_fd(directory)?;
    let listed: Vec<_> = entries.iter().collect::<Result<_, _>>()?;
    for entry in listed {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let nested = match entry.file_type() {
            Some(Type::Directory) => true,
            Some(_) => false,
            // Some file systems do not say.
            None => openat(entries.as_fd(), name, DIRECTORY, Mode::empty()).is_ok(),
        };
        if nested {
            give_all(openat(entries.as_fd(), name, DIRECTORY, Mode::empty())?, uid, gid, depth + 1)?;
        } else if fstatat(entries.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_nlink > 1 {
            // Another name of this file may lie anywhere. It stays whose it is; a build that needs it fails by itself.
            tracing::warn!(name = %name.to_string_lossy(), "a file with several names changes no owner");
        } else {
            fchownat(entries.as_fd(), name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> User {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        User { name: "me".into(), uid, gid, home: "/".into() }
    }

    #[test]
    fn only_what_lies_in_its_place_is_given_and_no_link_is_followed() {
        let data = tempfile::tempdir().expect("a directory");
        let release = data.path().join("releases/main/shop/tree");
        std::fs::create_dir_all(release.join("deep/deeper")).expect("made");
        std::fs::write(release.join("deep/file"), "x").expect("written");
        std::os::unix::fs::symlink("/etc", release.join("etc")).expect("linked");
        give(data.path(), &release, &me()).expect("given");
        let through = data.path().join("releases/main/linked");
        std::os::unix::fs::symlink(&release, &through).expect("linked");
        for refused in [
            through,
            data.path().join("releases"),
            data.path().to_owned(),
            "/etc".into(),
            data.path().join("releases/../ledger.db"),
            data.path().join("releases/main/../../run"),
        ] {
            assert!(give(data.path(), &refused, &me()).is_err(), "{}", refused.display());
        }
    }

    #[test]
    fn a_volume_is_made_once_and_kept() {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().join("volumes/main/shop/data");
        volume(data.path(), &path, None).expect("made");
        std::fs::write(path.join("kept"), "x").expect("written");
        volume(data.path(), &path, Some(&me())).expect("still there");
        assert!(path.join("kept").exists());
    }
}
