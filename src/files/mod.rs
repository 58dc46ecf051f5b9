//! Text that people write, read strictly: `landfall.yaml` and the agent's configuration.
//!
//! Floor 1: text in, checked values or errors out; no I/O beyond what `check` needs to find the files.
//! Invariant: an error names file, line and column, shows the line, and says what to write instead.
//!
//! ```text
//! text ─ yaml ─► tree with places ─ reader + keys ─► record, complete with defaults ─ manifest | config ─► value
//!                                                        └─ explain
//!                             keys ─ schema, reference
//! ```

pub mod check;
mod compose_keys;
pub mod config;
pub mod config_keys;
mod container_keys;
pub mod docker_keys;
pub mod errors;
pub mod explain;
pub mod forms;
pub mod git;
pub mod git_keys;
pub mod git_trust;
pub mod heartbeat;
pub mod json;
pub mod keys;
pub mod manifest;
pub mod manifest_keys;
mod manifest_schedule;
mod notifications;
pub mod oidc_keys;
pub mod overrides;
mod publish_keys;
pub mod reader;
pub mod record;
pub mod reference;
pub mod schedule_keys;
pub mod schema;
pub mod secrets;
pub mod source;
pub mod ssh;
pub mod ssh_url;
pub mod tls_keys;
pub mod traces;
mod values;
pub mod yaml;

pub use check::{CheckReport, check};
pub use config::{Config, read_config};
pub use errors::{FileError, FileErrors};
pub use manifest::read_manifest;
pub use schema::{Which, schema};

#[cfg(test)]
mod drift_tests;
#[cfg(test)]
mod hostile_tests;
