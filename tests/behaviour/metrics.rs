//! `/metrics`: what a monitoring system sees of the agent.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::{Agent, Setup, free_port, http, until};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

async fn scrape(port: u16) -> String {
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
    setup.repo.app("shop", "one");
    setup.repo.push("one");
    let mut agent: Agent = setup.start().await;
    agent.until_live("shop", 1).await;
    agent.rest(&["shop"]).await;

    let text = until_it_says(port, "landfall_app_ready_instances{environment=\"main\",app=\"shop\"}", 1.0).await;
    for (name, expected) in [
        ("landfall_events_total{event=\"deployment.live\"}", 1.0),
        ("landfall_app_state{environment=\"main\",app=\"shop\",state=\"deployed\"}", 1.0),
        ("landfall_app_live_version{environment=\"main\",app=\"shop\"}", 1.0),
        ("landfall_source_apps{source=\"fleet\"}", 1.0),
        ("landfall_source_dirty{source=\"fleet\"}", 0.0),
        ("landfall_problems", 0.0),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name} in\n{text}");
    }
    assert!(!text.contains("landfall_source_failing{"), "{text}");
    every_name_is_documented(&text);

    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.until_live("shop", 2).await;
    until_it_says(port, "landfall_events_total{event=\"deployment.live\"}", 2.0).await;

    agent.stop();
    agent.launch();
    agent.until_up().await;
    until_it_says(port, "landfall_events_total{event=\"deployment.live\"}", 2.0).await;

    std::fs::rename(agent.repo.path(), agent.root.join("away.git")).expect("the repository moves");
    let _ = agent.client.sync(&"fleet".parse().expect("a name")).await;
    let failing = "landfall_source_failing{source=\"fleet\",kind=\"not-found\"}";
    every_name_is_documented(&until_it_says(port, failing, 1.0).await);
}

fn every_name_is_documented(text: &str) {
    let docs = std::fs::read_to_string(DOCS).expect("docs/metrics.md");
    let named = |line: &str| line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let unnamed: BTreeSet<String> =
        text.lines().filter_map(named).filter(|name| !docs.contains(&format!("`{name}"))).collect();
    assert!(unnamed.is_empty(), "docs/metrics.md does not tell of {unnamed:?}");
}
