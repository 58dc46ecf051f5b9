//! One running process of an object.

use serde::{Deserialize, Serialize};

/// How an instance stands.
///
/// ```text
/// starting ─► ready ◄─► failing          (probes)
///     │         │          │
///     └─────────┴──────────┴─► outdated ─► stopping ─► exited
///               └──────────────────────────────────────► exited
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Started, not ready yet.
    Starting,
    /// Takes work.
    Ready,
    /// Was ready, its probes fail; takes no work.
    Failing,
    /// Of a version that is no longer live, or surplus: finishes what it has.
    Outdated,
    /// Told to stop.
    Stopping,
    /// Ended.
    Exited,
}

impl InstanceState {
    /// The word in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Starting => "starting",
            InstanceState::Ready => "ready",
            InstanceState::Failing => "failing",
            InstanceState::Outdated => "outdated",
            InstanceState::Stopping => "stopping",
            InstanceState::Exited => "exited",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone, but nobody saw how (the supervisor was replaced meanwhile).
    Unknown,
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {number}"),
            },
            ExitStatus::Unknown => f.write_str("ended unseen"),
        }
    }
}

/// The common names, numbered as on Linux for x86-64 and arm64 (signal(7)).
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}
