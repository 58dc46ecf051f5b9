//! Slow clients, many clients, and what is written about them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall::proxy::{ProxySettings, Timings};
use landfall::wire::proxy::AccessLine;

use super::support::*;

fn quick(settings: &mut ProxySettings) {
    settings.timings = Timings { head: 1, idle: 3, stall: 1 };
}

#[tokio::test]
async fn clients_that_stop_moving_are_let_go() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], quick).await;
    let (mut silent, mut slow_head, mut slow_next, mut idle) =
        (house.client().await, house.client().await, house.client().await, house.client().await);
    slow_head.send("GET / HTTP/1.1\r\nHost: sh").await;
    assert_eq!(slow_next.get("/").await.status(), 200);
    slow_next.send("GE").await;
    assert_eq!(idle.get("/").await.status(), 200);
    let mut slow_body = house.client().await;
    slow_body.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10\r\n\r\n12345").await;
    silent.closes().await;
    slow_head.closes().await;
    slow_next.closes().await;
    let answer = slow_body.answer().await;
    assert_eq!((answer.status(), answer.header("landfall-error")), (408, "body_timeout"));
    idle.closes().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_frees_its_instance() {
    let server = Server::start(|mut peer| async move {
        let Some(_) = peer.try_message().await else { return };
        let chunk = vec![b'x'; 1 << 20];
        if peer.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await.is_some() {
            while peer.try_send(&chunk).await.is_some() {}
        }
    })
    .await;
    let id = instance(1);
    let mut house = House::with(vec![shop(&[(&id, server.address)])], quick).await;
    let mut client = house.client().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    until("the request's arrival", || (server.connections.load(Ordering::SeqCst) == 1, ())).await;
    house.line.publish(2, vec![]).await;
    house.line.drain(&id, 0).await;
    house.line.drained(&id).await;
}

#[tokio::test]
async fn an_answer_may_be_silent_as_long_as_the_instance_likes() {
    let server = Server::start(|mut peer| async move {
        let Some(_) = peer.try_message().await else { return };
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        // Longer than any client may be silent.
        tokio::time::sleep(Duration::from_secs(4)).await;
        peer.send("1\r\nb\r\n0\r\n\r\n").await;
    })
    .await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], quick).await;
    let mut client = house.client().await;
    assert_eq!(client.get("/").await.text(), "ab");
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_their_turn() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let limit = |settings: &mut ProxySettings| {
        settings.options.max_connections = 2;
        settings.threads = 1;
    };
    let house = House::with(vec![shop(&[(&id, server.address)])], limit).await;
    let (mut one, mut two) = (house.client().await, house.client().await);
    assert_eq!(one.get("/").await.status(), 200);
    assert_eq!(two.get("/").await.status(), 200);
    let mut third = house.client().await;
    third.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.try_message()).await;
    assert!(early.is_err(), "answered above the limit: {early:?}");
    drop(one);
    assert_eq!(third.answer().await.status(), 200);
}

#[tokio::test]
async fn every_request_has_its_line_in_the_access_log() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client.send("POST /a/b?secret=1 HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 3\r\n\r\nabc").await;
    let first = client.answer().await;
    client.send("GET /x HTTP/1.1\r\nHost: nowhere\r\n\r\n").await;
    let second = client.answer().await;
    let path = house.dir.path().join("logs").join("access.log");
    let mut lines: Vec<AccessLine> = Vec::new();
    until("two lines", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        (lines.len() == 2, text)
    })
    .await;
    let passed = &lines[0];
    assert_eq!(passed.request_id, first.header("x-request-id"));
    assert_eq!((passed.method.as_str(), passed.path.as_str(), passed.status), ("POST", "/a/b", 200));
    assert_eq!((passed.bytes_in, passed.bytes_out), (3, 5));
    assert_eq!((passed.app.as_deref(), passed.instance.as_deref()), (Some("main/shop"), Some(id.as_str())));
    assert_eq!((passed.client.as_str(), passed.host.as_str(), &passed.reason), ("127.0.0.1", "shop.localhost", &None));
    let own = &lines[1];
    assert_eq!(own.request_id, second.header("x-request-id"));
    assert_eq!((own.status, own.reason.as_deref(), &own.app), (404, Some("unknown_host"), &None));
}
