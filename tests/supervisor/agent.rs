//! A supervisor under test.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::{Duration, Instant};

use landfall::domain::manifest::{Bytes, Millis, Resources};
use landfall::domain::{AppKey, InstanceId, VersionNumber};
use landfall::runtime::{SupervisorEvent, SupervisorLink};
use landfall::supervisor::Launch;
use landfall::wire::supervisor::{Child, ChildKind, ChildState, FDS_VARIABLE, Inventory, Labels, Plan, StartRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use crate::ports::free_port;

pub const DEADLINE: Duration = Duration::from_secs(20);
const RELAY: &str = "LANDFALL_TEST_RELAY";

/// A running supervisor. Dropping it kills what is left.
pub struct Agent {
    pub directory: tempfile::TempDir,
    pub plan: Plan,
    launch: Launch,
    process: Process,
    relay: UnixListener,
    groups: Groups,
}

/// Whether the supervisor may find a control group of its own (it does where the tests run as root).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    IfPossible,
    None,
}

/// The controller's side of one link.
pub struct Controller {
    pub link: SupervisorLink,
    pub inventory: Inventory,
    pub events: mpsc::Receiver<SupervisorEvent>,
    /// The stand-in's process id.
    pub pid: i32,
    /// Ends that were reported and not asked for yet.
    ends: Vec<Child>,
}

/// An address no other test of this run gets.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

pub fn plan(data_dir: &Path) -> Plan {
    Plan {
        data_dir: data_dir.to_owned(),
        config: None,
        proxy_listen: vec![free_address()],
        proxy_tls_listen: Vec::new(),
        api_socket: data_dir.join("landfall.sock"),
        api_listen: None,
        users: None,
        logs_total: Bytes::mib(64),
        shutdown_drain: Millis::seconds(5),
    }
}

fn stand_in(test: &str) -> Vec<OsString> {
    let this = std::env::current_exe().expect("has one");
    vec![this.into(), format!("agent::{test}").into(), "--exact".into(), "--nocapture".into(), "--ignored".into()]
}

pub fn launch() -> Launch {
    Launch {
        supervisor: vec![env!("CARGO_BIN_EXE_landfall").into(), "internal-supervisor".into()],
        controller: stand_in("controller_stand_in"),
        proxy: stand_in("proxy_stand_in"),
    }
}

impl Agent {
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    pub fn start_with(change: impl FnOnce(&mut Plan, &mut Launch)) -> Self {
        Self::start_in(Groups::IfPossible, change)
    }

    pub fn start_in(groups: Groups, change: impl FnOnce(&mut Plan, &mut Launch)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut plan, mut launch) = (plan(&directory.path().join("data")), launch());
        change(&mut plan, &mut launch);
        let path = directory.path().join("relay.sock");
        let relay = UnixListener::bind(&path).expect("binds");
        relay.set_nonblocking(true).expect("set");
        let process = spawn(&plan, &launch, &path, Stdio::inherit(), groups);
        Self { directory, plan, launch, process, relay, groups }
    }

    pub fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it is there");
    }

    /// Starts another supervisor with the same plan and returns what it said when it ended.
    pub fn second(&self) -> String {
        let path = self.directory.path().join("relay.sock");
        let other = spawn(&self.plan, &self.launch, &path, Stdio::piped(), self.groups);
        let output = other.wait_with_output().expect("ends");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    }

    /// Starts it again after it was killed.
    pub fn start_again(&mut self) {
        let path = self.directory.path().join("relay.sock");
        self.process = spawn(&self.plan, &self.launch, &path, Stdio::inherit(), self.groups);
    }

    /// The next controller the supervisor starts.
    pub async fn controller(&self) -> Controller {
        let stream = wait_for("a controller", || self.relay.accept().ok()).await.0;
        let mut stream = stream;
        stream.set_nonblocking(false).expect("set");
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).expect("a pid");
        let (link, inventory, events) = SupervisorLink::connect(stream.into()).await.expect("connects");
        Controller { link, inventory, events, pid: i32::from_ne_bytes(pid), ends: Vec::new() }
    }

    /// Waits for the supervisor's end.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        wait_for("the end of the supervisor", || self.process.try_wait().expect("can be waited for")).await
    }

    pub fn request(&self, name: &str, script: &str) -> StartRequest {
        let key = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
        StartRequest {
            instance: InstanceId::from_recorded(name),
            labels: Labels {
                app: key,
                version: VersionNumber::FIRST,
                object: "main".into(),
                kind: ChildKind::Web,
                port: None,
            },
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            directory: self.directory.path().to_owned(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            secrets: Default::default(),
            secret_files: Default::default(),
            secret_paths: Default::default(),
            log: PathBuf::from(format!("main/shop/v1/main/{name}.log")),
            resources: Resources::default(),
            grace: Millis(500),
            volumes: Vec::new(),
            container: None,
        }
    }

    /// An instance's log; its first line without the command, so that a script is not taken for its output.
    pub fn log(&self, name: &str) -> String {
        let path = self.plan.data_dir.join(format!("logs/main/shop/v1/main/{name}.log"));
        let log = fs::read_to_string(path).unwrap_or_default();
        let without_command = |line: &str| match line.find(" system F started, pid ") {
            Some(start) => {
                line[..line[start + 23..].find(':').map_or(line.len(), |end| start + 23 + end)].to_owned() + "\n"
            }
            None => line.to_owned(),
        };
        log.split_inclusive('\n').map(without_command).collect()
    }

    /// Waits until an instance's log holds a text; returns the whole log.
    pub async fn logged(&self, name: &str, text: &str) -> String {
        wait_for(&format!("`{text}` in the log of {name}"), || Some(self.log(name)).filter(|log| log.contains(text)))
            .await
    }

    /// Asks the supervisor to end and waits for it.
    pub async fn shut_down(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.ended().await.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let pid = Pid::from_raw(self.pid());
            // Twice: no waiting.
            let _ = kill(pid, Signal::SIGTERM);
            std::thread::sleep(Duration::from_millis(20));
            let _ = kill(pid, Signal::SIGTERM);
            let end = Instant::now() + Duration::from_secs(5);
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Moves itself into a control group that nobody delegated, and which is not the root of the hierarchy.
const LEAVE_GROUPS: &str = r#"for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do
        test -e $root/cgroup.procs && mkdir -p $root/not-delegated && echo $$ > $root/not-delegated/cgroup.procs
    done 2>/dev/null
    exec "$0" "$@""#;

fn spawn(plan: &Plan, launch: &Launch, relay: &Path, output: Stdio, groups: Groups) -> Process {
    let program = env!("CARGO_BIN_EXE_landfall");
    let mut command = match groups {
        Groups::IfPossible => Command::new(program),
        Groups::None => {
            let mut shell = Command::new("sh");
            shell.args(["-c", LEAVE_GROUPS, program]);
            shell
        }
    };
    command
        .args(["internal-supervisor", "--plan", &serde_json::to_string(plan).expect("json")])
        .args(["--launch", &serde_json::to_string(launch).expect("json")])
        .env(RELAY, relay)
        .stdin(Stdio::null())
        .stdout(if std::env::var("RUST_LOG").is_ok() { Stdio::inherit() } else { Stdio::null() })
        .stderr(output)
        .spawn()
        .expect("starts")
}

impl Controller {
    /// The end of an instance, as it is reported.
    pub async fn exited(&mut self, name: &str) -> Child {
        let wait = async {
            loop {
                if let Some(index) = self.ends.iter().position(|child| child.instance.as_str() == name) {
                    return self.ends.remove(index);
                }
                match self.events.recv().await {
                    Some(SupervisorEvent::Exited(child)) => self.ends.push(*child),
                    Some(SupervisorEvent::Lost) | None => panic!("the supervisor is gone"),
                    Some(_) => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("no end of {name} within {DEADLINE:?}"))
    }

    pub async fn stop(&self, name: &str, grace: u64) {
        self.link.stop(&InstanceId::from_recorded(name), Millis(grace)).await.expect("stops");
    }
}

/// Waits until `condition` yields something.
pub async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a thread of that process lives (a zombie does not; the first thread may end before the others).
pub fn lives(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

/// The number an instance wrote as `<word>=<number>`.
pub fn number(log: &str, word: &str) -> i32 {
    let start = log.find(&format!("{word}=")).unwrap_or_else(|| panic!("no {word} in:\n{log}")) + word.len() + 1;
    log[start..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}

pub fn status(child: &Child) -> String {
    match child.state {
        ChildState::Exited { status, stopped, .. } => format!("{status}, stopped: {stopped}"),
        ChildState::Running => "running".into(),
        ChildState::Stopping => "stopping".into(),
    }
}

fn inherited(wanted: &str) -> OwnedFd {
    let list = std::env::var(FDS_VARIABLE).expect("is told its descriptors");
    let fd = list.split(',').find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('=')).expect("has it");
    // SAFETY: inherited under this number for this process alone, and taken once.
    unsafe { OwnedFd::from_raw_fd(fd.parse().expect("a number")) }
}

/// Not a test: what the supervisor starts as its controller.
#[test]
#[ignore = "started by the supervisor"]
fn controller_stand_in() {
    let Ok(relay) = std::env::var(RELAY) else { return };
    let mut link = UnixStream::from(inherited("link"));
    let mut relay = UnixStream::connect(relay).expect("the test listens");
    relay.write_all(&std::process::id().to_ne_bytes()).expect("written");
    let (mut from, mut to) = (link.try_clone().expect("clones"), relay.try_clone().expect("clones"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut relay, &mut link);
}

/// Not a test: what the supervisor starts as a proxy. Answers every connection with its number.
#[test]
#[ignore = "started by the supervisor"]
fn proxy_stand_in() {
    if std::env::var(RELAY).is_err() {
        return;
    }
    let web = TcpListener::from(inherited("web"));
    web.set_nonblocking(false).expect("set");
    fs::File::from(inherited("ready")).write_all(b"1").expect("written");
    for stream in web.incoming().flatten() {
        let mut stream: TcpStream = stream;
        let _ = write!(stream, "{}", std::process::id());
    }
}

/// Which proxy answers now.
pub fn ask(address: SocketAddr) -> Option<i32> {
    try_ask(address).inspect_err(|error| eprintln!("{address} does not answer: {error}")).ok()
}

fn try_ask(address: SocketAddr) -> std::io::Result<i32> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.parse().map_err(|_| std::io::Error::other(format!("answered `{text}`")))
}
