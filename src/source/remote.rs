//! A repository on another machine: its references are listed, and exactly the wanted one is fetched, one commit deep.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{AutotagOption, Direction, FetchOptions, ObjectType, Oid, Remote, RemoteCallbacks, Repository};

use super::cache::{self, Keep};
use super::error::{SourceErrorKind, Trouble};
use super::references::{Head, Wanted, choose};
use super::submodules::{self, Composed};
use super::transport::{self, Reach, without_credentials};
use super::{LookLimits, Seen};
use crate::files::config::{GitReference, GitSource};

/// A remote repository and its cache.
pub(crate) struct RemoteRepository {
    url: String,
    reach: Arc<Reach>,
    cache: PathBuf,
    open: Option<Repository>,
    quota: u64,
    /// What the cache takes on the disk, as measured after the last change.
    size: Option<u64>,
    /// What it took right after it was last packed anew: less is not to be had.
    least: u64,
    /// The full name that the last fetch chose.
    followed: Option<String>,
}

impl RemoteRepository {
    pub(crate) fn new(git: &GitSource, cache: PathBuf) -> Self {
        let (url, reach, quota) = (git.url.clone(), Arc::new(Reach::new(git)), git.cache_quota.0);
        Self { url, reach, cache, open: None, quota, size: None, least: 0, followed: None }
    }

    pub(crate) fn place(&self) -> String {
        without_credentials(&self.url)
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The full name of the reference that the last fetch chose.
    pub(crate) fn followed(&self) -> Option<&str> {
        self.followed.as_deref()
    }

    pub(crate) fn discard(&mut self) -> Result<(), Trouble> {
        self.open = None;
        cache::discard(&self.cache)
    }

    pub(crate) fn open(&mut self) -> Result<&Repository, Trouble> {
        // Somebody may have emptied the cache directory; what is held open would then be written into nowhere.
        if self.open.is_none() || !self.cache.join("HEAD").exists() {
            self.open = Some(cache::open(&self.cache)?);
            self.size = Some(cache::size(&self.cache));
        }
        self.open.as_ref().ok_or_else(|| Trouble::corrupt("the cache is not open"))
    }

    /// How many bytes the cache takes, once it has been looked into.
    pub(crate) fn cache_bytes(&self) -> Option<u64> {
        self.size
    }

    /// Fetches more of the history; answers the commit `reference` stands for by now.
    pub(crate) fn deepen(&mut self, reference: &GitReference, depth: i32, limits: &LookLimits) -> Result<Oid, Trouble> {
        let (url, reach) = (self.url.clone(), Arc::clone(&self.reach));
        let repository = self.open()?;
        let order = Order { url: &url, reference, last: None, pin: cache::FETCHED, depth };
        let (commit, name) = transport::within(limits, &reach, || fetch(repository, &order, limits))?;
        self.followed = Some(name);
        Ok(commit)
    }

    /// The commit `reference` stands for now; its tree is in the cache unless it is that of `last`, the last reading.
    pub(crate) fn fetch(
        &mut self,
        reference: &GitReference,
        last: Option<&Seen>,
        limits: &LookLimits,
    ) -> Result<Oid, Trouble> {
        let id = |text: &str| Oid::from_str(text).ok();
        let last_commit = last.and_then(|seen| id(seen.commit.as_ref()?.as_str()));
        let (url, reach) = (self.url.clone(), Arc::clone(&self.reach));
        let (commit, name) = {
            let repository = self.open()?;
            let order = Order { url: &url, reference, last: last_commit, pin: cache::FETCHED, depth: 1 };
            transport::within(limits, &reach, || fetch(repository, &order, limits))?
        };
        self.followed = Some(name);
        if last_commit != Some(commit) {
            let last_tree = last.and_then(|seen| id(seen.tree.as_str()));
            self.tidy(&Keep { commit, before: last_commit.into_iter().chain(last_tree).collect() })?;
        }
        Ok(commit)
    }

    /// Packs the cache anew when it has too many packs or has outgrown its quota.
    fn tidy(&mut self, keep: &Keep) -> Result<(), Trouble> {
        let size = cache::size(&self.cache);
        self.size = Some(size);
        // One that is too large by its nature is not packed at each fetch.
        let limit = if self.least > self.quota { self.least.saturating_mul(2) } else { self.quota };
        let outgrown = size > limit;
        if !outgrown && !cache::has_grown(&self.cache) {
            return Ok(());
        }
        let Some(old) = self.open.take() else { return Ok(()) };
        cache::repack(&old, &self.cache, keep)?;
        self.least = cache::size(&self.cache);
        self.size = Some(self.least);
        if self.least > self.quota {
            tracing::warn!(
                cache = %self.cache.display(), bytes = self.least, quota_bytes = self.quota,
                "one revision alone is larger than the source's `cache_quota`"
            );
        }
        Ok(())
    }

    /// The tree of a fetched commit with its submodules in it.
    pub(crate) fn with_submodules(&mut self, commit: Oid, limits: &LookLimits) -> Result<Composed, Trouble> {
        let (url, reach) = (self.url.clone(), Arc::clone(&self.reach));
        let repository = self.open()?;
        let root = repository.find_commit(commit)?.tree_id();
        let fetch_one = |url: &str, commit: Oid, place: &str| {
            let pin = format!("{}{}", cache::SUBMODULES, Oid::hash_object(ObjectType::Blob, place.as_bytes())?);
            if cache::holds(repository, commit, commit, &pin) {
                return Ok(());
            }
            let named = commit.to_string().parse();
            let reference =
                GitReference::Commit(named.map_err(|error| Trouble::corrupt(format!("{commit}: {error}")))?);
            let order = Order { url, reference: &reference, last: None, pin: &pin, depth: 1 };
            // A context of its own: the trouble of one submodule is not that of the next.
            transport::within(limits, &reach, || fetch(repository, &order, limits)).map(drop)
        };
        let composed = submodules::compose(repository, root, &url, &fetch_one, limits)?;
        self.size = Some(cache::size(&self.cache));
        Ok(composed)
    }
}

/// What is fetched.
struct Order<'a> {
    url: &'a str,
    reference: &'a GitReference,
    /// The commit that is known already.
    last: Option<Oid>,
    /// The name it is pinned under.
    pin: &'a str,
    /// How many commits of its history; more than one also of what is there already.
    depth: i32,
}

/// The wanted commit and the full name it was found by.
fn fetch(repository: &Repository, order: &Order<'_>, limits: &LookLimits) -> Result<(Oid, String), Trouble> {
    let mut remote = repository.remote_anonymous(order.url)?;
    let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks(limits)), None)?;
    let heads: Vec<Head> =
        connection.list()?.iter().map(|head| Head { name: head.name().to_owned(), id: head.oid() }).collect();
    let wanted = choose(order.reference, &heads)?;
    if let (Some(commit), Some(head)) = (wanted.commit, wanted.head)
        && order.depth == 1
        && (order.last == Some(commit) || cache::holds(repository, commit, head, order.pin))
    {
        return Ok((commit, wanted.spec));
    }
    limits.check("listing the remote's references")?;
    let spec = format!("+{}:{}", wanted.spec, order.pin);
    let commit = match download(connection.remote(), &[spec], order.depth, limits) {
        Ok(()) => cache::fetched(repository, order.pin),
        Err(trouble) => match order.reference {
            // Not every server hands out a commit that no reference names; then there is no way but to take everything.
            GitReference::Commit(_) if wanted.commit.is_none() => {
                drop(connection);
                everything(repository, order, &wanted, trouble, limits)
            }
            _ => Err(trouble),
        },
    }?;
    Ok((commit, wanted.spec))
}

/// Fetches all branches and tags to find a commit among them.
fn everything(
    repository: &Repository,
    order: &Order<'_>,
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
    let mut remote = repository.remote_anonymous(order.url)?;
    let specs = ["+refs/heads/*:refs/landfall/all/heads/*", "+refs/tags/*:refs/landfall/all/tags/*"].map(String::from);
    download(&mut remote, &specs, 0, limits)?;
    let commit = Oid::from_str(&wanted.spec)?;
    match repository.find_commit(commit) {
        Ok(found) => {
            repository.reference(order.pin, found.id(), true, "landfall: found")?;
            Ok(found.id())
        }
        Err(_) => Err(Trouble::new(
            SourceErrorKind::RefNotFound,
            format!("commit {commit} does not exist, or cannot be reached from a branch or tag"),
            "push it, or name another",
        )),
    }
}

pub(super) fn callbacks(limits: &LookLimits) -> RemoteCallbacks<'_> {
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
