//! Connections to the proxies' socket, kept for the next call.
//!
//! Owned by the routes' context. The socket belongs to the supervisor, so a call waits in its backlog while a proxy is
//! replaced. Invariant: a proxy that leaves answers each connection once more and closes what is idle after a second
//! (`proxy::worker`); what was idle for half of that is not used again, so no call is sent into a closing connection.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::problem::Refusal;

/// A connection that was idle for longer is not used again.
const FRESH: Duration = Duration::from_millis(500);
/// Connections that are kept; more calls at once open their own.
const KEPT: usize = 256;

/// Idle connections, the one used last at the end.
#[derive(Debug, Default)]
pub struct Proxies {
    idle: Mutex<Vec<(Instant, SendRequest<Body>)>>,
}

impl Proxies {
    /// Sends a request to whichever proxy takes it. Answers when that begins to answer.
    pub async fn send(&self, socket: &Path, mut request: Request) -> Result<Response<Incoming>, Refusal> {
        while let Some(mut sender) = self.take() {
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    self.put_back(sender);
                    return Ok(answer);
                }
                Err(mut failed) => match failed.take_message() {
                    // It was closed before anything was sent.
                    Some(back) => request = back,
                    None => return Err(unreachable(&failed.into_error())),
                },
            }
        }
        let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a call's connection to the proxy ended early: {error}");
            }
        });
        let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        self.put_back(sender);
        Ok(answer)
    }

    /// One that can take a request now: its last answer was read to the end.
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        let now = Instant::now();
        // In the order of their last use: one that is too old is so far from the end that it is not needed.
        let old = idle.partition_point(|(since, _)| now.duration_since(*since) >= FRESH);
        idle.drain(..old);
        let ready = idle.iter().rposition(|(_, sender)| sender.is_ready())?;
        Some(idle.remove(ready).1)
    }

    /// Its answer may still be on the way: [`Proxies::take`] looks whether it has come.
    fn put_back(&self, sender: SendRequest<Body>) {
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push((Instant::now(), sender));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, SendRequest<Body>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the proxy cannot be reached: {error}"),
        "try again shortly; `landfall status` shows whether a proxy runs",
    )
}
