//! What people command about an app, and the agent's own rollback. Each is recorded in one transaction first.

use jiff::Timestamp;
use tracing::warn;

use super::reconciler::{Command, Reconciler, internal};
use super::recording::{Extra, Finished, NewHold};
use super::records::{self, whole_seconds};
use super::{Caller, CommandError, Result};
use crate::decide::rollback::{Candidate, default_target};
use crate::domain::{
    Actor, AppKey, ContentId, DeploymentId, DeploymentOutcome, EventKind, Failure, Suspension, VersionKind,
    VersionNumber,
};
use crate::ledger::apps::Material;
use crate::ledger::versions::{NewVersion, VersionRecord};
use crate::ledger::{LedgerError, apps, facts, versions};
use crate::wire::api;

/// Carries out one command.
pub(super) async fn carry_out(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    command: Command,
) -> Result<api::Accepted> {
    if !reconciler.apps.contains_key(key) && !matches!(command, Command::Upload { .. }) {
        return Err(unknown_app(key));
    }
    match command {
        Command::Rollback(request) => rollback(reconciler, caller, key, request).await,
        Command::Release(request) => release(reconciler, caller, key, request).await,
        Command::Rollover(request) => rollover(reconciler, caller, key, request).await,
        Command::Suspend(request) => suspend(reconciler, caller, key, request).await,
        Command::Resume => resume(reconciler, caller, key).await,
        Command::Stop(request) => stop(reconciler, caller, key, request).await,
        Command::Upload { material, reason } => upload(reconciler, caller, key, *material, reason).await,
    }
}

/// The answer about an app nobody knows.
pub(super) fn unknown_app(key: &AppKey) -> CommandError {
    CommandError::NotFound {
        what: format!("there is no app {} in environment {}", key.app, key.environment),
        mend: "`landfall app list` shows the apps there are".into(),
    }
}

fn conflict(what: impl Into<String>, mend: impl Into<String>) -> CommandError {
    CommandError::Conflict { what: what.into(), mend: mend.into() }
}

fn accepted(key: &AppKey, changed: bool, message: impl Into<String>) -> api::Accepted {
    api::Accepted {
        message: message.into(),
        changed,
        app: key.app.clone(),
        environment: key.environment.clone(),
        version: None,
        deployment: None,
    }
}

fn refuse_when_suspended(reconciler: &Reconciler, key: &AppKey) -> Result<()> {
    let suspension = reconciler.apps.get(key).and_then(|entry| entry.recorded.app.suspension.as_ref());
    match suspension {
        None => Ok(()),
        Some(suspension) => Err(conflict(
            format!(
                "app {} is suspended by {} since {}: {}",
                key.app,
                suspension.actor,
                whole_seconds(suspension.since),
                suspension.reason
            ),
            format!("`landfall app resume {}` first", key.app),
        )),
    }
}

pub(super) fn refuse_the_past(until: Option<Timestamp>, now: Timestamp) -> Result<()> {
    if until.is_some_and(|until| until <= now) {
        return Err(CommandError::Invalid {
            what: "`until` is in the past".into(),
            mend: "give a time to come, or a length of time such as 2h".into(),
        });
    }
    Ok(())
}

async fn all_versions(reconciler: &Reconciler, key: &AppKey) -> std::result::Result<Vec<VersionRecord>, LedgerError> {
    let app = key.clone();
    reconciler.tools.ledger.read(move |ledger| versions::all(ledger, &app)).await
}

fn candidate(version: &VersionRecord) -> Candidate {
    Candidate {
        version: version.number,
        content: version.material.content.clone(),
        healthy: version.healthy,
        kept: version.kept,
    }
}

fn pick_default<'v>(reconciler: &Reconciler, key: &AppKey, history: &'v [VersionRecord]) -> Option<&'v VersionRecord> {
    let app = &reconciler.apps.get(key)?.recorded.app;
    let candidates: Vec<Candidate> = history.iter().map(candidate).collect();
    let live = history.iter().find(|version| Some(version.number) == app.live).map(candidate);
    let target = default_target(&candidates, live.as_ref(), &app.quarantine)?;
    history.iter().find(|version| version.number == target.version)
}

async fn rollback(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    request: api::RollbackRequest,
) -> Result<api::Accepted> {
    refuse_when_suspended(reconciler, key)?;
    refuse_the_past(request.until, Timestamp::now())?;
    let history = all_versions(reconciler, key).await.map_err(internal)?;
    let live = reconciler.apps.get(key).and_then(|entry| entry.recorded.app.live);
    if request.version.is_none()
        && let Some(answer) = on_its_way_already(reconciler, key, &history)
    {
        return Ok(answer);
    }
    if (request.version.is_none() || request.version == live)
        && let Some(answer) = keep_live_instead_of_open(reconciler, &caller, key, &request).await?
    {
        return Ok(answer);
    }
    let target = match request.version {
        Some(number) => explicit_target(key, &history, number, live)?,
        None => pick_default(reconciler, key, &history).ok_or_else(|| {
            conflict(
                format!("app {} has no earlier version that was healthy, is kept and is not quarantined", key.app),
                format!(
                    "`landfall app history {}` shows what there is; name a version to bring it back all the same",
                    key.app
                ),
            )
        })?,
    };
    let live = history.iter().find(|version| Some(version.number) == live);
    let reason = request.reason.clone().unwrap_or_else(|| match live {
        Some(live) => format!("rolled back from {}", live.number),
        None => "rolled back".to_owned(),
    });
    let back = Back { target, live, actor: caller.actor, reason, until: request.until, finished: None };
    let (version, id) = record_rollback(reconciler, key, back).await.map_err(internal)?;
    let mut answer = accepted(key, true, format!("{version} brings back {}", target.number));
    answer.version = Some(version);
    answer.deployment = Some(id);
    Ok(answer)
}

fn explicit_target<'v>(
    key: &AppKey,
    history: &'v [VersionRecord],
    number: VersionNumber,
    live: Option<VersionNumber>,
) -> Result<&'v VersionRecord> {
    let app = &key.app;
    let target = history.iter().find(|version| version.number == number).ok_or_else(|| CommandError::NotFound {
        what: format!("app {app} has no version {number}"),
        mend: format!("`landfall app history {app}` shows the versions there are"),
    })?;
    if !target.kept {
        return Err(conflict(
            format!("the files of {app} {number} are no longer kept"),
            "versions marked as kept in `landfall app history` can be brought back; `retention.versions` says how many",
        ));
    }
    let running = history.iter().find(|version| Some(version.number) == live);
    if running.is_some_and(|running| running.material.content == target.material.content) {
        return Err(conflict(
            format!("{number} has the content that is live already"),
            format!("`landfall app rollover {app}` starts it afresh"),
        ));
    }
    Ok(target)
}

/// Asking twice for the version before is asking once: the second time must not undo the first.
fn on_its_way_already(reconciler: &Reconciler, key: &AppKey, history: &[VersionRecord]) -> Option<api::Accepted> {
    let (open, _) = reconciler.apps.get(key)?.before_its_switch()?;
    let version = history.iter().find(|version| version.number == open)?;
    let VersionKind::Rollback { of } = version.kind else { return None };
    let mut answer = accepted(key, false, format!("{open} is on its way already and brings back {of}"));
    answer.version = Some(open);
    answer.deployment = version.deployment;
    Some(answer)
}

/// A rollback asked for while a deployment is on its way means: not that one. What is live stays, held.
async fn keep_live_instead_of_open(
    reconciler: &mut Reconciler,
    caller: &Caller,
    key: &AppKey,
    request: &api::RollbackRequest,
) -> Result<Option<api::Accepted>> {
    let Some(entry) = reconciler.apps.get(key) else { return Ok(None) };
    let (Some((open, content)), Some(live)) = (entry.before_its_switch(), entry.recorded.app.live) else {
        return Ok(None);
    };
    if entry.recorded.live.as_ref() == Some(&content) {
        return Ok(None);
    }
    let (at, actor, over) = (Timestamp::now(), caller.actor.clone(), entry.git_content());
    let reason = request.reason.clone().unwrap_or_else(|| format!("{open} was not wanted"));
    let hold = crate::domain::Hold {
        version: live,
        reason: reason.clone(),
        actor: actor.clone(),
        since: at,
        until: request.until,
    };
    let (app, kept) = (key.clone(), entry.recorded.live.clone());
    reconciler
        .tools
        .ledger
        .write(move |ledger| {
            apps::set_quarantine(ledger, &app, &content, open, &reason, &actor, at)?;
            if let Some(kept) = &kept {
                apps::lift_quarantine(ledger, &app, kept)?;
            }
            apps::set_hold(ledger, &app, &hold, over.as_ref())?;
            let words = format!("{} stays at {live}; {open} is quarantined: {reason}", app.app);
            facts::event(ledger, &records::event(EventKind::Rollback, &app, Some(live), at, words))?;
            facts::audit(ledger, &actor, "rollback", Some(&app), &live, at)
        })
        .await
        .map_err(internal)?;
    reconciler.cancel_open(key).await.map_err(internal)?;
    let mut answer =
        accepted(key, true, format!("the deployment of {open} is cancelled and its content quarantined; {live} stays"));
    answer.version = Some(live);
    Ok(Some(answer))
}

/// A rollback about to be recorded.
struct Back<'v> {
    target: &'v VersionRecord,
    live: Option<&'v VersionRecord>,
    actor: Actor,
    reason: String,
    until: Option<Timestamp>,
    /// The end of the deployment it makes up for.
    finished: Option<Finished>,
}

async fn record_rollback(
    reconciler: &mut Reconciler,
    key: &AppKey,
    back: Back<'_>,
) -> std::result::Result<(VersionNumber, crate::domain::DeploymentId), LedgerError> {
    let Back { target, live, actor, reason, until, finished } = back;
    let over = reconciler.apps.get(key).and_then(super::records::AppEntry::git_content);
    let replaced = live.filter(|live| live.material.content != target.material.content);
    let quarantine = replaced.map(|live| (live.material.content.clone(), live.number, reason.clone()));
    let words = format!("{} goes back to {}: {reason}", key.app, target.number);
    let extra = Extra {
        hold: Some(NewHold { reason: reason.clone(), until, over }),
        quarantine,
        lift: Some(target.material.content.clone()),
        actor: Some(actor.clone()),
        event: Some((EventKind::Rollback, words)),
        ends_hold: false,
        finished,
    };
    let new = NewVersion {
        kind: VersionKind::Rollback { of: target.number },
        material: target.material.clone(),
        actor,
        reason: Some(reason),
    };
    reconciler.append(key, new, extra).await
}

/// Where the agent itself would go back to: only from new content or a rollover, never from a rollback, so that a
/// failing version is rolled back once.
pub(super) async fn automatic_target(
    reconciler: &Reconciler,
    key: &AppKey,
) -> std::result::Result<Option<VersionRecord>, LedgerError> {
    let history = all_versions(reconciler, key).await?;
    let Some(entry) = reconciler.apps.get(key) else { return Ok(None) };
    let live = history.iter().find(|version| Some(version.number) == entry.recorded.app.live);
    let went_back_already = live.is_none_or(|live| matches!(live.kind, VersionKind::Rollback { .. }));
    if went_back_already || entry.waiting.is_some() || entry.recorded.app.suspension.is_some() {
        return Ok(None);
    }
    Ok(pick_default(reconciler, key, &history).cloned())
}

/// The agent's own rollback of the live version, whose deployment has failed its bake. The end of that deployment
/// is recorded with it: a controller that dies here either watches the bake again or finds the rollback open.
pub(super) async fn automatic_rollback(
    reconciler: &mut Reconciler,
    key: &AppKey,
    deployment: DeploymentId,
    target: VersionRecord,
    failure: &Failure,
) -> std::result::Result<(), LedgerError> {
    let history = all_versions(reconciler, key).await?;
    let failed = reconciler.apps.get(key).and_then(|entry| entry.recorded.app.live);
    let live = history.iter().find(|version| Some(version.number) == failed);
    let reason = match failed {
        Some(failed) => format!("{failed} failed: {}", failure.message),
        None => failure.message.clone(),
    };
    warn!(app = %key, to = %target.number, "rolled back by the agent: {reason}");
    let outcome = DeploymentOutcome::RolledBack;
    let finished = Finished { id: deployment, outcome, failure: Some(failure.clone()) };
    let back = Back { target: &target, live, actor: Actor::Agent, reason, until: None, finished: Some(finished) };
    record_rollback(reconciler, key, back).await.map(drop)
}

async fn release(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    request: api::ReleaseRequest,
) -> Result<api::Accepted> {
    refuse_when_suspended(reconciler, key)?;
    let Some(entry) = reconciler.apps.get(key) else { return Err(unknown_app(key)) };
    let held = entry.recorded.app.hold.is_some();
    let git = entry.git_content();
    let app = &key.app;
    let blocked = git.as_ref().and_then(|git| why_blocked(entry, git));
    let runs_already = git.is_some() && git == entry.recorded.live && entry.recorded.app.stop.is_none();
    if !held && runs_already {
        return Ok(accepted(key, false, format!("{app} is not held and runs what its source asks for")));
    }
    let wants_start = git.is_some() && !runs_already && (blocked.is_none() || request.force);
    if !held && !wants_start {
        let Some(blocked) = blocked else {
            return Ok(accepted(key, false, format!("{app} is not held, and no source speaks of it")));
        };
        return Err(conflict(
            format!("app {app} is not held; {blocked}"),
            format!("`landfall app release --force {app}` starts that content all the same"),
        ));
    }
    if !wants_start {
        end_hold_by(reconciler, key, &caller, request.reason.as_deref()).await.map_err(internal)?;
        let message = match blocked {
            Some(blocked) => format!("the hold on {app} ended; {blocked}; --force starts it"),
            None => format!("the hold on {app} ended; it runs what its source asks for"),
        };
        return Ok(accepted(key, true, message));
    }
    let Some(material) = entry.recorded.app.material.clone() else { return Err(unknown_app(key)) };
    let extra = Extra { ends_hold: true, lift: git, actor: Some(caller.actor.clone()), ..Extra::default() };
    let new = NewVersion { kind: VersionKind::Deploy, material, actor: caller.actor, reason: request.reason };
    let (version, id) = reconciler.append(key, new, extra).await.map_err(internal)?;
    let mut answer = accepted(key, true, format!("{version} starts what the source asks for"));
    answer.version = Some(version);
    answer.deployment = Some(id);
    Ok(answer)
}

/// Why git's content would not be started by itself.
fn why_blocked(entry: &records::AppEntry, git: &ContentId) -> Option<String> {
    if entry.recorded.app.quarantine.contains(git) {
        return Some("the content its source asks for is quarantined".to_owned());
    }
    if entry.recorded.failed.as_ref() == Some(git) {
        return Some("the content its source asks for failed to deploy".to_owned());
    }
    let stop = entry.recorded.app.stop.as_ref()?;
    (stop.content.as_ref() == Some(git)).then(|| records::stop_words(stop))
}

async fn end_hold_by(
    reconciler: &mut Reconciler,
    key: &AppKey,
    caller: &Caller,
    reason: Option<&str>,
) -> std::result::Result<(), LedgerError> {
    let (app, actor, at) = (key.clone(), caller.actor.clone(), Timestamp::now());
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    reconciler
        .tools
        .ledger
        .write(move |ledger| {
            apps::end_hold(ledger, &app)?;
            let words = format!("the hold on {} was ended by {actor}{why}", app.app);
            facts::event(ledger, &records::event(EventKind::Released, &app, None, at, words))?;
            facts::audit(ledger, &actor, "release", Some(&app), &why, at)
        })
        .await?;
    reconciler.reload(key).await;
    Ok(())
}

async fn rollover(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    request: api::ReasonRequest,
) -> Result<api::Accepted> {
    refuse_when_suspended(reconciler, key)?;
    let Some(entry) = reconciler.apps.get(key) else { return Err(unknown_app(key)) };
    let Some(live) = entry.recorded.app.live else {
        return Err(conflict(
            format!("nothing of app {} is live", key.app),
            format!(
                "`landfall app release --force {0}` starts what its source asks for, `landfall app rollback {0} vN` a version",
                key.app
            ),
        ));
    };
    let hold = entry.recorded.app.hold.clone();
    let app = key.clone();
    let loaded =
        reconciler.tools.ledger.read(move |ledger| versions::one(ledger, &app, live)).await.map_err(internal)?;
    let Some(live) = loaded else { return Err(unknown_app(key)) };
    let actor = hold.as_ref().map_or(caller.actor.clone(), |(hold, _)| hold.actor.clone());
    let extra = Extra {
        // The hold moves on to the version that now runs the held content.
        hold: hold.map(|(hold, over)| NewHold { reason: hold.reason, until: hold.until, over }),
        actor: Some(actor),
        ..Extra::default()
    };
    let new = NewVersion {
        kind: VersionKind::Rollover { of: live.number },
        material: live.material,
        actor: caller.actor,
        reason: request.reason,
    };
    let (version, id) = reconciler.append(key, new, extra).await.map_err(internal)?;
    let mut answer = accepted(key, true, format!("{version} starts {} afresh", live.number));
    answer.version = Some(version);
    answer.deployment = Some(id);
    Ok(answer)
}

async fn suspend(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    request: api::SuspendRequest,
) -> Result<api::Accepted> {
    let at = Timestamp::now();
    refuse_the_past(request.until, at)?;
    let suspension = Suspension {
        reason: request.reason.unwrap_or_else(|| "no reason given".to_owned()),
        actor: caller.actor.clone(),
        since: at,
        until: request.until,
    };
    let until = suspension.until.map(|until| format!(" until {}", whole_seconds(until))).unwrap_or_default();
    let message = format!("{} is frozen{until}: {}", key.app, suspension.reason);
    let (app, words) = (key.clone(), message.clone());
    reconciler
        .tools
        .ledger
        .write(move |ledger| {
            apps::set_suspension(ledger, &app, &suspension)?;
            facts::event(ledger, &records::event(EventKind::Suspended, &app, None, at, words))?;
            facts::audit(ledger, &caller.actor, "suspend", Some(&app), &suspension, at)
        })
        .await
        .map_err(internal)?;
    // A deployment that has not switched yet would change a frozen app.
    reconciler.cancel_open(key).await.map_err(internal)?;
    Ok(accepted(key, true, message))
}

async fn resume(reconciler: &mut Reconciler, caller: Caller, key: &AppKey) -> Result<api::Accepted> {
    let suspended = reconciler.apps.get(key).is_some_and(|entry| entry.recorded.app.suspension.is_some());
    if !suspended {
        return Err(conflict(format!("app {} is not suspended", key.app), "nothing needs to be done"));
    }
    end_suspension(reconciler, key, caller.actor, Timestamp::now()).await.map_err(internal)?;
    Ok(accepted(key, true, format!("{} goes on", key.app)))
}

pub(super) async fn end_suspension(
    reconciler: &mut Reconciler,
    key: &AppKey,
    actor: Actor,
    at: Timestamp,
) -> std::result::Result<(), LedgerError> {
    let app = key.clone();
    reconciler
        .tools
        .ledger
        .write(move |ledger| {
            apps::end_suspension(ledger, &app)?;
            let words = format!("{} goes on", app.app);
            facts::event(ledger, &records::event(EventKind::Resumed, &app, None, at, words))?;
            facts::audit(ledger, &actor, "resume", Some(&app), &(), at)
        })
        .await?;
    reconciler.reload(key).await;
    Ok(())
}

async fn stop(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    request: api::ReasonRequest,
) -> Result<api::Accepted> {
    let Some(entry) = reconciler.apps.get(key) else { return Err(unknown_app(key)) };
    if let Some(stop) = &entry.recorded.app.stop
        && entry.waiting.is_none()
        && entry.running.is_none()
    {
        return Err(conflict(
            format!("app {} is stopped already: {}", key.app, records::stop_words(stop)),
            "it starts again when its content changes, or with `landfall deploy`",
        ));
    }
    let content = entry.git_content().or_else(|| entry.recorded.live.clone());
    reconciler.stop(key, caller.actor, request.reason, content).await.map_err(internal)?;
    Ok(accepted(key, true, format!("{} is stopped; its instances finish what they have", key.app)))
}

async fn upload(
    reconciler: &mut Reconciler,
    caller: Caller,
    key: &AppKey,
    material: Material,
    reason: Option<String>,
) -> Result<api::Accepted> {
    let (app, at) = (key.clone(), Timestamp::now());
    reconciler.tools.ledger.write(move |ledger| apps::ensure_uploaded(ledger, &app, at)).await.map_err(internal)?;
    reconciler.reload(key).await;
    refuse_when_suspended(reconciler, key)?;
    let Some(entry) = reconciler.apps.get(key) else { return Err(unknown_app(key)) };
    let heading_for = entry.as_recorded().open.map(|open| open.content).or_else(|| entry.recorded.live.clone());
    if heading_for.as_ref() == Some(&material.content) && entry.recorded.app.stop.is_none() {
        let mut answer = accepted(key, false, format!("no changes: {} runs this content already", key.app));
        answer.version = entry.recorded.app.live;
        return Ok(answer);
    }
    let owned = entry.recorded.app.owner.is_some();
    let over = entry.git_content();
    let hold = owned.then(|| NewHold {
        reason: reason.clone().unwrap_or_else(|| "deployed from a directory".to_owned()),
        until: None,
        over,
    });
    let extra =
        Extra { hold, lift: Some(material.content.clone()), actor: Some(caller.actor.clone()), ..Extra::default() };
    let new = NewVersion { kind: VersionKind::Deploy, material, actor: caller.actor, reason };
    let (version, id) = reconciler.append(key, new, extra).await.map_err(internal)?;
    let mut answer = accepted(key, true, format!("{} {version} is recorded", key.app));
    answer.version = Some(version);
    answer.deployment = Some(id);
    Ok(answer)
}
