//! The messages between Landfall's processes, and between it and its users.
//!
//! Neighbours: `supervisor` is spoken between controller and supervisor over a socket pair,
//! `proxy` between controller and proxies over a Unix socket, [`api`] is the HTTP API's JSON.
//! Invariant: a frame longer than `frame::MAX_FRAME` is refused by both sides, so neither can make
//! the other hold unbounded memory.

pub mod api;
pub mod call_views;
#[cfg(feature = "server")]
pub mod calls;
pub mod certificates;
pub mod channels;
pub mod diffs;
pub mod exec;
#[cfg(feature = "server")]
pub mod frame;
pub mod functions;
#[cfg(feature = "server")]
pub mod proxy;
pub mod schedules;
pub mod secrets;
pub mod services;
pub mod status;
#[cfg(feature = "server")]
pub mod supervisor;
pub mod tokens;
pub mod traffic;

/// Version of the messages in `supervisor` and `proxy`. Both sides send it first. Fields are only
/// added, with defaults; the number rises when an older reader could misunderstand.
pub const PROTOCOL: u32 = 1;

/// The version of this program, as `status` shows it for each process.
pub const PROGRAM_VERSION: &str = env!("CARGO_PKG_VERSION");
