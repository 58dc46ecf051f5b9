//! Which runs of a schedule start, wait, are skipped or were missed.
//!
//! ```text
//!             ┌────────── due, nothing in the way ──────────► running ──ended──► (the next that waits)
//! instant ────┤ due while one runs: skip | queue | replace ─► skipped | waiting | waiting + cancel the running
//!             └────────── passed unseen, too late now ──────► missed, one record for a whole gap
//! ```
//!
//! Owner of the state: the engine's scheduler, one [`Runs`] per schedule. It records each [`Decision`] before it acts
//! on it. Neighbours: `due` says when instants come, `gap` finds those that passed.
//!
//! Invariants: every instant after the schedule came into being, and outside its pauses, gets exactly one decision
//! of start, wait, skip or missed, whatever the clock does; of the instants that pass at once, only the latest can
//! start. [`Runs::decided`] is what a restart needs: instants up to there are decided, those after it are not, but
//! for the few that were recorded before the clock went back.

mod agenda;
mod gap;
mod streak;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::due::Due;
use crate::domain::AppKey;
use crate::domain::scheduled::Overlap;

pub use agenda::Agenda;
pub use gap::{Gap, MOST_COUNTED};
pub use streak::{News, Streak};

/// A run that starts at most so late is on time: restarts and a busy machine cost no run.
pub const ON_TIME: SignedDuration = SignedDuration::from_secs(10);
/// When the clock stands this far before what is decided, it has gone back; less than that is waited out.
pub const WENT_BACK: SignedDuration = SignedDuration::from_secs(60);
/// Most runs of one schedule that wait for the one before them; more are skipped.
pub const MOST_WAITING: usize = 100;
/// Most runs of one schedule under way at once, where they may overlap; more are skipped.
pub const MOST_RUNNING: usize = 1000;

/// How a schedule's runs are started, from the live version.
#[derive(Debug, Clone)]
pub struct Rules {
    /// When.
    pub due: Due,
    /// What happens when one is due while another runs.
    pub overlap: Overlap,
    /// How late the latest missed run may still start.
    pub catch_up: SignedDuration,
    /// How much later than its instant each run starts: [`offset`].
    pub offset: SignedDuration,
}

/// How much later a schedule with this jitter starts its runs: the same each time and on every machine, so that it
/// neither drifts nor moves with a restart.
#[must_use]
pub fn offset(app: &AppKey, function: &str, jitter: Duration) -> SignedDuration {
    use sha2::{Digest, Sha256};
    let Ok(most) = u64::try_from(jitter.as_millis()) else { return SignedDuration::ZERO };
    if most == 0 {
        return SignedDuration::ZERO;
    }
    let hash = Sha256::digest(format!("{app} {function}"));
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    SignedDuration::from_millis(i64::try_from(number % most).unwrap_or(0))
}

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// It ends by itself then.
    pub until: Option<Timestamp>,
}

/// What is to be recorded, then done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start the run of this instant.
    Start {
        /// Its instant.
        at: Timestamp,
        /// Why only now.
        cause: Cause,
    },
    /// The run of this instant waits until none is under way.
    Wait {
        /// Its instant.
        at: Timestamp,
    },
    /// The run of this instant does not start, because another one is under way.
    Skip {
        /// Its instant.
        at: Timestamp,
    },
    /// A run that was waiting does not start any more.
    GiveUp {
        /// Its instant.
        at: Timestamp,
    },
    /// The run under way makes room.
    Cancel {
        /// Its instant.
        at: Timestamp,
    },
    /// The time of these passed while nothing could start them.
    Missed(Gap),
    /// The pause has ended by itself.
    Resumed,
}

/// Why a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its time has come.
    OnTime,
    /// It was missed and is caught up with.
    CatchUp,
    /// It waited for the one before it.
    Waited,
    /// Somebody asked for it.
    Asked,
}

/// One schedule's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    decided: Timestamp,
    pause: Option<Pause>,
    running: BTreeSet<Timestamp>,
    /// Those of `running` that were told to make room.
    leaving: BTreeSet<Timestamp>,
    waiting: BTreeSet<Timestamp>,
    /// Instants after `decided` that are recorded already, because the clock went back.
    ahead: BTreeSet<Timestamp>,
}

impl Runs {
    /// The state of a schedule of which everything up to `decided` is decided.
    pub fn new(decided: Timestamp) -> Self {
        let none = BTreeSet::new;
        Self { decided, pause: None, running: none(), leaving: none(), waiting: none(), ahead: none() }
    }

    /// The state as a restart finds it in the record. `ahead` are instants after `decided` that are recorded.
    pub fn recorded(
        decided: Timestamp,
        pause: Option<Pause>,
        running: BTreeSet<Timestamp>,
        waiting: BTreeSet<Timestamp>,
        ahead: BTreeSet<Timestamp>,
    ) -> Self {
        Self { pause, running, waiting, ahead, ..Self::new(decided) }
    }

    /// Everything up to here is decided.
    pub fn decided(&self) -> Timestamp {
        self.decided
    }

    /// The instants of the runs under way.
    pub fn running(&self) -> impl Iterator<Item = Timestamp> {
        self.running.iter().copied()
    }

    /// The instants of the runs that wait for one under way.
    pub fn waiting(&self) -> impl Iterator<Item = Timestamp> {
        self.waiting.iter().copied()
    }

    /// The pause it is in.
    pub fn pause(&self) -> Option<Pause> {
        self.pause
    }

    /// When there is something to decide by the clock, at the earliest.
    pub fn wakes_at(&self, rules: &Rules) -> Option<Timestamp> {
        match self.pause {
            Some(pause) => pause.until,
            None => rules.due.next(self.decided)?.checked_add(rules.offset).ok(),
        }
    }

    /// The clock says `now`.
    #[must_use]
    pub fn tick(&mut self, rules: &Rules, now: Timestamp) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if let Some(until) = self.pause.and_then(|pause| pause.until).filter(|until| *until <= now) {
            self.end_pause(rules, until);
            decisions.push(Decision::Resumed);
        }
        if self.pause.is_none() {
            self.pass_to(rules, shifted(now, rules.offset), &mut decisions);
            self.start_waiting(rules, &mut decisions);
        }
        decisions
    }

    /// Decides every instant up to `clock`, which is the present moment less the schedule's offset.
    fn pass_to(&mut self, rules: &Rules, clock: Timestamp, decisions: &mut Vec<Decision>) {
        // What is recorded already cuts the time into pieces. What lies before such an instant is past starting:
        // a later one was.
        while let Some(known) = self.ahead.first().copied().filter(|known| *known <= clock) {
            let before = shifted(known, SignedDuration::from_micros(1));
            decisions.extend(gap::between(&rules.due, self.decided, before).map(Decision::Missed));
            self.decided = self.decided.max(known);
            self.ahead.pop_first();
        }
        let Some(latest) = gap::latest(&rules.due, self.decided, clock) else { return };
        let late = clock.duration_since(latest);
        if late > ON_TIME.max(rules.catch_up) {
            decisions.extend(gap::between(&rules.due, self.decided, latest).map(Decision::Missed));
            self.decided = latest;
            return;
        }
        let before = shifted(latest, SignedDuration::from_micros(1));
        decisions.extend(gap::between(&rules.due, self.decided, before).map(Decision::Missed));
        self.decided = latest;
        self.begin(rules, latest, if late > ON_TIME { Cause::CatchUp } else { Cause::OnTime }, decisions);
    }

    /// A run wants to start.
    fn begin(&mut self, rules: &Rules, at: Timestamp, cause: Cause, decisions: &mut Vec<Decision>) {
        let free = self.running.is_empty() && self.waiting.is_empty();
        match rules.overlap {
            Overlap::Allow if self.running.len() >= MOST_RUNNING => decisions.push(Decision::Skip { at }),
            Overlap::Allow => self.start(at, cause, decisions),
            Overlap::Skip | Overlap::Queue | Overlap::Replace if free => self.start(at, cause, decisions),
            Overlap::Skip => decisions.push(Decision::Skip { at }),
            Overlap::Queue if self.waiting.len() >= MOST_WAITING => decisions.push(Decision::Skip { at }),
            Overlap::Queue => self.wait(at, decisions),
            Overlap::Replace => {
                decisions.extend(std::mem::take(&mut self.waiting).into_iter().map(|at| Decision::GiveUp { at }));
                self.wait(at, decisions);
                // Recorded after what takes its place: a crash between the two must not leave neither.
                let leaving: Vec<_> = self.running.difference(&self.leaving).copied().collect();
                decisions.extend(leaving.iter().map(|at| Decision::Cancel { at: *at }));
                self.leaving.extend(leaving);
            }
        }
    }

    fn start(&mut self, at: Timestamp, cause: Cause, decisions: &mut Vec<Decision>) {
        self.running.insert(at);
        decisions.push(Decision::Start { at, cause });
    }

    fn wait(&mut self, at: Timestamp, decisions: &mut Vec<Decision>) {
        self.waiting.insert(at);
        decisions.push(Decision::Wait { at });
    }

    /// Starts what waits, as far as it may.
    fn start_waiting(&mut self, rules: &Rules, decisions: &mut Vec<Decision>) {
        while self.pause.is_none() && (self.running.is_empty() || rules.overlap == Overlap::Allow) {
            let Some(at) = self.waiting.pop_first() else { return };
            self.start(at, Cause::Waited, decisions);
        }
    }

    /// The run of an instant has ended, one way or another.
    #[must_use]
    pub fn ended(&mut self, rules: &Rules, at: Timestamp) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.leaving.remove(&at);
        if self.running.remove(&at) {
            self.start_waiting(rules, &mut decisions);
        }
        decisions
    }

    /// Somebody wants a run now; `at` is the moment. Pauses do not matter, what runs does.
    ///
    /// # Errors
    /// Since when the run is under way that is in its way.
    pub fn ask(&mut self, rules: &Rules, at: Timestamp) -> Result<Vec<Decision>, Timestamp> {
        let under_way = self.running.first().or(self.waiting.first()).copied();
        match (rules.overlap, under_way) {
            (Overlap::Skip | Overlap::Queue, Some(since)) => Err(since),
            (Overlap::Skip | Overlap::Queue | Overlap::Replace | Overlap::Allow, _) => {
                let mut decisions = Vec::new();
                self.begin(rules, at, Cause::Asked, &mut decisions);
                Ok(decisions)
            }
        }
    }

    /// Nothing starts from now on, until then or until it is resumed. Runs under way go on.
    pub fn pause_now(&mut self, until: Option<Timestamp>) {
        self.pause = Some(Pause { until });
    }

    /// The pause ends. Instants within it are not made up for.
    #[must_use]
    pub fn resume(&mut self, rules: &Rules, now: Timestamp) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if self.pause.is_some() {
            self.end_pause(rules, now);
            self.start_waiting(rules, &mut decisions);
        }
        decisions
    }

    fn end_pause(&mut self, rules: &Rules, at: Timestamp) {
        self.pause = None;
        self.decided = self.decided.max(shifted(at, rules.offset));
    }

    /// The schedule itself is another one from now on: what lies before this moment was never its own.
    pub fn changed(&mut self, rules: &Rules, now: Timestamp) {
        self.decided = self.decided.max(shifted(now, rules.offset));
    }

    /// The schedule is gone. What runs, goes on to its end.
    #[must_use]
    pub fn removed(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.waiting).into_iter().map(|at| Decision::GiveUp { at }).collect()
    }

    /// Whether the clock has gone back behind what is decided, by more than can be waited out. Then what is recorded
    /// of later instants is to be given to [`Runs::went_back`], and gaps that reach beyond `clock` are to end there.
    pub fn is_ahead_of(&self, rules: &Rules, now: Timestamp) -> bool {
        self.decided.duration_since(shifted(now, rules.offset)) > WENT_BACK
    }

    /// Goes back with the clock. `ahead` are the instants after the present moment that are recorded one by one:
    /// they have had their run.
    pub fn went_back(&mut self, rules: &Rules, now: Timestamp, ahead: BTreeSet<Timestamp>) {
        self.decided = shifted(now, rules.offset);
        self.ahead = ahead;
        self.ahead.retain(|at| *at > self.decided);
    }
}

/// Earlier by this much.
fn shifted(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
