//! `/metrics`: what a monitoring system sees of the agent.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::{Agent, Setup, free_port, http, until};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

pub async fn scrape(port: u16) -> String {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut connection = http::Connection::open(address, "localhost").await.expect("connects");
    let answer = connection.get("/metrics").await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    answer.body
}

/// The value of the line that begins with this, where there is one.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    Some(line.rsplit(' ').next()?.parse().expect("a number"))
}

async fn until_it_says(port: u16, name: &str, expected: f64) -> String {
    until(&format!("{name} is {expected}"), || async {
        let text = scrape(port).await;
        if value(&text, name) == Some(expected) { Ok(text) } else { Err(text) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_apps_and_a_lost_remote_show_and_a_restart_forgets_no_count() {
    let mut setup = Setup::new();
    let port = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{port}\"");
    setup.more =
        "notifications:\n  quiet:\n    exec: {command: [\"true\"]}\n    events: [deployment.failed]\n".to_owned();
    setup.repo.write(
        "jobs/landfall.yaml",
        "app: jobs\nfunctions:\n  tick: {command: [\"true\"], mode: exec, schedule: {every: 1s, overlap: allow}}\n  \
         bad: {command: [\"false\"], mode: exec, schedule: {every: 1s, overlap: allow}}\n",
    );
    setup.repo.app("shop", "one");
    setup.repo.push("one");
    let mut agent: Agent = setup.start().await;
    agent.until_live("shop", 1).await;
    agent.until_live("jobs", 1).await;
    agent.rest(&["shop", "jobs"]).await;

    let text = until_it_says(port, "landfall_app_ready_instances{environment=\"main\",app=\"shop\"}", 1.0).await;
    for (name, expected) in [
        ("landfall_events_total{event=\"deployment.live\"}", 2.0),
        ("landfall_app_state{environment=\"main\",app=\"shop\",state=\"deployed\"}", 1.0),
        ("landfall_app_live_version{environment=\"main\",app=\"shop\"}", 1.0),
        ("landfall_source_apps{source=\"fleet\"}", 2.0),
        ("landfall_source_dirty{source=\"fleet\"}", 0.0),
        ("landfall_problems", 0.0),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name} in\n{text}");
    }
    assert!(!text.contains("landfall_source_failing{"), "{text}");
    every_name_is_documented(&text);
    schedules_are_counted(port).await;
    agent.client.test_channel("quiet").await.expect("tried");
    let channel = |what: &str| format!("landfall_notifications_{what}{{channel=\"quiet\"}}");
    for what in ["sent_total", "failed_total", "given_up_total", "queued", "failing"] {
        assert_eq!(value(&text, &channel(what)), Some(0.0), "{what} in\n{text}");
    }

    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.until_live("shop", 2).await;
    until_it_says(port, "landfall_events_total{event=\"deployment.live\"}", 3.0).await;

    agent.stop();
    agent.launch();
    agent.until_up().await;
    until_it_says(port, "landfall_events_total{event=\"deployment.live\"}", 3.0).await;

    std::fs::rename(agent.repo.path(), agent.root.join("away.git")).expect("the repository moves");
    let _ = agent.client.sync(&"fleet".parse().expect("a name")).await;
    let failing = "landfall_source_failing{source=\"fleet\",kind=\"not-found\"}";
    every_name_is_documented(&until_it_says(port, failing, 1.0).await);
}

/// Runs by outcome rise, the failures in a row too, and what runs are late for is in the buckets.
async fn schedules_are_counted(port: u16) {
    let of = |name: &str, function: &str| {
        format!("landfall_schedule_{name}{{environment=\"main\",app=\"jobs\",function=\"{function}\"")
    };
    until("runs are counted", || async {
        let text = scrape(port).await;
        let well = value(&text, &format!("{},outcome=\"succeeded\"}}", of("runs_total", "tick"))) >= Some(2.0);
        let bad = value(&text, &format!("{},outcome=\"failed\"}}", of("runs_total", "bad"))) >= Some(2.0);
        let in_a_row = value(&text, &format!("{}}}", of("consecutive_failures", "bad"))) >= Some(2.0);
        let success = value(&text, &format!("{}}}", of("last_success_timestamp_seconds", "tick"))).is_some();
        let next = value(&text, &format!("{}}}", of("next_start_timestamp_seconds", "tick"))).is_some();
        let late = value(&text, "landfall_schedule_lateness_seconds_count") >= Some(4.0);
        let all = value(&text, "landfall_schedule_lateness_seconds_bucket{le=\"+Inf\"}");
        let all = all.is_some() && all == value(&text, "landfall_schedule_lateness_seconds_count");
        if well && bad && in_a_row && success && next && late && all { Ok(()) } else { Err(text) }
    })
    .await;
}

fn every_name_is_documented(text: &str) {
    let docs = std::fs::read_to_string(DOCS).expect("docs/metrics.md");
    let named = |line: &str| line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let unnamed: BTreeSet<String> =
        text.lines().filter_map(named).filter(|name| !docs.contains(&format!("`{name}"))).collect();
    assert!(unnamed.is_empty(), "docs/metrics.md does not tell of {unnamed:?}");
}
