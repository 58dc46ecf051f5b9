//! WebSockets through the proxy, and their end.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::support::*;

async fn echo() -> Server {
    Server::start(|peer| async move {
        let Ok(mut socket) = accept_async(peer.stream).await else { return };
        while let Some(Ok(frame)) = socket.next().await {
            if (frame.is_text() || frame.is_binary()) && socket.send(frame).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn open(house: &House) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(house.proxy.address).await.expect("connects");
    let (socket, answer) =
        soon("the handshake", client_async("ws://shop.localhost/chat", stream)).await.expect("opens");
    assert!(answer.headers().contains_key("x-request-id"));
    socket
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: String) {
    socket.send(Frame::text(text.clone())).await.expect("sends");
    let back = soon("the echo", socket.next()).await.expect("a frame").expect("no error");
    assert_eq!(back.into_text().expect("text").as_str(), text);
}

#[tokio::test]
async fn a_websocket_goes_through_and_is_closed_properly_on_a_drain() {
    let server = echo().await;
    let id = instance(1);
    let mut house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(open(&house).await);
    }
    for socket in &mut sockets {
        say(socket, "hello".into()).await;
        say(socket, "x".repeat(100_000)).await;
    }
    house.line.publish(2, vec![]).await;
    house.line.drain(&id, 200).await;
    for socket in &mut sockets {
        let frame = soon("the close frame", socket.next()).await.expect("a frame").expect("no error");
        let Frame::Close(Some(reason)) = frame else { panic!("expected a close frame, got {frame:?}") };
        assert_eq!(reason.code, CloseCode::Away);
        // The client's answer goes out with the next poll; then the connection ends.
        while let Some(Ok(_)) = soon("the end", socket.next()).await {}
    }
    house.line.drained(&id).await;
}

#[tokio::test]
async fn a_close_frame_never_falls_into_another_frame() {
    // Sends one large frame in pieces; the drain comes in the middle of it.
    let (go, gate) = tokio::sync::watch::channel(false);
    let server = Server::start(move |mut peer| {
        let mut gate = gate.clone();
        async move {
            let Some(_) = peer.try_head().await else { return };
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
            peer.send([0x82, 10, 1, 2, 3]).await;
            let _ = gate.wait_for(|go| *go).await;
            peer.send([4, 5, 6, 7, 8, 9, 10, 0x82, 1, 99]).await;
            while peer.bytes(1).await.is_some() {}
        }
    })
    .await;
    let id = instance(1);
    let mut house = House::with(vec![shop(&[(&id, server.address)])], |_| ()).await;
    let mut client = house.client().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let head = soon("the head", client.try_head()).await.expect("a head");
    assert_eq!((head.status(), head.header("upgrade")), (101, "websocket"));
    assert_eq!(soon("the first piece", client.bytes(5)).await.expect("bytes"), [0x82, 10, 1, 2, 3]);
    house.line.publish(2, vec![]).await;
    house.line.drain(&id, 0).await;
    go.send_replace(true);
    assert_eq!(soon("the rest", client.bytes(7)).await.expect("bytes"), [4, 5, 6, 7, 8, 9, 10]);
    let close = soon("the close frame", client.bytes(4)).await.expect("bytes");
    assert!(close == [0x88, 2, 3, 0xE9] || close[..3] == [0x82, 1, 99], "{close:?}");
    house.line.drained(&id).await;
}
