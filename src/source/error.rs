//! What can go wrong with a source. Each message names the source, the place and the mend; the kinds are
//! distinct because the watcher treats them differently (a cancelled look is not a failing source).

use std::fmt;
use std::time::Duration;

use crate::domain::SourceName;

/// What kind of trouble a source is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceErrorKind {
    /// There is no repository or directory at this place.
    NotFound,
    /// The repository has no such branch, tag or commit.
    RefNotFound,
    /// The name of the reference means more than one thing.
    RefAmbiguous,
    /// The revision has no such `path`.
    InvalidPath,
    /// The remote could not be reached, or the connection broke.
    Network,
    /// The remote's certificate is not one to trust, or there is no common ground for TLS.
    Tls,
    /// The remote wants fewer requests, or none for a while.
    RateLimited,
    /// The remote has trouble of its own.
    Server,
    /// What the remote says is not git's protocol.
    Protocol,
    /// The remote sends elsewhere, to where it is not followed.
    Redirected,
    /// The deadline passed.
    Timeout,
    /// The agent is shutting down or the look was superseded.
    Cancelled,
    /// The remote wants credentials, or refuses those it got.
    Auth,
    /// The credentials themselves could not be had on this machine.
    Credentials,
    /// The remote shows an ssh host key, and none is known for it.
    HostKeyUnknown,
    /// The remote shows another ssh host key than the one that is known, or a revoked one.
    HostKeyChanged,
    /// Local objects are damaged.
    Corrupt,
    /// No room left on the disk.
    Disk,
    /// The agent's user may not read or write something.
    Permission,
    /// A file could not be read or written, for another reason than room and permission.
    Io,
    /// More directories or deeper ones than a source may have.
    TooLarge,
    /// Something this build of Landfall cannot read.
    Unsupported,
    /// Files changed faster than they could be read.
    Busy,
}

impl SourceErrorKind {
    /// One word for states, metrics and events.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::RefNotFound => "ref-not-found",
            Self::RefAmbiguous => "ref-ambiguous",
            Self::InvalidPath => "invalid-path",
            Self::Network => "network",
            Self::Tls => "tls",
            Self::RateLimited => "rate-limited",
            Self::Server => "server",
            Self::Protocol => "protocol",
            Self::Redirected => "redirected",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Auth => "auth",
            Self::Credentials => "credentials",
            Self::HostKeyUnknown => "host-key-unknown",
            Self::HostKeyChanged => "host-key-changed",
            Self::Corrupt => "corrupt",
            Self::Disk => "disk",
            Self::Permission => "permission",
            Self::Io => "io",
            Self::TooLarge => "too-large",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
        }
    }
}

/// Why a source could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SourceError {
    /// The source concerned.
    pub source_name: SourceName,
    /// Where it lies, without credentials.
    pub place: String,
    /// What kind of trouble it is.
    pub kind: SourceErrorKind,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub mend: String,
    /// The remote asks not to be asked again for so long.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source `{}` ({}): {}", self.source_name, self.place, self.what)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl SourceError {
    /// Whether trying again may help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            SourceErrorKind::Network
            | SourceErrorKind::RateLimited
            | SourceErrorKind::Server
            | SourceErrorKind::Protocol
            | SourceErrorKind::Timeout
            | SourceErrorKind::Cancelled
            | SourceErrorKind::Corrupt
            | SourceErrorKind::Io
            | SourceErrorKind::Busy => true,
            SourceErrorKind::NotFound
            | SourceErrorKind::RefNotFound
            | SourceErrorKind::RefAmbiguous
            | SourceErrorKind::InvalidPath
            | SourceErrorKind::Tls
            | SourceErrorKind::Redirected
            | SourceErrorKind::Auth
            | SourceErrorKind::Credentials
            | SourceErrorKind::HostKeyUnknown
            | SourceErrorKind::HostKeyChanged
            | SourceErrorKind::Disk
            | SourceErrorKind::Permission
            | SourceErrorKind::TooLarge
            | SourceErrorKind::Unsupported => false,
        }
    }
}

/// A failure before it is known which source it belongs to: kind, what, mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: SourceErrorKind,
    pub(crate) what: String,
    pub(crate) mend: String,
    /// How long the remote wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl Trouble {
    pub(crate) fn new(kind: SourceErrorKind, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { kind, what: what.into(), mend: mend.into(), retry_after: None }
    }

    pub(crate) fn retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(SourceErrorKind::Cancelled, "the look was cancelled", "")
    }

    pub(crate) fn timeout(during: &str) -> Self {
        Self::new(
            SourceErrorKind::Timeout,
            format!("no answer before the deadline, while {during}"),
            "check that the remote is up and reachable from this machine, or raise the source's `timeout`",
        )
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::new(
            SourceErrorKind::Corrupt,
            what,
            "a cache is rebuilt at the next look; a damaged local repository needs `git fsck` and a restore",
        )
    }

    pub(crate) fn io(doing: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let what = format!("{doing}: {error}");
        match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => Self::disk(what),
            Io::PermissionDenied => Self::permission(what),
            Io::NotFound => Self::new(SourceErrorKind::NotFound, what, "check the path in the configuration"),
            Io::TimedOut => Self::timeout(doing),
            _ => Self::new(SourceErrorKind::Io, what, "check the disk; it is tried again at the next look"),
        }
    }

    /// What a git server says instead of an answer.
    pub(crate) fn remote_error(text: String) -> Self {
        // To a path that it does not serve.
        let unknown = ["no such repository", "not exported", "not found", "does not appear to be a git"];
        if unknown.iter().any(|said| text.contains(said)) {
            let mend = "check the source's `url`, or that the server exports the repository";
            return Self::new(SourceErrorKind::NotFound, text, mend);
        }
        let mend = "it is tried again at the next look";
        if text.contains("not our ref") {
            let what = format!("the remote's references changed while they were fetched: {text}");
            return Self::new(SourceErrorKind::Busy, what, mend);
        }
        Self::new(SourceErrorKind::Server, text, mend)
    }

    /// The transports report what happens to a connection themselves; what libgit2 reports is what the remote said,
    /// unless it said nothing more.
    fn said_wrong(text: String) -> Self {
        let broke_off = ["EOF", "early", "unexpected end", "connection"].iter().any(|word| text.contains(word));
        if broke_off {
            let mend = "check that the remote is up and reachable from this machine";
            return Self::new(SourceErrorKind::Network, text, mend);
        }
        let mend = "check that the `url` is that of a git server; it is tried again at the next look";
        Self::new(SourceErrorKind::Protocol, format!("what the remote says is not git's protocol: {text}"), mend)
    }

    fn disk(what: String) -> Self {
        Self::new(SourceErrorKind::Disk, what, "free space on the disk of the data directory")
    }

    fn permission(what: String) -> Self {
        Self::new(SourceErrorKind::Permission, what, "let the agent's user read (and, in its data directory, write) it")
    }

    pub(crate) fn named(self, source_name: &SourceName, place: &str) -> SourceError {
        let Self { kind, what, mend, retry_after } = self;
        SourceError { source_name: source_name.clone(), place: place.to_owned(), kind, what, mend, retry_after }
    }
}

impl From<git2::Error> for Trouble {
    /// libgit2 says what happened by class and code, and the operating system's part only in the text.
    fn from(error: git2::Error) -> Self {
        use git2::{ErrorClass, ErrorCode};
        let text = error.message().to_owned();
        if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
            return Self::disk(text);
        }
        if text.contains("Permission denied") {
            return Self::permission(text);
        }
        if text.starts_with("remote error") {
            return Self::remote_error(text);
        }
        match (error.class(), error.code()) {
            (ErrorClass::Os | ErrorClass::Filesystem, _) => {
                Self::new(SourceErrorKind::Io, text, "check the disk; it is tried again at the next look")
            }
            (_, ErrorCode::Auth | ErrorCode::Certificate) => {
                Self::new(SourceErrorKind::Auth, text, "check the credentials")
            }
            (_, ErrorCode::Timeout) => Self::timeout("talking to the remote"),
            (ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssl | ErrorClass::Ssh, _) => Self::said_wrong(text),
            (ErrorClass::Odb | ErrorClass::Object | ErrorClass::Zlib | ErrorClass::Indexer, _)
            | (ErrorClass::Tree | ErrorClass::Reference, ErrorCode::GenericError) => Self::corrupt(text),
            (_, ErrorCode::NotFound) => Self::corrupt(text),
            _ => Self::new(SourceErrorKind::Network, text, "it is tried again at the next look"),
        }
    }
}
