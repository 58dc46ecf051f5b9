//! What people do and see within what runs: commands in an instance, the services of a Compose project.

use super::{CommandError, Engine, Result};
use crate::domain::AppKey;
use crate::domain::compose::OBJECT;
use crate::runtime::{ExecError, ExecStream, LinkError};
use crate::wire::api;
use crate::wire::exec::ExecStart;
use crate::wire::services::ServiceView;

/// Longest command line, in bytes.
const LONGEST: usize = 32 * 1024;

impl Engine {
    /// Runs a command in an instance, beside what runs there. Dropping the stream ends the command.
    ///
    /// # Errors
    /// For an instance that is not there or does not run, a command that is none, and where the supervisor or the engine
    /// of containers does not do it. A program that cannot be started is told by the stream.
    pub async fn exec(&self, instance: &api::Instance, start: ExecStart) -> Result<ExecStream> {
        let length: usize = start.command.iter().map(|word| word.len() + 1).sum();
        if start.command.first().is_none_or(|program| program.is_empty()) || length > LONGEST {
            return Err(CommandError::Invalid {
                what: format!("a command has a program and at most {} KiB with its arguments", LONGEST / 1024),
                mend: "name a program: `landfall instance exec INSTANCE -- PROGRAM ARGUMENTS…`".into(),
            });
        }
        let id = instance.instance.clone();
        self.parts.runtime.exec(&id, start).await.map_err(|error| match error {
            // It ends, or has ended meanwhile.
            ExecError::Refused(what) | ExecError::Link(LinkError::Refused { message: what, .. }) => {
                CommandError::Conflict { what, mend: "`landfall instance list` shows the instances that run".into() }
            }
            ExecError::Link(_) | ExecError::Io(_) | ExecError::Engine(_) => {
                CommandError::Internal { what: error.to_string() }
            }
        })
    }

    /// The containers of an app that is a Compose project, as the engine says; none of one that is not.
    ///
    /// # Errors
    /// For an app that is not there, and while the engine does not answer.
    pub async fn services(&self, app: AppKey) -> Result<Vec<ServiceView>> {
        // Says what is wrong where there is no such app.
        self.app(app.clone()).await?;
        let of_app = |one: &api::Instance| one.app == app.app && one.environment == app.environment;
        let is_project = |one: &api::Instance| of_app(one) && one.object == OBJECT;
        if !self.parts.fleet.instances().await.iter().any(is_project) {
            // Nothing looks after a project, and the engine is not asked for nothing.
            return Ok(Vec::new());
        }
        let found = self.parts.runtime.docker().project_containers(&app).await;
        found.map_err(|what| CommandError::Internal {
            what: format!("the engine does not say how the services are: {what}"),
        })
    }

    /// An instance that is there now, and its app.
    pub async fn instance(&self, id: &str) -> Result<(AppKey, api::Instance)> {
        let found = self.parts.fleet.instances().await.into_iter().find(|one| one.instance.as_str() == id);
        let instance = found.ok_or_else(|| CommandError::NotFound {
            what: format!("there is no instance `{}`", id.chars().take(100).collect::<String>().escape_debug()),
            mend: "`landfall instance list` shows the instances there are".into(),
        })?;
        Ok((AppKey::new(instance.environment.clone(), instance.app.clone()), instance))
    }
}
