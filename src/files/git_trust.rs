//! What a git source says about trust and about its forge: `verify` and `status`.
//!
//! Keys, checks and values of both. What a forge's URL implies (its kind, its API, the repository's name there) is
//! derived here, so that the rest of the house has it complete.

use std::path::PathBuf;

use super::forms;
use super::keys::{Default, Key, Kind, Table};
use super::reader::Reader;
use super::record::{Entry, Record};

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

/// Where the fate of commits is reported to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReports {
    /// Whose API it is.
    pub provider: ForgeKind,
    /// The API's address, without a slash at its end.
    pub api_url: String,
    /// The repository's name there.
    pub repository: String,
    /// The file with the token.
    pub token_file: PathBuf,
}

/// The forges whose API is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeKind {
    /// GitHub, and GitHub Enterprise Server.
    GitHub,
    /// GitLab, on gitlab.com or elsewhere.
    GitLab,
    /// Gitea, and Forgejo, which has kept its API.
    Gitea,
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

pub(super) static STATUS: Table = Table {
    what: "reports of commit statuses",
    place: "sources[].git.status",
    keys: &[
        Key {
            name: "provider",
            kind: Kind::Choice { now: &["github", "gitlab", "gitea"], later: &[] },
            default: Default::Nothing("told by the `url` for github.com, gitlab.com and codeberg.org"),
            doc: "Whose API it is; `gitea` is Forgejo's as well.",
        },
        Key {
            name: "api_url",
            kind: Kind::Text(&forms::API_URL),
            default: Default::Nothing("the provider's usual one on the host of the source's `url`"),
            doc: "The address of the API, for example `https://git.example.com/api/v4`.",
        },
        Key {
            name: "repository",
            kind: Kind::Text(&forms::FORGE_REPOSITORY),
            default: Default::Nothing("the path of the source's `url`"),
            doc: "The repository's name at the forge, `owner/name`.",
        },
        Key {
            name: "token_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Required,
            doc: "The file with a token that may write commit statuses. Read anew for each delivery.",
        },
    ],
};

/// What the keys of `git` must fulfil together.
pub(super) fn check(reader: &mut Reader<'_>, git: &Record, path: &str) {
    if let Some(verify) = git.record("verify") {
        check_verify(reader, git, verify, &format!("{path}.verify"));
    }
    if let Some(status) = git.record("status")
        && let Some(url) = git.text("url")
    {
        check_status(reader, status, url, &format!("{path}.status"));
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

fn check_status(reader: &mut Reader<'_>, status: &Record, url: &str, path: &str) {
    let place =
        |key: &str| status.entry(key).filter(|entry| entry.given).map_or(&status.place, |entry: &Entry| &entry.place);
    let Some(provider) = provider(status, url) else {
        let message = format!("`{path}.provider` is missing, and the source's `url` does not tell it");
        reader.error(place("provider"), path, message, Some("write `provider: github`, `gitlab` or `gitea`"));
        return;
    };
    if api_url(status, provider, url).is_none() {
        let message = format!("`{path}.api_url` is missing, and the source's `url` names no host");
        reader.error(
            place("api_url"),
            path,
            message,
            Some("write for example `api_url: https://git.example.com/api/v4`"),
        );
    }
    match repository(status, url) {
        None => {
            let message = format!("`{path}.repository` is missing, and the source's `url` does not tell it");
            reader.error(place("repository"), path, message, Some("write it as `repository: owner/name`"));
        }
        Some(name) if provider != ForgeKind::GitLab && name.matches('/').count() != 1 => {
            let message = format!("`{name}` is no repository at this forge");
            reader.error(place("repository"), path, message, Some("write it as `repository: owner/name`"));
        }
        Some(_) => {}
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

/// The value of `status`.
pub(super) fn status_reports(git: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<StatusReports> {
    let (status, url) = (git.record("status")?, git.text("url")?);
    let provider = provider(status, url)?;
    Some(StatusReports {
        provider,
        api_url: api_url(status, provider, url)?,
        repository: repository(status, url)?,
        token_file: resolve(status.text("token_file")?),
    })
}

fn provider(status: &Record, url: &str) -> Option<ForgeKind> {
    let host = place_of(url).map(|(host, _)| host);
    match (status.text("provider"), host.as_deref()) {
        (Some("github"), _) | (None, Some("github.com" | "ssh.github.com")) => Some(ForgeKind::GitHub),
        (Some("gitlab"), _) | (None, Some("gitlab.com" | "altssh.gitlab.com")) => Some(ForgeKind::GitLab),
        (Some("gitea"), _) | (None, Some("codeberg.org")) => Some(ForgeKind::Gitea),
        (Some(_) | None, _) => None,
    }
}

fn api_url(status: &Record, provider: ForgeKind, url: &str) -> Option<String> {
    if let Some(written) = status.text("api_url") {
        return Some(written.to_owned());
    }
    let (host, _) = place_of(url)?;
    Some(match (provider, host.as_str()) {
        (ForgeKind::GitHub, "github.com" | "ssh.github.com") => "https://api.github.com".to_owned(),
        (ForgeKind::GitLab, "altssh.gitlab.com") => "https://gitlab.com/api/v4".to_owned(),
        (ForgeKind::GitHub, host) => format!("https://{host}/api/v3"),
        (ForgeKind::GitLab, host) => format!("https://{host}/api/v4"),
        (ForgeKind::Gitea, host) => format!("https://{host}/api/v1"),
    })
}

fn repository(status: &Record, url: &str) -> Option<String> {
    let written = status.text("repository").map(str::to_owned);
    written.or_else(|| {
        let (_, path) = place_of(url)?;
        let name = path.trim_matches('/').trim_end_matches(".git").to_owned();
        (forms::FORGE_REPOSITORY.check)(&name).ok()
    })
}

/// Host (with the port of an HTTP one, which its API shares) and path of a remote repository's URL.
fn place_of(url: &str) -> Option<(String, String)> {
    match url.split_once("://") {
        Some(("file", _)) => None,
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/')?;
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let port_is_its_own = matches!(scheme, "ssh" | "git");
            let host = if port_is_its_own { host.rsplit_once(':').map_or(host, |(host, _)| host) } else { host };
            (!host.is_empty()).then(|| (host.to_ascii_lowercase(), path.to_owned()))
        }
        // `git@host:owner/name.git`
        None => {
            let (host, path) = url.split_once(':').filter(|(host, _)| !host.contains('/'))?;
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            Some((host.to_ascii_lowercase(), path.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_host_and_repository() {
        for (url, host, path) in [
            ("https://github.com/acme/fleet.git", "github.com", "acme/fleet.git"),
            ("https://bot@Git.example.com:8443/a/b", "git.example.com:8443", "a/b"),
            ("ssh://git@git.example.com:2222/a/b.git", "git.example.com", "a/b.git"),
            ("git@gitlab.com:group/sub/name.git", "gitlab.com", "group/sub/name.git"),
        ] {
            assert_eq!(place_of(url), Some((host.to_owned(), path.to_owned())), "{url}");
        }
        for local in ["/srv/fleet.git", "file:///srv/fleet.git", "../fleet.git"] {
            assert_eq!(place_of(local), None, "{local}");
        }
    }
}
