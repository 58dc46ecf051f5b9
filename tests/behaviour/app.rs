//! The app that the tests deploy: a small HTTP server and a few ways to misbehave. Little but the standard library,
//! so that it starts in a millisecond.
//!
//! `test-app serve` answers on `$HOST:$PORT`:
//! - `/` the content of `content.txt` beside it, with its version in `App-Version`
//! - `/slow?ms=N` the same after N milliseconds
//! - `/healthz` 200, or the status in the file `health` if there is one
//! - `/env` its environment, a line each
//! - `/echo` the request's body
//! - `/exit?code=N` ends the process
//! - `/stream?ms=N` the version, ten times in N milliseconds
//! - `/socket` after a WebSocket handshake sends back what it gets

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
// Leaving processes behind is what it is asked to do.
#![allow(clippy::zombie_processes)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static FLAPPING: AtomicBool = AtomicBool::new(false);
static CALLS: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
static PROBED: AtomicBool = AtomicBool::new(false);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve"] => serve(&address()),
        ["serve-after", millis] => {
            std::thread::sleep(Duration::from_millis(millis.parse().expect("milliseconds")));
            serve(&address());
        }
        ["serve-on", elsewhere] => serve(elsewhere),
        // Serves well for a while, then crashes.
        ["serve-then-exit", millis, code] => {
            let (millis, code): (u64, i32) = (millis.parse().expect("milliseconds"), code.parse().expect("a code"));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(millis));
                std::process::exit(code);
            });
            serve(&address());
        }
        // Becomes ready, and then no probe is answered well: it fails after its switch, however long that takes.
        ["serve-flapping"] => {
            FLAPPING.store(true, Ordering::Relaxed);
            serve(&address());
        }
        ["exit", code, words @ ..] => {
            eprintln!("{}", words.join(" "));
            std::process::exit(code.parse().expect("a code"));
        }
        ["sleep", ..] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        // A process that has left its parent's session and process group.
        ["sleep-apart", ..] => {
            nix::unistd::setsid().expect("a session");
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        // Leaves processes behind, one of them in a session of its own, and does not wait for them.
        ["with-orphans", then @ ..] => {
            let this = std::env::current_exe().expect("this program");
            for mode in ["sleep", "sleep-apart"] {
                std::process::Command::new(&this).args([mode, "orphan"]).spawn().expect("a process");
            }
            match then {
                ["serve"] => serve(&address()),
                _ => std::thread::sleep(Duration::from_secs(3600)),
            }
        }
        // SIGTERM is blocked in this thread and in all that it starts, and so has no effect.
        ["serve-ignoring-sigterm"] => {
            let mut signals = nix::sys::signal::SigSet::empty();
            signals.add(nix::sys::signal::Signal::SIGTERM);
            signals.thread_block().expect("blocked");
            serve(&address());
        }
        // A function; each call that reaches it is a line in the file.
        ["calls", file] => {
            CALLS.set(file.into()).expect("set once");
            serve(&address());
        }
        // A worker that says when it starts and holds a lock file while it runs: two at once are an error.
        ["worker", lock] => worker(lock),
        ["flood", megabytes] => {
            let line = [b'x'; 1023];
            let mut out = std::io::stdout().lock();
            for _ in 0..megabytes.parse::<usize>().expect("megabytes") * 1024 {
                out.write_all(&line).and_then(|()| out.write_all(b"\n")).expect("written");
            }
            drop(out);
            serve(&address());
        }
        other => panic!("test-app does not know {other:?}"),
    }
}

fn address() -> String {
    let host = std::env::var("HOST").expect("$HOST");
    format!("{host}:{}", std::env::var("PORT").expect("$PORT"))
}

fn worker(lock: &str) {
    let exclusive = std::fs::OpenOptions::new().create(true).append(true).open(lock).expect("the lock file");
    if exclusive.try_lock().is_err() {
        eprintln!("another worker runs");
        std::process::exit(9);
    }
    println!("worker {} starts", std::env::var("LANDFALL_VERSION").unwrap_or_default());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn serve(address: &str) {
    let listener = TcpListener::bind(address).expect("the address is free");
    println!("listening on {address}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || drop(connection(stream)));
    }
}

fn connection(client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut writer = client.try_clone()?;
    let mut reader = BufReader::new(client);
    loop {
        let mut head = String::new();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        let target = head.split_whitespace().nth(1).unwrap_or("/").to_owned();
        let (mut length, mut close, mut upgrade) = (0, false, false);
        let (mut call, mut attempt) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if let Some(value) = line.strip_prefix("landfall-call:") {
                call = value.trim().to_owned();
            }
            if let Some(value) = line.strip_prefix("landfall-attempt:") {
                attempt = value.trim().parse().unwrap_or(0);
            }
            close |= line == "connection: close";
            upgrade |= line == "upgrade: websocket";
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let version = std::env::var("LANDFALL_VERSION").unwrap_or_default();
        if upgrade {
            return socket(&mut reader, &mut writer, &version);
        }
        if let Some(millis) = target.strip_prefix("/stream?ms=") {
            stream(&mut writer, &version, millis.parse().unwrap_or(0))?;
            continue;
        }
        let (status, answer) = match CALLS.get() {
            Some(file) => called(file, &call, attempt, body),
            None => answer(&target, body),
        };
        let head =
            format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nApp-Version: {version}\r\n\r\n", answer.len());
        let mut whole = head.into_bytes();
        whole.extend_from_slice(&answer);
        writer.write_all(&whole)?;
        if close {
            return Ok(());
        }
    }
}

/// What a client sees of a WebSocket matters here, not what is in it: bytes come back as they are.
fn socket(reader: &mut impl Read, writer: &mut impl Write, version: &str) -> std::io::Result<()> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    write!(writer, "{head}Sec-WebSocket-Accept: any\r\nApp-Version: {version}\r\n\r\n")?;
    let mut bytes = [0; 1024];
    loop {
        match reader.read(&mut bytes)? {
            0 => return Ok(()),
            length => writer.write_all(&bytes[..length])?,
        }
    }
}

fn stream(writer: &mut impl Write, version: &str, millis: u64) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nApp-Version: {version}\r\n\r\n")?;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(millis / 10));
        write!(writer, "{:x}\r\n{version}\r\n", version.len())?;
    }
    writer.write_all(b"0\r\n\r\n")
}

/// What a call's body asks for: `wait MS`, `fail ATTEMPTS`, `die ATTEMPTS`, `long BYTES`; anything else comes back.
fn called(file: &std::path::Path, call: &str, attempt: u64, body: Vec<u8>) -> (u16, Vec<u8>) {
    let line = format!("{call} {attempt}\n");
    let mut ran = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the file of calls");
    // One write, so that lines of several processes stay whole.
    ran.write_all(line.as_bytes()).expect("written");
    let text = String::from_utf8_lossy(&body).into_owned();
    let (word, number) = text.split_once(' ').unwrap_or((&text, ""));
    let number: u64 = number.parse().unwrap_or(0);
    match word {
        "wait" => {
            std::thread::sleep(Duration::from_millis(number));
            (200, body)
        }
        "fail" if attempt <= number => (500, b"as it was asked to".to_vec()),
        "die" if attempt <= number => std::process::exit(7),
        "long" => (200, vec![b'x'; usize::try_from(number).unwrap_or(0)]),
        _ => (200, body),
    }
}

fn answer(target: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = |name: &str| query.strip_prefix(name).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    match path {
        "/slow" => {
            std::thread::sleep(Duration::from_millis(number("ms=")));
            (200, content())
        }
        "/healthz" if FLAPPING.load(Ordering::Relaxed) && PROBED.swap(true, Ordering::Relaxed) => (503, Vec::new()),
        "/healthz" => {
            let status = std::fs::read_to_string("health").ok().and_then(|text| text.trim().parse().ok());
            (status.unwrap_or(200), b"health\n".to_vec())
        }
        "/env" => {
            let all: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            (200, all.join("\n").into_bytes())
        }
        "/echo" => (200, body),
        "/status" => (u16::try_from(number("code=")).unwrap_or(500), Vec::new()),
        "/exit" => std::process::exit(i32::try_from(number("code=")).unwrap_or(1)),
        _ => (200, content()),
    }
}

fn content() -> Vec<u8> {
    std::fs::read("content.txt").unwrap_or_else(|_| b"no content\n".to_vec())
}
