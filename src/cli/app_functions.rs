//! `landfall app functions`: instances, work that waits, rates and times.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::{AppName, CallOutcome, ObjectName};
use crate::wire::functions::{FunctionView, Minute, Spread, Window};

use super::exit::{Exit, Outcome};
use super::table::Table;
use super::when::{relative, stamp};
use super::{Context, terminal};

/// All functions of an app, a line each.
pub async fn list(context: &Context, app: &AppName) -> Outcome {
    let functions = context.client.functions(context.environment(), app).await?;
    if context.json {
        terminal::json(&functions)?;
    } else if functions.is_empty() {
        terminal::line(format!("{app} has no functions."))?;
    } else {
        context.terminal.table(&table(&functions))?;
    }
    Ok(Exit::Ok)
}

fn table(functions: &[FunctionView]) -> Table {
    let headings = [
        "FUNCTION",
        "READY",
        "CALLS",
        "HEADROOM",
        "WAITING",
        "BACKLOG",
        "PER SECOND",
        "LAST HOUR",
        "P50",
        "P95",
        "P99",
    ];
    let mut table = Table::new(&headings);
    for one in functions {
        let run = one.recent.run;
        table.row([
            one.function.to_string(),
            instances(one),
            one.in_flight.to_string(),
            one.headroom.to_string(),
            one.waiting.to_string(),
            one.backlog.to_string(),
            format!("{:.1}", one.recent.per_second),
            outcomes(&one.hour.outcomes),
            micros(run.p50_us),
            micros(run.p95_us),
            micros(run.p99_us),
        ]);
    }
    table
}

/// `2 of 2, 0-8`
fn instances(one: &FunctionView) -> String {
    let bounds = if one.min == one.max { one.min.to_string() } else { format!("{}-{}", one.min, one.max) };
    let by_hand = if one.scaled { " by hand" } else { "" };
    format!("{} of {} ({bounds}{by_hand})", one.ready, one.instances)
}

fn outcomes(outcomes: &BTreeMap<CallOutcome, u64>) -> String {
    let words: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// Microseconds as a person reads them.
pub(super) fn micros(time: Option<u64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(micros @ 0..1000) => format!("{micros} µs"),
        Some(micros @ 1000..1_000_000) => format!("{:.1} ms", micros as f64 / 1e3),
        Some(micros) => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// Everything about one function.
pub async fn one(context: &Context, app: &AppName, function: &ObjectName) -> Outcome {
    let shown = context.client.function(context.environment(), app, function).await?;
    if context.json {
        terminal::json(&shown)?;
        return Ok(Exit::Ok);
    }
    let now = Timestamp::now();
    let mut text = String::new();
    let mut fact = |name: &str, value: String| text.push_str(&format!("{name:<13}{value}\n"));
    let one = &shown.function;
    fact("Function", format!("{} of {} {} in {}", one.function, one.app, one.version, one.environment));
    fact("Instances", format!("{} ready, {} calls at once each", instances(one), one.concurrency));
    fact("Calls", format!("{} now, room for {} more, {} wait for a place", one.in_flight, one.headroom, one.waiting));
    let since = one.backlog_since.map(|since| format!(", the first since {}", relative(since, now)));
    fact("Spawned", format!("{} under way, {} wait{}", one.running, one.backlog, since.unwrap_or_default()));
    for (name, window) in [("Five minutes", &one.recent), ("Hour", &one.hour)] {
        for (at, line) in facts(window).into_iter().enumerate() {
            fact(if at == 0 { name } else { "" }, line);
        }
    }
    terminal::print(&text)?;
    if !shown.minutes.is_empty() {
        terminal::line("")?;
        context.terminal.table(&minutes(&shown.minutes))?;
    }
    Ok(Exit::Ok)
}

fn facts(window: &Window) -> Vec<String> {
    let mut facts = vec![format!("{:.1} per second: {}", window.per_second, outcomes(&window.outcomes))];
    for (what, times) in [("in line", window.queue), ("starting", window.start), ("running", window.run)] {
        let Spread { p50_us, p95_us, p99_us } = times;
        if p50_us.is_some() {
            facts.push(format!("{what:<9}p50 {}, p95 {}, p99 {}", micros(p50_us), micros(p95_us), micros(p99_us)));
        }
    }
    facts
}

fn minutes(minutes: &[Minute]) -> Table {
    let mut table = Table::new(&["MINUTE", "CALLS", "P50", "P95", "P99"]);
    for minute in minutes {
        let run = minute.run;
        let row =
            [stamp(minute.at), outcomes(&minute.outcomes), micros(run.p50_us), micros(run.p95_us), micros(run.p99_us)];
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_the_unit_that_fits() {
        let written = [None, Some(0), Some(999), Some(1000), Some(999_999), Some(1_500_000)].map(micros);
        assert_eq!(written, ["-", "0 µs", "999 µs", "1.0 ms", "1000.0 ms", "1.5 s"]);
    }
}
