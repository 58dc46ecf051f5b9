//! Listening: connections in, bounded in number and in time, until the agent shuts down.
//!
//! ```text
//! accepting ──shutdown──► draining (answers end, streams are ended) ──all gone or 5 s──► closed
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Place};
use super::peer::Peer;
use super::routes::router;
use super::secure::{Accepted, Secure};
use crate::engine::Engine;
use crate::linger::Lingering;

/// Connections to a Unix socket at once; more wait in the kernel's queue. Calls of functions may take long, and must not
/// keep anybody from asking how things are.
const LOCAL_CONNECTIONS: usize = 4096;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// The same for connections from other machines: there are only so many, and strangers may hold them.
const HEAD_OUTSIDE: Duration = Duration::from_secs(10);
/// How long answers under way may take once the agent shuts down.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// In the extensions of a request that came over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Encrypted;

/// Why the API does not run.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A socket cannot be used.
    #[error("the API's {what} cannot be used: {why}")]
    Socket {
        /// Which.
        what: &'static str,
        /// What the system said.
        why: io::Error,
    },
}

/// Serves the API until `shutdown` is cancelled; then lets answers end, for at most 5 s.
pub async fn serve(
    engine: Engine,
    unix: UnixListener,
    tcp: Option<TcpListener>,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let unix = Listener::unix(unix)?;
    let tcp = tcp.map(Listener::tcp).transpose()?;
    let network = Network { secure: Arc::new(Secure::new(engine.clone())), engine: engine.clone() };
    let router = router(engine, shutdown.clone());
    let serve_tcp = async {
        if let Some(listener) = tcp {
            accept_all_by(listener, &router, &shutdown, Some(network)).await;
        }
    };
    tokio::join!(accept_all(unix, &router, &shutdown), serve_tcp);
    Ok(())
}

/// What holds for connections from the network.
#[derive(Clone)]
struct Network {
    secure: Arc<Secure>,
    engine: Engine,
}

pub(super) enum Listener {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

impl Listener {
    pub(super) fn unix(listener: UnixListener) -> Result<Self, ApiError> {
        let failed = |why| ApiError::Socket { what: "Unix socket", why };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self::Unix(tokio::net::UnixListener::from_std(listener).map_err(failed)?))
    }

    fn tcp(listener: TcpListener) -> Result<Self, ApiError> {
        let failed = |why| ApiError::Socket { what: "TCP socket", why };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self::Tcp(tokio::net::TcpListener::from_std(listener).map_err(failed)?))
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Stream::Unix(stream), Peer::Local { uid }))
            }
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // Lines of a followed log must not wait for each other.
                stream.set_nodelay(true)?;
                let peer = peer_at(stream.local_addr()?, from);
                Ok((Stream::Tcp(stream), peer))
            }
        }
    }
}

/// Who can be at the other end of a connection that came in at this address of ours. Only this machine reaches its
/// loopback, whatever address the listener is bound to.
fn peer_at(own: SocketAddr, from: SocketAddr) -> Peer {
    let address = from.ip().to_canonical();
    if own.ip().to_canonical().is_loopback() { Peer::Loopback { address } } else { Peer::Outside { address } }
}

pub(super) async fn accept_all(listener: Listener, router: &Router, shutdown: &CancellationToken) {
    accept_all_by(listener, router, shutdown, None).await;
}

async fn accept_all_by(listener: Listener, router: &Router, shutdown: &CancellationToken, network: Option<Network>) {
    let crowd = Arc::new(Crowd::default());
    let most = || match &network {
        Some(network) => network.engine.api_bounds().connections as usize,
        None => LOCAL_CONNECTIONS,
    };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = accept_one(&listener, &crowd, most) => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("the API could not take a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let share = network.as_ref().map_or(usize::MAX, |network| network.engine.api_bounds().per_address as usize);
        let Some(place) = crowd.enter(peer.address(), share) else {
            tracing::debug!(?peer, "a connection to the API was closed: there are too many from this address");
            continue;
        };
        match stream {
            Stream::Unix(stream) => {
                connections.spawn(converse(stream, (peer, false), router.clone(), shutdown.clone(), place));
            }
            Stream::Tcp(stream) => {
                let (network, router, shutdown) = (network.clone(), router.clone(), shutdown.clone());
                connections.spawn(async move {
                    let accepted = match &network {
                        Some(network) => network.secure.accept(stream).await,
                        None => Ok(Accepted::Plain(stream)),
                    };
                    match accepted {
                        Ok(Accepted::Plain(stream)) => converse(stream, (peer, false), router, shutdown, place).await,
                        Ok(Accepted::Tls(stream)) => converse(stream, (peer, true), router, shutdown, place).await,
                        Err(error) => tracing::debug!("a connection to the API ended in its handshake: {error}"),
                    }
                });
            }
        }
    }
    drop(listener);
    drain(connections).await;
}

/// Waits until there is room, then for a connection. May be dropped without losing one.
async fn accept_one(listener: &Listener, crowd: &Crowd, most: impl Fn() -> usize) -> io::Result<(Stream, Peer)> {
    crowd.until_room(most).await;
    listener.accept().await
}

/// Serves one connection to its end; says who it is from, and whether it is over TLS.
async fn converse<S>(
    stream: S,
    (peer, encrypted): (Peer, bool),
    router: Router,
    shutdown: CancellationToken,
    place: Place,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        if encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        router.call(request)
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let head = if matches!(peer, Peer::Outside { .. }) { HEAD_OUTSIDE } else { HEAD };
    server.timer(TokioTimer::new()).header_read_timeout(head);
    let mut connection = pin!(server.serve_connection(TokioIo::new(Lingering::new(stream)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Callers that hang up are everyday life.
        tracing::debug!("a connection to the API ended early: {error}");
    }
    drop(place);
}

async fn drain(mut connections: JoinSet<()>) {
    let drained = tokio::time::timeout(DRAIN, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!("{} calls to the API were cut off by the shutdown", connections.len());
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a call to the API broke off: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_in_at_the_loopback_is_of_this_machine() {
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let address = from.ip();
        for own in ["127.0.0.1:7171", "127.8.8.8:1", "[::1]:7171", "[::ffff:127.0.0.1]:7171"] {
            assert_eq!(peer_at(own.parse().expect("an address"), from), Peer::Loopback { address }, "{own}");
        }
        for own in ["10.1.2.3:7171", "192.0.2.1:7171", "[2001:db8::1]:7171", "[::ffff:10.1.2.3]:7171", "0.0.0.0:1"] {
            assert_eq!(peer_at(own.parse().expect("an address"), from), Peer::Outside { address }, "{own}");
        }
    }
}
