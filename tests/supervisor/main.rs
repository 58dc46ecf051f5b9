//! The supervisor as a real process with real children.
//!
//! The tests play the controller: a stand-in controller joins the inherited link to a Unix socket of the
//! test, so that the test can speak over it, let it die, and speak over the next one.

#![allow(clippy::expect_used, clippy::panic)]

mod agent;
mod endings;
mod logs;
#[path = "../common/ports.rs"]
mod ports;
mod roles;
mod starting;
mod upgrade;
