//! What the API asks and commands about secrets.

use super::handle::Engine;
use super::reconciler::internal;
use super::{Caller, Result};
use crate::domain::{AppKey, Secret, SecretName};
use crate::ledger::secrets::Place;
use crate::ledger::versions;
use crate::wire::secrets as api;

/// Who asks for a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// The secret.
    pub secret: SecretName,
    /// The app whose live version asks for it.
    pub app: AppKey,
    /// The variable it is given in, or the key that gives it to a build: `build.secrets.npmrc`.
    pub variable: String,
}

impl Engine {
    /// Which secrets the live versions of all apps ask for.
    pub async fn secret_uses(&self) -> Result<Vec<SecretUse>> {
        let live = self.ledger().read(versions::all_published).await.map_err(internal)?;
        let uses = live.into_iter().flat_map(|(app, live)| {
            let built = live.manifest.container.as_ref().and_then(|container| container.image.dockerfile());
            let asked: Vec<_> = built.into_iter().flat_map(super::vault::asked_for_build).collect();
            let asked = live.manifest.secrets.into_iter().chain(live.manifest.secret_files).chain(asked);
            asked.map(move |(variable, secret)| SecretUse { secret, app: app.clone(), variable })
        });
        Ok(uses.collect())
    }

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
