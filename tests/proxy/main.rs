//! The proxy as its users meet it: real sockets on both sides, a controller on a Unix socket.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

mod answers;
mod deploys;
mod https;
mod limits;
mod passing;
mod support;
mod websockets;
