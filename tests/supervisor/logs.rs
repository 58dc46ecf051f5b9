//! Output of instances.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use landfall::domain::manifest::Bytes;

use crate::agent::{Agent, status};

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { size_of(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

#[tokio::test]
async fn a_flood_of_output_goes_through_stays_bounded_and_starves_nobody() {
    let limit = 24 * 1024 * 1024;
    let agent = Agent::start_with(|plan, _| plan.logs_total = Bytes(limit));
    let mut controller = agent.controller().await;
    let logs = agent.plan.data_dir.join("logs");
    let flood = "yes 0123456789012345678901234567890123456789012345678 | head -c 100000000";
    let started = Instant::now();
    controller.link.start(agent.request("flood", flood)).await.expect("starts");
    controller.link.start(agent.request("other", "echo still heard; sleep 1000")).await.expect("starts");
    let (mut slowest, mut largest) = (Duration::ZERO, 0);
    let child = loop {
        let asked = Instant::now();
        let inventory = controller.link.inventory().await.expect("answers");
        slowest = slowest.max(asked.elapsed());
        largest = largest.max(size_of(&logs));
        if inventory
            .children
            .iter()
            .any(|c| c.instance.as_str() == "flood" && status(c) == "exit code 0, stopped: false")
        {
            break controller.exited("flood").await;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "100 MB took more than 120 s");
    };
    eprintln!(
        "100 MB in {:?}, slowest answer {slowest:?}, largest {largest} bytes, dropped {}",
        started.elapsed(),
        child.dropped_bytes
    );
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(largest <= limit, "{largest}");
    assert!(agent.log("flood").contains("system F ended: exit code 0"));
    agent.logged("other", "still heard").await;
    agent.shut_down().await;
}

#[tokio::test]
async fn the_last_words_of_an_instance_are_in_its_log() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    controller
        .link
        .start(
            agent
                .request("a", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf 'no end'; exit 1"),
        )
        .await
        .expect("starts");
    let child = controller.exited("a").await;
    let log = agent.log("a");
    let missing: Vec<u32> = (0..2000).filter(|i| !log.contains(&format!(" stdout F line {i}\n"))).collect();
    assert!(missing.is_empty(), "missing {missing:?}, dropped {}", child.dropped_bytes);
    assert!(log.contains(" stdout F no end\n"), "{}", &log[log.len() - 300..]);
    agent.shut_down().await;
}
