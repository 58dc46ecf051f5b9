//! Sources: git repositories and directories that hold app manifests. Looks at them, says what changed, and reads the
//! push hooks of their forges ([`hook`]).
//!
//! Owned by the engine's watcher, one [`Looker`] per configured source. Blocking: call it on a thread that may
//! block. Neighbours: hands over the path of an object database and tree ids; the store copies from there.
//! The two do not know each other.
//!
//! ```text
//! look ─► list references ─┬─► nothing new ─────────────────────────────► Unchanged   (nothing is written)
//!                          └─► fetch (remote only) ─► verify (if asked for) ─► compare two trees
//!                                 │                     │                        └─► read the changed manifests ─► Changed(Reading)
//!                                 │                     └─► not signed as it must be ──► Refused   (nothing is parsed)
//!                                 └─► damaged cache ─► thrown away, fetched once more
//! ```
//!
//! - A repository on this machine is opened in place, never cloned, and written to only by
//!   [`propose`], on a branch of its own, when somebody asks for it.
//! - A remote one is fetched, one commit deep, into a cache that may be thrown away at any time.
//! - A directory is snapshotted into a git tree by a function the engine passes in, and then read like the others.
//!
//! Invariants: an unchanged app is skipped by comparing one hash, without reading it; a manifest that cannot
//! be read is reported as unreadable, never as absent; every network step ends at the deadline.

mod absent;
mod cache;
mod credentials;
mod descent;
mod error;
pub mod hook;
mod include;
mod known;
mod libgit2_setup;
mod listing;
mod local;
mod looker;
pub mod propose;
mod reading;
mod references;
mod remote;
mod submodules;
mod transport;
mod tree;
mod trust;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use cache::{forget, sweep};
pub use credentials::password_of;
pub use error::{SourceError, SourceErrorKind};
pub use known::{KnownApp, KnownApps};
pub use listing::{ListFailure, Listing, SharedRemote};
pub use looker::{Looker, read_all};

use crate::domain::{AppName, CommitId, ContentId, Manifest, TreeId};
use error::Trouble;

/// Reads one manifest: its name for messages and its text in, the checked manifest or all errors as text out.
pub type ManifestReader = Arc<dyn Fn(&str, &str) -> Result<Manifest, String> + Send + Sync>;

/// Takes a snapshot of a directory: its path in, tree and object database out. The store does it.
pub type Snapshotter = Arc<dyn Fn(&std::path::Path) -> Result<Snapshot, SnapshotFailure> + Send + Sync>;

/// A directory's content at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The tree.
    pub tree: TreeId,
    /// The repository that holds it.
    pub objects: PathBuf,
}

/// Why a directory could not be snapshotted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFailure {
    /// What kind of trouble it is.
    pub kind: SourceErrorKind,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// How long a look may take, and how to end it earlier.
#[derive(Debug, Clone)]
pub struct LookLimits {
    /// No network step goes on after this.
    pub deadline: Instant,
    /// Set to end the look.
    pub cancel: Arc<AtomicBool>,
}

impl LookLimits {
    /// Whether the look may go on; `during` says what it is doing, for the message.
    pub(crate) fn check(&self, during: &str) -> Result<(), Trouble> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(Trouble::cancelled())
        } else if Instant::now() >= self.deadline {
            Err(Trouble::timeout(during))
        } else {
            Ok(())
        }
    }
}

/// What a source showed when it was last read; the ledger remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The commit; a directory has none. Neither has a revision some of whose submodules could not be fetched: it is
    /// looked at again.
    pub commit: Option<CommitId>,
    /// The root tree, with submodules in their places. Not only that of `path`: what an app includes may lie outside it.
    pub tree: TreeId,
    /// The directories that were read, one a line. Others in the configuration mean reading everything again.
    pub path: String,
}

/// The answer to one look.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Nothing new.
    Unchanged {
        /// Same as before.
        seen: Seen,
    },
    /// A new revision.
    Changed(Box<Reading>),
    /// A commit that leaves the last one behind, where that is not taken without approval. Nothing of it was read.
    Diverged {
        /// The commit read last.
        last: CommitId,
        /// The new one.
        commit: CommitId,
    },
    /// A new revision that is not taken: what was read before stays in force.
    Refused(Refusal),
}

/// A revision that is not taken because nobody who is trusted has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The commit.
    pub commit: CommitId,
    /// Which signature it has, what is wrong with it, and what to do.
    pub problem: String,
}

/// A revision and what changed in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// To be remembered, and given to the next look.
    pub seen: Seen,
    /// Where it comes from.
    pub revision: Revision,
    /// Everything was read, not only what changed.
    pub first: bool,
    /// App directories that are new or changed, in path order.
    pub read: Vec<AppReading>,
    /// App directories whose manifest is gone, in path order.
    pub removed: Vec<String>,
    /// A repository whose object database holds all the trees. Good until this source's next look.
    pub objects: PathBuf,
    /// What people should know although nothing is wrong: a submodule that is left out.
    pub notes: Vec<Note>,
    /// What it cost.
    pub stats: ReadStats,
}

/// One state of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The commit; a directory has none.
    pub commit: Option<CommitId>,
    /// The root tree.
    pub tree: TreeId,
    /// `Name <mail>`.
    pub author: Option<String>,
    /// The first line of the message.
    pub subject: Option<String>,
    /// When it was committed.
    pub committed_at: Option<Timestamp>,
    /// It does not descend from the revision before it. A shallow cache cannot tell and says `false`.
    pub forced: bool,
}

/// What people should know of an app although nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The app's directory within the repository; empty for its root.
    pub path: String,
    /// What there is to know, and what can be done.
    pub message: String,
}

/// What a reading cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadStats {
    /// Manifests read and parsed.
    pub manifests_read: u64,
    /// Tree objects opened to find them.
    pub trees_read: u64,
}

/// One app directory that is new or changed.
#[derive(Debug, Clone, PartialEq)]
pub struct AppReading {
    /// The directory within the repository; empty for its root.
    pub path: String,
    /// The name it claims: from the manifest, or from its last readable one.
    pub app: Option<AppName>,
    /// Whether that name belongs to this directory.
    pub owner: bool,
    /// What it includes, as written.
    pub includes: Vec<String>,
    /// The content, or why there is none. `Err` means unknown: the app stays as it is.
    pub result: Result<AppContent, ManifestProblem>,
}

/// Why an app directory has no content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    /// File, line, column, snippet and mend, ready to show.
    pub message: String,
}

/// What one app is in one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct AppContent {
    /// The checked manifest.
    pub manifest: Manifest,
    /// Same identity, same content.
    pub content: ContentId,
    /// The files.
    pub tree: PackedTree,
}

/// The file tree of an app: its directory, and the directories it includes at the same places relative to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedTree {
    /// Directory (empty for the root) and tree, disjoint, in path order.
    pub parts: Vec<(String, TreeId)>,
    /// Where the app's own directory lies; empty for the root.
    pub workdir: String,
}
