//! Building an image from a version's own tree.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptions, BuilderVersion};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::OWNER;
use super::buildkit::{self, BuildError, Told, Wanted};
use super::connection::{is_lost, mended, status, words};
use super::create::labels;
use super::ignore::Ignore;
use super::images::{ImageError, ImageRequest, NOT_ALLOWED, SECRET_MISSING, Teller, all_credentials};
use crate::domain::container::Dockerfile;
use crate::domain::secret::mask;
use crate::domain::{Builder, Secret};

const WITHOUT_BUILDKIT: &str = "this engine has no BuildKit: set `docker.builder` to `auto` or `classic`";
const SECRETS_WITH_CLASSIC: &str = "`build.secrets` takes BuildKit: set `docker.builder` to `auto`";
const SECRETS_WITHOUT_BUILDKIT: &str = "`build.secrets` takes BuildKit, which this engine does not have: let Docker 18.09 or newer build the image, or build it elsewhere and name it as `image`";
/// What says only who has passed an error on.
const LAYERS: [&str; 4] = [
    "failed to solve with frontend dockerfile.v0: ",
    "failed to solve: ",
    "failed to create LLB definition: ",
    "rpc error: code = Unknown desc = ",
];
/// What was wrong with the context is known at once, when anything was.
const CONTEXT_ERROR: Duration = Duration::from_secs(2);
/// The context is sent in pieces of about this size …
const PIECE: usize = 64 * 1024;
/// … of which so many wait.
const PIECES: usize = 8;

/// Opens the secrets of a build, by the identifiers of its Dockerfile. Asked only when something is built, so that what was
/// built before starts without them. Cheap to clone.
#[derive(Clone)]
pub struct BuildSecrets(Arc<GiveSecrets>);

type Opened = Result<BTreeMap<String, Secret>, String>;
type GiveSecrets = dyn Fn() -> BoxFuture<'static, Opened> + Send + Sync;

impl BuildSecrets {
    /// Opened by a function, whose error names what cannot be had, and the mend.
    pub fn new<F: Future<Output = Opened> + Send + 'static>(give: impl Fn() -> F + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || give().boxed()))
    }

    async fn give(&self) -> Opened {
        (self.0)().await
    }
}

impl fmt::Debug for BuildSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuildSecrets")
    }
}

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
    let builder = builder(teller, client, dockerfile).await;
    let builder = builder.map_err(|error| failed(teller, error))?;
    let secrets = request.secrets.give().await.map_err(|why| ImageError::new(SECRET_MISSING, why))?;
    (teller.say)("the image is built".to_owned());
    let labels = HashMap::from([
        (OWNER.to_owned(), teller.shared.owner.clone()),
        (labels::ENVIRONMENT.to_owned(), request.key.environment.to_string()),
        (labels::APP.to_owned(), request.key.app.to_string()),
    ]);
    let wanted = Wanted {
        dockerfile: &dockerfile.file,
        tag,
        target: dockerfile.target.as_deref(),
        args: dockerfile.args.clone().into_iter().collect(),
        labels,
        secrets: Arc::new(secrets),
    };
    let (pieces, context_error) = pack(context, dockerfile.file.clone());
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let limit = dockerfile.timeout.duration();
    let built = async {
        match builder {
            With::BuildKit => with_buildkit(teller, client, &wanted, pieces).await,
            With::Classic => classic(teller, client, &wanted, pieces).await,
        }
    };
    // Given up in the middle, by a deadline or because something newer is wanted, the engine ends it with the connection.
    let error = match tokio::time::timeout(limit, built).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => return Err(ImageError::new("build_timed_out", timed_out(limit))),
    };
    if let Ok(Ok(Some(why))) = tokio::time::timeout(CONTEXT_ERROR, context_error).await {
        return Err(ImageError::new("build_failed", format!("the build's context cannot be read: {why}")));
    }
    Err(failed(teller, error))
}

/// What builds an image.
enum With {
    BuildKit,
    Classic,
}

async fn builder(teller: &Teller<'_>, client: &Docker, dockerfile: &Dockerfile) -> Result<With, BuildError> {
    let configured = teller.shared.settings.load().builder;
    let offered = configured != Builder::Classic && buildkit::offered(client).await.map_err(of_engine)?;
    let why = match (offered, configured, dockerfile.secrets.is_empty()) {
        (true, _, _) => return Ok(With::BuildKit),
        (false, Builder::Auto | Builder::Classic, true) => return Ok(With::Classic),
        (false, Builder::Buildkit, true) => WITHOUT_BUILDKIT,
        (false, Builder::Classic, false) => SECRETS_WITH_CLASSIC,
        (false, Builder::Auto | Builder::Buildkit, false) => SECRETS_WITHOUT_BUILDKIT,
    };
    Err(BuildError::Failed(why.to_owned()))
}

fn failed(teller: &Teller<'_>, error: BuildError) -> ImageError {
    match error {
        BuildError::Lost(why) => ImageError::lost(teller.shared, &why),
        BuildError::Failed(why) => {
            let message = format!(
                "the build of the image failed: {}; its last lines are in the log of object `build`",
                explained(&why)
            );
            ImageError::new("build_failed", message)
        }
    }
}

async fn with_buildkit(
    teller: &Teller<'_>,
    client: &Docker,
    wanted: &Wanted<'_>,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
) -> Result<(), BuildError> {
    teller.line(&format!("building the image from {} with BuildKit", wanted.dockerfile)).await;
    let settings = teller.shared.settings.load_full();
    let context = BodyExt::boxed(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))));
    // A step may write what it was given.
    let masked = |text: &str| mask(text, wanted.secrets.values().map(Secret::expose));
    let built = buildkit::build(&settings, client, wanted, context, |told| async move {
        match told {
            Told::Step(name) => (teller.say)(format!("the image is built: {}", masked(&name))),
            Told::Line(line) => written(teller, &masked(&line)).await,
        }
    });
    built.await.map_err(|error| match error {
        BuildError::Failed(why) => BuildError::Failed(masked(&why)),
        lost @ BuildError::Lost(_) => lost,
    })
}

async fn classic(
    teller: &Teller<'_>,
    client: &Docker,
    wanted: &Wanted<'_>,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<(), BuildError> {
    teller.line(&format!("building the image from {}", wanted.dockerfile)).await;
    let options = BuildImageOptions {
        dockerfile: wanted.dockerfile.to_owned(),
        t: Some(wanted.tag.to_owned()),
        rm: true,
        forcerm: true,
        buildargs: Some(wanted.args.clone()),
        target: wanted.target.unwrap_or_default().to_owned(),
        labels: Some(wanted.labels.clone()),
        version: BuilderVersion::BuilderV1,
        ..Default::default()
    };
    let logins = all_credentials(teller).await;
    let body = bollard::body_try_stream(pieces);
    let mut stream = std::pin::pin!(client.build_image(options, Some(logins), Some(body)));
    while let Some(info) = stream.next().await {
        let info = info.map_err(of_engine)?;
        let text = info.stream.or(info.status).unwrap_or_default();
        written(teller, &text).await;
    }
    Ok(())
}

fn of_engine(error: bollard::errors::Error) -> BuildError {
    match is_lost(&error) && status(&error).is_none() {
        true => BuildError::Lost(words(&error)),
        false => BuildError::Failed(words(&error)),
    }
}

/// A builder's error without the layers it has come through, and with what mends it.
fn explained(why: &str) -> String {
    let mut short = why.trim();
    while let Some(rest) = LAYERS.iter().find_map(|layer| short.strip_prefix(layer)) {
        short = rest;
    }
    if short.contains("secret ") && short.ends_with("not found") {
        return format!("{short}: `build.secrets` must name what a step cannot do without");
    }
    let lower = short.to_lowercase();
    match NOT_ALLOWED.iter().any(|words| lower.contains(words)) {
        true => format!(
            "{short}: give the registry of the image it begins `FROM` a login under `docker.registries`, or correct it"
        ),
        false => mended(short.to_owned()),
    }
}

fn timed_out(limit: Duration) -> String {
    format!(
        "the build of the image was not over after {} s: make it quicker or set a longer `build.timeout`",
        limit.as_secs()
    )
}

/// What the build itself says.
async fn written(teller: &Teller<'_>, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line = format!("{:.9} stdout F {line}\n", jiff::Timestamp::now());
        teller.shared.append(&teller.log, line).await;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_without_their_layers_and_with_their_mend() {
        let text = "failed to solve with frontend dockerfile.v0: failed to create LLB definition: a: not found";
        assert_eq!(explained(text), "a: not found");
        assert!(explained("failed to solve: secret npmrc: not found").contains("`build.secrets`"));
        assert!(explained("failed to solve: x: 401 Unauthorized").contains("`docker.registries`"));
        assert!(explained("write /x: no space left on device").contains("the engine's disk is full"));
    }
}
