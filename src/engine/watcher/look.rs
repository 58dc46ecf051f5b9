//! One look of a watcher: made off the workers, recorded, and told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{LookError, Problem, Subscription, Watcher, event};
use crate::domain::{CommitId, EventKind, Suspension, WaitReason};
use crate::engine::reconciler::Input;
use crate::engine::{hosts, observe, taking, vanishing};
use crate::ledger::{facts, sources, waits};
use crate::source::{Look, LookLimits, Reading, Refusal, SourceErrorKind};

/// Manifests of one look that the log names when they cannot be read.
const PROBLEMS_LOGGED: usize = 10;

/// What a look brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    News,
}

impl Watcher {
    /// One look, recorded, for all who asked before `began`. Never fails: what goes wrong becomes the source's state.
    pub(super) async fn look(&mut self, shutdown: &CancellationToken, began: Instant) {
        self.publish.send_modify(|state| state.looking = true);
        let first = self.publish.borrow().looked_at.is_none();
        let asked = first || !self.waiting.is_empty();
        let mut result = self.look_and_record(shutdown, false).await;
        if let Err(LookError::Damaged(what)) = &result {
            warn!(source = %self.config.name, what, "objects of the source are damaged; they are fetched anew");
            result = self.look_and_record(shutdown, true).await;
        }
        let problem = match result {
            Ok(found) => {
                let hinted = self.hints.over(found == Found::News);
                if found == Found::News && !asked && !hinted {
                    self.hints.missed = Some(Instant::now());
                    self.set_rhythm();
                }
                None
            }
            Err(LookError::Cancelled) => {
                self.publish.send_modify(|state| state.looking = false);
                return;
            }
            Err(error) => Some(error.into_problem()),
        };
        // Also after a failure: what has been tried is not urgent any more.
        self.hints.over(false);
        let back = problem.is_none() && self.failures > 0;
        self.failures = if problem.is_some() { self.failures.saturating_add(1) } else { 0 };
        self.tell(problem).await;
        self.set_retry();
        if back {
            // What could not be watched may be there again.
            self.watch_files().await;
        }
        self.answer(began);
    }

    async fn look_and_record(&mut self, shutdown: &CancellationToken, again: bool) -> Result<Found, LookError> {
        let host = self.remote.as_ref().map(Subscription::host);
        let turn = match &host {
            Some(host) => tokio::select! {
                turn = host.turn() => turn,
                () = shutdown.cancelled() => return Err(LookError::Cancelled),
            },
            None => None,
        };
        let cancel = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let limits = LookLimits { deadline: began + self.timeout(), cancel: Arc::clone(&cancel) };
        let shared = Arc::clone(&self.shared);
        let looking = tokio::task::spawn_blocking(move || shared.look(&limits, again));
        tokio::pin!(looking);
        let suspended = &mut self.suspended;
        let looked = tokio::select! {
            looked = &mut looking => looked,
            () = shutdown.cancelled() => {
                cancel.store(true, Ordering::Relaxed);
                looking.await
            }
            // What it finds is not wanted any more.
            () = suspended_now(suspended) => {
                cancel.store(true, Ordering::Relaxed);
                looking.await
            }
        };
        drop(turn);
        if shutdown.is_cancelled() || self.suspended.borrow().is_some() {
            return Err(LookError::Cancelled);
        }
        if let (Some(host), Ok(looked)) = (&host, &looked) {
            host.learn(began, hosts::verdict_of(looked));
        }
        let look = match looked {
            Ok(Ok(look)) => look,
            Ok(Err(error)) if error.kind == SourceErrorKind::Cancelled => return Err(LookError::Cancelled),
            Ok(Err(error)) => return Err(LookError::Source(error)),
            Err(error) => return Err(LookError::Failed(format!("looking at the source was interrupted: {error}"))),
        };
        let reading = match look {
            Look::Changed(reading) => reading,
            Look::Unchanged { .. } => return self.nothing_waits().await,
            Look::Diverged { last, commit } => return self.hold_back(last, commit).await,
            Look::Refused(refusal) => return self.refuse(refusal).await,
        };
        debug!(source = %self.config.name, manifests = reading.stats.manifests_read, trees = reading.stats.trees_read, "read");
        for note in &reading.notes {
            warn!(source = %self.config.name, "{}", note.message);
        }
        self.warn_of_problems(&reading);
        let recorded = observe::record(&self.tools, &self.config, &reading).await?;
        (self.held_back, self.refused) = (None, false);
        let apps = self.shared.recorded(&reading);
        self.show(&reading, &recorded, apps);
        let words = reading.seen.commit.as_ref().map(|commit| commit.short().to_owned());
        info!(
            source = %self.config.name,
            revision = words.unwrap_or_else(|| reading.seen.tree.short().to_owned()),
            changed = recorded.touched.len(),
            "new revision read"
        );
        let _ = self.tools.inputs.send(Input::Observed { touched: recorded.touched }).await;
        Ok(Found::News)
    }

    /// What cannot be read of the manifests: the place and the reason of the first ones. `landfall status` has it all.
    fn warn_of_problems(&self, reading: &Reading) {
        let problems = || reading.read.iter().filter_map(|app| app.result.as_ref().err());
        for problem in problems().take(PROBLEMS_LOGGED) {
            let first = problem.message.lines().next().unwrap_or_default();
            warn!(source = %self.config.name, "{first}; the app stays as it is");
        }
        let more = problems().count().saturating_sub(PROBLEMS_LOGGED);
        if more > 0 {
            warn!(source = %self.config.name, more, "more manifests cannot be read; `landfall status` shows them");
        }
    }

    /// The branch was rewritten, and that is not followed without approval: the revision waits.
    async fn hold_back(&mut self, last: CommitId, commit: CommitId) -> Result<Found, LookError> {
        if self.held_back.as_ref() == Some(&commit) {
            return Ok(Found::Nothing);
        }
        let (name, at, revision) = (self.config.name.clone(), Timestamp::now(), commit.to_string());
        let reason = WaitReason::ForcePush { last, commit: commit.clone() };
        warn!("{}", reason.words_for(&name));
        let recorded = self.tools.ledger.write(move |ledger| {
            if waits::set(ledger, &name, &reason, Some(&revision), at)? {
                vanishing::tell_waiting(ledger, &name, &reason, at)?;
            }
            Ok(())
        });
        recorded.await.map_err(|error| LookError::Failed(error.to_string()))?;
        self.held_back = Some(commit);
        Ok(Found::News)
    }

    /// The revision has no signature that counts: it waits, and what was read before stays in force.
    async fn refuse(&mut self, refusal: Refusal) -> Result<Found, LookError> {
        let (name, at, revision) = (self.config.name.clone(), Timestamp::now(), refusal.commit.to_string());
        let reason = WaitReason::Unverified { commit: refusal.commit, problem: refusal.problem };
        let words = reason.words_for(&name);
        let recorded = self.tools.ledger.write(move |ledger| {
            // A key that was added or taken away changes the problem, not the commit: that is worth telling as well.
            let news = waits::set(ledger, &name, &reason, Some(&revision), at)?;
            if news {
                vanishing::tell_waiting(ledger, &name, &reason, at)?;
            }
            Ok(news)
        });
        let news = recorded.await.map_err(|error| LookError::Failed(error.to_string()))?;
        self.refused = true;
        if !news {
            return Ok(Found::Nothing);
        }
        warn!("{words}");
        Ok(Found::News)
    }

    /// The source is where it was read last: a revision that waited is gone from it.
    pub(super) async fn nothing_waits(&mut self) -> Result<Found, LookError> {
        if self.held_back.is_none() && !self.refused {
            return Ok(Found::Nothing);
        }
        let (name, at) = (self.config.name.clone(), Timestamp::now());
        let recorded = self.tools.ledger.write(move |ledger| taking::end_waits_for_a_revision(ledger, &name, at));
        recorded.await.map_err(|error| LookError::Failed(error.to_string()))?;
        (self.held_back, self.refused) = (None, false);
        Ok(Found::Nothing)
    }

    fn show(&self, reading: &crate::source::Reading, recorded: &taking::Recorded, apps: u32) {
        let seen = &reading.seen;
        let revision = seen.commit.as_ref().map_or_else(|| seen.tree.to_string(), ToString::to_string);
        self.publish.send_modify(|state| {
            state.revision = Some(revision);
            state.read_at = Some(recorded.at);
            state.apps = apps;
        });
    }

    /// Publishes how the look ended, and records it when that is news.
    pub(super) async fn tell(&mut self, problem: Option<Problem>) {
        let before = self.publish.borrow().error.clone();
        self.publish.send_modify(|state| {
            state.looking = false;
            if problem.is_none() {
                state.looked_at = Some(Timestamp::now());
            }
            state.error = problem.clone();
        });
        if before == problem {
            return;
        }
        let name = self.config.name.clone();
        let (kind, message) = match &problem {
            Some(problem) => (EventKind::SourceFailing, problem.message.clone()),
            None => (EventKind::SourceRecovered, format!("source {name} can be read again")),
        };
        match &problem {
            Some(problem) => warn!("{}", problem.message),
            None => info!("{message}"),
        }
        // The same trouble in other words (a time, an address) is no news to people.
        let same_kind = before.as_ref().map(|before| &before.kind) == problem.as_ref().map(|problem| &problem.kind);
        let mut event = event(kind, &name, Timestamp::now(), message);
        event.cause = problem.as_ref().map(|problem| problem.kind.clone());
        let recorded = self.tools.ledger.write(move |ledger| {
            let error = problem.as_ref().map(|problem| (problem.kind.as_str(), problem.message.as_str()));
            sources::set_error(ledger, &name, error)?;
            if same_kind { Ok(()) } else { facts::event(ledger, &event) }
        });
        if let Err(error) = recorded.await {
            warn!(%error, "the state of a source cannot be recorded");
        }
    }
}

async fn suspended_now(suspended: &mut watch::Receiver<Option<Suspension>>) {
    if suspended.wait_for(Option::is_some).await.is_err() {
        std::future::pending().await
    }
}
