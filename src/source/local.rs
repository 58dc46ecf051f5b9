//! A repository on this machine, opened in place: no clone, no cache, nothing written.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid, Repository};

use super::error::{SourceErrorKind, Trouble};
use super::references::{ambiguous, branch, highest_tag, no_such_reference, tag};
use crate::files::config::GitReference;
use crate::files::ssh_url;

/// A repository at a path. Kept open between looks; opening it again is what makes a look slow.
pub(crate) struct LocalRepository {
    path: PathBuf,
    open: Option<Repository>,
}

impl LocalRepository {
    /// The repository that `url` names, if it is one on this machine.
    pub(crate) fn at(url: &str) -> Option<Self> {
        let path = match url.split_once("://") {
            Some(("file", rest)) => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                PathBuf::from(decode_percent(path))
            }
            Some(_) => return None,
            None if ssh_url::is_ssh(url) => return None,
            None => PathBuf::from(url),
        };
        Some(Self { path, open: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn place(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    pub(crate) fn open(&mut self) -> Result<&Repository, Trouble> {
        if !self.path.exists() {
            // Also when it was open: somebody has removed it, and serving the remains would hide that.
            self.open = None;
            return Err(missing(&self.path));
        }
        if self.open.is_none() {
            self.open = Some(open_at(&self.path)?);
        }
        self.open.as_ref().ok_or_else(|| missing(&self.path))
    }
}

fn missing(path: &Path) -> Trouble {
    Trouble::new(
        SourceErrorKind::NotFound,
        format!("there is no repository at {}", path.display()),
        "check the source's `url`, or create it with `git init --bare`",
    )
}

fn open_at(path: &Path) -> Result<Repository, Trouble> {
    // No search upwards: a directory inside some other repository is not meant.
    let flags = git2::RepositoryOpenFlags::NO_SEARCH;
    Repository::open_ext(path, flags, std::iter::empty::<&std::ffi::OsStr>()).map_err(|error| match error.code() {
        ErrorCode::NotFound if std::fs::read_dir(path).is_ok_and(|_| true) => Trouble::new(
            SourceErrorKind::NotFound,
            format!("{} is not a git repository", path.display()),
            "check the source's `url`, or make it one with `git init`",
        ),
        ErrorCode::NotFound => missing(path),
        _ if error.message().contains("unsupported") || error.message().contains("unknown object format") => {
            Trouble::new(
                SourceErrorKind::Unsupported,
                error.message(),
                "this build reads SHA-1 repositories with files or packed references",
            )
        }
        _ => Trouble::from(error),
    })
}

/// Undoes `%20` and its like in the path of a `file://` URL.
fn decode_percent(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

/// The commit `reference` stands for now.
pub(crate) fn resolve(repository: &Repository, reference: &GitReference) -> Result<Oid, Trouble> {
    let peel = |name: &str| -> Result<Oid, git2::Error> { Ok(repository.find_reference(name)?.peel_to_commit()?.id()) };
    let found = match reference {
        GitReference::Head => repository.head().and_then(|head| Ok(head.peel_to_commit()?.id())),
        GitReference::Branch(name) => peel(&branch(name)),
        GitReference::Tag(name) => peel(&tag(name)),
        GitReference::Full(name) => peel(name),
        GitReference::Named(name) => match (peel(&branch(name)), peel(&tag(name))) {
            (Ok(_), Ok(_)) => return Err(ambiguous(name)),
            (Err(missing), other) if missing.code() == ErrorCode::NotFound => other,
            (one, _) => one,
        },
        GitReference::Semver(range) => {
            let mut tags = repository.references_glob("refs/tags/*")?;
            let names: Vec<String> = tags.names().flatten().map(str::to_owned).collect();
            let short = names.iter().filter_map(|name| name.strip_prefix("refs/tags/"));
            match highest_tag(range, short) {
                Some(name) => peel(&tag(name)),
                None => return Err(no_such_reference(reference, &names)),
            }
        }
        GitReference::Commit(id) => Oid::from_str(id.as_str()).and_then(|id| Ok(repository.find_commit(id)?.id())),
    };
    found.map_err(|error| match error.code() {
        ErrorCode::NotFound | ErrorCode::UnbornBranch => no_such_reference(reference, &names(repository)),
        ErrorCode::InvalidSpec => no_such_reference(reference, &names(repository)),
        _ => Trouble::from(error),
    })
}

/// The full name of what `reference` stands for now, where that is a name.
pub(crate) fn full_name(repository: &Repository, reference: &GitReference) -> Result<Option<String>, Trouble> {
    Ok(match reference {
        GitReference::Branch(name) => Some(branch(name)),
        GitReference::Tag(name) => Some(tag(name)),
        GitReference::Full(name) => Some(name.clone()),
        GitReference::Named(name) => {
            let is_branch = repository.find_reference(&branch(name)).is_ok();
            Some(if is_branch { branch(name) } else { tag(name) })
        }
        GitReference::Semver(range) => {
            let mut tags = repository.references_glob("refs/tags/*")?;
            let names: Vec<String> = tags.names().flatten().map(str::to_owned).collect();
            highest_tag(range, names.iter().filter_map(|name| name.strip_prefix("refs/tags/"))).map(tag)
        }
        GitReference::Head | GitReference::Commit(_) => None,
    })
}

fn names(repository: &Repository) -> Vec<String> {
    let Ok(mut references) = repository.references() else { return Vec::new() };
    // Bounded: a repository may have a hundred thousand of them.
    references.names().flatten().take(10_000).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_local_and_nothing_else_is() {
        let path = |url: &str| LocalRepository::at(url).map(|r| r.place());
        assert_eq!(path("/srv/fleet.git").as_deref(), Some("/srv/fleet.git"));
        assert_eq!(path("file:///srv/my%20fleet.git").as_deref(), Some("/srv/my fleet.git"));
        assert_eq!(path("file://localhost/srv/x").as_deref(), Some("/srv/x"));
        assert_eq!(path("https://example.com/x.git"), None);
        assert_eq!(path("git://example.com/x.git"), None);
    }
}
