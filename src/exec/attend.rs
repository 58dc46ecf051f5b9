//! A command that somebody runs in an instance: `landfall internal-attend`, started by the supervisor as one of the
//! instance's processes, in the instance's own setting.
//!
//! ```text
//! (start said) ──► running ──ended, output told──► (end said)
//!                     ├── whoever asked is gone ──► ending ──► (over)
//!                     └── the instance ends: SIGTERM ──► ending ──► (end said)
//! ```
//!
//! Its standard input is the connection to the controller; [`crate::wire::exec`] is spoken there. Invariant: the command
//! and what it started in its group lives at most [`GRACE`] longer than that connection, whoever ended it.

use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use super::ExecError;
use super::terminal::{self, Terminal};
use crate::wire::exec::{END_OF_INPUT, ExecEnd, ExecStart, Frame, Frames, TerminalSize};

/// What is to be run must be said within this time.
const START: Duration = Duration::from_secs(10);
/// A command that was asked to end has this long.
const GRACE: Duration = Duration::from_secs(5);
/// After the command's end its output is over when nothing has come for so long: what it left running may hold the pipes.
const QUIET: Duration = Duration::from_millis(500);
/// Output is read in pieces of this length.
const PIECE: usize = 32 * 1024;

/// Serves the connection that is this program's standard input.
pub fn run() -> Result<(), ExecError> {
    let failed = |doing| move |error| ExecError::System { doing, error };
    let connection = io::stdin().as_fd().try_clone_to_owned().map_err(failed("the connection cannot be used"))?;
    let connection = StdStream::from(connection);
    connection.set_nonblocking(true).map_err(failed("the connection cannot be used"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed("the runtime cannot be started"))?.block_on(async move {
        // Heard and not heeded: they are meant for the command, whose terminal is this session's.
        let kinds =
            [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::from_raw(libc::SIGTSTP)];
        let _heard = kinds.map(signal);
        let terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM cannot be awaited"))?;
        let (read, write) =
            UnixStream::from_std(connection).map_err(failed("the connection cannot be used"))?.into_split();
        serve(Asked { read, frames: Frames::default() }, Telling(Mutex::new(write)), terminate).await;
        Ok(())
    })
}

/// What whoever asked says.
struct Asked {
    read: OwnedReadHalf,
    frames: Frames,
}

impl Asked {
    /// The next frame; `None` once nobody is there any more, or what comes makes no sense.
    async fn next(&mut self) -> Option<Frame> {
        self.frames.read(&mut self.read).await.ok().flatten()
    }
}

/// What whoever asked is told.
struct Telling(Mutex<OwnedWriteHalf>);

impl Telling {
    /// Waits until it is taken, for as long as that takes: a slow reader slows the command down.
    async fn tell(&self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.encode().map_err(io::Error::other)?;
        self.0.lock().await.write_all(&bytes).await
    }
}

async fn serve(mut asked: Asked, telling: Telling, terminate: Signals) {
    let Ok(Some(Frame::Start(start))) = timeout(START, asked.next()).await else { return };
    let end = match begin(&start) {
        Ok(running) => running.until_its_end(asked, &telling, terminate).await,
        Err(error) => Some(not_started(&start, &error)),
    };
    if let Some(end) = end {
        // Nobody may listen any more.
        let _ = timeout(GRACE, telling.tell(&Frame::Ended(end))).await;
    }
}

fn not_started(start: &ExecStart, error: &io::Error) -> ExecEnd {
    let program = start.command.first().map_or("", String::as_str);
    let (code, message) = match error.kind() {
        io::ErrorKind::NotFound => ("not_found", format!("there is no program `{program}` in the instance's PATH")),
        io::ErrorKind::PermissionDenied => {
            ("not_permitted", format!("`{program}` must not be executed by the instance's user"))
        }
        _ => ("failed", format!("`{program}` cannot be started: {error}")),
    };
    ExecEnd::Failed { code: code.to_owned(), message }
}

/// A command that runs.
struct Running {
    child: Child,
    group: Option<Pid>,
    ends: Ends,
}

/// How it reads and writes.
enum Ends {
    Pipes,
    Terminal(Terminal, pipe::Receiver),
}

fn begin(start: &ExecStart) -> io::Result<Running> {
    let Some((program, arguments)) = start.command.split_first().filter(|(program, _)| !program.is_empty()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command is given"));
    };
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    let Some(size) = start.terminal else {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        return Ok(Running { group: group(&child), child, ends: Ends::Pipes });
    };
    let (terminal, from, theirs) = terminal::open(size)?;
    command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs.try_clone()?);
    command.env("TERM", start.term.as_deref().unwrap_or("xterm"));
    let child = command.spawn()?;
    let group = group(&child);
    if let Some(id) = group {
        nix::unistd::tcsetpgrp(&theirs, id)?;
        // It may have read before the terminal was its own, and was stopped for it.
        let _ = killpg(id, Signal::SIGCONT);
    }
    Ok(Running { child, group, ends: Ends::Terminal(terminal, from) })
}

fn group(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}

impl Running {
    /// Until it has ended and all it wrote is told; `None` when nobody is there to be told how.
    async fn until_its_end(self, asked: Asked, telling: &Telling, mut terminate: Signals) -> Option<ExecEnd> {
        let Self { mut child, group, ends } = self;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (terminal, shown) = match ends {
            Ends::Terminal(terminal, shown) => (Some(terminal), Some(shown)),
            Ends::Pipes => (None, None),
        };
        let (over, ended) = watch::channel(false);
        let told = async {
            tokio::join!(
                tell(shown, Frame::Output, telling, ended.clone()),
                tell(stdout, Frame::Output, telling, ended.clone()),
                tell(stderr, Frame::Error, telling, ended.clone()),
            )
        };
        let waited = async {
            let status = child.wait().await;
            over.send_replace(true);
            status
        };
        let ended_from_outside = async {
            terminate.recv().await;
            end(group).await;
            pending::<()>().await;
        };
        let status = {
            let finished = pin!(async { tokio::join!(told, waited).1 });
            let gone = pin!(heed(asked, stdin, terminal.as_ref()));
            let ended_from_outside = pin!(ended_from_outside);
            tokio::select! {
                status = finished => Some(status),
                () = gone => None,
                () = ended_from_outside => None,
            }
        };
        match status {
            Some(status) => Some(how(status)),
            None => {
                // What was in the terminal hears of its end by the kernel.
                drop(terminal);
                end_for_nobody(child, group).await;
                None
            }
        }
    }
}

/// Nobody is there any more: the command is asked to end, and made to.
async fn end_for_nobody(mut child: Child, group: Option<Pid>) {
    let waited = timeout(GRACE, async {
        if let Some(id) = group {
            let _ = killpg(id, Signal::SIGTERM);
        }
        let _ = child.wait().await;
    });
    let _ = waited.await;
    // Also what it leaves: the group's number is its own while one of it lives.
    if let Some(id) = group {
        let _ = killpg(id, Signal::SIGKILL);
    }
}

/// Asks a group to end, and makes it.
async fn end(group: Option<Pid>) {
    let Some(id) = group else { return };
    let _ = killpg(id, Signal::SIGTERM);
    sleep(GRACE).await;
    let _ = killpg(id, Signal::SIGKILL);
}

fn how(status: io::Result<ExitStatus>) -> ExecEnd {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ExecEnd::Exited { code },
            (None, signal) => ExecEnd::Killed { signal: signal.unwrap_or_default() },
        },
        Err(error) => ExecEnd::Failed {
            code: "lost".to_owned(),
            message: format!("the command's end cannot be awaited: {error}"),
        },
    }
}

/// Does what whoever asked says, until there is nobody any more.
async fn heed(mut asked: Asked, mut stdin: Option<ChildStdin>, terminal: Option<&Terminal>) {
    while let Some(frame) = asked.next().await {
        match (frame, terminal) {
            (Frame::Input(bytes), Some(terminal)) => drop(terminal.write(&bytes).await),
            (Frame::Input(bytes), None) => {
                // A program need not read what it is given.
                if let Some(open) = &mut stdin
                    && open.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            (Frame::InputEnd, Some(terminal)) => drop(terminal.write(&[END_OF_INPUT]).await),
            (Frame::InputEnd, None) => stdin = None,
            (Frame::Resize(size), Some(terminal)) => resize(terminal, size),
            (Frame::Resize(_), None) => {}
            (Frame::Start(_) | Frame::Output(_) | Frame::Error(_) | Frame::Ended(_), _) => return,
        }
    }
}

fn resize(terminal: &Terminal, size: TerminalSize) {
    // A terminal of another size than its window still works.
    let _ = terminal.resize(size);
}

/// After its command has ended, when nothing has come for a while.
async fn quiet(ended: &mut watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
    sleep(QUIET).await;
}

/// Tells what comes, until its end.
async fn tell(
    from: Option<impl AsyncRead + Unpin>,
    frame: fn(Vec<u8>) -> Frame,
    telling: &Telling,
    mut ended: watch::Receiver<bool>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = quiet(&mut ended) => return,
        };
        let Ok(count @ 1..) = read else { return };
        let piece = buffer.get(..count).unwrap_or_default().to_vec();
        if telling.tell(&frame(piece)).await.is_err() {
            return;
        }
    }
}
