//! One version takes over from another: nothing fails, nothing is answered by a version that has been replaced, and
//! what was begun is finished where it began.

use std::time::Duration;

use landfall::domain::VersionNumber;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::http::Connection;
use crate::support::load::Load;
use crate::support::{Agent, number_from, until, web_manifest};

/// `LANDFALL_TEST_DEPLOYS=200` is the figure to quote.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_and_none_meets_a_replaced_version_over_many_deploys() {
    let deploys = number_from("LANDFALL_TEST_DEPLOYS", 40);
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let load = Load::start(agent.proxy, "shop", 64, 4);
    load.live(1);
    load.go_on().await;
    let mut times = Vec::new();
    for version in 2..=deploys + 1 {
        agent.repo.app("shop", &format!("v{version}\n"));
        let pushed = Instant::now();
        agent.repo.push(&format!("v{version}"));
        agent.until_live("shop", version).await;
        times.push(pushed.elapsed());
        load.live(version);
    }
    load.go_on().await;
    let report = load.stop().await;
    times.sort();
    println!(
        "{deploys} deploys under 64 kept connections and 4 clients with new ones: {} requests, {} failed, \
         push to live {} ms (median), {} ms (slowest)",
        report.requests,
        report.troubles.len(),
        times[times.len() / 2].as_millis(),
        times[times.len() - 1].as_millis()
    );
    let first: Vec<_> = report.troubles.iter().take(5).collect();
    assert!(report.troubles.is_empty(), "{} of {}: {first:#?}", report.troubles.len(), report.requests);
}

/// `LANDFALL_TEST_REQUEST_SECONDS=20` is the figure to quote.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_is_finished_by_the_version_it_began_on() {
    let seconds = number_from("LANDFALL_TEST_REQUEST_SECONDS", 4);
    let mut agent = Agent::start().await;
    let manifest = web_manifest("shop", "").replace("drain: 5s", &format!("drain: {}s", seconds + 30));
    agent.repo.write("shop/landfall.yaml", manifest.clone()).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let mut connection = Connection::open(agent.proxy, "shop.localhost").await.expect("a connection");
    let path = format!("/slow?ms={}", seconds * 1000);
    let long = tokio::spawn(async move { connection.get(&path).await });
    until_in_flight(&agent, 1).await;
    for version in 2..=3 {
        agent.repo.write("shop/content.txt", format!("v{version}\n"));
        agent.repo.push("next");
        agent.until_live("shop", version).await;
        assert_eq!(agent.get("shop", "/").await.expect("an answer").version, Some(version));
    }
    assert!(!long.is_finished(), "it is to outlive both deploys; set LANDFALL_TEST_REQUEST_SECONDS higher");
    let answer = long.await.expect("not cancelled").expect("an answer");
    assert_eq!((answer.status, answer.version, answer.body.as_str()), (200, Some(1), "v1\n"));
    until_versions(&agent, &[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_ends_on_the_version_it_began_on() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let mut connection = Connection::open(agent.proxy, "shop.localhost").await.expect("a connection");
    let stream = tokio::spawn(async move { connection.get("/stream?ms=2500").await });
    until_in_flight(&agent, 1).await;
    agent.repo.app("shop", "v2\n");
    agent.repo.push("v2");
    agent.until_live("shop", 2).await;
    let answer = stream.await.expect("not cancelled").expect("an answer");
    assert_eq!((answer.status, answer.version, answer.body.as_str()), (200, Some(1), "1111111111"));
    until_versions(&agent, &[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_closed_in_order_and_the_next_one_meets_the_new_version() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let (mut socket, version) = web_socket(&agent).await;
    assert_eq!(version, "1");
    // A masked text frame, as clients send them; the app sends it back as it is.
    let hello = *b"\x81\x82\0\0\0\0hi";
    echo(&mut socket, &hello).await;
    agent.repo.app("shop", "v2\n");
    agent.repo.push("v2");
    agent.until_live("shop", 2).await;
    let mut close = [0; 4];
    read(&mut socket, &mut close).await;
    assert_eq!(close, [0x88, 2, 0x03, 0xE9], "a close frame, 1001: going away");
    socket.write_all(b"\x88\x82\0\0\0\0\x03\xE9").await.expect("the answer to it");
    let (mut socket, version) = web_socket(&agent).await;
    assert_eq!(version, "2");
    echo(&mut socket, &hello).await;
    until_versions(&agent, &[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_requests_start_one_wave_and_the_app_sleeps_again() {
    let mut agent = Agent::start().await;
    let manifest = web_manifest("shop", "    instances: {min: 0, max: 3, idle: 1s}\n");
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_live("shop", 1).await;
    agent.until_done("shop").await;
    until_asleep(&agent).await;
    let before = starts(&agent);
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let proxy = agent.proxy;
            tokio::spawn(async move { crate::support::http::get(proxy, "shop.localhost", "/").await })
        })
        .collect();
    for request in requests {
        let answer = request.await.expect("not cancelled").expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "v1\n"));
    }
    assert_eq!(starts(&agent) - before, 1, "instances started for one wave of 50 requests with concurrency 64");
    until_asleep(&agent).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").status, 200, "it wakes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_deployed_while_its_app_sleeps_answers_the_next_request() {
    let mut agent = Agent::start().await;
    let manifest = web_manifest("shop", "    instances: {min: 0, max: 3, idle: 1s}\n");
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_live("shop", 1).await;
    agent.until_done("shop").await;
    until_asleep(&agent).await;
    agent.repo.write("shop/content.txt", "v2\n");
    agent.repo.push("v2");
    agent.until_live("shop", 2).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").version, Some(2));
    until_asleep(&agent).await;
}

/// Waits until so many requests are on instances.
async fn until_in_flight(agent: &Agent, wanted: u32) {
    until("the request has reached its instance", || async {
        let instances = agent.instances("shop").await?;
        let in_flight: u32 = instances.iter().map(|instance| instance.in_flight).sum();
        if in_flight == wanted { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
}

/// Waits until instances of exactly these versions run.
async fn until_versions(agent: &Agent, wanted: &[u32]) {
    let wanted: Vec<_> = wanted.iter().filter_map(|number| VersionNumber::new(*number)).collect();
    until(&format!("only {wanted:?} run"), || async {
        let instances = agent.instances("shop").await?;
        let versions: Vec<_> = instances.iter().map(|instance| instance.version).collect();
        if versions == wanted { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
}

async fn until_asleep(agent: &Agent) {
    agent.until_app("shop", "no instance runs", |app| app.instances == 0).await;
}

/// How many instances of the live app have been started, by their log files.
fn starts(agent: &Agent) -> usize {
    let logs = agent.root.join("data/logs/main/shop/v1/main");
    std::fs::read_dir(&logs).map(Iterator::count).unwrap_or_default()
}

async fn web_socket(agent: &Agent) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(agent.proxy).await.expect("a connection");
    let head = "GET /socket HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        read(&mut stream, &mut byte).await;
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer).expect("a head").to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    let version = answer.lines().find_map(|line| line.strip_prefix("app-version: ")).expect("a version");
    (stream, version.to_owned())
}

async fn echo(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(frame).await.expect("written");
    let mut back = vec![0; frame.len()];
    read(stream, &mut back).await;
    assert_eq!(back, frame);
}

async fn read(stream: &mut TcpStream, bytes: &mut [u8]) {
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(bytes)).await;
    read.expect("bytes in time").expect("bytes before the end");
}
