//! The JSON of tokens and of the audit log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{AppName, EnvironmentName, Scope, TokenId};

/// A token; never what it is itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Token {
    /// Its number.
    pub id: TokenId,
    /// Its name.
    pub name: String,
    /// Whom it was made for: recorded with what is done with it.
    pub actor: String,
    /// What may be done with it, and to which apps.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// From when on it is worth nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was last used; written about every half minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
}

/// `POST /v1/tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Its name: at most 64 letters, digits and `.-_@`; no other token has it.
    pub name: String,
    /// Whom it is for; its name unless said otherwise.
    #[serde(default)]
    pub actor: Option<String>,
    /// What may be done with it, and to which apps.
    pub scope: Scope,
    /// From when on it is worth nothing.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A token that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct TokenMade {
    /// The token itself. It is shown here and never again.
    pub secret: String,
    /// What is kept of it.
    pub token: Token,
}

impl std::fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMade").field("token", &self.token).finish_non_exhaustive()
    }
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// Its place in the order of all.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// How they were known: `local`, `token`, `session`, `loopback`, `unknown`; `agent` for what nobody asked for.
    pub via: String,
    /// Where they asked from, unless it was this machine's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What was done: `app.rollback`, `token.create`, `login`, …; `refused` for what was not.
    pub action: String,
    /// The environment of the app it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// The app it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// What was asked for, or what follows from it.
    pub detail: serde_json::Value,
    /// How the app stood before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// How it stood when it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
    /// What was answered. Missing where the agent ended before it could answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}
