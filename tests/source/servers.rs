//! A git server of these tests as a forge would be: `git http-backend` behind HTTP or HTTPS, with a login, that counts its
//! requests and misbehaves on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a forge does wrong.
#[derive(Clone)]
pub enum Fault {
    /// Answers with this status and these further header lines.
    Status(&'static str, String),
    /// Takes the request and never answers.
    Hang,
    /// Ends the connection after so many bytes of a pack.
    CutPack(usize),
    /// Ends the connection after so many bytes of a listing.
    CutListing(usize),
    /// Says this instead of a listing, under the right content type.
    Garbage(&'static str),
    /// Does this between listing and pack.
    BeforePack(Arc<dyn Fn() + Send + Sync>),
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
}

struct State {
    root: PathBuf,
    login: Mutex<Option<String>>,
    fault: Mutex<Option<Fault>>,
    requests: Mutex<Vec<Request>>,
    stop: AtomicBool,
}

/// The server.
pub struct Forge {
    pub port: u16,
    scheme: &'static str,
    state: Arc<State>,
}

/// An authority of these tests, and a certificate it signed for 127.0.0.1 and `localhost`.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    /// `None`, with a message, where there is no `openssl` to make one.
    pub fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "openssl is missing; .ci/run installs it");
            eprintln!("skipped: there is no openssl to make a certificate with");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").current_dir(dir.path()).args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=Authority"));
        openssl(&format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=forge"));
        std::fs::write(dir.path().join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 30 -out leaf.pem",
        );
        Some(Self { dir })
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(self.dir.path().join("leaf.pem")).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.dir.path().join("leaf.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

impl Forge {
    /// Serves the repositories in `root`, over HTTPS if there is an authority.
    pub fn serve(root: &Path, authority: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            root: root.to_path_buf(),
            login: Mutex::default(),
            fault: Mutex::default(),
            requests: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let (serving, tls) = (Arc::clone(&state), authority.map(Authority::server));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (state, tls, stream) = (Arc::clone(&serving), tls.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                    let _ = match tls {
                        Some(tls) => {
                            let connection = ServerConnection::new(tls).unwrap();
                            serve_one(StreamOwned::new(connection, stream), &state)
                        }
                        None => serve_one(stream, &state),
                    };
                });
            }
        });
        Self { port, scheme: if authority.is_some() { "https" } else { "http" }, state }
    }

    pub fn url(&self) -> String {
        self.url_of("fleet.git")
    }

    pub fn url_of(&self, repository: &str) -> String {
        format!("{}://127.0.0.1:{}/{repository}", self.scheme, self.port)
    }

    /// From now on only this user with this password gets anything.
    pub fn wants(&self, user: &str, password: &str) {
        *self.state.login.lock().unwrap() = Some(basic(user, password));
    }

    /// From now on this is wrong, or nothing.
    pub fn fault(&self, fault: impl Into<Option<Fault>>) {
        *self.state.fault.lock().unwrap() = fault.into();
    }

    /// All requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The value of an `Authorization` header.
pub fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for three in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<(Request, Vec<u8>)> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut parts = first.split_whitespace();
    let (method, target) = (parts.next().unwrap_or("").to_owned(), parts.next().unwrap_or("").to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((Request { method, target, headers }, body))
}

fn serve_one(mut stream: impl Read + Write, state: &State) -> std::io::Result<()> {
    let (request, body) = read_request(&mut BufReader::new(&mut stream))?;
    state.requests.lock().unwrap().push(request.clone());
    let fault = state.fault.lock().unwrap().clone();
    match &fault {
        Some(Fault::Status(status, more)) => {
            return write!(stream, "HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Some(Fault::Hang) => {
            // Until the client gives up.
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        Some(Fault::Garbage(text)) => {
            let kind = "application/x-git-upload-pack-advertisement";
            let length = text.len();
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
            );
        }
        Some(Fault::BeforePack(act)) if request.method == "POST" => act(),
        Some(Fault::BeforePack(_) | Fault::CutPack(_) | Fault::CutListing(_)) | None => {}
    }
    let wanted = state.login.lock().unwrap().clone();
    if wanted.is_some() && request.headers.get("authorization") != wanted.as_ref() {
        let what = "WWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close";
        return write!(stream, "HTTP/1.1 401 Unauthorized\r\n{what}\r\n\r\n");
    }
    let (head, answer) = backend(state, &request, &body)?;
    write!(stream, "{head}Content-Length: {}\r\nConnection: close\r\n\r\n", answer.len())?;
    let shown = match (&fault, request.method.as_str()) {
        (Some(Fault::CutPack(bytes)), "POST") | (Some(Fault::CutListing(bytes)), "GET") => *bytes,
        _ => answer.len(),
    };
    stream.write_all(&answer[..shown.min(answer.len())])?;
    stream.flush()
}

/// Asks `git http-backend`; gives the beginning of the answer's head, and its body.
fn backend(state: &State, request: &Request, body: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    // A proxy is asked with the whole URL.
    let target = request
        .target
        .split_once("://")
        .map_or(request.target.as_str(), |(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut backend = Command::new("git")
        .args(["-c", "uploadpack.allowAnySHA1InWant=true", "http-backend"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", &state.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", request.headers.get("content-type").map_or("", String::as_str))
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    backend.stdin.take().unwrap().write_all(body)?;
    let mut output = Vec::new();
    backend.stdout.take().unwrap().read_to_end(&mut output)?;
    backend.wait()?;
    let split = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&output[..split]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let rest = head.lines().filter(|line| !line.starts_with("Status: ")).map(|line| format!("{line}\r\n"));
    Ok((format!("HTTP/1.1 {status}\r\n{}", rest.collect::<String>()), output[split + 4..].to_vec()))
}
