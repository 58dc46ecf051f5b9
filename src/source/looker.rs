//! One look at one source: find the newest revision, compare, read.

use std::path::{Path, PathBuf};

use git2::{Oid, Repository};
use jiff::Timestamp;

use super::descent::{Descent, descent};
use super::error::{SourceErrorKind, Trouble};
use super::known::KnownApps;
use super::local::LocalRepository;
use super::reading::{Span, read_changes, tree_id};
use super::remote::RemoteRepository;
use super::submodules::{Composed, Missing};
use super::trust::{self, FollowedTag};
use super::{
    AppReading, Look, LookLimits, ManifestReader, Reading, Refusal, Revision, Seen, Snapshotter, SourceError, cache,
    include, libgit2_setup,
};
use crate::domain::{CommitId, SourceName, TreeId};
use crate::files::config::{
    DirectorySource, GitReference, GitSource, OnForcePush, SourceConfig, SourceKind, Verification,
};

/// How much of a history is fetched to find the last commit in it: what a busy day brings, then what a month does.
const DEPTHS: [i32; 2] = [64, 1024];

/// Looks at one configured source. Owned by the watcher; blocking.
pub struct Looker {
    name: SourceName,
    /// For messages: the URL without credentials, or the path.
    place: String,
    paths: Vec<String>,
    read: ManifestReader,
    verify: Option<Box<Verification>>,
    kind: Kind,
    /// A commit must continue from the last one.
    must_descend: bool,
    /// Except this one.
    approved: Option<CommitId>,
    /// The last commit and one that is known to leave it behind; finding out again would cost a fetch.
    diverged: Option<(CommitId, CommitId)>,
}

enum Kind {
    Local { repository: LocalRepository, reference: GitReference },
    Remote { repository: RemoteRepository, reference: GitReference, submodules: bool },
    Directory { path: PathBuf, snapshot: Snapshotter },
}

impl std::fmt::Debug for Looker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looker").field("source", &self.name).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Looker {
    /// Prepares to look at a source; touches nothing outside `cache_root` and starts no connection.
    pub fn new(
        config: &SourceConfig,
        cache_root: &Path,
        read: ManifestReader,
        snapshot: Snapshotter,
    ) -> Result<Self, SourceError> {
        let name = config.name.clone();
        match &config.kind {
            SourceKind::Git(git) => Self::of_git(name, git, cache_root, read),
            SourceKind::Directory(DirectorySource { path, .. }) => {
                let place = path.display().to_string();
                let kind = Kind::Directory { path: path.clone(), snapshot };
                Self::with(name, place, vec![String::new()], read, kind)
            }
        }
    }

    fn of_git(name: SourceName, git: &GitSource, cache_root: &Path, read: ManifestReader) -> Result<Self, SourceError> {
        let paths = git.paths.iter().map(|path| include::normalise(path)).collect();
        let reference = git.reference.clone();
        let (place, kind) = match LocalRepository::at(&git.url) {
            Some(repository) => (repository.place(), Kind::Local { repository, reference }),
            None => {
                let cache = cache_root.join(format!("{name}.git"));
                let repository = RemoteRepository::new(git, cache);
                (repository.place(), Kind::Remote { repository, reference, submodules: git.submodules })
            }
        };
        let must_descend = git.on_force_push == OnForcePush::Hold;
        let verify = git.verify.clone();
        Ok(Self { must_descend, verify, ..Self::with(name, place, paths, read, kind)? })
    }

    fn with(
        name: SourceName,
        place: String,
        paths: Vec<String>,
        read: ManifestReader,
        kind: Kind,
    ) -> Result<Self, SourceError> {
        libgit2_setup::ensure().map_err(|trouble| trouble.named(&name, &place))?;
        Ok(Self { name, place, paths, read, verify: None, kind, must_descend: false, approved: None, diverged: None })
    }

    /// One look. `last` is what the ledger remembers of the last recorded reading, `known` the apps it left.
    /// With nothing new this lists references once and writes nothing.
    pub fn look(&mut self, last: Option<&Seen>, known: &KnownApps, limits: &LookLimits) -> Result<Look, SourceError> {
        let approved = self.approved.as_ref();
        let order = Order {
            paths: &self.paths,
            last,
            known,
            read: &self.read,
            verify: self.verify.as_deref(),
            limits,
            must_descend: self.must_descend,
            approved,
            diverged: self.diverged.as_ref(),
        };
        let result = match &mut self.kind {
            Kind::Local { repository, reference } => look_local(repository, reference, &order),
            Kind::Remote { repository, reference, submodules } => {
                look_remote(repository, reference, *submodules, &order)
            }
            Kind::Directory { path, snapshot } => look_directory(path, snapshot, &order),
        };
        if let Ok(Look::Diverged { last, commit }) = &result {
            self.diverged = Some((last.clone(), commit.clone()));
        }
        result.map_err(|trouble| trouble.named(&self.name, &self.place))
    }

    /// Lets this commit be taken although it leaves the last one behind.
    pub fn approve(&mut self, commit: CommitId) {
        self.approved = Some(commit);
    }

    /// Tells that objects of the last reading turned out to be damaged: a cache is thrown away and filled again at
    /// the next look. A local repository or a directory is not ours to repair.
    pub fn distrust(&mut self) -> Result<(), SourceError> {
        match &mut self.kind {
            Kind::Remote { repository, .. } => {
                repository.discard().map_err(|trouble| trouble.named(&self.name, &self.place))
            }
            Kind::Local { repository, .. } => {
                repository.close();
                Ok(())
            }
            Kind::Directory { .. } => Ok(()),
        }
    }

    /// How many bytes the cache of a remote repository takes; `None` before the first look, and where there is no cache.
    pub fn cache_bytes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Remote { repository, .. } => repository.cache_bytes(),
            Kind::Local { .. } | Kind::Directory { .. } => None,
        }
    }

    /// The repository on this machine whose references can be watched, if there is one.
    pub fn local_repository(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Local { repository, .. } => Some(repository.path()),
            Kind::Remote { .. } | Kind::Directory { .. } => None,
        }
    }
}

/// Reads every app below a tree that came from no source (an uploaded directory).
pub fn read_all(
    objects: &Path,
    tree: &TreeId,
    read: &ManifestReader,
    limits: &LookLimits,
) -> Result<Vec<AppReading>, String> {
    let go = || -> Result<Vec<AppReading>, Trouble> {
        libgit2_setup::ensure()?;
        let repository = Repository::open_bare(objects)?;
        let odb = repository.odb()?;
        let paths = [String::new()];
        let span = Span { old: None, new: Oid::from_str(tree.as_str())?, paths: &paths, missing: None };
        Ok(read_changes(&odb, &span, &KnownApps::default(), read, limits)?.read)
    };
    go().map_err(|trouble| format!("{}; {}", trouble.what, trouble.mend))
}

/// What a look is asked for.
struct Order<'a> {
    paths: &'a [String],
    last: Option<&'a Seen>,
    known: &'a KnownApps,
    read: &'a ManifestReader,
    verify: Option<&'a Verification>,
    limits: &'a LookLimits,
    must_descend: bool,
    approved: Option<&'a CommitId>,
    diverged: Option<&'a (CommitId, CommitId)>,
}

impl Order<'_> {
    /// The last commit, when a new one must continue from it.
    fn must_continue_from(&self, commit: Oid) -> Option<Oid> {
        let exempt = self.approved.is_some_and(|approved| approved.as_str() == commit.to_string());
        let last = self.last().filter(|_| self.must_descend && !exempt)?;
        Oid::from_str(last.commit.as_ref()?.as_str()).ok()
    }

    fn is_known_to_diverge(&self, last: Oid, commit: Oid) -> bool {
        self.diverged.is_some_and(|(known_last, known)| {
            known_last.as_str() == last.to_string() && known.as_str() == commit.to_string()
        })
    }

    /// The last reading, if it was of the same directories.
    fn last(&self) -> Option<&Seen> {
        self.last.filter(|seen| seen.path == self.path())
    }

    /// The directories as they are remembered. None of their names holds a line end.
    fn path(&self) -> String {
        self.paths.join("\n")
    }

    fn unchanged_at(&self, commit: Oid) -> Option<Look> {
        let seen = self.last()?;
        let same = seen.commit.as_ref().is_some_and(|seen| seen.as_str() == commit.to_string());
        same.then(|| Look::Unchanged { seen: seen.clone() })
    }
}

fn look_local(repository: &mut LocalRepository, reference: &GitReference, order: &Order<'_>) -> Result<Look, Trouble> {
    let attempt = |repository: &mut LocalRepository| -> Result<Look, Trouble> {
        let open = repository.open()?;
        let commit = super::local::resolve(open, reference)?;
        if let Some(look) = order.unchanged_at(commit) {
            return Ok(look);
        }
        if let Some(last) = order.must_continue_from(commit)
            && (order.is_known_to_diverge(last, commit) || descent(open, commit, last)? != Descent::Continues)
        {
            return diverged(last, commit);
        }
        let name = super::local::full_name(open, reference)?;
        let tag = name.as_deref().and_then(|name| FollowedTag::of(name, name));
        match refusal(open, commit, tag, order)? {
            Some(refusal) => Ok(Look::Refused(refusal)),
            None => Ok(Look::Changed(Box::new(read_commit(open, commit, order)?))),
        }
    };
    match attempt(repository) {
        // Somebody may have repacked it or put another one in its place: what was open is not what lies there now.
        Err(trouble) if trouble.kind == SourceErrorKind::Corrupt => {
            repository.close();
            attempt(repository)
        }
        other => other,
    }
}

fn look_remote(
    repository: &mut RemoteRepository,
    reference: &GitReference,
    submodules: bool,
    order: &Order<'_>,
) -> Result<Look, Trouble> {
    let attempt = |repository: &mut RemoteRepository| -> Result<Look, Trouble> {
        if let GitReference::Commit(wanted) = reference
            && let Ok(wanted) = Oid::from_str(wanted.as_str())
            && let Some(look) = order.unchanged_at(wanted)
        {
            return Ok(look);
        }
        let commit = repository.fetch(reference, order.last(), order.limits)?;
        if let Some(look) = order.unchanged_at(commit) {
            return Ok(look);
        }
        let commit = match continued(repository, reference, commit, order)? {
            Continued::Yes(commit) => commit,
            Continued::No(look) => return Ok(look),
        };
        let name = repository.followed().map(str::to_owned);
        let tag = name.as_deref().and_then(|name| FollowedTag::of(name, cache::FETCHED));
        // A signature covers which commits the submodules are at; nothing of them is fetched before it is found good.
        if let Some(refusal) = refusal(repository.open()?, commit, tag, order)? {
            return Ok(Look::Refused(refusal));
        }
        if !submodules {
            return Ok(Look::Changed(Box::new(read_commit(repository.open()?, commit, order)?)));
        }
        let composed = repository.with_submodules(commit, order.limits)?;
        look_composed(repository.open()?, commit, &composed, order)
    };
    match attempt(repository) {
        Err(trouble) if trouble.kind == SourceErrorKind::Corrupt => {
            tracing::warn!(cache = %repository.cache().display(), reason = %trouble.what, "cache is damaged, fetching it anew");
            repository.discard()?;
            attempt(repository)
        }
        other => other,
    }
}

/// A revision with submodules. While some are missing it counts as not read to its end, and is looked at again.
fn look_composed(
    repository: &Repository,
    commit: Oid,
    composed: &Composed,
    order: &Order<'_>,
) -> Result<Look, Trouble> {
    let incomplete = !composed.missing.is_empty();
    let same = |seen: &&Seen| incomplete && seen.commit.is_none() && seen.tree.as_str() == composed.tree.to_string();
    if let Some(seen) = order.last().filter(same) {
        return Ok(Look::Unchanged { seen: seen.clone() });
    }
    let revision = revision(repository, commit, composed.tree, order)?;
    let mut reading = read_tree(repository, composed.tree, revision, Some(&composed.missing), order)?;
    if incomplete {
        reading.seen.commit = None;
    }
    Ok(Look::Changed(Box::new(reading)))
}

enum Continued {
    Yes(Oid),
    No(Look),
}

/// Whether a fetched commit may be taken. Only where it must continue from the last one, and its own parents do not
/// say so, more of the history is fetched: so far and no further.
fn continued(
    repository: &mut RemoteRepository,
    reference: &GitReference,
    mut commit: Oid,
    order: &Order<'_>,
) -> Result<Continued, Trouble> {
    for deeper in DEPTHS.into_iter().map(Some).chain([None]) {
        let Some(last) = order.must_continue_from(commit) else { return Ok(Continued::Yes(commit)) };
        if order.is_known_to_diverge(last, commit) {
            return diverged(last, commit).map(Continued::No);
        }
        match (descent(repository.open()?, commit, last)?, deeper) {
            (Descent::Continues, _) => return Ok(Continued::Yes(commit)),
            (Descent::Diverges, _) | (Descent::Unknown, None) => return diverged(last, commit).map(Continued::No),
            (Descent::Unknown, Some(depth)) => {
                order.limits.check("fetching the history")?;
                // The branch may have moved on meanwhile.
                commit = repository.deepen(reference, depth, order.limits)?;
            }
        }
    }
    Ok(Continued::Yes(commit))
}

fn diverged(last: Oid, commit: Oid) -> Result<Look, Trouble> {
    let id = |oid: Oid| CommitId::try_from(oid.to_string()).map_err(Trouble::corrupt);
    Ok(Look::Diverged { last: id(last)?, commit: id(commit)? })
}

fn look_directory(directory: &Path, snapshot: &Snapshotter, order: &Order<'_>) -> Result<Look, Trouble> {
    order.limits.check("taking a snapshot")?;
    let snapshot = snapshot(directory).map_err(|failure| Trouble::new(failure.kind, failure.what, failure.mend))?;
    if let Some(seen) = order.last().filter(|seen| seen.commit.is_none() && seen.tree == snapshot.tree) {
        return Ok(Look::Unchanged { seen: seen.clone() });
    }
    let repository = Repository::open_bare(&snapshot.objects)?;
    let tree = Oid::from_str(snapshot.tree.as_str())?;
    let revision =
        Revision { commit: None, tree: snapshot.tree, author: None, subject: None, committed_at: None, forced: false };
    Ok(Look::Changed(Box::new(read_tree(&repository, tree, revision, None, order)?)))
}

/// Why a commit is not taken, if it is not signed as it must be.
fn refusal(
    repository: &Repository,
    commit: Oid,
    tag: Option<FollowedTag<'_>>,
    order: &Order<'_>,
) -> Result<Option<Refusal>, Trouble> {
    let Some(rules) = order.verify else { return Ok(None) };
    // The clock is read here and nowhere deeper: everything below takes the time as an argument.
    match trust::check(repository, commit, tag, rules, Timestamp::now())? {
        Ok(signer) => {
            tracing::info!(%commit, signer, "the signature is good");
            Ok(None)
        }
        Err(refusal) => Ok(Some(refusal)),
    }
}

fn read_commit(repository: &Repository, commit: Oid, order: &Order<'_>) -> Result<Reading, Trouble> {
    let tree = repository.find_commit(commit)?.tree_id();
    read_tree(repository, tree, revision(repository, commit, tree, order)?, None, order)
}

/// What is to be said of a commit whose content is `tree`.
fn revision(repository: &Repository, commit: Oid, tree: Oid, order: &Order<'_>) -> Result<Revision, Trouble> {
    let found = repository.find_commit(commit)?;
    let author = found.author();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Revision {
        commit: Some(CommitId::try_from(commit.to_string()).map_err(Trouble::corrupt)?),
        tree: tree_id(tree)?,
        author: Some(format!("{} <{}>", text(author.name_bytes()), text(author.email_bytes()))),
        subject: found.summary_bytes().map(text),
        committed_at: Timestamp::from_second(found.time().seconds()).ok(),
        forced: order.last().is_some_and(|seen| is_forced(repository, &found, seen)),
    })
}

/// Whether `new` leaves the last commit behind. Where the history is not there to tell, it says no.
fn is_forced(repository: &Repository, new: &git2::Commit<'_>, last: &Seen) -> bool {
    let Some(old) = last.commit.as_ref().and_then(|commit| Oid::from_str(commit.as_str()).ok()) else { return false };
    matches!(descent(repository, new.id(), old), Ok(Descent::Diverges))
}

fn read_tree(
    repository: &Repository,
    tree: Oid,
    revision: Revision,
    missing: Option<&Missing>,
    order: &Order<'_>,
) -> Result<Reading, Trouble> {
    let odb = repository.odb()?;
    // The old tree may be gone (a fresh cache, a garbage collection): then everything is read.
    let old = order.last().and_then(|seen| Oid::from_str(seen.tree.as_str()).ok()).filter(|old| odb.exists(*old));
    let read = |old| {
        let span = Span { old, new: tree, paths: order.paths, missing };
        read_changes(&odb, &span, order.known, order.read, order.limits)
    };
    let (changes, first) = match read(old) {
        Err(trouble) if old.is_some() && trouble.kind == SourceErrorKind::Corrupt => (read(None)?, true),
        result => (result?, old.is_none()),
    };
    Ok(Reading {
        seen: Seen { commit: revision.commit.clone(), tree: revision.tree.clone(), path: order.path() },
        revision,
        first,
        read: changes.read,
        removed: changes.removed,
        objects: repository.commondir().to_path_buf(),
        notes: changes.notes,
        stats: changes.stats,
    })
}
