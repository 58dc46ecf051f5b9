//! `publish`: an app whose tree is put at a stable path for others to read.

use super::forms;
use super::keys::{Default, Form, Key, Kind, Problem, Table};
use super::reader::Reader;
use super::record::Record;
use super::yaml::Place;
use crate::domain::manifest::{Build, Millis};
use crate::domain::publish::{How, Publish, Reload, Signal, Target};

const SECOND: Millis = Millis::seconds(1);
const HOUR: Millis = Millis::seconds(3600);
const DAY: Millis = Millis::seconds(24 * 3600);
/// Trees of versions before that stay.
const KEEP: u64 = 2;
/// How long a replaced tree stays.
const LINGER: Millis = Millis::seconds(600);
const CHECK_TIMEOUT: Millis = Millis::seconds(60);
const RELOAD_TIMEOUT: Millis = Millis::seconds(30);

/// Where a tree is published.
static PUBLISH_PATH: Form = Form { what: "an absolute path", pattern: "^/.*[^/]$", check: publish_path };

/// Below which trees may be published.
pub(super) static PUBLISH_ROOT: Form = Form { what: "an absolute path", pattern: "^/.", check: publish_root };

pub(super) const PUBLISH: Key = Key {
    name: "publish",
    kind: Kind::Table(&TABLE),
    default: Default::Nothing("the app is run, not published"),
    doc: "Puts the tree of each version at a stable path for programs that Landfall does not run; see publish.md.",
};

static TABLE: Table = Table {
    what: "a published tree",
    place: "publish",
    keys: &[
        Key {
            name: "path",
            kind: Kind::Text(&PUBLISH_PATH),
            default: Default::Required,
            doc: "A link at this place points to the tree of the live version; the link's last part is the commit. Below one of the agent's `publish_roots`.",
        },
        Key {
            name: "keep",
            kind: Kind::Number(0, 100),
            default: Default::Number(KEEP),
            doc: "So many trees that were published before stay beside it.",
        },
        Key {
            name: "linger",
            kind: Kind::Duration(Millis(0), DAY),
            default: Default::Duration(LINGER),
            doc: "A tree that was replaced stays at least this long, and while a process is seen in it.",
        },
        Key {
            name: "check",
            kind: Kind::Table(&CHECK),
            default: Default::Nothing("nothing is checked"),
            doc: "Runs in the new tree before it is published; if it fails the deployment fails and the tree before stays.",
        },
        Key {
            name: "reload",
            kind: Kind::Table(&RELOAD),
            default: Default::Nothing("nobody is told; whoever reads finds the new tree the next time"),
            doc: "Tells the program that reads the tree: one of `command`, `url` and `signal`. If it fails until `timeout`, the version is rolled back.",
        },
    ],
};

static CHECK: Table = Table {
    what: "a check",
    place: "publish.check",
    keys: &[
        Key {
            name: "command",
            kind: Kind::Command,
            default: Default::Required,
            doc: "Program and arguments as a list, run in the new tree; one text is run by `sh -c`.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(SECOND, HOUR),
            default: Default::Duration(CHECK_TIMEOUT),
            doc: "The check is ended, and has failed, after this long.",
        },
    ],
};

static RELOAD: Table = Table {
    what: "a reload",
    place: "publish.reload",
    keys: &[
        Key {
            name: "command",
            kind: Kind::Command,
            default: Default::Nothing("no command is run"),
            doc: "Program and arguments as a list, run in the new tree; one text is run by `sh -c`.",
        },
        Key {
            name: "url",
            kind: Kind::Text(&forms::WEB_URL),
            default: Default::Nothing("no address is asked"),
            doc: "Gets a `POST` with app, version, commit and path as JSON; an answer of 2xx is success.",
        },
        Key {
            name: "signal",
            kind: Kind::Choice { now: &["HUP", "USR1", "USR2"], later: &[] },
            default: Default::Nothing("no signal is sent"),
            doc: "This signal, to the process of `pid_file` or `process`.",
        },
        Key {
            name: "pid_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("`process` says who"),
            doc: "The file in which the number of the process stands that gets the signal.",
        },
        Key {
            name: "process",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("`pid_file` says who"),
            doc: "The name of the process that gets the signal, as `ps -o comm` shows it; of several that are each other's children, the topmost.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(SECOND, HOUR),
            default: Default::Duration(RELOAD_TIMEOUT),
            doc: "It must have succeeded after this long; until then it is tried again.",
        },
    ],
};

fn publish_path(text: &str) -> Result<String, Problem> {
    plain(text, 2, "/srv/www/current")
}

fn publish_root(text: &str) -> Result<String, Problem> {
    plain(text, 1, "/srv/www")
}

/// An absolute path of at least so many parts, none of which leads up.
fn plain(text: &str, least: usize, example: &str) -> Result<String, Problem> {
    let bad = |why: &str| Err(Problem::hinted(format!("`{text}` {why}"), format!("write for example {example}")));
    let Some(rest) = text.strip_prefix('/') else { return bad("is not absolute") };
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) || text.contains(char::is_control) {
        return bad("is not a plain path");
    }
    if parts.len() < least {
        return bad("is too near to the root directory");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Whether the app is published instead of run.
pub(super) fn is_published(app: &Record) -> bool {
    app.entry("publish").is_some_and(|entry| entry.given)
}

/// What no key can know for itself.
pub(super) fn check(reader: &mut Reader<'_>, app: &Record) {
    let runtime = app.entry("runtime").filter(|entry| entry.given);
    let named = runtime.and_then(|entry| entry.text());
    let Some(publish) = app.entry("publish").filter(|entry| entry.given) else {
        if let Some(entry) = runtime.filter(|_| named == Some("publish")) {
            let message = "`runtime: publish` needs `publish`, which says where";
            reader.error(&entry.place, "runtime", message, Some("add `publish: {path: /srv/www/current}`"));
        }
        return;
    };
    if let Some(entry) = runtime.filter(|_| named.is_some_and(|name| name != "publish")) {
        let message = "an app with `publish` has no other runtime";
        reader.error(&entry.place, "runtime", message, Some("write `runtime: publish`, or leave it out"));
    }
    let dockerfile = app.record("build").and_then(|build| build.entry("dockerfile"));
    let images = [("image", app.entry("image")), ("build.dockerfile", dockerfile)];
    for (key, entry) in images.into_iter().filter_map(|(key, entry)| Some((key, entry.filter(|entry| entry.given)?))) {
        let message = format!("an app with `publish` is not run, so it has no `{key}`");
        reader.error(&entry.place, key, message, Some("remove it; `build.command` can make files"));
    }
    for key in ["web", "functions", "workers", "volumes"] {
        if let Some(entry) = app.entry(key).filter(|_| !app.map(key).is_empty()) {
            let place = Place { width: 1, ..entry.place.clone() };
            let message = format!("an app with `publish` is not run, so it has no `{key}`");
            let hint = "make two apps of it, one that is published and one that runs";
            reader.error(&place, key, message, Some(hint));
        }
    }
    let Some(reload) = publish.record().and_then(|publish| publish.record("reload")) else { return };
    check_reload(reader, reload);
}

fn check_reload(reader: &mut Reader<'_>, reload: &Record) {
    let given = |key: &str| reload.entry(key).is_some_and(|entry| entry.given);
    let path = "publish.reload";
    let ways: Vec<&str> = ["command", "url", "signal"].into_iter().filter(|key| given(key)).collect();
    if ways.len() != 1 {
        let message = format!("`{path}` has {} of `command`, `url` and `signal`, it needs one", ways.len());
        reader.error(&reload.place, path, message, Some("for example `reload: {signal: HUP, process: nginx}`"));
    }
    let targets = ["pid_file", "process"].into_iter().filter(|key| given(key)).count();
    if given("signal") && targets != 1 {
        let message = format!("`{path}.signal` needs one of `pid_file` and `process`, which say who gets it");
        reader.error(&reload.place, &format!("{path}.signal"), message, None);
    }
    if !given("signal") && targets > 0 {
        let message = format!("`pid_file` and `process` belong to `{path}.signal`");
        reader.error(&reload.place, path, message, Some("remove them"));
    }
}

/// What is published, from a record without mistakes. The outer `None` only if the table of keys lacks one.
#[allow(clippy::option_option)]
pub(super) fn build(app: &Record) -> Option<Option<Publish>> {
    let Some(publish) = app.record("publish").filter(|_| is_published(app)) else { return Some(None) };
    Some(Some(Publish {
        path: publish.text("path")?.to_owned(),
        keep: publish.number("keep")?,
        linger: publish.duration("linger")?,
        check: match publish.record("check") {
            Some(check) => Some(Build { command: check.texts("command"), timeout: check.duration("timeout")? }),
            None => None,
        },
        reload: match publish.record("reload") {
            Some(reload) => Some(Reload { how: how(reload)?, timeout: reload.duration("timeout")? }),
            None => None,
        },
    }))
}

fn how(reload: &Record) -> Option<How> {
    if let Some(signal) = reload.text("signal") {
        let to = match (reload.text("pid_file"), reload.text("process")) {
            (Some(file), _) => Target::PidFile(file.to_owned()),
            (None, process) => Target::Process(process?.to_owned()),
        };
        return Some(How::Signal { signal: Signal::named(signal)?, to });
    }
    match reload.text("url") {
        Some(url) => Some(How::Url(url.to_owned())),
        None => Some(How::Command(reload.texts("command"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::manifest::read_manifest;

    fn errors(text: &str) -> String {
        read_manifest("landfall.yaml", &format!("app: site\n{text}")).expect_err("refused").to_string()
    }

    #[test]
    fn a_published_app_says_where_and_how_its_readers_hear_of_it() {
        let text = "app: site\nruntime: publish\npublish:\n  path: /srv//www/current/\n  check: {command: [./check.sh]}\n  reload: {signal: HUP, process: nginx}\n";
        let publish = read_manifest("landfall.yaml", text).expect("read").publish.expect("published");
        assert_eq!((&*publish.path, publish.keep, publish.linger), ("/srv/www/current", 2, LINGER));
        let how = How::Signal { signal: Signal::Hup, to: Target::Process("nginx".to_owned()) };
        assert_eq!(publish.reload.expect("told").how, how);
        assert_eq!(publish.check.expect("checked").command, ["./check.sh"]);
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_a_mend() {
        let place = "publish: {path: /srv/www/current";
        for (text, words) in [
            ("runtime: publish\n".to_owned(), "says where"),
            (format!("runtime: process\n{place}}}\n"), "no other runtime"),
            (format!("{place}}}\nweb: {{main: {{command: [x]}}}}\n"), "has no `web`"),
            (format!("{place}}}\nimage: nginx\n"), "has no `image`"),
            (format!("{place}, reload: {{timeout: 5s}}}}\n"), "needs one"),
            (format!("{place}, reload: {{signal: HUP}}}}\n"), "who gets it"),
            (format!("{place}, reload: {{command: [x], process: nginx}}}}\n"), "belong to"),
            ("publish: {path: srv/www}\n".to_owned(), "not absolute"),
            ("publish: {path: /srv}\n".to_owned(), "too near"),
            ("publish: {path: /srv/../etc/x}\n".to_owned(), "not a plain path"),
        ] {
            let told = errors(&text);
            assert!(told.contains(words), "{text} gives {told}");
        }
    }
}
