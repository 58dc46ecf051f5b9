//! What of a repository is followed and how it is reached: the values of `sources[].git`.
//!
//! Invariant: nothing here is a secret. Credentials say where a password is found, never what it is.

use std::fmt;
use std::path::PathBuf;

use super::config_keys::defaults;
use super::git_trust::{self, StatusReports, Verification};
use super::reader::Reader;
use super::record::{Record, Value};
use super::ssh::{self, SshConfig};
use super::ssh_url;
use crate::domain::CommitId;
use crate::domain::manifest::{Bytes, Millis};

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// `https://`, `http://`, `ssh://`, `user@host:path`, `git://`, `file://` or a path (made absolute, relative to the
    /// configuration file).
    pub url: String,
    /// What is followed.
    pub reference: GitReference,
    /// Directories within the repository, at least one, none inside another; an empty text is its root.
    pub paths: Vec<String>,
    /// Time between two looks (± 10 %).
    pub poll: Millis,
    /// A fetch without an end after this long has failed.
    pub timeout: Millis,
    /// What a commit that does not descend from the last one leads to.
    pub on_force_push: OnForcePush,
    /// How to log in.
    pub credentials: Option<Credentials>,
    /// How to sign in over ssh; there exactly when the URL is one of ssh.
    pub ssh: Option<SshConfig>,
    /// Authorities to trust instead of the machine's; an absolute path.
    pub ca_file: Option<PathBuf>,
    /// Whether submodules belong to the content.
    pub submodules: bool,
    /// Logins for submodules on other hosts.
    pub submodule_credentials: Vec<HostCredentials>,
    /// A cache larger than this is made anew.
    pub cache_quota: Bytes,
    /// Push hooks; without it they are refused.
    pub webhook: Option<Webhook>,
    /// Which signatures a revision needs to be taken.
    pub verify: Option<Box<Verification>>,
    /// Where the fate of commits is reported to.
    pub status: Option<Box<StatusReports>>,
}

/// Push hooks of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Files with the secrets, one or two, absolute.
    pub secret_files: Vec<PathBuf>,
}

/// What a commit that does not descend from the last one leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnForcePush {
    /// It is taken like any other.
    Follow,
    /// It waits for a person.
    Hold,
}

/// What of a repository is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitReference {
    /// Whatever `HEAD` of the remote names.
    Head,
    /// A branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// Exactly one commit.
    Commit(CommitId),
    /// A reference by its full name, `refs/…`.
    Full(String),
    /// A branch or a tag, whichever there is; both is an error.
    Named(String),
    /// The tag with the highest version in a range.
    Semver(semver::VersionReq),
}

/// How to log in with user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// Where the password is found.
    pub password: PasswordFrom,
}

/// Where a password or token is found; looked up anew at each fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordFrom {
    /// In a file, by its absolute path.
    File(PathBuf),
    /// In a variable of the agent's environment.
    Environment(String),
    /// On the standard output of a program, given with its arguments.
    Command(Vec<String>),
}

/// Credentials for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCredentials {
    /// The host, with a port where it was given.
    pub host: String,
    /// How to log in there.
    pub credentials: Credentials,
}

impl GitSource {
    /// The repository at `url`, all else by default.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            reference: GitReference::Head,
            paths: vec![String::new()],
            poll: defaults::POLL,
            timeout: defaults::GIT_TIMEOUT,
            on_force_push: OnForcePush::Follow,
            credentials: None,
            ssh: None,
            ca_file: None,
            submodules: false,
            submodule_credentials: Vec::new(),
            cache_quota: defaults::CACHE_QUOTA,
            webhook: None,
            verify: None,
            status: None,
        }
    }
}

/// In words: `branch main`, `tag v1`, `commit 1a2b3c4`.
impl fmt::Display for GitReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::Commit(id) => write!(f, "commit {}", id.short()),
            Self::Full(name) => f.write_str(name),
            Self::Named(name) => write!(f, "ref {name}"),
            Self::Semver(range) => write!(f, "tags {range}"),
        }
    }
}

/// What no key can know for itself. `path` is where the table stands.
pub(super) fn check(reader: &mut Reader<'_>, git: &Record, path: &str) {
    let given = |key: &str| git.entry(key).is_some_and(|entry| entry.given);
    let references = ["branch", "tag", "commit", "ref", "semver"];
    if let Some(second) = references.into_iter().filter(|key| given(key)).nth(1).and_then(|key| git.entry(key)) {
        let message = format!("`{path}` follows one of `branch`, `tag`, `commit`, `ref` and `semver`, not several");
        reader.error(&second.place, path, message, None);
    }
    if git.text("path").is_some_and(|text| !text.is_empty())
        && let Some(paths) = git.entry("paths").filter(|_| !git.list("paths").is_empty())
    {
        let message = format!("`{path}` has both `path` and `paths`");
        reader.error(&paths.place, path, message, Some("name all directories under `paths`"));
    }
    let local = git.text("url").is_some_and(|url| !url.contains("://") || url.starts_with("file://"));
    if local && let Some(entry) = git.entry("submodules").filter(|_| git.bool("submodules") == Some(true)) {
        let message = format!("`{path}.submodules` is for repositories on other machines");
        let hint = "remove it, or serve the repository by `git daemon` and write git://localhost/…";
        reader.error(&entry.place, path, message, Some(hint));
    }
    check_webhook(reader, git, path);
    let web = git.text("url").is_some_and(|url| url.starts_with("https://") || url.starts_with("http://"));
    if let Some(credentials) = git.record("credentials") {
        check_password(reader, credentials, &format!("{path}.credentials"));
        if !web && git.text("url").is_some() {
            let message = format!("`{path}.credentials` are for `https://`, which the URL is not");
            reader.error(&credentials.place, path, message, Some("correct the `url`, or remove them"));
        }
    }
    ssh::check(reader, git, path);
    git_trust::check(reader, git, path);
    for (index, entry) in git.list("submodule_credentials").iter().enumerate() {
        let Some(credentials) = entry.record() else { continue };
        check_password(reader, credentials, &format!("{path}.submodule_credentials[{index}]"));
        if git.bool("submodules") == Some(false) {
            let message = format!("`{path}.submodule_credentials` are for submodules, which are not fetched");
            reader.error(&credentials.place, path, message, Some("add `submodules: true`"));
        }
    }
}

fn check_webhook(reader: &mut Reader<'_>, git: &Record, path: &str) {
    let Some(files) = git.record("webhook").and_then(|webhook| webhook.entry("secret_files")) else { return };
    if matches!(&files.value, Value::List(items) if items.is_empty()) {
        let path = format!("{path}.webhook.secret_files");
        let hint = "write for example `secret_files: [/run/secrets/hook]`, or leave `webhook` out to refuse push hooks";
        reader.error(&files.place, &path, format!("`{path}` is empty"), Some(hint));
    }
}

pub(super) fn check_password(reader: &mut Reader<'_>, credentials: &Record, path: &str) {
    let texts = ["password_file", "password_env"].into_iter().filter(|key| credentials.text(key).is_some()).count();
    let command = usize::from(!credentials.list("password_command").is_empty());
    // A key that is there but wrong has been reported.
    let given = ["password_file", "password_env", "password_command"]
        .into_iter()
        .filter(|key| credentials.entry(key).is_some_and(|entry| entry.given))
        .count();
    if texts + command != 1 && (given != 1 || texts + command > 1) {
        let message = format!("`{path}` needs one of `password_file`, `password_env` and `password_command`");
        let hint = "write for example `password_file: /run/secrets/git-token`";
        reader.error(&credentials.place, path, message, Some(hint));
    }
}

/// The value of a table without mistakes; `resolve` makes paths absolute.
pub(super) fn build(git: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<GitSource> {
    let url = git.text("url")?;
    let login = match git.record("credentials") {
        Some(record) => Some(credentials(record, resolve)?),
        None => None,
    };
    let of_host = |record: &Record| {
        Some(HostCredentials { host: record.text("host")?.to_owned(), credentials: credentials(record, resolve)? })
    };
    let on_hosts = git.list("submodule_credentials").iter().map(|entry| of_host(entry.record()?));
    Some(GitSource {
        url: match url.contains("://") || ssh_url::is_ssh(url) {
            true => url.to_owned(),
            false => resolve(url).display().to_string(),
        },
        reference: reference(git)?,
        paths: paths(git)?,
        poll: git.duration("poll")?,
        timeout: git.duration("timeout")?,
        on_force_push: match git.text("on_force_push")? {
            "follow" => OnForcePush::Follow,
            "hold" => OnForcePush::Hold,
            _ => return None,
        },
        credentials: login,
        ssh: match git.record("ssh") {
            Some(record) => Some(ssh::build(record, resolve)?),
            None => None,
        },
        ca_file: git.text("ca_file").map(resolve),
        submodules: git.bool("submodules")?,
        submodule_credentials: on_hosts.collect::<Option<_>>()?,
        cache_quota: git.size("cache_quota")?,
        webhook: git.record("webhook").map(|webhook| Webhook {
            secret_files: webhook.texts("secret_files").iter().map(|file| resolve(file)).collect(),
        }),
        verify: git_trust::verification(git, resolve).map(Box::new),
        status: git_trust::status_reports(git, resolve).map(Box::new),
    })
}

fn reference(git: &Record) -> Option<GitReference> {
    if let Some(branch) = git.text("branch") {
        return Some(GitReference::Branch(branch.to_owned()));
    }
    if let Some(tag) = git.text("tag") {
        return Some(GitReference::Tag(tag.to_owned()));
    }
    if let Some(commit) = git.text("commit") {
        return Some(GitReference::Commit(commit.parse().ok()?));
    }
    if let Some(range) = git.text("semver") {
        return Some(GitReference::Semver(range.parse().ok()?));
    }
    Some(match git.text("ref") {
        None | Some("HEAD") => GitReference::Head,
        Some(name) if name.starts_with("refs/") => GitReference::Full(name.to_owned()),
        Some(name) => match name.parse() {
            Ok(commit) => GitReference::Commit(commit),
            Err(_) => GitReference::Named(name.to_owned()),
        },
    })
}

/// In order, and without those that lie inside another.
fn paths(git: &Record) -> Option<Vec<String>> {
    let mut all = git.texts("paths");
    if all.is_empty() {
        all.push(git.text("path")?.to_owned());
    }
    all.sort_unstable();
    let mut kept: Vec<String> = Vec::new();
    for path in all {
        let inside = |outer: &String| {
            outer.is_empty() || path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !kept.iter().any(inside) {
            kept.push(path);
        }
    }
    Some(kept)
}

/// A login, in a record that has `username` and the three places of a password.
pub(super) fn credentials(record: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<Credentials> {
    let password = match (record.text("password_file"), record.text("password_env")) {
        (Some(file), _) => PasswordFrom::File(resolve(file)),
        (None, Some(variable)) => PasswordFrom::Environment(variable.to_owned()),
        (None, None) => PasswordFrom::Command(record.texts("password_command")),
    };
    Some(Credentials { username: record.text("username")?.to_owned(), password })
}
