//! `landfall source approve`: shows what waits, and approves exactly that.

use clap::Args;

use crate::domain::SourceName;
use crate::wire::api::ApproveRequest;

use super::exit::{Exit, Outcome};
use super::{Context, terminal};

/// Options of `landfall source approve`.
#[derive(Debug, Clone, Args)]
pub struct ApproveArgs {
    /// The source
    source: SourceName,
    /// Why, for others to see
    #[arg(long)]
    reason: Option<String>,
}

/// Approves what waits now; what comes to wait after it was shown here is not meant.
pub async fn run(context: &Context, args: &ApproveArgs) -> Outcome {
    let sources = context.client.sources().await?;
    let waiting = sources.into_iter().find(|source| source.source == args.source).map(|source| source.waiting);
    let waiting: Vec<_> = waiting.into_iter().flatten().filter(|waiting| waiting.reason.can_be_approved()).collect();
    if !context.json {
        for waiting in &waiting {
            terminal::line(format!("source `{}`: {}", args.source, waiting.reason))?;
        }
    }
    let waits = waiting.iter().map(|waiting| waiting.id).collect();
    // With nothing to approve the agent says so, or that there is no such source: it approves only what is named.
    let request = ApproveRequest { waits, reason: args.reason.clone() };
    let approved = context.client.approve(&args.source, &request).await?;
    if context.json {
        terminal::json(&approved)?;
    } else {
        terminal::line(&approved.message)?;
    }
    Ok(Exit::Ok)
}
