//! `landfall app services`: the containers of an app that is a Compose project.

use crate::domain::AppName;
use crate::wire::services::ServiceView;

use super::exit::{Exit, Outcome};
use super::table::Table;
use super::{Context, terminal};

/// Digits of a container's identifier that are shown, as the engine's own tools do.
const DIGITS: usize = 12;

/// All containers of an app's services, a line each.
pub async fn list(context: &Context, app: &AppName) -> Outcome {
    let services = context.client.services(context.environment(), app).await?;
    if context.json {
        terminal::json(&services)?;
    } else if services.is_empty() {
        terminal::line(format!("{app} has no services: it is no Compose project, or none of it is there."))?;
    } else {
        context.terminal.table(&table(&services))?;
    }
    Ok(Exit::Ok)
}

fn table(services: &[ServiceView]) -> Table {
    let mut table = Table::new(&["SERVICE", "STATE", "HEALTH", "RESTARTS", "CONTAINER", "IMAGE"]);
    for one in services {
        let state = one.exit_code.map_or_else(|| one.state.clone(), |code| format!("{} with code {code}", one.state));
        table.row([
            one.service.clone(),
            state,
            one.health.clone().unwrap_or_else(|| "-".to_owned()),
            one.restarts.to_string(),
            one.container.chars().take(DIGITS).collect(),
            one.image.trim_start_matches("sha256:").chars().take(DIGITS).collect(),
        ]);
    }
    table
}
