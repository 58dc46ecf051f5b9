//! `sources[].git.ssh`: how to sign in over ssh. Keys, checks and value in one place.

use std::path::{Path, PathBuf};

use super::forms;
use super::keys::{Default, Key, Kind, Table};
use super::reader::Reader;
use super::record::Record;
use super::ssh_url;

/// How to sign in over ssh. All paths are absolute; the files are read at every fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// The private key.
    pub key_file: PathBuf,
    /// The passphrase of an encrypted key.
    pub passphrase_file: Option<PathBuf>,
    /// Trusted host keys, besides those that come with Landfall.
    pub known_hosts_file: Option<PathBuf>,
}

/// The keys.
pub static SSH: Table = Table {
    what: "the ssh settings of a source",
    place: "sources[].git.ssh",
    keys: &[
        Key {
            name: "key_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Required,
            doc: "The private key (ed25519, ecdsa or rsa), readable by the agent's user only. Read again at every fetch.",
        },
        Key {
            name: "passphrase_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("the key is not encrypted"),
            doc: "The passphrase of an encrypted key, readable by the agent's user only. Read again at every fetch.",
        },
        Key {
            name: "known_hosts_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("only the forges that Landfall knows"),
            doc: "Host keys that are trusted, in OpenSSH's format. Landfall brings those of github.com, gitlab.com, bitbucket.org \
                  and codeberg.org, for hosts that this file does not name. Never written by the agent.",
        },
    ],
};

/// An ssh URL without a key can never work, and a key without an ssh URL is never used: both are mistakes.
/// `git` is the record of the source's `git`, `path` its place.
pub(super) fn check(reader: &mut Reader<'_>, git: &Record, path: &str) {
    let Some(url) = git.entry("url") else { return };
    let given = git.entry("ssh").filter(|entry| entry.given);
    match (git.text("url").is_some_and(ssh_url::is_ssh), given) {
        (true, None) => {
            let hint = "add `ssh: {key_file: …, known_hosts_file: …}` beside `url`";
            reader.error(&url.place, path, "an ssh URL needs a key to sign in with", Some(hint));
        }
        (false, Some(ssh)) => {
            let message = "`ssh` is for ssh URLs, this `url` is another";
            reader.error(&ssh.place, &format!("{path}.ssh"), message, Some("write `git@HOST:PATH` or remove `ssh`"));
        }
        (true, Some(_)) | (false, None) => {}
    }
}

/// The value of a record without mistakes; `resolve` makes paths absolute.
pub(super) fn build(ssh: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<SshConfig> {
    Some(SshConfig {
        key_file: resolve(ssh.text("key_file")?),
        passphrase_file: ssh.text("passphrase_file").map(resolve),
        known_hosts_file: ssh.text("known_hosts_file").map(resolve),
    })
}

impl SshConfig {
    /// Where known hosts are kept when none are configured: beside the key.
    pub fn usual_known_hosts(&self) -> PathBuf {
        self.key_file.parent().unwrap_or(Path::new("/")).join("known_hosts")
    }
}
