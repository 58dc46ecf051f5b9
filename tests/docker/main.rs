//! Apps in containers, with a real engine: `LANDFALL_TEST_DOCKER=unix:///path/docker.sock cargo test --test docker`.
//!
//! Without that variable every test is skipped, and says so. Images are made here, of files of this machine; nothing is
//! fetched from elsewhere. Each agent has things of its own in the engine, so that the tests run side by side; those that
//! stop the engine itself start one of their own (as root).

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

mod build_secrets;
mod compose;
mod compose_services;
mod deploying;
mod drift;
mod engine;
mod functions;
mod images;
mod own_engine;
mod secrets;
#[allow(dead_code)]
#[path = "../behaviour/support/mod.rs"]
mod support;
mod troubles;
