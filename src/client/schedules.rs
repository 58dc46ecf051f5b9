//! The calls about schedules.

use jiff::Timestamp;

use super::query::Route;
use super::{Client, ClientError};
use crate::domain::{AppName, CallOutcome, EnvironmentName, ObjectName};
use crate::wire::api::SuspendRequest;
use crate::wire::schedules::{Run, RunOutput, RunStarted, Schedule};

impl Client {
    /// The schedules of live versions, of one app if it is named.
    pub async fn schedules(
        &self,
        environment: Option<&EnvironmentName>,
        app: Option<&AppName>,
    ) -> Result<Vec<Schedule>, ClientError> {
        self.get(Route::new(&["schedules"]).with("environment", environment).with("app", app)).await
    }

    /// One schedule.
    pub async fn schedule(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
    ) -> Result<Schedule, ClientError> {
        self.get(of(app, function, &[]).with("environment", environment)).await
    }

    /// Runs of a schedule, the latest instant first: at most `limit`, only those before `before` and of this outcome.
    pub async fn schedule_runs(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
        limit: Option<u32>,
        before: Option<Timestamp>,
        outcome: Option<CallOutcome>,
    ) -> Result<Vec<Run>, ClientError> {
        let route = of(app, function, &["runs"]).with("environment", environment);
        self.gather(route.with("before", before).with("outcome", outcome), limit).await
    }

    /// What a run that failed has written, as far as it is kept.
    pub async fn run_output(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
        at: Timestamp,
    ) -> Result<RunOutput, ClientError> {
        self.get(of(app, function, &["output"]).with("environment", environment).with("at", Some(at))).await
    }

    /// Starts a run now.
    pub async fn run_schedule(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
    ) -> Result<RunStarted, ClientError> {
        self.post(of(app, function, &["run"]).with("environment", environment), &serde_json::Map::new()).await
    }

    /// Pauses a schedule: nothing starts by itself until that ends.
    pub async fn pause_schedule(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
        request: &SuspendRequest,
    ) -> Result<Schedule, ClientError> {
        self.post(of(app, function, &["pause"]).with("environment", environment), request).await
    }

    /// Ends a pause.
    pub async fn resume_schedule(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
    ) -> Result<Schedule, ClientError> {
        self.post(of(app, function, &["resume"]).with("environment", environment), &serde_json::Map::new()).await
    }
}

fn of(app: &AppName, function: &ObjectName, rest: &[&str]) -> Route {
    Route::new(&[&["apps", app.as_str(), "schedules", function.as_str()], rest].concat())
}
