//! `landfall schedule …`. `next` computes when something would run by itself and asks no agent; the other verbs do.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::decide::due::{Due, LAST_YEAR};
use crate::domain::schedule::{Every, Schedule};
use crate::zones::Zones;

use super::exit::{CliError, Exit, Outcome};
use super::table::Table;
use super::terminal::{self, Terminal};
use super::when::{parse_length, stamp};
use super::{Context, schedule_batch, schedule_logs, schedule_runs};

/// Most starts that are computed for one question.
pub const MOST_STARTS: u32 = 10_000;

/// Stands for the expressions on standard input.
const STANDARD_INPUT: &str = "-";

/// Verbs of `landfall schedule`.
#[derive(Debug, Clone, Subcommand)]
pub enum ScheduleCommand {
    /// Show when a cron expression or an interval is due next; asks no agent
    Next(NextArgs),
    /// List the schedules of what is live: when they run next, and how the last runs went
    #[command(visible_alias = "ls")]
    List(schedule_runs::ListArgs),
    /// Start a run now
    Run(schedule_runs::RunArgs),
    /// Let nothing start by itself for a while; what runs goes on
    Pause(schedule_runs::PauseArgs),
    /// End a pause
    Resume(schedule_runs::Which),
    /// Show what became of each run, the latest first
    History(schedule_runs::HistoryArgs),
    /// Print what a run has written
    Logs(schedule_logs::LogsArgs),
}

/// Options of `landfall schedule next`.
#[derive(Debug, Clone, Args)]
pub struct NextArgs {
    /// Five fields like "0 4 * * *", or @daily; - reads a JSON request {"expr","tz","start","count"} from each line of
    /// standard input and answers each on a line
    #[arg(value_name = "EXPR", required_unless_present = "every", conflicts_with = "every")]
    expression: Option<String>,
    /// An interval like 15m instead of an expression
    #[arg(long, value_name = "LENGTH", value_parser = read_every)]
    every: Option<Every>,
    /// Time zone of the expression, by its IANA name
    #[arg(long, visible_alias = "tz", value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// Starts later than this, like 2026-03-01T12:00:00Z [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = read_instant)]
    from: Option<Timestamp>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STARTS)))]
    count: u32,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    schedule: &'a str,
    timezone: &'a str,
    from: Timestamp,
    next: &'a [Timestamp],
}

/// Carries out a verb that asks an agent.
pub async fn run(context: &Context, command: &ScheduleCommand) -> Outcome {
    match command {
        ScheduleCommand::Next(args) => next(args, context.json),
        ScheduleCommand::List(args) => schedule_runs::list(context, args).await,
        ScheduleCommand::Run(args) => schedule_runs::run(context, args).await,
        ScheduleCommand::Pause(args) => schedule_runs::pause(context, args).await,
        ScheduleCommand::Resume(args) => schedule_runs::resume(context, args).await,
        ScheduleCommand::History(args) => schedule_runs::history(context, args).await,
        ScheduleCommand::Logs(args) => schedule_logs::run(context, args).await,
    }
}

/// Computes when something is due.
pub fn next(args: &NextArgs, json: bool) -> Outcome {
    if args.expression.as_deref() == Some(STANDARD_INPUT) {
        let defaults = schedule_batch::Defaults { zone: &args.timezone, start: args.from, count: args.count };
        return schedule_batch::run(std::io::stdin().lock(), &mut std::io::stdout().lock(), &defaults);
    }
    compute(args, json)
}

fn compute(args: &NextArgs, json: bool) -> Outcome {
    let zone = Zones::of_this_machine().find(&args.timezone).map_err(|unknown| {
        CliError::hinted(Exit::Usage, format!("--timezone: `{}` is not a time zone", unknown.name), unknown.hint)
    })?;
    let schedule = schedule(args, &zone)?;
    let due = Due::new(&schedule).map_err(|defect| CliError::new(Exit::Failed, defect.to_string()))?;
    if matches!(schedule, Schedule::Cron { .. }) {
        warn_of_old_zones(&zone);
    }
    let from = args.from.unwrap_or_else(Timestamp::now);
    let wanted = usize::try_from(args.count).unwrap_or(usize::MAX);
    let next: Vec<_> = due.upcoming(from).take(wanted).collect();
    if json {
        let written = args.expression.clone().or_else(|| args.every.map(|every| format!("every {}s", every.seconds())));
        let answer = Answer {
            schedule: written.as_deref().unwrap_or_default(),
            timezone: zone.iana_name().unwrap_or(&args.timezone),
            from,
            next: &next,
        };
        terminal::json(&answer)?;
        return Ok(Exit::Ok);
    }
    if !next.is_empty() {
        Terminal::detect().table(&table(&next, &zone))?;
    }
    if next.len() < wanted {
        terminal::line(format!("No more until the end of {LAST_YEAR}, which is as far as schedules are computed."))?;
    }
    Ok(Exit::Ok)
}

fn schedule(args: &NextArgs, zone: &TimeZone) -> Result<Schedule, CliError> {
    match (&args.expression, args.every) {
        (Some(text), _) => {
            let cron = text.parse().map_err(|error: crate::domain::ScheduleError| {
                CliError::hinted(Exit::Usage, error.message, error.hint)
            })?;
            Ok(Schedule::Cron { cron, zone: zone.clone() })
        }
        (None, Some(every)) => Ok(Schedule::Every(every)),
        (None, None) => Err(CliError::hinted(Exit::Usage, "nothing to compute", "name an expression or --every")),
    }
}

/// The weekday and the time where the schedule lives, and the same moment in UTC.
fn table(starts: &[Timestamp], zone: &TimeZone) -> Table {
    if *zone == TimeZone::UTC {
        let mut table = Table::new(&["DAY", "UTC"]);
        starts.iter().for_each(|at| table.row([at.strftime("%a").to_string(), stamp(*at)]));
        return table;
    }
    let mut table = Table::new(&["DAY", zone.iana_name().unwrap_or("IN THE ZONE"), "UTC"]);
    for at in starts {
        let local = at.to_zoned(zone.clone());
        let written = local.strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
        table.row([local.strftime("%a").to_string(), written, stamp(*at)]);
    }
    table
}

/// Says on standard error that the machine's zone files are old, where that can matter.
pub fn warn_of_old_zones(zone: &TimeZone) {
    if *zone != TimeZone::UTC
        && let Some(warning) = Zones::of_this_machine().data().warning()
    {
        eprintln!("warning: {warning}");
    }
}

fn read_every(text: &str) -> Result<Every, String> {
    let length = parse_length(text).map_err(|_| format!("`{text}` is no length; write 90s, 15m, 2h or 7d"))?;
    Every::new(length).map_err(|error| error.to_string())
}

/// A moment of which it is clear when it is.
pub fn read_instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        let cut: String = text.chars().take(40).collect();
        format!(
            "`{}` is no moment; write a date, a time and a zone like 2026-03-01T12:00:00Z or …+01:00",
            cut.escape_debug()
        )
    })
}
