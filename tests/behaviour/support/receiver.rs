//! An HTTP receiver on loopback: it keeps what it got, and answers as it is told, well or badly.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::until;

/// What the receiver answers to one request.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Created,
    /// A status line and more headers.
    Refused(&'static str),
    /// Nothing, and the connection stays open.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub head: String,
    pub raw: Vec<u8>,
    pub body: serde_json::Value,
    pub taken: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| line.split_once(':').is_some_and(|(header, _)| header.eq_ignore_ascii_case(name));
        self.head.lines().find(line)?.split_once(':').map(|(_, value)| value.trim())
    }
}

#[derive(Default)]
struct Inner {
    requests: Vec<Request>,
    answers: VecDeque<Answer>,
    otherwise: Option<Answer>,
}

/// An HTTP server on loopback.
pub struct Receiver {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let inner: Arc<Mutex<Inner>> = Arc::default();
        let shared = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, inner, task }
    }

    /// Answers the next requests so.
    pub fn script(&self, answers: &[Answer]) {
        self.inner.lock().expect("the receiver").answers.extend(answers);
    }

    /// Answers all requests without a script so.
    pub fn otherwise(&self, answer: Answer) {
        self.inner.lock().expect("the receiver").otherwise = Some(answer);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.inner.lock().expect("the receiver").requests.clone()
    }

    /// What it took, in order.
    pub fn taken(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.taken).collect()
    }

    /// The states it took of one commit, in order.
    pub fn states(&self, commit: &str) -> Vec<String> {
        let requests = self.requests();
        let mine = requests.iter().filter(|request| request.taken && request.path.ends_with(commit));
        mine.map(|request| request.body["state"].as_str().expect("a state").to_owned()).collect()
    }

    pub async fn until_states(&self, commit: &str, states: &[&str]) {
        until(&format!("{commit} is told as {states:?}"), || async {
            let now = self.states(commit);
            if now == states { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, inner: Arc<Mutex<Inner>>) {
    let mut bytes = Vec::new();
    loop {
        while let Some((head, length)) = complete(&bytes) {
            let rest = bytes.split_off(head + length);
            let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
            let path = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
            let raw = bytes[head..].to_vec();
            let body = serde_json::from_slice(&raw).unwrap_or_default();
            bytes = rest;
            let answer = {
                let mut inner = inner.lock().expect("the receiver");
                let scripted = inner.answers.pop_front();
                let answer = scripted.or(inner.otherwise).unwrap_or(Answer::Created);
                let taken = matches!(answer, Answer::Created);
                inner.requests.push(Request { path, head: text, raw, body, taken });
                answer
            };
            let text = match answer {
                Answer::Created => "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
                Answer::Refused(head) => format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n"),
                Answer::Hang => std::future::pending().await,
            };
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Lengths of head and body, once both are there.
fn complete(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    (bytes.len() >= head + length).then_some((head, length))
}
