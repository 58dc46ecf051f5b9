//! What the benchmarks of the whole agent share: the real program on free ports, a real repository, plain HTTP.

#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landfall::client::{Client, Target};

/// Nothing here takes longer.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The app that is deployed, built in the same profile as this benchmark; `None` says how to build it.
pub fn test_app() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("this program");
    let app = this.parent().and_then(Path::parent).expect("target/<profile>").join("examples").join("test-app");
    if app.exists() {
        return Some(app);
    }
    eprintln!("{} is missing; run `cargo build --release --example test-app` first", app.display());
    None
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A running agent on a directory of its own; ends with this value.
pub struct Agent {
    pub client: Client,
    pub proxy: SocketAddr,
    pub repo: PathBuf,
    pub root: tempfile::TempDir,
    process: Child,
}

impl Agent {
    pub fn start(runtime: &tokio::runtime::Runtime) -> Self {
        Self::start_with(runtime, "")
    }

    /// With `more` at the end of its configuration.
    pub fn start_with(runtime: &tokio::runtime::Runtime, more: &str) -> Self {
        let root = tempfile::Builder::new().prefix("landfall-bench-").tempdir().expect("a directory");
        let repo = root.path().join("fleet.git");
        let mut options = git2::RepositoryInitOptions::new();
        git2::Repository::init_opts(&repo, options.bare(true).initial_head("main")).expect("a repository");
        let port = free_port();
        let at = |name: &str| root.path().join(name);
        let config = format!(
            "data_dir: {}\nsources:\n  - name: fleet\n    git: {{url: {}, branch: main}}\nproxy: {{listen: [\"127.0.0.1:{port}\"], domain: localhost}}\napi: {{socket: {}}}\n{more}",
            at("data").display(),
            repo.display(),
            at("agent.sock").display()
        );
        std::fs::write(at("landfall.yaml"), config).expect("the configuration");
        let log = std::fs::File::create(at("agent.log")).expect("the log");
        let process = Command::new(env!("CARGO_BIN_EXE_landfall"))
            .args(["agent", "--config"])
            .arg(at("landfall.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        let client = Client::connect(&Target::Socket(at("agent.sock"))).expect("a client");
        let agent = Self { client, proxy: SocketAddr::from(([127, 0, 0, 1], port)), repo, root, process };
        agent.until("the agent answers", || runtime.block_on(agent.client.status()).ok());
        agent
    }

    /// Commits these files on top of the branch, as a push does: objects first, then the reference.
    pub fn push(&self, files: &[(String, String)]) -> Instant {
        let repository = git2::Repository::open_bare(&self.repo).expect("the repository");
        let parent = repository.find_reference("refs/heads/main").and_then(|main| main.peel_to_commit()).ok();
        let mut index = git2::Index::new().expect("an index");
        if let Some(tree) = parent.as_ref().map(|commit| commit.tree().expect("a tree")) {
            index.read_tree(&tree).expect("the tree");
        }
        for (path, content) in files {
            let id = repository.blob(content.as_bytes()).expect("a blob");
            let zero = git2::IndexTime::new(0, 0);
            let entry = git2::IndexEntry {
                ctime: zero,
                mtime: zero,
                dev: 0,
                ino: 0,
                mode: 0o100_644,
                uid: 0,
                gid: 0,
                file_size: 0,
                id,
                flags: 0,
                flags_extended: 0,
                path: path.clone().into_bytes(),
            };
            index.add(&entry).expect("an entry");
        }
        let tree = index.write_tree_to(&repository).and_then(|tree| repository.find_tree(tree)).expect("a tree");
        let who = git2::Signature::now("Ada", "ada@example.org").expect("a signature");
        let parents: Vec<_> = parent.iter().collect();
        let commit = repository.commit(None, &who, &who, "push", &tree, &parents).expect("a commit");
        let pushed = Instant::now();
        repository.reference("refs/heads/main", commit, true, "push").expect("the branch moves");
        pushed
    }

    /// Waits until `look` answers, and shows the agent's log when it does not in time.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(value) = look() {
                return value;
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.root.path().join("agent.log")).unwrap_or_default();
                panic!("waited in vain until {what}; the agent's log:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap_or_default());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// A connection that is kept open between requests.
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr, host: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        Ok(Self { stream, request, buffer: Vec::new() })
    }

    /// One request; its whole answer as text.
    pub fn get(&mut self) -> std::io::Result<String> {
        self.stream.write_all(&self.request)?;
        self.buffer.clear();
        let mut chunk = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&self.buffer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
                });
                if body.len() >= length.unwrap_or(0) {
                    return Ok(text.into_owned());
                }
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(std::io::Error::other("the connection was closed")),
                length => self.buffer.extend_from_slice(&chunk[..length]),
            }
        }
    }
}

/// The middle one, and the one that 90 % do not exceed.
pub fn median_and_p90(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
    (at(0.5), at(0.9))
}

/// A sum of `/proc/<pid>/smaps_rollup`.
pub fn memory_mib(pid: i32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

/// User and system time of the process from `/proc/<pid>/stat`, in steps of a clock tick. Not summed over its threads:
/// those that have ended would be missing.
pub fn processor_millis(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; what follows is fields 3 and up, the times are 14 and 15.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks * 1000 / per_second.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100)
}
