//! Real repositories, real servers, and a reader for the small manifests these tests need.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use landfall::domain::manifest::{Manifest, Millis, Strategy};
use landfall::files::config::{GitReference, GitSource, SourceConfig, SourceKind};
use landfall::source::{
    AppContent, AppReading, KnownApps, Look, LookLimits, Looker, ManifestReader, Reading, Seen, Snapshotter,
    SourceError,
};

/// A manifest of these tests: `app: NAME`, and any number of `include: DIRECTORY`. `broken` anywhere is an error.
pub fn parse(name: &str, text: &str) -> Result<Manifest, String> {
    if text.contains("broken") {
        return Err(format!("{name}:1:1: broken"));
    }
    let values = |key: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()).collect()
    };
    let app = values("app:").pop().ok_or_else(|| format!("{name}:1:1: missing `app`"))?;
    Ok(Manifest {
        app: app.parse().map_err(|error| format!("{name}:1:6: {error}"))?,
        container: None,
        build: None,
        include: values("include:"),
        secrets: Default::default(),
        secret_files: Default::default(),
        encrypted_files: Default::default(),
        env: BTreeMap::new(),
        volumes: BTreeMap::new(),
        depends_on: Vec::new(),
        strategy: Strategy::Rolling,
        bake: Millis::seconds(30),
        notify: Vec::new(),
        functions: Default::default(),
        publish: None,
        compose: None,
        web: BTreeMap::new(),
        workers: BTreeMap::new(),
    })
}

pub fn reader() -> ManifestReader {
    Arc::new(parse)
}

pub fn no_snapshots() -> Snapshotter {
    Arc::new(|_| panic!("no snapshot is taken of a repository"))
}

pub fn within(time: Duration) -> LookLimits {
    LookLimits { deadline: Instant::now() + time, cancel: Arc::new(AtomicBool::new(false)) }
}

pub fn soon() -> LookLimits {
    within(Duration::from_secs(30))
}

/// A working copy whose commits go to a bare repository.
pub struct Fleet {
    pub dir: tempfile::TempDir,
}

impl Fleet {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--bare", "-b", "main", "fleet.git"]);
        git(dir.path(), &["init", "-q", "-b", "main", "work"]);
        let fleet = Self { dir };
        fleet.git(&["remote", "add", "origin", "../fleet.git"]);
        fleet
    }

    pub fn bare(&self) -> PathBuf {
        self.dir.path().join("fleet.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments)
    }

    pub fn write(&self, path: &str, text: &str) {
        assert!(Path::new(path).is_relative(), "{path}");
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn remove(&self, path: &str) {
        let path = self.work().join(path);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    pub fn app(&self, directory: &str, name: &str) {
        let path = Path::new(directory).join("landfall.yaml");
        self.write(path.to_str().unwrap(), &format!("app: {name}\n"));
    }

    /// Commits everything and pushes it; gives the commit.
    pub fn push(&self, subject: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", subject]);
        self.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn looker(&self) -> Looker {
        self.looker_at(&self.bare().display().to_string(), GitReference::Head, "")
    }

    pub fn looker_at(&self, url: &str, reference: GitReference, path: &str) -> Looker {
        looker_at(&self.cache(), url, reference, path)
    }
}

pub fn looker_at(cache: &Path, url: &str, reference: GitReference, path: &str) -> Looker {
    looker_of(cache, GitSource { reference, paths: vec![path.to_owned()], ..GitSource::at(url) })
}

pub fn looker_of(cache: &Path, git: GitSource) -> Looker {
    let config = SourceConfig {
        environment: None,
        name: "fleet".parse().unwrap(),
        kind: SourceKind::Git(git),
        brake: landfall::domain::Brake::Percent(30),
    };
    Looker::new(&config, cache, reader(), no_snapshots()).unwrap()
}

/// A looker that takes only what is signed.
pub fn verifying_looker(
    cache: &Path,
    url: &str,
    reference: GitReference,
    rules: landfall::files::config::Verification,
) -> Looker {
    looker_of(cache, GitSource { reference, verify: Some(Box::new(rules)), ..GitSource::at(url) })
}

pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"])
        .args(["-c", "gc.auto=0", "-c", "core.fsync=none", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?} in {}: {}",
        directory.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the engine remembers between looks.
#[derive(Default)]
pub struct Memory {
    pub seen: Option<Seen>,
    pub known: KnownApps,
    /// Path → what is known of the app there.
    pub apps: BTreeMap<String, AppReading>,
}

impl Memory {
    pub fn look(&mut self, looker: &mut Looker) -> Result<Look, SourceError> {
        self.look_within(looker, &soon())
    }

    pub fn look_within(&mut self, looker: &mut Looker, limits: &LookLimits) -> Result<Look, SourceError> {
        let look = looker.look(self.seen.as_ref(), &self.known, limits)?;
        if let Look::Changed(reading) = &look {
            self.apply(reading);
        }
        Ok(look)
    }

    pub fn apply(&mut self, reading: &Reading) {
        self.seen = Some(reading.seen.clone());
        self.known.apply(reading);
        for path in &reading.removed {
            self.apps.remove(path);
        }
        for app in &reading.read {
            self.apps.insert(app.path.clone(), app.clone());
        }
    }

    /// A look that must find something new.
    pub fn read(&mut self, looker: &mut Looker) -> Reading {
        match self.look(looker).unwrap() {
            Look::Changed(reading) => *reading,
            other => panic!("nothing was read: {other:?}"),
        }
    }

    pub fn is_unchanged(&mut self, looker: &mut Looker) -> bool {
        matches!(self.look(looker).unwrap(), Look::Unchanged { .. })
    }
}

pub fn paths(reading: &Reading) -> Vec<&str> {
    reading.read.iter().map(|app| app.path.as_str()).collect()
}

pub fn content<'a>(reading: &'a Reading, path: &str) -> &'a AppContent {
    let app = reading.read.iter().find(|app| app.path == path).unwrap_or_else(|| panic!("{path} was not read"));
    app.result.as_ref().unwrap_or_else(|problem| panic!("{path}: {}", problem.message))
}

pub fn problem<'a>(reading: &'a Reading, path: &str) -> &'a str {
    let app = reading.read.iter().find(|app| app.path == path).unwrap_or_else(|| panic!("{path} was not read"));
    &app.result.as_ref().expect_err("a problem").message
}

/// Every file and directory below `root` with its size and times.
pub fn listing(root: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let about = std::fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path, (about.len(), about.modified().unwrap()));
    }
    all
}

/// Waits until `done`, at most ten seconds; then fails with what it last saw.
pub fn wait_for<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> T, done: impl Fn(&T) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let saw = look();
        if done(&saw) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: last saw {saw:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A real `git daemon` on loopback.
pub struct Daemon {
    child: Child,
    pub port: u16,
}

impl Daemon {
    pub fn serve(root: &Path) -> Self {
        // The port is free when asked for and may be taken a moment later; then another is tried.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new("git")
                .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", "--informative-errors"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", root.display()))
                .arg(root)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .process_group_of_its_own()
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("git daemon does not start");
    }

    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/fleet.git", self.port)
    }
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.process_group(0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `git daemon` is the git command with the server as its child: end both.
        let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// What the little web server does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Passes it to git.
    Git,
    /// Answers with this, and nothing else.
    Say(String),
    /// Passes it to git, but ends the connection after so many bytes of a pack.
    CutPackAfter(usize),
}

/// A web server in front of the real `git http-backend`.
pub struct Web {
    pub port: u16,
    stop: Arc<AtomicBool>,
}

impl Web {
    pub fn serve(root: &Path, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (root, stopped) = (root.to_path_buf(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (root, answer) = (root.clone(), answer.clone());
                std::thread::spawn(move || {
                    let _ = serve_one(stream.unwrap(), &root, &answer);
                });
            }
        });
        Self { port, stop }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/fleet.git", self.port)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve_one(mut stream: TcpStream, root: &Path, answer: &Answer) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut parts = first.split_whitespace();
    let (method, target) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (mut length, mut kind) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "content-type" => kind = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if let Answer::Say(text) = answer
        && !path.starts_with("/moved/")
    {
        return stream.write_all(text.as_bytes());
    }
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path.strip_prefix("/moved").unwrap_or(path))
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind)
        .env("CONTENT_LENGTH", length.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    backend.stdin.take().unwrap().write_all(&body)?;
    let mut output = Vec::new();
    backend.stdout.take().unwrap().read_to_end(&mut output)?;
    backend.wait()?;
    let split = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&output[..split]).into_owned();
    let body = &output[split + 4..];
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let head: String =
        head.lines().filter(|line| !line.starts_with("Status: ")).map(|line| format!("{line}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    match answer {
        Answer::CutPackAfter(bytes) if method == "POST" => stream.write_all(&body[..(*bytes).min(body.len())]),
        _ => stream.write_all(body),
    }
}

/// A server that accepts and then says only `greeting`.
pub struct Silent {
    pub port: u16,
    stop: Arc<AtomicBool>,
}

impl Silent {
    pub fn serve(greeting: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = stream.unwrap();
                // A web server answers; a greeting before the request would be a protocol error.
                if greeting.starts_with(b"HTTP") {
                    let _ = stream.read(&mut [0; 4096]);
                }
                let _ = stream.write_all(greeting);
                held.push(stream);
            }
        });
        Self { port, stop }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
