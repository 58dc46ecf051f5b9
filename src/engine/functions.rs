//! What people and programs ask about functions: how many instances, how much work, how it goes.

use std::collections::HashMap;

use jiff::Timestamp;

use super::caller::minute_of;
use super::fleet::FunctionFleet;
use super::handle::Engine;
use super::reconciler::internal;
use super::{CommandError, Result};
use crate::decide::near::nearest;
use crate::decide::tally::{Classes, KEPT, Sum, Tally};
use crate::domain::{AppKey, CallOutcome, FunctionKey};
use crate::ledger::calls::{self, Backlog};
use crate::wire::functions::{FunctionDetail, FunctionView, Minute, Spread, Window};

/// Minutes of [`FunctionView::recent`].
pub(super) const RECENT: i64 = 5;

impl Engine {
    /// The functions of an app's live version.
    pub async fn functions(&self, app: AppKey) -> Result<Vec<FunctionView>> {
        // Says what is wrong where there is no such app.
        self.app(app.clone()).await?;
        self.viewed(Some(app)).await
    }

    /// One function, minute by minute.
    pub async fn function_detail(&self, key: FunctionKey) -> Result<FunctionDetail> {
        let all = self.functions(key.app.clone()).await?;
        let names: Vec<String> = all.iter().map(|one| one.function.to_string()).collect();
        let function = all.into_iter().find(|one| one.function == key.function);
        let function = function.ok_or_else(|| unknown_function(&key, &names))?;
        let (tally, now) = (self.parts.caller.tallies().of(&key), minute_of(Timestamp::now()));
        let minute = |(at, sum): &(i64, Sum)| {
            let at = Timestamp::from_second(at * 60).unwrap_or(Timestamp::UNIX_EPOCH);
            Minute { at, outcomes: sum.outcomes.clone(), run: spread(&sum.run) }
        };
        Ok(FunctionDetail { function, minutes: tally.minutes(now).map(minute).collect() })
    }

    /// The functions of all live versions, each with how many of its calls have ended how since this controller started.
    pub(super) async fn all_functions(&self) -> Result<Vec<(FunctionView, Vec<(CallOutcome, u64)>)>> {
        let all = self.viewed(None).await?;
        let with_ends = |view: FunctionView| {
            let app = AppKey::new(view.environment.clone(), view.app.clone());
            let tally = self.parts.caller.tallies().of(&FunctionKey::new(app, view.function.clone()));
            (view, tally.ever.into_iter().collect())
        };
        Ok(all.into_iter().map(with_ends).collect())
    }

    async fn viewed(&self, app: Option<AppKey>) -> Result<Vec<FunctionView>> {
        let fleet = self.parts.fleet.functions(app).await;
        let backlogs: HashMap<FunctionKey, Backlog> = match fleet.is_empty() {
            true => HashMap::new(),
            false => self.parts.ledger.read(calls::backlogs).await.map_err(internal)?,
        };
        let now = minute_of(Timestamp::now());
        let one = |fleet: FunctionFleet| {
            let backlog = backlogs.get(&fleet.function).copied().unwrap_or_default();
            let tally = self.parts.caller.tallies().of(&fleet.function);
            view(fleet, backlog, &tally, now)
        };
        Ok(fleet.into_iter().map(one).collect())
    }
}

fn view(fleet: FunctionFleet, backlog: Backlog, tally: &Tally, now: i64) -> FunctionView {
    let FunctionKey { app, function } = fleet.function;
    let places = fleet.ready.saturating_mul(fleet.concurrency);
    FunctionView {
        app: app.app,
        environment: app.environment,
        function,
        version: fleet.version,
        concurrency: fleet.concurrency,
        min: fleet.bounds.0,
        max: fleet.bounds.1,
        scaled: fleet.scaled,
        instances: fleet.instances,
        ready: fleet.ready,
        in_flight: fleet.in_flight,
        waiting: fleet.waiting,
        headroom: places.saturating_sub(fleet.in_flight),
        backlog: backlog.queued,
        backlog_since: backlog.oldest,
        running: backlog.running,
        recent: window(tally.last(now, RECENT), RECENT),
        hour: window(tally.last(now, KEPT), KEPT),
    }
}

fn window(sum: Sum, minutes: i64) -> Window {
    let seconds = u64::try_from(minutes * 60).unwrap_or_default();
    let calls: u64 = sum.outcomes.values().sum();
    Window {
        seconds,
        per_second: calls as f64 / seconds as f64,
        queue: spread(&sum.queue),
        start: spread(&sum.start),
        run: spread(&sum.run),
        outcomes: sum.outcomes,
    }
}

pub(super) fn spread(times: &Classes) -> Spread {
    Spread { p50_us: times.at(0.5), p95_us: times.at(0.95), p99_us: times.at(0.99) }
}

/// There is no such function; which there are, and which may have been meant.
pub(super) fn unknown_function(key: &FunctionKey, names: &[String]) -> CommandError {
    CommandError::NotFound {
        what: format!("app {} has no function {}", key.app.app, key.function),
        mend: match (names.is_empty(), nearest(key.function.as_str(), names.iter().map(String::as_str))) {
            (true, _) => "it has no functions at all; see `functions` in its manifest".to_owned(),
            (false, Some(near)) => format!("did you mean {near}? it has: {}", names.join(", ")),
            (false, None) => format!("it has: {}", names.join(", ")),
        },
    }
}
