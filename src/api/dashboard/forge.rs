//! Where a commit can be looked at, when it is known what kind of forge a source lies at.

use std::collections::HashMap;

use crate::domain::hook::Provider;
use crate::domain::{CommitId, SourceName};
use crate::wire::api::Source;

/// The addresses of commits, by source.
#[derive(Debug, Clone, Default)]
pub struct Forges(HashMap<SourceName, String>);

impl Forges {
    /// Of these sources.
    pub fn of(sources: &[Source]) -> Self {
        Self(sources.iter().filter_map(|source| Some((source.source.clone(), commits(source)?))).collect())
    }

    /// The page of a commit.
    pub fn commit(&self, source: Option<&SourceName>, commit: &CommitId) -> Option<String> {
        Some(format!("{}{commit}", self.0.get(source?)?))
    }
}

/// What the addresses of a source's commits begin with.
fn commits(source: &Source) -> Option<String> {
    let (host, path) = host_and_path(&source.location)?;
    let provider = source.last_hook.map(|hook| hook.provider).or_else(|| known(host))?;
    let between = match provider {
        Provider::GitHub | Provider::Gitea | Provider::Forgejo | Provider::Gogs => "commit",
        Provider::GitLab => "-/commit",
        Provider::Bitbucket => "commits",
        Provider::Landfall => return None,
    };
    Some(format!("https://{host}/{path}/{between}/"))
}

/// Forges that everybody knows, and hosts named after their program.
fn known(host: &str) -> Option<Provider> {
    let named = |name: &str| host.split(['.', '-']).any(|part| part == name);
    match host {
        "github.com" => Some(Provider::GitHub),
        "gitlab.com" => Some(Provider::GitLab),
        "codeberg.org" => Some(Provider::Forgejo),
        "bitbucket.org" => Some(Provider::Bitbucket),
        _ if named("gitlab") => Some(Provider::GitLab),
        _ if named("gitea") => Some(Provider::Gitea),
        _ if named("forgejo") => Some(Provider::Forgejo),
        _ => None,
    }
}

/// Of `https://host/path.git`, `ssh://git@host/path` and `git@host:path`. A port is a git server's, and says nothing of
/// where its pages are; but for https, where both are usually the same.
fn host_and_path(location: &str) -> Option<(&str, &str)> {
    let (authority, path) = match location.split_once("://") {
        Some(("https" | "http" | "ssh" | "git", rest)) => rest.split_once('/')?,
        Some(_) => return None,
        None => location.split_once(':')?,
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = if location.starts_with("https://") { host } else { host.split(':').next()? };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | '~' | ':');
    let usable = !host.is_empty() && !path.is_empty() && host.chars().chain(path.chars()).all(plain);
    usable.then_some((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_found_where_the_forge_is_known() {
        let page = |location: &str| {
            let (host, path) = host_and_path(location)?;
            known(host).map(|provider| format!("{provider} {host}/{path}"))
        };
        for (location, expected) in [
            ("https://github.com/acme/fleet.git", Some("GitHub github.com/acme/fleet")),
            ("git@github.com:acme/fleet.git", Some("GitHub github.com/acme/fleet")),
            ("ssh://git@gitlab.example.com:2222/acme/fleet", Some("GitLab gitlab.example.com/acme/fleet")),
            ("https://codeberg.org/acme/fleet", Some("Forgejo codeberg.org/acme/fleet")),
            ("https://git.example.com/acme/fleet.git", None),
            ("/srv/fleet.git", None),
            ("file:///srv/fleet.git", None),
            ("https://github.com/<script>", None),
            ("https://github.com/", None),
        ] {
            assert_eq!(page(location).as_deref(), expected, "{location}");
        }
    }
}
