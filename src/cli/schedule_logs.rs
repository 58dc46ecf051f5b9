//! `landfall schedule logs`: what a run has written.

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::client::LogQuery;
use crate::domain::{AppName, ObjectName};
use crate::wire::schedules::{Run, RunOutput};

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
    if !context.json {
        let outcome = run.outcome.map_or_else(|| run.state.clone(), |outcome| outcome.to_string());
        eprintln!("run of {}, call {call}: {outcome}", stamp(run.scheduled_at));
    }
    // What is kept whole is better than a log, parts of which may be gone; what is not, only where the log is gone.
    let kept = kept(context, args, &run).await?;
    let whole = kept.as_ref().is_some_and(|kept| kept.left_out == 0) && !context.json;
    let query = LogQuery {
        since: started.checked_sub(AROUND).ok(),
        until: run.ended_at.and_then(|ended| ended.checked_add(AROUND).ok()),
        object: Some(args.function.to_string()),
        call: Some(call),
        ..LogQuery::default()
    };
    if whole || !print_log(context, args, &query).await? {
        print_kept(context, kept.as_ref())?;
    }
    if let Some(error) = run.error.filter(|_| !context.json) {
        eprintln!("{error}");
        if let Some(traceback) = error.traceback {
            eprintln!("{traceback}");
        }
    }
    Ok(Exit::Ok)
}

/// Prints what logs hold of a run; answers whether that was anything.
async fn print_log(context: &Context, args: &LogsArgs, query: &LogQuery) -> Result<bool, CliError> {
    let mut lines = match context.client.logs(context.environment(), &args.app, query).await {
        Ok(lines) => lines,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut any = false;
    while let Some(line) = lines.next().await? {
        any = true;
        if context.json {
            terminal::json_line(&line)?;
        } else {
            terminal::line(&line.line)?;
        }
    }
    Ok(any)
}

/// What is kept beside the record.
async fn kept(context: &Context, args: &LogsArgs, run: &Run) -> Result<Option<RunOutput>, CliError> {
    let (app, function) = (&args.app, &args.function);
    match context.client.run_output(context.environment(), app, function, run.scheduled_at).await {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn print_kept(context: &Context, kept: Option<&RunOutput>) -> Result<(), CliError> {
    let Some(kept) = kept else { return Ok(()) };
    if context.json {
        return terminal::json_line(kept);
    }
    terminal::print(&kept.head)?;
    if kept.left_out > 0 {
        eprintln!("… {} lines are not kept …", kept.left_out);
    }
    terminal::print(&kept.tail)
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
