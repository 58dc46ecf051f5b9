//! What a reading of a source says, recorded in one transaction: the cursor, what git says about each app, who owns
//! it, what is gone, and the events that tell of it.
//!
//! Invariants: a manifest that cannot be read, or that claims an app another owns, changes nothing about any app; an
//! app is absent only when a complete reading neither has it nor finds another source that asks for it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::ownership::{self, GivenUp, manifest_in};
use super::vanishing;
use crate::domain::{AppKey, AppName, Brake, EnvironmentName, Event, EventKind, SourceName, WaitReason};
use crate::ledger::apps::{self, Observed};
use crate::ledger::claims::{self, Claim};
use crate::ledger::sources::{self, ManifestRecord};
use crate::ledger::{Connection, Result, facts, waits};
use crate::source::Seen;

/// One app of a reading, its tree in the store.
pub(super) struct Told {
    pub path: String,
    pub manifest: ManifestRecord,
    pub key: Option<AppKey>,
    pub observed: Option<Observed>,
}

/// A reading about to be recorded.
pub(super) struct Taking {
    pub source: SourceName,
    pub environment: EnvironmentName,
    pub brake: Brake,
    pub seen: Seen,
    /// Everything was read, not only what changed.
    pub first: bool,
    /// Directories whose manifest is gone.
    pub removed: Vec<String>,
    pub told: Vec<Told>,
}

/// What was recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    /// Apps to decide anew.
    pub touched: BTreeSet<AppKey>,
    /// When.
    pub at: Timestamp,
}

impl Taking {
    /// Records it; `None` when nothing at all is left, which is a mistake somewhere and no wish to stop everything.
    pub(super) fn record(self, ledger: &Connection, at: Timestamp) -> Result<Option<Recorded>> {
        let before = sources::manifests(ledger, &self.source)?;
        let gone = self.gone(&before);
        let nothing_left =
            self.told.is_empty() && !before.is_empty() && before.iter().all(|manifest| gone.contains(&manifest.path));
        if nothing_left {
            return Ok(None);
        }
        let leaving = self.leaving(&before, &gone);
        let of = apps::count_of(ledger, &self.source)?;
        let mut touched = BTreeSet::new();
        for told in &self.told {
            touched.extend(self.take(ledger, told, at)?);
        }
        for path in &gone {
            sources::remove_manifest(ledger, &self.source, path)?;
            claims::remove(ledger, &self.source, path)?;
        }
        let mut lost = BTreeSet::new();
        for (path, app) in leaving {
            let key = AppKey::new(self.environment.clone(), app);
            match ownership::give_up(ledger, &key, &self.source, path, at)? {
                GivenUp::NotOwned => {}
                GivenUp::TakenOver => drop(touched.insert(key)),
                GivenUp::Gone => drop(lost.insert(key.app)),
            }
        }
        let revision = self.seen.commit.as_ref().map_or_else(|| self.seen.tree.to_string(), ToString::to_string);
        let vanished = vanishing::Vanishing { source: &self.source, brake: self.brake, revision: &revision, of, at };
        touched.extend(vanished.settle(ledger, &self.environment, lost)?);
        end_waits_for_a_revision(ledger, &self.source, at)?;
        let (commit, tree, path) = (self.seen.commit.as_ref(), &self.seen.tree, &self.seen.path);
        sources::advance(ledger, &self.source, commit, tree, path, at)?;
        Ok(Some(Recorded { touched, at }))
    }

    /// Directories that held a manifest and do not any more.
    fn gone(&self, before: &[ManifestRecord]) -> BTreeSet<String> {
        let mut gone: BTreeSet<String> = self.removed.iter().cloned().collect();
        if self.first {
            let now: BTreeSet<&str> = self.told.iter().map(|told| told.path.as_str()).collect();
            let missing = before.iter().map(|manifest| &manifest.path).filter(|path| !now.contains(path.as_str()));
            gone.extend(missing.cloned());
        }
        gone
    }

    /// Places that no longer ask for the app they asked for: the manifest is gone, or names another app.
    fn leaving<'b>(&self, before: &'b [ManifestRecord], gone: &BTreeSet<String>) -> Vec<(&'b str, AppName)> {
        let now: BTreeMap<&str, Option<&AppName>> =
            self.told.iter().map(|told| (told.path.as_str(), told.manifest.app.as_ref())).collect();
        let leaves = |manifest: &'b ManifestRecord| {
            let app = manifest.app.as_ref()?;
            let renamed = now.get(manifest.path.as_str()).is_some_and(|named| named.is_some_and(|name| name != app));
            (renamed || gone.contains(&manifest.path)).then(|| (manifest.path.as_str(), app.clone()))
        };
        before.iter().filter_map(leaves).collect()
    }

    fn take(&self, ledger: &Connection, told: &Told, at: Timestamp) -> Result<Option<AppKey>> {
        let (mut manifest, mut touched) = (told.manifest.clone(), None);
        match (&told.key, &told.observed) {
            (Some(key), Some(observed)) => {
                let (source, path) = (self.source.clone(), told.path.clone());
                let claim = Claim { key: key.clone(), source, path, observed: observed.clone() };
                match ownership::take(ledger, claim, at)? {
                    Ok(()) => touched = Some(key.clone()),
                    Err(owner) => {
                        manifest.problem = Some(format!(
                            "{}: app `{}` belongs to {}, which had it first; give this one another name, or remove that one: then this one takes the app over as it runs",
                            manifest_in(&self.source, &told.path),
                            key.app,
                            manifest_in(&owner.source, &owner.path)
                        ));
                    }
                }
            }
            (_, None) | (None, Some(_)) => claims::remove(ledger, &self.source, &told.path)?,
        }
        sources::set_manifest(ledger, &self.source, &manifest)?;
        if let Some(problem) = manifest.problem {
            let event = Event {
                at,
                kind: EventKind::ManifestInvalid,
                app: told.key.clone(),
                version: None,
                source: Some(self.source.clone()),
                object: None,
                cause: None,
                message: problem,
            };
            facts::event(ledger, &event)?;
        }
        Ok(touched)
    }
}

/// Whatever kept a revision of a source from being taken, none waits now.
pub(super) fn end_waits_for_a_revision(ledger: &Connection, source: &SourceName, at: Timestamp) -> Result<()> {
    for waiting in waits::of(ledger, source)? {
        match waiting.reason {
            WaitReason::PruneBrake { .. } => continue,
            WaitReason::ForcePush { .. } | WaitReason::Unverified { .. } => {}
        }
        waits::end(ledger, waiting.id)?;
        if waiting.approved_by.is_none() {
            vanishing::tell_settled(ledger, source, "it has a revision that can be taken", at)?;
        }
    }
    Ok(())
}
