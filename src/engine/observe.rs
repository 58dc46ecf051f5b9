//! Turns a reading of a source into what is recorded: trees into the store first, then one transaction (`taking`)
//! with the cursor, what git says about each app, and the events that tell of it.

use std::sync::Arc;

use jiff::Timestamp;

use super::taking::{Recorded, Taking, Told};
use super::watcher::{LookError, Tools};
use crate::domain::AppKey;
use crate::files::config::SourceConfig;
use crate::ledger::apps::{self, Material, Observed};
use crate::ledger::sources::ManifestRecord;
use crate::source::{AppReading, Reading};
use crate::store::StoreError;

/// Records a reading.
pub(super) async fn record(tools: &Tools, config: &SourceConfig, reading: &Reading) -> Result<Recorded, LookError> {
    let source = &config.name;
    if reading.first && reading.read.is_empty() {
        let place =
            if reading.seen.path.is_empty() { "it".to_owned() } else { format!("`{}` in it", reading.seen.path) };
        return Err(LookError::Failed(format!(
            "source `{source}`: no landfall.yaml in {place}; add one to the directory of each app, or set the source's `path`. Apps that were read before stay as they are"
        )));
    }
    stays_where_it_is(tools, config).await?;
    let taking = Taking {
        source: source.clone(),
        environment: config.environment(&tools.environment).clone(),
        brake: config.brake,
        seen: reading.seen.clone(),
        first: reading.first,
        removed: reading.removed.clone(),
        told: take_over(tools, config, reading).await?,
    };
    match tools.ledger.write(move |ledger| taking.record(ledger, Timestamp::now())).await {
        Ok(Some(recorded)) => Ok(recorded),
        Ok(None) => Err(LookError::Failed(format!(
            "source `{source}`: the newest revision has no manifest at all; nothing is stopped. Restore them, or stop the apps with `landfall app stop`"
        ))),
        Err(error) => Err(LookError::Failed(error.to_string())),
    }
}

/// A source whose apps are in one environment cannot take them to another: they would be other apps, with other
/// versions, secrets and volumes, and what runs would be nobody's.
async fn stays_where_it_is(tools: &Tools, config: &SourceConfig) -> Result<(), LookError> {
    let (source, now) = (config.name.clone(), config.environment(&tools.environment).clone());
    let asked = (source.clone(), now.clone());
    let elsewhere = tools.ledger.read(move |ledger| apps::environment_besides(ledger, &asked.0, &asked.1)).await;
    match elsewhere.map_err(|error| LookError::Failed(error.to_string()))? {
        None => Ok(()),
        Some(before) => Err(LookError::Failed(format!(
            "source `{source}`: its apps are in environment {before}, and it is configured for {now}; nothing is changed. Name \
             a new source for {now}, or set this one back to {before}"
        ))),
    }
}

/// Copies the trees of all readable apps into the store. One that cannot be taken over becomes a problem of its app.
async fn take_over(tools: &Tools, config: &SourceConfig, reading: &Reading) -> Result<Vec<Told>, LookError> {
    let store = Arc::clone(&tools.store);
    let (objects, read) = (reading.objects.clone(), reading.read.clone());
    let (revision, environment) = (reading.revision.clone(), config.environment(&tools.environment).clone());
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
