//! `landfall source …`

use clap::Subcommand;
use jiff::Timestamp;

use crate::domain::SourceName;
use crate::wire::api::Source;

use super::exit::{Exit, Outcome};
use super::table::Table;
use super::when::relative;
use super::{Context, terminal};

/// Verbs of `landfall source`.
#[derive(Debug, Clone, Subcommand)]
pub enum SourceCommand {
    /// List the watched repositories and directories
    #[command(visible_alias = "ls")]
    List,
    /// Look at a source now, instead of at the next poll
    Sync {
        /// The source [default: all]
        source: Option<SourceName>,
    },
    /// Let a source have what waits: removals held back by its brake, or a rewritten branch
    Approve(super::approve::ApproveArgs),
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &SourceCommand) -> Outcome {
    let sources = match command {
        SourceCommand::Approve(args) => return super::approve::run(context, args).await,
        SourceCommand::List => context.client.sources().await?,
        SourceCommand::Sync { source: Some(source) } => vec![context.client.sync(source).await?],
        SourceCommand::Sync { source: None } => {
            let mut looked_at = Vec::new();
            for source in context.client.sources().await? {
                looked_at.push(context.client.sync(&source.source).await?);
            }
            looked_at
        }
    };
    if context.json {
        terminal::json(&sources)?;
    } else if sources.is_empty() {
        terminal::line("No sources: name a repository or a directory under `sources` in the configuration.")?;
    } else {
        context.terminal.table(&table(&sources, Timestamp::now()))?;
        for source in &sources {
            for error in source.error.iter().chain(&source.manifest_errors) {
                terminal::line(format!("\n{}: {error}", source.source))?;
            }
            for waiting in &source.waiting {
                terminal::line(format!("\n{}", waiting.reason.words_for(&source.source)))?;
            }
        }
    }
    let failed = matches!(command, SourceCommand::Sync { .. }) && sources.iter().any(|source| source.error.is_some());
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

fn table(sources: &[Source], now: Timestamp) -> Table {
    let mut table = Table::new(&["SOURCE", "KIND", "REVISION", "APPS", "LOOKED AT", "STATE", "LOCATION"]);
    for source in sources {
        let reference = source.reference.as_ref().map(|reference| format!(" ({reference})")).unwrap_or_default();
        table.row([
            source.source.to_string(),
            source.kind.clone(),
            source.revision.as_deref().map_or("-", |revision| revision.get(..7).unwrap_or(revision)).to_owned(),
            source.apps.to_string(),
            source.looked_at.map_or_else(|| "not yet".to_owned(), |at| relative(at, now)),
            state(source),
            format!("{}{reference}", source.location),
        ]);
    }
    table
}

fn state(source: &Source) -> String {
    let word = match (&source.error, source.manifest_errors.is_empty(), source.dirty) {
        (Some(_), _, _) => match &source.error_kind {
            Some(kind) => return format!("failing ({kind})"),
            None => "failing",
        },
        (None, _, _) if !source.waiting.is_empty() => "waiting",
        (None, false, _) => "bad manifests",
        (None, true, true) => "looking",
        (None, true, false) => "ok",
    };
    word.to_owned()
}
