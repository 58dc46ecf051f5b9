//! Commands that people run in an instance: [`ExecStream`] is one, wherever the instance lives.
//!
//! For a process the supervisor starts a program beside the instance and gives it a connection to a socket that is made
//! here for this one command; it speaks [`crate::wire::exec`], and the frames are handed on as they are. For a container
//! the engine's own way is translated (`docker/exec.rs`). Dropping the stream ends the command.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::docker::Trouble;
use super::supervisor_link::{LinkError, SupervisorLink};
use crate::domain::InstanceId;
use crate::short_path::with_short_path;
use crate::wire::exec::{ExecEnd, ExecStart, Frame, Frames};

/// Frames that wait in each direction; behind them the other side is slowed down.
const WAITING: usize = 8;
/// The program beside the instance must be there after this long.
const CONNECTED: Duration = Duration::from_secs(10);

/// Why no command is run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The supervisor does not do it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A socket cannot be made, or is not connected to.
    #[error("a command cannot be run: {0}")]
    Io(#[from] io::Error),
    /// The engine is not there.
    #[error(transparent)]
    Engine(#[from] Trouble),
    /// The engine does not do it.
    #[error("{0}")]
    Refused(String),
}

/// A command that runs. Dropping it ends the command.
#[derive(Debug)]
pub struct ExecStream {
    /// What it is given. Closed while it runs, this ends it: whoever asked is gone.
    pub input: mpsc::Sender<Frame>,
    /// What it says; [`Frame::Ended`] is the last. Ends without it when its end is not known.
    pub output: mpsc::Receiver<Frame>,
    _task: AbortOnDropHandle<()>,
}

impl ExecStream {
    /// One that `run` serves.
    pub(super) fn new<F>(run: impl FnOnce(mpsc::Receiver<Frame>, mpsc::Sender<Frame>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (input, given) = mpsc::channel(WAITING);
        let (said, output) = mpsc::channel(WAITING);
        Self { input, output, _task: AbortOnDropHandle::new(tokio::spawn(run(given, said))) }
    }
}

/// A socket for one connection; its file is gone with it.
struct Rendezvous {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Rendezvous {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("exec-{:016x}.sock", fastrand::u64(..)));
        let listener = with_short_path(&path, |short| StdListener::bind(short))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path })
    }

    async fn connected(self) -> io::Result<UnixStream> {
        let accepted = tokio::time::timeout(CONNECTED, self.listener.accept()).await;
        Ok(accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.0)
    }
}

/// Runs a command beside an instance that is a process. `directory` belongs to the agent alone.
pub(super) async fn in_process(
    link: &SupervisorLink,
    directory: &Path,
    instance: &InstanceId,
    start: ExecStart,
) -> Result<ExecStream, ExecError> {
    let rendezvous = Rendezvous::new(directory)?;
    link.attend(instance, &rendezvous.path).await?;
    let (read, mut write) = rendezvous.connected().await?.into_split();
    let start = Frame::Start(start).encode().map_err(|error| ExecError::Refused(error.to_string()))?;
    write.write_all(&start).await?;
    Ok(ExecStream::new(|given, said| async move {
        tokio::select! {
            () = hand_over(given, write) => {}
            () = hand_back(read, said) => {}
        }
    }))
}

/// Ends when whoever gives has gone, or whoever takes.
async fn hand_over(mut given: mpsc::Receiver<Frame>, mut write: OwnedWriteHalf) {
    while let Some(frame) = given.recv().await {
        let Ok(bytes) = frame.encode() else { return };
        if write.write_all(&bytes).await.is_err() {
            // It may still have something to say.
            std::future::pending::<()>().await;
        }
    }
}

async fn hand_back(mut read: OwnedReadHalf, said: mpsc::Sender<Frame>) {
    let mut frames = Frames::default();
    while let Ok(Some(frame)) = frames.read(&mut read).await {
        let last = matches!(frame, Frame::Ended(_));
        if said.send(frame).await.is_err() || last {
            return;
        }
    }
    lost(&said).await;
}

/// The program was killed: with the instance, or for want of memory.
async fn lost(said: &mpsc::Sender<Frame>) {
    let message =
        "the command ended with its instance, or was killed with it; `landfall instance list` shows what runs";
    let _ = said.send(Frame::Ended(ExecEnd::Failed { code: "lost".to_owned(), message: message.to_owned() })).await;
}
