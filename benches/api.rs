//! How long the API takes to answer 64 clients while apps are deployed, and the dashboard's first page with 1,000 apps.
//!
//! The clients ask for the list of apps, one app, its versions and the newest events, in turns and without a pause, over
//! the Unix socket; meanwhile one app is pushed again and again. The page is asked for alone, 50 times.
//!
//! `cargo bench --bench api` (after `cargo build --release --example test-app`); exits with 1 if the page has more than 50 KB or takes longer
//! than 100 ms at the median. `LANDFALL_BENCH_APPS` says how many apps there are besides.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use landfall::client::Client;
use support::{Agent, test_app};

const CLIENTS: usize = 64;
const PUSHES: u32 = 10;
const PAGES: usize = 50;
const LIMIT_BYTES: usize = 50 * 1000;
const LIMIT_MS: f64 = 100.0;

fn main() -> ExitCode {
    let Some(app) = test_app() else { return ExitCode::FAILURE };
    let apps = std::env::var("LANDFALL_BENCH_APPS").ok().map_or(1000, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let agent = Agent::start(&runtime);
    let manifest = format!(
        "app: shop\nbake: 0s\nweb:\n  main:\n    command: [{}, serve]\n    health: {{path: /healthz}}\n    drain: 1s\n",
        app.display()
    );
    let file = |version: u32| ("shop/content.txt".to_owned(), format!("version {version}\n"));
    agent.push(&[("shop/landfall.yaml".to_owned(), manifest), file(1)]);
    until_live(&agent, &runtime, 1);

    let mut times = under_load(&agent, &runtime, |version| {
        agent.push(&[file(version)]);
        until_live(&agent, &runtime, version);
    });
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "API, {CLIENTS} clients without a pause, {PUSHES} deployments meanwhile, {} answers, milliseconds",
        times.len()
    );
    println!("  p50 {:.2}  p99 {:.2}  longest {:.2}", at(0.5), at(0.99), at(1.0));

    // Functions that nobody calls: 1,000 apps as a small machine has them, most at rest.
    let idle = |number: usize| {
        let manifest = format!(
            "app: app-{number}\nbake: 0s\nfunctions:\n  work: {{command: [\"true\"], mode: exec, instances: {{min: 0, max: 1}}}}\n"
        );
        (format!("apps/app-{number}/landfall.yaml"), manifest)
    };
    agent.push(&(0..apps).map(idle).collect::<Vec<_>>());
    // As long as it is getting on.
    let (mut live, mut since) = (0, Instant::now());
    while live < apps {
        std::thread::sleep(Duration::from_millis(200));
        let all = runtime.block_on(agent.client.apps(None)).expect("the apps");
        let now = all.iter().filter(|app| app.live_version.is_some()).count() - 1;
        if now > live {
            (live, since) = (now, Instant::now());
        }
        assert!(
            since.elapsed() < support::DEADLINE,
            "{live} of {apps} apps are live, and no more since {:?}",
            since.elapsed()
        );
    }
    let socket = agent.root.path().join("agent.sock");
    let mut pages: Vec<(f64, usize)> = (0..PAGES).map(|_| page(&socket)).collect();
    pages.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (median, slowest) = (pages[PAGES / 2].0, pages[PAGES - 1].0);
    let bytes = pages.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
    println!("the dashboard's first page with {apps} apps, {PAGES} times");
    println!(
        "  {bytes} bytes (limit {LIMIT_BYTES}), median {median:.1} ms (limit {LIMIT_MS}), longest {slowest:.1} ms"
    );
    if bytes <= LIMIT_BYTES && median <= LIMIT_MS { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn until_live(agent: &Agent, runtime: &tokio::runtime::Runtime, version: u32) {
    let name = "shop".parse().expect("a name");
    agent.until("the version is live", || {
        let live = runtime.block_on(agent.client.app(None, &name)).ok()?.live_version?;
        (live.get() == version).then_some(())
    });
}

/// How long each answer took, in milliseconds, while `deploy` is called again and again.
fn under_load(agent: &Agent, runtime: &tokio::runtime::Runtime, deploy: impl Fn(u32)) -> Vec<f64> {
    let (over, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, over, failed) = (agent.client.clone(), Arc::clone(&over), Arc::clone(&failed));
            runtime.spawn(async move {
                let mut times = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    for route in 0..4 {
                        let begun = Instant::now();
                        if !ask(&client, route).await {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        times.push(begun.elapsed().as_secs_f64() * 1000.0);
                    }
                }
                times
            })
        })
        .collect();
    for version in 2..=PUSHES + 1 {
        deploy(version);
    }
    over.store(true, Ordering::Relaxed);
    let times = clients.into_iter().flat_map(|client| runtime.block_on(client).expect("a client")).collect();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "requests failed");
    times
}

async fn ask(client: &Client, route: u8) -> bool {
    let shop = "shop".parse().expect("a name");
    match route {
        0 => client.apps(None).await.is_ok(),
        1 => client.app(None, &shop).await.is_ok(),
        2 => client.versions(None, &shop).await.is_ok(),
        _ => client.events(-1, 50).await.is_ok(),
    }
}

/// Milliseconds until the whole of the first page was there, and its bytes without the head.
fn page(socket: &Path) -> (f64, usize) {
    let begun = Instant::now();
    let mut connection = UnixStream::connect(socket).expect("connected");
    connection.set_read_timeout(Some(support::DEADLINE)).expect("set");
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("the page");
    let millis = begun.elapsed().as_secs_f64() * 1000.0;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..answer.len().min(500)]));
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    (millis, answer.len() - head - 4)
}
