//! A `git://` server that counts who comes, and can be made to wait: the real `git daemon`, one for each connection,
//! behind a relay.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

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
        let git = Command::new("git").arg("--version").stdout(Stdio::null()).status();
        if !git.is_ok_and(|status| status.success()) {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs the git command");
            eprintln!("skipped: there is no git command here to serve git://");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            visits: AtomicUsize::new(0),
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
    }
}

impl Shared {
    fn pass(&self, closed: Gate) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let _open = self.moved.wait_while(gate, |gate| *gate == closed).unwrap_or_else(PoisonError::into_inner);
    }

    fn relay(&self, stream: &TcpStream) {
        self.pass(Gate::BeforeListing);
        let mut child = Command::new("git")
            .args(["daemon", "--inetd", "--export-all"])
            .arg(format!("--base-path={}", self.root.display()))
            .arg(&self.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon");
        let (mut asked, mut told) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                copy(&mut told, &mut &*stream, || {});
                let _ = stream.shutdown(Shutdown::Write);
            });
            let mut first = true;
            copy(&mut &*stream, &mut asked, || {
                // The first bytes ask for the listing, whatever comes then asks for what was listed.
                if !std::mem::take(&mut first) {
                    self.pass(Gate::AfterListing);
                }
            });
            drop(asked);
        });
        let _ = child.wait();
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut before: impl FnMut()) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        before();
        if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
