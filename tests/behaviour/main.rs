//! The behaviour of the whole agent: real processes, real repositories, real traffic on loopback.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

mod access;
mod announcing;
mod api;
mod bad_apps;
mod bad_input;
mod calls;
mod client_examples;
mod crashing;
mod depending;
mod deploying;
mod diffs;
mod doctor;
mod environments;
mod executing;
mod function_figures;
mod functions;
mod hard_calls;
mod hooks;
mod housekeeping;
mod https;
mod identities;
mod lifecycle;
mod limits;
mod long_calls;
mod memory;
mod metrics;
mod notifications;
mod over_ssh;
mod polling;
mod private;
mod privileges;
mod publishing;
mod reloading;
mod reports;
mod rolling_back;
mod running_calls;
mod schedules;
mod secrets;
mod secure;
mod sequence;
// The tests of sources use the rest of it.
#[allow(dead_code)]
#[path = "../source/servers.rs"]
mod servers;
mod sources;
#[allow(dead_code)]
#[path = "../source/sshd.rs"]
mod sshd;
mod streams;
mod support;
mod switching;
mod traces;
mod traffic;
mod trust;
mod vanishing;
mod workers;
