//! Requests per second and processor time per request of the proxy, beside nginx and beside no proxy at all.
//!
//! `cargo bench --bench proxy` prints medians of interleaved rounds: 64 keep-alive connections, answers of 128 bytes, one
//! upstream. nginx is found in `PATH` or named by `NGINX`; without it that row is left out. Upstream, proxies and load
//! share the machine's processors, so ratios are what counts.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on says why")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landfall::domain::manifest::{Bytes, Millis};
use landfall::domain::{AppKey, InstanceId, VersionNumber};
use landfall::proxy::{ProxyOptions, ProxySettings, Timings, serve};
use landfall::wire::proxy::{AppRoutes, ObjectRoute, RouteTable, Upstream, WhenEmpty};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const REQUEST: &[u8] = b"GET /bench HTTP/1.1\r\nHost: bench.localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "upstream"] => upstream(),
        [_, "proxy", data_dir, log] => proxy(Path::new(data_dir), log == "log"),
        _ => compare(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A server as quick as can be.
fn upstream() {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        println!("{}", listener.local_addr().expect("an address"));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n{}", "x".repeat(128));
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("sets");
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                let mut have = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer[have..]).await {
                    have += read;
                    if buffer[..have].ends_with(b"\r\n\r\n") {
                        have = 0;
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

/// The proxy as the supervisor runs it: a process of its own, routes from its file.
fn proxy(data_dir: &Path, access_log: bool) {
    let listener = StdListener::bind("127.0.0.1:0").expect("binds");
    println!("{}", listener.local_addr().expect("an address"));
    let settings = ProxySettings {
        data_dir: data_dir.to_owned(),
        listeners: vec![listener],
        tls_listeners: Vec::new(),
        calls: None,
        ready: None,
        options: ProxyOptions { access_log, ..ProxyOptions::default() },
        threads: 0,
        timings: Timings::default(),
    };
    let (_leave, leaving) = tokio::sync::watch::channel(false);
    runtime().block_on(serve(settings, leaving)).expect("serves");
}

/// A child process, ended with its handle.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// This program in another role; it says its address first.
    fn role(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("reads");
        Self { child, address: line.trim().parse().expect("an address") }
    }

    /// Its processes: it and its children.
    fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }

    /// Processor time of all of them.
    fn cpu(&self) -> Duration {
        let ticks: u64 = self
            .pids()
            .into_iter()
            .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .map(|stat| {
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
                fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum::<u64>()
            })
            .sum();
        // USER_HZ is 100 on every Linux this runs on.
        Duration::from_millis(ticks * 10)
    }

    /// Proportional memory of all of them in KiB.
    fn memory(&self) -> u64 {
        let pss = |pid: u32| {
            let mut text = String::new();
            let mut file = std::fs::File::open(format!("/proc/{pid}/smaps_rollup")).ok()?;
            file.read_to_string(&mut text).ok()?;
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.pids().into_iter().filter_map(pss).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's master ends its workers on SIGTERM only.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn write_routes(data_dir: &Path, upstream: SocketAddr) {
    let key = AppKey::new("main".parse().expect("a name"), "bench".parse().expect("a name"));
    let version = VersionNumber::FIRST;
    let object = ObjectRoute {
        object: "main".parse().expect("a name"),
        hosts: vec!["bench.localhost".into()],
        path: "/".into(),
        strip_prefix: false,
        needs_token: false,
        concurrency: 1024,
        request_timeout: Millis::seconds(30),
        max_body: Bytes::mib(1),
        queue: 100,
        queue_timeout: Millis::seconds(5),
        instances: vec![Upstream {
            instance: InstanceId::new(&key.app, "main", version, 1),
            address: upstream,
            version,
        }],
        when_empty: WhenEmpty::Wait,
    };
    let table = RouteTable {
        generation: 1,
        apps: vec![AppRoutes { app: key, version, objects: vec![object], functions: Vec::new() }],
    };
    std::fs::create_dir_all(data_dir.join("run")).expect("makes a directory");
    let json = serde_json::to_vec(&table).expect("JSON");
    std::fs::write(data_dir.join("run").join("routes.json"), json).expect("writes");
}

fn find_nginx() -> Option<PathBuf> {
    let named = std::env::var_os("NGINX").map(PathBuf::from);
    let usual = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].map(PathBuf::from);
    named.into_iter().chain(usual).find(|path| path.exists())
}

fn start_nginx(program: &Path, dir: &Path, upstream: SocketAddr) -> Process {
    let port = StdListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let dir_text = dir.display();
    let config = format!(
        "daemon off; worker_processes auto; pid {dir_text}/nginx.pid; error_log {dir_text}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir_text}/body;\n\
         proxy_temp_path {dir_text}/proxy; fastcgi_temp_path {dir_text}/f; uwsgi_temp_path {dir_text}/u; scgi_temp_path {dir_text}/s;\n\
         upstream app {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen {port}; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Proto http; proxy_set_header X-Forwarded-Host $http_host;\n\
         proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Request-Id $request_id;\n\
         add_header X-Request-Id $request_id; }} }} }}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::File::create(&file).and_then(|mut file| file.write_all(config.as_bytes())).expect("writes");
    let child =
        Command::new(program).arg("-c").arg(&file).arg("-p").arg(dir).stderr(Stdio::null()).spawn().expect("starts");
    Process { child, address: port }
}

struct Round {
    per_second: f64,
    cpu: f64,
}

/// Loads an address for one round.
async fn load(address: SocketAddr) -> u64 {
    let end = Instant::now() + ROUND;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(async move {
            let mut stream = connect(address).await;
            let mut buffer = vec![0; 8 * 1024];
            let mut count = 0_u64;
            while Instant::now() < end {
                stream.write_all(REQUEST).await.expect("writes");
                let mut have = 0;
                // The body is all `x` and nothing else is: the answer ends with 128 of them.
                while !(have > 128 && buffer[have - 128..have].iter().all(|byte| *byte == b'x')) {
                    let read = stream.read(&mut buffer[have..]).await.expect("reads");
                    assert!(read > 0, "the connection ended");
                    have += read;
                }
                assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..have]));
                count += 1;
            }
            count
        });
    }
    let mut sum = 0;
    while let Some(count) = clients.join_next().await {
        sum += count.expect("no panic");
    }
    sum
}

async fn connect(address: SocketAddr) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).expect("sets");
                return stream;
            }
            Err(error) => assert!(began.elapsed() < Duration::from_secs(5), "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn measure(process: &Process) -> Round {
    let before = process.cpu();
    let count = runtime().block_on(load(process.address));
    let cpu = (process.cpu() - before).as_secs_f64() * 1e6 / count as f64;
    Round { per_second: count as f64 / ROUND.as_secs_f64(), cpu }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Process::role(&["upstream"]);
    let mut contenders: Vec<(&str, Process)> = Vec::new();
    for (name, log) in [("landfall", "quiet"), ("landfall with access log", "log")] {
        let data = dir.path().join(log);
        write_routes(&data, upstream.address);
        contenders.push((name, Process::role(&["proxy", data.to_str().expect("UTF-8"), log])));
    }
    match find_nginx() {
        Some(program) => contenders.push(("nginx", start_nginx(&program, dir.path(), upstream.address))),
        None => println!("nginx is not installed: no comparison with it (install it, or name it with NGINX=/path)"),
    }
    let idle: Vec<u64> = contenders.iter().map(|(_, process)| process.memory()).collect();
    let mut rounds: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut direct = Vec::new();
    for _ in 0..ROUNDS {
        for ((_, process), rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push(measure(process));
        }
        direct.push(measure(&upstream).per_second);
    }
    let summary = |rounds: &Vec<Round>| {
        let per_second = median(rounds.iter().map(|round| round.per_second).collect());
        (per_second, median(rounds.iter().map(|round| round.cpu).collect()))
    };
    let nginx = contenders.iter().position(|(name, _)| *name == "nginx").map(|at| summary(&rounds[at]));
    println!("{CONNECTIONS} keep-alive connections, 128-byte answers, medians of {ROUNDS} rounds of {ROUND:?}");
    println!(
        "{:26} {:>10} {:>8} {:>10} {:>8} {:>9} {:>9}",
        "", "req/s", "/nginx", "µs CPU/req", "/nginx", "idle KiB", "KiB"
    );
    for (((name, process), rounds), idle) in contenders.iter().zip(&rounds).zip(idle) {
        let (per_second, cpu) = summary(rounds);
        let relative = |own: f64, other: Option<f64>| other.map_or("-".into(), |other| format!("{:.2}", own / other));
        let (rate, cost) = (relative(per_second, nginx.map(|n| n.0)), relative(cpu, nginx.map(|n| n.1)));
        println!("{name:26} {per_second:>10.0} {rate:>8} {cpu:>10.1} {cost:>8} {idle:>9} {:>9}", process.memory());
    }
    println!("{:26} {:>10.0}", "direct", median(direct));
}
