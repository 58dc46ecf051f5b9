//! Secrets as files of one instance: in memory where the machine has a file system for that, gone with the instance.
//!
//! Used by whoever starts instances: the supervisor for processes, the container runtime for containers, each below a
//! directory of its own ([`SecretFiles`]). Invariants: a file is there whole before its instance starts; besides the
//! agent's user only the instance's can read it; what a sudden end leaves is swept at the next start.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs;

/// The file system in memory that Linux machines have for everybody.
const MEMORY: &str = "/dev/shm";

/// Who reads the files of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// A process of this user and group; `None` for the agent's own.
    User(Option<(u32, u32)>),
    /// A container that the instance's directory is mounted into, whatever user it has. Nobody else gets that far: the
    /// directory above lets only the agent's user in.
    Container,
}

/// The files of one sort of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFiles {
    base: PathBuf,
    /// Of the directory that holds all of them.
    mode: u32,
}

impl SecretFiles {
    /// Those of processes of the agent that keeps its things in `data_dir`.
    pub fn of_processes(data_dir: &Path) -> Self {
        // Apps may run as another user, who must get through.
        Self::new(data_dir, "processes", 0o711)
    }

    /// Those of its containers.
    pub fn of_containers(data_dir: &Path) -> Self {
        Self::new(data_dir, "containers", 0o700)
    }

    fn new(data_dir: &Path, sort: &str, mode: u32) -> Self {
        let base = in_memory(data_dir, sort).unwrap_or_else(|| data_dir.join(format!("secret-files-{sort}")));
        Self { base, mode }
    }

    /// Writes the files of an instance, each a name and a content; answers their directory.
    pub fn put<'a>(
        &self,
        instance: &str,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        readers: Readers,
    ) -> io::Result<PathBuf> {
        make(&self.base, self.mode)?;
        if !is_own(&self.base) {
            let message = format!("{} belongs to somebody else; remove it", self.base.display());
            return Err(io::Error::other(message));
        }
        let directory = self.base.join(instance);
        self.remove(instance)?;
        let (directory_mode, file_mode) = match readers {
            Readers::User(_) => (0o700, 0o400),
            Readers::Container => (0o755, 0o444),
        };
        make(&directory, 0o700)?;
        for (name, content) in files {
            let path = directory.join(name);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(file_mode))?;
            give(&path, readers)?;
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(directory_mode))?;
        give(&directory, readers)?;
        Ok(directory)
    }

    /// Removes the files of an instance, if it has any.
    pub fn remove(&self, instance: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.base.join(instance)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes those of all instances that are not to be kept.
    pub fn sweep(&self, keep: impl Fn(&str) -> bool) {
        if !is_own(&self.base) {
            return;
        }
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(instance) = name.to_str().filter(|instance| !keep(instance)) {
                // Tried again at the next start.
                let _ = self.remove(instance);
            }
        }
        // Only if nothing is left in it.
        let _ = fs::remove_dir(&self.base);
    }
}

/// A directory in memory for this agent alone, where there can be one.
fn in_memory(data_dir: &Path, sort: &str) -> Option<PathBuf> {
    let kind = statfs::statfs(MEMORY).ok()?.filesystem_type();
    if kind != statfs::TMPFS_MAGIC {
        return None;
    }
    // Named by what tells one data directory from another, so that the next supervisor and controller find it.
    let about = fs::metadata(data_dir).ok()?;
    let name = format!("landfall-{}-{:x}-{:x}-{sort}", nix::unistd::geteuid(), about.dev(), about.ino());
    let path = Path::new(MEMORY).join(name);
    // Everybody may make directories there: one that is not ours is left alone.
    (fs::symlink_metadata(&path).is_err() || is_own(&path)).then_some(path)
}

/// Whether it is a directory of this user that nobody else can write to.
fn is_own(path: &Path) -> bool {
    let about = fs::symlink_metadata(path);
    about.is_ok_and(|about| {
        about.is_dir() && about.uid() == nix::unistd::geteuid().as_raw() && about.mode() & 0o022 == 0
    })
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // A narrow umask must not keep out whom the mode lets in.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    }
}

fn give(path: &Path, readers: Readers) -> io::Result<()> {
    match readers {
        Readers::User(Some((user, group))) => std::os::unix::fs::lchown(path, Some(user), Some(group)),
        Readers::User(None) | Readers::Container => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn files_are_private_and_go_with_their_instance() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let files = SecretFiles::of_processes(data_dir.path());
        let directory = files.put("a", [("token", "hunter2")], Readers::User(None)).expect("written");
        let token = directory.join("token");
        assert_eq!(fs::read_to_string(&token).expect("read"), "hunter2");
        assert_eq!((mode(&directory), mode(&token), mode(&files.base)), (0o700, 0o400, 0o711));
        files.put("a", [("other", "x")], Readers::User(None)).expect("written");
        assert!(!token.exists(), "nothing of before is left");
        files.put("b", [("token", "y")], Readers::Container).expect("written");
        files.sweep(|instance| instance == "b");
        assert!(!directory.exists() && files.base.join("b/token").exists());
        files.remove("b").expect("removed");
        files.remove("b").expect("nothing to remove");
        files.sweep(|_| false);
        assert!(!files.base.exists(), "nothing is left of an agent without such files");
    }

    #[test]
    fn containers_read_what_only_the_agent_reaches() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let files = SecretFiles::of_containers(data_dir.path());
        let directory = files.put("a", [("token", "hunter2")], Readers::Container).expect("written");
        assert_eq!((mode(&directory), mode(&directory.join("token")), mode(&files.base)), (0o755, 0o444, 0o700));
        files.sweep(|_| false);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let files = SecretFiles { base: data_dir.path().join("base"), mode: 0o700 };
        fs::create_dir(&files.base).expect("made");
        fs::set_permissions(&files.base, fs::Permissions::from_mode(0o777)).expect("set");
        let error = files.put("a", [("token", "x")], Readers::Container).expect_err("refused");
        assert!(error.to_string().contains("belongs to somebody else"), "{error}");
    }
}
