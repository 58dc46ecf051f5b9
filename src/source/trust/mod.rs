//! Trust: whether a commit or tag carries a signature by one of the keys the operator named.
//!
//! Asked by the looker before anything of a new revision is parsed. The files with the keys are read anew at each
//! check, so that a key that is added or taken away counts from the next look on. Everything below this file is
//! pure: signature, signed bytes, keys and the present time in, an answer out.
//!
//! Invariants: whatever is not understood is refused; a key counts only inside its dates, both now and when the
//! signature says it was made, because that second time is chosen by whoever makes the signature.

mod allowed_signers;
mod openpgp;
mod signed;
mod ssh;

use std::path::Path;

use git2::{Oid, Repository};
use jiff::Timestamp;

use super::Refusal;
use super::error::Trouble;
use crate::domain::CommitId;
use crate::files::config::{SignedObject, Verification};
use signed::{Format, Signed};

/// Largest file with keys that is read.
const MAX_KEYS: u64 = 16 << 20;
/// How far ahead of this machine's clock a signature may have been made.
const CLOCKS_DIFFER: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// The tag that is followed, when one is.
#[derive(Debug, Clone, Copy)]
pub(super) struct FollowedTag<'a> {
    /// Its short name.
    pub name: &'a str,
    /// The reference it is found under here; in a cache that is not its own name.
    pub reference: &'a str,
}

impl<'a> FollowedTag<'a> {
    /// The tag of that full name, if it is one.
    pub(super) fn of(full_name: &'a str, reference: &'a str) -> Option<Self> {
        Some(Self { name: full_name.strip_prefix("refs/tags/")?, reference })
    }
}

/// Who signed a revision, in words.
pub(super) type Signer = String;

/// Checks `commit`, or the tag that led to it. The outer error is trouble with the repository.
pub(super) fn check(
    repository: &Repository,
    commit: Oid,
    tag: Option<FollowedTag<'_>>,
    rules: &Verification,
    now: Timestamp,
) -> Result<Result<Signer, Refusal>, Trouble> {
    let found = match rules.mode {
        SignedObject::Commit => signed::commit(repository, commit)?,
        SignedObject::Tag => signed::tag(repository, commit, tag)?,
    };
    let verdict = found.and_then(|signed| verify(&signed, rules, now));
    let id = CommitId::try_from(commit.to_string()).map_err(Trouble::corrupt)?;
    Ok(verdict.map_err(|problem| Refusal { commit: id, problem }))
}

/// Checks one signature against the keys.
fn verify(signed: &Signed, rules: &Verification, now: Timestamp) -> Result<Signer, String> {
    let thing = &signed.what;
    match signed.format {
        Format::Ssh => {
            let file = rules.ssh_allowed_signers_file.as_deref().ok_or_else(|| {
                format!(
                    "{thing} has an SSH signature, and no SSH key is trusted; name a file of them as `verify.ssh_allowed_signers_file`, or sign with an OpenPGP key"
                )
            })?;
            let text = String::from_utf8(read(file)?).map_err(|_| unreadable(file, "it is not text"))?;
            let signers = allowed_signers::parse(&text).map_err(|problem| unreadable(file, &problem))?;
            ssh::verify(signed, &signers, now)
                .map_err(|problem| format!("{thing} {problem}{}", mend(signed, &[file.display().to_string()])))
        }
        Format::OpenPgp => {
            if rules.openpgp_keyring_files.is_empty() {
                return Err(format!(
                    "{thing} has an OpenPGP signature, and no OpenPGP key is trusted; name files of them as `verify.openpgp_keyring_files`, or sign with an SSH key"
                ));
            }
            let mut keys = Vec::new();
            for file in &rules.openpgp_keyring_files {
                keys.extend(openpgp::read_keys(&read(file)?).map_err(|problem| unreadable(file, &problem))?);
            }
            let names: Vec<String> =
                rules.openpgp_keyring_files.iter().map(|file| file.display().to_string()).collect();
            openpgp::verify(signed, &keys, now).map_err(|problem| format!("{thing} {problem}{}", mend(signed, &names)))
        }
    }
}

fn mend(signed: &Signed, files: &[String]) -> String {
    format!("; {} with a key of {}, and push", signed.mend, files.join(", "))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(file).map_err(|error| unreadable(file, &error.to_string()))?.len();
    if size > MAX_KEYS {
        return Err(unreadable(file, &format!("it has {size} bytes, {MAX_KEYS} are read at most")));
    }
    std::fs::read(file).map_err(|error| unreadable(file, &error.to_string()))
}

fn unreadable(file: &Path, problem: &str) -> String {
    format!("no signature can be checked: the keys in {} cannot be read: {problem}; mend that file", file.display())
}

/// Whether a signature was made later than clocks can differ.
fn is_ahead(made: Timestamp, now: Timestamp) -> bool {
    made.duration_since(now) > CLOCKS_DIFFER
}
