//! Values that only apps may see: how they are kept, and where else they may come from.
//!
//! | file | what |
//! |---|---|
//! | `keyring` | the key file, and sealing with its keys |
//! | `providers` | files, variables and programs that know values of their own |
//!
//! Called by `engine::vault`, which decides who gets what. Invariants: a value leaves here as a [`crate::domain::Secret`]
//! or sealed; an error never holds one.

mod keyring;
mod providers;

pub use keyring::{KeyError, KeyRing, Sealed};
pub use providers::look;
