//! What an event means for the commit it is about, written into the outbox in the event's own transaction.

use rusqlite::Connection;

use super::outbox::{self, COMMIT_STATUS, Post};
use super::rows::json;
use super::versions::VersionRecord;
use super::{Result, apps, deployments, versions, waits};
use crate::decide::announce;
use crate::domain::{
    AppKey, CommitId, CommitReport, CommitState, Event, EventKind, SourceName, VersionKind, VersionNumber, WaitReason,
};

/// Writes it, if the event's source reports.
pub(super) fn tell(connection: &Connection, event: &Event) -> Result<()> {
    let Some(state) = announce::commit_state(event.kind) else { return Ok(()) };
    match (&event.app, &event.source) {
        (Some(key), _) => tell_of_app(connection, key, state, event),
        (None, Some(source)) => tell_of_source(connection, source, state, event),
        (None, None) => Ok(()),
    }
}

fn tell_of_source(connection: &Connection, source: &SourceName, state: CommitState, event: &Event) -> Result<()> {
    if !outbox::is_destination(connection, COMMIT_STATUS, source.as_str())? {
        return Ok(());
    }
    for waiting in waits::of(connection, source)? {
        if let WaitReason::Unverified { commit, problem } = waiting.reason {
            let report = CommitReport { commit, app: None, state, description: problem };
            enqueue(connection, source, &report, event.at)?;
        }
    }
    Ok(())
}

fn tell_of_app(connection: &Connection, key: &AppKey, state: CommitState, event: &Event) -> Result<()> {
    let Some((source, _, _)) = apps::owner(connection, key)? else { return Ok(()) };
    if !outbox::is_destination(connection, COMMIT_STATUS, source.as_str())? {
        return Ok(());
    }
    let Some((commit, state)) = concerned(connection, key, state, event)? else { return Ok(()) };
    let report = CommitReport { commit, app: Some(key.clone()), state, description: event.message.clone() };
    enqueue(connection, &source, &report, event.at)
}

/// The commit an event speaks of, and how it stands by that.
fn concerned(
    connection: &Connection,
    key: &AppKey,
    state: CommitState,
    event: &Event,
) -> Result<Option<(CommitId, CommitState)>> {
    let version = |number: VersionNumber| versions::one(connection, key, number);
    let of = |version: Option<VersionRecord>| version.and_then(|version| version.material.commit);
    let named = match event.version {
        Some(number) => version(number)?,
        None => None,
    };
    match event.kind {
        EventKind::Quarantined => {
            let Some(wanted) = apps::one(connection, key)?.and_then(|app| app.material) else { return Ok(None) };
            // The commit in which it went bad was told of when it did.
            let told = versions::is_of_a_version(connection, key, &wanted)?;
            Ok(wanted.commit.filter(|_| !told).map(|commit| (commit, state)))
        }
        EventKind::Rollback => {
            // What was rolled back is bad, not what came back.
            let Some(back) = named.filter(|version| matches!(version.kind, VersionKind::Rollback { .. })) else {
                return Ok(None);
            };
            let Some(id) = back.deployment else { return Ok(None) };
            let replaced = deployments::one(connection, id)?.and_then(|deployment| deployment.replaces);
            let bad = match replaced {
                Some(number) => of(version(number)?),
                None => None,
            };
            Ok(bad.filter(|bad| Some(bad) != back.material.commit.as_ref()).map(|commit| (commit, state)))
        }
        EventKind::DeploymentPending => {
            // What comes back was reported when it was new.
            Ok(of(named.filter(|version| version.kind == VersionKind::Deploy)).map(|commit| (commit, state)))
        }
        EventKind::DeploymentCancelled => {
            let Some(version) = named else { return Ok(None) };
            let quarantined =
                apps::one(connection, key)?.is_some_and(|app| app.quarantine.contains(&version.material.content));
            let state = if quarantined { CommitState::Failure } else { state };
            Ok(version.material.commit.filter(|_| version.kind == VersionKind::Deploy).map(|commit| (commit, state)))
        }
        _ => Ok(of(named).map(|commit| (commit, state))),
    }
}

fn enqueue(connection: &Connection, source: &SourceName, report: &CommitReport, at: jiff::Timestamp) -> Result<()> {
    let app = report.app.as_ref().map(ToString::to_string).unwrap_or_default();
    let post = Post {
        kind: COMMIT_STATUS,
        destination: source.as_str(),
        about: &format!("{} {app}", report.commit),
        body: &json(report)?,
    };
    outbox::post(connection, &post, at)
}
