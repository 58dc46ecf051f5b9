//! What the newest revision of each source would change, without recording or doing any of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::handle::Parts;
use super::reconciler::internal;
use super::records::{self, AppEntry, AppFacts};
use super::watcher::Watching;
use super::{CommandError, Result};
use crate::decide::reconcile::{self, Step, Wanted, Why};
use crate::domain::{AppKey, Manifest, WaitReason};
use crate::ledger::{sources, versions};
use crate::source::{AppReading, Look, LookLimits};
use crate::wire::api;

/// A look for a plan must be over after this.
const DEADLINE: Duration = Duration::from_secs(60);
/// Changed files named for one app.
const FILES: usize = 5;

/// Plans these sources.
pub(super) async fn plan(parts: &Parts, sources: Vec<Watching>) -> Result<Vec<api::PlanItem>> {
    let mut items = Vec::new();
    for source in sources {
        items.extend(plan_one(parts, &source).await?);
    }
    Ok(items)
}

async fn plan_one(parts: &Parts, watching: &Watching) -> Result<Vec<api::PlanItem>> {
    let shared = Arc::clone(&watching.shared);
    let suspended = watching.suspension.borrow().is_some();
    let limits = LookLimits { deadline: Instant::now() + DEADLINE, cancel: Arc::new(AtomicBool::new(false)) };
    // A suspended source is not looked at, here neither: its apps are planned from what is recorded.
    let looking = move || if suspended { Ok(None) } else { shared.look(&limits, false).map(Some) };
    let looked = tokio::task::spawn_blocking(looking).await;
    let look = looked.map_err(|error| CommandError::Internal { what: error.to_string() })?;
    let look = look.map_err(|error| CommandError::Unavailable {
        what: error.to_string(),
        mend: "`landfall source list` shows how each source stands".into(),
    })?;
    let name = watching.config.name.clone();
    let mut planned = BTreeSet::new();
    let mut items = Vec::new();
    if let Some(Look::Diverged { last, commit }) = &look {
        let reason = WaitReason::ForcePush { last: last.clone(), commit: commit.clone() };
        items.push(api::PlanItem {
            source: Some(name.clone()),
            app: None,
            environment: parts.environment.clone(),
            action: "wait".into(),
            reasons: vec![reason.words_for(&name)],
            live_version: None,
        });
    }
    if let Some(Look::Changed(reading)) = &look {
        for app in &reading.read {
            if let Some(name) = app.app.clone().filter(|_| app.owner) {
                planned.insert(AppKey::new(parts.environment.clone(), name));
            }
            items.push(changed(parts, watching, app).await?);
        }
        let source = name.clone();
        let before = parts.ledger.read(move |ledger| sources::manifests(ledger, &source)).await.map_err(internal)?;
        for path in &reading.removed {
            let app = before.iter().find(|manifest| manifest.path == *path).and_then(|manifest| manifest.app.clone());
            if let Some(app) = app.filter(|app| !planned.contains(&AppKey::new(parts.environment.clone(), app.clone())))
            {
                let key = AppKey::new(parts.environment.clone(), app);
                let facts = facts(parts, &key).await?;
                planned.insert(key.clone());
                items.push(item(
                    watching,
                    &key,
                    facts.as_ref(),
                    &Wanted::Absent,
                    vec![format!("{path}/landfall.yaml is gone")],
                ));
            }
        }
    }
    let recorded = parts.ledger.read(records::load_all).await.map_err(internal)?;
    for facts in recorded {
        let mine = facts.app.owner.as_ref().is_some_and(|(source, _)| *source == name);
        if mine && !planned.contains(&facts.app.key) {
            let key = facts.app.key.clone();
            let wanted = AppEntry::new(facts.clone()).wanted();
            let reasons = facts.app.manifest_error.clone().into_iter().collect();
            items.push(item(watching, &key, Some(&facts), &wanted, reasons));
        }
    }
    items.sort_by(|a, b| a.app.cmp(&b.app));
    Ok(items)
}

async fn facts(parts: &Parts, key: &AppKey) -> Result<Option<AppFacts>> {
    let key = key.clone();
    parts.ledger.read(move |ledger| records::load_one(ledger, &key)).await.map_err(internal)
}

async fn changed(parts: &Parts, watching: &Watching, app: &AppReading) -> Result<api::PlanItem> {
    let key = app.app.clone().map(|name| AppKey::new(parts.environment.clone(), name));
    let content = match (&app.result, &key) {
        (Ok(content), Some(key)) if app.owner => Some((content, key)),
        _ => None,
    };
    let Some((content, key)) = content else {
        let reason = app.result.as_ref().err().map(|problem| problem.message.clone());
        return Ok(api::PlanItem {
            source: Some(watching.config.name.clone()),
            app: app.app.clone(),
            environment: parts.environment.clone(),
            action: "invalid".into(),
            reasons: vec![
                reason.unwrap_or_else(|| format!("{}: the app's name belongs to another directory", app.path)),
            ],
            live_version: None,
        });
    };
    let facts = facts(parts, key).await?;
    let reasons = reasons(parts, facts.as_ref(), content).await?;
    Ok(item(watching, key, facts.as_ref(), &Wanted::Content(content.content.clone()), reasons))
}

/// Why the content differs from what is live: fields of the manifest, files of the tree.
async fn reasons(parts: &Parts, facts: Option<&AppFacts>, content: &crate::source::AppContent) -> Result<Vec<String>> {
    let Some((key, live)) = facts.and_then(|facts| Some((facts.app.key.clone(), facts.app.live?))) else {
        return Ok(vec!["new app".to_owned()]);
    };
    let version = parts.ledger.read(move |ledger| versions::one(ledger, &key, live)).await.map_err(internal)?;
    let Some(version) = version else { return Ok(Vec::new()) };
    if version.material.content == content.content {
        return Ok(Vec::new());
    }
    let mut reasons = manifest_changes(&version.material.manifest, &content.manifest);
    let parts_of = content.tree.parts.clone();
    if let [(_, tree)] = parts_of.as_slice()
        && *tree != version.material.tree
    {
        reasons.push(tree_changes(parts, &version.material.tree, tree).await);
    }
    if reasons.is_empty() {
        reasons.push("tree changed".to_owned());
    }
    Ok(reasons)
}

async fn tree_changes(parts: &Parts, old: &crate::domain::TreeId, new: &crate::domain::TreeId) -> String {
    let (old, new) = (old.clone(), new.clone());
    // The new tree is in the store only once it is recorded; before that its files cannot be named.
    match parts.workshop.blocking(move |store| store.diff(&old, &new)).await {
        Ok(difference) => {
            let mut names: Vec<String> = difference.paths.into_iter().take(FILES).collect();
            let more = difference.total.saturating_sub(names.len());
            if more > 0 {
                names.push(format!("and {more} more"));
            }
            format!("tree changed: {}", names.join(", "))
        }
        Err(_) => "tree changed".to_owned(),
    }
}

/// Field by field, as dotted paths.
fn manifest_changes(old: &Manifest, new: &Manifest) -> Vec<String> {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else { return Vec::new() };
    let mut changes = Vec::new();
    compare("", &old, &new, &mut changes);
    changes
}

fn compare(path: &str, old: &serde_json::Value, new: &serde_json::Value, changes: &mut Vec<String>) {
    use serde_json::Value;
    if old == new {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let deeper = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let null = Value::Null;
            compare(&deeper, old.get(key).unwrap_or(&null), new.get(key).unwrap_or(&null), changes);
        }
        return;
    }
    changes.push(format!("{path}: {} → {}", short(old), short(new)));
}

fn short(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "none".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn item(
    watching: &Watching,
    key: &AppKey,
    facts: Option<&AppFacts>,
    wanted: &Wanted,
    reasons: Vec<String>,
) -> api::PlanItem {
    let recorded = facts.map(|facts| AppEntry::new(facts.clone()).as_recorded());
    let step = match &recorded {
        Some(recorded) => reconcile::step(wanted, recorded, Timestamp::now()),
        None => match wanted {
            Wanted::Content(content) => Step::Deploy { content: content.clone(), ends_hold: false },
            Wanted::Unknown | Wanted::Absent | Wanted::Nobody => Step::Nothing,
        },
    };
    let action = match step {
        Step::Nothing | Step::EndHold(_) | Step::EndSuspension | Step::CancelOpen => "none",
        Step::Deploy { .. } => "deploy",
        Step::Prune => "prune",
        Step::Wait(Why::Suspended) => "suspended",
        Step::Wait(Why::Held) => "held",
        Step::Wait(Why::Quarantined) => "quarantined",
        Step::Wait(Why::Failed) => "wait",
        Step::Wait(Why::Stopped) => "stopped",
        Step::Wait(Why::Unknown) => "invalid",
    };
    api::PlanItem {
        source: Some(watching.config.name.clone()),
        app: Some(key.app.clone()),
        environment: key.environment.clone(),
        action: action.to_owned(),
        reasons,
        live_version: facts.and_then(|facts| facts.app.live),
    }
}
