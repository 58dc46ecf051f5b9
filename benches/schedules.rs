//! What planning costs: 10,000 schedules taken up, and 1,000 of them due in the same second.
//!
//! A mix of expressions in several zones and of intervals, as `decide::runs` and the agenda see them: when each wakes
//! first, then what a second decides in which many are due. Recording and calling are not part of it.
//!
//! `cargo bench --bench schedules`; exits with 1 if planning takes longer than its limit.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use landfall::decide::due::Due;
use landfall::decide::runs::{Agenda, Decision, Rules, Runs};
use landfall::domain::schedule::Every;
use landfall::domain::{Overlap, Schedule};
use landfall::zones::Zones;

const SCHEDULES: usize = 10_000;
const ROUNDS: usize = 21;
const LIMIT: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let rules: Vec<Rules> = (0..SCHEDULES).map(rules).collect();
    let now: Timestamp = "2026-03-01T03:59:30Z".parse().unwrap();
    let due_at: Timestamp = "2026-03-01T04:00:00Z".parse().unwrap();
    let (mut plans, mut ticks, mut started) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut runs: Vec<Runs> = rules.iter().map(|_| Runs::new(now)).collect();
        let mut agenda = Agenda::default();
        for (key, (runs, rules)) in runs.iter().zip(&rules).enumerate() {
            agenda.set(key, runs.wakes_at(rules));
        }
        plans.push(begun.elapsed());
        let begun = Instant::now();
        started = 0;
        for key in agenda.take_due(due_at, SCHEDULES) {
            let decisions = runs[key].tick(&rules[key], due_at);
            started += decisions.iter().filter(|decision| matches!(decision, Decision::Start { .. })).count();
            agenda.set(key, runs[key].wakes_at(&rules[key]));
        }
        ticks.push(begun.elapsed());
    }
    let (plan, tick) = (median(&mut plans), median(&mut ticks));
    println!("{SCHEDULES} schedules planned in {:.2} ms (at most {} ms)", millis(plan), LIMIT.as_millis());
    println!("{started} due in one second decided in {:.2} ms", millis(tick));
    if plan <= LIMIT { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn rules(number: usize) -> Rules {
    let zones = ["Europe/Oslo", "America/New_York", "UTC", "Asia/Kathmandu"];
    let expression = match number % 10 {
        // These are due together.
        0 => "0 * * * *".to_owned(),
        1 => format!("{} 4 * * *", 1 + number % 59),
        2 => format!("*/{} 6-22 * * mon-fri", 1 + number % 30),
        3 => format!("{} {} 1,15 * *", number % 60, number % 24),
        4 => format!("{} 3 29 2 *", 1 + number % 59),
        5 => format!("{} {} * * {}", 1 + number % 59, number % 24, number % 7),
        _ => String::new(),
    };
    let schedule = if expression.is_empty() {
        Schedule::Every(Every::new(Duration::from_secs(7 * 60 + (number % 50) as u64)).unwrap())
    } else {
        // Half-hour zones would not be due with the others.
        let zone = zones[if number.is_multiple_of(10) { number / 10 % 3 } else { number % 4 }];
        Schedule::Cron { cron: expression.parse().unwrap(), zone: Zones::bundled_only().find(zone).unwrap() }
    };
    let (catch_up, offset) = (SignedDuration::ZERO, SignedDuration::ZERO);
    Rules { due: Due::new(&schedule).unwrap(), overlap: Overlap::Skip, catch_up, offset }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
