//! An app as the reconciler holds it: its record, its deployments, and both as the pure rules see them.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::depending::HeldUp;
use super::spec::VersionSpec;
use crate::decide::reconcile::{Held, Open, Recorded, Wanted};
use crate::domain::{
    Actor, AppKey, ContentId, DeploymentId, DeploymentOutcome, Event, EventKind, Failure, VersionNumber, VersionStatus,
};
use crate::ledger::apps::{AppRecord, StopRecord, WantedKind};
use crate::ledger::deployments::DeploymentRecord;
use crate::ledger::versions::VersionRecord;
use crate::ledger::{Connection, Result, apps, versions};

/// Settings the reconciler needs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Versions per app whose tree is kept.
    pub keep_versions: u32,
    /// A stopped app is removed after this.
    pub keep_stopped: std::time::Duration,
    /// Entries of the audit log are removed after this.
    pub keep_audit: std::time::Duration,
    /// What calls carried is removed after this.
    pub keep_calls: std::time::Duration,
    /// The agent's data directory.
    pub data_dir: PathBuf,
}

/// An app as recorded, with what the rules need of its versions.
#[derive(Debug, Clone)]
pub(super) struct AppFacts {
    pub app: AppRecord,
    pub live: Option<ContentId>,
    pub held: Option<ContentId>,
    pub failed: Option<ContentId>,
}

/// A deployment that waits for the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub id: DeploymentId,
    pub version: VersionNumber,
    pub content: ContentId,
}

/// The deployment under way.
#[derive(Debug)]
pub(super) struct Running {
    pub id: DeploymentId,
    pub version: VersionNumber,
    pub content: ContentId,
    /// It is past its switch.
    pub live: bool,
    pub cancel: CancellationToken,
}

/// An app as the reconciler holds it.
#[derive(Debug)]
pub(super) struct AppEntry {
    pub recorded: AppFacts,
    pub waiting: Option<Waiting>,
    pub running: Option<Running>,
    /// What is live, ready to be started.
    pub live_spec: Option<Arc<VersionSpec>>,
    /// A deployment without an outcome that nobody drives now.
    pub left_open: Option<(VersionRecord, DeploymentRecord)>,
    /// The last reason given for doing nothing, so that it is told once.
    pub said: Option<(crate::decide::reconcile::Why, Option<ContentId>)>,
    /// Why the waiting deployment is not started yet.
    pub held_up: Option<HeldUp>,
}

impl AppEntry {
    pub(super) fn new(recorded: AppFacts) -> Self {
        Self { recorded, waiting: None, running: None, live_spec: None, left_open: None, said: None, held_up: None }
    }

    /// What git says.
    pub(super) fn wanted(&self) -> Wanted {
        match self.recorded.app.wanted {
            WantedKind::Content => match self.git_content() {
                Some(content) => Wanted::Content(content),
                None => Wanted::Unknown,
            },
            WantedKind::Unknown => Wanted::Unknown,
            WantedKind::Absent => Wanted::Absent,
            WantedKind::Nobody => Wanted::Nobody,
        }
    }

    /// The newest content git gave, if a source speaks of the app.
    pub(super) fn git_content(&self) -> Option<ContentId> {
        self.recorded.app.owner.as_ref()?;
        self.recorded.app.material.as_ref().map(|material| material.content.clone())
    }

    /// What is recorded.
    pub(super) fn as_recorded(&self) -> Recorded {
        let app = &self.recorded.app;
        let left_open = self.left_open.as_ref().map(|(version, deployment)| Open {
            content: version.material.content.clone(),
            live: deployment.phase.is_live(),
        });
        let running = self.running.as_ref().filter(|running| !running.cancel.is_cancelled() || running.live);
        let running = running.map(|running| Open { content: running.content.clone(), live: running.live });
        let waiting = self.waiting.as_ref().map(|waiting| Open { content: waiting.content.clone(), live: false });
        Recorded {
            live: self.recorded.live.clone(),
            open: waiting.or(running).or(left_open),
            failed: self.recorded.failed.clone(),
            hold: app.hold.as_ref().zip(self.recorded.held.clone()).map(|((hold, over), content)| Held {
                version: hold.version,
                content,
                over: over.clone(),
                until: hold.until,
            }),
            quarantine: app.quarantine.clone(),
            suspended: app.suspension.as_ref().map(|suspension| suspension.until),
            stopped: app.stop.as_ref().map(|stop| stop.content.clone()),
        }
    }

    /// Deployments that may still be ended before anybody notices them.
    pub(super) fn cancellable(&self) -> Vec<DeploymentId> {
        let waiting = self.waiting.as_ref().map(|waiting| waiting.id);
        let running = self.running.as_ref().filter(|running| !running.live).map(|running| running.id);
        let left_open = self.left_open.as_ref().map(|(_, deployment)| deployment.id);
        waiting.into_iter().chain(running).chain(left_open).collect()
    }

    /// The newest deployment that nobody can have noticed yet: its version and content.
    pub(super) fn before_its_switch(&self) -> Option<(VersionNumber, ContentId)> {
        match (&self.waiting, &self.running) {
            (Some(waiting), _) => Some((waiting.version, waiting.content.clone())),
            (None, Some(running)) if !running.live && !running.cancel.is_cancelled() => {
                Some((running.version, running.content.clone()))
            }
            (None, Some(_) | None) => None,
        }
    }

    /// Who speaks for the app when its source changes it.
    pub(super) fn source_actor(&self) -> Actor {
        match &self.recorded.app.owner {
            Some((source, _)) => Actor::Source { source: source.clone() },
            None => Actor::Agent,
        }
    }

    /// Whether the clock alone changes something about it.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let app = &self.recorded.app;
        let hold = app.hold.as_ref().and_then(|(hold, _)| hold.until);
        let suspension = app.suspension.as_ref().and_then(|suspension| suspension.until);
        hold.is_some_and(|until| until <= now) || suspension.is_some_and(|until| until <= now)
    }

    pub(super) fn became_live(&mut self, id: DeploymentId, spec: Arc<VersionSpec>) {
        self.live_spec = Some(spec);
        if let Some(running) = self.running.as_mut().filter(|running| running.id == id) {
            running.live = true;
            self.recorded.live = Some(running.content.clone());
            self.recorded.app.live = Some(running.version);
            self.recorded.app.stop = None;
        }
    }
}

/// Reads what the rules need of one app.
pub(super) fn load_one(ledger: &Connection, key: &AppKey) -> Result<Option<AppFacts>> {
    apps::one(ledger, key)?.map(|app| complete(ledger, app)).transpose()
}

/// Reads what the rules need of all apps.
pub(super) fn load_all(ledger: &Connection) -> Result<Vec<AppFacts>> {
    apps::all(ledger)?.into_iter().map(|app| complete(ledger, app)).collect()
}

fn complete(ledger: &Connection, app: AppRecord) -> Result<AppFacts> {
    let content_of = |number: Option<VersionNumber>| -> Result<Option<ContentId>> {
        let Some(number) = number else { return Ok(None) };
        Ok(versions::one(ledger, &app.key, number)?.map(|version| version.material.content))
    };
    let live = content_of(app.live)?;
    let held = content_of(app.hold.as_ref().map(|(hold, _)| hold.version))?;
    // A rollover or a rollback since then does not make the content any better.
    let newest = versions::newest_deploy(ledger, &app.key)?;
    let failed = newest.filter(|version| version.status == VersionStatus::Failed);
    Ok(AppFacts { live, held, failed: failed.map(|version| version.material.content), app })
}

/// A hold names a version that is live or on its way. When its deployment ends before the switch, what is live
/// stays: held, or, when git asks for just that, without a hold.
pub(super) fn hold_falls_back(ledger: &Connection, key: &AppKey, ended: VersionNumber, at: Timestamp) -> Result<()> {
    let Some(app) = apps::one(ledger, key)? else { return Ok(()) };
    let Some((hold, over)) = app.hold.as_ref().filter(|(hold, _)| hold.version == ended) else { return Ok(()) };
    let live = app.live.map(|live| versions::one(ledger, key, live)).transpose()?.flatten();
    let git = app.material.as_ref().filter(|_| app.owner.is_some()).map(|material| &material.content);
    match live {
        Some(live) if Some(&live.material.content) != git => {
            let reason = format!("{ended} did not become live, {} stays; {}", live.number, hold.reason);
            let hold = crate::domain::Hold { version: live.number, reason, ..hold.clone() };
            apps::set_hold(ledger, key, &hold, over.as_ref())
        }
        Some(_) | None => {
            apps::end_hold(ledger, key)?;
            let words = format!("the hold on {} ended: {ended} did not become live", key.app);
            crate::ledger::facts::event(ledger, &event(EventKind::Released, key, Some(ended), at, words))
        }
    }
}

/// An event about an app.
pub(super) fn event(
    kind: EventKind,
    key: &AppKey,
    version: Option<VersionNumber>,
    at: Timestamp,
    message: String,
) -> Event {
    Event { at, kind, app: Some(key.clone()), version, source: None, object: None, cause: None, message }
}

/// The event that tells of a deployment's end.
pub(super) fn end_event(
    key: &AppKey,
    version: Option<VersionNumber>,
    outcome: DeploymentOutcome,
    failure: Option<&Failure>,
    at: Timestamp,
) -> Option<Event> {
    let name = version.map(|version| format!("{} {version}", key.app)).unwrap_or_else(|| key.app.to_string());
    let why = failure.map(|failure| failure.message.as_str()).unwrap_or_default();
    match outcome {
        DeploymentOutcome::Succeeded => Some(event(
            EventKind::DeploymentSucceeded,
            key,
            version,
            at,
            format!("{name} stays: it has passed its bake window"),
        )),
        DeploymentOutcome::Failed => {
            Some(event(EventKind::DeploymentFailed, key, version, at, format!("{name} failed: {why}")))
        }
        DeploymentOutcome::Cancelled => {
            Some(event(EventKind::DeploymentCancelled, key, version, at, format!("{name} was cancelled")))
        }
        DeploymentOutcome::RolledBack => {
            Some(event(EventKind::DeploymentFailed, key, version, at, format!("{name} is rolled back: {why}")))
        }
    }
}

/// A stop in words: who, when, why.
pub(super) fn stop_words(stop: &StopRecord) -> String {
    let reason = stop.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("stopped by {} at {}{reason}", stop.actor, whole_seconds(stop.at))
}

/// A time without fractions of a second, for messages.
pub(super) fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
