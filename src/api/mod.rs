//! The HTTP API: the engine's commands and answers over a Unix socket and TCP, to whoever may have them.
//!
//! Owner: the controller, which opens the listeners and runs [`serve`]. Neighbours: `engine`, which does
//! everything; `wire::api`, the types and the list of routes; `client`, the other end. Invariants: every error
//! is a problem document with a mend; nobody without a name changes anything; nothing of a request is kept in
//! memory or on disk beyond its bounds; shutdown takes at most 5 s.

mod apps;
mod audit;
mod call_records;
mod calls;
mod certificates;
mod crowd;
mod dashboard;
mod diffs;
mod events;
mod exec;
mod extract;
mod facts;
mod functions;
mod guard;
mod hooks;
mod map;
mod metrics;
mod oidc;
mod openapi;
mod pages;
mod peer;
mod places;
mod problem;
mod proxies;
mod refused;
mod routes;
mod rules;
mod schedules;
mod secrets;
mod secure;
mod serve;
mod session;
#[cfg(test)]
mod tests;
mod tokens;
mod unpack;
mod upload;

pub use self::apps::serve_apps;
pub use self::rules::{Over, RULES, Rule};
pub use self::serve::{ApiError, serve};
