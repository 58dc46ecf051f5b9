//! Who owns which app: taking one, giving one up, taking one over from another source. All in the transaction of
//! the reading that leads to it.
//!
//! Identity is the app's name. Whoever had it first keeps it; who asks for it too is told, and what it asks for is
//! kept as a claim. When the owner gives the app up, the claim becomes what git says in the same transaction: nobody
//! ever sees the app absent in between, so nothing is stopped or started for it.

use jiff::Timestamp;

use crate::domain::{AppKey, AppName, Event, EventKind, SourceName, WaitReason};
use crate::ledger::apps::{self, Observed, WantedKind};
use crate::ledger::claims::{self, Claim};
use crate::ledger::{Connection, Result, facts, sources, waits};

/// Who stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub source: SourceName,
    pub path: String,
}

/// A manifest's place, as messages name it.
pub(super) fn manifest_in(source: &SourceName, path: &str) -> String {
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{path}{slash}landfall.yaml of source `{source}`")
}

/// Records what a manifest asks for, or that another source has the app.
pub(super) fn take(ledger: &Connection, claim: Claim, at: Timestamp) -> Result<std::result::Result<(), Owner>> {
    let before = apps::owner(ledger, &claim.key)?;
    if let Some((source, path, wanted)) = &before
        && *source != claim.source
        && *wanted != WantedKind::Absent
        && !release_held(ledger, source, &claim.key.app, at)?
    {
        claims::set(ledger, &claim, at)?;
        return Ok(Err(Owner { source: source.clone(), path: path.clone() }));
    }
    claims::remove(ledger, &claim.source, &claim.path)?;
    apps::observe(ledger, &claim.key, (&claim.source, &claim.path), &claim.observed, at)?;
    if let Some((source, path, _)) = before.filter(|(source, _, _)| *source != claim.source) {
        tell_moved(ledger, &claim, &Owner { source, path }, at)?;
    }
    Ok(Ok(()))
}

/// What an app's owner gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// It is somebody else's by now.
    NotOwned,
    /// Another source has taken it over.
    TakenOver,
    /// Nobody asks for it.
    Gone,
}

/// The manifest at `path` no longer asks for the app. Records nothing when nobody else does.
pub(super) fn give_up(
    ledger: &Connection,
    key: &AppKey,
    source: &SourceName,
    path: &str,
    at: Timestamp,
) -> Result<GivenUp> {
    let owned_here = apps::owner(ledger, key)?.is_some_and(|(owner, at_path, _)| owner == *source && at_path == path);
    if !owned_here {
        return Ok(GivenUp::NotOwned);
    }
    match claims::next_for(ledger, key)? {
        Some(claim) => {
            hand_over(ledger, claim, Some(&Owner { source: source.clone(), path: path.to_owned() }), at)?;
            Ok(GivenUp::TakenOver)
        }
        None => Ok(GivenUp::Gone),
    }
}

/// Gives apps whose source has left the configuration to those who have asked for them.
pub(super) fn hand_over_free(ledger: &Connection, at: Timestamp) -> Result<()> {
    for claim in claims::free(ledger)? {
        // Of several who asked, the first has it by now.
        if apps::owner(ledger, &claim.key)?.is_none() {
            hand_over(ledger, claim, None, at)?;
        }
    }
    Ok(())
}

fn hand_over(ledger: &Connection, claim: Claim, before: Option<&Owner>, at: Timestamp) -> Result<()> {
    let problem = match &claim.observed {
        Observed::Content(_) | Observed::Absent => None,
        Observed::Unknown(problem) => Some(problem.as_str()),
    };
    claims::remove(ledger, &claim.source, &claim.path)?;
    sources::set_problem(ledger, &claim.source, &claim.path, problem)?;
    apps::observe(ledger, &claim.key, (&claim.source, &claim.path), &claim.observed, at)?;
    match before {
        Some(before) => tell_moved(ledger, &claim, before, at),
        None => Ok(()),
    }
}

/// An app that only waits for approval to go is free for whoever asks for it. `true` if it was one.
fn release_held(ledger: &Connection, source: &SourceName, app: &AppName, at: Timestamp) -> Result<bool> {
    for waiting in waits::of(ledger, source)? {
        let WaitReason::PruneBrake { apps, of, brake } = waiting.reason else { continue };
        if !apps.contains(app) {
            continue;
        }
        let apps: Vec<AppName> = apps.into_iter().filter(|other| other != app).collect();
        if apps.is_empty() {
            waits::end(ledger, waiting.id)?;
        } else {
            let reason = WaitReason::PruneBrake { apps, of, brake };
            waits::set(ledger, source, &reason, waiting.revision.as_deref(), at)?;
        }
        return Ok(true);
    }
    Ok(false)
}

fn tell_moved(ledger: &Connection, claim: &Claim, before: &Owner, at: Timestamp) -> Result<()> {
    let event = Event {
        at,
        kind: EventKind::AppMoved,
        app: Some(claim.key.clone()),
        version: None,
        source: Some(claim.source.clone()),
        object: None,
        cause: None,
        message: format!(
            "{} comes from {} now, before from {}",
            claim.key.app,
            manifest_in(&claim.source, &claim.path),
            manifest_in(&before.source, &before.path)
        ),
    };
    facts::event(ledger, &event)
}
