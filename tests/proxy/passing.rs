//! What goes through, goes through unharmed.

use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall::proxy::ProxySettings;
use std::sync::atomic::Ordering;

use super::support::*;

#[tokio::test]
async fn a_request_reaches_the_instance_with_who_asked() {
    let server = Server::echoing_heads().await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client
        .send(
            "GET /a?b=c HTTP/1.1\r\nHost: shop.localhost:8080\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
             X-Request-Id: mine\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    let seen = answer.text().to_lowercase();
    assert!(seen.starts_with("get /a?b=c http/1.1\r\n"), "{seen}");
    let port = house.proxy.address.port();
    for line in [
        "host: shop.localhost:8080".to_owned(),
        "x-forwarded-for: 127.0.0.1".into(),
        "x-forwarded-proto: http".into(),
        "x-forwarded-host: shop.localhost:8080".into(),
        format!("x-forwarded-port: {port}"),
        "forwarded: for=127.0.0.1;host=\"shop.localhost:8080\";proto=http".into(),
        format!("x-request-id: {}", answer.header("x-request-id")),
        "te: trailers".into(),
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is missing in\n{seen}");
    }
    assert!(seen.contains("x-request-start: t="), "{seen}");
    for gone in ["6.6.6.6", "x-secret", "keep-alive:", "proxy-connection", "mine"] {
        assert!(!seen.contains(gone), "{gone} went through:\n{seen}");
    }
    assert_eq!(answer.header("x-request-id").len(), 32);
    assert_eq!(answer.header("landfall-error"), "");
}

#[tokio::test]
async fn a_trusted_proxy_before_us_is_believed() {
    let server = Server::echoing_heads().await;
    let id = instance(1);
    let trust = |settings: &mut ProxySettings| settings.options.trusted_proxies = vec!["127.0.0.0/8".into()];
    let house = House::with(vec![shop(&[(&id, server.address)])], trust).await;
    let mut client = house.client().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
             X-Request-Id: abc-1\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    let seen = answer.text().to_lowercase();
    for line in ["x-forwarded-for: 192.0.2.1, 127.0.0.1", "x-forwarded-proto: https", "x-request-id: abc-1"] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is missing in\n{seen}");
    }
    assert_eq!(answer.header("x-request-id"), "abc-1");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn http2_without_tls_is_served() {
    let server = Server::echoing_heads().await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let stream = tokio::net::TcpStream::connect(house.proxy.address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(connection);
    for round in 0..20 {
        let request = http::Request::get(format!("http://shop.localhost/{round}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(String::new())
            .expect("a request");
        let answer = soon("an answer", sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let seen = String::from_utf8_lossy(&body).to_lowercase();
        assert!(seen.starts_with(&format!("get /{round} http/1.1\r\n")), "{seen}");
        assert!(seen.contains("host: shop.localhost\r\n") && seen.contains("cookie: a=1; b=2"), "{seen}");
    }
}

#[tokio::test]
async fn bodies_flow_both_ways_while_they_are_made() {
    let server = Server::start(|mut peer| async move {
        let Some(_) = peer.try_head().await else { return };
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while let Some(Some(chunk)) = peer.chunk().await {
            let text = String::from_utf8_lossy(&chunk).to_uppercase();
            peer.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        }
        peer.send("0\r\n\r\n").await;
    })
    .await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
        if word == "one" {
            assert_eq!(client.try_head().await.expect("a head").status(), 200);
        }
        let back = soon("the chunk's echo", client.chunk()).await.flatten().expect("a chunk");
        assert_eq!(String::from_utf8_lossy(&back), word.to_uppercase());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(soon("the end", client.chunk()).await, Some(None));
    // And the connection goes on.
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn events_arrive_when_they_are_sent() {
    let (sent, events) = tokio::sync::mpsc::channel::<&str>(1);
    let events = std::sync::Arc::new(tokio::sync::Mutex::new(events));
    let server = Server::start(move |mut peer| {
        let events = events.clone();
        async move {
            let Some(_) = peer.try_head().await else { return };
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
            while let Some(event) = events.lock().await.recv().await {
                peer.send(format!("data: {event}\n\n")).await;
            }
        }
    })
    .await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client.send("GET /events HTTP/1.1\r\nHost: shop.localhost\r\nAccept: text/event-stream\r\n\r\n").await;
    assert_eq!(soon("the head", client.try_head()).await.expect("a head").status(), 200);
    for event in ["one", "two"] {
        sent.send(event).await.expect("sends");
        let chunk = soon("the event", client.chunk()).await.flatten().expect("a chunk");
        assert_eq!(String::from_utf8_lossy(&chunk), format!("data: {event}\n\n"));
    }
    drop(sent);
    assert_eq!(soon("the end", client.chunk()).await, Some(None));
}

#[tokio::test]
async fn answers_without_a_body_stay_without_one() {
    let server = Server::start(|mut peer| async move {
        while let Some(request) = peer.try_message().await {
            let answer = match request.start.split(' ').nth(1).unwrap_or("") {
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "/same" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n",
                "/none" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/early" => {
                    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                }
                _ => "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
            };
            peer.send(answer).await;
        }
    })
    .await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client.send("HEAD /head HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let head = soon("a head", client.try_head()).await.expect("a head");
    assert_eq!((head.status(), head.header("content-length")), (200, "1234"));
    client.send("GET /same HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let head = soon("a head", client.try_head()).await.expect("a head");
    assert_eq!((head.status(), head.header("etag")), (304, "\"a\""));
    assert_eq!(client.get("/none").await.status(), 204);
    let early = client.get("/early").await;
    assert_eq!((early.status(), early.text().as_str()), (200, "ok"));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_prefix_is_taken_off_and_named() {
    let (server, other) = (Server::echoing_heads().await, Server::saying("root").await);
    let (id, root) = (instance(1), instance(2));
    let mut routes = shop(&[(&id, server.address)]);
    routes.objects[0].path = "/api".into();
    routes.objects[0].strip_prefix = true;
    let mut rest = app("rest", &[(&root, other.address)]);
    rest.objects[0].hosts = vec!["shop.localhost".into()];
    let house = House::with(vec![routes, rest], |_| ()).await;
    let mut client = house.client().await;
    for (asked, seen) in [("/api/x/?q=1", "/x/?q=1"), ("/api", "/"), ("/api?q", "/?q"), ("/api/a%2fb", "/a%2fb")] {
        let text = client.get(asked).await.text().to_lowercase();
        assert!(text.starts_with(&format!("get {seen} http/1.1\r\n")), "{asked}: {text}");
        assert!(text.lines().any(|line| line == "x-forwarded-prefix: /api"), "{text}");
    }
    assert_eq!(client.get("/apix").await.text(), "root");
}

#[tokio::test]
async fn continue_is_said_when_the_instance_reads() {
    let server = Server::saying("thanks").await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(soon("100", client.try_head()).await.expect("a head").status(), 100);
    client.send("12345").await;
    assert_eq!(client.answer().await.text(), "thanks");
}

#[tokio::test]
async fn a_request_framed_twice_reaches_the_instance_framed_once() {
    let server = Server::echoing_heads().await;
    let id = instance(1);
    let house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    for framing in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Connection: content-length\r\nTransfer-Encoding: chunked",
    ] {
        let mut client = house.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\n{framing}\r\n\r\n0\r\n\r\n")).await;
        let seen = client.answer().await.text().to_lowercase();
        assert!(!seen.contains("content-length") && seen.contains("transfer-encoding: chunked"), "{framing}: {seen}");
    }
    for bad in ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: +3", "Transfer-Encoding: chunked, gzip"] {
        let mut client = house.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\n{bad}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status(), 400, "{bad}");
    }
}
