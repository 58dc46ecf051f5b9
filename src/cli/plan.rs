//! `landfall plan`: what the newest revision would change.

use std::collections::BTreeSet;

use clap::Args;

use crate::domain::{AppName, EnvironmentName, SourceName};
use crate::wire::api::PlanItem;

use super::exit::{Exit, Outcome};
use super::table::Table;
use super::{Context, terminal};

/// Options of `landfall plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Only this source [default: all]
    source: Option<SourceName>,
    /// Also list apps nothing would happen to
    #[arg(short, long)]
    all: bool,
}

/// Prints what would be done.
pub async fn run(context: &Context, args: &PlanArgs) -> Outcome {
    let mut items = context.client.plan(args.source.as_ref()).await?;
    items.retain(|item| context.environment().is_none_or(|wanted| item.environment == *wanted));
    let environments: BTreeSet<&EnvironmentName> = items.iter().map(|item| &item.environment).collect();
    let name = |item: &PlanItem, app: &AppName| match environments.len() {
        0 | 1 => app.to_string(),
        _ => format!("{}/{app}", item.environment),
    };
    // A plan with a hole in it must not look like a whole one.
    let exit = if items.iter().any(|item| item.action == "error") { Exit::Failed } else { Exit::Ok };
    if context.json {
        terminal::json(&items)?;
        return Ok(exit);
    }
    let shown: Vec<&PlanItem> = items.iter().filter(|item| args.all || item.action != "none").collect();
    if shown.is_empty() {
        terminal::line(format!("Nothing to do: {} apps are as their sources ask.", items.len()))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["ACTION", "APP", "LIVE", "SOURCE", "WHY"]);
    for item in shown {
        table.row([
            item.action.clone(),
            item.app.as_ref().map_or_else(|| "-".to_owned(), |app| name(item, app)),
            item.live_version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            item.source.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            item.reasons.join("; "),
        ]);
    }
    context.terminal.table(&table)?;
    Ok(exit)
}
