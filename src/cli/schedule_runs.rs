//! `landfall schedule list|run|pause|resume|history`: what the agent's schedules do.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use crate::domain::manifest::Millis;
use crate::domain::{AppName, CallOutcome, ObjectName};
use crate::wire::api::SuspendRequest;
use crate::wire::schedules::{Run, RunStarted, Schedule};

use super::exit::{CliError, Exit, Outcome};
use super::table::Table;
use super::when::{When, parse_length, relative, stamp};
use super::{Context, terminal};

/// How long `--wait` waits when nobody says.
const WAIT: &str = "1h";
/// How often the run is looked at while it is waited for.
const LOOKS: Duration = Duration::from_millis(200);
/// Most looks are this far apart: long runs cost little.
const SLOWEST: Duration = Duration::from_secs(2);

/// Which schedule.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The app
    app: AppName,
    /// The function that the schedule calls
    function: ObjectName,
}

/// Options of `landfall schedule list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only of this app
    app: Option<AppName>,
}

/// Options of `landfall schedule run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    which: Which,
    /// Wait for its end; the exit code tells the outcome
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this long; the run goes on
    #[arg(long, value_name = "LENGTH", default_value = WAIT, value_parser = parse_length, requires = "wait")]
    timeout: Duration,
}

/// Options of `landfall schedule pause`.
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    which: Which,
    /// End the pause after this long (2h) or at this time
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Why, for others to see
    #[arg(long)]
    reason: Option<String>,
}

/// Options of `landfall schedule history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    which: Which,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Only those before this moment
    #[arg(long, value_name = "INSTANT", value_parser = super::schedule::read_instant)]
    before: Option<Timestamp>,
    /// Only those that ended like this: succeeded, failed, timed_out, cancelled, skipped-overlap, missed
    #[arg(long, value_name = "OUTCOME", value_parser = read_outcome)]
    outcome: Option<CallOutcome>,
}

/// Lists schedules.
pub async fn list(context: &Context, args: &ListArgs) -> Outcome {
    let schedules = context.client.schedules(context.environment(), args.app.as_ref()).await?;
    if context.json {
        terminal::json(&schedules)?;
        return Ok(Exit::Ok);
    }
    if schedules.is_empty() {
        terminal::line("No schedules: write `schedule: \"0 4 * * *\"` at a function of a manifest.")?;
        return Ok(Exit::Ok);
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["APP", "FUNCTION", "SCHEDULE", "STATE", "LAST", "STREAK", "NEXT", "UTC"]);
    for schedule in &schedules {
        let mut cells = vec![
            schedule.app.to_string(),
            schedule.function.to_string(),
            written(schedule),
            state(schedule),
            last(schedule, now),
            streak(schedule),
        ];
        let mut next = schedule.next_local.iter().zip(&schedule.next);
        let (local, utc) = next.next().map_or(("-".into(), "-".into()), |(local, at)| (local.clone(), stamp(*at)));
        cells.extend([local, utc]);
        table.row(cells);
        for (local, at) in next {
            let empty = std::iter::repeat_n(String::new(), 6);
            table.row(empty.chain([local.clone(), stamp(*at)]));
        }
    }
    context.terminal.table(&table)?;
    for schedule in &schedules {
        if let Some(problem) = &schedule.problem {
            terminal::line(format!("\n{} of {} does not run: {problem}", schedule.function, schedule.app))?;
        }
    }
    Ok(Exit::Ok)
}

fn written(schedule: &Schedule) -> String {
    match (&schedule.cron, &schedule.timezone, schedule.every_ms) {
        (Some(cron), Some(zone), _) => format!("{cron} {zone}"),
        (Some(cron), None, _) => cron.clone(),
        (None, _, Some(every)) => format!("every {}", Millis(every)),
        (None, _, None) => "-".to_owned(),
    }
}

fn state(schedule: &Schedule) -> String {
    if schedule.problem.is_some() {
        return "broken".to_owned();
    }
    let mut words = Vec::new();
    if let Some(pause) = &schedule.pause {
        words.push(pause.until.map_or_else(|| "paused".to_owned(), |until| format!("paused until {}", stamp(until))));
    }
    match schedule.running {
        0 => {}
        1 => words.push("running".to_owned()),
        many => words.push(format!("{many} running")),
    }
    if schedule.waiting > 0 {
        words.push(format!("{} waiting", schedule.waiting));
    }
    if words.is_empty() { "waits".to_owned() } else { words.join(", ") }
}

fn last(schedule: &Schedule, now: Timestamp) -> String {
    match (schedule.last_outcome, schedule.last_at) {
        (Some(outcome), Some(at)) => format!("{outcome} {}", relative(at, now)),
        _ => "-".to_owned(),
    }
}

fn streak(schedule: &Schedule) -> String {
    let mut words = Vec::new();
    if schedule.failures_in_a_row > 0 {
        words.push(format!("{} failed", schedule.failures_in_a_row));
    }
    if schedule.successes_in_a_row > 0 {
        words.push(format!("{} succeeded", schedule.successes_in_a_row));
    }
    if schedule.skips_in_a_row > 0 {
        words.push(format!("{} skipped", schedule.skips_in_a_row));
    }
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// Starts a run now.
pub async fn run(context: &Context, args: &RunArgs) -> Outcome {
    let Which { app, function } = &args.which;
    let started = context.client.run_schedule(context.environment(), app, function).await?;
    if !args.wait {
        if context.json {
            terminal::json(&started)?;
        } else {
            terminal::line(started_words(&started))?;
        }
        return Ok(Exit::Ok);
    }
    if !context.json {
        eprintln!("{}", started_words(&started));
    }
    let ended = tokio::time::timeout(args.timeout, until_done(context, &started)).await;
    let Ok(ended) = ended else {
        let message =
            format!("{function} of {app} is still running; `landfall schedule history {app} {function}` shows it");
        return Err(CliError::new(Exit::TimedOut, message));
    };
    let ended = ended?;
    if context.json {
        terminal::json(&ended)?;
    } else {
        let why = ended.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        terminal::line(format!("{function} of {app} {}{why}", outcome_word(&ended)))?;
    }
    Ok(if ended.outcome == Some(CallOutcome::Succeeded) { Exit::Ok } else { Exit::Failed })
}

fn started_words(started: &RunStarted) -> String {
    match started.call {
        Some(call) => format!("{} of {} runs as call {call}", started.function, started.app),
        None => format!("{} of {} runs as soon as the run before it has ended", started.function, started.app),
    }
}

async fn until_done(context: &Context, started: &RunStarted) -> Result<Run, CliError> {
    let mut wait = LOOKS;
    let after = started.scheduled_at.saturating_add(jiff::SignedDuration::from_micros(1)).unwrap_or(Timestamp::MAX);
    loop {
        let (app, function) = (&started.app, &started.function);
        let runs =
            context.client.schedule_runs(context.environment(), app, function, Some(1), Some(after), None).await?;
        let mine = runs.into_iter().find(|run| run.scheduled_at == started.scheduled_at);
        match mine {
            Some(run) if run.outcome.is_some() => return Ok(run),
            Some(_) => {}
            None => return Err(CliError::new(Exit::NotFound, "the run is no longer on record")),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 5 / 4).min(SLOWEST);
    }
}

/// Pauses a schedule.
pub async fn pause(context: &Context, args: &PauseArgs) -> Outcome {
    let Which { app, function } = &args.which;
    let until = args.until.map(|until| until.ahead(Timestamp::now()));
    let request = SuspendRequest { reason: args.reason.clone(), until };
    let answer = context.client.pause_schedule(context.environment(), app, function, &request).await?;
    let end = match answer.pause.as_ref().and_then(|pause| pause.until) {
        Some(until) => format!("until {}", stamp(until)),
        None => format!("until `landfall schedule resume {app} {function}`"),
    };
    said(context, &answer, format!("{function} of {app} is paused {end}: nothing starts by itself, what runs goes on"))
}

/// Ends a pause.
pub async fn resume(context: &Context, args: &Which) -> Outcome {
    let Which { app, function } = args;
    let answer = context.client.resume_schedule(context.environment(), app, function).await?;
    let next = answer.next.first().map(|at| format!("; it runs next at {}", stamp(*at))).unwrap_or_default();
    said(context, &answer, format!("{function} of {app} goes on{next}"))
}

fn said(context: &Context, schedule: &Schedule, words: String) -> Outcome {
    if context.json {
        terminal::json(schedule)?;
    } else {
        terminal::line(words)?;
    }
    Ok(Exit::Ok)
}

/// Prints what became of a schedule's instants.
pub async fn history(context: &Context, args: &HistoryArgs) -> Outcome {
    let Which { app, function } = &args.which;
    let environment = context.environment();
    let limit = if args.all { u32::MAX } else { args.limit };
    let runs = context.client.schedule_runs(environment, app, function, Some(limit), args.before, args.outcome).await?;
    if context.json {
        terminal::json(&runs)?;
        return Ok(Exit::Ok);
    }
    if runs.is_empty() {
        terminal::line(format!("{function} of {app} has no such run yet."))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["SCHEDULED", "OUTCOME", "BY", "LATE", "TOOK", "CALL", "ERROR"]);
    for run in &runs {
        table.row(row(run));
    }
    context.terminal.table(&table)?;
    Ok(Exit::Ok)
}

fn row(run: &Run) -> [String; 7] {
    let scheduled = match run.until {
        Some(until) => format!("{} to {}", stamp(run.scheduled_at), stamp(until)),
        None => stamp(run.scheduled_at),
    };
    let by = match &run.actor {
        Some(actor) => actor.clone(),
        None if run.caught_up => "schedule, caught up".to_owned(),
        None => "schedule".to_owned(),
    };
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
        let millis = from.zip(to).map(|(from, to)| to.duration_since(from).as_millis());
        let millis = millis.and_then(|millis| u64::try_from(millis).ok());
        millis.map_or_else(|| "-".to_owned(), |millis| Millis(millis).to_string())
    };
    let instant = run.actor.is_none().then_some(run.scheduled_at);
    [
        scheduled,
        outcome_word(run),
        by,
        between(instant, run.started_at),
        between(run.started_at, run.ended_at),
        run.call.map_or_else(|| "-".to_owned(), |call| call.to_string()),
        run.error.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
    ]
}

/// `succeeded`, `missed (12)`, `running`.
fn outcome_word(run: &Run) -> String {
    let word = run.outcome.map_or_else(|| run.state.clone(), |outcome| outcome.to_string());
    match (run.count, run.more) {
        (1, _) => word,
        (count, false) => format!("{word} ({count})"),
        (count, true) => format!("{word} (more than {count})"),
    }
}

fn read_outcome(text: &str) -> Result<CallOutcome, String> {
    CallOutcome::from_recorded(text).ok_or_else(|| {
        let words: Vec<_> = CallOutcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        format!("choose one of {}", words.join(", "))
    })
}
