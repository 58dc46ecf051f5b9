//! The API over its sockets: every route answers, every error is a problem document, the loopback only reads.

use std::path::PathBuf;
use std::time::Duration;

use landfall::client::{Client, ClientError, LogQuery, Target};
use landfall::domain::DeploymentId;
use landfall::wire::api;
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::asking::{name, number, refusal};
use crate::support::{Agent, Setup, free_port, send_signal, until};

const SOON: Duration = Duration::from_secs(30);

fn socket(agent: &Agent) -> PathBuf {
    agent.root.join("agent.sock")
}

/// Sends bytes and reads everything that comes back.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.expect("in time").expect("read");
    answer
}

async fn raw(agent: &Agent, request: &str) -> String {
    exchange(UnixStream::connect(socket(agent)).await.expect("connected"), request).await
}

/// An agent with an app `shop` at v1, and the port its API listens on.
async fn start() -> (Agent, u16) {
    let mut setup = Setup::new();
    let port = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{port}\"");
    setup.repo.app("shop", "one");
    setup.repo.push("one");
    let agent = setup.start().await;
    agent.until_live("shop", 1).await;
    agent.rest(&["shop"]).await;
    (agent, port)
}

/// Asserts that an answer is a problem with this status, and complete.
fn assert_problem(answer: &str, status: u16, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    for header in
        ["content-type: application/problem+json", "x-content-type-options: nosniff", "cache-control: no-store"]
    {
        assert!(head.contains(header), "{header} is missing: {answer}");
    }
    let problem: api::Problem = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!((problem.status, problem.code.as_str()), (status, code), "{answer}");
    assert!(!problem.title.is_empty() && !problem.mend.is_empty(), "{answer}");
}

fn get_request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

fn post_request(target: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_document() {
    let (agent, _) = start().await;
    let json = "content-type: application/json\r\n";
    let cases = [
        (get_request("/v1/nothing"), 404, "not_found"),
        (get_request("/nothing"), 404, "not_found"),
        (get_request("/v1/deploy"), 405, "method_not_allowed"),
        (post_request("/v1/status", "", ""), 405, "method_not_allowed"),
        (get_request("/v1/apps/Shop"), 422, "invalid"),
        (get_request("/v1/apps/sh%20op"), 422, "invalid"),
        (get_request("/v1/apps/%ff"), 400, "bad_request"),
        (get_request("/v1/apps/shop?environment=No"), 422, "invalid"),
        (get_request("/v1/apps/shop?enviroment=dev"), 400, "bad_request"),
        (get_request("/v1/apps/shop/deployments?limit=0"), 400, "bad_request"),
        (get_request("/v1/apps/shop/deployments?limit=many"), 400, "bad_request"),
        (get_request("/v1/apps/shop/logs?since=yesterday"), 400, "bad_request"),
        (get_request("/v1/apps/shop/logs?source=stdin"), 422, "invalid"),
        (get_request("/v1/apps/shop/logs?version=v0"), 422, "invalid"),
        (get_request("/v1/deployments/x"), 422, "invalid"),
        (post_request("/v1/apps/shop/rollback", json, "{\"version\":"), 400, "bad_request"),
        (post_request("/v1/apps/shop/rollback", json, "{\"versoin\":1}"), 400, "bad_request"),
        (post_request("/v1/apps/shop/rollback", "", "{}"), 415, "unsupported_media_type"),
        (post_request("/v1/apps/shop/stop", json, &" ".repeat(65 * 1024)), 413, "too_large"),
        (post_request("/v1/deploy", "content-type: application/zip\r\n", "PK"), 415, "unsupported_media_type"),
        (get_request("/v1/apps/nobody"), 404, "not_found"),
        (get_request("/v1/apps/shop?environment=dev"), 404, "not_found"),
        (get_request("/v1/deployments/999"), 404, "not_found"),
        (post_request("/v1/sources/nobody/sync", json, "{}"), 404, "not_found"),
        (post_request("/v1/apps/shop/rollback", "", ""), 409, "conflict"),
        (post_request("/v1/apps/shop/rollback", json, "{\"version\":3}"), 404, "not_found"),
        (post_request("/v1/apps/shop/resume", "", ""), 409, "conflict"),
        (post_request("/v1/deploy", "content-type: application/x-tar\r\n", "no archive"), 400, "bad_request"),
    ];
    let huge = "POST /v1/deploy HTTP/1.1\r\nhost: localhost\r\ncontent-length: 600000000\r\n\r\n";
    assert_problem(&raw(&agent, huge).await, 413, "too_large");
    for (request, status, code) in cases {
        assert_problem(&raw(&agent, &request).await, status, code);
    }
    let answer = raw(&agent, &post_request("/v1/status", "", "")).await;
    assert!(answer.contains("\r\nallow: GET,HEAD\r\n"), "{answer}");
}

/// Sends the whole body although the answer is there already, as many clients do, and only then reads.
async fn talks_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str, body: &[u8]) -> String {
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = vec![0];
    stream.read_exact(&mut answer).await.expect("an answer begins");
    stream.write_all(body).await.expect("the connection is not closed under its sender");
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("in time").expect("the rest");
    String::from_utf8(answer).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_in_the_middle_of_a_sentence_still_learns_why() {
    let (agent, port) = start().await;
    let head = "POST /v1/deploy HTTP/1.1\r\nhost: localhost\r\ncontent-length: 600000000\r\n\r\n";
    let body = vec![b'x'; 8 * 1024 * 1024];
    let local = UnixStream::connect(socket(&agent)).await.expect("connected");
    assert_problem(&talks_on(local, head, &body).await, 413, "too_large");
    let network = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    assert_problem(&talks_on(network, head, &body).await, 403, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_client_is_answered() {
    let (agent, _) = start().await;
    let (client, shop) = (&agent.client, name("shop"));
    let environment = "main".parse().expect("a name");
    let environment = Some(&environment);
    assert!(client.status().await.expect("status").healthy);
    assert_eq!(client.apps(environment).await.expect("apps").len(), 1);
    assert_eq!(client.app(environment, &shop).await.expect("the app").app, shop);
    assert_eq!(client.versions(environment, &shop).await.expect("versions").len(), 1);
    let deployments = client.deployments(environment, &shop, Some(5)).await.expect("deployments");
    let id = deployments[0].id;
    assert_eq!(client.deployment(id).await.expect("the deployment"), deployments[0]);
    let mut follow = client.follow_deployment(id).await.expect("followed");
    assert_eq!(follow.next().await.expect("its state"), Some(deployments[0].clone()));
    assert_eq!(follow.next().await.expect("its end"), None);
    let query =
        LogQuery { tail: Some(1), version: Some(number(1)), source: Some("stdout".into()), ..LogQuery::default() };
    let mut logs = client.logs(environment, &shop, &query).await.expect("logs");
    let line = tokio::time::timeout(SOON, logs.next()).await.expect("in time").expect("a line").expect("one");
    assert!(line.line.contains("listening on"), "{line:?}");
    for query in [
        LogQuery { version: Some(number(9)), ..LogQuery::default() },
        LogQuery { object: Some("mian".into()), ..LogQuery::default() },
        LogQuery { instance: Some("shop-main-v1-mistyped".into()), ..LogQuery::default() },
    ] {
        let refused = client.logs(environment, &shop, &query).await.expect_err("there is no such log");
        assert_eq!(refused.problem().map(|problem| problem.status), Some(404), "{refused}");
    }
    assert_eq!(client.sources().await.expect("sources").len(), 1);
    let source = "fleet".parse().expect("a name");
    assert_eq!(client.sync(&source).await.expect("a look").error, None);
    assert_eq!(client.plan(Some(&source)).await.expect("a plan")[0].action, "none");
    assert_eq!(client.instances(environment, Some(&shop)).await.expect("instances").len(), 1);
    assert!(!client.events(0, 10).await.expect("events").is_empty());
    let reason = api::ReasonRequest { reason: Some("try".into()) };
    assert!(client.rollover(environment, &shop, &reason).await.expect("accepted").changed);
    agent.rest(&["shop"]).await;
    let suspended = client.suspend(environment, &shop, &api::SuspendRequest::default()).await.expect("suspended");
    assert!(suspended.suspension.is_some());
    assert!(client.resume(environment, &shop).await.expect("resumed").suspension.is_none());
    assert!(!client.release(environment, &shop, &api::ReleaseRequest::default()).await.expect("accepted").changed);
    assert_eq!(refusal(client.rollback(environment, &shop, &api::RollbackRequest::default()).await).status, 409);
    assert!(client.stop(environment, &shop, &reason).await.expect("accepted").changed);
    let missing = refusal(client.deployment(DeploymentId(999)).await);
    assert_eq!(missing.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_answers_questions_and_takes_no_changes() {
    let (agent, port) = start().await;
    let client = Client::connect(&Target::Url(format!("http://127.0.0.1:{port}"))).expect("a client");
    let status = client.status().await.expect("status");
    assert_eq!(status.listen.api.as_deref(), Some(format!("127.0.0.1:{port}").as_str()));
    let refused = client.stop(None, &name("shop"), &api::ReasonRequest::default()).await.expect_err("refused");
    assert!(refused.mend().contains("Unix socket"), "{refused}: {}", refused.mend());
    let refused = client.rollback(None, &name("shop"), &api::RollbackRequest::default()).await;
    assert_eq!(refusal(refused).status, 403);
    let raw_tcp = async |request: &str| {
        exchange(TcpStream::connect(("127.0.0.1", port)).await.expect("connected"), request).await
    };
    let request = "GET /v1/status HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_problem(&raw_tcp(request).await, 403, "refused");
    let request =
        "GET /v1/status HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\nconnection: close\r\n\r\n";
    assert_problem(&raw_tcp(request).await, 403, "refused");
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_calls_that_never_end_do_not_hold_up_the_end() {
    let (mut agent, _) = start().await;
    let _unused = UnixStream::connect(socket(&agent)).await.expect("connected");
    let mut stream = UnixStream::connect(socket(&agent)).await.expect("connected");
    // The interim answer proves that the call is being read when the end begins.
    let head =
        "POST /v1/apps/shop/stop HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut interim = [0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut interim)).await.expect("in time").expect("read");
    assert_eq!(&interim, b"HTTP/1.1 100");
    agent.stop();
    let gone = agent.client.status().await.expect_err("nobody is there");
    assert!(matches!(gone, ClientError::NoAgent { .. }), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_deployment_is_followed_to_its_end_over_a_killed_controller() {
    let (mut agent, _) = start().await;
    let slow = crate::support::asking::manifest("shop", &["serve-after", "600000"], "100ms", "");
    agent.repo.write("shop/landfall.yaml", slow);
    agent.repo.push("slow");
    until("v2 is on its way", || async {
        let app = agent.app("shop").await?;
        if app.state == api::AppState::Deploying { Ok(()) } else { Err(format!("{app:?}")) }
    })
    .await;
    let id = agent.deployment_of("shop", 2).await.id;
    let mut follow = agent.client.follow_deployment(id).await.expect("followed");
    assert!(follow.next().await.expect("its state").is_some());
    send_signal(agent.controller_pid().await, Signal::SIGKILL);
    // Newer content ends it.
    agent.repo.app("shop", "three");
    agent.repo.push("three");
    let last = tokio::time::timeout(SOON, async {
        loop {
            let state = follow.next().await.expect("it goes on").expect("it is not over before it says so");
            if state.outcome.is_some() {
                return state;
            }
        }
    });
    let last = last.await.expect("in time");
    assert_eq!((last.id, last.outcome), (id, Some(landfall::domain::DeploymentOutcome::Cancelled)));
    assert!(follow.next().await.expect("a clean end").is_none());
}
