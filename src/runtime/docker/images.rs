//! The image of a version: found, fetched or built; the same one from then on; given up with the last version that
//! needs it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions, TagImageOptions};
use futures_util::StreamExt;

use super::build::BuildSecrets;
use super::connection::{is_lost, status, words};
use super::{Login, Shared, build, image_log, names};
use crate::domain::container::Dockerfile;
use crate::domain::{AppKey, Container, ImageOrigin, ImageSource, InstanceId, PinnedImage, Pull, VersionNumber};

/// A fetch that does not get on for this long is given up.
const STALLED: Duration = Duration::from_secs(120);
/// How often people are told how far a fetch has come.
const TOLD_EVERY: Duration = Duration::from_millis(500);
/// What registries say to those who may not.
pub(super) const NOT_ALLOWED: [&str; 5] =
    ["unauthorized", "authentication required", "no basic auth", "access denied", "forbidden"];
/// Docker Hub's own name for logins.
const HUB: &str = "https://index.docker.io/v1/";

/// Which image is wanted.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// The app.
    pub key: AppKey,
    /// The version.
    pub version: VersionNumber,
    /// Identity of its content: what was built from it once is not built again.
    pub content: String,
    /// What its manifest says.
    pub container: Container,
    /// Where its files lie, for a build.
    pub directory: PathBuf,
    /// The image this version, or the one it brings back, was given before.
    pub recorded: Option<PinnedImage>,
    /// The name under which the log is kept.
    pub instance: InstanceId,
    /// What a build is given.
    pub secrets: BuildSecrets,
}

impl ImageRequest {
    /// Where it is told what happened, relative to the directory with all log files.
    pub fn log(&self) -> PathBuf {
        image_log(&self.key, self.version, &self.instance)
    }
}

/// A build's secret cannot be had: nothing was built.
pub const SECRET_MISSING: &str = "secret_missing";

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// `engine_unreachable`, `image_missing`, `image_denied`, `registry_unreachable`, `image_failed`,
    /// `build_failed`, `build_timed_out` or [`SECRET_MISSING`].
    pub code: &'static str,
    /// What, and how to mend it.
    pub message: String,
}

impl ImageError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn unreachable(trouble: &super::Trouble) -> Self {
        Self::new("engine_unreachable", trouble.to_string())
    }

    /// An error of the engine about something that has nothing to do with this image.
    pub(super) fn of_engine(shared: &Shared, error: &Error) -> Self {
        if is_lost(error) {
            return Self::lost(shared, &words(error));
        }
        Self::new("image_failed", words(error))
    }

    /// The engine does not answer any more.
    pub(super) fn lost(shared: &Shared, why: &str) -> Self {
        shared.connection.lost(why);
        Self::new("engine_unreachable", format!("the container engine went away: {why}"))
    }
}

/// Tells what happens, to the log and to whoever watches.
pub(super) struct Teller<'a> {
    pub shared: &'a Shared,
    pub log: PathBuf,
    pub say: &'a (dyn Fn(String) + Send + Sync),
}

impl Teller<'_> {
    pub(super) async fn line(&self, text: &str) {
        self.shared.say(&self.log, text).await;
    }
}

pub(super) async fn resolve(
    shared: &Shared,
    request: ImageRequest,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<PinnedImage, ImageError> {
    let teller = Teller { shared, log: request.log(), say };
    let client = shared.client().await.map_err(|trouble| ImageError::unreachable(&trouble))?;
    let found = match (&request.recorded, &request.container.image) {
        (Some(recorded), _) => again(&teller, &client, &request, recorded).await,
        (None, ImageSource::Named { reference, pull }) => named(&teller, &client, &request, reference, *pull).await,
        (None, ImageSource::Built(dockerfile)) => built(&teller, &client, &request, dockerfile).await,
    };
    match &found {
        Ok(image) => teller.line(&format!("the image is {}", image.name())).await,
        Err(error) => teller.line(&error.message).await,
    }
    shared.close(&teller.log).await;
    found
}

/// The very image that was recorded: for a rollback, or after a crash.
async fn again(
    teller: &Teller<'_>,
    client: &Docker,
    request: &ImageRequest,
    recorded: &PinnedImage,
) -> Result<PinnedImage, ImageError> {
    let tag = match recorded.origin {
        ImageOrigin::Built => names::content_tag(&request.content),
        ImageOrigin::Found | ImageOrigin::Pulled => names::version_tag(request.version),
    };
    if exists(teller.shared, client, &recorded.id).await?.is_some() {
        let tag = name(teller.shared, client, &request.key, &tag, &recorded.id).await?;
        return Ok(PinnedImage { tag, ..recorded.clone() });
    }
    match (&recorded.digest, &request.container.image) {
        (_, ImageSource::Built(dockerfile)) => built(teller, client, request, dockerfile).await,
        (Some(digest), _) => {
            teller.line(&format!("the engine does not have {digest} any more")).await;
            pull(teller, client, digest, None).await?;
            let id = exists(teller.shared, client, digest).await?.ok_or_else(|| vanished(digest))?.id;
            let tag = name(teller.shared, client, &request.key, &tag, &id).await?;
            Ok(PinnedImage { id, tag, origin: ImageOrigin::Pulled, ..recorded.clone() })
        }
        (None, ImageSource::Named { reference, .. }) => Err(ImageError::new(
            "image_missing",
            format!(
                "the image {} that this version ran, once `{reference}`, is not in the engine any more and came from no registry: bring it back, or deploy a version with another image",
                recorded.id
            ),
        )),
    }
}

async fn named(
    teller: &Teller<'_>,
    client: &Docker,
    request: &ImageRequest,
    reference: &str,
    when: Pull,
) -> Result<PinnedImage, ImageError> {
    let (found, origin) = had(teller, client, reference, when, None).await?;
    let digest = found.digest_for(reference);
    let tag = name(teller.shared, client, &request.key, &names::version_tag(request.version), &found.id).await?;
    Ok(PinnedImage { reference: reference.to_owned(), id: found.id, digest, tag, origin })
}

/// The image that a reference names, fetched first when that is wanted; whether that brought it here. `platform` is another
/// than the engine's own.
pub(super) async fn had(
    teller: &Teller<'_>,
    client: &Docker,
    reference: &str,
    when: Pull,
    platform: Option<&str>,
) -> Result<(Found, ImageOrigin), ImageError> {
    let before = exists(teller.shared, client, reference).await?;
    let fetch = match (when, &before) {
        (Pull::Never, None) => {
            let message = format!(
                "the engine has no image `{reference}`, and `pull: never` forbids to fetch it: load it there, or allow it"
            );
            return Err(ImageError::new("image_missing", message));
        }
        (Pull::Never, Some(_)) | (Pull::Missing, Some(_)) => false,
        (Pull::Missing, None) | (Pull::Always, _) => true,
    };
    if fetch {
        pull(teller, client, reference, platform).await?;
    }
    let found = exists(teller.shared, client, reference).await?.ok_or_else(|| vanished(reference))?;
    let fetched = fetch && before.is_none_or(|before| before.id != found.id);
    Ok((found, if fetched { ImageOrigin::Pulled } else { ImageOrigin::Found }))
}

/// Docker Hub's names have short forms.
fn same(of: &str, repository: &str) -> bool {
    let short = |name: &str| {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name).to_owned()
    };
    short(of) == short(repository)
}

async fn built(
    teller: &Teller<'_>,
    client: &Docker,
    request: &ImageRequest,
    dockerfile: &Dockerfile,
) -> Result<PinnedImage, ImageError> {
    let tag = names::content_tag(&request.content);
    let full = format!("{}:{tag}", names::repository(&teller.shared.owner, &request.key));
    if exists(teller.shared, client, &full).await?.is_none() {
        build::build(teller, client, request, dockerfile, &full).await?;
    } else {
        teller.line("built before from the same content").await;
    }
    let found = exists(teller.shared, client, &full).await?.ok_or_else(|| vanished(&full))?;
    Ok(PinnedImage {
        reference: dockerfile.file.clone(),
        id: found.id,
        digest: None,
        tag: full,
        origin: ImageOrigin::Built,
    })
}

pub(super) fn vanished(reference: &str) -> ImageError {
    ImageError::new("image_missing", format!("`{reference}` vanished from the engine at once: does something tidy it?"))
}

pub(super) struct Found {
    pub(super) id: String,
    digests: Vec<String>,
}

impl Found {
    /// What the registry that a reference names knows it by.
    pub(super) fn digest_for(&self, reference: &str) -> Option<String> {
        let (repository, _) = names::split(reference);
        let of = |digest: &&String| digest.split_once('@').is_some_and(|(of, _)| same(of, repository));
        self.digests.iter().find(of).cloned()
    }
}

pub(super) async fn exists(shared: &Shared, client: &Docker, reference: &str) -> Result<Option<Found>, ImageError> {
    match client.inspect_image(reference).await {
        Ok(found) => Ok(found.id.map(|id| Found { id, digests: found.repo_digests.unwrap_or_default() })),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(ImageError::of_engine(shared, &error)),
    }
}

/// Gives an image Landfall's own name, which keeps it when others tidy images without a name.
pub(super) async fn name(
    shared: &Shared,
    client: &Docker,
    key: &AppKey,
    tag: &str,
    id: &str,
) -> Result<String, ImageError> {
    let repo = names::repository(&shared.owner, key);
    let full = format!("{repo}:{tag}");
    let options = TagImageOptions { repo: Some(repo), tag: Some(tag.to_owned()) };
    client.tag_image(id, Some(options)).await.map_err(|error| ImageError::of_engine(shared, &error))?;
    Ok(full)
}

pub(super) async fn pull(
    teller: &Teller<'_>,
    client: &Docker,
    reference: &str,
    platform: Option<&str>,
) -> Result<(), ImageError> {
    let registry = names::registry(reference);
    let login = teller.shared.settings.load().logins.clone().of(registry).await;
    let login = login.map_err(|why| ImageError::new("image_denied", format!("the login for {registry}: {why}")))?;
    let as_whom = login.as_ref().map(|login| format!(" as {}", login.username)).unwrap_or_default();
    teller.line(&format!("fetching {reference}{as_whom}")).await;
    (teller.say)(format!("fetching {reference}"));
    let credentials = login.map(|login| credentials(login, registry));
    let has_login = credentials.is_some();
    fetch(client, reference, platform, credentials, Some(teller)).await.map_err(|error| {
        let text = words(&error);
        if is_lost(&error) && !text.contains("registry") {
            return ImageError::of_engine(teller.shared, &error);
        }
        refused(reference, registry, has_login, &text)
    })
}

/// A login as the engine takes it.
fn credentials(login: Login, registry: &str) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.username),
        password: Some(login.password.expose().to_owned()),
        serveraddress: Some(address_of(registry)),
        ..Default::default()
    }
}

/// The registry as logins name it.
fn address_of(registry: &str) -> String {
    if registry == "docker.io" { HUB.to_owned() } else { registry.to_owned() }
}

/// All configured logins, for a builder that cannot ask for the one it needs. One that cannot be had is told and left out:
/// the build may not need it.
pub(super) async fn all_credentials(teller: &Teller<'_>) -> HashMap<String, DockerCredentials> {
    let logins = teller.shared.settings.load().logins.clone();
    let mut all = HashMap::new();
    for registry in logins.hosts.iter() {
        match logins.of(registry).await {
            Ok(login) => all.extend(login.map(|login| (address_of(registry), credentials(login, registry)))),
            Err(why) => teller.line(&format!("the login for {registry}: {why}")).await,
        }
    }
    all
}

/// Why a registry gives no image, and what to do.
fn refused(reference: &str, registry: &str, has_login: bool, text: &str) -> ImageError {
    let lower = text.to_lowercase();
    let is = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let login = match has_login {
        true => format!("the login for {registry} under `docker.registries` may not read it, or is wrong"),
        false => format!("if it is private, give a login for {registry} under `docker.registries`"),
    };
    if is(&NOT_ALLOWED) || is(&["denied:"]) {
        return ImageError::new(
            "image_denied",
            format!("{registry} does not give `{reference}` ({text}): see that the name is right; {login}"),
        );
    }
    if is(&["not found", "manifest unknown", "name unknown", "no such image"]) {
        return ImageError::new(
            "image_missing",
            format!("{registry} has no image `{reference}` ({text}): see that name and tag are right; {login}"),
        );
    }
    if is(&[
        "connection refused",
        "no such host",
        "timeout",
        "timed out",
        "dial tcp",
        "unreachable",
        "tls",
        "x509",
        "eof",
        "reset",
    ]) {
        return ImageError::new(
            "registry_unreachable",
            format!(
                "{registry} cannot be reached by the engine ({text}): see that it is up and that the machine reaches it; `pull: missing` does without it when the engine has the image"
            ),
        );
    }
    ImageError::new("image_failed", format!("`{reference}` cannot be fetched: {text}"))
}

/// Fetches, telling how far it is.
async fn fetch(
    client: &Docker,
    reference: &str,
    platform: Option<&str>,
    credentials: Option<DockerCredentials>,
    teller: Option<&Teller<'_>>,
) -> Result<(), Error> {
    let (name, tag) = names::split(reference);
    let options = CreateImageOptions {
        from_image: Some(name.to_owned()),
        tag: Some(tag.to_owned()),
        platform: platform.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    let mut stream = std::pin::pin!(client.create_image(Some(options), None, credentials));
    let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
    let mut told = Instant::now();
    loop {
        let next = tokio::time::timeout(STALLED, stream.next()).await.map_err(|_| Error::DockerStreamError {
            error: format!("timeout: nothing came for {} s", STALLED.as_secs()),
        })?;
        let Some(info) = next.transpose()? else { return Ok(()) };
        let Some(teller) = teller else { continue };
        let status = info.status.unwrap_or_default();
        if let (Some(layer), Some(progress)) = (&info.id, &info.progress_detail)
            && let (Some(current), Some(total)) = (progress.current, progress.total)
        {
            layers.insert(format!("{layer} {status}"), (current, total));
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                let (done, all) = layers.values().fold((0, 0), |(done, all), (d, a)| (done + d, all + a));
                (teller.say)(format!("fetching {reference}: {} of {} MB", done / 1_000_000, all / 1_000_000));
            }
            continue;
        }
        let layer = info.id.map(|id| format!("{id}: ")).unwrap_or_default();
        teller.line(&format!("{layer}{status}")).await;
    }
}

/// Brings an image back that was removed by hand, while a version that runs needs it.
pub(super) async fn fetch_again(shared: &Shared, client: &Docker, image: &PinnedImage) -> Result<(), Error> {
    let Some(digest) = &image.digest else {
        let error = match image.origin {
            ImageOrigin::Built => {
                "the image that was built for this version is not there any more: deploy the version again, `landfall app release --force`, to build it anew"
            }
            ImageOrigin::Found | ImageOrigin::Pulled => {
                "the image of this version is not there any more and came from no registry: bring it back, or deploy another version"
            }
        };
        return Err(Error::DockerStreamError { error: error.to_owned() });
    };
    let registry = names::registry(digest);
    let login = shared.settings.load().logins.clone().of(registry).await;
    let login = login.map_err(|error| Error::DockerStreamError { error })?;
    let credentials = login.map(|login| credentials(login, registry));
    fetch(client, digest, None, credentials, None).await?;
    if let Some((repo, tag)) = image.tag.rsplit_once(':') {
        let options = TagImageOptions { repo: Some(repo.to_owned()), tag: Some(tag.to_owned()) };
        client.tag_image(&image.id, Some(options)).await?;
    }
    Ok(())
}

/// Removes Landfall's own name of an image, and what Landfall brought into the engine when nothing else needs it.
pub(super) async fn give_up(shared: &Shared, image: &PinnedImage, kept: &[PinnedImage]) {
    let Ok(client) = shared.client().await else { return };
    let mut names = Vec::new();
    if !kept.iter().any(|other| other.tag == image.tag) {
        names.push(image.tag.clone());
    }
    let needed = kept.iter().any(|other| other.id == image.id);
    if image.origin == ImageOrigin::Pulled && !needed {
        for reference in std::iter::once(&image.reference).chain(&image.digest) {
            // A tag that has moved on belongs to a newer version.
            let still = client.inspect_image(reference).await.is_ok_and(|found| found.id.as_deref() == Some(&image.id));
            if still {
                names.push(reference.clone());
            }
        }
    }
    for name in names {
        forget(&client, &name).await;
    }
}

/// Removes a name, and the image with its last one. Without force: what a container or another name still needs stays.
pub(super) async fn forget(client: &Docker, name: &str) {
    match client.remove_image(name, None::<RemoveImageOptions>, None).await {
        Ok(_) => tracing::info!(image = name, "an image's name is given up"),
        Err(error) if matches!(status(&error), Some(404 | 409)) => {}
        Err(error) => tracing::warn!(image = name, error = words(&error), "an image cannot be given up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_told_with_its_mend() {
        let code = |text: &str| refused("h:5000/a", "h:5000", false, text).code;
        assert_eq!(code("manifest for h:5000/a:1 not found: manifest unknown"), "image_missing");
        assert_eq!(
            code("Head \"http://h:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused"),
            "registry_unreachable"
        );
        assert_eq!(code("unauthorized: authentication required"), "image_denied");
        assert_eq!(code("no space left on device"), "image_failed");
        assert!(refused("a", "docker.io", true, "denied: no").message.contains("may not read it"));
    }

    #[test]
    fn short_names_of_the_hub_are_the_same() {
        assert!(same("nginx", "docker.io/library/nginx") && same("acme/a", "docker.io/acme/a"));
        assert!(!same("ghcr.io/nginx", "nginx"));
    }
}
