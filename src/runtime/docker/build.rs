//! Building an image from a version's own tree.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptions, BuilderVersion};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::OWNER;
use super::connection::{is_lost, status, words};
use super::create::labels;
use super::ignore::Ignore;
use super::images::{ImageError, ImageRequest, Teller};
use crate::domain::container::Dockerfile;

/// The context is sent in pieces of about this size …
const PIECE: usize = 64 * 1024;
/// … of which so many wait.
const PIECES: usize = 8;

pub(super) async fn build(
    teller: &Teller<'_>,
    client: &Docker,
    request: &ImageRequest,
    dockerfile: &Dockerfile,
    tag: &str,
) -> Result<(), ImageError> {
    let context = request.directory.join(&dockerfile.context);
    let place = context.join(&dockerfile.file);
    if !place.is_file() {
        let message = format!(
            "there is no `{}` in the app's directory `{}`: correct `build.dockerfile` or `build.context`",
            dockerfile.file, dockerfile.context
        );
        return Err(ImageError::new("build_failed", message));
    }
    teller.line(&format!("building the image from {}", dockerfile.file)).await;
    (teller.say)("the image is built".to_owned());
    let options = BuildImageOptions {
        dockerfile: dockerfile.file.clone(),
        t: Some(tag.to_owned()),
        rm: true,
        forcerm: true,
        buildargs: Some(dockerfile.args.clone().into_iter().collect()),
        target: dockerfile.target.clone().unwrap_or_default(),
        labels: Some(HashMap::from([
            (OWNER.to_owned(), teller.shared.owner.clone()),
            (labels::ENVIRONMENT.to_owned(), request.key.environment.to_string()),
            (labels::APP.to_owned(), request.key.app.to_string()),
        ])),
        version: BuilderVersion::BuilderV1,
        ..Default::default()
    };
    let (pieces, context_error) = pack(context, dockerfile.file.clone());
    let body = bollard::body_try_stream(futures_util::stream::unfold(pieces, |mut pieces| async {
        Some((pieces.recv().await?, pieces))
    }));
    let mut stream = std::pin::pin!(client.build_image(options, None, Some(body)));
    let limit = dockerfile.timeout.duration();
    let told = async {
        while let Some(info) = stream.next().await {
            let info = info?;
            let text = info.stream.or(info.status).unwrap_or_default();
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                written(teller, line).await;
            }
        }
        Ok::<(), bollard::errors::Error>(())
    };
    // Given up in the middle, by a deadline or because something newer is wanted, the engine ends it with the connection.
    match tokio::time::timeout(limit, told).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            if let Some(why) = context_error.await.ok().flatten() {
                return Err(ImageError::new("build_failed", format!("the build's context cannot be read: {why}")));
            }
            if is_lost(&error) && status(&error).is_none() {
                return Err(ImageError::of_engine(teller.shared, &error));
            }
            let message = format!(
                "the build of the image failed: {}; its last lines are in the log of object `build`",
                words(&error)
            );
            Err(ImageError::new("build_failed", message))
        }
        Err(_) => Err(ImageError::new("build_timed_out", timed_out(limit))),
    }
}

fn timed_out(limit: Duration) -> String {
    format!(
        "the build of the image was not over after {} s: make it quicker or set a longer `build.timeout`",
        limit.as_secs()
    )
}

/// A line of the build itself.
async fn written(teller: &Teller<'_>, line: &str) {
    let line = format!("{:.9} stdout F {line}\n", jiff::Timestamp::now());
    teller.shared.append(&teller.log, line).await;
}

type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// The context as a tar archive, made while it is sent, and what went wrong with it.
fn pack(context: PathBuf, dockerfile: String) -> (Pieces, tokio::task::JoinHandle<Option<String>>) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let task = tokio::task::spawn_blocking(move || {
        let mut writer = Piecewise { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
        match write_tar(&mut writer, &context, &dockerfile).and_then(|()| writer.flush()) {
            Ok(()) => None,
            Err(error) => {
                let why = error.to_string();
                // Nobody listens any more when the engine has refused.
                let listens = sender.blocking_send(Err(error)).is_ok();
                listens.then_some(why)
            }
        }
    });
    (pieces, task)
}

fn write_tar(out: &mut Piecewise, context: &Path, dockerfile: &str) -> io::Result<()> {
    let ignore = Ignore::read(context, dockerfile)?;
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    // The same tree gives the same bytes: what the engine has built from it is found again.
    archive.mode(tar::HeaderMode::Deterministic);
    add(&mut archive, context, Path::new(""), &ignore)?;
    archive.into_inner().map(|_| ())
}

fn add(archive: &mut tar::Builder<&mut Piecewise>, root: &Path, below: &Path, ignore: &Ignore) -> io::Result<()> {
    let mut entries = std::fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let is_directory = entry.file_type()?.is_dir();
        let left_out = ignore.leaves_out(&path);
        if is_directory {
            if left_out && !ignore.has_exceptions() {
                continue;
            }
            if !left_out {
                archive.append_path_with_name(entry.path(), &path)?;
            }
            add(archive, root, &path, ignore)?;
        } else if !left_out {
            archive.append_path_with_name(entry.path(), &path)?;
        }
    }
    Ok(())
}

/// Hands bytes on in pieces.
struct Piecewise {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Piecewise {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
