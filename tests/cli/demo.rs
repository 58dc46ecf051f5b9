//! `landfall demo` from its first line to its last: a push becomes a version, and nothing is left running.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::landfall;
use super::ports::free_port;

/// Nothing of a demo takes longer than this, however busy the machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// A running demo and what it has said.
struct Demo {
    process: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Demo {
    fn start(place: &Path, path: &str) -> Self {
        // Both are named: of two demos that look for the usual port at once, one would lose.
        let [listen, dashboard] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut process = landfall(place, &["demo", "--dir", "demo", "--listen", &listen, "--dashboard", &dashboard])
            .env("PATH", path)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, lines, said: Vec::new() }
    }

    /// Reads on until a line holds these words.
    fn until(&mut self, words: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line =
                line.unwrap_or_else(|error| panic!("no line with {words:?} ({error}):\n{}", self.said.join("\n")));
            self.said.push(line.clone());
            if line.contains(words) {
                return;
            }
        }
    }

    fn end(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.until("Stopped");
        assert!(self.process.wait().unwrap().success());
        self.said.join("\n")
    }
}

/// Replaces a text in a file of the repository's branch, as a push would.
fn push_edit(repository: &Path, file: &str, from: &str, to: &str) {
    let repository = git2::Repository::open_bare(repository).unwrap();
    let head = repository.head().unwrap().peel_to_commit().unwrap();
    let tree = head.tree().unwrap();
    let entry = tree.get_path(Path::new(file)).unwrap();
    let text = String::from_utf8(repository.find_blob(entry.id()).unwrap().content().to_vec()).unwrap();
    assert!(text.contains(from), "{file} holds {from:?}");
    let blob = repository.blob(text.replace(from, to).as_bytes()).unwrap();
    let mut update = git2::build::TreeUpdateBuilder::new();
    update.upsert(file, blob, git2::FileMode::Blob);
    let tree = repository.find_tree(update.create_updated(&repository, &tree).unwrap()).unwrap();
    let who = git2::Signature::now("Ada", "ada@example.org").unwrap();
    repository.commit(Some("refs/heads/main"), &who, &who, "an edit", &tree, &[&head]).unwrap();
}

fn nothing_is_left(place: &Path) {
    let needle = place.to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        assert!(own || !(command.contains(&needle) || cwd.starts_with(place)), "left running: {command}");
    }
}

#[test]
fn a_demo_without_python_brings_up_what_it_can_and_deploys_a_push() {
    let place = tempfile::tempdir().unwrap();
    let tools = place.path().join("bin");
    std::fs::create_dir(&tools).unwrap();
    for tool in ["sh", "date", "sleep"] {
        let found = ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists());
        std::os::unix::fs::symlink(found.expect(tool), tools.join(tool)).unwrap();
    }
    let mut demo = Demo::start(place.path(), &tools.to_string_lossy());
    demo.until("`python3` is not in PATH");
    demo.until("`node` is not in PATH");
    demo.until("clock");
    demo.until("Up after");
    demo.until("Ctrl-C ends the demo.");
    demo.until("notification schedule backup of clock failed");
    push_edit(&place.path().join("demo/fleet.git"), "clock/clock.sh", "every=5", "every=1");
    demo.until("clock v2 is live");
    push_edit(&place.path().join("demo/fleet.git"), "clock/backup.sh", "target=/mnt/no-such-disk", "target=/");
    demo.until("notification schedule backup of clock succeeded again");
    let said = demo.end();
    assert!(said.contains("is kept"), "{said}");
    nothing_is_left(place.path());
}

#[test]
fn a_demo_with_python_brings_up_all_apps_that_it_can_run_and_a_push_changes_the_page() {
    let path = std::env::var("PATH").unwrap();
    if !std::env::split_paths(&path).any(|dir| dir.join("python3").is_file()) {
        assert!(std::env::var_os("CI").is_none(), "python3 is missing, and CI must have it");
        eprintln!("skipped: python3 is not in PATH");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(place.path(), &path);
    demo.until("http://hello.localhost");
    demo.until("Ctrl-C ends the demo.");
    push_edit(&place.path().join("demo/fleet.git"), "hello/server.py", "seagreen", "rebeccapurple");
    demo.until("hello v2 is live");
    demo.end();
    nothing_is_left(place.path());
}
