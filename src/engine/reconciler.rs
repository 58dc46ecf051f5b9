//! The owner of all apps' live state: turns what is observed and commanded into recorded steps and deployments.
//!
//! One task; others reach it by events on a bounded queue. Neighbours: `watcher` brings readings, the API brings
//! commands, `deployer` reports phases and ends, `fleet` reports crashes. After every event the apps it touched
//! are decided anew (`decide::reconcile`), the answer is recorded, and only then acted on.
//!
//! Invariant: at most one deployment runs per app (it holds the app's [`AppLock`]) and at most one waits; a newer
//! one supersedes the waiting one and cancels the running one unless that is already live.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::depending::Depending;
use super::deployer::{Change, Ended, Tools};
use super::fleet::Notice;
use super::leftovers::{self, Leftovers};
use super::recording::Extra;
use super::records::{self, AppEntry};
use super::{Caller, CommandError, Result, commands, housekeeping};
use crate::decide::reconcile::{self, Step, Wanted};
use crate::domain::{AppKey, DeploymentId, Event, EventKind, Phase, SourceName, TreeId, VersionKind, VersionNumber};
use crate::ledger::apps::Material;
use crate::ledger::versions::NewVersion;
use crate::ledger::{LedgerError, Result as LedgerResult, facts};
use crate::wire::api;

/// Events that may wait.
pub(super) const QUEUE: usize = 1024;
/// How often things that are due by the clock are looked for: ends of holds and suspensions, retention.
const TICK: Duration = Duration::from_secs(1);
/// A deployment whose record could not be written is tried again after this.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(5);

/// What reaches the reconciler.
#[derive(Debug)]
pub(super) enum Input {
    /// A source was read and recorded; these apps may have changed.
    Observed { touched: BTreeSet<AppKey> },
    /// A command, answered when it is recorded.
    Command { caller: Caller, key: AppKey, command: Command, reply: oneshot::Sender<Result<api::Accepted>> },
    /// From the fleet.
    Notice(Notice),
    /// Answered when everything that came before it has been decided.
    Settled { reply: oneshot::Sender<()> },
    /// What the API needs to know of live state.
    Live { reply: oneshot::Sender<LiveView> },
}

/// What people command about an app.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Rollback(api::RollbackRequest),
    Release(api::ReleaseRequest),
    Rollover(api::ReasonRequest),
    Suspend(api::SuspendRequest),
    Resume,
    Stop(api::ReasonRequest),
    Upload { material: Box<Material>, reason: Option<String> },
}

/// Live state as the API shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveView {
    /// What each open deployment does now, in words.
    pub progress: HashMap<DeploymentId, String>,
    /// Apps with an open deployment.
    pub deploying: BTreeSet<AppKey>,
    /// What is wrong with `depends_on` of apps, with the source that says so.
    pub faults: BTreeMap<AppKey, (Option<SourceName>, String)>,
}

/// Everything the task owns.
pub(super) struct Reconciler {
    pub(super) tools: Tools,
    pub(super) settings: Arc<ArcSwap<records::Settings>>,
    pub(super) apps: BTreeMap<AppKey, AppEntry>,
    pub(super) stamp: watch::Sender<u64>,
    /// The same, but for what does not change what is live, stopped or recorded.
    versions: watch::Sender<u64>,
    pub(super) tasks: JoinSet<Ended>,
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) progress: HashMap<DeploymentId, String>,
    pub(super) retries: Vec<(tokio::time::Instant, AppKey)>,
    /// Apps to decide anew; taken one by one, so that a revision that touches thousands holds nobody up.
    pub(super) undecided: BTreeSet<AppKey>,
    /// Answered when nothing is undecided any more.
    settled: Vec<oneshot::Sender<()>>,
    /// Trees of new versions that are not pinned yet; the store keeps fresh ones for an hour by itself.
    pub(super) to_pin: Vec<(AppKey, VersionNumber, TreeId)>,
    pub(super) tidying: housekeeping::Tidying,
    pub(super) leftovers: Leftovers,
    pub(super) depending: Depending,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Told to.
    Shutdown,
    /// The supervisor is gone.
    SupervisorLost,
}

impl Reconciler {
    pub(super) fn new(
        tools: Tools,
        settings: Arc<ArcSwap<records::Settings>>,
        changes: mpsc::Receiver<Change>,
        apps: BTreeMap<AppKey, AppEntry>,
        (stamp, versions): (watch::Sender<u64>, watch::Sender<u64>),
    ) -> Self {
        let tidying = housekeeping::Tidying::default();
        let leftovers = Leftovers::of(&apps);
        let depending = Depending::of(&apps);
        Self {
            tools,
            settings,
            apps,
            stamp,
            versions,
            tasks: JoinSet::new(),
            changes,
            progress: HashMap::new(),
            retries: Vec::new(),
            undecided: BTreeSet::new(),
            settled: Vec::new(),
            to_pin: Vec::new(),
            tidying,
            leftovers,
            depending,
        }
    }

    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, shutdown: CancellationToken) -> End {
        self.undecided = self.apps.keys().cloned().collect();
        self.resume_open();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break End::Shutdown,
                Some(change) = self.changes.recv() => self.on_change(change),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.on_ended(ended).await,
                input = inputs.recv() => match input {
                    Some(Input::Notice(Notice::SupervisorLost)) => break End::SupervisorLost,
                    Some(input) => self.on_input(input).await,
                    None => break End::Shutdown,
                },
                _ = tick.tick() => self.on_tick().await,
                // Last, so that commands and ends of deployments never wait behind a large revision.
                () = std::future::ready(()), if !self.undecided.is_empty() => self.decide_next().await,
            }
        };
        // Open deployments stay open in the record; the next controller drives them on. Nothing is undone.
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        end
    }

    async fn on_input(&mut self, input: Input) {
        match input {
            Input::Observed { touched } => {
                self.reload_all(&touched).await;
                self.undecided.extend(touched);
            }
            Input::Command { caller, key, command, reply } => {
                let answer = commands::carry_out(self, caller, &key, command).await;
                self.changed();
                // The caller may have gone; what is recorded stands.
                let _ = reply.send(answer);
                self.undecided.insert(key);
            }
            Input::Notice(notice) => self.on_notice(notice).await,
            Input::Settled { reply } => {
                self.settled.push(reply);
                self.answer_settled();
            }
            Input::Live { reply } => {
                let _ = reply.send(self.live_view());
                // A question changes nothing: whoever follows changes by asking must not wake up by it.
                return;
            }
        }
        self.changed();
    }

    fn live_view(&self) -> LiveView {
        let mut progress = self.progress.clone();
        let waiting = self.apps.values().filter_map(|app| Some((app.waiting.as_ref()?.id, app.held_up.as_ref()?)));
        progress.extend(waiting.map(|(id, held_up)| (id, held_up.words.clone())));
        LiveView {
            progress,
            faults: self.depending.told(),
            deploying: self
                .apps
                .iter()
                .filter(|(_, app)| app.before_its_switch().is_some())
                .map(|(key, _)| key.clone())
                .collect(),
        }
    }

    /// Tells those who follow that something has changed.
    pub(super) fn changed(&self) {
        self.stamp.send_modify(|stamp| *stamp += 1);
        self.versions.send_modify(|stamp| *stamp += 1);
    }

    /// Tells those who follow that a deployment has come further.
    fn progressed(&self) {
        self.stamp.send_modify(|stamp| *stamp += 1);
    }

    /// Reads an app's record anew.
    pub(super) async fn reload(&mut self, key: &AppKey) {
        let wanted = key.clone();
        match self.tools.ledger.read(move |ledger| records::load_one(ledger, &wanted)).await {
            Ok(record) => self.take_over(key.clone(), record),
            Err(error) => error!(app = %key, %error, "an app's record cannot be read; it stays as it was"),
        }
    }

    /// Reads the records of apps that a revision touched anew: in one go, there may be thousands.
    async fn reload_all(&mut self, keys: &BTreeSet<AppKey>) {
        let wanted = keys.clone();
        let read = self.tools.ledger.read(move |ledger| {
            wanted.into_iter().map(|key| Ok((records::load_one(ledger, &key)?, key))).collect::<LedgerResult<Vec<_>>>()
        });
        match read.await {
            Ok(records) => {
                for (record, key) in records {
                    self.take_over(key, record);
                }
            }
            Err(error) => {
                error!(%error, "the records of a new revision cannot be read; tried again later");
                keys.iter().for_each(|key| self.retry_later(key));
            }
        }
    }

    fn answer_settled(&mut self) {
        if self.undecided.is_empty() {
            for reply in self.settled.drain(..) {
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
        }
    }

    /// Decides one app until it has come to rest.
    async fn decide_next(&mut self) {
        let Some(key) = self.undecided.pop_first() else { return };
        // Each step moves the app towards rest; the bound only guards against a mistake in the rules.
        for _ in 0..4 {
            match self.decide(&key).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    error!(app = %key, %error, "a decision cannot be recorded; it is made again later");
                    self.retry_later(&key);
                    break;
                }
            }
        }
        self.look_again(&key).await;
        if self.undecided.is_empty() {
            self.pin_in_background();
        }
        self.answer_settled();
        self.changed();
    }

    /// Protects the trees of new versions from clean-up, many with one wait for the disk.
    fn pin_in_background(&mut self) {
        let pins = std::mem::take(&mut self.to_pin);
        if pins.is_empty() {
            return;
        }
        let workshop = self.tools.workshop.clone();
        tokio::spawn(async move {
            if let Err(error) = workshop.blocking(move |store| store.pin_all(pins)).await {
                warn!(%error, "trees of new versions could not be pinned; they are at the next start");
            }
        });
    }

    fn take_over(&mut self, key: AppKey, record: Option<records::AppFacts>) {
        let was_known = self.is_known(&key);
        match (record, self.apps.get_mut(&key)) {
            (Some(record), Some(entry)) => entry.recorded = record,
            (Some(record), None) => {
                self.apps.insert(key.clone(), AppEntry::new(record));
            }
            (None, _) => {
                self.apps.remove(&key);
            }
        }
        self.needs_may_have_changed(&key, was_known);
    }

    pub(super) fn retry_later(&mut self, key: &AppKey) {
        self.retries.push((tokio::time::Instant::now() + INTERRUPTED_WAIT, key.clone()));
    }

    /// One step for one app; `true` when it should be asked again.
    pub(super) async fn decide(&mut self, key: &AppKey) -> std::result::Result<bool, LedgerError> {
        let at_fault = self.judge_needs(key).await?;
        let Some(entry) = self.apps.get_mut(key) else { return Ok(false) };
        let now = Timestamp::now();
        let wanted = if at_fault { Wanted::Unknown } else { entry.wanted() };
        let step = reconcile::step(&wanted, &entry.as_recorded(), now);
        if !matches!(step, Step::Wait(_)) {
            // Once it has moved on, the same reason is news again.
            entry.said = None;
        }
        match step {
            Step::Nothing => Ok(false),
            Step::Wait(why) => {
                self.say_why(key, why, now).await?;
                Ok(false)
            }
            Step::Deploy { ends_hold, .. } => {
                let Some(material) = entry.recorded.app.material.clone() else { return Ok(false) };
                let actor = entry.source_actor();
                let new = NewVersion { kind: VersionKind::Deploy, material, actor, reason: None };
                self.append(key, new, Extra { ends_hold, ..Extra::default() }).await?;
                Ok(true)
            }
            Step::EndHold(end) => {
                self.end_hold(key, end, now).await?;
                Ok(true)
            }
            Step::EndSuspension => {
                self.end_suspension(key, now).await?;
                Ok(true)
            }
            Step::CancelOpen => {
                info!(app = %key, "git went back to what is live; the open deployment is cancelled");
                self.cancel_open(key).await?;
                // Asked again when the cancelled deployment has ended.
                Ok(false)
            }
            Step::Prune => {
                info!(app = %key, "gone from its source; stopped");
                let actor = entry.source_actor();
                self.stop(key, actor, Some("its manifest is gone from the source".into()), None).await?;
                Ok(false)
            }
        }
    }

    pub(super) fn on_change(&mut self, change: Change) {
        match change {
            Change::Entered { id, phase } => {
                // From here on the version may be called live.
                if phase != Phase::Baking {
                    return self.progressed();
                }
                self.progress.remove(&id);
            }
            Change::Live { key, id, spec } => {
                self.tools.scheduler.live(&key, Some(&spec.manifest));
                if let Some(entry) = self.apps.get_mut(&key) {
                    entry.became_live(id, spec);
                }
                self.wake_dependants(&key);
            }
            Change::LookAgain { key } => {
                self.undecided.insert(key);
            }
            Change::Progress { id, words } => {
                self.progress.insert(id, words);
                return self.progressed();
            }
        }
        self.changed();
    }

    async fn on_tick(&mut self) {
        let now = tokio::time::Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = self.retries.drain(..).partition(|(at, _)| *at <= now);
        self.retries = later;
        if !due.is_empty() {
            self.resume_open();
        }
        let clock = Timestamp::now();
        let mut keys: BTreeSet<AppKey> = due.into_iter().map(|(_, key)| key).collect();
        keys.extend(self.apps.iter().filter(|(_, app)| app.is_due(clock)).map(|(key, _)| key.clone()));
        for key in &keys {
            self.start_waiting(key).await;
        }
        self.undecided.extend(keys);
        housekeeping::on_tick(self, clock).await;
        leftovers::on_tick(self).await;
    }

    async fn on_notice(&mut self, notice: Notice) {
        let at = Timestamp::now();
        let event = match notice {
            Notice::Crashing { key, version, message } => {
                warn!(app = %key, version = %version, "crashing: {message}");
                records::event(EventKind::AppCrashing, &key, Some(version), at, message)
            }
            Notice::Recovered { key, version } => {
                info!(app = %key, version = %version, "no longer crashing");
                let message = format!("{} {version} is healthy again", key.app);
                records::event(EventKind::AppRecovered, &key, Some(version), at, message)
            }
            Notice::Drifted { key, version, message } => {
                warn!(app = %key, version = %version, "changed by hand: {message}");
                records::event(EventKind::AppDrifted, &key, Some(version), at, message)
            }
            Notice::Reload | Notice::Shutdown | Notice::SupervisorLost => return,
        };
        if let Err(error) = self.tools.ledger.write(move |ledger| facts::event(ledger, &event)).await {
            error!(%error, "an event cannot be recorded");
        }
    }

    /// Records an event by itself.
    pub(super) async fn note(&self, event: Event) -> std::result::Result<(), LedgerError> {
        self.tools.ledger.write(move |ledger| facts::event(ledger, &event)).await
    }
}

/// An error of the ledger as a command's answer.
pub(super) fn internal(error: LedgerError) -> CommandError {
    match error {
        LedgerError::Full { .. } => CommandError::Unavailable {
            what: error.to_string(),
            mend: "free space on that disk, then say it again; `retention` in the configuration says what is kept"
                .into(),
        },
        other => CommandError::Internal { what: other.to_string() },
    }
}
