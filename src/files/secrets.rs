//! `secrets`: keys, checks and values of where secrets come from.

use std::path::PathBuf;
use std::time::Duration;

use super::forms;
use super::keys::{Default, Key, Kind, Table};
use super::reader::Reader;
use super::record::Record;
use crate::domain::manifest::Millis;

/// Most providers of an agent.
const MAX_PROVIDERS: usize = 16;
/// Most files of age identities.
const MAX_IDENTITY_FILES: usize = 16;
/// Longest command of a provider, in words.
const MAX_WORDS: usize = 64;
const PREFIX: &str = "SECRET_";
const TIMEOUT: Millis = Millis::seconds(10);
/// The kinds of providers, each a key of its own.
const KINDS: [&str; 3] = ["files", "environment", "command"];

/// Where secrets come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretsConfig {
    /// The file with the keys of those that are stored, absolute; `None` for `secrets.key` in the data directory.
    pub key_file: Option<PathBuf>,
    /// Files of age identities, absolute: what opens encrypted files of apps.
    pub age_identity_files: Vec<PathBuf>,
    /// Asked in this order for those that are not stored.
    pub providers: Vec<SecretProvider>,
}

/// A place that knows values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SecretProvider {
    Files { directory: PathBuf },
    Environment { prefix: String },
    Command { command: Vec<String>, timeout: Duration },
}

impl SecretProvider {
    /// What it is called in messages and records.
    pub fn as_str(&self) -> &'static str {
        match self {
            SecretProvider::Files { .. } => "files",
            SecretProvider::Environment { .. } => "variable",
            SecretProvider::Command { .. } => "command",
        }
    }
}

pub(super) static SECRETS: Table = Table {
    what: "the secrets",
    place: "secrets",
    keys: &[
        Key {
            name: "key_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("`secrets.key` in the data directory"),
            doc: "The file with the keys that stored secrets are sealed with; made when the first one is set.",
        },
        Key {
            name: "age_identity_files",
            kind: Kind::List(&Kind::Text(&forms::FILE_PATH), MAX_IDENTITY_FILES),
            default: Default::Empty,
            doc: "Files of age identities, as `age-keygen` writes them: they open the `encrypted_files` of apps. Read anew each time.",
        },
        Key {
            name: "providers",
            kind: Kind::Tables(&PROVIDER, MAX_PROVIDERS),
            default: Default::Empty,
            doc: "Places that are asked, in this order, for secrets that are not stored.",
        },
    ],
};

static PROVIDER: Table = Table {
    what: "a provider of secrets",
    place: "secrets.providers[]",
    keys: &[
        Key {
            name: "files",
            kind: Kind::Table(&FILES),
            default: Default::Nothing("another kind of provider"),
            doc: "Files named like the secrets.",
        },
        Key {
            name: "environment",
            kind: Kind::Table(&ENVIRONMENT),
            default: Default::Nothing("another kind of provider"),
            doc: "Variables of the agent's own environment.",
        },
        Key {
            name: "command",
            kind: Kind::Table(&COMMAND),
            default: Default::Nothing("another kind of provider"),
            doc: "A program that is asked for each.",
        },
    ],
};

static FILES: Table = Table {
    what: "a directory with secrets",
    place: "secrets.providers[].files",
    keys: &[Key {
        name: "directory",
        kind: Kind::Text(&forms::FILE_PATH),
        default: Default::Required,
        doc: "`<directory>/<app>/<secret>`, else `<directory>/<secret>`; a last end of line does not count.",
    }],
};

static ENVIRONMENT: Table = Table {
    what: "variables with secrets",
    place: "secrets.providers[].environment",
    keys: &[Key {
        name: "prefix",
        kind: Kind::Text(&forms::OWN_VARIABLE),
        default: Default::Text(PREFIX),
        doc: "`hf-token` is in the variable `<prefix>HF_TOKEN`.",
    }],
};

static COMMAND: Table = Table {
    what: "a program that knows secrets",
    place: "secrets.providers[].command",
    keys: &[
        Key {
            name: "run",
            kind: Kind::List(&Kind::Text(&forms::LINE), MAX_WORDS),
            default: Default::Required,
            doc: "Program and arguments, started without a shell; the secret's name is added as the last one, and the app is in `LANDFALL_APP`. The value is its standard output, without a last end of line; nothing at all means that it knows none.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(Millis::seconds(1), Millis::seconds(60)),
            default: Default::Duration(TIMEOUT),
            doc: "It is ended after this long.",
        },
    ],
};

/// What the keys of each provider must fulfil together.
pub(super) fn check(reader: &mut Reader<'_>, config: &Record) {
    let Some(secrets) = config.record("secrets") else { return };
    for (index, entry) in secrets.list("providers").iter().enumerate() {
        let (path, Some(provider)) = (format!("secrets.providers[{index}]"), entry.record()) else { continue };
        let given = KINDS.iter().filter(|kind| provider.entry(kind).is_some_and(|entry| entry.given)).count();
        if given != 1 {
            let message = format!("`{path}` must be of exactly one kind, this has {given}");
            reader.error(&entry.place, &path, message, Some(&format!("the kinds are {}", KINDS.join(", "))));
        }
        if let Some(command) = provider.record("command").filter(|command| command.list("run").is_empty()) {
            reader.error(&command.place, &path, format!("`{path}.command.run` names no program"), None);
        }
    }
}

/// Where secrets come from; `None` only if the tables lack a key that is asked for.
pub(super) fn secrets(config: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<SecretsConfig> {
    let secrets = config.record("secrets")?;
    let provider = |provider: &Record| {
        if let Some(files) = provider.record("files") {
            return Some(SecretProvider::Files { directory: resolve(files.text("directory")?) });
        }
        if let Some(environment) = provider.record("environment") {
            return Some(SecretProvider::Environment { prefix: environment.text("prefix")?.to_owned() });
        }
        let asked = provider.record("command")?;
        let mut command = asked.texts("run");
        // A program given by a path lies where the configuration says, like every file it names.
        if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
            *program = resolve(program).display().to_string();
        }
        Some(SecretProvider::Command { command, timeout: asked.duration("timeout")?.duration() })
    };
    Some(SecretsConfig {
        key_file: secrets.text("key_file").map(resolve),
        age_identity_files: secrets.texts("age_identity_files").iter().map(|path| resolve(path)).collect(),
        providers: secrets.list("providers").iter().map(|entry| provider(entry.record()?)).collect::<Option<_>>()?,
    })
}
