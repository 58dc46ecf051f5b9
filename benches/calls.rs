//! What a warm call costs through the agent: time added to a call of the same worker without it, calls per second, all of
//! them on record, and beside a process for each call.
//!
//! One client with kept connections reaches a worker in Rust, and one in Python, in four ways: *direct* (the worker's own
//! port), *token* (the proxy's address, as an instance does with its token), *socket* (the proxies' own socket, as the
//! controller does) and *API* (the agent's socket, as `landfall call` does). Client, agent and workers share the machine's
//! processors.
//!
//! `cargo bench --bench calls`. Every call that was answered must be on record, and a warm Python call must be 200 times
//! faster than a process, or the run fails; the other aims (p50 at most 100 µs added, 25,000 calls per second) are printed.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use landfall::client::CallsQuery;
use landfall::domain::{AppKey, CallId, VersionNumber};
use landfall::proxy::token::{Identity, Key};
use support::Agent;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Rounds in which the ways take turns, and calls of each in one.
const ROUNDS: usize = 5;
const CALLS: usize = 2000;
const PYTHON_CALLS: usize = 500;
const PROCESSES: usize = 30;
const IN_FLIGHT: [usize; 2] = [16, 64];
const LOAD: Duration = Duration::from_secs(3);
const BODY: &str = r#"{"n": 1}"#;
const AIM_ADDED: f64 = 100.0;
const AIM_RATE: f64 = 25_000.0;
const LIMIT_RATIO: f64 = 200.0;
const HANDLER: &str = "def work(n):\n    return {\"n\": n}\n";
const PROCESS: &str = "import json, sys; print(json.dumps({'n': json.load(sys.stdin)['n']}))";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        worker();
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let agent = Agent::start(&runtime);
    let this = std::env::current_exe().expect("this program");
    let functions = format!(
        "app: bench\nbake: 0s\nfunctions:\n  \
         rust: {{command: [{}, worker], mode: server, concurrency: 256, instances: 1}}\n  \
         python: {{handler: app.py:work, concurrency: 16, instances: 1}}\n",
        this.display()
    );
    let file = |path: &str, text: &str| (format!("bench/{path}"), text.to_owned());
    agent.push(&[file("landfall.yaml", &functions), file("app.py", HANDLER)]);
    agent.until("the app is live", || {
        let apps = runtime.block_on(agent.client.apps(None)).ok()?;
        apps.iter().any(|app| app.live_version.is_some()).then_some(())
    });
    let mut made = HashSet::new();
    let rust = ways(&agent, &runtime, "rust");
    println!("one call at a time, medians and 99th percentiles of {} calls in {ROUNDS} rounds", ROUNDS * CALLS);
    let _ = latencies(&runtime, &rust, CALLS, &mut made);
    for in_flight in IN_FLIGHT {
        println!("\n{in_flight} calls in flight for {LOAD:?}, Rust worker (aim {AIM_RATE:.0} with their records)");
        for way in &rust {
            let (calls, took) = runtime.block_on(load(way, in_flight));
            println!("{:<10} {:>10.0} calls/s", way.name, calls.len() as f64 / took.as_secs_f64());
            made.extend(calls.into_iter().flatten());
        }
    }
    println!("\nPython worker, one call at a time");
    let python = ways(&agent, &runtime, "python");
    let warm = latencies(&runtime, &python, PYTHON_CALLS, &mut made);
    let process = process_per_call();
    let ratio = process / warm;
    println!("{:<10} {process:>10.0} µs", "process");
    println!(
        "a warm call through the agent (token) is {ratio:.0} times faster than a process (limit {LIMIT_RATIO:.0})"
    );

    let recorded = complete(&agent, &runtime, &made);
    println!("\n{} calls through the agent were answered, {recorded} of them are on record", made.len());
    if recorded == made.len() && ratio >= LIMIT_RATIO { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A server that answers every request with its body.
fn worker() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = format!("127.0.0.1:{}", std::env::var("PORT").expect("$PORT"));
        let listener = TcpListener::bind(address).await.expect("binds");
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("sets");
            tokio::spawn(async move {
                let mut connection = Connection { stream: Box::new(stream), have: Vec::new() };
                while let Some((_, body)) = connection.message().await {
                    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
                    answer.extend_from_slice(&body);
                    if connection.stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[derive(Debug, Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A way to reach a worker.
#[derive(Debug, Clone)]
struct Way {
    name: &'static str,
    address: Address,
    request: Vec<u8>,
}

/// All of them, once the function is there.
fn ways(agent: &Agent, runtime: &tokio::runtime::Runtime, function: &str) -> Vec<Way> {
    let direct = agent.until("the function is ready", || {
        let instances = runtime.block_on(agent.client.instances(None, None)).ok()?;
        let ready = instances.iter().find(|one| one.object == function && one.state.as_str() == "ready");
        ready?.address.as_ref()?.parse::<SocketAddr>().ok()
    });
    let data = agent.root.path().join("data");
    let app = AppKey::new("main".parse().expect("a name"), "bench".parse().expect("a name"));
    let key = Key::open(&data).expect("the key of tokens");
    // The token of an app that is not there: a function of the caller's own app would be called in its version.
    let caller = AppKey::new(app.environment, "client".parse().expect("a name"));
    let token = key.token(&Identity { app: caller, version: VersionNumber::FIRST });
    let path = format!("/v1/apps/bench/functions/{function}/call");
    let request = |path: &str, more: &str| {
        let kind = "content-type: application/json\r\n";
        let length = BODY.len();
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{kind}{more}content-length: {length}\r\n\r\n{BODY}")
            .into_bytes()
    };
    let bearer = format!("authorization: Bearer {token}\r\n");
    let in_environment = format!("{path}?environment=main");
    vec![
        Way { name: "direct", address: Address::Tcp(direct), request: request("/", "") },
        Way { name: "token", address: Address::Tcp(agent.proxy), request: request(&path, &bearer) },
        Way {
            name: "socket",
            address: Address::Unix(data.join("run/calls.sock")),
            request: request(&in_environment, "landfall-actor: bench\r\n"),
        },
        Way { name: "API", address: Address::Unix(agent.root.path().join("agent.sock")), request: request(&path, "") },
    ]
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that is kept open.
struct Connection {
    stream: Box<dyn Stream>,
    have: Vec<u8>,
}

impl Connection {
    async fn open(way: &Way) -> Self {
        let stream: Box<dyn Stream> = match &way.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await.expect("connects");
                stream.set_nodelay(true).expect("sets");
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.expect("connects")),
        };
        Self { stream, have: Vec::with_capacity(4096) }
    }

    /// One call; its identifier, where it has one.
    async fn call(&mut self, way: &Way) -> Option<CallId> {
        self.stream.write_all(&way.request).await.expect("sent");
        let (head, body) = self.message().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}{}", String::from_utf8_lossy(&body));
        assert!(body.starts_with(b"{\"n\""), "{}", String::from_utf8_lossy(&body));
        value(&head, "landfall-call").map(|call| call.parse().expect("an identifier"))
    }

    /// The next head and body.
    async fn message(&mut self) -> Option<(String, Vec<u8>)> {
        loop {
            if let Some(end) = self.have.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.have[..end + 2]).into_owned();
                if let Some(body) = value(&head, "transfer-encoding").map_or_else(
                    || {
                        let length = value(&head, "content-length").map_or(0, |text| text.parse().expect("a length"));
                        self.have.get(end + 4..end + 4 + length).map(|body| (body.to_vec(), end + 4 + length))
                    },
                    |_| one_chunk(&self.have[end + 4..]).map(|(body, length)| (body, end + 4 + length)),
                ) {
                    self.have.drain(..body.1);
                    return Some((head, body.0));
                }
            }
            if self.stream.read_buf(&mut self.have).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// A body of chunks that has come as a whole, and how long it was on the wire.
fn one_chunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let end = bytes.windows(5).position(|five| five == b"0\r\n\r\n")?;
    let start = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    Some((bytes.get(start..end)?.to_vec(), end + 5))
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Calls one at a time, the ways in turn. Answers the median of the first way through the agent.
fn latencies(runtime: &tokio::runtime::Runtime, ways: &[Way], calls: usize, made: &mut HashSet<CallId>) -> f64 {
    let mut all: Vec<Vec<f64>> = ways.iter().map(|_| Vec::new()).collect();
    runtime.block_on(async {
        let mut connections = Vec::new();
        for way in ways {
            connections.push(Connection::open(way).await);
        }
        for _ in 0..ROUNDS {
            for ((way, connection), times) in ways.iter().zip(&mut connections).zip(&mut all) {
                for _ in 0..calls {
                    let began = Instant::now();
                    made.extend(connection.call(way).await);
                    times.push(began.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
    });
    let at = |times: &mut Vec<f64>, part: f64| {
        times.sort_by(f64::total_cmp);
        times[(times.len() as f64 * part) as usize]
    };
    let (first, first99) = (at(&mut all[0], 0.5), at(&mut all[0], 0.99));
    let mut warm = 0.0;
    for (way, times) in ways.iter().zip(&mut all) {
        let (p50, p99) = (at(times, 0.5), at(times, 0.99));
        print!("{:<10} {p50:>8.0} / {p99:.0} µs", way.name);
        match way.name {
            "direct" => println!(),
            "token" => {
                warm = p50;
                println!("   added {:.0} / {:.0} (aim {AIM_ADDED:.0} at p50)", p50 - first, p99 - first99);
            }
            _ => println!("   added {:.0} / {:.0}", p50 - first, p99 - first99),
        }
    }
    warm
}

/// As many calls as there is time for, each client waiting for one before it sends the next.
async fn load(way: &Way, in_flight: usize) -> (Vec<Option<CallId>>, Duration) {
    let mut connections = Vec::new();
    for _ in 0..in_flight {
        let mut connection = Connection::open(way).await;
        let first = connection.call(way).await;
        connections.push((connection, first));
    }
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for (mut connection, first) in connections {
        let way = way.clone();
        clients.spawn(async move {
            let mut calls = vec![first];
            while began.elapsed() < LOAD {
                calls.push(connection.call(&way).await);
            }
            calls
        });
    }
    let all = clients.join_all().await.concat();
    (all, began.elapsed())
}

/// The median of the same work in a process for each call, in microseconds.
fn process_per_call() -> f64 {
    let mut times: Vec<f64> = (0..PROCESSES)
        .map(|_| {
            let began = Instant::now();
            let mut child = Command::new("python3")
                .args(["-c", PROCESS])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3 starts");
            std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), BODY.as_bytes()).expect("written");
            let output = child.wait_with_output().expect("its end");
            assert!(output.status.success() && output.stdout.starts_with(b"{\"n\": 1}"));
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// How many of these calls are on record, once the last of them has had time to get there.
fn complete(agent: &Agent, runtime: &tokio::runtime::Runtime, made: &HashSet<CallId>) -> usize {
    let Some(newest) = made.iter().max() else { return 0 };
    agent.until("the last record is written", || {
        runtime.block_on(agent.client.call_record(*newest, Duration::ZERO)).ok()
    });
    // Others of the same moment may be in the batch after it.
    std::thread::sleep(Duration::from_secs(1));
    let (mut found, mut before) = (0, None);
    loop {
        let query = CallsQuery { before, limit: Some(1000), ..CallsQuery::default() };
        let page = runtime.block_on(agent.client.calls(None, &query)).expect("calls");
        found += page.iter().filter(|call| made.contains(&call.call)).count();
        match page.last() {
            Some(last) => before = Some(last.call),
            None => return found,
        }
    }
}
