//! `landfall calls …`

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::client::CallsQuery;
use crate::domain::{AppName, AttemptEnd, CallId, CallOutcome, CallState, ObjectName, Times};
use crate::wire::call_views::{AttemptView, CallDetail, CallView, Progress};

use super::exit::{CliError, Exit, Outcome};
use super::table::Table;
use super::when::{relative, stamp};
use super::{Context, terminal};

/// One question waits this long at most; a longer wait is several questions.
const ONE_WAIT: Duration = Duration::from_secs(60);

/// Verbs of `landfall calls`.
#[derive(Debug, Clone, Subcommand)]
pub enum CallsCommand {
    /// List calls, newest first: those that run, and those on record
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a call with its attempts
    Show {
        /// The call
        call: CallId,
        /// Wait until it is done
        #[arg(long)]
        wait: bool,
    },
    /// Print what a call brought back
    Result {
        /// The call
        call: CallId,
        /// Wait until it is done
        #[arg(long)]
        wait: bool,
    },
    /// Print what a call wrote to its log, in all its attempts
    Logs {
        /// The call
        call: CallId,
        /// Go on with new lines as they come
        #[arg(short, long)]
        follow: bool,
    },
    /// End a call
    Cancel {
        /// The call
        call: CallId,
    },
    /// Try calls anew that are done and have not succeeded
    Redrive {
        /// The calls
        #[arg(required_unless_present = "dead", conflicts_with = "dead")]
        calls: Vec<CallId>,
        /// All that failed and were not tried anew
        #[arg(long)]
        dead: bool,
        /// Of these only the calls of this app
        #[arg(long, requires = "dead")]
        app: Option<AppName>,
        /// Of these only the calls of this function
        #[arg(long, requires = "app")]
        function: Option<ObjectName>,
    },
}

/// Which calls to list.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only of this app
    app: Option<AppName>,
    /// Only of this function
    function: Option<ObjectName>,
    /// Only those that stand like this: queued, running, done
    #[arg(long, value_parser = state)]
    state: Option<CallState>,
    /// Only those that ended like this: succeeded, failed, timed_out, cancelled
    #[arg(long, value_parser = outcome)]
    outcome: Option<CallOutcome>,
    /// Only those that failed and were not tried anew
    #[arg(long)]
    dead: bool,
    /// Only those older than this one
    #[arg(long, value_name = "CALL")]
    before: Option<CallId>,
    /// At most so many [default: 100]
    #[arg(short = 'n', long)]
    limit: Option<u32>,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

fn state(text: &str) -> Result<CallState, String> {
    CallState::from_recorded(text).ok_or_else(|| "choose queued, running or done".to_owned())
}

fn outcome(text: &str) -> Result<CallOutcome, String> {
    CallOutcome::from_recorded(text).ok_or_else(|| "choose succeeded, failed, timed_out or cancelled".to_owned())
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &CallsCommand) -> Outcome {
    match command {
        CallsCommand::List(args) => list(context, args).await,
        CallsCommand::Show { call, wait } => show(context, *call, *wait).await,
        CallsCommand::Result { call, wait } => result(context, *call, *wait).await,
        CallsCommand::Logs { call, follow } => logs(context, *call, *follow).await,
        CallsCommand::Cancel { call } => {
            let cancelled = context.client.cancel_call(*call).await?;
            if context.json {
                terminal::json(&cancelled)?;
            } else if cancelled.outcome.is_some() {
                terminal::line(format!("{call} is cancelled"))?;
            } else {
                terminal::line(format!("{call} is being ended; `landfall calls show {call} --wait` tells when it is"))?;
            }
            Ok(Exit::Ok)
        }
        CallsCommand::Redrive { calls, dead: false, .. } => redrive(context, calls).await,
        CallsCommand::Redrive { dead: true, app, function, .. } => {
            let (app, function) = (app.clone(), function.clone());
            let query = CallsQuery { app, function, dead: true, limit: Some(u32::MAX), ..CallsQuery::default() };
            let dead = context.client.calls(context.environment(), &query).await?;
            let dead: Vec<CallId> = dead.iter().map(|call| call.call).collect();
            redrive(context, &dead).await
        }
    }
}

async fn list(context: &Context, args: &ListArgs) -> Outcome {
    let query = CallsQuery {
        app: args.app.clone(),
        function: args.function.clone(),
        state: args.state,
        outcome: args.outcome,
        dead: args.dead,
        before: args.before,
        limit: if args.all { Some(u32::MAX) } else { args.limit },
    };
    let calls = context.client.calls(context.environment(), &query).await?;
    if context.json {
        terminal::json(&calls)?;
    } else if calls.is_empty() {
        terminal::line("No calls.")?;
    } else {
        context.terminal.table(&table(&calls, Timestamp::now()))?;
    }
    Ok(Exit::Ok)
}

fn table(calls: &[CallView], now: Timestamp) -> Table {
    let mut table = Table::new(&["CALL", "APP", "FUNCTION", "STATE", "TRIES", "WHEN", "TRIGGER", "ACTOR", "DETAIL"]);
    for call in calls {
        table.row([
            call.call.to_string(),
            call.app.to_string(),
            call.function.to_string(),
            stands(call),
            call.attempts.to_string(),
            relative(call.created_at, now),
            call.trigger.to_string(),
            call.actor.clone(),
            detail(call),
        ]);
    }
    table
}

fn detail(call: &CallView) -> String {
    let so_far = |progress: &Progress| {
        let cancelled = if call.cancelled_by.is_some() { "being ended; " } else { "" };
        format!("{cancelled}{}", comes_on(progress))
    };
    match (&call.error, &call.progress) {
        (Some(error), _) => error.to_string(),
        (None, Some(progress)) => so_far(progress),
        (None, None) => String::new(),
    }
}

/// How far a call under way has come.
fn comes_on(progress: &Progress) -> String {
    let Progress { instance, times, version: _ } = progress;
    match instance {
        Some(instance) => format!("on {instance}; {}", spent(times)),
        None => spent(times),
    }
}

/// Where the time of a call went.
fn spent(times: &Times) -> String {
    let millis = |micros: u64| format!("{}.{:03} ms", micros / 1000, micros % 1000);
    let start = match times.starting_us {
        0 => String::new(),
        start => format!(" ({} of it for an instance to start)", millis(start)),
    };
    format!("{} in line{start}, {} running", millis(times.queued_us), millis(times.running_us))
}

fn stands(call: &CallView) -> String {
    match (call.outcome, call.redriven_as) {
        (Some(outcome), None) => outcome.to_string(),
        (Some(outcome), Some(_)) => format!("{outcome}, redriven"),
        (None, _) => call.state.to_string(),
    }
}

/// Asks until the call is done.
pub(super) async fn until_done(context: &Context, call: CallId) -> Result<CallDetail, CliError> {
    loop {
        let shown = context.client.call_record(call, ONE_WAIT).await?;
        if shown.call.outcome.is_some() {
            return Ok(shown);
        }
    }
}

async fn look(context: &Context, call: CallId, wait: bool) -> Result<CallDetail, CliError> {
    if wait {
        return until_done(context, call).await;
    }
    Ok(context.client.call_record(call, Duration::ZERO).await?)
}

async fn show(context: &Context, call: CallId, wait: bool) -> Outcome {
    let shown = look(context, call, wait).await?;
    if context.json {
        terminal::json(&shown)?;
    } else {
        terminal::print(&details(&shown, Timestamp::now()))?;
    }
    Ok(Exit::Ok)
}

/// Everything there is to say, one fact a line.
fn details(shown: &CallDetail, now: Timestamp) -> String {
    let call = &shown.call;
    let mut text = String::new();
    let mut fact = |name: &str, value: String| text.push_str(&format!("{name:<13}{value}\n"));
    fact("Call", call.call.to_string());
    let pin = call.version.map(|version| format!(", pinned to {version}")).unwrap_or_default();
    fact("Function", format!("{} of {} in {}{pin}", call.function, call.app, call.environment));
    fact("State", stands(call));
    if let Some(error) = &call.error {
        fact("Why", error.to_string());
        for line in error.traceback.iter().flat_map(|traceback| traceback.lines()) {
            fact("", line.to_owned());
        }
    }
    fact(
        "Made",
        format!("{} by {}, {} ({})", call.trigger, call.actor, stamp(call.created_at), relative(call.created_at, now)),
    );
    if let Some(instant) = call.scheduled_at {
        fact("Scheduled", stamp(instant));
    }
    if let Some(due) = call.due_at.filter(|due| *due > now) {
        fact("Next try", stamp(due));
    }
    if let Some(ended) = call.ended_at {
        fact("Ended", format!("{} ({})", stamp(ended), relative(ended, now)));
    }
    if let Some(actor) = &call.cancelled_by {
        fact("Cancelled by", actor.clone());
    }
    if let Some(old) = call.redrive_of {
        fact("Redrive of", old.to_string());
    }
    if let Some(anew) = call.redriven_as {
        fact("Redriven as", anew.to_string());
    }
    let result = call.result_bytes.map(|bytes| format!(", result {bytes} bytes")).unwrap_or_default();
    fact("Size", format!("body {} bytes{result}", call.body_bytes));
    for attempt in &shown.tries {
        fact(&format!("Attempt {}", attempt.attempt), tried(attempt, now));
    }
    text
}

fn tried(attempt: &AttemptView, now: Timestamp) -> String {
    let Some(AttemptEnd { outcome, version, instance, times, error, .. }) = &attempt.end else {
        let so_far = attempt.progress.as_ref().map(|progress| format!(", {}", comes_on(progress)));
        return format!("under way since {}{}", relative(attempt.begun_at, now), so_far.unwrap_or_default());
    };
    let place = match (version, instance) {
        (Some(version), Some(instance)) => format!(" on {version}, {instance}"),
        (Some(version), None) => format!(" on {version}"),
        (None, _) => String::new(),
    };
    let why = error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
    format!("{outcome}{place}; {}{why}", spent(times))
}

async fn result(context: &Context, call: CallId, wait: bool) -> Outcome {
    if wait {
        until_done(context, call).await?;
    }
    print_result(context, call).await
}

/// What the call brought back, on standard output.
pub(super) async fn print_result(context: &Context, call: CallId) -> Outcome {
    let answered = context.client.call_result(call).await?;
    let mut out = std::io::stdout();
    out.write_all(&answered.bytes)?;
    let for_people = answered.content_type.starts_with("application/json") || out.is_terminal();
    if for_people && answered.bytes.last() != Some(&b'\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

async fn logs(context: &Context, call: CallId, follow: bool) -> Outcome {
    let mut lines = context.client.call_logs(call, follow).await?;
    while let Some(line) = lines.next().await? {
        match context.json {
            true => terminal::json_line(&line)?,
            false => terminal::line(&line.line)?,
        }
    }
    Ok(Exit::Ok)
}

async fn redrive(context: &Context, calls: &[CallId]) -> Outcome {
    let mut made = Vec::new();
    for call in calls {
        let spawned = context.client.redrive_call(*call).await?;
        if !context.json {
            terminal::line(match spawned.new {
                true => format!("{call} is tried anew as {}", spawned.call),
                false => format!("{call} was tried anew already, as {}", spawned.call),
            })?;
        }
        made.push(spawned);
    }
    if context.json {
        terminal::json(&made)?;
    } else if calls.is_empty() {
        terminal::line("No calls to try anew.")?;
    }
    Ok(Exit::Ok)
}
