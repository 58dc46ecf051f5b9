//! An app that is a tree of files at a stable path, for programs that Landfall does not run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::{Build, Millis};

/// Where a version's tree is published, and what is done before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The link: an absolute path.
    pub path: String,
    /// Trees of versions before that stay.
    pub keep: u32,
    /// A tree that was replaced stays at least this long, for whoever still reads it.
    pub linger: Millis,
    /// Runs in the new tree before it is linked to; if it fails, nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Build>,
    /// How the readers hear of the new tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
}

/// How whoever reads a published tree hears of a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// What is done.
    #[serde(flatten)]
    pub how: How,
    /// It must have succeeded after this long; it is tried again until then.
    pub timeout: Millis,
}

/// One way of telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A command, run in the new tree.
    Command(Vec<String>),
    /// `POST` to an address.
    Url(String),
    /// A signal to a process.
    Signal {
        /// Which signal.
        signal: Signal,
        /// Who gets it.
        to: Target,
    },
}

/// Who gets a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The process whose number stands in this file.
    PidFile(String),
    /// Every process of this name that has no parent of the same name.
    Process(String),
}

/// Signals by which programs are told to read their files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// `SIGHUP`
    Hup,
    /// `SIGUSR1`
    Usr1,
    /// `SIGUSR2`
    Usr2,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hup, Self::Usr1, Self::Usr2];

    /// Its name without `SIG`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
        }
    }

    /// The signal of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
