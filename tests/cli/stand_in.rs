//! Something that answers on a socket like an agent, with answers given beforehand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Status, content type and body for `METHOD /path` (without the query).
pub type Answers = HashMap<&'static str, (u16, &'static str, String)>;

/// Answers on `agent.sock` in the directory until the test ends.
pub fn stand_in(directory: &Path, answers: Answers) {
    let listener = UnixListener::bind(directory.join("agent.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &answers);
        }
    });
}

fn answer(stream: UnixStream, answers: &Answers) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    let mut length = 0;
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let missing = (404, "text/plain", String::new());
    let (status, kind, body) = answers.get(format!("{method} {path}").as_str()).unwrap_or(&missing);
    let head = format!(
        "HTTP/1.1 {status} Answer\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = reader.into_inner();
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}
