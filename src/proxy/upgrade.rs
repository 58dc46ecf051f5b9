//! Tunnels: connections that changed their protocol, WebSockets above all.
//!
//! Started by `forward.rs`; a tunnel owns both sockets and its [`Exchange`], so it counts as a request in flight until it ends.
//!
//! ```text
//! open ──either side closes──► half open ──the other too, or FAREWELL──► ended
//!   ├─ instance drains or proxy leaves, WebSocket: close frame between two frames, within the stagger ─► half open
//!   └─ instance cut ─► ended
//! ```
//!
//! Invariant: bytes go through in order and unchanged; the close frame is put only where a frame has ended.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::claim::Ending;
use super::exchange::Exchange;
use super::websocket::{Frames, GOING_AWAY};

/// Both sides must have changed their protocol by then.
const SWITCH: Duration = Duration::from_secs(10);
/// After one direction has ended the other may go on this long.
const FAREWELL: Duration = Duration::from_secs(5);
/// A side that takes no byte for this long is gone.
const STALL: Duration = Duration::from_secs(60);
/// When the proxy itself leaves, close frames are spread over this time.
const LEAVING_STAGGER: Duration = Duration::from_secs(3);

/// Joins client and instance once both have changed their protocol.
pub fn tunnel(exchange: &Rc<Exchange>, client: OnUpgrade, instance: OnUpgrade, protocol: &HeaderValue) {
    let exchange = Rc::clone(exchange);
    let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    drop(tokio::task::spawn_local(async move {
        match timeout(SWITCH, async { tokio::join!(client, instance) }).await {
            Ok((Ok(client), Ok(instance))) => join(&exchange, client, instance, websocket).await,
            Ok((Err(error), _) | (_, Err(error))) => debug!(%error, "a tunnel was not opened"),
            Err(_) => debug!("a tunnel was not opened in time"),
        }
    }));
}

async fn join(exchange: &Exchange, client: Upgraded, instance: Upgraded, websocket: bool) {
    let Some(claimed) = exchange.instance() else { return };
    let mut ending = claimed.ending();
    let (client_read, client_write) = split(TokioIo::new(client));
    let (instance_read, instance_write) = split(TokioIo::new(instance));
    let leaving = exchange.connection.worker.shared.leaving.clone();
    let farewell = Farewell { websocket, ending: claimed.ending(), leaving, due: None };
    let mut down = std::pin::pin!(pump_down(exchange, instance_read, client_write, farewell));
    let mut up = std::pin::pin!(pump_up(exchange, client_read, instance_write));
    let both = async {
        // The second direction gets a little time to say its last word.
        tokio::select! {
            _ = &mut down => drop(timeout(FAREWELL, up).await),
            _ = &mut up => drop(timeout(FAREWELL, down).await),
        }
    };
    tokio::select! {
        () = both => {}
        _ = ending.wait_for(|ending| *ending == Ending::Cut) => {}
    }
}

async fn pump_up(
    exchange: &Exchange,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            read => {
                exchange.count_in(read);
                timeout(STALL, to.write_all(&buffer[..read])).await??;
            }
        }
    }
}

async fn pump_down(
    exchange: &Exchange,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut farewell: Farewell,
) -> io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    let mut frames = Frames::default();
    let mut say_goodbye = false;
    loop {
        if say_goodbye && frames.at_border() {
            // The client answers with a close frame of its own, which goes up to the instance like everything it sends.
            return timeout(STALL, to.write_all(&GOING_AWAY)).await?;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            () = farewell.due(), if !say_goodbye => {
                say_goodbye = true;
                continue;
            }
        };
        if read == 0 {
            return to.shutdown().await;
        }
        let bytes = if say_goodbye {
            let whole = frames.feed_to_border(&buffer[..read]).unwrap_or(read);
            &buffer[..whole]
        } else {
            if farewell.websocket {
                frames.feed(&buffer[..read]);
            }
            &buffer[..read]
        };
        timeout(STALL, to.write_all(bytes)).await??;
        exchange.count_out(bytes.len());
        exchange.download_waits(false);
    }
}

/// When a WebSocket is told to go.
struct Farewell {
    websocket: bool,
    ending: watch::Receiver<Ending>,
    leaving: watch::Receiver<bool>,
    due: Option<Instant>,
}

impl Farewell {
    /// Ends when the close frame is to be sent; never for other protocols, which have no word for it. May be dropped and
    /// asked again: the moment is chosen once.
    async fn due(&mut self) {
        if !self.websocket {
            return std::future::pending().await;
        }
        let at = match self.due {
            Some(at) => at,
            None => {
                let spread = self.spread().await;
                let at = Instant::now() + spread.mul_f64(fastrand::f64());
                self.due = Some(at);
                at
            }
        };
        sleep_until(at).await;
    }

    async fn spread(&mut self) -> Duration {
        tokio::select! {
            ending = self.ending.wait_for(|ending| *ending != Ending::No) => match ending.as_deref() {
                Ok(Ending::Drain(stagger)) => *stagger,
                Ok(Ending::Cut | Ending::No) | Err(_) => Duration::ZERO,
            },
            _ = self.leaving.wait_for(|leaving| *leaving) => LEAVING_STAGGER,
        }
    }
}
