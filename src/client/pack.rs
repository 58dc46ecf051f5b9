//! An app's directory as a stream of tar, made while it is sent, so that memory stays small however big it is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::ClientError;
use crate::wire::api::MAX_UPLOAD;

/// Size of the pieces handed to the network.
const PIECE: usize = 64 * 1024;
/// How many pieces may wait.
const PIECES: usize = 8;

/// The thread that reads the directory.
#[derive(Debug)]
pub(super) struct Packing(JoinHandle<Result<(), ClientError>>);

impl Packing {
    /// Why packing failed; `None` if it did not, or only because nobody read on.
    pub(super) async fn failure(self) -> Option<ClientError> {
        match self.0.await {
            Ok(Err(error)) => Some(error),
            Ok(Ok(())) | Err(_) => None,
        }
    }
}

/// Starts to pack `directory`.
pub(super) async fn pack(
    directory: PathBuf,
) -> Result<(impl Stream<Item = io::Result<Bytes>> + Send + 'static, Packing), ClientError> {
    let meta = tokio::fs::metadata(&directory).await.map_err(|error| unreadable(&directory, &error))?;
    if !meta.is_dir() {
        return Err(ClientError::Io { path: directory, why: "is no directory".into() });
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    let thread = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(Pieces::new(sender));
        archive.follow_symlinks(false);
        let packed = write_tree(&mut archive, &directory).and_then(|()| finish(archive, &directory));
        match packed {
            Ok(()) | Err(Stop::Unread) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Ok((body, Packing(thread)))
}

/// Why packing ended early.
enum Stop {
    /// Nobody reads any more; the reason is on the other side.
    Unread,
    Failed(ClientError),
}

type Archive = tar::Builder<Pieces>;

/// Writes everything below `root`, in the order of names, so that equal directories make equal archives.
fn write_tree(archive: &mut Archive, root: &Path) -> Result<(), Stop> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(inner) = waiting.pop() {
        let place = root.join(&inner);
        let meta = std::fs::symlink_metadata(&place).map_err(|error| failed(&place, &error))?;
        if inner.as_os_str().is_empty() || meta.is_dir() {
            if !inner.as_os_str().is_empty() {
                append(archive, &inner, &place, &meta)?;
            }
            waiting.extend(children(&inner, &place)?);
        } else {
            append(archive, &inner, &place, &meta)?;
        }
    }
    Ok(())
}

/// What is in a directory but `.git`, last name first: the caller takes from the end.
fn children(inner: &Path, place: &Path) -> Result<Vec<PathBuf>, Stop> {
    let entries = std::fs::read_dir(place).map_err(|error| failed(place, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(place, &error))?.file_name();
        if name != ".git" {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| inner.join(name)).collect())
}

/// One entry. Sockets, pipes and devices are no part of an app and are left out.
fn append(archive: &mut Archive, inner: &Path, place: &Path, meta: &std::fs::Metadata) -> Result<(), Stop> {
    let kind = meta.file_type();
    let result = if kind.is_symlink() {
        let target = std::fs::read_link(place).map_err(|error| failed(place, &error))?;
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut header, inner, target)
    } else if kind.is_dir() {
        archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), inner, io::empty())
    } else if kind.is_file() {
        return append_file(archive, inner, place);
    } else {
        Ok(())
    };
    result.map_err(|error| stopped(archive, place, &error))
}

fn append_file(archive: &mut Archive, inner: &Path, place: &Path) -> Result<(), Stop> {
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::File::open(place).map_err(|error| failed(place, &error))?;
    let meta = file.metadata().map_err(|error| failed(place, &error))?;
    // Said at once, not after half a gigabyte was sent.
    if archive.get_ref().written.saturating_add(meta.len()) > MAX_UPLOAD {
        return Err(failed(place, &too_big()));
    }
    let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    let mut header = header(tar::EntryType::Regular, mode, meta.len());
    let mut content = Exactly { file, left: meta.len() };
    archive.append_data(&mut header, inner, &mut content).map_err(|error| stopped(archive, place, &error))
}

/// Only what belongs to the content: no owner, no time.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

fn finish(archive: Archive, root: &Path) -> Result<(), Stop> {
    let mut pieces = archive.into_inner().map_err(|error| failed(root, &error))?;
    pieces.flush().map_err(|error| if pieces.unread { Stop::Unread } else { failed(root, &error) })
}

fn stopped(archive: &Archive, place: &Path, error: &io::Error) -> Stop {
    if archive.get_ref().unread { Stop::Unread } else { failed(place, error) }
}

fn too_big() -> io::Error {
    io::Error::other(format!(
        "with this, the directory is bigger than the {} MiB an upload may have; move what is no part of the app out of it",
        MAX_UPLOAD / 1024 / 1024
    ))
}

fn failed(place: &Path, error: &io::Error) -> Stop {
    Stop::Failed(unreadable(place, error))
}

fn unreadable(place: &Path, error: &io::Error) -> ClientError {
    ClientError::Io { path: place.to_owned(), why: error.to_string() }
}

/// A file that must have the size its header promised, else the entries after it would be garbage.
struct Exactly {
    file: std::fs::File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::other("became shorter while it was read; try again when nothing writes to it"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Collects what the archive writes into pieces and hands them over.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    written: u64,
    /// The other end has gone.
    unread: bool,
    /// Set once everything was handed over: without it, the end of the archive is the end of nothing.
    complete: bool,
}

impl Pieces {
    fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { sender, piece: Vec::with_capacity(PIECE), written: 0, unread: false, complete: false }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE)));
        self.sender.blocking_send(Ok(piece)).map_err(|_| {
            self.unread = true;
            io::Error::from(io::ErrorKind::BrokenPipe)
        })
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.len().min(room);
        self.written += taken as u64;
        if self.written > MAX_UPLOAD {
            return Err(too_big());
        }
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.complete = true;
        Ok(())
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.complete && !self.unread {
            // An upload that stops half way must not look like one that is done.
            let _ = self.sender.blocking_send(Err(io::Error::other("the directory could not be read")));
        }
    }
}
