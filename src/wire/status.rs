//! The JSON of the agent as a whole: `GET /v1/status`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::api::{Channel, Source};
use crate::domain::EnvironmentName;

/// The agent as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Status {
    /// `true` when `problems` is empty.
    pub healthy: bool,
    /// What is wrong, one sentence each, with the mend.
    pub problems: Vec<String>,
    /// The three processes.
    pub processes: Processes,
    /// Absolute path of the data directory.
    pub data_dir: String,
    /// The agent's environment.
    pub environment: EnvironmentName,
    /// Where it listens.
    pub listen: Listen,
    /// How many apps are in each state.
    pub apps: std::collections::BTreeMap<String, u32>,
    /// How many instances run.
    pub instances: u32,
    /// The sources.
    pub sources: Vec<Source>,
    /// Channels that people hear by.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// The configuration; `None` from an agent of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// The time zones that schedules go by; `None` from an agent of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zones: Option<TimeZones>,
}

/// Where the agent's time zones come from and how old they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct TimeZones {
    /// The directory of the machine's zone files, if it has any.
    pub directory: Option<String>,
    /// Their version, like `2025b`, where they tell it.
    pub system: Option<String>,
    /// The version of the copy in the program, for what the machine does not have.
    pub bundled: String,
    /// That the machine's are older than the copy, and what to do.
    pub warning: Option<String>,
}

/// The agent's configuration, as far as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Configuration {
    /// Its file; `None` when the agent runs on defaults.
    pub file: Option<String>,
    /// When what is in force was read.
    pub read_at: Timestamp,
    /// Why the file as it is now is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Keys that were changed and take effect at the next start of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_next_start: Vec<String>,
}

/// The three processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Processes {
    /// The root of the tree.
    pub supervisor: Process,
    /// The control plane.
    pub controller: Process,
    /// The data plane; `None` while it restarts.
    pub proxy: Option<Process>,
    /// Proxies that finish what they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining_proxies: Vec<Process>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its program version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
}

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Listen {
    /// Web traffic.
    pub proxy: Vec<String>,
    /// The API's Unix socket.
    pub api_socket: String,
    /// The API's TCP address.
    pub api: Option<String>,
    /// URLs of apps end in this.
    pub domain: String,
}
