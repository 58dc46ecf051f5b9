//! Whose something is that is named by an identifier: what a scope for some apps is held against.

use super::reconciler::internal;
use super::{Engine, Result};
use crate::domain::{AppKey, CallId, DeploymentId};
use crate::ledger::{calls, deployments};

impl Engine {
    /// The app of a deployment.
    pub async fn owner_of_deployment(&self, id: DeploymentId) -> Result<Option<AppKey>> {
        let found = self.ledger().read(move |ledger| deployments::one(ledger, id)).await.map_err(internal)?;
        Ok(found.map(|deployment| deployment.key))
    }

    /// The app of the function that was called.
    pub async fn owner_of_call(&self, id: CallId) -> Result<Option<AppKey>> {
        let found = self.ledger().read(move |ledger| calls::one(ledger, id)).await.map_err(internal)?;
        if let Some(call) = found {
            return Ok(Some(call.function.app));
        }
        let past = self.parts.history.one(id).await.map_err(internal)?;
        Ok(past.map(|past| past.function.app))
    }

    /// The app of an instance that is there now.
    pub async fn owner_of_instance(&self, id: &str) -> Option<AppKey> {
        let found = self.parts.fleet.instances().await.into_iter().find(|one| one.instance.as_str() == id)?;
        Some(AppKey::new(found.environment, found.app))
    }
}
