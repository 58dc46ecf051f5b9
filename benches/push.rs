//! From a push to a local bare repository to the first response by the new version, and how much of it is Landfall's own.
//!
//! 30 pushes to one app under one connection that asks back to back. The phases come from the deployment's record;
//! the app's own start (process started → first response) is measured alone, in turns with the pushes, so that
//! a loaded machine loads both. Landfall's own share is the total without that: at most 100 ms, the aim is 50.
//!
//! `cargo bench --bench push` (after `cargo build --release --example test-app`); exits with 1 if the limit is missed.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use jiff::Timestamp;
use landfall::domain::Phase;
use support::{Agent, Connection, free_port, median_and_p90, test_app};

const PUSHES: u32 = 30;
const LIMIT_MS: f64 = 100.0;
const AIM_MS: f64 = 50.0;

fn main() -> ExitCode {
    let Some(app) = test_app() else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let agent = Agent::start(&runtime);
    let manifest = format!(
        "app: shop\nbake: 0s\nweb:\n  main:\n    command: [{}, serve]\n    health: {{path: /healthz}}\n    drain: 1s\n",
        app.display()
    );
    let file = |version: u32| ("shop/content.txt".to_owned(), format!("version {version}\n"));
    agent.push(&[("shop/landfall.yaml".to_owned(), manifest), file(1)]);
    let host = "shop.localhost";
    let mut connection = Connection::open(agent.proxy, host).expect("a connection");
    agent.until("the first version answers", || served(&mut connection, 1).then_some(()));

    let mut rows: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut add = |name: &'static str, millis: f64| rows.entry(name).or_default().push(millis);
    for version in 2..=PUSHES + 1 {
        let alone = start_alone(&app);
        let (at, pushed) = (Timestamp::now(), agent.push(&[file(version)]));
        while !served(&mut connection, version) {
            assert!(pushed.elapsed() < support::DEADLINE, "version {version} does not answer");
        }
        let total = millis(pushed.elapsed());
        let deployment = agent.until("the deployment is over", || {
            let name = "shop".parse().expect("a name");
            let newest = runtime.block_on(agent.client.deployments(None, &name, Some(1))).ok()?.into_iter().next()?;
            (newest.version.get() == version && newest.outcome.is_some()).then_some(newest)
        });
        let since =
            |then: Timestamp| at.until(then).map_or(0.0, |span| span.total(jiff::Unit::Millisecond).unwrap_or(0.0));
        let phase =
            |phase: Phase| deployment.phases.iter().find(|time| time.phase == phase).map_or(0.0, |time| since(time.at));
        let recorded = since(deployment.created_at);
        add("1 push → revision read and version recorded", recorded);
        add("2 → files laid out (starting)", phase(Phase::Starting) - recorded);
        add("3 → started, ready and recorded as live", deployment.live_at.map_or(0.0, since) - phase(Phase::Starting));
        add("4 → first response", total - deployment.live_at.map_or(0.0, since));
        add("total", total);
        add("app's own start, measured alone", alone);
        add("Landfall's own share", total - alone);
    }
    report(rows)
}

fn report(mut rows: BTreeMap<&str, Vec<f64>>) -> ExitCode {
    println!("push → first response, {PUSHES} pushes, milliseconds");
    println!("{:<46} {:>8} {:>8}", "", "median", "p90");
    let mut own = f64::MAX;
    for name in [
        "1 push → revision read and version recorded",
        "2 → files laid out (starting)",
        "3 → started, ready and recorded as live",
        "4 → first response",
        "total",
        "app's own start, measured alone",
        "Landfall's own share",
    ] {
        let (median, p90) = median_and_p90(rows.get_mut(name).map_or(&mut [], Vec::as_mut_slice));
        println!("{name:<46} {median:>8.1} {p90:>8.1}");
        own = median;
    }
    println!("Landfall's own share, median: {own:.1} ms (at most {LIMIT_MS}, the aim is {AIM_MS})");
    if own <= LIMIT_MS { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Whether this version answers now.
fn served(connection: &mut Connection, version: u32) -> bool {
    connection.get().is_ok_and(|answer| answer.ends_with(&format!("\r\n\r\nversion {version}\n")))
}

/// The app's own start: process started → first response, asked back to back.
fn start_alone(app: &Path) -> f64 {
    let port = free_port();
    let started = Instant::now();
    let mut process = Command::new(app)
        .arg("serve")
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("the app starts");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while Connection::open(address, "alone").and_then(|mut connection| connection.get()).is_err() {
        assert!(started.elapsed() < support::DEADLINE, "the app does not answer");
    }
    let time = millis(started.elapsed());
    let _ = process.kill();
    let _ = process.wait();
    time
}
