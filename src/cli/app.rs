//! `landfall app …`: the arguments of the noun, handed to the file of the verb.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::domain::{AppName, ObjectName, VersionNumber};
use crate::wire::api::RollbackRequest;

use super::exit::Outcome;
use super::follow::Waiting;
use super::when::{When, parse_length};
use super::{Context, app_change, app_diff, app_functions, app_logs, app_requests, app_services, app_show};

/// Verbs of `landfall app`.
#[derive(Debug, Clone, Subcommand)]
pub enum AppCommand {
    /// List all apps
    #[command(visible_alias = "ls")]
    List,
    /// Show everything about an app
    Show {
        /// The app
        app: AppName,
    },
    /// List the versions of an app, newest first
    History {
        /// The app
        app: AppName,
        /// At most this many
        #[arg(short = 'n', long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Show how one version differs from another: files, manifest, secrets' revisions
    Diff(app_diff::DiffArgs),
    /// Print what an app wrote
    Logs(app_logs::LogsArgs),
    /// Bring an earlier version back; new content in git ends that by itself
    Rollback {
        /// The app
        app: AppName,
        /// The version (`v3` or `3`) [default: the newest earlier one that was healthy]
        version: Option<VersionNumber>,
        /// Why, for the history
        #[arg(long)]
        reason: Option<String>,
        /// Follow git again after this long (2h) or at this time
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        /// Also write the revert as a commit on a new branch of the source, for review; the branch that is followed is
        /// never touched
        #[arg(long)]
        propose: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Let a held app follow git again
    Release {
        /// The app
        app: AppName,
        /// Start git's content even though it was rolled back (quarantined)
        #[arg(long)]
        force: bool,
        /// Why, for the history
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Start the live version afresh, as a new version, without losing a request
    Rollover {
        /// The app
        app: AppName,
        /// Why, for the history
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Freeze an app: it runs on, nothing is deployed
    Suspend {
        /// The app
        app: AppName,
        /// Thaw it after this long (2h) or at this time
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        /// Why, for others to see
        #[arg(long)]
        reason: Option<String>,
    },
    /// Thaw a suspended app
    Resume {
        /// The app
        app: AppName,
    },
    /// Stop an app: it starts again when its content changes or by `landfall deploy`
    Stop {
        /// The app
        app: AppName,
        /// Why, for others to see
        #[arg(long)]
        reason: Option<String>,
        /// Do not ask
        #[arg(short = 'y', long)]
        yes: bool,
    },
    /// Change how many instances of a function or web endpoint run, until the next deployment
    Scale {
        /// The app
        app: AppName,
        /// The function or web endpoint
        object: ObjectName,
        /// A number, or least and most as `0-8` [default: what the manifest says]
        #[arg(value_name = "INSTANCES", value_parser = parse_range)]
        instances: Option<(u32, u32)>,
    },
    /// Show how functions fare: instances, work that waits, rates and times
    Functions {
        /// The app
        app: AppName,
        /// One function, minute by minute
        function: Option<ObjectName>,
    },
    /// Show what web objects answer: requests by class of status, rates and times
    Requests {
        /// The app
        app: AppName,
    },
    /// Show the containers of an app that is a Compose project: state, health, restarts
    Services {
        /// The app
        app: AppName,
    },
    /// Print the URL of an app; on a desktop, open it too
    Open {
        /// The app
        app: AppName,
    },
}

/// How long to watch a deployment.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Wait until the version is proven (its bake time is over), not only live
    #[arg(long, conflicts_with = "no_wait")]
    pub wait_done: bool,
    /// Do not wait at all
    #[arg(long)]
    pub no_wait: bool,
    /// Stop waiting after this long (exit code 6); the deployment goes on
    #[arg(long, value_name = "DURATION", value_parser = parse_length, default_value = "30m")]
    pub timeout: Duration,
}

impl WaitArgs {
    /// The same as one value.
    pub fn waiting(&self) -> Waiting {
        match (self.no_wait, self.wait_done) {
            (true, _) => Waiting::No,
            (false, true) => Waiting::UntilDone(self.timeout),
            (false, false) => Waiting::UntilLive(self.timeout),
        }
    }
}

/// `4` or `0-8`.
fn parse_range(text: &str) -> Result<(u32, u32), String> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    match (min.trim().parse(), max.trim().parse()) {
        (Ok(min), Ok(max)) if min <= max => Ok((min, max)),
        _ => Err("write a number, or least and most like 0-8".to_owned()),
    }
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &AppCommand) -> Outcome {
    match command {
        AppCommand::List => app_show::list(context).await,
        AppCommand::Show { app } => app_show::show(context, app).await,
        AppCommand::History { app, limit } => app_show::history(context, app, *limit).await,
        AppCommand::Requests { app } => app_requests::list(context, app).await,
        AppCommand::Services { app } => app_services::list(context, app).await,
        AppCommand::Functions { app, function: None } => app_functions::list(context, app).await,
        AppCommand::Functions { app, function: Some(function) } => app_functions::one(context, app, function).await,
        AppCommand::Open { app } => app_show::open(context, app).await,
        AppCommand::Scale { app, object, instances } => app_change::scale(context, app, object, *instances).await,
        AppCommand::Diff(args) => app_diff::run(context, args).await,
        AppCommand::Logs(args) => app_logs::run(context, args).await,
        AppCommand::Rollback { app, version, reason, until, propose, wait } => {
            let until = until.map(app_change::ahead);
            let request = RollbackRequest { version: *version, reason: reason.clone(), until, propose: *propose };
            app_change::rollback(context, app, &request, wait.waiting()).await
        }
        AppCommand::Release { app, force, reason, wait } => {
            app_change::release(context, app, *force, reason.clone(), wait.waiting()).await
        }
        AppCommand::Rollover { app, reason, wait } => {
            app_change::rollover(context, app, reason.clone(), wait.waiting()).await
        }
        AppCommand::Suspend { app, until, reason } => app_change::suspend(context, app, reason.clone(), *until).await,
        AppCommand::Resume { app } => app_change::resume(context, app).await,
        AppCommand::Stop { app, reason, yes } => app_change::stop(context, app, reason.clone(), *yes).await,
    }
}
