//! Reading the files that ssh needs: private key, passphrase, known hosts.
//!
//! Invariant: a file that others may read or change, as its kind forbids, is refused before its content is used.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::super::super::error::{SourceErrorKind, Trouble};

/// Longest private key; RSA keys of 16,384 bits have 13 KB.
const MAX_SECRET: u64 = 64 * 1024;
/// Longest file of known hosts.
const MAX_KNOWN_HOSTS: u64 = 1024 * 1024;

/// What a file holds, and so who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Something nobody else may read.
    Secret,
    /// Something nobody else may change.
    Trust,
}

/// The text of `path`. `key` is the key of the configuration that names it.
pub(super) fn read(path: &Path, key: &str, holds: Holds) -> Result<String, Trouble> {
    let unreadable = |error: std::io::Error| {
        let what = format!("reading {}: {error}", path.display());
        Trouble::new(
            SourceErrorKind::Credentials,
            what,
            format!("check `git.ssh.{key}`, and that the agent's user may read the file"),
        )
    };
    // Not blocking: a pipe in place of a file must not hold up the look.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        let what = format!("{} is not a file", path.display());
        return Err(Trouble::new(SourceErrorKind::Credentials, what, format!("check `git.ssh.{key}`")));
    }
    let me = nix::unistd::geteuid().as_raw();
    if let Some((what, change)) = unsafe_mode(metadata.mode(), metadata.uid() == me, holds) {
        let what = format!("{} {what}", path.display());
        return Err(Trouble::new(
            SourceErrorKind::Credentials,
            what,
            format!("run: chmod {change} {}", quoted(&path.display().to_string())),
        ));
    }
    let limit = match holds {
        Holds::Secret => MAX_SECRET,
        Holds::Trust => MAX_KNOWN_HOSTS,
    };
    bounded(&file, limit).map_err(unreadable)
}

fn bounded(file: &File, limit: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("it is longer than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not text"))
}

/// What is wrong with a file's mode, and the change that mends it. A secret of somebody else that the agent reads through
/// its group is no worse than the group it was put in (Kubernetes mounts secrets so); one of its own has no reason for it.
fn unsafe_mode(mode: u32, own: bool, holds: Holds) -> Option<(&'static str, &'static str)> {
    let forbidden = match (holds, own) {
        (Holds::Secret, true) => 0o077,
        (Holds::Secret, false) => 0o027,
        (Holds::Trust, _) => 0o022,
    };
    match (mode & forbidden != 0, holds) {
        (true, Holds::Secret) => Some(("can be read by others than its owner", if own { "600" } else { "o=,g-w" })),
        (true, Holds::Trust) => Some(("can be changed by others than its owner", "go-w")),
        (false, Holds::Secret | Holds::Trust) => None,
    }
}

/// `text` as one word of a shell's command line.
pub(super) fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn modes_that_let_others_in_are_refused() {
        for (mode, own, holds, refused) in [
            (0o600, true, Holds::Secret, false),
            (0o400, true, Holds::Secret, false),
            (0o640, true, Holds::Secret, true),
            (0o604, true, Holds::Secret, true),
            (0o440, false, Holds::Secret, false),
            (0o460, false, Holds::Secret, true),
            (0o444, false, Holds::Secret, true),
            (0o644, true, Holds::Trust, false),
            (0o664, true, Holds::Trust, true),
            (0o646, false, Holds::Trust, true),
        ] {
            assert_eq!(unsafe_mode(0o100_000 | mode, own, holds).is_some(), refused, "{mode:o} {own} {holds:?}");
        }
    }

    #[test]
    fn what_is_no_file_or_too_long_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |name: &str| read(&dir.path().join(name), "key_file", Holds::Secret);
        let missing = read("missing").expect_err("missing");
        assert!(missing.what.contains("missing") && missing.mend.contains("git.ssh.key_file"), "{missing:?}");
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert!(read("pipe").expect_err("a pipe").what.contains("not a file"));
        std::fs::write(dir.path().join("long"), vec![b'x'; 65 * 1024]).expect("written");
        std::fs::set_permissions(dir.path().join("long"), std::fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(read("long").expect_err("too long").what.contains("longer than"));
    }

    #[test]
    fn words_for_a_shell_stay_one_word() {
        assert_eq!(quoted("/etc/landfall/key"), "/etc/landfall/key");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(quoted("[h]:22"), "'[h]:22'");
        assert_eq!(quoted(""), "''");
    }
}
