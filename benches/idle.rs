//! What an idle agent costs: 100 apps defined, 3 of them running, over 60 s: memory and processor time of each process.
//!
//! 97 apps are scaled to zero. `cargo bench --bench idle -- APPS SECONDS` takes other numbers.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::{Agent, Connection, memory_mib, processor_millis, test_app};

const RUNNING: usize = 3;

fn main() -> ExitCode {
    let Some(app) = test_app() else { return ExitCode::FAILURE };
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let apps = numbers.first().map_or(100, |apps| usize::try_from(*apps).expect("a number of apps"));
    let seconds = numbers.get(1).copied().unwrap_or(60);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let agent = Agent::start(&runtime);
    let files: Vec<(String, String)> = (0..apps)
        .flat_map(|index| {
            let instances = if index < RUNNING { "1" } else { "{min: 0, max: 1, idle: 1s}" };
            let manifest = format!(
                "app: app-{index}\nbake: 0s\nweb:\n  main:\n    command: [{}, serve]\n    health: {{path: /healthz}}\n    instances: {instances}\n",
                app.display()
            );
            [(format!("app-{index}/landfall.yaml"), manifest), (format!("app-{index}/content.txt"), "hello\n".to_owned())]
        })
        .collect();
    let pushed = agent.push(&files);
    let mut slowest = Duration::ZERO;
    agent.until("all apps are deployed", || {
        let asked = Instant::now();
        let status = runtime.block_on(agent.client.status()).ok()?;
        slowest = slowest.max(asked.elapsed());
        (status.apps.get("deployed").copied().unwrap_or_default() as usize == apps
            && status.instances as usize == RUNNING)
            .then_some(())
    });
    println!(
        "first deployment of {apps} apps: {:.1} s; slowest status meanwhile: {} ms",
        pushed.elapsed().as_secs_f64(),
        slowest.as_millis()
    );
    for index in 0..RUNNING {
        let mut connection = Connection::open(agent.proxy, &format!("app-{index}.localhost")).expect("a connection");
        assert!(connection.get().expect("an answer").ends_with("hello\n"));
    }

    let processes = runtime.block_on(agent.client.status()).expect("status").processes;
    let proxy = processes.proxy.expect("a proxy");
    let all =
        [("supervisor", processes.supervisor.pid), ("controller", processes.controller.pid), ("proxy", proxy.pid)];
    let before = all.map(|(_, pid)| processor_millis(pid));
    let from = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let over = from.elapsed().as_secs_f64();
    println!("{apps} apps defined, {RUNNING} running, idle over {over:.0} s");
    println!("{:<12} {:>10} {:>10} {:>10} {:>10}", "", "RSS MiB", "PSS MiB", "CPU ms", "CPU %");
    let mut sums = (0.0, 0.0, 0);
    for ((name, pid), before) in all.into_iter().zip(before) {
        let (rss, pss) = (memory_mib(pid, "Rss:"), memory_mib(pid, "Pss:"));
        let millis = processor_millis(pid).saturating_sub(before);
        println!("{name:<12} {rss:>10.1} {pss:>10.1} {millis:>10} {:>10.3}", millis as f64 / over / 10.0);
        sums = (sums.0 + rss, sums.1 + pss, sums.2 + millis);
    }
    println!(
        "{:<12} {:>10.1} {:>10.1} {:>10} {:>10.3}",
        "together",
        sums.0,
        sums.1,
        sums.2,
        sums.2 as f64 / over / 10.0
    );
    ExitCode::SUCCESS
}
