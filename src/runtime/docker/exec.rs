//! A command in a container, by the engine's own way.

use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ExecConfig, ExecInspectResponse};
use bollard::query_parameters::ResizeExecOptions;
use futures_util::{Stream, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connection::words;
use super::{Shared, Stage};
use crate::domain::InstanceId;
use crate::runtime::exec::{ExecError, ExecStream};
use crate::wire::exec::{END_OF_INPUT, ExecEnd, ExecStart, Frame, MAX_PAYLOAD, TerminalSize};

/// A command that was asked to end has this long.
const GRACE: Duration = Duration::from_secs(5);
/// The engine knows how a command ended a moment after its output is over …
const LOOKS: u32 = 50;
/// … and is asked so often until then.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Runs a command in a container that runs.
pub(super) async fn run(
    shared: &Arc<Shared>,
    instance: &InstanceId,
    start: ExecStart,
) -> Result<ExecStream, ExecError> {
    let running = |known: &super::Known| (known.stage == Stage::Running).then(|| known.container.clone());
    let container = shared.with(|known| known.get(instance).and_then(running));
    let ending = || {
        ExecError::Refused(format!("instance {instance} does not run; `landfall instance list` shows those that do"))
    };
    let container = container.ok_or_else(ending)?;
    let client = shared.client().await?;
    let refused = |error: Error| ExecError::Refused(words(&error));
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(start.terminal.is_some()),
        env: start.terminal.and(start.term.as_ref()).map(|term| vec![format!("TERM={term}")]),
        cmd: Some(start.command.clone()),
        ..Default::default()
    };
    let id = client.create_exec(&container, config).await.map_err(refused)?.id;
    let options = StartExecOptions { detach: false, tty: start.terminal.is_some(), output_capacity: Some(MAX_PAYLOAD) };
    let StartExecResults::Attached { output, input } = client.start_exec(&id, Some(options)).await.map_err(refused)?
    else {
        return Err(ExecError::Refused("the engine does not attach to the command".to_owned()));
    };
    let exec = Exec { client, id, container };
    Ok(ExecStream::new(move |given, said| async move {
        if let Some(size) = start.terminal {
            exec.resize(size).await;
        }
        let end_of_input = start.terminal.is_some();
        // Whoever is gone has dropped this, wherever it is: the command must not run on for nobody.
        let mut running = EndWhenDropped(Some(exec.clone()));
        let finished = tokio::select! {
            finished = hand_back(output, &said) => finished,
            () = hand_over(given, input, &exec, end_of_input) => return,
        };
        if finished {
            running.0 = None;
            let _ = said.send(Frame::Ended(exec.how(&start).await)).await;
        }
    }))
}

/// A command in a container.
#[derive(Debug, Clone)]
struct Exec {
    client: Docker,
    id: String,
    container: String,
}

/// Ends its command when it is dropped with it.
struct EndWhenDropped(Option<Exec>);

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        if let (Some(exec), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { exec.end().await });
        }
    }
}

/// What the engine says of it.
async fn inspect(exec: &Exec) -> Result<ExecInspectResponse, Error> {
    exec.client.inspect_exec(&exec.id).await
}

impl Exec {
    async fn resize(&self, size: TerminalSize) {
        let options = ResizeExecOptions { h: i32::from(size.rows), w: i32::from(size.columns) };
        // A terminal of another size than its window still works.
        let _ = self.client.resize_exec(&self.id, options).await;
    }

    /// How it ended.
    async fn how(&self, start: &ExecStart) -> ExecEnd {
        let failed = |code: &str, message: String| ExecEnd::Failed { code: code.to_owned(), message };
        for _ in 0..LOOKS {
            match inspect(self).await {
                Ok(seen) if seen.running != Some(true) => {
                    let program = start.command.first().map_or("", String::as_str);
                    // What the engine's helper answers for a program that it cannot start.
                    return match seen.exit_code.and_then(|code| i32::try_from(code).ok()) {
                        Some(code) => ExecEnd::Exited { code },
                        None => failed("failed", format!("`{program}` was not started")),
                    };
                }
                Ok(_) => sleep(BETWEEN_LOOKS).await,
                Err(error) => return failed("lost", words(&error)),
            }
        }
        failed("lost", "its output is over, and the engine does not say how it ended".to_owned())
    }

    /// Engines have no way to end a command in a container but by its process, which is reached only on this machine.
    async fn end(&self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let Ok(seen) = inspect(self).await else { return };
            if seen.running != Some(true) {
                return;
            }
            let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| self.is_here(*pid));
            let Some(pid) = pid else {
                tracing::warn!(
                    container = self.container,
                    "a command in a container cannot be ended from here; it ends with the container"
                );
                return;
            };
            let _ = kill(Pid::from_raw(pid), signal);
            sleep(GRACE).await;
        }
    }

    /// Whether this number is that of a process of the container here, too: the engine may count in another machine.
    fn is_here(&self, pid: i32) -> bool {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        pid > 1 && groups.contains(&self.container)
    }
}

/// Ends when whoever gives has gone.
async fn hand_over(mut given: mpsc::Receiver<Frame>, input: Input, exec: &Exec, terminal: bool) {
    let mut input = Some(input);
    while let Some(frame) = given.recv().await {
        match (frame, &mut input) {
            (Frame::Input(bytes), Some(open)) => {
                // A program need not read what it is given.
                if open.write_all(&bytes).await.is_err() || open.flush().await.is_err() {
                    input = None;
                }
            }
            (Frame::InputEnd, Some(open)) if terminal => {
                if open.write_all(&[END_OF_INPUT]).await.is_err() || open.flush().await.is_err() {
                    input = None;
                }
            }
            (Frame::InputEnd, Some(open)) => {
                let _ = open.shutdown().await;
                input = None;
            }
            (Frame::Resize(size), _) if terminal => exec.resize(size).await,
            (
                Frame::Input(_)
                | Frame::InputEnd
                | Frame::Resize(_)
                | Frame::Start(_)
                | Frame::Output(_)
                | Frame::Error(_)
                | Frame::Ended(_),
                _,
            ) => {}
        }
    }
}

/// Whether the output has come to its end.
async fn hand_back(mut output: Output, said: &mpsc::Sender<Frame>) -> bool {
    while let Some(piece) = output.next().await {
        let frames: (fn(Vec<u8>) -> Frame, bytes::Bytes) = match piece {
            Ok(LogOutput::StdErr { message }) => (Frame::Error, message),
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => (Frame::Output, message),
            Ok(LogOutput::StdIn { .. }) => continue,
            Err(error) => {
                tracing::debug!(error = words(&error), "the output of a command in a container broke off");
                return true;
            }
        };
        let (frame, message) = frames;
        for part in message.chunks(MAX_PAYLOAD) {
            if said.send(frame(part.to_vec())).await.is_err() {
                return false;
            }
        }
    }
    true
}
