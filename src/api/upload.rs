//! Taking an uploaded archive from the network to a directory, and removing it again.
//!
//! ```text
//! network ─► bounded channel ─► blocking thread: tar ─► upload directory ─► engine ─► removed
//! ```
//!
//! Invariant: the directory is removed however the upload ends, at the latest when the controller starts again.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::problem::Refusal;
use super::unpack::{UnpackError, unpack};
use crate::wire::api::MAX_UPLOAD;

/// How long the sender may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How many pieces may wait for the disk.
const PIECES: usize = 8;
/// How long the rest of a refused upload is still taken, so that the sender gets to read why.
const DISCARD: Duration = Duration::from_secs(10);

/// Receives `body` into a new directory below `uploads`.
pub async fn receive(body: Body, uploads: &Path) -> Result<TempDir, Refusal> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let uploads = uploads.to_owned();
    let thread = tokio::task::spawn_blocking(move || store(receiver, &uploads));
    let mut body = body;
    let sent = forward(&mut body, sender).await;
    let stored = thread.await.map_err(|error| Refusal::internal(format!("unpacking an upload failed: {error}")))?;
    let refusal = match (sent, stored) {
        (Ok(()), Ok(directory)) => return Ok(directory),
        // What the sender did wrong explains what the archive then lacks.
        (Err(Ended::Refused(refusal)), _) => refusal,
        (_, Err(error)) => refuse(&error),
        (Err(Ended::Unread), Ok(_)) => Refusal::internal("an upload was unpacked before it ended"),
    };
    discard(body).await;
    Err(refusal)
}

/// Removes an upload, away from the threads that answer calls.
pub async fn remove(directory: TempDir) {
    let place = directory.path().to_owned();
    let removed = tokio::task::spawn_blocking(move || directory.close()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!("the upload {} could not be removed: {error}; it goes at the next start", place.display());
    }
}

/// Why the body was not read to its end.
enum Ended {
    /// The unpacking thread takes no more; it knows why.
    Unread,
    Refused(Refusal),
}

async fn forward(body: &mut Body, sender: mpsc::Sender<io::Result<Bytes>>) -> Result<(), Ended> {
    let ended = match forward_all(body, &sender).await {
        Ok(()) => return Ok(()),
        Err(ended) => ended,
    };
    // Without this the thread would take the end of the channel for the end of the archive.
    let _ = tokio::time::timeout(SILENCE, sender.send(Err(io::Error::other("the upload broke off")))).await;
    Err(ended)
}

async fn forward_all(body: &mut Body, sender: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), Ended> {
    let mut received = 0_u64;
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broke_off(&error)),
            Err(_) => return Err(silent()),
        };
        let Ok(piece) = frame.into_data() else { continue };
        received += piece.len() as u64;
        if received > MAX_UPLOAD {
            return Err(Ended::Refused(too_large()));
        }
        sender.send(Ok(piece)).await.map_err(|_| Ended::Unread)?;
    }
}

fn broke_off(error: &axum::Error) -> Ended {
    Ended::Refused(Refusal::unreadable(format!("the upload broke off: {error}"), "send it again"))
}

fn silent() -> Ended {
    let title = format!("nothing of the upload arrived for {} s", SILENCE.as_secs());
    Ended::Refused(Refusal::new(StatusCode::REQUEST_TIMEOUT, title, "send it again"))
}

/// What an upload beyond the limit gets.
pub fn too_large() -> Refusal {
    let title = format!("the upload is bigger than {} MiB", MAX_UPLOAD / 1024 / 1024);
    let mend = "move what is no part of the app out of its directory";
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, title, mend)
}

/// Takes what is still sent, within bounds.
async fn discard(mut body: Body) {
    let drained = tokio::time::timeout(DISCARD, async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len) as u64;
            if taken > MAX_UPLOAD {
                break;
            }
        }
    });
    let _ = drained.await;
}

fn store(receiver: mpsc::Receiver<io::Result<Bytes>>, uploads: &Path) -> Result<TempDir, UnpackError> {
    let unwritable = |why| UnpackError::Write { place: uploads.to_owned(), why };
    std::fs::create_dir_all(uploads).map_err(unwritable)?;
    let directory = tempfile::Builder::new().prefix("upload-").tempdir_in(uploads).map_err(unwritable)?;
    unpack(Pieces { receiver, piece: Bytes::new() }, directory.path())?;
    Ok(directory)
}

fn refuse(error: &UnpackError) -> Refusal {
    let text = error.to_string();
    match error {
        UnpackError::Archive(_) => Refusal::unreadable(text, "send a tar archive of the app's directory"),
        UnpackError::Entry { .. } => Refusal::invalid(text, "leave it out of the archive, or put something else there"),
        UnpackError::TooMany => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text, "move what is no part of the app out of its directory")
        }
        UnpackError::Write { why, .. } if why.kind() == io::ErrorKind::InvalidFilename => {
            Refusal::invalid(text, "shorten the name")
        }
        UnpackError::Write { .. } => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            text,
            "make room in the agent's data directory and check that the agent may write there",
        ),
    }
}

/// The pieces of the channel as one stream of bytes, for the blocking thread.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let taken = self.piece.len().min(into.len());
        self.piece.copy_to_slice(&mut into[..taken]);
        Ok(taken)
    }
}
