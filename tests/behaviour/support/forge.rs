//! A forge on loopback: git's own `http-backend` behind a small web server that counts listings and can be told to
//! misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the forge answers.
#[derive(Debug, Clone, Default)]
pub enum Mood {
    /// As git does.
    #[default]
    Well,
    /// With this status line and these header lines, to everything.
    Says(&'static str, &'static str),
    /// Never.
    Hangs,
}

#[derive(Debug, Default)]
struct Shared {
    root: PathBuf,
    mood: Mutex<Mood>,
    /// When each listing was asked for.
    listings: Mutex<Vec<Instant>>,
    requests: AtomicU64,
    stop: AtomicBool,
}

/// A running forge.
pub struct Forge {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Forge {
    /// Serves the repositories of a directory; `None` where there is no git. CI must have it.
    pub fn serve(root: &Path) -> Option<Self> {
        if !crate::support::has_git("serve http://") {
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { root: root.to_owned(), ..Shared::default() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || {
                    // A client that goes away is its own business.
                    let _ = shared.answer(stream);
                });
            }
        });
        Some(Self { port, shared })
    }

    pub fn url(&self, host: &str, repository: &str) -> String {
        format!("http://{host}:{}/{repository}", self.port)
    }

    pub fn mood(&self, mood: Mood) {
        *self.shared.mood.lock().expect("the mood") = mood;
    }

    /// When each listing so far was asked for.
    pub fn listings(&self) -> Vec<Instant> {
        self.shared.listings.lock().expect("the listings").clone()
    }

    /// How many requests of any kind there were.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until there have been so many listings.
    pub async fn until_listings(&self, count: usize) {
        super::until(&format!("{count} listings"), || async {
            let now = self.listings().len();
            if now >= count { Ok(()) } else { Err(format!("{now}")) }
        })
        .await;
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut words = first.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (mut length, mut kind, mut version) = (0, String::new(), String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "content-type" => kind = value.to_owned(),
                "git-protocol" => version = value.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        if path.ends_with("/info/refs") {
            self.listings.lock().expect("the listings").push(Instant::now());
        }
        let mood = self.mood.lock().expect("the mood").clone();
        match mood {
            Mood::Well => {}
            Mood::Says(status, headers) => {
                return write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
            }
            Mood::Hangs => {
                // Until the client gives up or the forge ends.
                while !self.stop.load(Ordering::SeqCst) {
                    match stream.read(&mut [0; 64]) {
                        Ok(0) => return Ok(()),
                        Ok(_) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                return Ok(());
            }
        }
        let mut backend = Command::new("git")
            .arg("http-backend")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("REQUEST_METHOD", method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", kind)
            .env("CONTENT_LENGTH", length.to_string())
            .env("GIT_PROTOCOL", version)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        backend.stdin.take().expect("its input").write_all(&body)?;
        let output = backend.wait_with_output()?.stdout;
        let split = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
        let head = String::from_utf8_lossy(&output[..split]).into_owned();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let kept = head.lines().filter(|line| !line.starts_with("Status: "));
        let head: String = kept.map(|line| format!("{line}\r\n")).collect();
        let body = output.get(split + 4..).unwrap_or_default();
        write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        stream.write_all(body)
    }
}
