//! Landfall's own image, and the recipes of `examples/sidecar-*`, with a real engine:
//!
//! ```sh
//! export LANDFALL_TEST_DOCKER=unix:///var/run/docker.sock
//! DOCKER_HOST=$LANDFALL_TEST_DOCKER tests/image/build && LANDFALL_TEST_IMAGE=landfall-test cargo test --test image
//! ```
//!
//! Without these variables every test is skipped, and says so. Nothing is fetched: the image is made around a program built
//! here, and stand-ins for the images of others are made of files of this machine.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

mod container;
#[allow(dead_code)]
#[path = "../docker/engine.rs"]
mod engine;
mod recipes;
mod running;
#[allow(dead_code)]
#[path = "../behaviour/support/mod.rs"]
mod support;
