//! A `git://` server that counts who comes, and can be made to wait: the real `git daemon`, one for each connection,
//! behind a relay.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where a connection is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Before anything is answered.
    BeforeListing,
    /// After the references were listed, before anything is asked for.
    AfterListing,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    visits: AtomicUsize,
    fetches: AtomicUsize,
    /// Process groups of the daemons that run; nothing is started once `ended` is set.
    running: Mutex<Vec<i32>>,
    gate: Mutex<Gate>,
    moved: Condvar,
    ended: AtomicBool,
}

/// The server. Ends when it is dropped.
#[derive(Debug)]
pub struct GitServer {
    pub port: u16,
    shared: Arc<Shared>,
}

impl GitServer {
    /// `None` where there is no git command; CI must have it.
    pub fn serve(root: &Path) -> Option<Self> {
        if !crate::support::has_git("serve git://") {
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            visits: AtomicUsize::new(0),
            fetches: AtomicUsize::new(0),
            running: Mutex::default(),
            gate: Mutex::new(Gate::Open),
            moved: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.visits.fetch_add(1, Ordering::SeqCst);
                let visited = Arc::clone(&accepting);
                std::thread::spawn(move || visited.relay(&stream));
            }
        });
        Some(Self { port, shared })
    }

    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/fleet.git", self.port)
    }

    /// How many connections there were: each is one listing, and at most one fetch.
    pub fn visits(&self) -> usize {
        self.shared.visits.load(Ordering::SeqCst)
    }

    /// How many of them asked for objects.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    pub fn set_gate(&self, gate: Gate) {
        *self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
        self.shared.moved.notify_all();
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.set_gate(Gate::Open);
        // The accepting thread sees the end with the next connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        // Nothing may be left that names the test's directory.
        let deadline = Instant::now() + super::DEADLINE;
        loop {
            let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if running.is_empty() || Instant::now() > deadline {
                return;
            }
            for group in running {
                let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Shared {
    fn pass(&self, closed: Gate) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let _open = self.moved.wait_while(gate, |gate| *gate == closed).unwrap_or_else(PoisonError::into_inner);
    }

    fn relay(&self, stream: &TcpStream) {
        self.pass(Gate::BeforeListing);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ended.load(Ordering::SeqCst) {
            return;
        }
        let mut child = Command::new("git")
            .args(["daemon", "--inetd", "--export-all"])
            .arg(format!("--base-path={}", self.root.display()))
            .arg(&self.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("git daemon");
        let group = i32::try_from(child.id()).expect("a process id");
        running.push(group);
        drop(running);
        let (mut asked, mut told) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                copy(&mut told, &mut &*stream, |_| {});
                let _ = stream.shutdown(Shutdown::Write);
            });
            let mut first = true;
            copy(&mut &*stream, &mut asked, |bytes| {
                // The first bytes ask for the listing, whatever comes then asks for what was listed.
                if !std::mem::take(&mut first) {
                    self.pass(Gate::AfterListing);
                }
                if bytes.get(4..9) == Some(b"want ") {
                    self.fetches.fetch_add(1, Ordering::SeqCst);
                }
            });
            drop(asked);
        });
        let _ = child.wait();
        // Remembered until the last of the group is gone, or only waits for somebody to ask how it ended.
        let group_of = nix::unistd::Pid::from_raw(group);
        for _ in 0..500 {
            if nix::sys::signal::killpg(group_of, nix::sys::signal::Signal::SIGKILL).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != group);
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut before: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        before(&buffer[..length]);
        if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
