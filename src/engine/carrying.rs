//! The reconciler's part in deployments: recording them, starting them one at a time for each app, cancelling them,
//! and taking note of how they ended.
//!
//! Invariant: a deployment that is to be cancelled is cancelled in the record first; of that and the switch, whichever
//! is recorded first wins.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::deployer::{self, AppLock, Ended, Job, Verdict};
use super::reconciler::Reconciler;
use super::recording::{Extra, Finished, cancel_in};
use super::records::{self, AppEntry, Running, Waiting};
use super::{commands, depending};
use crate::domain::{Actor, AppKey, DeploymentId, DeploymentOutcome, EventKind, Phase, VersionNumber};
use crate::ledger::versions::{NewVersion, VersionRecord};
use crate::ledger::{LedgerError, apps, deployments, facts, versions};

impl Reconciler {
    /// Records a version with its deployment, then starts the deployment or lets it wait.
    pub(super) async fn append(
        &mut self,
        key: &AppKey,
        new: NewVersion,
        extra: Extra,
    ) -> std::result::Result<(VersionNumber, DeploymentId), LedgerError> {
        let at = Timestamp::now();
        let superseded = self.apps.get(key).map(AppEntry::cancellable).unwrap_or_default();
        // One that was left while it was watched is watched no longer.
        let left_open = self.apps.get(key).and_then(|entry| entry.left_open.as_ref());
        let watched = left_open.filter(|(_, left)| left.phase.is_live()).map(|(_, left)| left.id);
        let (app, record) = (key.clone(), new.clone());
        let (version, id) = self
            .tools
            .ledger
            .write(move |ledger| {
                for id in superseded {
                    cancel_in(ledger, &app, id, at)?;
                }
                if let Some(id) = watched {
                    deployments::finish(ledger, id, DeploymentOutcome::Succeeded, None, at)?;
                }
                let (version, id) = versions::append(ledger, &app, &record, at)?;
                extra.record(ledger, &app, version, at)?;
                let message = format!("{} {version}: {}", app.app, record.kind.as_str());
                facts::event(ledger, &records::event(EventKind::DeploymentPending, &app, Some(version), at, message))?;
                facts::audit(ledger, &record.actor, record.kind.as_str(), Some(&app), &version, at)?;
                Ok((version, id))
            })
            .await?;
        info!(app = %key, version = %version, deployment = %id, actor = %new.actor, "{} recorded", new.kind.as_str());
        self.reload(key).await;
        self.to_pin.push((key.clone(), version, new.material.tree));
        if let Some(entry) = self.apps.get_mut(key) {
            entry.left_open = None;
            entry.waiting = Some(Waiting { id, version, content: new.material.content.clone() });
        }
        self.give_up_running(key);
        self.start_waiting(key).await;
        self.undecided.insert(key.clone());
        Ok((version, id))
    }

    /// Asks the running deployment to give up: before its switch it ends as cancelled, after it the watching ends.
    pub(super) fn give_up_running(&mut self, key: &AppKey) {
        if let Some(running) = self.apps.get(key).and_then(|entry| entry.running.as_ref()) {
            running.cancel.cancel();
        }
    }

    /// Ends every deployment of an app that is not live yet: recorded first, so that one about to switch cannot.
    pub(super) async fn cancel_open(&mut self, key: &AppKey) -> std::result::Result<(), LedgerError> {
        let Some(entry) = self.apps.get_mut(key) else { return Ok(()) };
        let (open, at, app) = (entry.cancellable(), Timestamp::now(), key.clone());
        self.tools.ledger.write(move |ledger| open.iter().try_for_each(|id| cancel_in(ledger, &app, *id, at))).await?;
        if let Some(entry) = self.apps.get_mut(key) {
            entry.waiting = None;
            entry.left_open = entry.left_open.take().filter(|(_, deployment)| deployment.phase.is_live());
        }
        self.give_up_running(key);
        self.reload(key).await;
        Ok(())
    }

    /// Starts the waiting deployment of an app when none runs.
    pub(super) async fn start_waiting(&mut self, key: &AppKey) {
        let Some(entry) = self.apps.get(key).filter(|entry| entry.running.is_none()) else { return };
        let Some(waiting) = entry.waiting.clone() else { return };
        let app = key.clone();
        let loaded = self
            .tools
            .ledger
            .read(move |ledger| {
                let version = versions::one(ledger, &app, waiting.version)?;
                Ok(version.zip(deployments::one(ledger, waiting.id)?))
            })
            .await;
        match loaded {
            Ok(Some((version, deployment))) => {
                if self.is_held_up(key, &version).await {
                    return;
                }
                if let Some(entry) = self.apps.get_mut(key) {
                    entry.waiting = None;
                }
                self.spawn(key, version, &deployment);
            }
            Ok(None) => error!(app = %key, deployment = %waiting.id, "a waiting deployment is not in the ledger"),
            Err(error) => {
                error!(app = %key, %error, "a waiting deployment cannot be read; tried again later");
                self.retry_later(key);
            }
        }
    }

    pub(super) fn spawn(&mut self, key: &AppKey, version: VersionRecord, deployment: &deployments::DeploymentRecord) {
        let Some(entry) = self.apps.get_mut(key) else { return };
        let cancel = CancellationToken::new();
        entry.running = Some(Running {
            id: deployment.id,
            version: version.number,
            content: version.material.content.clone(),
            live: deployment.phase.is_live(),
            cancel: cancel.clone(),
        });
        let before = entry.live_spec.clone().filter(|spec| spec.version != version.number);
        let job = Job {
            id: deployment.id,
            version,
            before: before.map(|spec| (spec.version, spec)),
            from: deployment.phase,
            live_at: deployment.live_at,
        };
        let lock = AppLock { key: key.clone() };
        self.tasks.spawn(deployer::run(lock, job, self.tools.clone(), cancel));
    }

    /// Drives on what a controller before this one left open.
    pub(super) fn resume_open(&mut self) {
        let open: Vec<_> =
            self.apps.iter_mut().filter_map(|(key, entry)| Some((key.clone(), entry.left_open.take()?))).collect();
        for (key, (version, deployment)) in open {
            let Some(entry) = self.apps.get_mut(&key).filter(|entry| entry.running.is_none()) else { continue };
            if deployment.phase == Phase::Pending && depending::is_ordered(&version) && entry.waiting.is_none() {
                // It may have waited for its turn, and waits on.
                let content = version.material.content.clone();
                entry.waiting = Some(Waiting { id: deployment.id, version: version.number, content });
                self.undecided.insert(key);
                continue;
            }
            info!(app = %key, deployment = %deployment.id, phase = deployment.phase.as_str(), "an open deployment goes on");
            self.spawn(&key, version, &deployment);
            if self.apps.get(&key).is_some_and(|entry| entry.waiting.is_some()) {
                // It was superseded already when its controller died.
                self.give_up_running(&key);
            }
        }
    }

    pub(super) async fn on_ended(&mut self, ended: std::result::Result<Ended, tokio::task::JoinError>) {
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // A panic in a deployment is a bug; the app keeps its record and is driven on by the next controller.
                error!(%error, "a deployment ended without an answer; restart the agent to drive it on");
                return;
            }
        };
        // What it told before it ended comes first.
        while let Ok(change) = self.changes.try_recv() {
            self.on_change(change);
        }
        let key = ended.lock.key.clone();
        self.progress.remove(&ended.id);
        if let Some(entry) = self.apps.get_mut(&key) {
            entry.running = None;
        }
        if let Err(error) = self.record_end(&key, &ended).await {
            error!(app = %key, deployment = %ended.id, %error, "the end of a deployment cannot be recorded");
            self.leave_open(&key, ended.id).await;
            return;
        }
        self.tools.traces.deployment(ended.id);
        self.reload(&key).await;
        self.stop_again(&key).await;
        self.start_waiting(&key).await;
        self.undecided.insert(key.clone());
        self.leftovers.look_at(key.clone());
        self.tidying.ask_for(key);
    }

    pub(super) async fn record_end(&mut self, key: &AppKey, ended: &Ended) -> std::result::Result<(), LedgerError> {
        let Some((mut outcome, failure)) = deployer::outcome(&ended.verdict) else {
            if let Verdict::Interrupted(why) = &ended.verdict {
                warn!(app = %key, deployment = %ended.id, why, "a deployment was interrupted; it goes on later");
            }
            self.leave_open(key, ended.id).await;
            return Ok(());
        };
        match &ended.verdict {
            Verdict::BakeFailed(failure) => {
                warn!(app = %key, deployment = %ended.id, failure = failure.message, "the version fails in its bake window");
                if let Some(target) = commands::automatic_target(self, key).await? {
                    return commands::automatic_rollback(self, key, ended.id, target, failure).await;
                }
                // Nothing to go back to: the version stays live, and crashing is shown as such.
                outcome = DeploymentOutcome::Failed;
            }
            Verdict::Failed(failure) => {
                warn!(app = %key, deployment = %ended.id, phase = failure.phase.as_str(), failure = failure.message, "deployment failed; what was live before still is");
            }
            Verdict::Succeeded | Verdict::Cancelled | Verdict::Interrupted(_) => {}
        }
        let (app, at) = (key.clone(), Timestamp::now());
        let finished = Finished { id: ended.id, outcome, failure };
        self.tools.ledger.write(move |ledger| finished.record(ledger, &app, at)).await
    }

    /// Keeps a deployment for another try after a while: its record is open and its phase is known.
    pub(super) async fn leave_open(&mut self, key: &AppKey, id: DeploymentId) {
        let app = key.clone();
        let loaded = self
            .tools
            .ledger
            .read(move |ledger| {
                let Some(deployment) = deployments::one(ledger, id)? else { return Ok(None) };
                let version = versions::one(ledger, &app, deployment.version)?;
                Ok(version.zip(Some(deployment)))
            })
            .await;
        if let (Ok(Some((version, deployment))), Some(entry)) = (loaded, self.apps.get_mut(key))
            && deployment.outcome.is_none()
        {
            entry.left_open = Some((version, deployment));
        }
        self.retry_later(key);
    }

    /// Records and carries out a stop: deployments are cancelled, routes refuse, instances drain and end.
    pub(super) async fn stop(
        &mut self,
        key: &AppKey,
        actor: Actor,
        reason: Option<String>,
        content: Option<crate::domain::ContentId>,
    ) -> std::result::Result<(), LedgerError> {
        self.cancel_open(key).await?;
        let at = Timestamp::now();
        let stop = apps::StopRecord { content, reason: reason.clone(), actor: actor.clone(), at };
        let words = records::stop_words(&stop);
        let (app, event_words) = (key.clone(), words.clone());
        self.tools
            .ledger
            .write(move |ledger| {
                apps::set_stop(ledger, &app, &stop)?;
                apps::end_hold(ledger, &app)?;
                facts::event(ledger, &records::event(EventKind::Stopped, &app, None, at, event_words))?;
                facts::audit(ledger, &actor, "stop", Some(&app), &reason, at)
            })
            .await?;
        self.reload(key).await;
        let refusal = self.apps.get_mut(key).and_then(|entry| entry.live_spec.take()).map(|spec| (spec, words));
        // Draining takes as long as requests take; nobody waits for it here.
        self.tools.scheduler.live(key, None);
        self.tools.fleet.stop_app(key.clone(), refusal).await;
        self.leftovers.look_at(key.clone());
        Ok(())
    }

    /// A deployment that was past its switch when its app was stopped has made it live again in the fleet.
    pub(super) async fn stop_again(&mut self, key: &AppKey) {
        let Some(entry) = self.apps.get_mut(key) else { return };
        let stop = entry.recorded.app.stop.as_ref().filter(|_| entry.recorded.app.live.is_none());
        if let Some((stop, spec)) = stop.zip(entry.live_spec.clone()) {
            let words = records::stop_words(stop);
            entry.live_spec = None;
            self.tools.scheduler.live(key, None);
            self.tools.fleet.stop_app(key.clone(), Some((spec, words))).await;
        }
    }
}
