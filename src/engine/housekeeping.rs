//! What is no longer needed goes: releases and trees beyond `retention.versions`, apps stopped long ago, old events, old
//! entries of the audit log.
//!
//! Never anything that is live, held, draining, being deployed, or asked for by a source.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use super::reconciler::Reconciler;
use super::records;
use crate::domain::{AppKey, VersionNumber};
use crate::ledger::apps::WantedKind;
use crate::ledger::{LedgerError, apps, audit, claims, facts, versions};

/// Everything is looked over this often even if nothing happened.
const ROUND: Duration = Duration::from_secs(3600);
/// Events are kept at least this long …
const EVENTS_KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 90);
/// … and at least so many of them.
const EVENTS_KEPT_AT_LEAST: u32 = 10_000;
/// Apps tidied in one tick, so that a round over thousands of apps holds nobody up.
const APPS_PER_TICK: usize = 50;

/// What is to be tidied.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    due: BTreeSet<AppKey>,
    /// Stops whose time is over and that were tidied for that.
    stops_over: HashMap<AppKey, Timestamp>,
    last_round: Option<Instant>,
    gone: Vec<AppKey>,
    /// What ran beside the live version when its app was last tidied: once that has ended there is more to tidy.
    ending: HashMap<AppKey, Vec<VersionNumber>>,
}

impl Tidying {
    pub(super) fn ask_for(&mut self, key: AppKey) {
        self.due.insert(key);
    }
}

/// Does what is due. Called every second; does nothing most of the time.
pub(super) async fn on_tick(reconciler: &mut Reconciler, now: Timestamp) {
    let round_due = reconciler.tidying.last_round.is_none_or(|last| last.elapsed() >= ROUND);
    if round_due {
        reconciler.tidying.last_round = Some(Instant::now());
        let all: Vec<AppKey> = reconciler.apps.keys().cloned().collect();
        reconciler.tidying.due.extend(all);
        if let Err(error) = forget_events(reconciler, now).await {
            warn!(%error, "old events cannot be removed");
        }
        if let Err(error) = trim_audit(reconciler, now).await {
            warn!(%error, "old entries of the audit log cannot be removed");
        }
    }
    ask_for_stops_over(reconciler, now);
    ask_for_ended(reconciler).await;
    let due: Vec<AppKey> = std::iter::from_fn(|| reconciler.tidying.due.pop_first()).take(APPS_PER_TICK).collect();
    if due.is_empty() {
        return;
    }
    for key in &due {
        if let Err(error) = tidy(reconciler, key, now).await {
            warn!(app = %key, %error, "an app's old versions cannot be tidied");
        }
    }
    collect_in_background(reconciler, &due).await;
}

/// When an app has been stopped for as long as a stopped app is kept, that is a reason of its own to tidy it.
fn ask_for_stops_over(reconciler: &mut Reconciler, now: Timestamp) {
    let keep_for = kept_when_stopped(reconciler);
    let Reconciler { apps, tidying, .. } = reconciler;
    tidying.stops_over.retain(|key, _| apps.contains_key(key));
    for (key, entry) in apps.iter() {
        let Some(at) = entry.recorded.app.stop.as_ref().map(|stop| stop.at) else { continue };
        if now.duration_since(at) > keep_for && tidying.stops_over.get(key) != Some(&at) {
            tidying.due.insert(key.clone());
        }
    }
}

/// Containers, and requests that take their time, end long after the deployment that replaced them.
async fn ask_for_ended(reconciler: &mut Reconciler) {
    for (key, ran) in std::mem::take(&mut reconciler.tidying.ending) {
        let runs = reconciler.tools.fleet.running(key.clone()).await;
        if ran.iter().all(|version| runs.contains(version)) {
            reconciler.tidying.ending.insert(key, ran);
        } else {
            reconciler.tidying.due.insert(key);
        }
    }
}

fn kept_when_stopped(reconciler: &Reconciler) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(reconciler.settings.load().keep_stopped).unwrap_or(jiff::SignedDuration::MAX)
}

async fn tidy(reconciler: &mut Reconciler, key: &AppKey, now: Timestamp) -> Result<(), LedgerError> {
    let Some(entry) = reconciler.apps.get(key) else { return Ok(()) };
    let busy = entry.running.is_some() || entry.waiting.is_some() || entry.left_open.is_some();
    let stopped = entry.recorded.app.stop.as_ref().map(|stop| stop.at);
    let over = stopped.filter(|at| now.duration_since(*at) > kept_when_stopped(reconciler));
    let gone = matches!(entry.recorded.app.wanted, WantedKind::Absent | WantedKind::Nobody);
    let mut spare = reconciler.tools.fleet.running(key.clone()).await;
    let live = entry.recorded.app.live;
    let ending: Vec<VersionNumber> = spare.iter().copied().filter(|version| Some(*version) != live).collect();
    if !ending.is_empty() {
        reconciler.tidying.ending.insert(key.clone(), ending);
    }
    // While its last instances finish, a stopped app is not over; it is looked at again with the next tick.
    let over = over.filter(|_| !busy && spare.is_empty());
    spare.extend(entry.running.as_ref().map(|running| running.version));
    let keep = if over.is_some() { 0 } else { reconciler.settings.load().keep_versions };
    let app = key.clone();
    let expired = reconciler.tools.ledger.write(move |ledger| versions::expire(ledger, &app, keep, &spare)).await?;
    unpin(reconciler, key, expired).await;
    if let Some(since) = over {
        reconciler.tidying.stops_over.insert(key.clone(), since);
        remove_logs(reconciler, key).await;
        if gone {
            info!(app = %key, "stopped long ago; everything of it but its volumes is removed");
            let app = key.clone();
            reconciler.tools.ledger.write(move |ledger| apps::remove(ledger, &app)).await?;
            reconciler.tools.fleet.forget(key.clone()).await;
            reconciler.apps.remove(key);
            reconciler.needs_may_have_changed(key, true);
            reconciler.tidying.gone.push(key.clone());
            reconciler.changed();
        }
    }
    Ok(())
}

async fn unpin(reconciler: &Reconciler, key: &AppKey, expired: Vec<VersionNumber>) {
    if expired.is_empty() {
        return;
    }
    give_up_images(reconciler, key, expired.clone()).await;
    let app = key.clone();
    let unpinned = reconciler.tools.workshop.blocking(move |store| {
        for version in &expired {
            store.unpin(&app, *version)?;
        }
        Ok(())
    });
    if let Err(error) = unpinned.await {
        warn!(app = %key, %error, "trees of old versions cannot be given up");
    }
}

/// Images that only versions had which are no longer kept. Beside the reconciler: an engine may take its time.
async fn give_up_images(reconciler: &Reconciler, key: &AppKey, expired: Vec<VersionNumber>) {
    let app = key.clone();
    let found = reconciler.tools.ledger.read(move |ledger| {
        let mut gone = Vec::new();
        for version in expired {
            let Some(record) = versions::one(ledger, &app, version)? else { continue };
            gone.extend(record.image.into_iter().chain(record.services.into_values()));
        }
        let kept = if gone.is_empty() { Vec::new() } else { versions::kept_images(ledger)? };
        Ok((gone, kept))
    });
    match found.await {
        Ok((gone, kept)) => {
            let docker = reconciler.tools.runtime.docker().clone();
            tokio::spawn(async move {
                for image in &gone {
                    docker.give_up(image, &kept).await;
                }
            });
        }
        Err(error) => warn!(app = %key, %error, "images of old versions cannot be given up"),
    }
}

async fn remove_logs(reconciler: &Reconciler, key: &AppKey) {
    let logs = reconciler.settings.load().data_dir.join("logs").join(key.environment.as_str()).join(key.app.as_str());
    // Gone already is as good.
    let _ = tokio::fs::remove_dir_all(logs).await;
}

/// Removes releases nobody needs any more, without holding up the reconciler.
async fn collect_in_background(reconciler: &mut Reconciler, due: &[AppKey]) {
    let gone = std::mem::take(&mut reconciler.tidying.gone);
    let wanted: Vec<AppKey> = due.to_vec();
    let asked = wanted.clone();
    let workshop = reconciler.tools.workshop.clone();
    let begun = workshop.begin_collection();
    let kept = reconciler.tools.ledger.read(move |ledger| {
        let mut kept = std::collections::HashMap::new();
        for key in asked {
            let Some(app) = apps::one(ledger, &key)? else { continue };
            let mut contents = versions::kept_contents(ledger, &key)?;
            contents.extend(app.material.map(|material| material.content.as_str().to_owned()));
            kept.insert(key, contents);
        }
        Ok((kept, claims::trees(ledger)?))
    });
    let (kept, claimed) = match kept.await {
        Ok(kept) => kept,
        Err(error) => {
            warn!(%error, "releases cannot be tidied");
            return;
        }
    };
    // What sources ask for and no version has yet (quarantined, suspended) must outlive a compaction.
    let material =
        |entry: &records::AppEntry| entry.recorded.app.material.as_ref().map(|material| material.tree.clone());
    let mut asked_for: Vec<_> = reconciler.apps.values().filter_map(material).collect();
    asked_for.extend(claimed);
    tokio::spawn(async move {
        let collected = workshop.blocking(move |store| {
            let collected = store.collect(begun, &|key, content| match kept.get(key) {
                Some(contents) => contents.contains(content.as_str()),
                // Not asked about: not judged.
                None => !gone.contains(key),
            })?;
            if store.wants_compaction() {
                store.compact(&asked_for)?;
            }
            Ok(collected)
        });
        match collected.await {
            Ok(collected) if collected.releases_removed > 0 => {
                info!(releases = collected.releases_removed, bytes = collected.bytes, "old releases removed");
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "old releases cannot be removed"),
        }
    });
}

async fn forget_events(reconciler: &Reconciler, now: Timestamp) -> Result<(), LedgerError> {
    let before = now.checked_sub(EVENTS_KEPT).unwrap_or(Timestamp::MIN);
    reconciler.tools.ledger.write(move |ledger| facts::forget_events(ledger, before, EVENTS_KEPT_AT_LEAST)).await
}

async fn trim_audit(reconciler: &Reconciler, now: Timestamp) -> Result<(), LedgerError> {
    let kept = reconciler.settings.load().keep_audit;
    let before = now.checked_sub(kept).unwrap_or(Timestamp::MIN);
    let removed = reconciler.tools.ledger.write(move |ledger| audit::trim(ledger, before, now)).await?;
    if removed > 0 {
        info!(entries = removed, %before, "old entries of the audit log removed");
    }
    Ok(())
}

/// A stop as it is shown to requests that still come.
pub(super) fn refusal(stop: &crate::ledger::apps::StopRecord) -> String {
    records::stop_words(stop)
}
