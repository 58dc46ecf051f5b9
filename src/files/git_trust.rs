//! What a git source says about trust: keys, checks and value of `verify`.

use std::path::PathBuf;

use super::forms;
use super::keys::{Default, Key, Kind, Table};
use super::reader::Reader;
use super::record::Record;

/// Most files with keys of one source.
const MAX_KEYRINGS: usize = 64;

/// Which signatures a revision needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// What must be signed.
    pub mode: SignedObject,
    /// SSH keys, in the format of `gpg.ssh.allowedSignersFile`.
    pub ssh_allowed_signers_file: Option<PathBuf>,
    /// OpenPGP keys, as `gpg --export` writes them.
    pub openpgp_keyring_files: Vec<PathBuf>,
}

/// What must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedObject {
    /// The commit itself.
    Commit,
    /// The annotated tag that is followed.
    Tag,
}

pub(super) static VERIFY: Table = Table {
    what: "the verification of signatures",
    place: "sources[].git.verify",
    keys: &[
        Key {
            name: "mode",
            kind: Kind::Choice { now: &["commit", "tag"], later: &[] },
            default: Default::Text("commit"),
            doc: "What must be signed: each commit that is deployed, or the annotated `tag` that is followed.",
        },
        Key {
            name: "ssh_allowed_signers_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("no SSH key is trusted"),
            doc: "SSH keys that are trusted, in the format of git's `gpg.ssh.allowedSignersFile`. Read anew at each check.",
        },
        Key {
            name: "openpgp_keyring_files",
            kind: Kind::List(&Kind::Text(&forms::FILE_PATH), MAX_KEYRINGS),
            default: Default::Empty,
            doc: "Files of OpenPGP keys that are trusted, as `gpg --export` writes them, with or without `--armor`. Read anew at each check.",
        },
    ],
};

/// What the keys of `git` must fulfil together.
pub(super) fn check(reader: &mut Reader<'_>, git: &Record, path: &str) {
    if let Some(verify) = git.record("verify") {
        check_verify(reader, git, verify, &format!("{path}.verify"));
    }
}

fn check_verify(reader: &mut Reader<'_>, git: &Record, verify: &Record, path: &str) {
    if verify.text("ssh_allowed_signers_file").is_none() && verify.list("openpgp_keyring_files").is_empty() {
        let message = format!("`{path}` names no keys, so that nothing could ever be deployed");
        let hint = "set `ssh_allowed_signers_file`, `openpgp_keyring_files`, or both";
        reader.error(&verify.place, path, message, Some(hint));
    }
    let given = |key: &str| git.entry(key).is_some_and(|entry| entry.given);
    if verify.text("mode") == Some("tag") && !["tag", "semver", "ref"].into_iter().any(given) {
        let place = verify.entry("mode").map_or(&verify.place, |entry| &entry.place);
        let message = format!("`{path}.mode: tag` needs a tag to follow");
        reader.error(place, path, message, Some("set `tag` or `semver`, or write `mode: commit`"));
    }
}

/// The value of `verify`.
pub(super) fn verification(git: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<Verification> {
    let verify = git.record("verify")?;
    Some(Verification {
        mode: if verify.text("mode") == Some("tag") { SignedObject::Tag } else { SignedObject::Commit },
        ssh_allowed_signers_file: verify.text("ssh_allowed_signers_file").map(resolve),
        openpgp_keyring_files: verify.texts("openpgp_keyring_files").iter().map(|file| resolve(file)).collect(),
    })
}
