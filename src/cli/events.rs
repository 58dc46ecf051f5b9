//! `landfall events`: what happened.

use clap::Args;

use crate::wire::api::EventRecord;

use super::exit::{CliError, Exit, Outcome};
use super::table::one_line;
use super::when::stamp;
use super::{Context, terminal};

/// Options of `landfall events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only events after the one with this number, from there on [default: the newest]
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// At most this many, from as many pages as it takes
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 200)]
    limit: u32,
    /// Go on with new events as they come
    #[arg(short, long)]
    follow: bool,
}

/// Asks for the newest events instead of those after a place.
const NEWEST: i64 = -1;
/// Prints events; as JSON one object a line.
pub async fn run(context: &Context, args: &EventsArgs) -> Outcome {
    let after = args.after.unwrap_or(NEWEST);
    if args.follow {
        let mut events = context.client.follow_events(after, args.limit).await?;
        while let Some(event) = events.next().await? {
            print(context, &event)?;
        }
        return Ok(Exit::Ok);
    }
    for event in context.client.events(after, args.limit).await? {
        print(context, &event)?;
    }
    Ok(Exit::Ok)
}

fn print(context: &Context, record: &EventRecord) -> Result<(), CliError> {
    let of = record.event.app.as_ref().map(|key| &key.environment);
    // What is about no app is about all environments.
    if of.is_some_and(|of| context.environment().is_some_and(|wanted| of != wanted)) {
        return Ok(());
    }
    if context.json { terminal::json_line(record) } else { terminal::line(text(record)) }
}

/// `41  2026-03-01 12:00:00Z  deployment.live  main/shop v3  message`
fn text(record: &EventRecord) -> String {
    let event = &record.event;
    let app = event.app.as_ref().map(ToString::to_string);
    let source = event.source.as_ref().map(|source| format!("source {source}"));
    let version = event.version.map(|version| format!(" {version}")).unwrap_or_default();
    let whom = app.or(source).map(|whom| format!("{whom}{version}  ")).unwrap_or_default();
    let when = stamp(event.at);
    format!("{:<5}{when}  {:<20} {whom}{}", record.sequence, event.kind.as_str(), one_line(&event.message))
}
