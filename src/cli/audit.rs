//! `landfall audit`: who changed what, from where, and what came of it.

use clap::Args;
use jiff::Timestamp;

use crate::client::AuditQuery;
use crate::domain::AppName;
use crate::wire::tokens::AuditEntry;

use super::exit::{Exit, Outcome};
use super::table::one_line;
use super::when::{When, stamp};
use super::{Context, terminal};

/// Options of `landfall audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Only changes to this app
    #[arg(long, value_name = "APP")]
    app: Option<AppName>,
    /// Only changes by whoever has this name, or a token of this name
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only changes since then: a length of time such as 7d, or a time
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// At most so many, the newest
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Only those before the one with this number, to go on
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
}

/// Prints entries, oldest first; as JSON an array, newest first.
pub async fn run(context: &Context, args: &AuditArgs) -> Outcome {
    let query = AuditQuery {
        app: args.app.clone(),
        actor: args.actor.clone(),
        since: args.since.map(|since| since.ago(Timestamp::now())),
        before: args.before,
        limit: Some(if args.all { u32::MAX } else { args.limit }),
    };
    let entries = context.client.audit(context.environment(), &query).await?;
    if context.json {
        terminal::json(&entries)?;
    } else {
        for entry in entries.iter().rev() {
            terminal::line(text(entry))?;
        }
    }
    Ok(Exit::Ok)
}

/// `41  2026-03-01 12:00:00Z  ada (token laptop)  192.0.2.1  app.rollback  main/shop  v4 → v5 is on its way`
fn text(entry: &AuditEntry) -> String {
    let from =
        entry.address.as_deref().map_or_else(|| entry.via.clone(), |address| format!("{} from {address}", entry.via));
    let app = match (&entry.environment, &entry.app) {
        (Some(environment), Some(app)) => format!("{environment}/{app}  "),
        (_, _) => String::new(),
    };
    let word = |key: &str| entry.result.as_ref().and_then(|result| result.get(key)).and_then(|value| value.as_str());
    let came = match (&entry.result, word("message").or_else(|| word("title"))) {
        (_, Some(message)) => message.to_owned(),
        (Some(result), None) => match result.get("status").and_then(serde_json::Value::as_u64) {
            Some(200..=399) => "done".to_owned(),
            status => format!("status {}", status.unwrap_or_default()),
        },
        (None, None) if entry.via == "agent" => String::new(),
        (None, None) => "not answered: the agent ended before".to_owned(),
    };
    let detail = match &entry.detail {
        serde_json::Value::Null => String::new(),
        detail if detail.as_object().is_some_and(serde_json::Map::is_empty) => String::new(),
        detail => format!("{detail}  "),
    };
    one_line(&format!(
        "{:<5}{}  {}  {from}  {}  {app}{detail}{came}",
        entry.id,
        stamp(entry.at),
        entry.actor,
        entry.action
    ))
}
