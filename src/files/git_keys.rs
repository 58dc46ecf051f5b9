//! The keys under `sources[].git` that say what of a repository is followed and how it is reached.

use super::config_keys::defaults;
use super::forms;
use super::keys::{Default, Key, Kind, Table};
use crate::domain::manifest::Bytes;

/// Most directories of one source.
const MAX_PATHS: usize = 64;
/// Most hosts that submodules may lie on.
const MAX_HOSTS: usize = 64;
/// Longest command that prints a password, in words.
const MAX_WORDS: usize = 64;
/// A cache smaller than this cannot hold two commits of anything real.
const MIN_QUOTA: Bytes = Bytes::mib(1);
const MAX_QUOTA: Bytes = Bytes(1 << 50);

/// `ref`
pub(super) const REF: Key = Key {
    name: "ref",
    kind: Kind::Text(&forms::ANY_REF),
    default: Default::Nothing("no other name"),
    doc: "Follows whatever this names: `refs/…` in full, a commit, or a short name that is a branch or a tag but not both.",
};

/// `semver`
pub(super) const SEMVER: Key = Key {
    name: "semver",
    kind: Kind::Text(&forms::SEMVER_RANGE),
    default: Default::Nothing("no range of tags"),
    doc: "Follows the tag with the highest version in this range (`>=1.2, <2`); pre-releases only if the range names one (`>=2.0.0-0`).",
};

/// `paths`
pub(super) const PATHS: Key = Key {
    name: "paths",
    kind: Kind::List(&Kind::Text(&forms::REPOSITORY_PATH), MAX_PATHS),
    default: Default::Empty,
    doc: "Several directories of the repository in which manifests are looked for, instead of `path`.",
};

/// `credentials`
pub(super) const CREDENTIALS: Key = Key {
    name: "credentials",
    kind: Kind::Table(&CREDENTIALS_TABLE),
    default: Default::Nothing("no login; the repository is public"),
    doc: "User and password or token for `https://` (or `http://`). Read again at each fetch, so that rotation needs no restart.",
};

/// `ca_file`
pub(super) const CA_FILE: Key = Key {
    name: "ca_file",
    kind: Kind::Text(&forms::FILE_PATH),
    default: Default::Nothing("the authorities this machine trusts"),
    doc: "Certificates (PEM) of the authorities to trust for this source, instead of the machine's. Read again when it changes.",
};

/// `submodules`
pub(super) const SUBMODULES: Key = Key {
    name: "submodules",
    kind: Kind::Bool,
    default: Default::Bool(false),
    doc: "Whether submodules are fetched and belong to the apps they lie in.",
};

/// `submodule_credentials`
pub(super) const SUBMODULE_CREDENTIALS: Key = Key {
    name: "submodule_credentials",
    kind: Kind::Tables(&SUBMODULE_CREDENTIALS_TABLE, MAX_HOSTS),
    default: Default::Empty,
    doc: "Logins for submodules on other hosts; those on the source's own host use `credentials`.",
};

/// `cache_quota`
pub(super) const CACHE_QUOTA: Key = Key {
    name: "cache_quota",
    kind: Kind::Size(MIN_QUOTA, MAX_QUOTA),
    default: Default::Size(defaults::CACHE_QUOTA),
    doc: "A cache that has grown beyond this is made anew with the newest commit alone.",
};

const USERNAME: Key = Key {
    name: "username",
    kind: Kind::Text(&forms::LOGIN),
    default: Default::Text(defaults::USERNAME),
    doc: "The user; most forges accept any name beside a token.",
};

/// One of the three places that a password is found in.
pub(super) const PASSWORD_FILE: Key = Key {
    name: "password_file",
    kind: Kind::Text(&forms::FILE_PATH),
    default: Default::Nothing("another of the three"),
    doc: "A file that holds the password or token; a line end at its end does not count.",
};

/// One of the three places that a password is found in.
pub(super) const PASSWORD_ENV: Key = Key {
    name: "password_env",
    kind: Kind::Text(&forms::OWN_VARIABLE),
    default: Default::Nothing("another of the three"),
    doc: "A variable of the agent's environment that holds it.",
};

/// One of the three places that a password is found in.
pub(super) const PASSWORD_COMMAND: Key = Key {
    name: "password_command",
    kind: Kind::List(&Kind::Text(&forms::LINE), MAX_WORDS),
    default: Default::Empty,
    doc: "A program with its arguments that prints it; started without a shell, ended at the source's `timeout`.",
};

static CREDENTIALS_TABLE: Table = Table {
    what: "the credentials of a source",
    place: "sources[].git.credentials",
    keys: &[USERNAME, PASSWORD_FILE, PASSWORD_ENV, PASSWORD_COMMAND],
};

static SUBMODULE_CREDENTIALS_TABLE: Table = Table {
    what: "the credentials of submodules on one host",
    place: "sources[].git.submodule_credentials[]",
    keys: &[
        Key {
            name: "host",
            kind: Kind::Text(&forms::HOST_AND_PORT),
            default: Default::Required,
            doc: "The host, with a port unless it is the scheme's own.",
        },
        USERNAME,
        PASSWORD_FILE,
        PASSWORD_ENV,
        PASSWORD_COMMAND,
    ],
};
