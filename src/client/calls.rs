//! Calls that must not be lost: spawned, looked at, waited for.

use std::time::Duration;

use reqwest::Method;

use super::query::Route;
use super::{ANSWER, CallBody, Client, ClientError, Follow, send};
use crate::domain::{AppName, CallId, CallOutcome, CallState, EnvironmentName, ObjectName, VersionNumber};
use crate::wire::api::LogLine;
use crate::wire::call_views::{CallDetail, CallView, Spawned};
use crate::wire::functions::{FunctionDetail, FunctionView};
use crate::wire::services::ServiceView;
use crate::wire::traffic::ObjectTraffic;

/// Which calls are wanted. The default is the newest hundred of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallsQuery {
    /// Only of this app.
    pub app: Option<AppName>,
    /// Only of this function of it.
    pub function: Option<ObjectName>,
    /// Only those that stand like this.
    pub state: Option<CallState>,
    /// Only those that ended like this.
    pub outcome: Option<CallOutcome>,
    /// Only those that failed and were not tried anew.
    pub dead: bool,
    /// Only those older than this one.
    pub before: Option<CallId>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What a call brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallAnswered {
    /// Its media type.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Records a call that runs whatever dies, and does not wait for it. With a key at most one call is made for it.
    pub async fn spawn(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
        version: Option<VersionNumber>,
        body: CallBody,
        key: Option<&str>,
    ) -> Result<Spawned, ClientError> {
        let route = Route::new(&["apps", app.as_str(), "functions", function.as_str(), "spawn"])
            .with("environment", environment)
            .with("version", version.map(VersionNumber::get));
        let mut request = self.request(Method::POST, &route).timeout(ANSWER).body(body.bytes);
        if let Some(kind) = body.content_type {
            request = request.header("content-type", kind);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.call(request, Method::POST, &route, ANSWER).await
    }

    /// Calls, newest first.
    pub async fn calls(
        &self,
        environment: Option<&EnvironmentName>,
        query: &CallsQuery,
    ) -> Result<Vec<CallView>, ClientError> {
        let route = Route::new(&["calls"])
            .with("environment", environment)
            .with("app", query.app.as_ref())
            .with("function", query.function.as_ref())
            .with("state", query.state)
            .with("outcome", query.outcome)
            .with("dead", query.dead.then_some(true))
            .with("before", query.before);
        self.gather(route, query.limit).await
    }

    /// One call, once it is done or `wait` (whole seconds, at most 120) is over.
    pub async fn call_record(&self, call: CallId, wait: Duration) -> Result<CallDetail, ClientError> {
        let route = Route::new(&["calls", &call.to_string()]).with("wait", Some(wait.as_secs()));
        self.get_within(ANSWER + wait, route).await
    }

    /// What a call brought back; an error while it has not, or where there is nothing.
    pub async fn call_result(&self, call: CallId) -> Result<CallAnswered, ClientError> {
        let route = Route::new(&["calls", &call.to_string(), "result"]);
        let what = format!("GET {}", route.as_str());
        let request = self.request(Method::GET, &route).timeout(ANSWER);
        let response = send::send(request).await.map_err(|error| self.failed(&what, ANSWER, &error))?;
        if !response.status().is_success() {
            return Err(self.refused(&what, response).await);
        }
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = kind.to_owned();
        Ok(CallAnswered { content_type, bytes: self.read(&what, ANSWER, response).await? })
    }

    /// What a call writes to its log, in all its attempts.
    pub async fn call_logs(&self, call: CallId, follow: bool) -> Result<Follow<LogLine>, ClientError> {
        self.follow(Route::new(&["calls", &call.to_string(), "logs"]).with("follow", follow.then_some(true))).await
    }

    /// The functions of an app's live version: instances, work, and how it goes.
    pub async fn functions(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
    ) -> Result<Vec<FunctionView>, ClientError> {
        self.get(Route::new(&["apps", app.as_str(), "functions"]).with("environment", environment)).await
    }

    /// The requests of each web object of an app's live version, minute by minute.
    pub async fn requests(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
    ) -> Result<Vec<ObjectTraffic>, ClientError> {
        self.get(Route::new(&["apps", app.as_str(), "requests"]).with("environment", environment)).await
    }

    /// The containers of an app that is a Compose project; none of one that is not.
    pub async fn services(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
    ) -> Result<Vec<ServiceView>, ClientError> {
        self.get(Route::new(&["apps", app.as_str(), "services"]).with("environment", environment)).await
    }

    /// One function, minute by minute.
    pub async fn function(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
    ) -> Result<FunctionDetail, ClientError> {
        let route = Route::new(&["apps", app.as_str(), "functions", function.as_str()]);
        self.get(route.with("environment", environment)).await
    }

    /// Ends a call.
    pub async fn cancel_call(&self, call: CallId) -> Result<CallView, ClientError> {
        self.post(Route::new(&["calls", &call.to_string(), "cancel"]), &serde_json::Map::new()).await
    }

    /// Tries a call that is done anew.
    pub async fn redrive_call(&self, call: CallId) -> Result<Spawned, ClientError> {
        self.post(Route::new(&["calls", &call.to_string(), "redrive"]), &serde_json::Map::new()).await
    }
}
