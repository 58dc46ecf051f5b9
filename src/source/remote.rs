//! A repository on another machine: its references are listed, and exactly the wanted one is fetched, one commit deep.

use std::path::{Path, PathBuf};

use git2::{AutotagOption, Direction, FetchOptions, Oid, Remote, RemoteCallbacks, Repository};

use super::error::{SourceErrorKind, Trouble};
use super::references::{Head, Wanted, choose};
use super::transport::{self, without_credentials};
use super::{LookLimits, cache};
use crate::files::config::GitReference;

/// A remote repository and its cache.
pub(crate) struct RemoteRepository {
    url: String,
    cache: PathBuf,
    open: Option<Repository>,
}

impl RemoteRepository {
    pub(crate) fn new(url: &str, cache: PathBuf) -> Self {
        Self { url: url.to_owned(), cache, open: None }
    }

    pub(crate) fn place(&self) -> String {
        without_credentials(&self.url)
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    pub(crate) fn discard(&mut self) -> Result<(), Trouble> {
        self.open = None;
        cache::discard(&self.cache)
    }

    pub(crate) fn open(&mut self) -> Result<&Repository, Trouble> {
        // Somebody may have emptied the cache directory; what is held open would then be written into nowhere.
        if self.open.is_none() || !self.cache.join("HEAD").exists() {
            self.open = Some(cache::open(&self.cache)?);
        }
        self.open.as_ref().ok_or_else(|| Trouble::corrupt("the cache is not open"))
    }

    /// The commit `reference` stands for now; its tree is in the cache unless it is `last`.
    pub(crate) fn fetch(
        &mut self,
        reference: &GitReference,
        last: Option<Oid>,
        limits: &LookLimits,
    ) -> Result<Oid, Trouble> {
        let url = self.url.clone();
        let commit = {
            let repository = self.open()?;
            transport::within(limits, || fetch(repository, &url, reference, last, limits))?
        };
        if last != Some(commit)
            && cache::has_grown(&self.cache)
            && let Some(old) = self.open.take()
        {
            cache::repack(&old, &self.cache, commit, last)?;
        }
        Ok(commit)
    }
}

fn fetch(
    repository: &Repository,
    url: &str,
    reference: &GitReference,
    last: Option<Oid>,
    limits: &LookLimits,
) -> Result<Oid, Trouble> {
    let mut remote = repository.remote_anonymous(url)?;
    let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks(limits)), None)?;
    let heads: Vec<Head> =
        connection.list()?.iter().map(|head| Head { name: head.name().to_owned(), id: head.oid() }).collect();
    let wanted = choose(reference, &heads)?;
    if let Some(commit) = wanted.commit
        && (last == Some(commit) || cache::holds(repository, commit))
    {
        return Ok(commit);
    }
    limits.check("listing the remote's references")?;
    let spec = format!("+{}:{}", wanted.spec, cache::FETCHED);
    match download(connection.remote(), &[spec], 1, limits) {
        Ok(()) => cache::fetched(repository),
        Err(trouble) => match reference {
            // Not every server hands out a commit that no reference names; then there is no way but to take everything.
            GitReference::Commit(_) if wanted.commit.is_none() => {
                drop(connection);
                everything(repository, url, &wanted, trouble, limits)
            }
            _ => Err(trouble),
        },
    }
}

/// Fetches all branches and tags to find a commit among them.
fn everything(
    repository: &Repository,
    url: &str,
    wanted: &Wanted,
    trouble: Trouble,
    limits: &LookLimits,
) -> Result<Oid, Trouble> {
    match trouble.kind {
        SourceErrorKind::Timeout | SourceErrorKind::Cancelled | SourceErrorKind::Disk | SourceErrorKind::Permission => {
            return Err(trouble);
        }
        _ => {}
    }
    let mut remote = repository.remote_anonymous(url)?;
    let specs = ["+refs/heads/*:refs/landfall/all/heads/*", "+refs/tags/*:refs/landfall/all/tags/*"].map(String::from);
    download(&mut remote, &specs, 0, limits)?;
    let commit = Oid::from_str(&wanted.spec)?;
    match repository.find_commit(commit) {
        Ok(found) => {
            repository.reference(cache::FETCHED, found.id(), true, "landfall: found")?;
            Ok(found.id())
        }
        Err(_) => Err(Trouble::new(
            SourceErrorKind::RefNotFound,
            format!("commit {commit} does not exist, or cannot be reached from a branch or tag"),
            "push it, or name another",
        )),
    }
}

fn callbacks(limits: &LookLimits) -> RemoteCallbacks<'_> {
    let mut callbacks = RemoteCallbacks::new();
    // The transports watch the limits while waiting; this watches while a big pack is worked on.
    callbacks.transfer_progress(|_| limits.check("receiving").is_ok());
    callbacks.sideband_progress(|_| limits.check("receiving").is_ok());
    callbacks
}

fn download(remote: &mut Remote<'_>, specs: &[String], depth: i32, limits: &LookLimits) -> Result<(), Trouble> {
    let mut options = FetchOptions::new();
    options.remote_callbacks(callbacks(limits)).download_tags(AutotagOption::None).update_fetchhead(false);
    if depth > 0 {
        options.depth(depth);
    }
    let result = remote.fetch(specs, Some(&mut options), Some("landfall: fetch"));
    // A callback that says stop shows up as some error of libgit2's; what counts is why.
    result.map_err(|error| limits.check("receiving").err().unwrap_or_else(|| broken(error)))
}

/// During a download a bad pack is the connection's fault, not the cache's: nothing of it was kept.
fn broken(error: git2::Error) -> Trouble {
    let class = error.class();
    let trouble = Trouble::from(error);
    match (class, trouble.kind) {
        (git2::ErrorClass::Indexer, SourceErrorKind::Corrupt) => Trouble::new(
            SourceErrorKind::Network,
            format!("the download broke off or is damaged: {}", trouble.what),
            "it is tried again at the next look",
        ),
        _ => trouble,
    }
}
