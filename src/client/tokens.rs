//! The calls about tokens and the audit log.

use super::query::Route;
use super::{Client, ClientError};
use crate::wire::tokens::{Token, TokenMade, TokenRequest};

impl Client {
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
