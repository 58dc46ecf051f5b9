//! Apps that are gone from their source: let go, or held back until a person approves (`decide::prune`).
//!
//! A held-back app stays as it was recorded, owned by its source, and runs on. Which apps are held is in the ledger,
//! so it survives restarts; an approval lets exactly those go that it names.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::ownership::{self, GivenUp};
use crate::decide::prune::{Prune, Vanished, prune};
use crate::domain::{AppKey, AppName, Brake, EnvironmentName, Event, EventKind, SourceName, WaitReason, Waiting};
use crate::ledger::apps::{self, Observed};
use crate::ledger::{Connection, Result, facts, sources, waits};

/// A complete reading of a source, as far as its lost apps are concerned.
pub(super) struct Vanishing<'a> {
    pub source: &'a SourceName,
    pub brake: Brake,
    pub revision: &'a str,
    /// Apps the source had before it.
    pub of: usize,
    pub at: Timestamp,
}

impl Vanishing<'_> {
    /// Records what becomes of the apps this revision has lost, and of those that were held back before. Answers those
    /// that are absent now.
    pub(super) fn settle(
        &self,
        ledger: &Connection,
        environment: &EnvironmentName,
        gone: BTreeSet<AppName>,
    ) -> Result<Vec<AppKey>> {
        let waiting = held(ledger, self.source)?;
        if gone.is_empty() && waiting.is_none() {
            return Ok(Vec::new());
        }
        let manifests = sources::manifests(ledger, self.source)?;
        let held = waiting.as_ref().map(|(_, apps)| apps.iter().cloned().collect()).unwrap_or_default();
        let present = manifests.into_iter().filter_map(|manifest| manifest.app).collect();
        match prune(&Vanished { gone, held, present, of: self.of }, self.brake) {
            Prune::Proceed(apps) => self.let_go(ledger, environment, apps),
            Prune::Hold(apps) => self.hold(ledger, apps).map(|()| Vec::new()),
            Prune::Nothing => {
                if let Some((waiting, _)) = waiting {
                    waits::end(ledger, waiting.id)?;
                    tell_settled(ledger, self.source, "the apps that were gone are back", self.at)?;
                }
                Ok(Vec::new())
            }
        }
    }

    fn let_go(
        &self,
        ledger: &Connection,
        environment: &EnvironmentName,
        apps: BTreeSet<AppName>,
    ) -> Result<Vec<AppKey>> {
        let mut absent = Vec::new();
        for app in apps {
            let key = AppKey::new(environment.clone(), app);
            if make_absent(ledger, &key, self.source, self.at)? {
                absent.push(key);
            }
        }
        Ok(absent)
    }

    fn hold(&self, ledger: &Connection, apps: BTreeSet<AppName>) -> Result<()> {
        let of = u32::try_from(self.of).unwrap_or(u32::MAX);
        let reason = WaitReason::PruneBrake { apps: apps.into_iter().collect(), of, brake: self.brake };
        if !waits::set(ledger, self.source, &reason, Some(self.revision), self.at)? {
            return Ok(());
        }
        tell_waiting(ledger, self.source, &reason, self.at)
    }
}

/// What of a source waits for its brake.
fn held(ledger: &Connection, source: &SourceName) -> Result<Option<(Waiting, Vec<AppName>)>> {
    Ok(waits::of(ledger, source)?.into_iter().find_map(|waiting| match &waiting.reason {
        WaitReason::PruneBrake { apps, .. } => {
            let apps = apps.clone();
            Some((waiting, apps))
        }
        WaitReason::ForcePush { .. } | WaitReason::Unverified { .. } => None,
    }))
}

/// Lets the apps of an approved wait go, as far as they are still the source's and still gone from it.
pub(super) fn let_go_approved(
    ledger: &Connection,
    environment: &EnvironmentName,
    source: &SourceName,
    apps: &[AppName],
    at: Timestamp,
) -> Result<BTreeSet<AppKey>> {
    let mut touched = BTreeSet::new();
    for app in apps {
        let key = AppKey::new(environment.clone(), app.clone());
        if make_absent(ledger, &key, source, at)? {
            touched.insert(key);
        }
    }
    Ok(touched)
}

/// `true` when the app is absent now, or another source has taken it over.
fn make_absent(ledger: &Connection, key: &AppKey, source: &SourceName, at: Timestamp) -> Result<bool> {
    let Some((owner, path, _)) = apps::owner(ledger, key)? else { return Ok(false) };
    if owner != *source {
        return Ok(false);
    }
    match ownership::give_up(ledger, key, source, &path, at)? {
        GivenUp::NotOwned => Ok(false),
        GivenUp::TakenOver => Ok(true),
        GivenUp::Gone => {
            apps::observe(ledger, key, (source, &path), &Observed::Absent, at)?;
            Ok(true)
        }
    }
}

/// Tells that something waits.
pub(super) fn tell_waiting(ledger: &Connection, source: &SourceName, reason: &WaitReason, at: Timestamp) -> Result<()> {
    let message = reason.words_for(source);
    tell(ledger, source, EventKind::SourceWaiting, Some(reason.kind()), message, at)
}

/// Tells that something no longer waits, although nobody approved it.
pub(super) fn tell_settled(ledger: &Connection, source: &SourceName, why: &str, at: Timestamp) -> Result<()> {
    let message = format!("source `{source}`: {why}; nothing waits for that");
    tell(ledger, source, EventKind::SourceSettled, None, message, at)
}

fn tell(
    ledger: &Connection,
    source: &SourceName,
    kind: EventKind,
    cause: Option<&str>,
    message: String,
    at: Timestamp,
) -> Result<()> {
    let cause = cause.map(str::to_owned);
    facts::event(
        ledger,
        &Event { at, kind, app: None, version: None, source: Some(source.clone()), object: None, cause, message },
    )
}
