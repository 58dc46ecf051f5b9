//! What a remote advertises, asked once for all sources that follow it.
//!
//! Owned by the engine's poller, one [`SharedRemote`] per remote and credentials. A listing is one round trip and touches
//! no disk; what a source follows is compared with it in memory. Only a source for which it shows something new
//! looks by itself.

use std::sync::Arc;
use std::time::Duration;

use git2::{Direction, Oid, Remote};

use super::error::{SourceErrorKind, Trouble};
use super::references::{Head, choose};
use super::transport::{self, Reach, without_credentials};
use super::{LookLimits, Seen, SourceError, include, libgit2_setup};
use crate::domain::{CommitId, SourceName};
use crate::files::config::{GitReference, GitSource};

/// A repository on another machine and how it is reached. Sources with equal remotes share their listings.
#[derive(Debug, Clone)]
pub struct SharedRemote {
    /// A source's settings without what may differ between sources of one remote.
    settings: GitSource,
    reach: Arc<Reach>,
}

impl PartialEq for SharedRemote {
    fn eq(&self, other: &Self) -> bool {
        // How it is reached follows from the settings.
        self.settings == other.settings
    }
}

impl SharedRemote {
    /// The remote of a source, unless its repository lies on this machine.
    pub fn of(git: &GitSource) -> Option<Self> {
        if super::local::LocalRepository::at(&git.url).is_some() {
            return None;
        }
        let usual = GitSource::at(&git.url);
        // What is not named here makes it another remote: on the safe side, nobody's credentials serve another.
        let settings = GitSource {
            reference: usual.reference,
            paths: usual.paths,
            poll: usual.poll,
            timeout: usual.timeout,
            submodules: usual.submodules,
            submodule_credentials: usual.submodule_credentials,
            cache_quota: usual.cache_quota,
            webhook: usual.webhook,
            ..git.clone()
        };
        let reach = Arc::new(Reach::new(&settings));
        Some(Self { settings, reach })
    }

    /// The host it lies on: what is left alone together when it fails.
    pub fn host(&self) -> String {
        let place = self.place();
        let rest = place.split_once("://").map_or(place.as_str(), |(_, rest)| rest);
        rest.split(['/', ':']).next().unwrap_or(rest).to_ascii_lowercase()
    }

    /// For messages: the URL without credentials.
    pub fn place(&self) -> String {
        without_credentials(&self.settings.url)
    }

    /// Asks the remote for its references. Blocking.
    pub fn list(&self, limits: &LookLimits) -> Result<Listing, ListFailure> {
        let list = || -> Result<Listing, Trouble> {
            libgit2_setup::ensure()?;
            transport::within(limits, &self.reach, || {
                let mut remote = Remote::create_detached(self.settings.url.as_str())?;
                let callbacks = super::remote::callbacks(limits);
                let connection = remote.connect_auth(Direction::Fetch, Some(callbacks), None)?;
                let heads = connection.list()?.iter();
                Ok(Listing { heads: heads.map(|head| Head { name: head.name().to_owned(), id: head.oid() }).collect() })
            })
        };
        list().map_err(|trouble| ListFailure { place: self.place(), trouble })
    }
}

/// The references of a remote at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    heads: Vec<Head>,
}

impl Listing {
    /// Whether it shows something that `source` has not read yet; an error if what it follows is not there.
    pub fn has_news(&self, source: &SourceName, git: &GitSource, last: Option<&Seen>) -> Result<bool, SourceError> {
        let follows = || -> Result<bool, Trouble> {
            let last = last.filter(|seen| seen.path == paths_read(git));
            let known = last.and_then(|seen| seen.commit.as_ref());
            let unread = |commit: Oid| known.is_none_or(|known| known.as_str() != commit.to_string());
            if let GitReference::Commit(wanted) = &git.reference {
                return Ok(unread(commit_of(wanted)?));
            }
            // Without an identifier in the listing only a look can tell.
            Ok(choose(&git.reference, &self.heads)?.commit.is_none_or(unread))
        };
        follows().map_err(|trouble| trouble.named(source, &without_credentials(&git.url)))
    }
}

/// The directories of a source as a reading remembers them.
fn paths_read(git: &GitSource) -> String {
    let paths: Vec<String> = git.paths.iter().map(|path| include::normalise(path)).collect();
    paths.join("\n")
}

fn commit_of(id: &CommitId) -> Result<Oid, Trouble> {
    Ok(Oid::from_str(id.as_str())?)
}

/// Why a remote could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFailure {
    place: String,
    trouble: Trouble,
}

impl ListFailure {
    /// What kind of trouble it is.
    pub fn kind(&self) -> SourceErrorKind {
        self.trouble.kind
    }

    /// The remote asks not to be asked again for so long.
    pub fn retry_after(&self) -> Option<Duration> {
        self.trouble.retry_after
    }

    /// The failure as one of a source that follows the remote.
    pub fn of(&self, source: &SourceName) -> SourceError {
        self.trouble.clone().named(source, &self.place)
    }
}
