//! Turns a reading of a source into what is recorded: trees into the store first, then one transaction with the
//! cursor, what git says about each app, and the events that tell of it.
//!
//! Invariant: a manifest that cannot be read, or that claims an app another owns, changes nothing about any app.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::watcher::{LookError, Tools};
use crate::domain::{AppKey, Event, EventKind, SourceName};
use crate::ledger::apps::{self, Material, Observed};
use crate::ledger::sources::{self, ManifestRecord};
use crate::ledger::{Connection, LedgerError, facts};
use crate::source::{AppReading, Reading};
use crate::store::StoreError;

/// What was recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    /// Apps to decide anew.
    pub touched: BTreeSet<AppKey>,
    /// All manifests of the source that cannot be read now.
    pub problems: Vec<String>,
    /// When.
    pub at: Timestamp,
}

/// One app of a reading, its tree in the store.
struct Told {
    path: String,
    manifest: ManifestRecord,
    key: Option<AppKey>,
    observed: Option<Observed>,
}

/// Records a reading.
pub(super) async fn record(tools: &Tools, source: &SourceName, reading: &Reading) -> Result<Recorded, LookError> {
    if reading.first && reading.read.is_empty() {
        let place =
            if reading.seen.path.is_empty() { "it".to_owned() } else { format!("`{}` in it", reading.seen.path) };
        return Err(LookError::Failed(format!(
            "source `{source}`: no landfall.yaml in {place}; add one to the directory of each app, or set the source's `path`. Apps that were read before stay as they are"
        )));
    }
    let told = take_over(tools, reading).await?;
    let (name, environment, seen) = (source.clone(), tools.environment.clone(), reading.seen.clone());
    let (removed, first) = (reading.removed.clone(), reading.first);
    let written = tools.ledger.write(move |ledger| {
        let at = Timestamp::now();
        let mut touched = BTreeSet::new();
        let before = sources::manifests(ledger, &name)?;
        let mut gone: BTreeSet<String> = removed.into_iter().collect();
        if first {
            let now: BTreeSet<&str> = told.iter().map(|told| told.path.as_str()).collect();
            gone.extend(
                before.iter().map(|manifest| &manifest.path).filter(|path| !now.contains(path.as_str())).cloned(),
            );
        }
        // Nothing readable is left at all: that is a mistake somewhere, not a wish to stop everything.
        let all_gone =
            told.is_empty() && !before.is_empty() && before.iter().all(|manifest| gone.contains(&manifest.path));
        if all_gone {
            return Ok(None);
        }
        for told in told {
            touched.extend(record_one(ledger, &name, told, at)?);
        }
        for path in &gone {
            touched.extend(record_gone(ledger, &name, &environment, path, &before, at)?);
        }
        sources::advance(ledger, &name, seen.commit.as_ref(), &seen.tree, &seen.path, at)?;
        let problems = sources::manifests(ledger, &name)?.into_iter().filter_map(|manifest| manifest.problem).collect();
        Ok(Some(Recorded { touched, problems, at }))
    });
    match written.await {
        Ok(Some(recorded)) => Ok(recorded),
        Ok(None) => Err(LookError::Failed(format!(
            "source `{source}`: the newest revision has no manifest at all; nothing is stopped. Restore them, or stop the apps with `landfall app stop`"
        ))),
        Err(error) => Err(LookError::Failed(error.to_string())),
    }
}

/// Copies the trees of all readable apps into the store. One that cannot be taken over becomes a problem of its app.
async fn take_over(tools: &Tools, reading: &Reading) -> Result<Vec<Told>, LookError> {
    let store = Arc::clone(&tools.store);
    let (objects, read) = (reading.objects.clone(), reading.read.clone());
    let (revision, environment) = (reading.revision.clone(), tools.environment.clone());
    let taken = tokio::task::spawn_blocking(move || {
        let parts: Vec<_> = read
            .iter()
            .filter(|app| app.owner)
            .filter_map(|app| app.result.as_ref().ok().map(|content| content.tree.parts.as_slice()))
            .collect();
        let trees = match store.import(&objects, &parts) {
            Ok(trees) => trees.into_iter().map(Ok).collect(),
            Err(error) if error.is_about_content() => one_by_one(&store, &objects, &parts)?,
            Err(error) => return Err(error),
        };
        let mut trees = trees.into_iter();
        let told = read.into_iter().map(|app| {
            let tree = if app.owner && app.result.is_ok() { trees.next() } else { None };
            // The store names files within the app's tree; people look for them from the app's directory.
            let tree = tree.map(|tree| tree.map_err(|problem| format!("{}: {problem}", directory(&app.path))));
            tell(app, tree, &revision, &environment)
        });
        Ok(told.collect())
    });
    match taken.await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) if error.is_damage() => Err(LookError::Damaged(error.to_string())),
        Ok(Err(error)) => Err(LookError::Failed(error.to_string())),
        Err(error) => Err(LookError::Failed(format!("taking trees over was interrupted: {error}"))),
    }
}

/// An app's directory as messages name it.
fn directory(path: &str) -> &str {
    if path.is_empty() { "the root directory" } else { path }
}

type Taken = Result<crate::domain::TreeId, String>;

fn one_by_one(
    store: &crate::store::Store,
    objects: &std::path::Path,
    all: &[crate::store::Parts<'_>],
) -> Result<Vec<Taken>, StoreError> {
    let mut taken = Vec::with_capacity(all.len());
    for parts in all {
        taken.push(match store.import(objects, &[*parts]) {
            Ok(trees) => trees.into_iter().next().ok_or_else(|| "the store answered nothing".to_owned()),
            Err(error) if error.is_about_content() => Err(error.to_string()),
            Err(error) => return Err(error),
        });
    }
    Ok(taken)
}

fn tell(
    app: AppReading,
    tree: Option<Taken>,
    revision: &crate::source::Revision,
    environment: &crate::domain::EnvironmentName,
) -> Told {
    let key = app.app.clone().map(|name| AppKey::new(environment.clone(), name));
    let result = match (app.result, tree) {
        (Ok(content), Some(Ok(tree))) => Ok(Material {
            content: content.content,
            tree,
            workdir: content.tree.workdir,
            manifest: content.manifest,
            commit: revision.commit.clone(),
            author: revision.author.clone(),
            subject: revision.subject.clone(),
        }),
        (Ok(_), Some(Err(problem))) => Err(problem),
        // Another directory owns the name; the reading says so as its problem.
        (Ok(_), None) => Err(format!("{}: the app's name belongs to another directory", app.path)),
        (Err(problem), _) => Err(problem.message),
    };
    let problem = result.as_ref().err().cloned();
    let observed = if app.owner {
        Some(match result {
            Ok(material) => Observed::Content(Box::new(material)),
            Err(problem) => Observed::Unknown(problem),
        })
    } else {
        None
    };
    let manifest =
        ManifestRecord { path: app.path.clone(), app: app.app, owner: app.owner, includes: app.includes, problem };
    Told { path: app.path, manifest, key, observed }
}

fn record_one(
    ledger: &Connection,
    source: &SourceName,
    mut told: Told,
    at: Timestamp,
) -> Result<Option<AppKey>, LedgerError> {
    let mut touched = None;
    if let (Some(key), Some(observed)) = (&told.key, &told.observed) {
        match apps::owner(ledger, key)? {
            Some((owner, path)) if owner != *source => {
                told.manifest.problem = Some(format!(
                    "app {} belongs to source {owner} ({path}) already; give this one another name, or remove that one",
                    key.app
                ));
                told.manifest.owner = false;
            }
            _ => {
                apps::observe(ledger, key, (source, &told.path), observed, at)?;
                touched = Some(key.clone());
            }
        }
    }
    sources::set_manifest(ledger, source, &told.manifest)?;
    if let Some(problem) = &told.manifest.problem {
        let event = Event {
            at,
            kind: EventKind::ManifestInvalid,
            app: told.key.clone(),
            version: None,
            source: Some(source.clone()),
            message: problem.clone(),
        };
        facts::event(ledger, &event)?;
    }
    Ok(touched)
}

fn record_gone(
    ledger: &Connection,
    source: &SourceName,
    environment: &crate::domain::EnvironmentName,
    path: &str,
    before: &[ManifestRecord],
    at: Timestamp,
) -> Result<Option<AppKey>, LedgerError> {
    sources::remove_manifest(ledger, source, path)?;
    let Some(app) = before.iter().find(|manifest| manifest.path == path).and_then(|manifest| manifest.app.clone())
    else {
        return Ok(None);
    };
    let key = AppKey::new(environment.clone(), app);
    // Identity is the name: an app whose manifest has moved is owned by its new directory by now.
    let owned_here = apps::owner(ledger, &key)?.is_some_and(|(owner, at_path)| owner == *source && at_path == path);
    if !owned_here {
        return Ok(None);
    }
    apps::observe(ledger, &key, (source, path), &Observed::Absent, at)?;
    Ok(Some(key))
}
