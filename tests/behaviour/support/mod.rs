//! A real agent on free ports with a temporary data directory, a real repository to push to, and ways to wait.
//!
//! Dropping an [`Agent`] ends it and fails the test if anything of it is left running, or if its log says that one
//! of its tasks panicked.

pub mod asking;
pub mod forge;
pub mod git_server;
pub mod http;
pub mod identity;
pub mod load;
#[path = "../../docker/making.rs"]
#[allow(dead_code)]
pub mod making;
pub mod place;
#[path = "../../common/ports.rs"]
mod ports;
pub mod receiver;
pub mod repo;
pub mod smtp;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use landfall::client::{Client, Target};
use landfall::domain::{AppName, VersionNumber};
use landfall::wire::api;

pub use ports::free_port;
pub use repo::Repo;

/// Nothing on loopback takes longer than this, however busy the machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The program under test.
pub fn landfall() -> &'static str {
    env!("CARGO_BIN_EXE_landfall")
}

/// The app the tests deploy.
pub fn test_app() -> String {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| example("test-app", "tests/behaviour/app.rs")).clone()
}

/// An example of this package, built from this source.
pub fn example(name: &str, source: &str) -> String {
    let deps = std::env::current_exe().expect("this test's path");
    let profile = deps.parent().and_then(Path::parent).expect("target/<profile>");
    let built = profile.join("examples").join(name);
    if is_older(&built, &Path::new(env!("CARGO_MANIFEST_DIR")).join(source)) {
        build_example(name, profile);
    }
    assert!(built.exists(), "{} was built", built.display());
    built.display().to_string()
}

/// Whether a program is missing or was built before its source was written.
fn is_older(program: &Path, source: &Path) -> bool {
    let written = |path: &Path| path.metadata().and_then(|about| about.modified());
    match (written(program), written(source)) {
        (Ok(program), Ok(source)) => program < source,
        _ => true,
    }
}

/// `cargo test` builds examples, `cargo test --test behaviour` does not. All that it needs is built or fetched already.
fn build_example(example: &str, profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile's name");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--example", example, "--profile"])
        .arg(if name == "debug" { "dev" } else { name })
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(profile.parent().expect("target"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{example} cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A manifest of one web app that serves `content.txt`; `more` is added to its `web.main`.
pub fn web_manifest(app: &str, more: &str) -> String {
    let command = test_app();
    format!(
        "app: {app}\nbake: 200ms\nweb:\n  main:\n    command: [{command}, serve]\n    health: {{path: /healthz, interval: 50ms}}\n    drain: 5s\n    grace: 2s\n{more}"
    )
}

/// Settings of an agent under test.
pub struct Setup {
    pub dir: tempfile::TempDir,
    pub repo: Repo,
    /// Added at the end of the configuration.
    pub more: String,
    /// Added to the `api` part of the configuration, after the socket.
    pub api: String,
    /// Added to the `proxy` part of the configuration.
    pub proxy: String,
    /// The port of the proxy.
    pub port: u16,
    /// Replaces the `sources` part of the configuration.
    pub sources: Option<String>,
    /// Variables of the agent's environment, besides those of the test itself.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("landfall-test-").tempdir().expect("a directory");
        let repo = Repo::create(&dir.path().join("fleet.git"));
        Self {
            dir,
            repo,
            more: String::new(),
            api: String::new(),
            proxy: String::new(),
            port: free_port(),
            sources: None,
            environment: Vec::new(),
        }
    }

    /// Starts the agent and waits until its API answers.
    pub async fn start(self) -> Agent {
        let port = self.port;
        let root = self.dir.path().to_owned();
        let sources = self.sources.clone().unwrap_or_else(|| {
            format!("sources:\n  - name: fleet\n    git: {{url: {}, branch: main}}\n", self.repo.path().display())
        });
        let config = format!(
            "data_dir: {}\n{sources}proxy: {{listen: [\"127.0.0.1:{port}\"], domain: localhost{}}}\napi: {{socket: {}{}}}\n{}",
            root.join("data").display(),
            self.proxy,
            root.join("agent.sock").display(),
            self.api,
            self.more
        ) + &(if self.more.contains("docker:") { String::new() } else { place::configuration() });
        std::fs::write(root.join("landfall.yaml"), config).expect("the configuration");
        let mut agent = Agent {
            client: Client::connect(&Target::Socket(root.join("agent.sock"))).expect("a client"),
            root,
            proxy: SocketAddr::from(([127, 0, 0, 1], port)),
            repo: self.repo,
            process: None,
            environment: self.environment,
            _dir: self.dir,
        };
        agent.launch();
        agent.until_up().await;
        agent
    }
}

/// Whether there is a git command to `do` something with; CI must have it, elsewhere the test is skipped.
pub fn has_git(purpose: &str) -> bool {
    let git = Command::new("git").arg("--version").stdout(Stdio::null()).status();
    if git.is_ok_and(|status| status.success()) {
        return true;
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs the git command");
    eprintln!("skipped: there is no git command here to {purpose}");
    false
}

/// A number from the environment, for tests that can do more than they do by default.
pub fn number_from(variable: &str, otherwise: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => otherwise,
    }
}

/// A running agent.
pub struct Agent {
    pub client: Client,
    pub root: PathBuf,
    pub proxy: SocketAddr,
    pub repo: Repo,
    process: Option<Child>,
    environment: Vec<(String, String)>,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// An agent with one repository as its source.
    pub async fn start() -> Self {
        Setup::new().start().await
    }

    /// Starts the program again, on the same data.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the agent's log");
        let process = Command::new(landfall())
            .args(["agent", "--config"])
            .arg(self.root.join("landfall.yaml"))
            .env("LANDFALL_LOG", "debug")
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the agent's log"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.process = Some(process);
    }

    pub async fn until_up(&self) {
        until("the agent answers", || async { self.client.status().await.map_err(|error| error.to_string()) }).await;
    }

    pub fn log_file(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The supervisor's process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.as_ref().expect("it runs").id()).expect("a process id")
    }

    pub async fn controller_pid(&self) -> i32 {
        self.client.status().await.expect("status").processes.controller.pid
    }

    pub async fn processes(&self) -> api::Processes {
        self.client.status().await.expect("status").processes
    }

    pub async fn proxy_pid(&self) -> i32 {
        until("there is a proxy", || async {
            let status = self.client.status().await.map_err(|error| error.to_string())?;
            status.processes.proxy.map(|proxy| proxy.pid).ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Kills the controller; answers which it was.
    pub async fn kill_controller(&self) -> i32 {
        let pid = self.controller_pid().await;
        send_signal(pid, nix::sys::signal::Signal::SIGKILL);
        pid
    }

    /// Waits until another controller than this one answers.
    pub async fn until_new_controller(&self, than: i32) -> i32 {
        until("another controller answers", || async {
            let status = self.client.status().await.map_err(|error| error.to_string())?;
            let pid = status.processes.controller.pid;
            if pid != than { Ok(pid) } else { Err(format!("still {pid}")) }
        })
        .await
    }

    /// Waits until another proxy than this one is there.
    pub async fn until_new_proxy(&self, than: i32) -> i32 {
        until("another proxy is there", || async {
            let status = self.client.status().await.map_err(|error| error.to_string())?;
            let pid = status.processes.proxy.map(|proxy| proxy.pid);
            pid.filter(|pid| *pid != than).ok_or_else(|| format!("{pid:?}"))
        })
        .await
    }

    /// Kills the supervisor and waits for its end.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("killed");
        process.wait().expect("its end");
    }

    /// Ends the agent in order and waits for it.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            send_signal(i32::try_from(process.id()).expect("a process id"), nix::sys::signal::Signal::SIGTERM);
            wait_for_end(&mut process, &self.log_file());
        }
    }

    /// One app as the API shows it.
    pub async fn app(&self, name: &str) -> Result<api::App, String> {
        let name: AppName = name.parse().expect("a name");
        self.client.app(None, &name).await.map_err(|error| error.to_string())
    }

    pub async fn versions(&self, name: &str) -> Vec<api::Version> {
        let name: AppName = name.parse().expect("a name");
        self.client.versions(None, &name).await.expect("versions")
    }

    /// The app's instances as the API shows them.
    pub async fn instances(&self, app: &str) -> Result<Vec<api::Instance>, String> {
        let app: AppName = app.parse().expect("a name");
        self.client.instances(None, Some(&app)).await.map_err(|error| error.to_string())
    }

    /// Waits until an app fulfils a condition.
    pub async fn until_app(&self, name: &str, what: &str, holds: impl Fn(&api::App) -> bool) -> api::App {
        until(what, || async {
            match self.app(name).await {
                Ok(app) if holds(&app) => Ok(app),
                Ok(app) => Err(format!("{app:?}")),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Waits until this version of an app is live.
    pub async fn until_live(&self, name: &str, version: u32) -> api::App {
        let version = VersionNumber::new(version);
        self.until_app(name, &format!("{name} {version:?} is live"), |app| app.live_version == version).await
    }

    /// Waits until the newest deployment of an app is over.
    pub async fn until_done(&self, name: &str) -> api::Deployment {
        let app: AppName = name.parse().expect("a name");
        until(&format!("the deployment of {name} is over"), || async {
            let all = self.client.deployments(None, &app, Some(1)).await.map_err(|error| error.to_string())?;
            match all.into_iter().next() {
                Some(deployment) if deployment.outcome.is_some() => Ok(deployment),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// A `GET` through the proxy to the app's host.
    pub async fn get(&self, app: &str, path: &str) -> Result<http::Answer, String> {
        http::get(self.proxy, &format!("{app}.localhost"), path).await
    }

    /// Waits until the app answers with this body.
    pub async fn until_body(&self, app: &str, body: &str) -> http::Answer {
        until(&format!("{app} answers {body:?}"), || async {
            let answer = self.get(app, "/").await?;
            if answer.status == 200 && answer.body == body { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let supervisor = i32::try_from(process.id()).expect("a process id");
        send_signal(supervisor, nix::sys::signal::Signal::SIGTERM);
        wait_for_end(&mut process, &self.log_file());
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.log());
            return;
        }
        let log = self.log();
        assert!(!log.contains("panicked at"), "a task of the agent panicked:\n{log}");
        let mut left = processes_of(&self.root);
        // A git server of the test notices a moment later that the agent is gone; that is no process of the agent.
        let deadline = Instant::now() + DEADLINE;
        while !left.is_empty() && left.iter().all(|process| process.contains("git-")) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            left = processes_of(&self.root);
        }
        left.extend(place::running(&self.root));
        assert!(left.is_empty(), "left running: {left:?}\n{log}");
        make_writable(&self.root);
    }
}

/// Releases are read-only; the temporary directory could not be removed as it is by anybody but root.
fn make_writable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

fn wait_for_end(process: &mut Child, log: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while process.try_wait().expect("the agent's end").is_none() {
        if Instant::now() > deadline {
            let _ = process.kill();
            let log = std::fs::read_to_string(log).unwrap_or_default();
            panic!("the agent did not end within {DEADLINE:?}:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process of ours.
pub fn send_signal(pid: i32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Processes whose command line, environment or working directory names this directory.
pub fn processes_of(root: &Path) -> Vec<String> {
    let needle = root.as_os_str().as_encoded_bytes();
    let mentions = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<i32>().is_err() || name == std::process::id().to_string() {
            continue;
        }
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if mentions(&read("cmdline")) || mentions(&read("environ")) || cwd.starts_with(root) {
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if !command.is_empty() {
                found.push(format!("{name}: {command}"));
            }
        }
    }
    found
}

/// Processes that are instances, or were started by one, of the agent with this directory.
pub fn instance_processes(root: &Path) -> std::collections::BTreeSet<i32> {
    let holds = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let root_bytes = root.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        holds(&environment, b"LANDFALL_INSTANCE=") && holds(&environment, root_bytes)
    })
    .chain(place::processes(root))
    .collect()
}

/// Files below a directory that hold these words.
pub fn files_with(directory: &Path, words: &str) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(words.len()).any(|window| window == words.as_bytes()) {
                    found.push(path);
                }
            }
        }
    }
    found
}

/// Waits until `look` answers `Ok`, and panics with the last `Err` when [`DEADLINE`] is over.
pub async fn until<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("waited {DEADLINE:?} until {what}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
