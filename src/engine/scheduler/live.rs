//! Which schedules there are: those of the live versions, whatever they were before.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tracing::{error, info};

use super::Wanted;
use super::entry::{self, Entry};
use super::recording;
use super::task::{MOST_AHEAD, Task};
use crate::decide::runs::{Decision, Rules};
use crate::domain::{AppKey, CallOutcome, FunctionKey, Scheduled};
use crate::ledger::schedules::{self, ScheduleId};

/// Schedules that are read and recorded in one transaction.
const BATCH: usize = 500;

/// A schedule that is to be planned.
struct Planned {
    function: FunctionKey,
    scheduled: Scheduled,
    rules: Rules,
}

impl Task {
    /// Takes up what is live and lays down what is not.
    pub(super) async fn begin(&mut self, live: Vec<(AppKey, Wanted)>) {
        let all = live.into_iter().flat_map(|(app, wanted)| {
            wanted.into_iter().map(move |(name, scheduled)| (FunctionKey::new(app.clone(), name), scheduled))
        });
        let all = all.collect();
        self.set_all(all).await;
        let records = match self.ledger.read(schedules::all).await {
            Ok(records) => records,
            Err(error) => {
                error!(%error, "schedules cannot be read");
                return;
            }
        };
        for record in records.into_iter().filter(|record| record.active) {
            if !self.entries.contains_key(&record.id) && !self.broken.contains_key(&record.function) {
                self.lay_down(&record.function, record.id).await;
            }
        }
    }

    /// This is live of these apps now.
    pub(super) async fn on_live(&mut self, apps: BTreeMap<AppKey, Wanted>) {
        let mut set = Vec::new();
        for (app, wanted) in apps {
            let known: Vec<_> = self.by_function.iter().filter(|(key, _)| key.app == app).collect();
            let gone = known.iter().filter(|(key, _)| !wanted.contains_key(&key.function));
            let gone: Vec<_> = gone.map(|(key, id)| ((*key).clone(), **id)).collect();
            self.broken.retain(|key, _| key.app != app);
            for (function, id) in gone {
                self.lay_down(&function, id).await;
            }
            let functions =
                wanted.into_iter().map(|(name, scheduled)| (FunctionKey::new(app.clone(), name), scheduled));
            set.extend(functions);
        }
        self.set_all(set).await;
    }

    /// These schedules are live, as they were or otherwise.
    async fn set_all(&mut self, schedules: Vec<(FunctionKey, Scheduled)>) {
        let mut planned = Vec::new();
        for (function, scheduled) in schedules {
            let known = self.by_function.get(&function).and_then(|id| self.entries.get(id));
            if known.is_some_and(|entry| entry.scheduled == scheduled) {
                continue;
            }
            match entry::rules(&function, &scheduled) {
                Ok(rules) => planned.push(Planned { function, scheduled, rules }),
                Err(problem) => self.cannot_plan(function, scheduled, problem),
            }
        }
        while !planned.is_empty() {
            let rest = planned.split_off(planned.len().min(BATCH));
            self.take_up(planned).await;
            planned = rest;
        }
    }

    async fn take_up(&mut self, planned: Vec<Planned>) {
        let now = self.clock.now();
        let keys: Vec<_> = planned
            .iter()
            .map(|plan| {
                let begins = now.checked_sub(plan.rules.offset).unwrap_or(now);
                (plan.function.clone(), plan.scheduled.when.to_string(), begins)
            })
            .collect();
        let recorded = self.ledger.write(move |ledger| {
            let mut found = Vec::with_capacity(keys.len());
            for (key, planned_by, begins) in keys {
                // An app that was removed meanwhile has no schedules any more.
                let Some(record) = schedules::activate(ledger, &key, &planned_by, begins)? else {
                    found.push(None);
                    continue;
                };
                let open = schedules::open(ledger, record.id)?;
                let ahead = schedules::instants_after(ledger, record.id, record.decided_at, MOST_AHEAD)?;
                found.push(Some((record, open, ahead)));
            }
            Ok(found)
        });
        let recorded = match recorded.await {
            Ok(recorded) => recorded,
            Err(problem) => {
                error!(error = %problem, "schedules cannot be recorded; they do not run");
                for plan in planned {
                    self.cannot_plan(plan.function, plan.scheduled, problem.to_string());
                }
                return;
            }
        };
        let mut ahead_of_the_clock = false;
        for (plan, found) in planned.into_iter().zip(recorded) {
            let Some((record, open, ahead)) = found else { continue };
            let Planned { function, scheduled, rules } = plan;
            info!(%function, when = %scheduled.when, "scheduled");
            let runs = entry::runs(record.decided_at, record.pause.as_ref(), &open, ahead);
            ahead_of_the_clock |= runs.is_ahead_of(&rules, now);
            // What waits may start at once if its schedule lets more run now.
            let wakes = if open.waiting.is_empty() { runs.wakes_at(&rules) } else { Some(now) };
            self.agenda.set(record.id, wakes);
            self.by_function.insert(function.clone(), record.id);
            let entry = Entry { id: record.id, function, scheduled, rules, runs, calls: open.running };
            self.entries.insert(record.id, entry);
        }
        if ahead_of_the_clock {
            self.on_step_back(now).await;
        }
    }

    fn cannot_plan(&mut self, function: FunctionKey, scheduled: Scheduled, problem: String) {
        error!(%function, "its schedule does not run: {problem}");
        if let Some(id) = self.by_function.remove(&function) {
            self.entries.remove(&id);
            self.agenda.set(id, None);
        }
        self.broken.insert(function, (scheduled, problem));
    }

    /// A schedule is not live any more. What runs, ends by itself; what waits, does not start.
    async fn lay_down(&mut self, function: &FunctionKey, id: ScheduleId) {
        let now = self.clock.now();
        self.by_function.remove(function);
        self.agenda.set(id, None);
        let decisions = self.entries.remove(&id).map(|mut entry| entry.runs.removed()).unwrap_or_default();
        let mut given_up: BTreeSet<Timestamp> = decisions
            .into_iter()
            .filter_map(|decision| if let Decision::GiveUp { at } = decision { Some(at) } else { None })
            .collect();
        let key = function.clone();
        let done = self.ledger.write(move |ledger| {
            given_up.extend(schedules::open(ledger, id)?.waiting);
            for at in &given_up {
                schedules::give_up(ledger, id, *at, CallOutcome::Cancelled, now)?;
            }
            recording::record_removal(ledger, &key, id, now)
        });
        match done.await {
            Ok(()) => info!(%function, "no longer scheduled"),
            Err(error) => error!(%function, %error, "that it is no longer scheduled cannot be recorded"),
        }
    }
}
