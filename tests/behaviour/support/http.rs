//! A plain HTTP/1.1 client: small enough to see exactly what goes over the wire.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `App-Version`, which the test app sets.
    pub version: Option<u32>,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A connection that is kept open between requests.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    host: String,
}

impl Connection {
    pub async fn open(address: SocketAddr, host: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream, buffer: Vec::new(), host: host.to_owned() })
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.send(request.as_bytes()).await
    }

    /// Sends a whole request as it is, and reads the answer.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer, String> {
        let exchange = async {
            self.stream.write_all(request).await.map_err(|error| format!("write: {error}"))?;
            self.answer().await
        };
        let limit = Duration::from_secs(90);
        tokio::time::timeout(limit, exchange).await.map_err(|_| format!("no answer within {limit:?}"))?
    }

    async fn answer(&mut self) -> Result<Answer, String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split_whitespace().nth(1)).and_then(|code| code.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer =
            Answer { status: status.ok_or("no status line")?, version: None, headers, body: String::new() };
        answer.version = answer.header("app-version").and_then(|text| text.parse().ok());
        let body = if answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            self.chunks().await?
        } else {
            let length = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            self.take(length).await?
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break self.take(at + 2).await?;
                }
                self.more().await?;
            };
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            let length = usize::from_str_radix(&text, 16).map_err(|_| format!("chunk size {text:?}"))?;
            body.extend(self.take(length).await?);
            self.take(2).await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> Result<(), String> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(0) => Err("the connection was closed".to_owned()),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) => Err(format!("read: {error}")),
        }
    }
}

/// One request on a new connection.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
    Connection::open(address, host).await?.get(path).await
}
