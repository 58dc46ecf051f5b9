//! Values that only apps may see: how they are kept, and where else they may come from.
//!
//! | file | what |
//! |---|---|
//! | `keyring` | the key file, and sealing with its keys |
//! | `identities` | the agent's age identities: what opens files that others encrypted for it |
//! | `encrypted` | files of an app's tree that SOPS or age encrypted |
//! | `private` | reading files that hold keys |
//! | `providers` | files, variables and programs that know values of their own |
//!
//! Called by `engine::vault`, which decides who gets what. Invariants: a value leaves here as a [`crate::domain::Secret`]
//! or sealed; an error never holds one.

pub mod encrypted;
mod identities;
mod keyring;
mod private;
mod providers;

pub use identities::{Identities, OpenError};
pub use keyring::{KeyError, KeyRing, Sealed};
pub use providers::look;
