//! Containers: what a deployment takes, phase by phase, what a call of a function costs, and the same change made by
//! `docker compose up -d`, with the requests that either of them drops.
//!
//! Both deploy the same image with another directory mounted, under the same clients: half of them keep their connections,
//! half open one for each request. A request counts as dropped when it has no answer, or another one than 200.
//!
//! `LANDFALL_TEST_DOCKER=unix:///path/docker.sock cargo bench --bench containers` (after `cargo build --release --example
//! test-app`), with an engine that publishes ports; Compose as `docker compose` or `docker-compose`, else its part is left out.
//! Exits with 1 if Landfall drops a request.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/docker/making.rs"]
mod making;
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use landfall::client::CallBody;
use landfall::domain::Phase;
use support::{Agent, Connection, free_port, median_and_p90, test_app};

const DEPLOYS: u32 = 20;
const CLIENTS: usize = 8;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);
const COLD_CALLS: usize = 10;
const WARM_CALLS: usize = 500;
const HOST: &str = "shop.localhost";
const RECORDED: &str = "push → version recorded";
const PREPARED: &str = "→ files laid out, image found (starting)";
const LIVE: &str = "→ container started, ready, live";
const SWITCHED: &str = "push → live";

fn main() -> ExitCode {
    let Some(app) = test_app() else { return ExitCode::FAILURE };
    let Some(engine) = std::env::var("LANDFALL_TEST_DOCKER").ok().filter(|address| !address.is_empty()) else {
        eprintln!("LANDFALL_TEST_DOCKER names no container engine, for example unix:///var/run/docker.sock");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let image = making::app_image(&engine, &app);
    let agent = Agent::start_with(&runtime, &format!("docker: {{socket: \"{engine}\"}}\n"));
    let dropped = deploys(&agent, &runtime, &image);
    match making::python_image(&engine) {
        Some(python) => calls(&agent, &runtime, &python),
        None => println!("calls are left out: there is no Python"),
    }
    drop(agent);
    compose(&engine, &image);
    if dropped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Deployments by pushes, under load; how many requests were dropped.
fn deploys(agent: &Agent, runtime: &tokio::runtime::Runtime, image: &str) -> u64 {
    let manifest = format!(
        "app: shop\nimage: {image}\nbake: 0s\nweb:\n  main:\n    health: {{path: /healthz}}\n    drain: 5s\n    grace: 1s\n"
    );
    let file = |version: u32| ("shop/content.txt".to_owned(), format!("version {version}\n"));
    agent.push(&[("shop/landfall.yaml".to_owned(), manifest), file(1)]);
    agent.until("the first version answers", || answers(agent.proxy, 1).then_some(()));
    let load = Load::start(agent.proxy);
    let mut rows: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for version in 2..=DEPLOYS + 1 {
        let at = Timestamp::now();
        agent.push(&[file(version)]);
        let name = "shop".parse().expect("a name");
        let deployment = agent.until("the deployment is over", || {
            let newest = runtime.block_on(agent.client.deployments(None, &name, Some(1))).ok()?.into_iter().next()?;
            (newest.version.get() == version && newest.outcome.is_some()).then_some(newest)
        });
        let since =
            |then: Timestamp| at.until(then).map_or(0.0, |span| span.total(jiff::Unit::Millisecond).unwrap_or(0.0));
        let starting = deployment.phases.iter().find(|time| time.phase == Phase::Starting);
        let (recorded, starting) = (since(deployment.created_at), starting.map_or(0.0, |time| since(time.at)));
        let live = deployment.live_at.map_or(0.0, since);
        for (name, millis) in
            [(RECORDED, recorded), (PREPARED, starting - recorded), (LIVE, live - starting), (SWITCHED, live)]
        {
            rows.entry(name).or_default().push(millis);
        }
    }
    let (requests, dropped) = load.stop();
    println!("{DEPLOYS} deploys of a container under {CLIENTS} clients, milliseconds");
    println!("{:<46} {:>8} {:>8}", "", "median", "p90");
    for name in [RECORDED, PREPARED, LIVE, SWITCHED] {
        let (median, p90) = median_and_p90(rows.get_mut(name).map_or(&mut [], Vec::as_mut_slice));
        println!("{name:<46} {median:>8.1} {p90:>8.1}");
    }
    println!("{requests} requests, {dropped} dropped");
    dropped
}

/// A Python handler, cold (a container is started for the call) and warm.
fn calls(agent: &Agent, runtime: &tokio::runtime::Runtime, image: &str) {
    let manifest = format!(
        "app: pods\nimage: {image}\nbake: 0s\nfunctions:\n  work: {{handler: \"app.py:work\", instances: {{min: 0, max: 1, idle: 1s}}}}\n"
    );
    let handler = "def work(n):\n    return {\"n\": n}\n".to_owned();
    agent.push(&[("pods/landfall.yaml".to_owned(), manifest), ("pods/app.py".to_owned(), handler)]);
    let (app, function) = ("pods".parse().expect("a name"), "work".parse().expect("a name"));
    let call = || {
        let began = Instant::now();
        let body = CallBody::json("{\"n\": 1}");
        let mut answer = runtime.block_on(agent.client.call_function(None, &app, &function, None, body)).ok()?;
        let whole = runtime.block_on(answer.whole()).ok()?;
        (answer.status.is_success() && !whole.is_empty()).then(|| began.elapsed().as_secs_f64() * 1000.0)
    };
    agent.until("the function answers", call);
    let mut cold: Vec<f64> = (0..COLD_CALLS)
        .map(|_| {
            agent.until("nothing of it runs", || {
                let left = runtime.block_on(agent.client.instances(None, Some(&app))).ok()?;
                left.is_empty().then_some(())
            });
            call().expect("an answer")
        })
        .collect();
    let mut warm: Vec<f64> = (0..WARM_CALLS).map(|_| call().expect("an answer")).collect();
    println!("\na Python handler in a container, over the API, milliseconds");
    println!("{:<46} {:>8} {:>8}", "", "median", "p90");
    for (name, times) in [("cold: its container is started for the call", &mut cold), ("warm", &mut warm)] {
        let (median, p90) = median_and_p90(times);
        println!("{name:<46} {median:>8.2} {p90:>8.2}");
    }
}

/// The same changes by Compose.
fn compose(engine: &str, image: &str) {
    let Some(program) = [vec!["docker", "compose"], vec!["docker-compose"]].into_iter().find(|program| {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }) else {
        println!("\nCompose is left out: neither `docker compose` nor `docker-compose` is there");
        return;
    };
    let root = tempfile::Builder::new().prefix("landfall-bench-compose-").tempdir().expect("a directory");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(["-p", "landfall-bench"]).args(arguments).current_dir(root.path());
        let output = command.env("DOCKER_HOST", engine).stdin(Stdio::null()).output().expect("Compose runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let up = |version: u32| {
        write_project(root.path(), image, address, version);
        let began = Instant::now();
        run(&["up", "-d"]);
        while !answers(address, version) {
            assert!(began.elapsed() < support::DEADLINE, "version {version} does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
        began.elapsed().as_secs_f64() * 1000.0
    };
    up(1);
    let load = Load::start(address);
    let mut times: Vec<f64> = (2..=DEPLOYS + 1).map(up).collect();
    let (requests, dropped) = load.stop();
    run(&["down", "-t", "1"]);
    let (median, p90) = median_and_p90(&mut times);
    println!("\nthe same by `{} up -d`, milliseconds", program.join(" "));
    println!("{:<46} {median:>8.1} {p90:>8.1}", "command → answered by the new one");
    println!("{requests} requests, {dropped} dropped, {:.1} a change", dropped as f64 / f64::from(DEPLOYS));
}

fn write_project(root: &Path, image: &str, address: SocketAddr, version: u32) {
    let tree = root.join(format!("v{version}"));
    std::fs::create_dir_all(&tree).expect("made");
    std::fs::write(tree.join("content.txt"), format!("version {version}\n")).expect("written");
    let text = format!(
        "version: \"3.8\"\nservices:\n  shop:\n    image: {image}\n    stop_grace_period: 1s\n    environment: {{PORT: \"8080\", HOST: 0.0.0.0, LANDFALL_VERSION: \"{version}\"}}\n    ports: [\"{address}:8080\"]\n    volumes: [\"./v{version}:/landfall/app:ro\"]\n"
    );
    std::fs::write(root.join("docker-compose.yml"), text).expect("written");
}

/// Whether this version answers now.
fn answers(address: SocketAddr, version: u32) -> bool {
    let answer = Connection::open(address, HOST).and_then(|mut connection| connection.get());
    answer.is_ok_and(|answer| answer.ends_with(&format!("\r\n\r\nversion {version}\n")))
}

/// Steady requests.
struct Load {
    over: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let counts: Arc<[AtomicU64; 2]> = Arc::default();
        let client = |index: usize| {
            let (over, counts) = (Arc::clone(&over), Arc::clone(&counts));
            std::thread::spawn(move || {
                let mut kept = None;
                while !over.load(Ordering::Relaxed) {
                    let connection = kept.take().map_or_else(|| Connection::open(address, HOST), Ok);
                    let answer = connection.and_then(|mut connection| Ok((connection.get()?, connection)));
                    counts[0].fetch_add(1, Ordering::Relaxed);
                    match answer {
                        Ok((answer, connection)) if answer.starts_with("HTTP/1.1 200") => {
                            let closes = answer.to_ascii_lowercase().contains("connection: close");
                            kept = (index.is_multiple_of(2) && !closes).then_some(connection);
                        }
                        Ok(_) | Err(_) => drop(counts[1].fetch_add(1, Ordering::Relaxed)),
                    }
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { over, counts, clients }
    }

    /// Requests, and how many of them were dropped.
    fn stop(self) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}
