//! `compose`: an app that is a Compose project, deployed as it stands.

use std::collections::BTreeMap;

use super::container_keys::WITHIN;
use super::forms;
use super::keys::{Default, Key, Kind, Table};
use super::reader::Reader;
use super::record::Record;
use super::yaml::Place;
use crate::domain::ObjectName;
use crate::domain::compose::{Compose, OBJECT};
use crate::domain::manifest::{Handover, Millis, Resources, Worker};

/// Most files or profiles.
const MAX_LIST: usize = 20;
/// Images must be there and all services healthy after this long.
const TIMEOUT: Millis = Millis::seconds(600);
/// Bringing a project down may take this long, the `stop_grace_period` of its services included.
const GRACE: Millis = Millis::seconds(120);

pub(super) const COMPOSE: Key = Key {
    name: "compose",
    kind: Kind::TextOr(&WITHIN, &TABLE),
    default: Default::Nothing("the app is no Compose project"),
    doc: "The app is the Compose project of this file, `compose.yaml`, deployed as it stands by the engine's own tool; see compose.md.",
};

static TABLE: Table = Table {
    what: "a Compose project",
    place: "compose",
    keys: &[
        Key {
            name: "files",
            kind: Kind::List(&Kind::Text(&WITHIN), MAX_LIST),
            default: Default::Required,
            doc: "Its files, relative to the app's directory; later ones override earlier ones.",
        },
        Key {
            name: "profiles",
            kind: Kind::List(&Kind::Text(&forms::LINE), MAX_LIST),
            default: Default::Empty,
            doc: "Services with one of these profiles run too.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(Millis::seconds(1), Millis::seconds(24 * 3600)),
            default: Default::Duration(TIMEOUT),
            doc: "Images must be fetched or built, and all services healthy, after this long; else the deployment fails.",
        },
    ],
};

/// Whether the app is a Compose project.
pub(super) fn is_compose(app: &Record) -> bool {
    app.entry("compose").is_some_and(|entry| entry.given)
}

/// What no key can know for itself. Not for apps that are no projects.
pub(super) fn check(reader: &mut Reader<'_>, app: &Record) {
    let mut refuse = |key: &str, mend: &str| {
        let Some(entry) = app.entry(key).filter(|entry| entry.given) else { return };
        let place = Place { width: 1, ..entry.place.clone() };
        let message = format!("an app with `compose` has no `{key}`");
        reader.error(&place, key, message, Some(mend));
    };
    refuse("runtime", "remove it; `compose` says where it runs");
    refuse("publish", "make two apps of it");
    refuse("volumes", "name them under `volumes` of the Compose file; they are kept over versions");
    for key in ["image", "build", "pull", "user", "read_only", "drift"] {
        refuse(key, "remove it; the services of the Compose file say so for themselves");
    }
    for key in ["web", "functions", "workers"] {
        refuse(key, "remove it, or make two apps of it; the services of the Compose file are what runs");
    }
    if let Some(files) = app.record("compose").and_then(|compose| compose.entry("files"))
        && app.record("compose").is_some_and(|compose| compose.list("files").is_empty())
    {
        reader.error(&files.place, "compose.files", "`compose.files` is empty", Some("write `files: [compose.yaml]`"));
    }
}

/// The project, from a record without mistakes. The outer `None` only if the table of keys lacks one.
#[allow(clippy::option_option)]
pub(super) fn build(app: &Record) -> Option<Option<Compose>> {
    if !is_compose(app) {
        return Some(None);
    }
    if let Some(file) = app.text("compose") {
        return Some(Some(Compose { files: vec![file.to_owned()], profiles: Vec::new(), timeout: TIMEOUT }));
    }
    let compose = app.record("compose")?;
    let mut profiles = compose.texts("profiles");
    profiles.sort();
    profiles.dedup();
    Some(Some(Compose { files: compose.texts("files"), profiles, timeout: compose.duration("timeout")? }))
}

/// The one object of a project: what looks after it. A new version's takes the project over from the one before.
pub(super) fn workers() -> Option<BTreeMap<ObjectName, Worker>> {
    let keeper = Worker {
        command: Vec::new(),
        env: BTreeMap::new(),
        instances: 1,
        handover: Handover::StartFirst,
        grace: GRACE,
        resources: Resources::default(),
    };
    Some([(OBJECT.parse().ok()?, keeper)].into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::manifest::read_manifest;

    #[test]
    fn a_project_is_a_file_or_several_with_profiles() {
        let short = read_manifest("landfall.yaml", "app: shop\ncompose: ./deploy/compose.yaml\n").expect("read");
        let compose = short.compose.as_ref().expect("a project");
        assert_eq!((compose.files.clone(), compose.timeout), (vec!["deploy/compose.yaml".to_owned()], TIMEOUT));
        let objects: Vec<String> = short.objects().map(|(name, _)| name.to_string()).collect();
        assert_eq!(objects, [OBJECT]);
        let text = "app: shop\ncompose: {files: [a.yaml, b.yaml], profiles: [web, mail], timeout: 1m}\n";
        let long = read_manifest("landfall.yaml", text).expect("read").compose.expect("a project");
        assert_eq!(
            (long.files, long.profiles),
            (vec!["a.yaml".into(), "b.yaml".into()], vec!["mail".into(), "web".into()])
        );
        assert_eq!(long.timeout, Millis::seconds(60));
        let same =
            read_manifest("landfall.yaml", "app: shop\ncompose: {files: [deploy/compose.yaml]}\n").expect("read");
        assert_eq!(short, same);
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_a_mend() {
        for (text, words) in [
            ("compose: compose.yaml\nimage: nginx\n", "has no `image`"),
            ("compose: compose.yaml\nruntime: docker\n", "has no `runtime`"),
            ("compose: compose.yaml\nbuild: {command: [make]}\n", "has no `build`"),
            ("compose: compose.yaml\nweb: {main: {command: [x]}}\n", "has no `web`"),
            ("compose: compose.yaml\nvolumes: {data: /data}\n", "kept over versions"),
            ("compose: compose.yaml\npublish: {path: /srv/www/x}\n", "make two apps"),
            ("compose: ../compose.yaml\n", "must lie in the app's directory"),
            ("compose: {files: []}\n", "is empty"),
            ("compose: {profiles: [x]}\n", "files"),
        ] {
            let told = read_manifest("landfall.yaml", &format!("app: site\n{text}")).expect_err("refused").to_string();
            assert!(told.contains(words), "{text} gives {told}");
        }
    }
}
