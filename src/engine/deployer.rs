//! Carries out one deployment. At most one per app: the reconciler makes the [`AppLock`] and passes it by value.
//!
//! ```text
//! preparing ─► building ─► starting ─► handover ─► switching ─► baking ─► done
//! ```
//!
//! Each phase is recorded before its action, and each action is idempotent, so a deployment found open after a
//! crash is simply run again from its recorded phase. Invariant: until the switch is recorded nothing of the
//! version before is touched, except objects that by their manifest must never run twice; those are brought
//! back when the deployment fails.

mod image;
mod project;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::failures::{StepFailure, Told, build_failure, never_ready, start_failure};
use super::fleet::{BuildEnd, Fleet, Progress};
use super::prepare::{Prepared, Workshop};
use super::scheduler::Scheduler;
use super::slots::Slots;
use super::spec::{Surroundings, VersionSpec};
use super::traces::Traces;
use super::vault::Vault;
use crate::decide::rollout::{self, Bake, Start};
use crate::domain::{
    AppKey, DeploymentId, DeploymentOutcome, Event, EventKind, ExitStatus, Failure, ObjectName, Phase, VersionNumber,
};
use crate::ledger::versions::VersionRecord;
use crate::ledger::{Ledger, LedgerError, deployments, facts};
use crate::runtime::{Runtime, StartError};
use crate::wire::supervisor::StartRequest;

/// A worker, or an object without a deadline of its own, must have started after this long.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How often the bake window is judged while nothing happens.
const BAKE_TICK: Duration = Duration::from_millis(500);

/// The right to deploy one app. Made only by the reconciler, one at a time for each app.
#[derive(Debug)]
pub(super) struct AppLock {
    pub(super) key: AppKey,
}

/// What one deployment is about.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub id: DeploymentId,
    pub version: VersionRecord,
    /// The version that was live when it began, with its manifest.
    pub before: Option<(VersionNumber, Arc<VersionSpec>)>,
    /// The phase it was left in by a controller that is gone.
    pub from: Phase,
    /// When the version became live, if it has.
    pub live_at: Option<Timestamp>,
}

/// What the deployer works with.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub ledger: Ledger,
    pub fleet: Fleet,
    pub workshop: Workshop,
    pub around: Arc<Surroundings>,
    pub slots: Slots,
    pub builds: Slots,
    pub changes: mpsc::Sender<Change>,
    /// Hears of what is live.
    pub scheduler: Scheduler,
    pub vault: Vault,
    /// Where instances live, and what finds their images.
    pub runtime: Runtime,
    /// Where it is told that deployments are over.
    pub traces: Traces,
    /// Apps without an image are refused.
    pub containers_only: bool,
}

/// What the deployer tells the reconciler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It has come this far.
    Entered { id: DeploymentId, phase: Phase },
    /// Its version is live.
    Live { key: AppKey, id: DeploymentId, spec: Arc<VersionSpec> },
    /// What it does now, in words.
    Progress { id: DeploymentId, words: String },
    /// Not from a deployment: something that this app's deployment waits for has changed.
    LookAgain { key: AppKey },
}

/// How a deployment ended, as the reconciler acts on it.
#[derive(Debug)]
pub(super) struct Ended {
    /// The right to deploy the app, handed back.
    pub lock: AppLock,
    pub id: DeploymentId,
    pub verdict: Verdict,
}

/// The end of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Live, and healthy as far as it was watched.
    Succeeded,
    /// Never live.
    Failed(Box<Failure>),
    /// Ended before the switch because something else is wanted.
    Cancelled,
    /// Live, and failing in its bake window; still live now.
    BakeFailed(Box<Failure>),
    /// The record could not be written; the deployment stays open and is driven on later.
    Interrupted(String),
}

/// Why a phase did not lead to the next.
pub(super) enum Stop {
    Failed(Box<Failure>),
    Cancelled,
    Ledger(LedgerError),
    /// The fleet's task is gone: the process is ending.
    Ending,
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Stop::Ledger(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(Box::new(failure))
    }
}

/// Runs a deployment to its end. `cancel` asks it to give up; after the switch that only ends the watching.
pub(super) async fn run(lock: AppLock, job: Job, tools: Tools, cancel: CancellationToken) -> Ended {
    let id = job.id;
    let run = Run { key: lock.key.clone(), job, tools, cancel };
    let verdict = match run.drive().await {
        Ok(Verdict::BakeFailed(failure)) => Verdict::BakeFailed(run.masked(failure).await),
        Ok(verdict) => verdict,
        Err(Stop::Failed(failure)) => Verdict::Failed(run.masked(failure).await),
        Err(Stop::Cancelled) => Verdict::Cancelled,
        Err(Stop::Ledger(error)) => Verdict::Interrupted(error.to_string()),
        Err(Stop::Ending) => Verdict::Interrupted("the agent is ending".to_owned()),
    };
    Ended { lock, id, verdict }
}

/// A deployment under way.
pub(super) struct Run {
    key: AppKey,
    pub(super) job: Job,
    pub(super) tools: Tools,
    cancel: CancellationToken,
}

/// A command that runs once for a version.
pub(super) struct Step {
    /// The object in whose log it writes.
    pub object: &'static str,
    /// Where it runs.
    pub directory: std::path::PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl Run {
    async fn drive(&self) -> Result<Verdict, Stop> {
        if self.job.from.is_live() {
            return self.resume_live().await;
        }
        match self.until_switched().await {
            Ok((spec, progress)) => self.after_the_switch(&spec, progress).await,
            Err(stop) => {
                self.undo().await;
                Err(stop)
            }
        }
    }

    /// Whether all its secrets are there, before anything is built or started for nothing.
    async fn has_secrets(&self) -> Result<(), Stop> {
        let version = &self.job.version;
        match self.tools.vault.give_to(&self.key, version.number, &version.material.manifest).await {
            Ok(_) => Ok(()),
            Err(why) => Err(super::failures::no_secret(&self.key, Phase::Preparing, &why).into()),
        }
    }

    /// A failure without values of secrets in it: what an app writes as it ends is shown, recorded and told to people.
    async fn masked(&self, mut failure: Box<Failure>) -> Box<Failure> {
        let version = &self.job.version;
        let Ok(given) = self.tools.vault.give(&self.key, version.number, &version.material.manifest).await else {
            return failure;
        };
        failure.message = given.mask(&failure.message);
        failure.last_probe = failure.last_probe.map(|answer| given.mask(&answer));
        failure.log_tail = failure.log_tail.iter().map(|line| given.mask(line)).collect();
        failure
    }

    async fn until_switched(&self) -> Result<(Arc<VersionSpec>, watch::Receiver<Progress>), Stop> {
        let spec = self.become_startable().await?;
        let late = match &self.job.before {
            Some((_, before)) => spec.late_objects(&before.manifest),
            None => BTreeSet::new(),
        };
        self.bring_up(&spec, &late).await?;
        self.lay(&spec).await?;
        let progress = self.switch(&spec).await?;
        Ok((spec, progress))
    }

    /// What is live is shown to those who read it, and watched.
    async fn after_the_switch(
        &self,
        spec: &Arc<VersionSpec>,
        progress: watch::Receiver<Progress>,
    ) -> Result<Verdict, Stop> {
        if let Some(failure) = self.show(spec).await? {
            if self.job.from < Phase::Baking {
                self.published().await?;
            }
            return Ok(Verdict::BakeFailed(Box::new(failure)));
        }
        let verdict = self.bake(progress).await?;
        self.tidy(spec).await;
        Ok(verdict)
    }

    /// After the switch only watching is left; the fleet was recovered from the record.
    async fn resume_live(&self) -> Result<Verdict, Stop> {
        let spec = self.become_startable().await?;
        let progress = self.tools.fleet.promote(Arc::clone(&spec)).await.ok_or(Stop::Ending)?;
        self.tell(Change::Live { key: self.key.clone(), id: self.job.id, spec: Arc::clone(&spec) }).await;
        self.after_the_switch(&spec, progress).await
    }

    /// Lays the version out on disk, built.
    async fn become_startable(&self) -> Result<Arc<VersionSpec>, Stop> {
        if !self.job.from.is_live() {
            self.enter(Phase::Preparing).await?;
            self.has_secrets().await?;
            self.may_run_here()?;
        }
        let material = &self.job.version.material;
        let prepared = {
            // Given back before the build and the image take theirs: nobody holds one slot and waits for another.
            let _slot = self.slot(&self.tools.slots).await?;
            self.tools.workshop.prepare(&self.key, material).await?
        };
        let directory = match prepared {
            Prepared::Published(directory) => directory,
            Prepared::ToBuild(preparation) => {
                if !self.job.from.is_live() {
                    self.enter(Phase::Building).await?;
                }
                self.build(preparation).await?
            }
        };
        let image = self.image(&directory).await?;
        let services = self.services(&directory).await?;
        Ok(Arc::new(VersionSpec {
            key: self.key.clone(),
            version: self.job.version.number,
            manifest: material.manifest.clone(),
            commit: material.commit.clone(),
            directory,
            image,
            services,
        }))
    }

    async fn build(&self, preparation: super::prepare::ToBuild) -> Result<std::path::PathBuf, Stop> {
        let _slot = self.slot(&self.tools.builds).await?;
        self.say("the build runs".to_owned()).await;
        let build =
            preparation.start(&self.key, self.job.version.number, &self.job.version.material, &self.tools.around);
        let limit = build.timeout.duration();
        let told = Told { logs: self.tools.workshop.logs_dir(), log: build.request.log.clone() };
        match self.once(build.request, limit).await? {
            Some(Ok(end)) if end.status == ExitStatus::Code(0) => Ok(preparation.publish().await?),
            Some(end) => Err(build_failure(end, &told).await.into()),
            None => Err(super::failures::build_timed_out(limit, &told).await.into()),
        }
    }

    /// Runs something to its end, for at most so long; `None` if it was ended then.
    async fn once(&self, request: StartRequest, limit: Duration) -> Result<Option<Result<BuildEnd, StartError>>, Stop> {
        let instance = request.instance.clone();
        let running = self.tools.fleet.build(request);
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return Ok(Some(ended.ok_or(Stop::Ending)?)),
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(limit) => {}
        }
        self.tools.fleet.stop_build(instance).await;
        // Waits until its processes are gone, so that nothing writes into a directory being removed.
        let _ = timeout_at(Instant::now() + START_DEADLINE, running).await;
        if self.cancel.is_cancelled() { Err(Stop::Cancelled) } else { Ok(None) }
    }

    /// Runs a step of a version; the inner error says how it failed.
    pub(super) async fn step(
        &self,
        spec: &VersionSpec,
        step: Step,
        limit: Duration,
    ) -> Result<Result<(), StepFailure>, Stop> {
        let request = super::prepare::once(spec, &self.tools.around, step);
        let told = Told { logs: self.tools.workshop.logs_dir(), log: request.log.clone() };
        match self.once(request, limit).await? {
            Some(Ok(end)) if end.status == ExitStatus::Code(0) => Ok(Ok(())),
            end => Ok(Err(super::failures::step_failure(end, limit, &told).await)),
        }
    }

    /// Starts all objects and waits until all are ready: first those that can run beside the version before,
    /// then, once it has made room, those that cannot.
    async fn bring_up(&self, spec: &Arc<VersionSpec>, late: &BTreeSet<ObjectName>) -> Result<(), Stop> {
        self.enter(Phase::Starting).await?;
        if let Some(conflict) = self.tools.fleet.host_conflict(Arc::clone(spec)).await {
            return Err(super::failures::host_conflict(&self.key, &conflict).into());
        }
        let all: BTreeSet<ObjectName> = spec.manifest.objects().map(|(name, _)| name.clone()).collect();
        let early: BTreeSet<ObjectName> = all.difference(late).cloned().collect();
        if !early.is_empty() {
            let slot = self.slot(&self.tools.slots).await?;
            let progress = self.tools.fleet.prepare(Arc::clone(spec), early.clone()).await.ok_or(Stop::Ending)?;
            // Waiting for health holds no slot.
            drop(slot);
            self.until_ready(spec, &early, progress, Phase::Starting).await?;
        }
        let Some((before, before_spec)) = self.job.before.as_ref().filter(|_| !late.is_empty()) else {
            return Ok(());
        };
        self.enter(Phase::Handover).await?;
        let leaving = spec.displaces(&before_spec.manifest);
        self.tools.fleet.park(self.key.clone(), *before, leaving).await.ok_or(Stop::Ending)?;
        let progress = self.tools.fleet.prepare(Arc::clone(spec), late.clone()).await.ok_or(Stop::Ending)?;
        self.until_ready(spec, late, progress, Phase::Handover).await
    }

    async fn until_ready(
        &self,
        spec: &VersionSpec,
        objects: &BTreeSet<ObjectName>,
        mut progress: watch::Receiver<Progress>,
        phase: Phase,
    ) -> Result<(), Stop> {
        let length = objects.iter().map(|object| deadline_of(spec, object)).max().unwrap_or(START_DEADLINE);
        let mut started = Instant::now();
        loop {
            let now = progress.borrow_and_update().clone();
            if now.in_line(objects) {
                // What waits behind other apps' starts has not begun: its time has not either.
                started = Instant::now();
            }
            let deadline = started + length;
            let seen = now.seen(objects);
            let counts: Vec<_> = seen.iter().map(|(_, seen)| seen.clone()).collect();
            match rollout::start(&counts) {
                Start::Ready => return Ok(()),
                Start::Failed(index) => {
                    let object = seen.get(index).map(|(name, _)| name.clone());
                    let logs = self.tools.workshop.logs_dir();
                    return Err(start_failure(&now, spec, object.as_ref(), phase, &logs).await.into());
                }
                Start::Waiting => {}
            }
            if Instant::now() >= deadline {
                let waited = started.elapsed();
                return Err(never_ready(&now, spec, objects, phase, waited, &self.tools.workshop.logs_dir())
                    .await
                    .into());
            }
            self.say(super::failures::describe(&now, objects)).await;
            tokio::select! {
                changed = timeout_at(deadline, progress.changed()) => {
                    if matches!(changed, Ok(Err(_))) {
                        return Err(Stop::Cancelled);
                    }
                }
                () = self.cancel.cancelled() => return Err(Stop::Cancelled),
            }
        }
    }

    /// Records the switch, then publishes it.
    async fn switch(&self, spec: &Arc<VersionSpec>) -> Result<watch::Receiver<Progress>, Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let (id, at) = (self.job.id, Timestamp::now());
        if !self.tools.ledger.write(move |ledger| deployments::switch(ledger, id, at)).await? {
            return Err(Stop::Cancelled);
        }
        let progress = self.tools.fleet.promote(Arc::clone(spec)).await.ok_or(Stop::Ending)?;
        info!(app = %self.key, version = %self.job.version.number, deployment = %id, "live");
        self.tell(Change::Live { key: self.key.clone(), id, spec: Arc::clone(spec) }).await;
        Ok(progress)
    }

    /// Records that the switch is published: from here on the version may be called live.
    async fn published(&self) -> Result<(), Stop> {
        let (id, at) = (self.job.id, Timestamp::now());
        let event = Event {
            at,
            kind: EventKind::DeploymentLive,
            app: Some(self.key.clone()),
            version: Some(self.job.version.number),
            source: None,
            object: None,
            cause: None,
            message: format!("{} {} is live", self.key.app, self.job.version.number),
        };
        let write = self.tools.ledger.write(move |ledger| {
            deployments::enter(ledger, id, Phase::Baking, at)?;
            facts::event(ledger, &event)
        });
        write.await?;
        self.tell(Change::Entered { id, phase: Phase::Baking }).await;
        Ok(())
    }

    /// Watches the live version for its bake window. Being asked to give up ends the watching early.
    async fn bake(&self, mut progress: watch::Receiver<Progress>) -> Result<Verdict, Stop> {
        if self.job.from < Phase::Baking {
            self.published().await?;
        }
        let window = self.job.version.material.manifest.bake.duration();
        // After a restart of the controller the window goes on from where it was.
        let already = self.job.live_at.map_or(Duration::ZERO, |at| {
            Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or(Duration::ZERO)
        });
        let started = Instant::now();
        loop {
            let seen = progress.borrow_and_update().clone();
            match rollout::bake(seen.bake(), already + started.elapsed(), window) {
                Bake::Passed => return Ok(Verdict::Succeeded),
                Bake::Failed => {
                    let failure = super::failures::bake_failure(&seen, window, &self.tools.workshop.logs_dir()).await;
                    return Ok(Verdict::BakeFailed(Box::new(failure)));
                }
                Bake::Watching => {}
            }
            // Past the window only what has just been started is waited for.
            let left = Some(window.saturating_sub(already + started.elapsed())).filter(|left| !left.is_zero());
            let left = left.unwrap_or(BAKE_TICK).min(BAKE_TICK);
            tokio::select! {
                changed = progress.changed() => {
                    if changed.is_err() {
                        return Ok(Verdict::Succeeded);
                    }
                }
                () = tokio::time::sleep(left) => {}
                () = self.cancel.cancelled() => return Ok(Verdict::Succeeded),
            }
        }
    }

    /// Leaves things as they were before the deployment, whichever controller began to change them.
    async fn undo(&self) {
        let gone = self.tools.fleet.discard(self.key.clone(), self.job.version.number).await;
        if let Some((before, _)) = self.job.before.as_ref().filter(|_| gone.is_some()) {
            self.tools.fleet.unpark(self.key.clone(), *before).await;
        }
    }

    async fn enter(&self, phase: Phase) -> Result<(), Stop> {
        if self.cancel.is_cancelled() && !phase.is_live() {
            return Err(Stop::Cancelled);
        }
        // One driven on keeps the phase it had reached: what that phase had begun to change is changed still.
        if phase > self.job.from {
            let (id, at) = (self.job.id, Timestamp::now());
            self.tools.ledger.write(move |ledger| deployments::enter(ledger, id, phase, at)).await?;
        }
        let id = self.job.id;
        self.tell(Change::Entered { id, phase }).await;
        Ok(())
    }

    async fn slot(&self, of: &Slots) -> Result<tokio::sync::OwnedSemaphorePermit, Stop> {
        tokio::select! {
            permit = of.take() => permit.map_err(|_| Stop::Ending),
            () = self.cancel.cancelled(), if !self.job.from.is_live() => Err(Stop::Cancelled),
        }
    }

    pub(super) async fn say(&self, words: String) {
        self.tell(Change::Progress { id: self.job.id, words }).await;
    }

    async fn tell(&self, change: Change) {
        if self.tools.changes.send(change).await.is_err() {
            warn!(deployment = %self.job.id, "nobody listens to this deployment any more");
        }
    }
}

fn deadline_of(spec: &VersionSpec, object: &ObjectName) -> Duration {
    spec.health(object).map_or(START_DEADLINE, |health| health.deadline.duration())
}

/// The outcome the ledger gets for a verdict.
pub(super) fn outcome(verdict: &Verdict) -> Option<(DeploymentOutcome, Option<Failure>)> {
    match verdict {
        Verdict::Succeeded => Some((DeploymentOutcome::Succeeded, None)),
        Verdict::Failed(failure) => Some((DeploymentOutcome::Failed, Some((**failure).clone()))),
        Verdict::Cancelled => Some((DeploymentOutcome::Cancelled, None)),
        Verdict::BakeFailed(failure) => Some((DeploymentOutcome::RolledBack, Some((**failure).clone()))),
        Verdict::Interrupted(_) => None,
    }
}
