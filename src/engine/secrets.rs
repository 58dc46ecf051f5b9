//! What the API asks and commands about secrets.

use super::handle::Engine;
use super::{Caller, Result};
use crate::domain::Secret;
use crate::ledger::secrets::Place;
use crate::wire::secrets as api;

impl Engine {
    /// The secrets that are stored, without their values.
    pub async fn secrets(&self) -> Result<Vec<api::Secret>> {
        self.parts.vault.list().await
    }

    /// Stores a secret.
    pub async fn set_secret(&self, caller: Caller, request: api::SetSecret) -> Result<api::Secret> {
        let api::SetSecret { secret, environment, app, value } = request;
        let environment = environment.unwrap_or_else(|| self.environment());
        self.parts.vault.set(caller, Place { environment, app, name: secret }, Secret::new(value)).await
    }

    /// Removes a secret.
    pub async fn remove_secret(&self, caller: Caller, request: api::NamedSecret) -> Result<()> {
        let api::NamedSecret { secret, environment, app } = request;
        let environment = environment.unwrap_or_else(|| self.environment());
        self.parts.vault.remove(caller, Place { environment, app, name: secret }).await
    }

    /// Seals all secrets anew with a new key.
    pub async fn rotate_secrets_key(&self, caller: Caller) -> Result<api::Rotated> {
        self.parts.vault.rotate(caller).await
    }
}
