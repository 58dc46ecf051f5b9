//! Switches, drains, and a controller that comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use landfall::domain::manifest::Millis;
use landfall::wire::proxy::{FromProxy, ToProxy};

use super::support::*;

/// A server that says when a request finds it after it was told to stop.
struct Instance {
    server: Server,
    stopped: Arc<AtomicBool>,
    late: Arc<AtomicU64>,
}

impl Instance {
    async fn start(number: u64) -> Self {
        let (stopped, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_stopped, count) = (Arc::clone(&stopped), Arc::clone(&late));
        let server = Server::start(move |mut peer| {
            let (is_stopped, count) = (Arc::clone(&is_stopped), Arc::clone(&count));
            async move {
                while peer.try_message().await.is_some() {
                    if is_stopped.load(Ordering::SeqCst) {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::task::yield_now().await;
                    let text = number.to_string();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                    if peer.try_send(answer.as_bytes()).await.is_none() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { server, stopped, late }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_switches_under_load_lose_no_request() {
    const SWITCHES: u64 = 300;
    let first = Instance::start(0).await;
    let mut house = House::with(vec![shop(&[(&instance(0), first.server.address)])], |_| ()).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for worker in 0..16 {
        let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), house.proxy.address);
        load.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                round += 1;
                if worker % 4 == 0 && round % 10 == 0 {
                    client = Client::connect(address).await;
                }
                let answer = client.get("/").await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let mut old = first;
    for number in 1..=SWITCHES {
        let new = Instance::start(number).await;
        house.line.change(number + 1, vec![shop(&[(&instance(number), new.server.address)])]).await;
        house.line.drain(&instance(number - 1), 0).await;
        house.line.drained(&instance(number - 1)).await;
        old.stopped.store(true, Ordering::SeqCst);
        // From here on the old process would be gone.
        assert_eq!(old.late.load(Ordering::SeqCst), 0, "an instance was reached after it had drained");
        old = new;
    }
    stop.store(true, Ordering::SeqCst);
    for client in load {
        client.await.expect("no failed request");
    }
    assert!(answered.load(Ordering::SeqCst) > SWITCHES, "there was load");
}

#[tokio::test]
async fn a_request_under_way_finishes_on_its_old_instance() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let slow = Server::start(move |mut peer| {
        let mut gate = gate.clone();
        async move {
            while peer.try_message().await.is_some() {
                let _ = gate.wait_for(|go| *go).await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await;
            }
        }
    })
    .await;
    let new = Server::saying("new").await;
    let (one, two) = (instance(1), instance(2));
    let mut house = House::with(vec![shop(&[(&one, slow.address)])], |_| ()).await;
    let mut early = house.client().await;
    early.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    until("the request's arrival", || (slow.connections.load(Ordering::SeqCst) == 1, ())).await;
    house.line.change(2, vec![shop(&[(&two, new.address)])]).await;
    house.line.drain(&one, 0).await;
    let mut late = house.client().await;
    assert_eq!(late.get("/").await.text(), "new");
    // Asked again by a controller that forgot: one answer when it has drained.
    go.send_replace(true);
    assert_eq!(early.answer().await.text(), "old");
    house.line.drained(&one).await;
    house.line.drain(&one, 0).await;
    house.line.drained(&one).await;
    house.line.drain(&instance(99), 0).await;
    house.line.drained(&instance(99)).await;
}

#[tokio::test]
async fn what_is_left_at_the_end_of_the_drain_is_cut() {
    let silent = Server::start(|mut peer| async move { while peer.try_message().await.is_some() {} }).await;
    let endless = Server::start(|mut peer| async move {
        let Some(_) = peer.try_message().await else { return };
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await;
        while peer.try_message().await.is_some() {}
    })
    .await;
    let (one, two) = (instance(1), instance(2));
    let mut house =
        House::with(vec![shop(&[(&one, silent.address)]), app("endless", &[(&two, endless.address)])], |_| ()).await;
    let mut waiting = house.client().await;
    waiting.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let mut reading = house.client().await;
    reading.send("GET / HTTP/1.1\r\nHost: endless.localhost\r\n\r\n").await;
    assert_eq!(soon("a head", reading.try_head()).await.expect("a head").status(), 200);
    assert_eq!(soon("a chunk", reading.chunk()).await, Some(Some(b"x".to_vec())));
    until("the request's arrival", || (silent.connections.load(Ordering::SeqCst) == 1, ())).await;
    house.line.publish(2, vec![]).await;
    house.line.say(&ToProxy::Drain { instances: vec![one.clone(), two.clone()], stagger: Millis(0) }).await;
    house.line.say(&ToProxy::Cut { instances: vec![one.clone()] }).await;
    house.line.drained(&one).await;
    let answer = waiting.answer().await;
    assert_eq!((answer.status(), answer.header("landfall-error")), (503, "instance_stopped"));
    house.line.say(&ToProxy::Cut { instances: vec![two.clone()] }).await;
    house.line.drained(&two).await;
    assert_eq!(soon("the end", reading.chunk()).await, None, "an answer that was cut must not look whole");
}

#[tokio::test]
async fn it_serves_on_without_a_controller_and_finds_the_next_one() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let House { dir: _dir, proxy, controller, line } = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    drop(line);
    let mut client = Client::connect(proxy.address).await;
    assert_eq!(client.get("/").await.text(), "hello");
    let (generation, draining, mut line) = controller.accept().await;
    assert_eq!((generation, draining), (1, false));
    // A change that does not follow: the proxy asks for everything by coming anew.
    line.say(&ToProxy::Change { generation: 7, set: vec![], remove: vec![] }).await;
    line.hangs_up().await;
    let (generation, _, mut line) = controller.accept().await;
    assert_eq!(generation, 1);
    assert_eq!(client.get("/").await.text(), "hello");
    let newer = Server::saying("newer").await;
    line.publish(9, vec![shop(&[(&instance(2), newer.address)])]).await;
    assert_eq!(client.get("/").await.text(), "newer");
    line.change(10, vec![shop(&[(&id, server.address)])]).await;
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_restarted_proxy_serves_the_last_routes_without_a_controller() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let House { dir, proxy, controller, line } = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    drop((controller, line));
    let listener = proxy.listener.try_clone().expect("clones");
    proxy.tell_to_leave();
    proxy.ended().await;
    // While no proxy runs the connection waits in the backlog.
    let mut client = Client::connect(listener.local_addr().expect("an address")).await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let again = Proxy::start_on(listener, dir.path(), |_| ());
    assert_eq!(client.answer().await.text(), "hello");
    again.tell_to_leave();
    again.ended().await;
}

#[tokio::test]
async fn a_leaving_proxy_finishes_what_it_has() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let slow = Server::start(move |mut peer| {
        let mut gate = gate.clone();
        async move {
            while let Some(request) = peer.try_message().await {
                if request.start.contains("/slow") {
                    let _ = gate.wait_for(|go| *go).await;
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let id = instance(1);
    let mut house = House::with(vec![shop(&[(&id, slow.address)])], |_| ()).await;
    let (mut idle, mut busy) = (house.client().await, house.client().await);
    assert_eq!(idle.get("/").await.text(), "ok");
    busy.send("GET /slow HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    until("both requests", || {
        let seen = slow.connections.load(Ordering::SeqCst);
        (seen >= 1, seen)
    })
    .await;
    loop {
        if let FromProxy::Load { objects } = house.line.hear().await
            && objects[0].in_flight[0].1 == 1
        {
            break;
        }
    }
    house.proxy.tell_to_leave();
    assert!(matches!(house.line.hear_fact().await, FromProxy::Draining));
    idle.closes().await;
    assert!(!house.proxy.has_ended());
    go.send_replace(true);
    let answer = busy.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("ok", "close"));
    house.proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_the_proxy_under_load_loses_no_request() {
    let server = Server::saying("hello").await;
    let id = instance(1);
    let House { dir, mut proxy, controller, line: _line } =
        House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for _ in 0..8 {
        let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), proxy.address);
        load.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            while !stop.load(Ordering::SeqCst) {
                let answer = client.get("/").await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                answered.fetch_add(1, Ordering::SeqCst);
                if answer.header("connection") == "close" {
                    client = Client::connect(address).await;
                }
            }
        }));
    }
    // Held to the end: a proxy whose line ends would come again.
    let mut lines = Vec::new();
    for generation in 2..6 {
        let listener = proxy.listener.try_clone().expect("clones");
        let next = Proxy::start_on(listener, dir.path(), |_| ());
        // There is a controller, so it serves nothing before it has heard from it.
        let (served, draining, mut line) = controller.accept().await;
        assert_eq!((served, draining), (0, false));
        line.publish(generation, vec![shop(&[(&id, server.address)])]).await;
        lines.push(line);
        let old = std::mem::replace(&mut proxy, next);
        old.tell_to_leave();
        old.ended().await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in load {
        client.await.expect("no failed request");
    }
    assert!(answered.load(Ordering::SeqCst) > 100, "there was load");
}
