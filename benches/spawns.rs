//! Durable spawns per second from 16 clients, each waiting for one before it sends the next: of a function that is busy, so
//! that calls only come in, and of one that carries them out meanwhile.
//!
//! Every identifier that a client gets is on disk (`synchronous=FULL`); those that arrive together share one commit. The
//! clients run on the same processors as the agent.
//!
//! `cargo bench --bench spawns` (after `cargo build --release --example test-app`). `LANDFALL_BENCH_SPAWNS` for another
//! number. Aim: 20,000 spawns per second; the figures are printed, none fails the run.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use landfall::client::{CallBody, CallsQuery, Client};
use landfall::domain::{AppName, CallState, ObjectName};
use support::{Agent, test_app};

const CLIENTS: usize = 16;
const SPAWNS: usize = 50_000;
const AIM: f64 = 20_000.0;
/// A function that carries out what comes.
const WORK: &str = "work";
/// One whose first call never ends; the others wait.
const BUSY: &str = "busy";

fn main() -> ExitCode {
    let Some(app) = test_app() else { return ExitCode::FAILURE };
    let spawns = std::env::var("LANDFALL_BENCH_SPAWNS").ok().and_then(|text| text.parse().ok()).unwrap_or(SPAWNS);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let agent = Agent::start(&runtime);
    let command = format!("[{}, calls, /dev/null]", app.display());
    let manifest = format!(
        "app: shop\nbake: 0s\nfunctions:\n  work: {{command: {command}, mode: server, concurrency: 16, instances: 1}}\n  \
         busy: {{command: [sleep, \"3600\"], mode: exec, concurrency: 1, instances: 1, timeout: 1h}}\n"
    );
    agent.push(&[("shop/landfall.yaml".to_owned(), manifest)]);
    agent.until("the functions can be called", || {
        runtime.block_on(async { spawn(&agent.client, WORK).await.and(spawn(&agent.client, BUSY).await) }).ok()
    });

    let began = Instant::now();
    let mut waits = runtime.block_on(all(&agent.client, BUSY, spawns));
    println!("{spawns} durable spawns from {CLIENTS} clients of a function that is busy");
    report(spawns, began.elapsed(), &mut waits);

    let began = Instant::now();
    let mut waits = runtime.block_on(all(&agent.client, WORK, spawns));
    let spawned = began.elapsed();
    agent.until("all calls are done", || {
        let open = |state| {
            let function = Some(WORK.parse().expect("a name"));
            let query = CallsQuery { state: Some(state), function, limit: Some(1), ..CallsQuery::default() };
            runtime.block_on(agent.client.calls(None, &query)).ok().is_some_and(|calls| !calls.is_empty())
        };
        std::thread::sleep(Duration::from_millis(20));
        (!open(CallState::Queued) && !open(CallState::Running)).then_some(())
    });
    let done = began.elapsed();
    println!("{spawns} durable spawns from {CLIENTS} clients of a function that carries them out");
    report(spawns, spawned, &mut waits);
    println!("{:<40} {:>10.0}", "carried out per second, spawning included", spawns as f64 / done.as_secs_f64());
    ExitCode::SUCCESS
}

async fn spawn(client: &Client, function: &str) -> Result<(), landfall::client::ClientError> {
    let (app, function): (AppName, ObjectName) = ("shop".parse().expect("a name"), function.parse().expect("a name"));
    client.spawn(None, &app, &function, None, CallBody::json("{\"n\": 1}"), None).await.map(drop)
}

/// How long each spawn took, in microseconds.
async fn all(client: &Client, function: &'static str, spawns: usize) -> Vec<f64> {
    let clients = (0..CLIENTS).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut waits = Vec::with_capacity(spawns / CLIENTS);
            for _ in 0..spawns / CLIENTS {
                let began = Instant::now();
                spawn(&client, function).await.expect("spawned");
                waits.push(began.elapsed().as_secs_f64() * 1e6);
            }
            waits
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut waits = Vec::with_capacity(spawns);
    for client in clients {
        waits.extend(client.await.expect("a client"));
    }
    waits
}

fn report(spawns: usize, spawned: Duration, waits: &mut [f64]) {
    waits.sort_by(f64::total_cmp);
    let at = |part: f64| waits.get((waits.len() as f64 * part) as usize).copied().unwrap_or_default();
    println!("{:<40} {:>10.0} (aim {AIM:.0})", "spawns per second", spawns as f64 / spawned.as_secs_f64());
    println!("{:<40} {:>10.0} / {:.0}", "one spawn, microseconds, p50 / p99", at(0.5), at(0.99));
}
