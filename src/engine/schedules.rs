//! What the API asks and commands about schedules.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::handle::Engine;
use super::reconciler::internal;
use super::scheduler::View;
use super::{Caller, CommandError, Result};
use crate::domain::{AppKey, CallOutcome, FunctionKey, Suspension, When};
use crate::ledger::schedules::{self, Output, PauseRecord, Run, ScheduleRecord};
use crate::wire::api::SuspendRequest;
use crate::wire::schedules as api;
use crate::zones::Zones;

/// A pause for which nobody gave a reason.
const NO_REASON: &str = "no reason given";

impl Engine {
    /// The schedules of live versions.
    pub async fn schedules(&self) -> Result<Vec<(AppKey, api::Schedule)>> {
        let views = self.parts.scheduler.list().await?;
        let records = self.parts.ledger.read(schedules::all).await.map_err(internal)?;
        let mut records: BTreeMap<FunctionKey, ScheduleRecord> =
            records.into_iter().map(|record| (record.function.clone(), record)).collect();
        let shown = views.into_iter().map(|view| {
            let record = records.remove(&view.function);
            (view.function.app.clone(), shown(view, record))
        });
        Ok(shown.collect())
    }

    /// One schedule.
    pub async fn schedule(&self, function: &FunctionKey) -> Result<api::Schedule> {
        let all = self.schedules().await?;
        let mut mine = all.into_iter().filter(|(app, _)| *app == function.app).map(|(_, schedule)| schedule);
        mine.find(|schedule| schedule.function == function.function).ok_or_else(|| unknown(function))
    }

    /// Runs of a schedule, the latest instant first; also of one that is gone.
    pub async fn schedule_runs(
        &self,
        function: FunctionKey,
        before: Option<Timestamp>,
        only: Option<CallOutcome>,
        limit: u32,
    ) -> Result<Vec<api::Run>> {
        let wanted = function.clone();
        let read = self.parts.ledger.read(move |ledger| {
            let Some(record) = schedules::one(ledger, &wanted)? else { return Ok(None) };
            schedules::history(ledger, record.id, before, only, limit).map(Some)
        });
        let runs = read.await.map_err(internal)?.ok_or_else(|| unknown(&function))?;
        Ok(runs.into_iter().map(run).collect())
    }

    /// What a run that failed has written, as far as it is kept; also of a schedule that is gone.
    pub async fn run_output(&self, function: FunctionKey, at: Timestamp) -> Result<api::RunOutput> {
        let wanted = function.clone();
        let read = self.parts.ledger.read(move |ledger| {
            let Some(record) = schedules::one(ledger, &wanted)? else { return Ok(None) };
            schedules::output(ledger, record.id, at)
        });
        let found = read.await.map_err(internal)?;
        let Output { head, left_out, tail } = found.ok_or_else(|| CommandError::NotFound {
            what: format!("nothing is kept of what {} of {} wrote at {at}", function.function, function.app.app),
            mend:
                "it is kept of the last runs that failed; of others `landfall schedule logs` shows what logs still hold"
                    .into(),
        })?;
        Ok(api::RunOutput { head, left_out, tail })
    }

    /// Starts a run now.
    pub async fn run_schedule(&self, caller: Caller, function: FunctionKey) -> Result<api::RunStarted> {
        let asked = self.parts.scheduler.run(caller.actor, function.clone()).await?;
        Ok(api::RunStarted {
            app: function.app.app,
            function: function.function,
            scheduled_at: asked.at,
            call: asked.call,
        })
    }

    /// Pauses a schedule.
    pub async fn pause_schedule(
        &self,
        caller: Caller,
        function: FunctionKey,
        request: SuspendRequest,
    ) -> Result<api::Schedule> {
        let since = Timestamp::now();
        if request.until.is_some_and(|until| until <= since) {
            return Err(CommandError::Invalid {
                what: "the pause would end in the past".into(),
                mend: "name a time to come, or a length like 2h".into(),
            });
        }
        let pause = PauseRecord { actor: caller.actor, since, until: request.until, reason: request.reason };
        self.parts.scheduler.pause(function.clone(), pause).await?;
        self.schedule(&function).await
    }

    /// Ends a pause.
    pub async fn resume_schedule(&self, caller: Caller, function: FunctionKey) -> Result<api::Schedule> {
        self.parts.scheduler.resume(caller.actor, function.clone()).await?;
        self.schedule(&function).await
    }
}

fn unknown(function: &FunctionKey) -> CommandError {
    CommandError::NotFound {
        what: format!("app {} has no schedule for a function {}", function.app.app, function.function),
        mend: "`landfall schedule list` shows the schedules there are".into(),
    }
}

fn shown(view: View, record: Option<ScheduleRecord>) -> api::Schedule {
    let View { function, scheduled, next, running, waiting, problem } = view;
    let (cron, timezone, every) = match scheduled.when {
        When::Cron { expression, timezone } => (Some(expression), Some(timezone), None),
        When::Every(length) => (None, None, Some(length.0)),
    };
    let zone = timezone.as_ref().and_then(|name| Zones::of_this_machine().find(name).ok());
    let zone = zone.unwrap_or(jiff::tz::TimeZone::UTC);
    let local = |at: &Timestamp| at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string();
    let pause = record.as_ref().and_then(|record| record.pause.clone());
    let streak = record.as_ref().map(|record| record.streak.clone()).unwrap_or_default();
    let last = record.as_ref().and_then(|record| record.last);
    api::Schedule {
        app: function.app.app,
        environment: function.app.environment,
        function: function.function,
        cron,
        timezone,
        every_ms: every,
        overlap: scheduled.overlap,
        catch_up_ms: scheduled.catch_up.0,
        jitter_ms: scheduled.jitter.0,
        next_local: next.iter().map(local).collect(),
        next,
        pause: pause.map(|pause| Suspension {
            reason: pause.reason.unwrap_or_else(|| NO_REASON.to_owned()),
            actor: pause.actor,
            since: pause.since,
            until: pause.until,
        }),
        running,
        waiting,
        last_at: last.map(|(at, _)| at),
        last_outcome: last.map(|(_, outcome)| outcome),
        last_success_at: record.and_then(|record| record.last_success),
        successes_in_a_row: streak.successes,
        failures_in_a_row: streak.failures,
        skips_in_a_row: streak.skips,
        problem,
    }
}

fn run(run: Run) -> api::Run {
    api::Run {
        scheduled_at: run.at,
        until: run.last.filter(|last| *last != run.at),
        count: run.count,
        more: run.more,
        state: run.state.as_str().to_owned(),
        outcome: run.outcome,
        trigger: run.trigger,
        actor: run.actor.map(|actor| actor.to_string()),
        caught_up: run.caught_up,
        call: run.call,
        started_at: run.started_at,
        ended_at: run.ended_at,
        error: run.error,
    }
}
