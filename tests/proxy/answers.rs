//! What Landfall answers itself, and when a request is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use landfall::domain::manifest::Millis;
use landfall::wire::proxy::{FromProxy, ToProxy, WhenEmpty};

use super::support::*;

/// An address where nothing listens.
async fn nobody() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    listener.local_addr().expect("an address")
}

async fn expect(client: &mut Client, request: &str, status: u16, code: &str) -> Message {
    client.send(request).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.header("landfall-error")), (status, code), "{request}\n{answer:?}");
    assert!(!answer.header("x-request-id").is_empty());
    answer
}

#[tokio::test]
async fn what_cannot_be_routed_is_refused_with_a_reason() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let mut routes = shop(&[(&id, server.address)]);
    routes.objects[0].hosts.push("*.wild.localhost".into());
    let mut admin = routes.objects[0].clone();
    admin.object = "admin".parse().expect("a name");
    admin.path = "/admin".into();
    routes.objects.push(admin);
    routes.objects[0].path = "/a".into();
    let house = House::with(vec![routes], |_| ()).await;
    let get = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (request, status, code) in [
        (get("other.localhost", "/"), 404, "unknown_host"),
        (get("shop.localhost", "/b"), 404, "unknown_path"),
        (get("shop.localhost", "/ax"), 404, "unknown_path"),
        (get("a.b.wild.localhost", "/a"), 404, "unknown_host"),
        (get("wild.localhost", "/a"), 404, "unknown_host"),
        (get("shop.localhost", "/a/../admin/x"), 400, "ambiguous_path"),
        (get("shop.localhost", "/a/%2e%2e/admin"), 400, "ambiguous_path"),
        (get("shop.localhost", "/a/..%2fadmin"), 400, "ambiguous_path"),
        (get("shop.localhost", "//admin"), 400, "ambiguous_path"),
        (get("shop.localhost", "/%61dmin"), 400, "ambiguous_path"),
        ("GET /a HTTP/1.1\r\n\r\n".into(), 400, "bad_host"),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400, "bad_host"),
        ("TRACE /a HTTP/1.1\r\nHost: shop.localhost\r\n\r\n".into(), 405, "trace_refused"),
        ("CONNECT shop.localhost:443 HTTP/1.1\r\nHost: shop.localhost:443\r\n\r\n".into(), 501, "connect_refused"),
    ] {
        expect(&mut house.client().await, &request, status, code).await;
    }
    let mut client = house.client().await;
    for (host, path) in [
        ("SHOP.localhost:99", "/a"),
        ("shop.localhost.", "/a/x"),
        ("x.wild.localhost", "/admin"),
        ("shop.localhost", "/a/x%2fy"),
        ("shop.localhost", "/a/b/../c"),
    ] {
        client.send(get(host, path)).await;
        assert_eq!(client.answer().await.status(), 200, "{host}{path}");
    }
    client.send("GET http://shop.localhost/a HTTP/1.1\r\nHost: ignored\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn browsers_get_a_page_and_programs_a_problem() {
    let house = House::with(vec![], |_| ()).await;
    let mut client = house.client().await;
    let page = expect(
        &mut client,
        "GET / HTTP/1.1\r\nHost: x.localhost\r\nAccept: text/html,*/*;q=0.8\r\n\r\n",
        404,
        "unknown_host",
    )
    .await;
    assert!(page.text().starts_with("<!doctype html>"), "{page:?}");
    let problem = expect(&mut client, "GET / HTTP/1.1\r\nHost: x.localhost\r\n\r\n", 404, "unknown_host").await;
    assert_eq!(problem.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    let big = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 100001\r\n\r\n";
    expect(&mut client, big, 413, "body_too_large").await;
    assert_eq!(server.connections.load(Ordering::SeqCst), 0, "a length is refused before anything is asked");
    // The client goes on sending, and still gets to read the answer.
    let mut client = house.client().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..40 {
        let chunk = "x".repeat(10_000);
        if client.try_send(format!("2710\r\n{chunk}\r\n").as_bytes()).await.is_none() {
            break;
        }
    }
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.header("landfall-error")), (413, "body_too_large"));
    let mut client = house.client().await;
    let fits =
        format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    client.send(fits).await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn without_a_ready_instance_the_reason_is_said() {
    let mut routes = shop(&[]);
    routes.objects[0].when_empty = WhenEmpty::Refuse { reason: "the app was stopped by ana".into() };
    let house = House::with(vec![routes], |_| ()).await;
    let answer =
        expect(&mut house.client().await, "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n", 503, "not_ready").await;
    assert!(answer.text().contains("stopped by ana"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn an_instance_that_does_not_listen_is_a_bad_gateway() {
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, nobody().await)])], |_| ()).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    expect(&mut house.client().await, request, 502, "instance_unreachable").await;
}

#[tokio::test]
async fn another_instance_takes_what_one_did_not_accept() {
    let server = Server::saying("hello").await;
    let (dead, alive) = (instance(1), instance(2));
    let house = House::with(vec![shop(&[(&dead, nobody().await), (&alive, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    for _ in 0..40 {
        client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!(client.answer().await.status(), 200);
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_read_is_not_sent_again() {
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let server = Server::start(move |mut peer| {
        let count = Arc::clone(&count);
        async move {
            while let Some(request) = peer.try_message().await {
                count.fetch_add(1, Ordering::SeqCst);
                if request.start.contains("/die") {
                    return;
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    for round in 1..10 {
        assert_eq!(client.get("/").await.status(), 200);
        // On a connection that was used before, which is where others try again.
        let die = "GET /die HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
        expect(&mut client, die, 502, "instance_broke_off").await;
        assert_eq!(heard.load(Ordering::SeqCst), 2 * round);
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_instance_closed_costs_no_request() {
    let server = Server::start(move |mut peer| async move {
        let Some(_) = peer.try_message().await else { return };
        // Looks like a kept connection, and is closed at once.
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    for round in 0..300 {
        client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 3\r\n\r\nabc").await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200, "round {round}: {answer:?}");
        // Long enough for the instance's close to be on its way; that it arrives before the next request is the point.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 300);
}

#[tokio::test]
async fn an_instance_that_does_not_answer_is_a_timeout() {
    let server = Server::start(|mut peer| async move { while peer.try_message().await.is_some() {} }).await;
    let id = instance(1);
    let mut routes = shop(&[(&id, server.address)]);
    routes.objects[0].request_timeout = Millis(100);
    let house = House::with(vec![routes], |_| ()).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let mut client = house.client().await;
    expect(&mut client, request, 504, "instance_timeout").await;
    expect(&mut client, request, 504, "instance_timeout").await;
}

#[tokio::test]
async fn more_than_may_wait_are_refused_and_those_that_wait_are_served_in_order() {
    let (go, gate) = tokio::sync::watch::channel(0_usize);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let server = Server::start(move |mut peer| {
        let (mut gate, seen) = (gate.clone(), Arc::clone(&seen));
        async move {
            while let Some(request) = peer.try_message().await {
                let turn = {
                    let mut seen = seen.lock().expect("not poisoned");
                    seen.push(request.start.split(' ').nth(1).unwrap_or("").to_owned());
                    seen.len()
                };
                let _ = gate.wait_for(|go| *go >= turn).await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let id = instance(1);
    let mut routes = shop(&[(&id, server.address)]);
    routes.objects[0].concurrency = 1;
    routes.objects[0].queue = 4;
    let mut house = House::with(vec![routes], |_| ()).await;
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = house.client().await;
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        clients.push(client);
        // Each is in its place before the next comes.
        loop {
            if let FromProxy::Load { objects } = house.line.hear().await
                && objects[0].queued == number
                && objects[0].in_flight[0].1 == 1
            {
                break;
            }
        }
    }
    let late = "GET /late HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    expect(&mut house.client().await, late, 503, "queue_full").await;
    // One in the middle gives up; nobody else loses their place.
    drop(clients.remove(2));
    go.send_replace(5);
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    assert_eq!(*order.lock().expect("not poisoned"), ["/0", "/1", "/3", "/4"]);
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let mut routes = shop(&[]);
    routes.objects[0].queue_timeout = Millis(100);
    let house = House::with(vec![routes], |_| ()).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    expect(&mut house.client().await, request, 503, "queue_timeout").await;
}

#[tokio::test]
async fn the_first_instance_is_asked_for_once_and_everybody_waits_for_it() {
    let mut house = House::with(vec![shop(&[])], |_| ()).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = house.client().await;
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
        clients.push(client);
    }
    match house.line.hear_fact().await {
        FromProxy::Wanted { app, object, .. } => {
            assert_eq!((app.to_string().as_str(), object.as_str()), ("main/shop", "main"))
        }
        other => panic!("expected wanted, heard {other:?}"),
    }
    loop {
        match house.line.hear().await {
            FromProxy::Load { objects } if objects[0].queued == 20 => break,
            FromProxy::Load { .. } => {}
            other => panic!("asked twice: {other:?}"),
        }
    }
    let server = Server::saying("hello").await;
    let id = instance(1);
    house.line.say(&ToProxy::Change { generation: 2, set: vec![shop(&[(&id, server.address)])], remove: vec![] }).await;
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "hello");
    }
}
