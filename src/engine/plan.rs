//! What the newest revision of each source would change, without recording or doing any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::handle::Parts;
use super::reconciler::internal;
use super::records::{self, AppEntry, AppFacts};
use super::watcher::Watching;
use super::{CommandError, Result};
use crate::decide::changes::changes;
use crate::decide::prune::{Prune, Vanished, prune};
use crate::decide::reconcile::{self, Step, Wanted, Why};
use crate::domain::{AppKey, AppName, Brake, TreeId, WaitReason};
use crate::files::check::MANIFEST_NAME;
use crate::ledger::apps::{Material, WantedKind};
use crate::ledger::sources::ManifestRecord;
use crate::ledger::{sources, versions, waits};
use crate::source::{AppContent, AppReading, Look, LookLimits, Reading, Refusal};
use crate::wire::api;

/// A look for a plan must be over after this.
const DEADLINE: Duration = Duration::from_secs(60);
/// Changed files named for one app.
const FILES: usize = 5;

/// Plans all sources. One that cannot be read is told as such, and keeps nothing of the others back.
pub(super) async fn plan_all(parts: &Parts, sources: &[Watching]) -> Result<Vec<api::PlanItem>> {
    let mut items = Vec::new();
    for source in sources {
        match plan_one(parts, source).await {
            Ok(planned) => items.extend(planned),
            Err(CommandError::Unavailable { what, .. }) => items.push(api::PlanItem {
                source: Some(source.config.name.clone()),
                app: None,
                environment: source.config.environment(&parts.environment).clone(),
                action: "error".into(),
                reasons: vec![what],
                live_version: None,
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(items)
}

/// Plans one source.
pub(super) async fn plan_one(parts: &Parts, watching: &Watching) -> Result<Vec<api::PlanItem>> {
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
    let environment = watching.config.environment(&parts.environment);
    let mut planned = BTreeSet::new();
    let mut items = Vec::new();
    let waits = match &look {
        Some(Look::Diverged { last, commit }) => {
            Some(WaitReason::ForcePush { last: last.clone(), commit: commit.clone() })
        }
        Some(Look::Refused(Refusal { commit, problem })) => {
            Some(WaitReason::Unverified { commit: commit.clone(), problem: problem.clone() })
        }
        Some(Look::Changed(_) | Look::Unchanged { .. }) | None => None,
    };
    if let Some(reason) = waits {
        items.push(api::PlanItem {
            source: Some(name.clone()),
            app: None,
            environment: environment.clone(),
            action: "wait".into(),
            reasons: vec![reason.words_for(&name)],
            live_version: None,
        });
    }
    if let Some(Look::Changed(reading)) = &look {
        for app in &reading.read {
            if let Some(name) = app.app.clone().filter(|_| app.owner) {
                planned.insert(AppKey::new(environment.clone(), name));
            }
            items.push(changed(parts, watching, reading, app).await?);
        }
    }
    let recorded = parts.ledger.read(records::load_all).await.map_err(internal)?;
    let mine = |facts: &AppFacts| facts.app.owner.as_ref().is_some_and(|(source, _)| *source == name);
    let mine: Vec<AppFacts> = recorded.into_iter().filter(mine).collect();
    let leaving = Leaving::find(parts, watching, look.as_ref(), &mine, &planned).await?;
    for facts in mine.iter().filter(|facts| !planned.contains(&facts.app.key)) {
        let key = &facts.app.key;
        items.push(match leaving.of(&key.app) {
            Some((wanted, reasons)) => {
                let mut item = item(watching, key, Some(facts), &wanted, reasons);
                if wanted != Wanted::Absent {
                    item.action = "held_back".into();
                }
                item
            }
            None => {
                let wanted = AppEntry::new(facts.clone()).wanted();
                let mut reasons: Vec<String> = facts.app.manifest_error.clone().into_iter().collect();
                if let (Wanted::Content(_), Some(material)) = (&wanted, &facts.app.material) {
                    reasons.extend(self::reasons(parts, Some(facts), material).await?);
                }
                item(watching, key, Some(facts), &wanted, reasons)
            }
        });
    }
    items.sort_by(|a, b| a.app.cmp(&b.app));
    Ok(items)
}

/// Apps of a source that the newest revision does not have any more, and what becomes of them.
struct Leaving {
    gone: BTreeSet<AppName>,
    verdict: Prune,
    brake: Brake,
    of: usize,
}

impl Leaving {
    async fn find(
        parts: &Parts,
        watching: &Watching,
        look: Option<&Look>,
        mine: &[AppFacts],
        planned: &BTreeSet<AppKey>,
    ) -> Result<Self> {
        let source = watching.config.name.clone();
        let known =
            parts.ledger.read(move |ledger| Ok((sources::manifests(ledger, &source)?, waits::of(ledger, &source)?)));
        let (before, waiting) = known.await.map_err(internal)?;
        let held: BTreeSet<AppName> = waiting
            .into_iter()
            .flat_map(|waiting| match waiting.reason {
                WaitReason::PruneBrake { apps, .. } => apps,
                WaitReason::ForcePush { .. } | WaitReason::Unverified { .. } => Vec::new(),
            })
            .collect();
        let now: BTreeMap<&str, Option<&AppName>> = match look {
            Some(Look::Changed(reading)) => {
                let removed = reading.removed.iter().map(|path| (path.as_str(), None));
                let read = reading.read.iter().filter(|app| app.app.is_some());
                removed.chain(read.map(|app| (app.path.as_str(), app.app.as_ref()))).collect()
            }
            Some(Look::Unchanged { .. } | Look::Diverged { .. } | Look::Refused(_)) | None => BTreeMap::new(),
        };
        let leaves = |manifest: &&ManifestRecord| {
            now.get(manifest.path.as_str()).is_some_and(|app| *app != manifest.app.as_ref())
        };
        let owned: BTreeSet<&AppName> = mine.iter().map(|facts| &facts.app.key.app).collect();
        let gone = before.iter().filter(leaves).filter_map(|manifest| manifest.app.clone());
        let gone: BTreeSet<AppName> = gone.filter(|app| owned.contains(app)).collect();
        let stays = before.iter().filter(|manifest| !leaves(manifest)).filter_map(|manifest| manifest.app.clone());
        let present = stays.chain(planned.iter().map(|key| key.app.clone())).collect();
        let of = mine.iter().filter(|facts| facts.app.wanted != WantedKind::Absent).count();
        let brake = watching.config.brake;
        let verdict = prune(&Vanished { gone: gone.clone(), held, present, of }, brake);
        Ok(Self { gone, verdict, brake, of })
    }

    /// What is wanted of an app that is gone, and why; `None` when it is not gone.
    fn of(&self, app: &AppName) -> Option<(Wanted, Vec<String>)> {
        let manifest = if self.gone.contains(app) { "its manifest is gone" } else { "its manifest was gone before" };
        match &self.verdict {
            Prune::Nothing => None,
            Prune::Proceed(apps) if apps.contains(app) => {
                Some((Wanted::Absent, vec![format!("removed: {manifest}; it would be stopped")]))
            }
            Prune::Hold(apps) if apps.contains(app) => {
                let (brake, of, count) = (self.brake, self.of, apps.len());
                let why =
                    format!("held back by the brake: {manifest}; {count} of {of} apps would go, {brake} may at once");
                Some((Wanted::Unknown, vec![why]))
            }
            Prune::Proceed(_) | Prune::Hold(_) => None,
        }
    }
}

async fn facts(parts: &Parts, key: &AppKey) -> Result<Option<AppFacts>> {
    let key = key.clone();
    parts.ledger.read(move |ledger| records::load_one(ledger, &key)).await.map_err(internal)
}

async fn changed(parts: &Parts, watching: &Watching, reading: &Reading, app: &AppReading) -> Result<api::PlanItem> {
    let environment = watching.config.environment(&parts.environment);
    let key = app.app.clone().map(|name| AppKey::new(environment.clone(), name));
    let content = match (&app.result, &key) {
        (Ok(content), Some(key)) if app.owner => Some((content, key)),
        _ => None,
    };
    let Some((content, key)) = content else {
        let reason = app.result.as_ref().err().map(|problem| problem.message.clone());
        return Ok(api::PlanItem {
            source: Some(watching.config.name.clone()),
            app: app.app.clone(),
            environment: environment.clone(),
            action: "invalid".into(),
            reasons: vec![
                reason.unwrap_or_else(|| format!("{}: the app's name belongs to another directory", app.path)),
            ],
            live_version: None,
        });
    };
    let facts = facts(parts, key).await?;
    let reasons = match material(parts, reading, content).await {
        Ok(material) => reasons(parts, facts.as_ref(), &material).await?,
        // Files that cannot be taken over are told when the revision is read; the plan goes on.
        Err(error) => vec![error.to_string()],
    };
    Ok(item(watching, key, facts.as_ref(), &Wanted::Content(content.content.clone()), reasons))
}

/// Why the content differs from what is live: fields of the manifest, files of the tree.
async fn reasons(parts: &Parts, facts: Option<&AppFacts>, new: &Material) -> Result<Vec<String>> {
    let Some((key, live)) = facts.and_then(|facts| Some((facts.app.key.clone(), facts.app.live?))) else {
        let known = facts.is_some();
        return Ok(vec![if known { "nothing is live" } else { "new app" }.to_owned()]);
    };
    let version = parts.ledger.read(move |ledger| versions::one(ledger, &key, live)).await.map_err(internal)?;
    let Some(version) = version.filter(|version| version.material.content != new.content) else {
        return Ok(Vec::new());
    };
    let old = &version.material;
    let mut reasons: Vec<String> = changes(&old.manifest, &new.manifest).iter().map(ToString::to_string).collect();
    let named = !reasons.is_empty();
    reasons.extend(tree_changes(parts, &old.tree, new, named).await);
    Ok(reasons)
}

/// Takes the new tree into the store, so that its files can be compared. No version needs it yet: clean-up removes it
/// unless it is deployed.
async fn material(parts: &Parts, reading: &Reading, content: &AppContent) -> Result<Material> {
    let (objects, tree) = (reading.objects.clone(), content.tree.clone());
    let taken = parts.workshop.blocking(move |store| store.import(&objects, &[tree.parts.as_slice()])).await;
    let taken = taken.map_err(|error| CommandError::Internal { what: error.to_string() })?;
    let missing = || CommandError::Internal { what: "the store answered nothing".into() };
    Ok(Material {
        content: content.content.clone(),
        tree: taken.into_iter().next().ok_or_else(missing)?,
        workdir: content.tree.workdir.clone(),
        manifest: content.manifest.clone(),
        commit: reading.revision.commit.clone(),
        author: reading.revision.author.clone(),
        subject: reading.revision.subject.clone(),
    })
}

/// The changed files. A manifest whose fields are named is not named again.
async fn tree_changes(parts: &Parts, old: &TreeId, new: &Material, named: bool) -> Option<String> {
    let (old, tree) = (old.clone(), new.tree.clone());
    let manifest =
        if new.workdir.is_empty() { MANIFEST_NAME.to_owned() } else { format!("{}/{MANIFEST_NAME}", new.workdir) };
    let Ok(difference) = parts.workshop.blocking(move |store| store.diff(&old, &tree)).await else {
        return Some("tree changed".to_owned());
    };
    let told = difference.paths.iter().any(|path| named && *path == manifest);
    let total = difference.total - usize::from(told);
    let names: Vec<_> = difference.paths.into_iter().filter(|path| !named || *path != manifest).take(FILES).collect();
    let more = total.saturating_sub(names.len());
    match (names.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("tree changed: {}", names.join(", "))),
        (false, more) => Some(format!("tree changed: {} (and {more} more)", names.join(", "))),
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
        reasons: if reasons.is_empty() { vec![usual_reason(action)] } else { reasons },
        live_version: facts.and_then(|facts| facts.app.live),
    }
}

/// What is said where nothing more is known.
fn usual_reason(action: &str) -> String {
    match action {
        "none" => "unchanged".to_owned(),
        "wait" => "this content failed to deploy; only other content, or a rollover, starts anew".to_owned(),
        other => other.to_owned(),
    }
}
