//! Why an app does not run what git asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{Actor, VersionNumber};

/// The recorded reason why an app runs another version than git asks for. Auto-sync stays on:
/// new, not quarantined content ends the hold by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Hold {
    /// The version that is held.
    pub version: VersionNumber,
    /// Why, in the actor's words.
    pub reason: String,
    /// Who.
    pub actor: Actor,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// A freeze of an app or a source: nothing changes until it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Suspension {
    /// Why, in the actor's words.
    pub reason: String,
    /// Who.
    pub actor: Actor,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}
