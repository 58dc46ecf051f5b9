//! Landfall turns `git push` into a running, versioned deployment on machines you own.
//!
//! Reading order: [`domain`] (the words), `decide` (the choices, pure), `engine` (the loops that
//! carry them out), then whatever you came for. Imports only go down; modules on one floor do not know
//! each other; `tests/architecture.rs` holds that.
//!
//! ```text
//! floor 6  main.rs      arguments → role, logging, exit code
//! floor 5  controller   Config → build → run → drain of the control plane
//!          cli          one file per noun; talks to the API only
//! floor 4  api          router and one table from typed errors to status codes
//! floor 3  engine       the loops: watcher, reconciler, deployer, fleet
//! floor 2  source       git and directories: fetch, compare, read manifests
//!          ledger       SQLite: migrations, one writer
//!          store        trees of recorded versions; releases on disk; garbage collection
//!          runtime      the supervisor's client; probes; logs
//!          supervisor   the root process: sockets, children, logs, upgrade
//!          proxy        the data plane process: table, claim, forward, queue, reports
//!          notify       telling others: forges, one file per kind of receiver
//!          client       the client library
//!          secrets      values that only apps may see: sealing, providers
//!          exec         functions that are a process per call: a server around a command
//! floor 1  decide       the choices: no I/O, no async, no clock
//!          files        the two YAML files: text in, checked values or errors out
//!          wire         messages between the processes, API types
//! floor 0  domain       the words
//!          boot         which boot of the machine this is
//!          linger       closing a connection after the last answer was seen
//!          secret_files secrets as files of one instance
//!          short_path   Unix sockets behind long paths
//!          tls          certificates and their keys, checked
//!          whole        files that are there whole or not at all
//!          zones        time zones by name
//! ```

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod boot;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod controller;
#[cfg(feature = "server")]
pub mod decide;
pub mod domain;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod exec;
#[cfg(feature = "server")]
pub mod files;
#[cfg(feature = "server")]
pub mod ledger;
#[cfg(feature = "server")]
pub mod linger;
#[cfg(feature = "server")]
pub mod notify;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod secret_files;
#[cfg(feature = "server")]
pub mod secrets;
#[cfg(feature = "server")]
pub mod short_path;
#[cfg(feature = "server")]
pub mod source;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod supervisor;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod whole;
pub mod wire;
#[cfg(feature = "server")]
pub mod zones;
