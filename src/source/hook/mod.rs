//! Push hooks: who sends one, whether it is genuine, and what it hints at.
//!
//! Called by the engine for each hook, on a thread that may block (secrets are files). Neighbours: `api` has read the
//! body within its bounds; the engine records what follows. Everything but [`Secrets::read`] is a pure function.
//!
//! ```text
//! headers ─► Claim::of ─► provider, event, proofs      (one provider, or refused)
//! raw body + secrets ─► Claim::is_genuine              (every proof holds under one secret, or refused)
//! body ─► Claim::told ─► Ping, Other or Pushed ─► Push::meant_for(reference) ─► Hint
//! ```
//!
//! Invariants: nothing of a body is parsed before its signature was found right; nothing of it is used but names of
//! references, and these only to decide whether to look; how long a comparison takes says nothing about a secret.

mod claim;
mod payload;
mod proof;
mod secrets;
#[cfg(test)]
mod tests;

pub use claim::{Claim, ClaimError};
pub use payload::{Change, Hint, Push, Told, Unreadable};
pub use secrets::{SecretTrouble, Secrets};

/// Longest body of a hook. GitHub cuts payloads off at 25 MB, but pushes of that size are not what moves a branch.
pub const MAX_BODY: usize = 5 * 1024 * 1024;
