//! `landfall source …`

use clap::Subcommand;
use jiff::Timestamp;

use crate::domain::SourceName;
use crate::wire::api::{Source, Standing, SuspendRequest};

use super::exit::{Exit, Outcome};
use super::table::Table;
use super::when::{When, relative, stamp};
use super::{Context, terminal};

/// Verbs of `landfall source`.
#[derive(Debug, Clone, Subcommand)]
pub enum SourceCommand {
    /// List the watched repositories and directories
    #[command(visible_alias = "ls")]
    List,
    /// Show everything about a source
    Show {
        /// The source
        source: SourceName,
    },
    /// Look at a source now, instead of at the next poll
    Sync {
        /// The source [default: all that are not suspended]
        source: Option<SourceName>,
    },
    /// Let a source have what waits: removals held back by its brake, or a rewritten branch
    Approve(super::approve::ApproveArgs),
    /// Freeze a source: it is not looked at, its apps run on
    Suspend {
        /// The source
        source: SourceName,
        /// Thaw it after this long (2h) or at this time
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        /// Why, for others to see
        #[arg(long)]
        reason: Option<String>,
    },
    /// Thaw a suspended source, and look at it
    Resume {
        /// The source
        source: SourceName,
    },
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &SourceCommand) -> Outcome {
    match command {
        SourceCommand::Approve(args) => super::approve::run(context, args).await,
        SourceCommand::List => {
            list(context, &context.client.sources().await?)?;
            Ok(Exit::Ok)
        }
        SourceCommand::Show { source } => show(context, source).await,
        SourceCommand::Sync { source } => sync(context, source.as_ref()).await,
        SourceCommand::Suspend { source, until, reason } => {
            let until = until.map(|until| until.ahead(Timestamp::now()));
            let request = SuspendRequest { reason: reason.clone(), until };
            let answer = context.client.suspend_source(source, &request).await?;
            let end = match answer.suspension.as_ref().and_then(|suspension| suspension.until) {
                Some(until) => format!("until {}", stamp(until)),
                None => format!("until `landfall source resume {source}`"),
            };
            said(context, &answer, format!("{source} is suspended {end}: its apps run on, it is not looked at"))
        }
        SourceCommand::Resume { source } => {
            let answer = context.client.resume_source(source).await?;
            said(context, &answer, format!("{source} is looked at again"))
        }
    }
}

fn said(context: &Context, source: &Source, words: String) -> Outcome {
    if context.json {
        terminal::json(source)?;
    } else {
        terminal::line(words)?;
    }
    Ok(Exit::Ok)
}

async fn sync(context: &Context, source: Option<&SourceName>) -> Outcome {
    let mut looked_at = Vec::new();
    match source {
        Some(source) => looked_at.push(context.client.sync(source).await?),
        None => {
            for source in context.client.sources().await? {
                // Whoever suspended it did so for a reason; only its own name would ask for it, and be refused.
                looked_at.push(match source.suspension {
                    Some(_) => source,
                    None => context.client.sync(&source.source).await?,
                });
            }
        }
    }
    list(context, &looked_at)?;
    Ok(if looked_at.iter().any(|source| source.error.is_some()) { Exit::Failed } else { Exit::Ok })
}

fn list(context: &Context, sources: &[Source]) -> Result<(), super::exit::CliError> {
    if context.json {
        return terminal::json(&sources);
    }
    if sources.is_empty() {
        return terminal::line("No sources: name a repository or a directory under `sources` in the configuration.");
    }
    context.terminal.table(&table(sources, Timestamp::now()))?;
    for source in sources {
        for error in source.error.iter().chain(&source.manifest_errors) {
            terminal::line(format!("\n{}: {error}", source.source))?;
        }
        for waiting in &source.waiting {
            terminal::line(format!("\n{}", waiting.reason.words_for(&source.source)))?;
        }
    }
    Ok(())
}

fn table(sources: &[Source], now: Timestamp) -> Table {
    let mut table =
        Table::new(&["SOURCE", "KIND", "REVISION", "APPS", "LOOKED AT", "NEXT LOOK", "LAST HOOK", "STATE", "LOCATION"]);
    for source in sources {
        table.row([
            source.source.to_string(),
            source.kind.clone(),
            source.revision.as_deref().map_or("-", short).to_owned(),
            source.apps.to_string(),
            source.looked_at.map_or_else(|| "not yet".to_owned(), |at| relative(at, now)),
            source.next_look_at.map_or_else(|| "-".to_owned(), |at| relative(at, now)),
            source.last_hook.as_ref().map_or_else(|| "-".to_owned(), |hook| relative(hook.at, now)),
            state(source),
            location(source),
        ]);
    }
    table
}

fn short(revision: &str) -> &str {
    revision.get(..7).unwrap_or(revision)
}

fn location(source: &Source) -> String {
    let reference = source.reference.as_ref().map(|reference| format!(" ({reference})")).unwrap_or_default();
    format!("{}{reference}", source.location)
}

/// The most pressing thing first.
fn state(source: &Source) -> String {
    if source.suspension.is_some() {
        return "suspended".to_owned();
    }
    match (&source.error, source.manifest_errors.is_empty(), source.dirty) {
        (Some(_), _, _) => {
            source.error_kind.as_ref().map_or_else(|| "failing".to_owned(), |kind| format!("failing ({kind})"))
        }
        (None, _, _) if !source.waiting.is_empty() => "waiting".to_owned(),
        (None, false, _) => "bad manifests".to_owned(),
        (None, true, true) => "looking".to_owned(),
        (None, true, false) => "ok".to_owned(),
    }
}

async fn show(context: &Context, source: &SourceName) -> Outcome {
    let shown = context.client.source(source).await?;
    if context.json {
        terminal::json(&shown)?;
    } else {
        terminal::print(&details(&shown, Timestamp::now()))?;
    }
    Ok(Exit::Ok)
}

/// Everything there is to say, one fact a line.
fn details(source: &Source, now: Timestamp) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: String| text.push_str(&format!("{name:<13}{value}\n"));
    let moment = |at: Timestamp| format!("{} ({})", stamp(at), relative(at, now));
    fact("Source", source.source.to_string());
    fact("Kind", source.kind.clone());
    fact("Location", location(source));
    fact("State", state(source));
    if let Some(suspension) = &source.suspension {
        let until = suspension.until.map(|until| format!(", until {}", stamp(until))).unwrap_or_default();
        let since = stamp(suspension.since);
        fact("Suspended", format!("by {} since {since}{until}: {}", suspension.actor, suspension.reason));
    }
    let within = source.environment.as_ref().map(|environment| format!(" in {environment}")).unwrap_or_default();
    fact("Apps", format!("{}{within}", source.apps));
    fact("Revision", source.revision.clone().unwrap_or_else(|| "-".to_owned()));
    fact("Read", source.read_at.map_or_else(|| "not yet".to_owned(), moment));
    fact("Looked at", source.looked_at.map_or_else(|| "not yet".to_owned(), moment));
    if let Some(next) = source.next_look_at {
        fact("Next look", moment(next));
    }
    if let Some(hook) = &source.last_hook {
        fact("Last hook", format!("{}: {}", moment(hook.at), hook.outcome.as_str()));
    }
    if let Some(reports) = &source.reports {
        fact("Reports", standing(reports, now));
    }
    if let Some(error) = &source.error {
        fact("Error", error.clone());
    }
    for error in &source.manifest_errors {
        fact("Manifest", error.clone());
    }
    text
}

/// How a destination of messages stands, in one line.
fn standing(standing: &Standing, now: Timestamp) -> String {
    let last = standing
        .delivered_at
        .map_or_else(|| "none taken yet".to_owned(), |at| format!("last one taken {}", relative(at, now)));
    let waiting = match standing.queued {
        0 => String::new(),
        count => format!(", {count} waiting"),
    };
    let error = standing.error.as_ref().map(|why| {
        let since = standing.failing_since.map(|at| format!(" since {}", stamp(at))).unwrap_or_default();
        let next = standing.next_at.map(|at| format!("; next try {}", relative(at, now))).unwrap_or_default();
        format!("; failing{since}: {why}{next}")
    });
    format!("{last}{waiting}{}", error.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        serde_json::from_value(serde_json::json!({
            "source": "fleet", "kind": "git", "location": "https://git.example.com/fleet.git",
            "reference": "branch main", "revision": "0123456789abcdef0123456789abcdef01234567",
            "read_at": "2026-03-01T12:00:00Z", "looked_at": "2026-03-01T12:10:00Z",
            "next_look_at": "2026-03-01T12:11:00Z", "error": null, "manifest_errors": [], "apps": 3, "dirty": false,
        }))
        .unwrap()
    }

    #[test]
    fn the_kind_of_an_error_and_a_suspension_are_seen_in_the_list() {
        let now: Timestamp = "2026-03-01T12:10:30Z".parse().unwrap();
        let mut failing = source();
        failing.error = Some("no such host".to_owned());
        failing.error_kind = Some("network".to_owned());
        let mut suspended = failing.clone();
        suspended.suspension = Some(crate::domain::Suspension {
            reason: "moving the forge".to_owned(),
            actor: crate::domain::Actor::User { name: "ada".to_owned() },
            since: now,
            until: None,
        });
        let text = table(&[source(), failing, suspended.clone()], now).render(None);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("0123456") && lines[1].contains("in 30 s") && lines[1].contains(" ok "), "{text}");
        assert!(lines[2].contains("failing (network)"), "{text}");
        assert!(lines[3].contains("suspended"), "{text}");
        let text = details(&suspended, now);
        assert!(text.contains("by ada since 2026-03-01 12:10:30Z: moving the forge"), "{text}");
        assert!(text.contains("no such host") && text.contains("branch main"), "{text}");
    }
}
