//! `landfall instance exec`: a command in an instance, as if it ran here.

use std::io::{self, IsTerminal, Read, Write};
use std::thread;

use nix::sys::termios::{self, SetArg, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::exit::{CliError, Exit, Outcome};
use super::{Context, winsize};
use crate::wire::exec::{ExecEnd, ExecStart, Frame, TerminalSize};

/// Standard input is read in pieces of this length.
const PIECE: usize = 16 * 1024;
/// For a terminal that does not say how large it is.
const USUAL: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// What is asked for.
pub(super) struct Asked<'a> {
    pub stdin: bool,
    pub tty: bool,
    pub instance: &'a str,
    pub command: &'a [String],
}

/// Runs it to its end; its exit code is this program's.
pub(super) async fn run(context: &Context, asked: Asked<'_>) -> Outcome {
    let with_terminal = asked.tty && io::stdin().is_terminal();
    if asked.tty && asked.stdin && !with_terminal {
        return Err(CliError::hinted(
            Exit::Usage,
            "standard input is no terminal",
            "leave out -t, or start it in a terminal",
        ));
    }
    let terminal = asked.tty.then(|| winsize::size().unwrap_or(USUAL));
    let start =
        ExecStart { command: asked.command.to_vec(), terminal, term: std::env::var("TERM").ok().filter(|_| asked.tty) };
    let mut exec = context.client.exec(asked.instance, start).await?;
    let input = exec.input();
    let raw = if with_terminal && asked.stdin { Some(Raw::enter()?) } else { None };
    if asked.stdin {
        hand_over(input.clone());
    } else if !asked.tty {
        let _ = input.send(Frame::InputEnd).await;
    }
    let mut resized = signal(SignalKind::window_change())?;
    let end = loop {
        let frame = tokio::select! {
            frame = exec.next() => frame?,
            Some(()) = resized.recv(), if asked.tty => {
                if let Some(size) = winsize::size() {
                    let _ = input.send(Frame::Resize(size)).await;
                }
                continue;
            }
        };
        match frame {
            Frame::Output(bytes) => write(&mut io::stdout().lock(), &bytes)?,
            Frame::Error(bytes) => write(&mut io::stderr().lock(), &bytes)?,
            Frame::Ended(end) => break end,
            Frame::Start(_) | Frame::Input(_) | Frame::InputEnd | Frame::Resize(_) => {}
        }
    };
    drop(raw);
    match end {
        ExecEnd::Exited { code } => Ok(Exit::Returned(u8::try_from(code).unwrap_or(u8::MAX))),
        ExecEnd::Killed { signal } => Ok(Exit::Returned(u8::try_from(128 + signal).unwrap_or(u8::MAX))),
        ExecEnd::Failed { code, message } => {
            let exit = match code.as_str() {
                "not_found" => Exit::Returned(127),
                "not_permitted" => Exit::Returned(126),
                _ => Exit::Failed,
            };
            Err(CliError::new(exit, message))
        }
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), CliError> {
    to.write_all(bytes)?;
    Ok(to.flush()?)
}

/// Reads standard input in a thread of its own, which waits for as long as there is neither input nor its end.
fn hand_over(input: mpsc::Sender<Frame>) {
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let frame = match io::stdin().lock().read(&mut buffer) {
                Ok(count @ 1..) => Frame::Input(buffer.get(..count).unwrap_or_default().to_vec()),
                Ok(0) | Err(_) => Frame::InputEnd,
            };
            let last = frame == Frame::InputEnd;
            if input.blocking_send(frame).is_err() || last {
                return;
            }
        }
    });
}

/// The terminal hands on every key as it is; as it was before when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
