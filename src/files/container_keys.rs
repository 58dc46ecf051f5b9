//! The keys of `landfall.yaml` for apps in containers: which image, how it is built, how it is run.
//!
//! An app runs in containers when it says `runtime: docker`, names an `image` or has a `build.dockerfile`.

use super::forms;
use super::keys::{Default, Form, Key, Kind, Problem};
use super::reader::{Reader, join};
use super::record::{Entry, Record, Value};
use crate::domain::container::Dockerfile;
use crate::domain::{Container, Drift, ImageSource, Pull};

/// `sha256:` and this many digits.
const DIGEST_DIGITS: usize = 64;
/// Longest tag.
const MAX_TAG: usize = 128;
/// Longest reference.
const MAX_REFERENCE: usize = 255;
/// Longest `id` of a mount.
const MAX_MOUNT_ID: usize = 128;

static IMAGE_REFERENCE: Form = Form { what: "the name of an image", pattern: r"^[^\s]+$", check: image_reference };

static CONTAINER_USER: Form =
    Form { what: "a user within the image", pattern: r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$", check: container_user };

pub(super) static WITHIN: Form = Form { what: "a path within the app", pattern: "^[^/].*$", check: within };

/// `image`
pub(super) const IMAGE: Key = Key {
    name: "image",
    kind: Kind::Text(&IMAGE_REFERENCE),
    default: Default::Nothing("`build.dockerfile`, or no container"),
    doc: "The image its containers are made from, `nginx:1.27` or `ghcr.io/acme/shop@sha256:…`; makes the runtime `docker`. Each version keeps the very image it was given; see docker.md.",
};

/// `pull`
pub(super) const PULL: Key = Key {
    name: "pull",
    kind: Kind::Choice { now: &["missing", "always", "never"], later: &[] },
    default: Default::Text("missing"),
    doc: "When `image` is fetched: when the engine does not have it, for every new version (a tag that has moved is followed), or never.",
};

/// `user`
pub(super) const USER: Key = Key {
    name: "user",
    kind: Kind::Text(&CONTAINER_USER),
    default: Default::Nothing("the image's"),
    doc: "User, and group behind a colon, that its containers run as: names that the image knows, or numbers in quotes.",
};

/// `read_only`
pub(super) const READ_ONLY: Key = Key {
    name: "read_only",
    kind: Kind::Bool,
    default: Default::Bool(false),
    doc: "Whether a container's own files cannot be written to; `/tmp` and volumes still can.",
};

/// `drift`
pub(super) const DRIFT: Key = Key {
    name: "drift",
    kind: Kind::Choice { now: &["correct", "warn", "off"], later: &[] },
    default: Default::Text("correct"),
    doc: "What is done when somebody changes one of its containers by hand: it is put right or replaced, only told of, or not looked at. One that has ended is started again in any case.",
};

/// `web.<name>.port`
pub(super) const PORT: Key = Key {
    name: "port",
    kind: Kind::Number(1, 65_535),
    default: Default::Nothing("it listens on `$PORT`"),
    doc: "In containers: the port that the image's program listens on whatever `$PORT` says.",
};

/// `build.dockerfile`
pub(super) const DOCKERFILE: Key = Key {
    name: "dockerfile",
    kind: Kind::Text(&WITHIN),
    default: Default::Nothing("no image is built"),
    doc: "Builds the image from this file, relative to `context`; makes the runtime `docker`.",
};

/// `build.context`
pub(super) const CONTEXT: Key = Key {
    name: "context",
    kind: Kind::Text(&WITHIN),
    default: Default::Text("."),
    doc: "The directory of the app that is handed to the build of an image, without what its `.dockerignore` names.",
};

/// `build.target`
pub(super) const TARGET: Key = Key {
    name: "target",
    kind: Kind::Text(&forms::LINE),
    default: Default::Nothing("the last stage"),
    doc: "The stage of the Dockerfile to build.",
};

/// `build.args`
pub(super) const ARGS: Key = Key {
    name: "args",
    kind: Kind::Map(&BUILD_ARGUMENT, &Kind::Variable),
    default: Default::Empty,
    doc: "Values of the Dockerfile's `ARG`s. They stay readable in the image: no place for secrets.",
};

/// `build.secrets`
pub(super) const SECRETS: Key = Key {
    name: "secrets",
    kind: Kind::Map(&MOUNT_ID, &Kind::Text(&forms::SECRET_NAME)),
    default: Default::Empty,
    doc: "What `RUN --mount=type=secret,id=…` of the Dockerfile finds: each id with the secret's name; see secrets.md. Takes BuildKit.",
};

static MOUNT_ID: Form = Form { what: "the `id` of a mount", pattern: "^[A-Za-z0-9_.-]+$", check: mount_id };

fn mount_id(text: &str) -> Result<String, Problem> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    match plain && (1..=MAX_MOUNT_ID).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => {
            let hint = "letters, digits and _ . -, as in `RUN --mount=type=secret,id=npmrc`";
            Err(Problem::hinted("this is not the `id` of a mount", hint))
        }
    }
}

static BUILD_ARGUMENT: Form =
    Form { what: "the name of an `ARG`", pattern: "^[A-Za-z_][A-Za-z0-9_]*$", check: build_argument };

fn build_argument(text: &str) -> Result<String, Problem> {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        true => Ok(text.to_owned()),
        false => Err(Problem::hinted("this is not the name of an `ARG`", "letters, digits and _, the first no digit")),
    }
}

fn container_user(text: &str) -> Result<String, Problem> {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    let mut parts = text.splitn(2, ':');
    match parts.all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::hinted(format!("`{text}` is not a user"), "write app, \"1000\" or \"1000:1000\"")),
    }
}

/// Relative, and not out of the app's own directory; `.` for that itself.
fn within(text: &str) -> Result<String, Problem> {
    let mut parts: Vec<&str> = Vec::new();
    if text.starts_with('/') {
        return Err(Problem::hinted("must lie in the app's directory", "write its path relative to that"));
    }
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let hint = "`include` brings other directories in";
                return Err(Problem::hinted("must lie in the app's directory", hint));
            }
            part if part.contains(char::is_control) => return Err(Problem::new("must be one line of text")),
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// The grammar of references: `[host[:port]/]name[:tag][@digest]`.
fn image_reference(text: &str) -> Result<String, Problem> {
    let wrong = |what: &str| {
        let hint = "write it like nginx:1.27, ghcr.io/acme/shop:2 or ghcr.io/acme/shop@sha256:…";
        Problem::hinted(format!("`{text}` is not the name of an image: {what}"), hint)
    };
    if text.contains("://") {
        return Err(wrong("images are named without https://"));
    }
    if text.len() > MAX_REFERENCE {
        return Err(wrong("it is too long"));
    }
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    if let Some(digest) = digest {
        let digits = digest.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() != DIGEST_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(wrong("behind @ stands sha256: and 64 hexadecimal digits"));
        }
    }
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match name.get(slash..).and_then(|last| last.rfind(':')) {
        Some(colon) => (name.get(..slash + colon).unwrap_or_default(), name.get(slash + colon + 1..)),
        None => (name, None),
    };
    if let Some(tag) = tag {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if tag.is_empty() || tag.len() > MAX_TAG || tag.starts_with(['.', '-']) || !tag.bytes().all(plain) {
            return Err(wrong("its tag has letters, digits and _ . -"));
        }
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    if parts.len() > 1 && parts.first().is_some_and(|first| is_host(first)) {
        parts.remove(0);
    }
    for part in parts {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if part.is_empty() || !part.bytes().all(plain) || !part.starts_with(edge) || !part.ends_with(edge) {
            return Err(wrong("it has lower-case letters, digits and single . _ - within"));
        }
    }
    Ok(text.to_owned())
}

fn given<'a>(record: &'a Record, key: &str) -> Option<&'a Entry> {
    record.entry(key).filter(|entry| entry.given)
}

/// Written, and not as it would be anyway.
fn chosen<'a>(record: &'a Record, key: &str) -> Option<&'a Entry> {
    given(record, key).filter(|entry| match &entry.value {
        Value::Text(text) => !["missing", ".", "correct"].contains(&text.as_str()),
        Value::Bool(truth) => *truth,
        Value::Map(entries) => !entries.is_empty(),
        _ => true,
    })
}

/// Whether the app says in any way that it runs in containers.
pub(super) fn is_container(app: &Record) -> bool {
    let builds = app.record("build").is_some_and(|build| given(build, "dockerfile").is_some());
    app.text("runtime") == Some("docker") || given(app, "image").is_some() || builds
}

/// What no key can know for itself.
pub(super) fn check(reader: &mut Reader<'_>, app: &Record) {
    let image = given(app, "image");
    let build = app.record("build");
    let dockerfile = build.and_then(|build| given(build, "dockerfile"));
    if let Some(runtime) = given(app, "runtime").filter(|runtime| runtime.text() == Some("process"))
        && (image.is_some() || dockerfile.is_some())
    {
        let what = if image.is_some() { "`image`" } else { "`build.dockerfile`" };
        let message = format!("`runtime: process` runs no image, and {what} names one");
        reader.error(&runtime.place, "runtime", message, Some("write `runtime: docker`, or remove one of them"));
    }
    if is_container(app) && image.is_none() && dockerfile.is_none() {
        let place = given(app, "runtime").map_or(&app.place, |runtime| &runtime.place);
        let hint = "write `image: nginx:1.27`, or `build: {dockerfile: Dockerfile}`";
        reader.error(place, "runtime", "`runtime: docker` needs an image", Some(hint));
    }
    if let (Some(image), Some(_)) = (image, dockerfile) {
        let message = "the app has both `image` and `build.dockerfile`";
        reader.error(&image.place, "image", message, Some("remove one of them"));
    }
    check_build(reader, app);
    if !is_container(app) {
        for key in ["pull", "user", "read_only", "drift"] {
            if let Some(entry) = chosen(app, key) {
                let message = format!("`{key}` is for apps in containers, and this one has no `image`");
                reader.error(&entry.place, key, message, Some("add `image` or `build.dockerfile`, or remove it"));
            }
        }
    }
    if let Some(pull) = chosen(app, "pull").filter(|_| dockerfile.is_some()) {
        reader.error(&pull.place, "pull", "`pull` is for `image`; this one is built", Some("remove it"));
    }
    check_objects(reader, app);
}

fn check_build(reader: &mut Reader<'_>, app: &Record) {
    let Some(build) = app.record("build") else { return };
    let (command, dockerfile) = (given(build, "command"), given(build, "dockerfile"));
    match (command, dockerfile) {
        (Some(command), Some(_)) => {
            let message = "`build` has both `command` and `dockerfile`";
            reader.error(&command.place, "build.command", message, Some("remove one; a Dockerfile has RUN"));
        }
        (None, None) => {
            let hint = "write `command: [make]`, or `dockerfile: Dockerfile` for an image";
            reader.error(&build.place, "build", "`build` has neither `command` nor `dockerfile`", Some(hint));
        }
        (Some(command), None) if is_container(app) => {
            let message = "`build.command` builds on this machine, and the app runs in containers";
            let hint = "write a Dockerfile and name it in `build.dockerfile`";
            reader.error(&command.place, "build.command", message, Some(hint));
        }
        (Some(_), None) => {
            for key in ["context", "target", "args", "secrets"] {
                if let Some(entry) = chosen(build, key) {
                    let message = format!("`build.{key}` belongs to `build.dockerfile`");
                    reader.error(&entry.place, &join("build", key), message, Some("remove it"));
                }
            }
        }
        (None, Some(_)) => {}
    }
}

/// Only an image knows by itself what to run, and only a container has a port of its own.
fn check_objects(reader: &mut Reader<'_>, app: &Record) {
    let in_container = is_container(app);
    for kind in ["web", "workers"] {
        for (name, _, entry) in app.map(kind) {
            let Some(object) = entry.record() else { continue };
            let path = join(kind, name);
            if !in_container && given(object, "command").is_none() {
                let message = format!("`{path}.command` is missing: program and arguments");
                let hint = "write `command: [python3, server.py]`";
                reader.error(&object.place, &join(&path, "command"), message, Some(hint));
            }
            if let Some(port) = given(object, "port").filter(|_| !in_container) {
                let message = format!("`{path}.port` is for containers; a process listens on `$PORT`");
                reader.error(&port.place, &join(&path, "port"), message, Some("remove it, and listen on $PORT"));
            }
        }
    }
}

/// How the app runs in containers; `Some(None)` for one that does not, `None` when the table lacks a key.
pub(super) fn build(app: &Record) -> Option<Option<Container>> {
    if !is_container(app) {
        return Some(None);
    }
    let dockerfile = app.record("build").filter(|build| given(build, "dockerfile").is_some());
    let image = match dockerfile {
        Some(build) => ImageSource::Built(Dockerfile {
            file: build.text("dockerfile")?.to_owned(),
            context: build.text("context")?.to_owned(),
            target: build.text("target").map(str::to_owned),
            args: super::manifest::texts_by_name(build, "args"),
            secrets: super::manifest::secrets(build, "secrets")?,
            timeout: build.duration("timeout")?,
        }),
        None => ImageSource::Named {
            reference: app.text("image")?.to_owned(),
            pull: match app.text("pull")? {
                "always" => Pull::Always,
                "missing" => Pull::Missing,
                "never" => Pull::Never,
                _ => return None,
            },
        },
    };
    Some(Some(Container {
        image,
        user: app.text("user").map(str::to_owned),
        read_only: app.bool("read_only")?,
        drift: Drift::from_word(app.text("drift")?)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::manifest::read_manifest;

    fn errors(text: &str) -> String {
        read_manifest("landfall.yaml", text).expect_err("refused").to_string()
    }

    #[test]
    fn references_are_those_of_every_registry() {
        for good in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "ghcr.io/acme/shop:v1.2-rc_1",
            "localhost:5000/shop",
            "127.0.0.1:5000/a/b__c:x",
            "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            assert!(image_reference(good).is_ok(), "{good}");
        }
        for bad in
            ["", "https://ghcr.io/a", "Nginx", "ghcr.io/Acme/shop", "a:", "a:.x", "a/-b", "a@sha256:12", "a//b", "a b"]
        {
            assert!(image_reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_makes_an_app_one_of_containers_and_may_know_what_to_run() {
        let text = "app: shop\nimage: nginx:1.27\npull: always\nread_only: true\ndrift: off\nuser: \"1000\"\nweb: {main: {port: 80}}";
        let manifest = read_manifest("landfall.yaml", text).expect("reads");
        let container = manifest.container.expect("a container");
        let named = ImageSource::Named { reference: "nginx:1.27".into(), pull: Pull::Always };
        assert_eq!((container.image, container.read_only, container.user), (named, true, Some("1000".into())));
        assert_eq!(container.drift, Drift::Off);
        let main = manifest.web.into_values().next().expect("main");
        assert_eq!((main.port, main.command), (Some(80), vec![]));
        assert_eq!(manifest.build, None);
    }

    #[test]
    fn an_image_can_be_built() {
        let text = "app: shop\nbuild: {dockerfile: docker/Dockerfile, target: prod, args: {A: 1}, secrets: {.npmrc: npm-login}, timeout: 1m}\nweb: {main: {}}";
        let manifest = read_manifest("landfall.yaml", text).expect("reads");
        let built = Dockerfile {
            file: "docker/Dockerfile".into(),
            context: ".".into(),
            target: Some("prod".into()),
            args: [("A".to_owned(), "1".to_owned())].into(),
            secrets: [(".npmrc".to_owned(), "npm-login".parse().expect("a name"))].into(),
            timeout: crate::domain::manifest::Millis::seconds(60),
        };
        assert_eq!(manifest.container.map(|container| container.image), Some(ImageSource::Built(built)));
    }

    #[test]
    fn what_does_not_go_together_is_said_with_its_mend() {
        let web = "web: {main: {command: [./x]}}";
        for (text, words) in [
            (format!("app: a\nruntime: docker\n{web}"), "`runtime: docker` needs an image"),
            (format!("app: a\nruntime: process\nimage: x\n{web}"), "`runtime: process` runs no image"),
            (format!("app: a\nimage: x\nbuild: {{dockerfile: D}}\n{web}"), "both `image` and `build.dockerfile`"),
            (format!("app: a\nimage: x\nbuild: {{command: [make]}}\n{web}"), "builds on this machine"),
            (format!("app: a\nbuild: {{}}\n{web}"), "neither `command` nor `dockerfile`"),
            (format!("app: a\nbuild: {{command: [make], target: x}}\n{web}"), "belongs to `build.dockerfile`"),
            (
                format!("app: a\nbuild: {{command: [make], secrets: {{n: n}}}}\n{web}"),
                "`build.secrets` belongs to `build.dockerfile`",
            ),
            (format!("app: a\nbuild: {{dockerfile: D, secrets: {{a/b: n}}}}\n{web}"), "not the `id` of a mount"),
            (format!("app: a\nbuild: {{dockerfile: D, secrets: {{n: N_1}}}}\n{web}"), "build.secrets.n"),
            (format!("app: a\nuser: app\n{web}"), "`user` is for apps in containers"),
            (format!("app: a\ndrift: warn\n{web}"), "`drift` is for apps in containers"),
            (format!("app: a\npull: never\nbuild: {{dockerfile: D}}\n{web}"), "`pull` is for `image`"),
            ("app: a\nweb: {main: {}}".to_owned(), "`web.main.command` is missing"),
            ("app: a\nworkers: {w: {}}".to_owned(), "`workers.w.command` is missing"),
            ("app: a\nweb: {main: {command: [./x], port: 80}}".to_owned(), "`web.main.port` is for containers"),
            (format!("app: a\nimage: x\nbuild: {{dockerfile: ../D}}\n{web}"), "must lie in the app's directory"),
        ] {
            let errors = errors(&text);
            assert!(errors.contains(words), "{text}\n{errors}");
        }
    }
}
