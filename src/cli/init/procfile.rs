//! A Procfile as a manifest: `web` is the endpoint, `release` a function, everything else a worker.

use std::path::PathBuf;

use super::service::Note;
use super::yaml_out::Map;
use super::{Draft, Translation, words};

/// Files that say what has to be installed, and what to install it with.
const INSTALLED: [(&str, &str); 5] = [
    ("requirements.txt", "python3 -m venv venv && venv/bin/pip install -r requirements.txt"),
    ("package-lock.json", "npm ci"),
    ("package.json", "npm install"),
    ("Gemfile", "bundle install"),
    ("go.mod", "go build -o server ."),
];

/// Translates a Procfile. `project` names the app, `is_there` tells which files lie beside it.
pub(super) fn translate(text: &str, project: &str, is_there: &dyn Fn(&str) -> bool) -> Translation {
    let mut manifest = Map::default();
    manifest.text("app", words::name(project, "app"));
    let (mut notes, mut from) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        let mut note =
            |key: &str, text: &str| notes.push(Note { line: number, key: key.to_owned(), text: text.to_owned() });
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = line.split_once(':').map(|(name, command)| (name.trim(), command.trim())) else {
            note("", "not a line of the form `name: command`; left out");
            continue;
        };
        if command.is_empty() {
            note(name, "left out: there is no command");
            continue;
        }
        from.push(name.to_owned());
        // As text: a Procfile's commands are run by a shell, and so is this.
        let mut object = Map::default();
        object.text("command", command);
        match name {
            "web" => manifest.below("web").map("main", object),
            "release" => {
                object.text("mode", "exec");
                manifest.below("functions").map("release", object);
                note(
                    name,
                    "nothing runs it before a version: call it (`landfall call APP release`), or do what needs no secrets in `build`",
                );
            }
            other => {
                let made = words::name(other, "worker");
                if made != other {
                    note(other, &format!("named `{made}`: small letters, digits and hyphens"));
                }
                manifest.below("workers").map(&made, object);
            }
        }
    }
    if let Some((file, command)) = INSTALLED.iter().find(|(file, _)| is_there(file)) {
        let text = format!(
            "there are no build packs: what `{file}` asks for is installed by `build: {{command: [sh, -c, \"{command}\"]}}`, and found there by the commands"
        );
        notes.push(Note { line: 0, key: String::new(), text });
    }
    let draft = Draft { directory: PathBuf::new(), app: words::name(project, "app"), manifest, from };
    Translation { drafts: vec![draft], notes }
}
