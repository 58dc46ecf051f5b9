//! `landfall instance …`

use clap::Subcommand;
use jiff::Timestamp;

use crate::domain::AppName;
use crate::wire::api::Instance;

use super::exit::{Exit, Outcome};
use super::table::Table;
use super::when::relative;
use super::{Context, instance_exec, terminal};

/// Verbs of `landfall instance`.
#[derive(Debug, Clone, Subcommand)]
pub enum InstanceCommand {
    /// List running instances
    #[command(visible_alias = "ls")]
    List {
        /// Only of this app
        app: Option<AppName>,
    },
    /// Have an instance finish what it has and end; another takes its place at once
    Stop {
        /// The instance, as `landfall instance list` names it
        instance: String,
    },
    /// Run a command in an instance, beside what runs there
    ///
    /// It has the instance's user, environment with its secrets, working directory and limits. The exit code is the
    /// command's; 128 and the signal's number when a signal ended it, 127 when there is no such program, 126 when it must
    /// not be executed. It ends when this command does. Who ran what where is in `landfall audit`, arguments included.
    Exec {
        /// Hand on standard input
        #[arg(short = 'i', long)]
        stdin: bool,
        /// Give it a terminal
        #[arg(short = 't', long)]
        tty: bool,
        /// The instance, as `landfall instance list` names it
        instance: String,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &InstanceCommand) -> Outcome {
    let app = match command {
        InstanceCommand::List { app } => app,
        InstanceCommand::Exec { stdin, tty, instance, command } => {
            let asked = instance_exec::Asked { stdin: *stdin, tty: *tty, instance, command };
            return instance_exec::run(context, asked).await;
        }
        InstanceCommand::Stop { instance } => {
            let stopped = context.client.stop_instance(instance).await?;
            if context.json {
                terminal::json(&stopped)?;
            } else {
                terminal::line(format!("{} finishes what it has; another takes its place", stopped.instance))?;
            }
            return Ok(Exit::Ok);
        }
    };
    let instances = context.client.instances(context.environment(), app.as_ref()).await?;
    if context.json {
        terminal::json(&instances)?;
    } else if instances.is_empty() {
        terminal::line("No instances.")?;
    } else {
        context.terminal.table(&table(&instances, Timestamp::now()))?;
    }
    Ok(Exit::Ok)
}

fn table(instances: &[Instance], now: Timestamp) -> Table {
    let headings =
        ["INSTANCE", "OBJECT", "VERSION", "STATE", "PID", "ADDRESS", "REQUESTS", "RESTARTS", "STARTED", "DETAIL"];
    let mut table = Table::new(&headings);
    for instance in instances {
        table.row([
            instance.instance.to_string(),
            format!("{} {}", instance.kind, instance.object),
            instance.version.to_string(),
            instance.state.as_str().to_owned(),
            instance.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            instance.address.clone().unwrap_or_else(|| "-".to_owned()),
            instance.in_flight.to_string(),
            instance.restarts.to_string(),
            instance.started_at.map_or_else(|| "-".to_owned(), |at| relative(at, now)),
            instance.detail.clone().unwrap_or_default(),
        ]);
    }
    table
}
