//! What a repository of 10,000 apps on another machine costs: first look, a look without news, one changed app, a
//! thousand changed apps. Time and peak memory of this process, which is the reader alone.
//!
//! Over `git://` from a real `git daemon` on loopback, with the real manifest reader. `cargo bench --bench monorepo`.

#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use landfall::files::config::{GitReference, GitSource, SourceConfig, SourceKind};
use landfall::files::manifest::read_manifest;
use landfall::source::{KnownApps, Look, LookLimits, Looker, Seen};

const APPS: usize = 10_000;
const SHARDS: usize = 100;
const ROUNDS: usize = 21;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("fleet.git");
    run(dir.path(), &["init", "-q", "--bare", "-b", "main", "fleet.git"]);
    commit(&bare, (0..APPS).collect::<Vec<_>>().as_slice(), 0);
    run(&bare, &["repack", "-q", "-a", "-d"]);
    let daemon = Daemon::serve(dir.path());
    let mut bench = Bench::new(&dir.path().join("cache"), &daemon.url());

    println!("{APPS} apps in {SHARDS} directories, over git://");
    println!("{:<22} {:>10} {:>10} {:>12} {:>14}", "", "median ms", "worst ms", "apps read", "peak RSS MiB");
    bench.row("first look", 1, &mut |_| APPS);
    bench.row("no news", ROUNDS, &mut |_| 0);
    bench.row("one app changed", ROUNDS, &mut |round| {
        commit(&bare, &[round * 37 % APPS], round + 1);
        1
    });
    bench.row("1,000 apps changed", 3, &mut |round| {
        commit(&bare, (0..1000).map(|n| n * 10).collect::<Vec<_>>().as_slice(), 1000 + round);
        1000
    });
}

struct Bench {
    looker: Looker,
    known: KnownApps,
    seen: Option<Seen>,
}

impl Bench {
    fn new(cache: &Path, url: &str) -> Self {
        let git = GitSource { reference: GitReference::Branch("main".into()), ..GitSource::at(url) };
        let config = SourceConfig {
            environment: None,
            name: "bench".parse().unwrap(),
            kind: SourceKind::Git(git),
            brake: landfall::domain::Brake::Percent(30),
        };
        let read = Arc::new(|name: &str, text: &str| read_manifest(name, text).map_err(|errors| errors.to_string()));
        let looker = Looker::new(&config, cache, read, Arc::new(|_: &Path| panic!("not a directory"))).unwrap();
        Self { looker, known: KnownApps::default(), seen: None }
    }

    /// Looks so many times, each after `prepare`, which says how many apps must be read.
    fn row(&mut self, what: &str, rounds: usize, prepare: &mut dyn FnMut(usize) -> usize) {
        let (mut times, mut read) = (Vec::new(), 0);
        reset_peak();
        for round in 0..rounds {
            let expected = prepare(round);
            let deadline = Instant::now() + Duration::from_secs(300);
            let limits = LookLimits { deadline, cancel: Arc::new(AtomicBool::new(false)) };
            let started = Instant::now();
            let look = self.looker.look(self.seen.as_ref(), &self.known, &limits).unwrap();
            times.push(started.elapsed());
            read = match look {
                Look::Unchanged { .. } | Look::Diverged { .. } | Look::Refused(_) => 0,
                Look::Changed(reading) => {
                    self.known.apply(&reading);
                    self.seen = Some(reading.seen.clone());
                    assert!(reading.read.iter().all(|app| app.result.is_ok()));
                    reading.read.len()
                }
            };
            assert_eq!(read, expected);
        }
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{what:<22} {:>10.1} {:>10.1} {read:>12} {:>14}",
            ms(times[times.len() / 2]),
            ms(*times.last().unwrap()),
            peak().map_or_else(|| "unknown".to_owned(), |kib| format!("{:.1}", kib as f64 / 1024.0)),
        );
    }
}

/// Lets the peak start anew; where that is not allowed it stays that of the whole run.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// A commit that writes the files of these apps, each different in each round.
fn commit(bare: &Path, apps: &[usize], round: usize) {
    let mut stream =
        String::from("commit refs/heads/main\ncommitter A <a@example.com> 1700000000 +0000\ndata 3\nnew\n");
    if round > 0 {
        stream.push_str("from refs/heads/main^0\n");
    }
    let file = |stream: &mut String, path: &str, text: &str| {
        stream.push_str(&format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len()));
    };
    for app in apps {
        let directory = format!("apps/shard-{:02}/app-{app:05}", app % SHARDS);
        if round == 0 {
            let manifest = format!(
                "app: app-{app}\nenv: {{LOG_LEVEL: info}}\nweb:\n  main:\n    command: [python3, server.py]\n    health: {{path: /healthz}}\n"
            );
            file(&mut stream, &format!("{directory}/landfall.yaml"), &manifest);
            file(&mut stream, &format!("{directory}/lib/util.py"), &format!("X = {app}\n"));
        }
        file(&mut stream, &format!("{directory}/server.py"), &format!("print({app}, {round})\n"));
    }
    let mut import = Command::new("git")
        .current_dir(bare)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
}

fn run(path: &Path, arguments: &[&str]) {
    assert!(Command::new("git").current_dir(path).args(arguments).status().unwrap().success(), "{arguments:?}");
}

struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn serve(root: &Path) -> Self {
        use std::os::unix::process::CommandExt;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("git")
            .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .args([format!("--port={port}"), format!("--base-path={}", root.display())])
            .arg(root)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "git daemon does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("git://127.0.0.1:{}/fleet.git", self.port)
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
