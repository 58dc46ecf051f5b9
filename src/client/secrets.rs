//! The calls about secrets.

use super::query::Route;
use super::{Client, ClientError};
use crate::wire::secrets::{NamedSecret, Rotated, Secret, SetSecret};

impl Client {
    /// The secrets that are stored, without their values.
    pub async fn secrets(&self) -> Result<Vec<Secret>, ClientError> {
        self.get(Route::new(&["secrets"])).await
    }

    /// Stores a secret.
    pub async fn set_secret(&self, request: &SetSecret) -> Result<Secret, ClientError> {
        self.post(Route::new(&["secrets"]), request).await
    }

    /// Removes a secret.
    pub async fn remove_secret(&self, request: &NamedSecret) -> Result<(), ClientError> {
        self.post::<serde_json::Value>(Route::new(&["secrets", "remove"]), request).await.map(drop)
    }

    /// Seals all secrets anew with a new key.
    pub async fn rotate_secrets_key(&self) -> Result<Rotated, ClientError> {
        self.post(Route::new(&["secrets", "rotate-key"]), &serde_json::Map::new()).await
    }
}
