//! `landfall schedule logs`: what a run has written.

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::client::LogQuery;
use crate::domain::{AppName, ObjectName};
use crate::wire::schedules::Run;

use super::exit::{CliError, Exit, Outcome};
use super::when::stamp;
use super::{Context, terminal};

/// Lines are looked for this much before and after the run: clocks of two processes are read one after the other.
const AROUND: SignedDuration = SignedDuration::from_secs(2);

/// Options of `landfall schedule logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The app
    app: AppName,
    /// The function that the schedule calls
    function: ObjectName,
    /// The run of this instant [default: the latest that started]
    #[arg(long, value_name = "INSTANT", value_parser = super::schedule::read_instant)]
    at: Option<Timestamp>,
    /// The last run that failed
    #[arg(long, conflicts_with = "at")]
    failed: bool,
}

/// Prints what a run has written.
pub async fn run(context: &Context, args: &LogsArgs) -> Outcome {
    let run = find(context, args).await?;
    let (Some(started), Some(call)) = (run.started_at, run.call) else {
        let message = format!("the run of {} never started, it has no log", stamp(run.scheduled_at));
        return Err(CliError::new(Exit::NotFound, message));
    };
    let query = LogQuery {
        since: started.checked_sub(AROUND).ok(),
        until: run.ended_at.and_then(|ended| ended.checked_add(AROUND).ok()),
        object: Some(args.function.to_string()),
        call: Some(call),
        ..LogQuery::default()
    };
    if !context.json {
        let outcome = run.outcome.map_or_else(|| run.state.clone(), |outcome| outcome.to_string());
        eprintln!("run of {}, call {call}: {outcome}", stamp(run.scheduled_at));
    }
    let mut lines = context.client.logs(context.environment(), &args.app, &query).await?;
    while let Some(line) = lines.next().await? {
        if context.json {
            terminal::json_line(&line)?;
        } else {
            terminal::line(&line.line)?;
        }
    }
    if let Some(error) = run.error.filter(|_| !context.json) {
        eprintln!("{error}");
        if let Some(traceback) = error.traceback {
            eprintln!("{traceback}");
        }
    }
    Ok(Exit::Ok)
}

async fn find(context: &Context, args: &LogsArgs) -> Result<Run, CliError> {
    let (app, function) = (&args.app, &args.function);
    let runs = context.client.schedule_runs(context.environment(), app, function, Some(1000), None, None).await?;
    let wanted = |run: &Run| match args.at {
        Some(at) => run.scheduled_at == at,
        None if args.failed => run.outcome.is_some_and(|outcome| outcome.is_failure()),
        None => run.call.is_some(),
    };
    runs.into_iter().find(wanted).ok_or_else(|| {
        let which = match args.at {
            Some(at) => format!("of {}", stamp(at)),
            None if args.failed => "that failed".to_owned(),
            None => "that has started".to_owned(),
        };
        let mend = format!("`landfall schedule history {app} {function}` shows its runs");
        CliError::hinted(Exit::NotFound, format!("{function} of {app} has no run {which}"), mend)
    })
}
