//! The JSON of the channels that people hear by: `/v1/channels`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::AppName;

/// A channel that people hear by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Channel {
    /// Its name.
    pub channel: String,
    /// `slack`, `email`, …
    pub kind: String,
    /// The words of the events it gets.
    pub events: Vec<String>,
    /// The apps it hears of; `None` for all, the sources and the disk.
    pub apps: Option<Vec<AppName>>,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What became of a test message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ChannelTested {
    /// It was taken.
    pub delivered: bool,
    /// Why not.
    pub message: String,
}

/// How a destination of messages stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Standing {
    /// Messages that wait.
    pub queued: u32,
    /// Messages that were taken so far.
    pub delivered: u64,
    /// Tries in vain so far.
    pub failed: u64,
    /// Messages that were given up: refused for good, too old, or too many.
    pub given_up: u64,
    /// When one was last taken.
    pub delivered_at: Option<Timestamp>,
    /// Why the last try failed, if it did.
    pub error: Option<String>,
    /// Since when every try fails.
    pub failing_since: Option<Timestamp>,
    /// When the next try is due, while they fail.
    pub next_at: Option<Timestamp>,
}
