//! Calls of functions: admitted, claimed and sent like requests, but each with a deadline of its own and an end on record.
//!
//! A call knows no client. Whoever makes one ([`serve`] for callers that wait) awaits [`run::run`] on a worker's thread and
//! reads the answer from [`run::Running`]; dropping either gives the call up, and so does somebody who asks for its end
//! ([`underway`]). Neighbours: `admit.rs` for the line and the
//! claim, `pool.rs` for connections, `link.rs` for instances that must end.
//!
//! ```text
//! asked ─► in line ─► claimed ─► head of the answer ─► answer whole ─► on record
//!   │         │          │  └─ deadline: the instance is given up, the controller ends it ─► on record
//!   └─────────┴──────────┴─ refused, broken off ─────────────────────────────────────────► on record
//! ```
//!
//! A call whose caller has waited long enough goes on without it ([`detached`]).
//!
//! Invariants:
//! - Every call that was asked ends in exactly one [`record::Record`], whatever happens to its caller.
//! - A claim lives exactly as long as the connection to the instance carries the call.
//! - The deadline counts from the claim: time in line is not the function's.

pub mod body;
pub mod detached;
pub mod durable;
pub mod record;
pub mod records;
pub mod relay;
pub mod run;
pub mod serve;
pub mod underway;

use std::cell::Cell;

use crate::domain::{AppKey, CallId, ObjectName, TraceParent, VersionNumber};

/// What a call asks for.
#[derive(Debug)]
pub struct Ask {
    /// The app.
    pub app: AppKey,
    /// The function.
    pub function: ObjectName,
    /// The version whose code is to run; without one the live version's.
    pub version: Option<VersionNumber>,
    /// The call.
    pub call: CallId,
    /// Which attempt of it, from 1.
    pub attempt: u32,
    /// Who waits for it; without anybody its maker keeps the record.
    pub actor: Option<String>,
    /// What that one said of its trace.
    pub trace: Option<TraceParent>,
    /// Set when the controller keeps its record from now on.
    pub kept: Cell<bool>,
}
