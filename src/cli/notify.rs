//! `landfall notify …`: the channels that people hear by.

use clap::Subcommand;
use jiff::Timestamp;

use crate::wire::api::Channel;

use super::Context;
use super::exit::{Exit, Outcome};
use super::table::Table;
use super::terminal;
use super::when::{relative, stamp};

/// Verbs of `landfall notify`.
#[derive(Debug, Clone, Subcommand)]
pub enum NotifyCommand {
    /// List the channels of the configuration, and how they stand
    #[command(visible_alias = "ls")]
    List,
    /// Send a message to a channel now, and say whether it was taken
    Test {
        /// The channel
        channel: String,
    },
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &NotifyCommand) -> Outcome {
    match command {
        NotifyCommand::List => {
            let channels = context.client.channels().await?;
            if context.json {
                terminal::json(&channels)?;
            } else if channels.is_empty() {
                terminal::line(
                    "No channels: name one under `notifications` in the configuration; see docs/notifications.md.",
                )?;
            } else {
                terminal::print(&list(context, &channels, Timestamp::now()))?;
            }
            Ok(Exit::Ok)
        }
        NotifyCommand::Test { channel } => {
            let tested = context.client.test_channel(channel).await?;
            if context.json {
                terminal::json(&tested)?;
            } else if tested.delivered {
                terminal::line(format!("{channel} has taken the message"))?;
            } else {
                terminal::line(format!("{channel} has not taken the message: {}", tested.message))?;
            }
            Ok(if tested.delivered { Exit::Ok } else { Exit::Failed })
        }
    }
}

fn list(context: &Context, channels: &[Channel], now: Timestamp) -> String {
    let mut table = Table::new(&["CHANNEL", "KIND", "STATE", "TAKEN", "LAST", "WAITING", "GIVEN UP", "APPS"]);
    for channel in channels {
        let standing = &channel.standing;
        table.row([
            channel.channel.clone(),
            channel.kind.clone(),
            if standing.error.is_some() { "failing" } else { "ok" }.to_owned(),
            standing.delivered.to_string(),
            standing.delivered_at.map_or_else(|| "-".to_owned(), |at| relative(at, now)),
            standing.queued.to_string(),
            standing.given_up.to_string(),
            channel.apps.as_ref().map_or_else(
                || "all".to_owned(),
                |apps| match apps.len() {
                    0 => "those that name it".to_owned(),
                    _ => apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                },
            ),
        ]);
    }
    let mut text = table.render(context.terminal.width());
    for channel in channels {
        let Some(error) = &channel.standing.error else { continue };
        let since = channel.standing.failing_since.map(|at| format!(" since {}", stamp(at))).unwrap_or_default();
        let next = channel.standing.next_at.map(|at| format!("; next try {}", relative(at, now))).unwrap_or_default();
        text.push_str(&format!("\n{} is failing{since}: {error}{next}\n", channel.channel));
    }
    text
}
