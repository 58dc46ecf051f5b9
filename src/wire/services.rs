//! The API's types of the services of apps that are Compose projects.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/apps/{app}/services?environment=` | array of [`ServiceView`] |

use serde::{Deserialize, Serialize};

/// A container of a service, as the engine says now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ServiceView {
    /// The service, with the number of its container where it is not the first: `web`, `web-2`.
    pub service: String,
    /// The container's identifier in the engine.
    pub container: String,
    /// In the engine's words: `running`, `exited`, `restarting`, …
    pub state: String,
    /// In the engine's words: `healthy`, `unhealthy`, `starting`; left out without a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// The code it ended with, for one that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// How often the engine has started it again since it was made.
    pub restarts: u64,
    /// The image it was made from, by the engine's identifier.
    pub image: String,
}
