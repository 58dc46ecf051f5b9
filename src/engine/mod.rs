//! The loops that carry out what `decide` chose, and the handle others use to reach them.
//!
//! ```text
//! watcher (one per source) ─► reconciler ─► deployer (one per open deployment) ─► fleet ─► runtime, proxies
//!                                 ▲  commands                                       │
//!                     api ────────┘◄──────────────── notices ───────────────────────┘
//! ```
//!
//! Owner of live state: `reconciler` for apps and deployments, `fleet` for instances and routes. Everything is
//! recorded in the ledger before it is acted on, so all of this may die at any moment.

mod announcing;
mod approve;
mod audit;
mod caller;
mod calling;
mod calls;
mod carrying;
pub mod certificates;
mod commands;
mod containers;
mod depending;
mod deployer;
mod diffs;
mod disk;
mod endings;
mod executing;
mod failures;
mod finding;
mod fleet;
mod functions;
mod handle;
mod heartbeat;
mod hooks;
mod hosts;
mod housekeeping;
mod leftovers;
mod looked;
mod looking;
mod measures;
mod observe;
mod oidc;
mod owners;
mod ownership;
mod plan;
mod poller;
mod prepare;
mod publishing;
mod reconciler;
mod recording;
mod records;
mod reload;
mod scheduler;
mod schedules;
mod secrets;
mod sleeping;
mod slots;
mod sources;
mod spec;
mod start;
mod taking;
mod telling;
mod tokens;
mod traces;
mod traffic;
mod uploading;
mod vanishing;
mod vault;
mod views;
mod watched;
mod watcher;

pub use crate::ledger::calls::Filter as CallFilter;
pub use audit::{AuditFilter, NewEntry};
pub use calls::SpawnRequest;
pub use containers::docker_settings;
pub use disk::problem as disk_problem;
pub use finding::CallResultView;
pub use handle::Engine;
pub use hooks::{Hook, HookAnswer};
pub use leftovers::end_projects;
pub use measures::Measures;
pub use oidc::{Brought, NotSignedIn, SentAway};
pub use reload::{Configured, ReadConfiguration};
pub use scheduler::Late;
pub use secrets::SecretUse;
pub use start::{End, Inherited, Running, StartError, start};
pub use tokens::SignedIn;

/// Why a command was not carried out. `api` maps each to a status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The thing does not exist.
    #[error("{what}")]
    NotFound {
        /// What is missing.
        what: String,
        /// What to do.
        mend: String,
    },
    /// The request itself is wrong.
    #[error("{what}")]
    Invalid {
        /// What is wrong, with the place.
        what: String,
        /// What to do.
        mend: String,
    },
    /// Whoever asks may not.
    #[error("{what}")]
    Refused {
        /// Why not.
        what: String,
        /// What to do.
        mend: String,
    },
    /// It cannot be done in the state things are in.
    #[error("{what}")]
    Conflict {
        /// Why not.
        what: String,
        /// What to do.
        mend: String,
    },
    /// There is too much of it already; less later.
    #[error("{what}")]
    TooMuch {
        /// Of what.
        what: String,
        /// What to do.
        mend: String,
        /// When to try again.
        after: std::time::Duration,
    },
    /// It cannot be done now.
    #[error("{what}")]
    Unavailable {
        /// Why not.
        what: String,
        /// What to do.
        mend: String,
    },
    /// The agent failed.
    #[error("{what}")]
    Internal {
        /// What failed.
        what: String,
    },
}

/// Who asks for a change, as the API found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The actor recorded with every change.
    pub actor: crate::domain::Actor,
    /// What they may do: for changes of which only the engine finds out what they are about.
    pub scope: crate::domain::Scope,
}

/// Which lines of an app's log are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Go on with new lines as they come.
    pub follow: bool,
    /// Not older than this.
    pub since: Option<jiff::Timestamp>,
    /// Not newer than this.
    pub until: Option<jiff::Timestamp>,
    /// Only the last so many of what is there already.
    pub tail: Option<usize>,
    /// Only this object (`build` for builds).
    pub object: Option<String>,
    /// Only this version.
    pub version: Option<crate::domain::VersionNumber>,
    /// Only this instance.
    pub instance: Option<String>,
    /// Only `stdout`, `stderr` or `system`.
    pub source: Option<String>,
    /// Only what was written in this call.
    pub call: Option<crate::domain::CallId>,
    /// Only what comes behind this place in the stream of these very lines; `tail` then says nothing.
    pub after: Option<LogPlace>,
}

pub use crate::runtime::logs::LogPlace;

/// What every command answers.
pub type Result<T> = std::result::Result<T, CommandError>;
