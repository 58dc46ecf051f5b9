//! The choices, as pure functions from data to data: no I/O, no async, and `now` is an argument.
//!
//! The loops in `engine` gather what is recorded and what is seen, ask here, record the answer and act on it.

pub mod announce;
pub mod changes;
pub mod depends;
pub mod due;
pub mod hint;
pub mod near;
pub mod pacing;
pub mod poll;
pub mod prune;
pub mod reconcile;
pub mod renewal;
pub mod restart;
pub mod retry;
pub mod rollback;
pub mod rollout;
pub mod runs;
pub mod scale;
pub mod slowing;
pub mod tally;
