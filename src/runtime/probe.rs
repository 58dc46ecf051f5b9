//! Asking an instance whether it is ready. One question, one answer in words; counting answers is the engine's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::manifest::Health;
use crate::wire::PROGRAM_VERSION;

/// This much of a bad answer's body is shown.
const SNIPPET: usize = 200;

/// A forwarder finds out within this time that nobody listens behind it.
const FORWARDED: Duration = Duration::from_millis(100);

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// It takes work: `HTTP 200`, `accepts connections`.
    Good(String),
    /// It does not: `connection refused`, `HTTP 503: database is down`.
    Bad(String),
}

impl ProbeAnswer {
    /// Whether the instance takes work.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }

    /// The answer in words.
    pub fn words(&self) -> &str {
        match self {
            Self::Good(words) | Self::Bad(words) => words,
        }
    }
}

impl fmt::Display for ProbeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words())
    }
}

/// Asks the instance at `address` once.
pub async fn probe(address: SocketAddr, health: &Health) -> ProbeAnswer {
    let limit = health.timeout.duration();
    let connected = std::sync::atomic::AtomicBool::new(false);
    let question = async {
        let stream = TcpStream::connect(address).await.map_err(|error| connect_words(&error))?;
        connected.store(true, std::sync::atomic::Ordering::Relaxed);
        match &health.path {
            None => Ok("accepts connections".to_owned()),
            Some(path) => ask(stream, address, path).await,
        }
    };
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(words)) => ProbeAnswer::Good(words),
        Ok(Err(words)) => ProbeAnswer::Bad(words),
        Err(_) if connected.load(std::sync::atomic::Ordering::Relaxed) => {
            ProbeAnswer::Bad(format!("accepts connections, but no HTTP answer within {}", seconds(limit)))
        }
        Err(_) => ProbeAnswer::Bad(format!("no answer within {}", seconds(limit))),
    }
}

/// Asks an instance that may be reached through a forwarder, as engines put one before containers: that accepts every
/// connection, and closes it again when nobody listens behind it.
pub async fn through_forwarder(address: SocketAddr, health: &Health) -> ProbeAnswer {
    if health.path.is_some() {
        return probe(address, health).await;
    }
    let question = async {
        let stream = TcpStream::connect(address).await.map_err(|error| connect_words(&error))?;
        let mut byte = [0; 1];
        match tokio::time::timeout(FORWARDED, stream.peek(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => Err("closed the connection at once: nobody listens behind it".to_owned()),
            Ok(Ok(_)) | Err(_) => Ok("accepts connections".to_owned()),
        }
    };
    match tokio::time::timeout(health.timeout.duration(), question).await {
        Ok(Ok(words)) => ProbeAnswer::Good(words),
        Ok(Err(words)) => ProbeAnswer::Bad(words),
        Err(_) => ProbeAnswer::Bad(format!("no answer within {}", seconds(health.timeout.duration()))),
    }
}

async fn ask(stream: TcpStream, address: SocketAddr, path: &str) -> Result<String, String> {
    // Small questions should not wait for more to send with them.
    let _ = stream.set_nodelay(true);
    let not_http = |error: hyper::Error| {
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            "closed the connection without an answer".to_owned()
        } else {
            format!("the answer is not HTTP: {error}")
        }
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(not_http)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // Its errors reach the request.
        let _ = connection.await;
    }));
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, format!("landfall-probe/{PROGRAM_VERSION}"))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("`{path}` cannot be asked for: {error}"))?;
    let response = sender.send_request(request).await.map_err(not_http)?;
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(format!("HTTP {}", status.as_u16()));
    }
    Err(bad_status(status, snippet(response.into_body()).await))
}

fn bad_status(status: StatusCode, snippet: String) -> String {
    let reason = if snippet.is_empty() { status.canonical_reason().unwrap_or_default().to_owned() } else { snippet };
    if reason.is_empty() { format!("HTTP {}", status.as_u16()) } else { format!("HTTP {}: {reason}", status.as_u16()) }
}

/// The start of a body, on one line. What does not come soon is not waited for.
async fn snippet(mut body: Incoming) -> String {
    const PATIENCE: Duration = Duration::from_millis(200);
    let mut start = Vec::new();
    while start.len() < SNIPPET {
        match tokio::time::timeout(PATIENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..])),
            Ok(Some(Err(_)) | None) | Err(_) => break,
        }
    }
    start.truncate(SNIPPET);
    let text = String::from_utf8_lossy(&start);
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn connect_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => format!("cannot connect: {error}"),
    }
}

fn seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 { format!("{} s", limit.as_secs()) } else { format!("{} ms", limit.as_millis()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::Millis;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn health(path: Option<&str>) -> Health {
        Health {
            path: path.map(str::to_owned),
            deadline: Millis::seconds(1),
            interval: Millis::seconds(1),
            timeout: Millis(500),
            rise: 1,
            fall: 1,
        }
    }

    /// What a probe says of a server that answers `bytes` to whatever comes.
    async fn probed(bytes: &'static [u8], path: Option<&str>) -> ProbeAnswer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has one");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(bytes).await;
        });
        let answer = probe(address, &health(path)).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn answers_are_told_in_words() {
        for (bytes, words, good) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], "HTTP 204", true),
            (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "HTTP 302", true),
            (b"HTTP/1.1 503 No\r\nContent-Length: 16\r\n\r\ndatabase\nis down", "HTTP 503: database is down", false),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404: Not Found", false),
            (b"", "closed the connection without an answer", false),
        ] {
            let answer = probed(bytes, Some("/healthz")).await;
            assert_eq!((answer.words(), answer.is_good()), (words, good));
        }
        let answer = probed(b"SSH-2.0-OpenSSH_9.2\r\n", Some("/")).await;
        assert!(answer.words().starts_with("the answer is not HTTP"), "{answer}");
    }

    #[tokio::test]
    async fn without_a_path_a_connection_is_enough() {
        assert_eq!(probed(b"", None).await, ProbeAnswer::Good("accepts connections".into()));
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has one");
        let answer = probe(address, &health(Some("/"))).await;
        assert_eq!(answer.words(), "accepts connections, but no HTTP answer within 500 ms");
        drop(listener);
        assert_eq!(probe(address, &health(Some("/"))).await.words(), "connection refused");
    }
}
