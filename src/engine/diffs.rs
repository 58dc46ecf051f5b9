//! How two versions of an app differ: files, manifest, and the secrets their instances were given.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reconciler::internal;
use super::{CommandError, Engine, Result};
use crate::decide::changes::{FieldChange, How, changes};
use crate::domain::{AppKey, TreeId, VersionNumber};
use crate::ledger::versions::{self, VersionRecord};
use crate::store::{Bounds, FilePatch, PatchKind, StoreError, TreePatch};
use crate::wire::diffs::{FieldDiff, FileChange, FileDiff, FilesDiff, GivenSecret, SecretDiff, VersionDiff};
use crate::wire::secrets::UsedSecret;

/// What one answer holds at most: it is read by people, and drawn on a page.
const BOUNDS: Bounds = Bounds { files: 300, file_text: 64 * 1024, text: 1024 * 1024, file_size: 1024 * 1024 };

impl Engine {
    /// How `to` differs from `from`; with `stat` without the text of files.
    pub async fn diff(&self, key: AppKey, from: VersionNumber, to: VersionNumber, stat: bool) -> Result<VersionDiff> {
        self.known(&key).await?;
        let (wanted, asked) = (key.clone(), key.clone());
        let read = self
            .ledger()
            .read(move |ledger| Ok((versions::one(ledger, &wanted, from)?, versions::one(ledger, &wanted, to)?)));
        let (before, after) = read.await.map_err(internal)?;
        let before = before.ok_or_else(|| unknown(&key, from))?;
        let after = after.ok_or_else(|| unknown(&key, to))?;
        let (files, missing) = match self.files(&before, &after).await {
            Ok(patch) => (Some(files(patch, stat)), None),
            Err(StoreError::UnknownTree { .. }) => (None, Some(gone(&before, &after))),
            Err(error) => return Err(CommandError::Internal { what: error.to_string() }),
        };
        let mut given = self.parts.vault.used(asked).await?;
        let mut of = |number| given.remove(&number).unwrap_or_default();
        let secrets = if from == to { Vec::new() } else { secrets(of(from), of(to)) };
        Ok(VersionDiff {
            app: key.app.clone(),
            environment: key.environment.clone(),
            from,
            to,
            from_commit: before.material.commit.clone(),
            to_commit: after.material.commit.clone(),
            files,
            missing,
            manifest: changes(&before.material.manifest, &after.material.manifest).into_iter().map(field).collect(),
            secrets,
        })
    }

    async fn files(&self, before: &VersionRecord, after: &VersionRecord) -> std::result::Result<TreePatch, StoreError> {
        let store = Arc::clone(&self.parts.store);
        let (old, new): (TreeId, TreeId) = (before.material.tree.clone(), after.material.tree.clone());
        if old == new {
            return Ok(TreePatch::default());
        }
        // What is not kept may still be there until the store is compacted; nobody should rely on that.
        if let Some(gone) = [before, after].into_iter().find(|record| !record.kept) {
            return Err(StoreError::UnknownTree { tree: gone.material.tree.to_string() });
        }
        let compared = tokio::task::spawn_blocking(move || store.patch(&old, &new, BOUNDS)).await;
        compared.unwrap_or_else(|error| {
            Err(StoreError::io("comparing two trees", self.parts.store.objects(), std::io::Error::other(error)))
        })
    }
}

fn unknown(key: &AppKey, number: VersionNumber) -> CommandError {
    CommandError::NotFound {
        what: format!("app {} has no version {number}", key.app),
        mend: format!("`landfall app history {}` shows the versions of the app", key.app),
    }
}

/// Which files are no longer there.
fn gone(before: &VersionRecord, after: &VersionRecord) -> String {
    let names: Vec<String> =
        [before, after].iter().filter(|record| !record.kept).map(|record| record.number.to_string()).collect();
    let whose = if names.is_empty() { "one of the versions".to_owned() } else { names.join(" and ") };
    format!(
        "the files of {whose} are no longer kept; `retention.versions` in the agent's configuration says how many are"
    )
}

fn files(patch: TreePatch, stat: bool) -> FilesDiff {
    let cut = patch.total > patch.files.len() || (!stat && patch.files.iter().any(|file| file.cut));
    FilesDiff {
        total: u32::try_from(patch.total).unwrap_or(u32::MAX),
        added: patch.files.iter().map(|file| file.added as u64).sum(),
        removed: patch.files.iter().map(|file| file.removed as u64).sum(),
        files: patch.files.into_iter().map(|found| file(found, stat)).collect(),
        cut,
    }
}

fn file(file: FilePatch, stat: bool) -> FileDiff {
    let count = |lines: usize| u32::try_from(lines).unwrap_or(u32::MAX);
    FileDiff {
        path: file.path,
        old_path: file.old_path,
        change: match file.kind {
            PatchKind::Added => FileChange::Added,
            PatchKind::Removed => FileChange::Removed,
            PatchKind::Modified => FileChange::Modified,
            PatchKind::Renamed => FileChange::Renamed,
            PatchKind::Mode => FileChange::Mode,
        },
        binary: file.binary,
        added: count(file.added),
        removed: count(file.removed),
        patch: Some(file.text).filter(|text| !stat && !text.is_empty()),
        cut: file.cut && !stat,
    }
}

fn field(change: FieldChange) -> FieldDiff {
    let (before, after) = match change.how {
        How::Added => (None, Some("added".to_owned())),
        How::Removed => (Some("removed".to_owned()), None),
        How::Value { before, after } => (Some(before), Some(after)),
    };
    FieldDiff { field: change.field, before, after }
}

/// Variables that were given another secret, or another revision of it.
fn secrets(before: Vec<UsedSecret>, after: Vec<UsedSecret>) -> Vec<SecretDiff> {
    // What was never started was given none, which says nothing of what it would be given.
    if before.is_empty() || after.is_empty() {
        return Vec::new();
    }
    let mut both: BTreeMap<String, (Option<GivenSecret>, Option<GivenSecret>)> = BTreeMap::new();
    let given = |used: UsedSecret| GivenSecret { secret: used.secret, from: used.from, revision: used.revision };
    for used in before {
        let variable = used.variable.clone();
        both.entry(variable).or_default().0 = Some(given(used));
    }
    for used in after {
        let variable = used.variable.clone();
        both.entry(variable).or_default().1 = Some(given(used));
    }
    let differ = both.into_iter().filter(|(_, (before, after))| before != after);
    differ.map(|(variable, (before, after))| SecretDiff { variable, before, after }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(variable: &str, revision: &str) -> UsedSecret {
        let secret = "token".parse().expect("a name");
        UsedSecret { variable: variable.into(), secret, from: "app".into(), revision: revision.into() }
    }

    #[test]
    fn secrets_differ_by_variable_and_revision() {
        let told = |before: &[UsedSecret], after: &[UsedSecret]| {
            let revision = |given: Option<GivenSecret>| given.map_or("-".to_owned(), |given| given.revision);
            let all = secrets(before.to_vec(), after.to_vec()).into_iter();
            all.map(|one| format!("{}: {} {}", one.variable, revision(one.before), revision(one.after)))
                .collect::<Vec<_>>()
        };
        let before = [used("A", "1"), used("B", "1"), used("C", "1")];
        let after = [used("A", "1"), used("B", "2"), used("D", "1")];
        assert_eq!(told(&before, &after), ["B: 1 2", "C: 1 -", "D: - 1"]);
        // Nothing is known of a version that never had instances.
        assert_eq!(told(&[], &after), [""; 0]);
        assert_eq!(told(&before, &[]), [""; 0]);
    }
}
