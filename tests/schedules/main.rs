//! Starts of schedules as the world expects them, and `landfall schedule next` as people and programs meet it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may end at the first thing that is not as it must be.

mod command;
mod vectors;

use std::path::Path;

use serde::Deserialize;

/// An expected answer.
#[derive(Debug, Deserialize)]
struct Vector {
    expr: String,
    tz: String,
    start: String,
    next: Vec<String>,
}

/// All of `tests/data/cron`.
fn vectors() -> Vec<Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cron");
    let mut all: Vec<Vector> = Vec::new();
    for file in ["vectors.json", "vectors_debian.json"] {
        let text = std::fs::read_to_string(directory.join(file)).unwrap();
        let some: Vec<Vector> = serde_json::from_str(&text).unwrap();
        all.extend(some);
    }
    assert!(all.len() > 3900, "only {} vectors were found", all.len());
    all
}
