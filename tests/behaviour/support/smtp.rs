//! A mail server on loopback: the part of SMTP that clients speak (RFC 5321, 3207, 4954), with STARTTLS or TLS from the
//! first byte, and a login that must be right. Knows no mailboxes; keeps what it took.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// When the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encrypted {
    FromTheFirstByte,
    ByStartTls,
    /// It does not know STARTTLS.
    Never,
}

/// A message that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub data: String,
    pub encrypted: bool,
    pub logged_in: bool,
}

struct State {
    /// Base64 of `\0user\0password`.
    login: Option<String>,
    encrypted: Encrypted,
    mails: Mutex<Vec<Mail>>,
    refusals: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// The server.
pub struct MailServer {
    pub port: u16,
    state: Arc<State>,
}

impl MailServer {
    pub fn start(tls: Arc<ServerConfig>, encrypted: Encrypted, login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            login: login.map(str::to_owned),
            encrypted,
            mails: Mutex::default(),
            refusals: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (state, tls) = (Arc::clone(&serving), Arc::clone(&tls));
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
                    // A client that goes away is its own business.
                    let _ = state.serve(stream, &tls);
                });
            }
        });
        Self { port, state }
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.mails.lock().expect("the mails").clone()
    }

    /// What was refused, by the command.
    pub fn refusals(&self) -> Vec<String> {
        self.state.refusals.lock().expect("the refusals").clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// How a conversation ended.
enum End {
    Over,
    StartTls,
}

impl State {
    fn serve(&self, mut stream: TcpStream, tls: &Arc<ServerConfig>) -> std::io::Result<()> {
        let secure = |stream: TcpStream| {
            let connection = ServerConnection::new(Arc::clone(tls)).expect("a TLS connection");
            StreamOwned::new(connection, stream)
        };
        if self.encrypted == Encrypted::FromTheFirstByte {
            let mut stream = secure(stream);
            stream.write_all(b"220 mail.test ready\r\n")?;
            return self.converse(&mut stream, true).map(drop);
        }
        stream.write_all(b"220 mail.test ready\r\n")?;
        match self.converse(&mut stream, false)? {
            End::Over => Ok(()),
            End::StartTls => self.converse(&mut secure(stream), true).map(drop),
        }
    }

    fn converse<S: Read + Write>(&self, stream: &mut S, encrypted: bool) -> std::io::Result<End> {
        let mut reader = BufReader::new(stream);
        let (mut from, mut to, mut logged_in) = (String::new(), Vec::new(), false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(End::Over);
            }
            let line = line.trim_end();
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let refuse = |reply: &str| {
                self.refusals.lock().expect("the refusals").push(verb.clone());
                reply.to_owned()
            };
            let reply = match verb.as_str() {
                "EHLO" => {
                    let mut reply = "250-mail.test\r\n".to_owned();
                    if !encrypted && self.encrypted == Encrypted::ByStartTls {
                        reply.push_str("250-STARTTLS\r\n");
                    }
                    if encrypted && self.login.is_some() {
                        reply.push_str("250-AUTH PLAIN\r\n");
                    }
                    reply + "250 8BITMIME"
                }
                "STARTTLS" if !encrypted && self.encrypted == Encrypted::ByStartTls => {
                    reader.get_mut().write_all(b"220 go ahead\r\n")?;
                    return Ok(End::StartTls);
                }
                "AUTH" => match line.strip_prefix("AUTH PLAIN ") {
                    Some(given) if encrypted && Some(given) == self.login.as_deref() => {
                        logged_in = true;
                        "235 welcome".to_owned()
                    }
                    Some(_) | None => refuse("535 that login is wrong"),
                },
                "MAIL" if self.login.is_some() && !logged_in => refuse("530 log in first"),
                "MAIL" => {
                    line.clone_into(&mut from);
                    "250 ok".to_owned()
                }
                "RCPT" => {
                    to.push(line.to_owned());
                    "250 ok".to_owned()
                }
                "DATA" => {
                    reader.get_mut().write_all(b"354 go on\r\n")?;
                    let mut data = String::new();
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line)? == 0 {
                            return Ok(End::Over);
                        }
                        if line == ".\r\n" {
                            break;
                        }
                        data.push_str(line.strip_prefix('.').unwrap_or(&line));
                    }
                    let mail = Mail { from: from.clone(), to: std::mem::take(&mut to), data, encrypted, logged_in };
                    self.mails.lock().expect("the mails").push(mail);
                    "250 taken".to_owned()
                }
                "RSET" | "NOOP" => "250 ok".to_owned(),
                "QUIT" => {
                    reader.get_mut().write_all(b"221 bye\r\n")?;
                    return Ok(End::Over);
                }
                _ => refuse("502 unknown"),
            };
            reader.get_mut().write_all(format!("{reply}\r\n").as_bytes())?;
        }
    }
}
