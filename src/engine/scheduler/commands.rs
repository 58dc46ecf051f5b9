//! What people command: a run now, a pause, its end; and what they see.

use jiff::Timestamp;

use super::task::{Change, Task};
use super::{Asked, Command, View};
use crate::decide::runs::Decision;
use crate::domain::{Actor, FunctionKey};
use crate::engine::reconciler::internal;
use crate::engine::{CommandError, Result};
use crate::ledger::schedules::{self, PauseRecord, ScheduleId};
use crate::ledger::{Ledger, facts};

/// Starts that are shown.
const SHOWN: usize = 3;

impl Task {
    pub(super) async fn on_command(&mut self, command: Command) {
        // Whoever asked may have gone; what is recorded stands.
        match command {
            Command::Run { actor, function, reply } => drop(reply.send(self.run_now(actor, &function).await)),
            Command::Pause { pause, function, reply } => drop(reply.send(self.pause(pause, &function).await)),
            Command::Resume { actor, function, reply } => drop(reply.send(self.resume(actor, &function).await)),
            Command::List { reply } => drop(reply.send(self.views())),
        }
    }

    fn id(&self, function: &FunctionKey) -> Result<ScheduleId> {
        if let Some(id) = self.by_function.get(function) {
            return Ok(*id);
        }
        let (app, name) = (&function.app.app, &function.function);
        if let Some((_, problem)) = self.broken.get(function) {
            return Err(CommandError::Conflict {
                what: format!("the schedule of {name} of {app} does not run: {problem}"),
                mend: "mend the manifest, or the machine's time zones, then deploy again".into(),
            });
        }
        Err(CommandError::NotFound {
            what: format!("the live version of app {app} has no schedule for a function {name}"),
            mend: "`landfall schedule list` shows the schedules there are".into(),
        })
    }

    async fn run_now(&mut self, actor: Actor, function: &FunctionKey) -> Result<Asked> {
        let id = self.id(function)?;
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return Err(gone(function)) };
        let before = entry.runs.clone();
        // Whole microseconds, as the record keeps them, and none of the instants: these are whole seconds.
        let micros = now.as_microsecond() | 1;
        let at = Timestamp::from_microsecond(micros).unwrap_or(now);
        let decisions = entry.runs.ask(&entry.rules, at).map_err(|since| CommandError::Conflict {
            what: format!("a run of {} of {} is under way since {since}", function.function, function.app.app),
            mend: "wait for its end, or cancel its call; with `overlap: allow` runs may overlap".into(),
        })?;
        if decisions.iter().any(|decision| matches!(decision, Decision::Skip { .. })) {
            entry.runs = before;
            return Err(CommandError::Conflict {
                what: format!("too many runs of {} of {} are under way", function.function, function.app.app),
                mend: "wait until some have ended".into(),
            });
        }
        let (who, key) = (actor.clone(), function.clone());
        self.carry_out(vec![Change { id, before, decisions, actor: Some(actor) }], now).await;
        let entry = self.entries.get(&id);
        let call = entry.and_then(|entry| entry.calls.get(&at)).copied();
        let waits = entry.is_some_and(|entry| entry.runs.waiting().any(|waiting| waiting == at));
        if call.is_none() && !waits {
            return Err(CommandError::Unavailable {
                what: "the run could not be recorded, it does not start".into(),
                mend: "`landfall status` says what is wrong; then say it again".into(),
            });
        }
        audit(&self.ledger, who, "schedule run", key, now).await?;
        Ok(Asked { at, call })
    }

    async fn pause(&mut self, pause: PauseRecord, function: &FunctionKey) -> Result<()> {
        let id = self.id(function)?;
        let (record, key) = (pause.clone(), function.clone());
        let written = self.ledger.write(move |ledger| {
            schedules::set_pause(ledger, id, Some(&record))?;
            facts::audit(ledger, &record.actor, "schedule pause", Some(&key.app), &(&key, &record), record.since)
        });
        written.await.map_err(internal)?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.runs.pause_now(pause.until);
            self.agenda.set(id, entry.runs.wakes_at(&entry.rules));
        }
        Ok(())
    }

    async fn resume(&mut self, actor: Actor, function: &FunctionKey) -> Result<()> {
        let id = self.id(function)?;
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return Err(gone(function)) };
        if entry.runs.pause().is_none() {
            return Err(CommandError::Conflict {
                what: format!("the schedule of {} of {} is not paused", function.function, function.app.app),
                mend: "`landfall schedule list` shows which are".into(),
            });
        }
        let before = entry.runs.clone();
        let decisions = entry.runs.resume(&entry.rules, now);
        let (decided, key) = (entry.runs.decided(), function.clone());
        let written = self.ledger.write(move |ledger| {
            schedules::set_pause(ledger, id, None)?;
            schedules::decided(ledger, id, decided)?;
            facts::audit(ledger, &actor, "schedule resume", Some(&key.app), &key, now)
        });
        if let Err(error) = written.await {
            entry.runs = before;
            return Err(internal(error));
        }
        self.carry_out(vec![Change { id, before, decisions, actor: None }], now).await;
        Ok(())
    }

    fn views(&self) -> Vec<View> {
        let now = self.clock.now();
        let planned = self.entries.values().map(|entry| View {
            function: entry.function.clone(),
            scheduled: entry.scheduled.clone(),
            next: entry.upcoming(now, SHOWN),
            running: entry.runs.running().count(),
            waiting: entry.runs.waiting().count(),
            problem: None,
        });
        let broken = self.broken.iter().map(|(function, (scheduled, problem))| View {
            function: function.clone(),
            scheduled: scheduled.clone(),
            next: Vec::new(),
            running: 0,
            waiting: 0,
            problem: Some(problem.clone()),
        });
        let mut views: Vec<_> = planned.chain(broken).collect();
        views.sort_by(|a, b| a.function.cmp(&b.function));
        views
    }
}

fn gone(function: &FunctionKey) -> CommandError {
    CommandError::NotFound {
        what: format!("{} of {} has no schedule any more", function.function, function.app.app),
        mend: "`landfall schedule list` shows the schedules there are".into(),
    }
}

async fn audit(ledger: &Ledger, actor: Actor, action: &'static str, key: FunctionKey, at: Timestamp) -> Result<()> {
    let written = ledger.write(move |ledger| facts::audit(ledger, &actor, action, Some(&key.app), &key, at));
    written.await.map_err(internal)
}
