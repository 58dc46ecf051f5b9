//! Sources and the store against real git: repositories, servers, and what breaks.

#![allow(missing_docs)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod hooks;
mod https;
mod local;
#[path = "../common/ports.rs"]
mod ports;
mod reading;
mod remote;
mod servers;
mod ssh;
mod sshd;
mod store;
mod submodules;
mod support;
mod trust;
mod watch;
