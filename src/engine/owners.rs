//! Whose something is that is named by an identifier: what a scope for some apps is held against.

use super::reconciler::internal;
use super::{CommandError, Engine, Result};
use crate::domain::{AppKey, CallId, DeploymentId};
use crate::ledger::deployments;
use crate::wire::api;

impl Engine {
    /// The app of a deployment.
    pub async fn owner_of_deployment(&self, id: DeploymentId) -> Result<Option<AppKey>> {
        let found = self.ledger().read(move |ledger| deployments::one(ledger, id)).await.map_err(internal)?;
        Ok(found.map(|deployment| deployment.key))
    }

    /// The app of the function that was called.
    pub async fn owner_of_call(&self, id: CallId) -> Result<Option<AppKey>> {
        Ok(self.find_call(id).await?.map(|found| found.function().app.clone()))
    }

    /// Has an instance finish what it has and end; another takes its place at once.
    pub async fn stop_instance(&self, id: &str) -> Result<api::Instance> {
        let (_, instance) = self.instance(id).await?;
        if self.parts.fleet.replace(instance.instance.clone()).await {
            return Ok(instance);
        }
        Err(CommandError::Conflict {
            what: format!("{id} is a worker, or on its way out already"),
            mend: "`landfall app rollover` starts all of an app afresh, workers included".into(),
        })
    }

    /// The app of an instance that is there now.
    pub async fn owner_of_instance(&self, id: &str) -> Option<AppKey> {
        self.instance(id).await.ok().map(|(app, _)| app)
    }
}
