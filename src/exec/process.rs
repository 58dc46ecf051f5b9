//! One call as a process: body on standard input, result from standard output, standard error into the log.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::domain::secret::mask;

/// Longest result.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;
/// Last lines of standard error that are told with a failure, and the longest such line.
const TAIL: (usize, usize) = (50, 4096);
/// A group that was asked to end has this long.
const GRACE: Duration = Duration::from_secs(5);

/// What the process is told of its call.
#[derive(Debug)]
pub(super) struct Asked {
    pub call: String,
    pub attempt: String,
    pub deadline: String,
    pub function: String,
    /// Empty where nobody said anything of a trace.
    pub traceparent: String,
}

/// It ended well.
#[derive(Debug)]
pub(super) struct End {
    pub output: Vec<u8>,
}

/// It did not.
#[derive(Debug)]
pub(super) struct Failure {
    /// `start`, `exit`, `signal` or `output`.
    pub kind: &'static str,
    pub message: String,
    /// The last lines it wrote to standard error.
    pub tail: String,
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
}

impl Failure {
    fn new(kind: &'static str, message: String) -> Self {
        Self { kind, message, tail: String::new(), code: None }
    }
}

/// Runs the command to its end. Dropping this ends its whole group.
pub(super) async fn run(command: &[String], secrets: &[String], asked: &Asked, body: Incoming) -> Result<End, Failure> {
    let mut group = start(command, asked)?;
    let (stdin, stdout, stderr) = (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
    let feeding = async {
        if let Some(stdin) = stdin {
            // A program need not read what it is given.
            let _ = feed(stdin, body).await;
        }
    };
    let mut output = Vec::new();
    let reading = async {
        match stdout {
            Some(stdout) => {
                let mut limited = stdout.take(MAX_OUTPUT as u64 + 1);
                limited.read_to_end(&mut output).await
            }
            None => Ok(0),
        }
    };
    let mut tail = VecDeque::new();
    let logging = async {
        if let Some(stderr) = stderr {
            log_lines(stderr, &asked.call, secrets, &mut tail).await;
        }
    };
    // What it started may hold the pipes open longer than it runs: the result is there when the pipes are closed.
    let ended = async {
        let (read, (), status) = tokio::join!(reading, logging, group.child.wait());
        (read, status)
    };
    let (read, status) = with_feeding(feeding, ended).await;
    let failed = |kind, message| {
        let lines: Vec<String> = tail.iter().cloned().collect();
        Failure { tail: lines.join("\n"), ..Failure::new(kind, message) }
    };
    let status = status.map_err(|error| failed("exit", format!("its end cannot be awaited: {error}")))?;
    group.over = true;
    read.map_err(|error| failed("output", format!("its output cannot be read: {error}")))?;
    if output.len() > MAX_OUTPUT {
        return Err(failed("output", format!("it wrote more than {} MiB", MAX_OUTPUT / 1024 / 1024)));
    }
    match said(status) {
        None => Ok(End { output }),
        Some((kind, message)) => Err(Failure { code: status.code(), ..failed(kind, message) }),
    }
}

/// Feeds while the process runs; what it has not read by its end nobody will.
async fn with_feeding<T>(feeding: impl Future<Output = ()>, ended: impl Future<Output = T>) -> T {
    let (mut feeding, mut ended) = (std::pin::pin!(feeding), std::pin::pin!(ended));
    tokio::select! {
        () = &mut feeding => ended.await,
        ended = &mut ended => ended,
    }
}

fn said(status: ExitStatus) -> Option<(&'static str, String)> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(("exit", format!("exit code {code}"))),
        (None, Some(signal)) => Some(("signal", format!("ended by signal {signal}"))),
        (None, None) => Some(("exit", "ended in an unknown way".to_owned())),
    }
}

/// The process and what it started. Ends with this, unless it has ended.
struct Group {
    child: Child,
    id: Option<Pid>,
    over: bool,
}

fn start(command: &[String], asked: &Asked) -> Result<Group, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new("start", "no command is given".to_owned()));
    };
    let traceparent = Some(&asked.traceparent).filter(|parent| !parent.is_empty());
    let child = Command::new(program)
        .args(arguments)
        .env_remove("PORT")
        .env_remove("HOST")
        .env_remove("LANDFALL_SECRETS")
        .env("LANDFALL_CALL", &asked.call)
        .env("LANDFALL_ATTEMPT", &asked.attempt)
        .env("LANDFALL_DEADLINE", &asked.deadline)
        .env("LANDFALL_FUNCTION", &asked.function)
        .envs(traceparent.map(|parent| ("TRACEPARENT", parent)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::new("start", format!("`{program}` cannot be started: {error}")))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    Ok(Group { child, id, over: false })
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.id.filter(|_| !self.over) else { return };
        let _ = killpg(id, Signal::SIGTERM);
        // Reaped by the runtime once it has ended; its number stays its own until then.
        drop(tokio::task::spawn_local(async move {
            tokio::time::sleep(GRACE).await;
            let _ = killpg(id, Signal::SIGKILL);
        }));
    }
}

async fn feed(mut stdin: ChildStdin, mut body: Incoming) -> io::Result<()> {
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        stdin.write_all(&data).await?;
    }
    Ok(())
}

/// Hands lines on as lines of this call.
async fn log_lines(stderr: impl AsyncRead + Unpin, call: &str, secrets: &[String], tail: &mut VecDeque<String>) {
    let (lines, longest) = TAIL;
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end is cut into pieces, so that none is ever kept whole.
        let read = (&mut reader).take(longest as u64).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let shown = masked(&String::from_utf8_lossy(text), secrets);
        // Bytes that are no text stay as they are where nothing has to be hidden.
        write_tagged(call, if secrets.is_empty() { text } else { shown.as_bytes() });
        tail.push_back(shown);
        if tail.len() > lines {
            tail.pop_front();
        }
    }
}

/// A line without values of secrets: logs and messages about failures are read by more people than may know them.
fn masked(line: &str, secrets: &[String]) -> String {
    mask(line, secrets.iter().map(String::as_str))
}

fn write_tagged(call: &str, text: &[u8]) {
    let mut whole = Vec::with_capacity(text.len() + call.len() + 3);
    if !call.is_empty() {
        whole.push(0x1e);
        whole.extend_from_slice(call.as_bytes());
        whole.push(0x1f);
    }
    whole.extend_from_slice(text);
    whole.push(b'\n');
    // Without a log the call goes on.
    let _ = io::stderr().lock().write_all(&whole);
}
