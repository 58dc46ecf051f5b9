//! What can go wrong in the store. Each message names the path and the mend.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room left on the disk. Nothing half-written stays behind.
    #[error("the disk is full while {doing} ({path}); free space there, or lower `retention.versions`")]
    DiskFull {
        /// What was under way.
        doing: String,
        /// Where.
        path: PathBuf,
    },
    /// A file or directory could not be read or written.
    #[error("{doing} ({path}): {error}; check that the agent's user may read and write there")]
    Io {
        /// What was under way.
        doing: String,
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Objects are damaged or missing.
    #[error(
        "damaged objects while {doing} ({path}): {what}; a source's cache is fetched anew, for the store run `git fsck` in it and restore a backup"
    )]
    Corrupt {
        /// What was under way.
        doing: String,
        /// Which repository.
        path: PathBuf,
        /// What libgit2 says.
        what: String,
    },
    /// There is no such tree in the store.
    #[error("tree {tree} is not in the store; deploy the app again from its source")]
    UnknownTree {
        /// The tree.
        tree: String,
    },
    /// A symbolic link in an app's tree points outside of it.
    #[error(
        "`{path}` is a symbolic link to `{target}`, outside of the app's files; link within them, or `include` the directory"
    )]
    EscapingSymlink {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// A name in an app's tree that must not be written to disk.
    #[error("`{path}` cannot be part of an app: {what}; rename or remove it")]
    BadEntry {
        /// The entry.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// More or deeper files than an app may have.
    #[error("`{path}` has {what}; leave out what the app does not need")]
    TooLarge {
        /// Where.
        path: String,
        /// What there is too much of.
        what: String,
    },
    /// A directory changed faster than it could be read.
    #[error("{path} kept changing while it was read; it is tried again with its next change")]
    Busy {
        /// The directory, or the file in it.
        path: PathBuf,
    },
}

impl StoreError {
    /// Whether the app's own files are at fault, so that other apps of the same revision are not concerned.
    pub fn is_about_content(&self) -> bool {
        match self {
            Self::EscapingSymlink { .. } | Self::BadEntry { .. } | Self::TooLarge { .. } => true,
            Self::DiskFull { .. }
            | Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::UnknownTree { .. }
            | Self::Busy { .. } => false,
        }
    }

    /// Whether objects are damaged, so that fetching them anew may help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    pub(crate) fn io(doing: impl Into<String>, path: &Path, error: io::Error) -> Self {
        let (doing, path) = (doing.into(), path.to_path_buf());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { doing, path },
            _ => Self::Io { doing, path, error },
        }
    }

    /// libgit2 gives the operating system's part only in the text.
    pub(crate) fn git(doing: impl Into<String>, path: &Path, error: &git2::Error) -> Self {
        let (doing, path, what) = (doing.into(), path.to_path_buf(), error.message().to_owned());
        if what.contains("No space left on device") || what.contains("Disk quota exceeded") {
            return Self::DiskFull { doing, path };
        }
        if what.contains("Permission denied") || error.class() == git2::ErrorClass::Os {
            return Self::Io { doing, path, error: io::Error::other(what) };
        }
        Self::Corrupt { doing, path, what }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DiskFull { .. } => "disk_full",
            Self::Io { .. } => "io",
            Self::Corrupt { .. } => "corrupt",
            Self::UnknownTree { .. } => "unknown_tree",
            Self::EscapingSymlink { .. } => "escaping_symlink",
            Self::BadEntry { .. } => "bad_entry",
            Self::TooLarge { .. } => "too_large",
            Self::Busy { .. } => "busy",
        }
    }
}
