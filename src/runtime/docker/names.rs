//! What this agent's things are called in the engine.

use std::fs;
use std::io;
use std::path::Path;

use crate::domain::{AppKey, InstanceId, VersionNumber, hex};

/// Digits of an agent's name.
const DIGITS: usize = 12;

/// This agent's name on everything it has in an engine: made once, kept in its data directory. Two agents at one
/// engine never touch what the other has.
pub(super) fn owner(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("owner");
    if let Ok(text) = fs::read_to_string(&path) {
        let name = text.trim();
        if name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(name.to_owned());
        }
    }
    let mut bytes = [0; DIGITS / 2];
    fastrand::fill(&mut bytes);
    let name = hex::encode(&bytes);
    crate::whole::write(&path, &data_dir.join(".owner.new"), format!("{name}\n").as_bytes())?;
    Ok(name)
}

/// A container's name.
pub(super) fn container(owner: &str, instance: &InstanceId) -> String {
    format!("landfall-{owner}-{instance}")
}

/// A volume's name.
pub(super) fn volume(owner: &str, key: &AppKey, name: &str) -> String {
    format!("landfall-{owner}-{}-{}-{name}", key.environment, key.app)
}

/// The name of an app's Compose project. No name of an environment or app has a `_`.
pub(super) fn project(owner: &str, key: &AppKey) -> String {
    format!("landfall-{owner}_{}_{}", key.environment, key.app)
}

/// Landfall's own name for the image of an app, without its tag. Repositories must not end in `-` or have two dots.
pub(super) fn repository(owner: &str, key: &AppKey) -> String {
    format!(
        "landfall/{owner}/{}/{}",
        key.environment.as_str().trim_end_matches('-'),
        key.app.as_str().trim_end_matches('-')
    )
}

/// The tag of a version's image that was fetched.
pub(super) fn version_tag(version: VersionNumber) -> String {
    version.to_string()
}

/// The tag of an image that was built from a content.
pub(super) fn content_tag(content: &str) -> String {
    let short: String = content.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!("content-{short}")
}

/// The tag of an image of a project's service: the same for the same image.
pub(super) fn id_tag(id: &str) -> String {
    let short: String = id.rsplit(':').next().unwrap_or(id).chars().take(40).collect();
    format!("id-{short}")
}

/// What the image of a service that is built without a name is called in the app's repository until it is recorded.
pub(super) fn built_service(repository: &str, service: &str) -> String {
    format!("{repository}:build-{service}")
}

/// A reference taken apart as the engine's API wants it: name, and tag or digest.
pub(super) fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (without_tag(name).0, digest);
    }
    let (name, tag) = without_tag(reference);
    (name, tag.unwrap_or("latest"))
}

fn without_tag(name: &str) -> (&str, Option<&str>) {
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    match name.get(slash..).and_then(|last| last.find(':')) {
        Some(colon) => (&name[..slash + colon], name.get(slash + colon + 1..)),
        None => (name, None),
    }
}

/// The registry a reference names, `docker.io` for those that name none.
pub(super) fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        Some(_) | None => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_keeps_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = owner(directory.path()).expect("made");
        assert_eq!(name.len(), DIGITS);
        assert_eq!(owner(directory.path()).expect("read"), name);
        let other = tempfile::tempdir().expect("a directory");
        assert_ne!(owner(other.path()).expect("made"), name);
    }

    #[test]
    fn references_are_taken_apart() {
        assert_eq!(split("nginx"), ("nginx", "latest"));
        assert_eq!(split("localhost:5000/a/b"), ("localhost:5000/a/b", "latest"));
        assert_eq!(split("localhost:5000/a/b:1"), ("localhost:5000/a/b", "1"));
        assert_eq!(split("ghcr.io/a/b:1@sha256:ab"), ("ghcr.io/a/b", "sha256:ab"));
        assert_eq!((registry("nginx"), registry("a/b"), registry("ghcr.io/a")), ("docker.io", "docker.io", "ghcr.io"));
        assert_eq!((registry("localhost/a"), registry("h:5000/a")), ("localhost", "h:5000"));
    }
}
