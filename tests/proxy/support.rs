//! A real proxy on real sockets, a controller made of a Unix socket, instances made of small servers, and a client that
//! shows every byte.

use std::collections::HashMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use landfall::domain::manifest::{Bytes, Millis};
use landfall::domain::{AppKey, InstanceId, VersionNumber};
use landfall::proxy::{ProxyError, ProxyOptions, ProxySettings, Timings, serve};
use landfall::wire::frame::{Decoder, encode};
use landfall::wire::proxy::{AppRoutes, FromProxy, ObjectRoute, RouteTable, ToProxy, Upstream, WhenEmpty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than anything here takes; a wait that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for something that must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come within {DEADLINE:?}"))
}

/// Waits for a condition; `seen` is printed when it does not come.
pub async fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let began = Instant::now();
    loop {
        let (done, seen) = look();
        if done {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{what} did not come; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub struct Proxy {
    pub address: SocketAddr,
    /// As the supervisor: the socket stays open whatever the proxy does.
    pub listener: StdListener,
    leave: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), ProxyError>>>,
}

impl Proxy {
    pub fn start(data_dir: &Path, change: impl FnOnce(&mut ProxySettings)) -> Self {
        Self::start_on(StdListener::bind("127.0.0.1:0").expect("binds"), data_dir, change)
    }

    pub fn start_on(listener: StdListener, data_dir: &Path, change: impl FnOnce(&mut ProxySettings)) -> Self {
        std::fs::create_dir_all(data_dir.join("run")).expect("makes a directory");
        let mut settings = ProxySettings {
            data_dir: data_dir.to_owned(),
            listeners: vec![listener.try_clone().expect("clones")],
            tls_listeners: Vec::new(),
            calls: None,
            ready: None,
            options: ProxyOptions::default(),
            threads: 2,
            timings: Timings::default(),
        };
        change(&mut settings);
        let (leave, leaving) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(settings, leaving))
        });
        Self { address: listener.local_addr().expect("an address"), listener, leave, thread: Some(thread) }
    }

    /// As SIGTERM.
    pub fn tell_to_leave(&self) {
        self.leave.send_replace(true);
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub async fn ended(mut self) {
        until("the proxy's end", || (self.has_ended(), ())).await;
        let thread = self.thread.take().expect("not joined yet");
        thread.join().expect("no panic").expect("no error");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tell_to_leave();
    }
}

/// The controller's end.
pub struct Controller {
    listener: UnixListener,
}

impl Controller {
    pub fn listen(data_dir: &Path) -> Self {
        let path = data_dir.join("run").join("control.sock");
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("makes a directory");
        let _ = std::fs::remove_file(&path);
        Self { listener: UnixListener::bind(path).expect("binds") }
    }

    /// Waits for a proxy; its generation and whether it is draining, and the line to it.
    pub async fn accept(&self) -> (u64, bool, Line) {
        let (stream, _) = soon("a proxy", self.listener.accept()).await.expect("accepts");
        let mut line = Line { stream, decoder: Decoder::default() };
        match line.hear().await {
            FromProxy::Hello { generation, draining, .. } => (generation, draining, line),
            other => panic!("expected a hello, heard {other:?}"),
        }
    }
}

pub struct Line {
    stream: UnixStream,
    decoder: Decoder,
}

impl Line {
    pub async fn say(&mut self, message: &ToProxy) {
        let frame = encode(message).expect("encodes");
        soon("the proxy's ear", self.stream.write_all(&frame)).await.expect("writes");
    }

    pub async fn hear(&mut self) -> FromProxy {
        soon("a message", async {
            loop {
                if let Some(message) = self.decoder.message().expect("decodes") {
                    return message;
                }
                let mut buffer = [0; 4096];
                let read = self.stream.read(&mut buffer).await.expect("reads");
                assert!(read > 0, "the proxy hung up");
                self.decoder.extend(&buffer[..read]);
            }
        })
        .await
    }

    /// The connection ends.
    pub async fn hangs_up(&mut self) {
        let mut buffer = [0; 4096];
        soon("the end of the line", async { while self.stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} })
            .await;
    }

    /// Skips load reports.
    pub async fn hear_fact(&mut self) -> FromProxy {
        loop {
            match self.hear().await {
                FromProxy::Load { .. } | FromProxy::Answers { .. } => {}
                other => return other,
            }
        }
    }

    /// Publishes and waits until it serves.
    pub async fn publish(&mut self, generation: u64, apps: Vec<AppRoutes>) {
        self.say(&ToProxy::Table(RouteTable { generation, apps })).await;
        self.applied(generation).await;
    }

    pub async fn change(&mut self, generation: u64, set: Vec<AppRoutes>) {
        self.say(&ToProxy::Change { generation, set, remove: Vec::new() }).await;
        self.applied(generation).await;
    }

    async fn applied(&mut self, wanted: u64) {
        match self.hear_fact().await {
            FromProxy::Applied { generation } => assert_eq!(generation, wanted),
            other => panic!("expected applied {wanted}, heard {other:?}"),
        }
    }

    pub async fn drain(&mut self, instance: &InstanceId, stagger: u64) {
        self.say(&ToProxy::Drain { instances: vec![instance.clone()], stagger: Millis(stagger) }).await;
    }

    pub async fn drained(&mut self, wanted: &InstanceId) {
        match self.hear_fact().await {
            FromProxy::Drained { instance } => assert_eq!(instance, *wanted),
            other => panic!("expected drained {wanted}, heard {other:?}"),
        }
    }
}

/// Routes of an app `shop` at `shop.localhost`.
pub fn shop(instances: &[(&InstanceId, SocketAddr)]) -> AppRoutes {
    app("shop", instances)
}

pub fn app(name: &str, instances: &[(&InstanceId, SocketAddr)]) -> AppRoutes {
    let version = VersionNumber::FIRST;
    let upstream = |(instance, address): &(&InstanceId, SocketAddr)| Upstream {
        instance: (*instance).clone(),
        address: *address,
        version,
    };
    let object = ObjectRoute {
        object: "main".parse().expect("a name"),
        hosts: vec![format!("{name}.localhost")],
        path: "/".into(),
        strip_prefix: false,
        needs_token: false,
        concurrency: 64,
        request_timeout: Millis::seconds(10),
        max_body: Bytes(100_000),
        queue: 100,
        queue_timeout: Millis::seconds(5),
        instances: instances.iter().map(upstream).collect(),
        when_empty: WhenEmpty::Wait,
    };
    let key = AppKey::new("main".parse().expect("a name"), name.parse().expect("a name"));
    AppRoutes { app: key, version, objects: vec![object], functions: Vec::new() }
}

/// A new instance identifier.
pub fn instance(number: u64) -> InstanceId {
    InstanceId::new(&"shop".parse().expect("a name"), "main", VersionNumber::FIRST, number)
}

/// A started proxy with its controller, serving `shop` from one instance.
pub struct House {
    pub dir: tempfile::TempDir,
    pub proxy: Proxy,
    pub controller: Controller,
    pub line: Line,
}

impl House {
    pub async fn with(routes: Vec<AppRoutes>, change: impl FnOnce(&mut ProxySettings)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let controller = Controller::listen(dir.path());
        let proxy = Proxy::start(dir.path(), change);
        let (_, _, mut line) = controller.accept().await;
        line.publish(1, routes).await;
        Self { dir, proxy, controller, line }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.proxy.address).await
    }
}

/// A server that treats each connection as it is told. Counts connections.
pub struct Server {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start<F, S>(serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Client) -> F + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(Client::new(stream)));
            }
        });
        Self { address, connections, task }
    }

    /// Answers every request with 200 and this body, on kept connections.
    pub async fn saying(text: &'static str) -> Self {
        Self::start(move |mut peer| async move {
            while let Some(request) = peer.try_message().await {
                if request.body.is_empty() || request.start.starts_with("POST") {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                    if peer.try_send(answer.as_bytes()).await.is_none() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers every request with its own head as the body.
    pub async fn echoing_heads() -> Self {
        Self::start(|mut peer| async move {
            while let Some(request) = peer.try_message().await {
                let text = format!("{}\r\n{}", request.start, request.raw_headers);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                if peer.try_send(answer.as_bytes()).await.is_none() {
                    return;
                }
            }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request or an answer as it came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// First line.
    pub start: String,
    pub raw_headers: String,
    /// Lower-case names.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One end of an HTTP/1.1 connection, byte by byte.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(soon("a connection", TcpStream::connect(address)).await.expect("connects"))
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        soon("the other side's ear", self.stream.write_all(text.as_ref())).await.expect("writes");
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()
    }

    /// GET of a path of `shop.localhost`.
    pub async fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        self.answer().await
    }

    pub async fn answer(&mut self) -> Message {
        soon("an answer", self.try_message()).await.expect("an answer, not the end of the connection")
    }

    /// The next message with its body; `None` at the end of the connection.
    pub async fn try_message(&mut self) -> Option<Message> {
        let mut message = self.try_head().await?;
        message.body = self.body_of(&message).await?;
        Some(message)
    }

    pub async fn try_head(&mut self) -> Option<Message> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let (start, raw_headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        let headers = raw_headers
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Message { start: start.into(), raw_headers: raw_headers.into(), headers, body: Vec::new() })
    }

    async fn body_of(&mut self, head: &Message) -> Option<Vec<u8>> {
        if head.header("transfer-encoding") == "chunked" {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                body.extend(chunk);
            }
            return Some(body);
        }
        let length: usize = head.header("content-length").parse().unwrap_or(0);
        self.bytes(length).await
    }

    /// The next chunk; `Some(None)` for the last one.
    pub async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let line = self.line().await?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).expect("a chunk size");
        if size == 0 {
            while !self.line().await?.is_empty() {}
            return Some(None);
        }
        let bytes = self.bytes(size).await?;
        self.line().await?;
        Some(Some(bytes))
    }

    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            self.more().await?;
        }
    }

    pub async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn more(&mut self) -> Option<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(read) if read > 0 => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Some(())
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// The connection ends without a further byte.
    pub async fn closes(&mut self) {
        let more = soon("the end of the connection", self.more()).await;
        assert!(more.is_none(), "got {:?} instead of the end", String::from_utf8_lossy(&self.buffer));
    }
}
