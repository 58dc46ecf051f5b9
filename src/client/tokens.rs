//! The calls about tokens and the audit log.

use jiff::Timestamp;

use super::query::Route;
use super::{Client, ClientError};
use crate::domain::{AppName, EnvironmentName};
use crate::wire::tokens::{AuditEntry, Token, TokenMade, TokenRequest};

/// Which entries of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Only about this app.
    pub app: Option<AppName>,
    /// Only by whoever has this name, or a token of this name.
    pub actor: Option<String>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Only those before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<u32>,
}

impl Client {
    /// Entries of the audit log, newest first.
    pub async fn audit(
        &self,
        environment: Option<&EnvironmentName>,
        query: &AuditQuery,
    ) -> Result<Vec<AuditEntry>, ClientError> {
        let route = Route::new(&["audit"])
            .with("environment", environment)
            .with("app", query.app.as_ref())
            .with("actor", query.actor.as_ref())
            .with("since", query.since)
            .with("before", query.before);
        self.gather(route, query.limit).await
    }

    /// All tokens, newest first; revoked ones too.
    pub async fn tokens(&self) -> Result<Vec<Token>, ClientError> {
        self.get(Route::new(&["tokens"])).await
    }

    /// Makes a token. What it is itself is in the answer, and nowhere else.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenMade, ClientError> {
        self.post(Route::new(&["tokens"]), request).await
    }

    /// Revokes a token.
    pub async fn revoke_token(&self, name: &str) -> Result<Token, ClientError> {
        self.post(Route::new(&["tokens", name, "revoke"]), &serde_json::Map::new()).await
    }
}
