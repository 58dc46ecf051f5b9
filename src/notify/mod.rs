//! Telling others: one file per kind of receiver. Each takes one message and says how that went; when to try again is
//! decided elsewhere.
//!
//! | file | what |
//! |---|---|
//! | `channel` | a configured channel, ready to be spoken to |
//! | `forge` | commit statuses at GitHub, GitLab, Gitea and Forgejo |
//! | `slack`, `discord`, `ntfy`, `alertmanager`, `webhook` | over HTTP, by `http` |
//! | `email` | SMTP |
//! | `exec` | a program on this machine |
//! | `render` | templates, and what fits where |
//!
//! Called by `engine::telling`, which owns the order and the record of what was delivered. Invariants: every delivery
//! has a deadline; files with secrets are read anew for each, and what is said about a failure holds none of them.

mod alertmanager;
pub mod channel;
mod discord;
mod email;
mod exec;
pub mod forge;
pub(crate) mod http;
mod ntfy;
mod render;
mod slack;
mod webhook;

use std::path::Path;
use std::time::Duration;

use crate::decide::announce::fitting;

/// Of what a receiver says, so much is shown, in characters.
const SHOWN: usize = 300;
/// Longest secret that is read from a file, in bytes.
const MAX_SECRET: usize = 16 * 1024;

/// How a delivery went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken.
    Delivered,
    /// Trying again may help.
    Later {
        /// When the receiver asks for it, if it does.
        after: Option<Duration>,
        /// What went wrong.
        why: String,
    },
    /// This message will never be taken.
    Never {
        /// Why not.
        why: String,
    },
}

/// Reads a file that holds one secret; what surrounds it does not count.
pub(crate) fn secret(what: &str, file: &Path) -> Result<String, String> {
    let unusable = |why: &str| format!("the {what} in {} cannot be used: {why}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| unusable(&error.to_string()))?;
    match text.trim() {
        "" => Err(unusable("the file is empty")),
        text if text.len() > MAX_SECRET => Err(unusable("it is too long")),
        // The text itself is not repeated: it is a secret.
        text if text.chars().any(char::is_control) => Err(unusable("it holds more than one line")),
        text => Ok(text.to_owned()),
    }
}

/// A text as it may be shown: one line, not too long, without these secrets.
pub(crate) fn shown(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[redacted]");
    }
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    fitting(&line.collect::<Vec<_>>().join(" "), SHOWN)
}

/// An error with its causes; the first line alone says "error sending request".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
