//! How late runs of schedules start in a real agent: 10,000 schedules due over one minute, 1,000 of them in the same
//! second, and what that costs in processor time and memory.
//!
//! The thousand have no jitter and a warm instance each, so that what is measured is the agent and not a thousand
//! programs that start at once. The others are spread over the minute by their jitter; each starts its instance for
//! the run and lets it go afterwards.
//!
//! Read from the agent's own record: when a run was decided, when its first attempt had arrived at a proxy, and when its
//! function began, each against the instant it stands for, jitter taken off. The proxy's times are reckoned back from
//! the end of the attempt, so that every commit before them is in them.
//!
//! `cargo bench --bench lateness -- SCHEDULES TOGETHER MINUTES` (after `cargo build --release --example test-app`) takes
//! other numbers; the runs are due at the first whole minute after so many, by when all apps must be deployed. The aim is 50 ms at the 99th percentile until those in the same second are at a proxy; exits with 1 when
//! an instant has no run.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use landfall::decide::runs::offset;
use landfall::domain::AppKey;
use support::{Agent, memory_mib, processor_millis, test_app};

const SCHEDULES: usize = 10_000;
const TOGETHER: usize = 1_000;
/// More objects an app cannot have.
const PER_APP: usize = 50;
const AIM: f64 = 50.0;
/// Minutes until they are due.
const MINUTES: usize = 5;
/// Jitter of those that are spread over the minute.
const SPREAD: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let Some(app) = test_app() else { return ExitCode::FAILURE };
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let schedules = numbers.first().copied().unwrap_or(SCHEDULES);
    let together = numbers.get(1).copied().unwrap_or(TOGETHER).min(schedules);
    let minutes = numbers.get(2).copied().unwrap_or(MINUTES);
    let minute = next_minute(Timestamp::now() + Duration::from_secs(60 * minutes as u64));
    let when = minute.to_zoned(jiff::tz::TimeZone::UTC);
    let when = format!("{} {} * * *", when.minute(), when.hour());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let agent = Agent::start(&runtime);
    let command = format!("[{}, calls, /dev/null]", app.display());
    let files: Vec<(String, String)> = (0..schedules.div_ceil(PER_APP))
        .map(|number| {
            let functions = (number * PER_APP..schedules.min((number + 1) * PER_APP)).map(|function| {
                let (instances, schedule) = if function < together {
                    ("1".to_owned(), format!("\"{when}\""))
                } else {
                    ("{min: 0, max: 1, idle: 1s}".to_owned(), format!("{{cron: \"{when}\", jitter: 60s}}"))
                };
                format!(
                    "  f{function}: {{command: {command}, mode: server, instances: {instances}, schedule: {schedule}}}\n"
                )
            });
            let functions: String = functions.collect();
            (format!("app-{number}/landfall.yaml"), format!("app: app-{number}\nbake: 0s\nfunctions:\n{functions}"))
        })
        .collect();
    let pushed = agent.push(&files);
    let mut slowest = Duration::ZERO;
    let mut deployed = false;
    while !deployed && Timestamp::now() < minute - Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(100));
        let asked = Instant::now();
        let status = runtime.block_on(agent.client.status()).expect("status");
        slowest = slowest.max(asked.elapsed());
        deployed = status.apps.get("deployed").copied().unwrap_or_default() as usize == files.len();
    }
    if !deployed {
        eprintln!("not all apps are deployed after {minutes} minutes; give it more");
        return ExitCode::FAILURE;
    }
    println!(
        "{schedules} schedules in {} apps deployed in {:.1} s; slowest status meanwhile: {} ms",
        files.len(),
        pushed.elapsed().as_secs_f64(),
        slowest.as_millis()
    );

    wait_until(minute - Duration::from_millis(500));
    let processes = runtime.block_on(agent.client.status()).expect("status").processes;
    let all = [
        ("supervisor", processes.supervisor.pid),
        ("controller", processes.controller.pid),
        ("proxy", processes.proxy.expect("a proxy").pid),
    ];
    let before = all.map(|(_, pid)| processor_millis(pid));
    let from = Instant::now();
    wait_until(minute + Duration::from_secs(60) - Duration::from_millis(500));
    let over = from.elapsed().as_secs_f64();
    println!("{:<12} {:>10} {:>12} {:>8}", "", "RSS MiB", "CPU ms", "CPU %");
    for ((name, pid), before) in all.into_iter().zip(before) {
        let millis = processor_millis(pid).saturating_sub(before);
        println!("{name:<12} {:>10.1} {millis:>12} {:>8.1}", memory_mib(pid, "Rss:"), millis as f64 / over / 10.0);
    }
    wait_until(minute + Duration::from_secs(75));
    let runs = runs(&agent, minute, together);
    let (same, spread): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.number < together);
    println!("milliseconds after the instant, p50 / p99 / longest");
    report("the same second", &same);
    report("over the minute", &spread);
    let p99 = percentile(same.iter().filter_map(|run| run.handed_over), 0.99);
    println!("at a proxy, p99 of those in the same second: {p99:.1} ms (aim {AIM})");
    let lost = schedules - runs.len();
    if lost > 0 {
        eprintln!("{lost} schedules have no run of {minute}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A run as it is on record; lateness in milliseconds.
struct Run {
    number: usize,
    decided: f64,
    handed_over: Option<f64>,
    began: Option<f64>,
}

/// The runs of one instant.
fn runs(agent: &Agent, minute: Timestamp, together: usize) -> Vec<Run> {
    let path = agent.root.path().join("data/ledger.db");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let ledger = rusqlite::Connection::open_with_flags(path, flags).expect("the ledger");
    let mut statement = ledger
        .prepare(
            "SELECT f.environment, f.app, f.name, c.created_at, a.ended_at - a.running, a.ended_at - a.running - a.queued
             FROM calls c JOIN functions f ON f.id = c.function LEFT JOIN attempts a ON a.call = c.seq AND a.number = 1
             WHERE c.scheduled_at = ?1",
        )
        .expect("a statement");
    let found = statement.query_map([minute.as_microsecond()], |row| {
        let text = |at: usize| row.get::<_, String>(at);
        let app = AppKey::new(text(0)?.parse().expect("a name"), text(1)?.parse().expect("a name"));
        let function = text(2)?;
        let number = function.trim_start_matches('f').parse().expect("a number");
        let jitter = if number < together { Duration::ZERO } else { SPREAD };
        let due = minute + offset(&app, &function, jitter);
        let late = |micros: i64| (micros - due.as_microsecond()) as f64 / 1000.0;
        let time = |at: usize| row.get::<_, Option<i64>>(at).map(|micros| micros.map(late));
        Ok(Run { number, decided: late(row.get(3)?), began: time(4)?, handed_over: time(5)? })
    });
    found.expect("rows").map(|run| run.expect("a run")).collect()
}

fn report(which: &str, runs: &[&Run]) {
    println!("{which}: {} runs", runs.len());
    let line = |what: &str, late: Vec<f64>| {
        let at = |part| percentile(late.iter().copied(), part);
        println!("  {what:<32} {:>9.1} / {:>9.1} / {:>9.1}  ({})", at(0.5), at(0.99), at(1.0), late.len());
    };
    line("decided", runs.iter().map(|run| run.decided).collect());
    line("at a proxy", runs.iter().filter_map(|run| run.handed_over).collect());
    line("its function began", runs.iter().filter_map(|run| run.began).collect());
}

fn percentile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((values.len() as f64 * part) as usize).min(last)).copied().unwrap_or_default()
}

fn next_minute(now: Timestamp) -> Timestamp {
    Timestamp::from_second((now.as_second().div_euclid(60) + 1) * 60).expect("a time")
}

fn wait_until(at: Timestamp) {
    let length = at.duration_since(Timestamp::now());
    std::thread::sleep(Duration::try_from(length).unwrap_or_default());
}
