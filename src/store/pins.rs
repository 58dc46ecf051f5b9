//! Pins: references that keep the tree of a recorded version in the store, one per version.
//!
//! `refs/landfall/<environment>/<app>/v<number>` points straight at the tree. The ledger says which versions there
//! are; pins only keep `git gc`, and our own compaction, from taking their trees.

use super::error::StoreError;
use super::{Store, files, lock, oid, shared, tree_id};
use crate::domain::{AppKey, AppName, EnvironmentName, TreeId, VersionNumber};

const PREFIX: &str = "refs/landfall/";

fn name(key: &AppKey, version: VersionNumber) -> String {
    format!("{PREFIX}{}/{}/{version}", key.environment, key.app)
}

fn parse(name: &str) -> Option<(AppKey, VersionNumber)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('/');
    let environment: EnvironmentName = parts.next()?.parse().ok()?;
    let app: AppName = parts.next()?.parse().ok()?;
    let version = parts.next()?.parse().ok()?;
    parts.next().is_none().then(|| (AppKey::new(environment, app), version))
}

impl Store {
    /// Keeps `tree` for this version. Again with the same tree changes nothing.
    pub fn pin(&self, key: &AppKey, version: VersionNumber, tree: &TreeId) -> Result<(), StoreError> {
        self.pin_all([(key.clone(), version, tree.clone())])
    }

    /// Keeps many trees, durably, for the price of one sync.
    pub fn pin_all(&self, pins: impl IntoIterator<Item = (AppKey, VersionNumber, TreeId)>) -> Result<(), StoreError> {
        let _shared = shared(&self.access);
        let mut pinned = Vec::new();
        let written = self.with(|repository| {
            let mut written = false;
            for (key, version, tree) in pins {
                let (name, id) = (name(&key, version), oid(&tree)?);
                if repository.find_tree(id).is_err() {
                    return Err(StoreError::UnknownTree { tree: tree.to_string() });
                }
                pinned.push(id);
                if repository.refname_to_id(&name).is_ok_and(|there| there == id) {
                    continue;
                }
                repository
                    .reference(&name, id, true, "landfall: version")
                    .map_err(|error| self.git("pinning a version", &error))?;
                written = true;
            }
            Ok(written)
        })?;
        if written {
            files::sync_file_system(&self.objects)?;
        }
        let mut fresh = lock(&self.fresh);
        for id in pinned {
            fresh.remove(&id);
        }
        Ok(())
    }

    /// Lets go of a version's tree. A version that is not pinned is no error.
    pub fn unpin(&self, key: &AppKey, version: VersionNumber) -> Result<(), StoreError> {
        let _shared = shared(&self.access);
        self.with(|repository| match repository.find_reference(&name(key, version)) {
            Ok(mut reference) => reference.delete().map_err(|error| self.git("unpinning a version", &error)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(self.git("unpinning a version", &error)),
        })
    }

    /// Every pinned version and its tree.
    pub fn pinned(&self) -> Result<Vec<(AppKey, VersionNumber, TreeId)>, StoreError> {
        self.with(|repository| {
            let references = repository
                .references_glob(&format!("{PREFIX}*"))
                .map_err(|error| self.git("listing pinned versions", &error))?;
            let mut pinned = Vec::new();
            for reference in references {
                let reference = reference.map_err(|error| self.git("listing pinned versions", &error))?;
                let version = reference.name().ok().and_then(parse);
                if let (Some((key, version)), Some(id)) = (version, reference.target()) {
                    pinned.push((key, version, tree_id(id)?));
                }
            }
            Ok(pinned)
        })
    }
}
