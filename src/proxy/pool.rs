//! Connections to instances, one pool per thread.
//!
//! Owned by a `worker.rs`; used by `forward.rs`. Idle connections are kept newest first and not for long: common servers
//! close theirs after two to five seconds, and a request sent at that moment cannot be sent again.
//!
//! Invariant: a connection that the instance has closed, as far as this machine knows, is never handed out; nor is any
//! kept to an instance that is draining, since many servers wait for those before they exit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::RequestBody;
use super::claim::Instance;
use super::worker::{Clock, Tick};

/// Idle connections are closed after this many ticks (seconds), before gunicorn's two and Node's five are over.
const IDLE: u32 = 1;
/// Idle connections per instance and thread.
const MOST_IDLE: usize = 128;
/// An instance on this machine that has not accepted by then will not.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to an instance, carrying one request at a time.
#[derive(Debug)]
pub struct Upstream {
    /// Requests go in here.
    pub sender: http1::SendRequest<RequestBody>,
    instance: Arc<Instance>,
    fd: RawFd,
    reusable: bool,
}

impl Upstream {
    /// What the head of an answer says about the connection's future.
    pub fn heard(&mut self, headers: &HeaderMap) {
        // Whoever announces a time shorter than ours plus some margin is not waited for.
        let announced = headers
            .get("keep-alive")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")))
            .and_then(|seconds| seconds.parse::<u32>().ok());
        if announced.is_some_and(|seconds| seconds <= IDLE) {
            self.reusable = false;
        }
    }

    fn is_alive(&self) -> bool {
        if self.sender.is_closed() || !self.sender.is_ready() {
            return false;
        }
        // The event loop may not have seen yet that the instance closed. The descriptor is the connection task's, which
        // runs on this thread and has not ended, or `is_closed` would have said so: the number cannot mean another socket.
        matches!(recv(self.fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT), Err(Errno::EAGAIN))
    }
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since: Tick,
}

/// The idle connections of one thread.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>, BuildHasherDefault<SerialHasher>>>,
    clock: Arc<Clock>,
}

impl Pool {
    /// An empty one.
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { idle: RefCell::default(), clock }
    }

    /// A connection that is open now, if there is one.
    pub fn take(&self, instance: &Arc<Instance>) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&instance.serial)?;
        while let Some(Idle { upstream, .. }) = stack.pop() {
            if upstream.is_alive() {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless it has no future.
    pub fn put_back(&self, upstream: Upstream) {
        if !upstream.reusable || upstream.sender.is_closed() || upstream.instance.is_draining() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry(upstream.instance.serial).or_default();
        if stack.len() < MOST_IDLE {
            stack.push(Idle { upstream, since: self.clock.now() });
        }
    }

    /// Closes what has been idle for too long or leads to an instance that is draining.
    pub fn sweep(&self) {
        let now = self.clock.now();
        self.idle.borrow_mut().retain(|_, stack| {
            stack.retain(|idle| now.since(idle.since) <= IDLE && !idle.upstream.instance.is_draining());
            !stack.is_empty()
        });
    }

    /// Closes everything.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// A new connection.
    pub async fn connect(&self, instance: &Arc<Instance>) -> io::Result<Upstream> {
        let stream = timeout(CONNECT, TcpStream::connect(instance.address)).await??;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd();
        let (sender, connection) = http1::Builder::new()
            .max_headers(256)
            .handshake::<_, RequestBody>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // Ends when its sender is dropped, when the instance closes, or when it becomes a tunnel. What went wrong on it is
        // told to the request it carried.
        tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
        Ok(Upstream { sender, instance: Arc::clone(instance), fd, reusable: true })
    }
}

/// Serial numbers are their own hashes.
#[derive(Debug, Default)]
struct SerialHasher(u64);

impl Hasher for SerialHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, serial: u64) {
        // Spread over the high bits too: the map takes its buckets from both ends.
        self.0 = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
