//! Calls of functions with values instead of bytes: what is sent and what comes back are types of the caller.
//!
//! An object names a function's arguments, an array lists them, anything else is the only one.

use std::marker::PhantomData;

use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::query::Route;
use super::{ANSWER, CallBody, Client, ClientError, describe, send};
use crate::domain::{AppName, CallError, CallId, CallOutcome, EnvironmentName, ObjectName};
use crate::wire::call_views::{Mapped, Spawned};

/// Longest line of an answer.
const LONGEST_LINE: usize = 64 * 1024 * 1024;

/// Which function: `shop resize`, in an environment or the agent's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The app's environment; the agent's own where none is named.
    pub environment: Option<EnvironmentName>,
    /// The app.
    pub app: AppName,
    /// The function.
    pub function: ObjectName,
}

impl Function {
    /// A function of an app in the agent's own environment.
    ///
    /// ```
    /// let resize = landfall::client::Function::new("shop", "resize")?;
    /// assert_eq!(resize.app.as_str(), "shop");
    /// # Ok::<(), landfall::domain::NameError>(())
    /// ```
    pub fn new(app: &str, function: &str) -> Result<Self, crate::domain::NameError> {
        Ok(Self { environment: None, app: app.parse()?, function: function.parse()? })
    }
}

/// What became of one of many arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct MapResult<R> {
    /// Which argument, counted from 0.
    pub index: u64,
    /// Its call; `None` for one that was not taken.
    pub call: Option<CallId>,
    /// What the function answered, or why there is nothing.
    pub result: Result<R, CallError>,
}

/// Results as they come, in the order of the arguments. Dropping it makes no more calls.
#[derive(Debug)]
pub struct Mapping<R> {
    client: Client,
    what: String,
    response: Response,
    buffer: Vec<u8>,
    over: bool,
    result: PhantomData<fn() -> R>,
}

impl Client {
    /// Calls a function and waits for its answer, however long that takes.
    ///
    /// ```no_run
    /// # async fn example(client: landfall::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use landfall::client::Function;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Greet { name: String }
    ///
    /// let greet = Function::new("functions", "greet")?;
    /// let words: String = client.call_as(&greet, &Greet { name: "Ada".into() }).await?;
    /// # Ok(()) }
    /// ```
    pub async fn call_as<R: DeserializeOwned>(
        &self,
        function: &Function,
        arguments: &impl Serialize,
    ) -> Result<R, ClientError> {
        let Function { environment, app, function } = function;
        let what = format!("a call of {app} {function}");
        let body = self.written(&what, arguments)?;
        let mut answer = self.call_function(environment.as_ref(), app, function, None, body).await?;
        let bytes = answer.whole().await?;
        if answer.status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.protocol(&what, &error));
        }
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        let error = serde_json::from_slice(&bytes).ok().filter(|_| answer.is_own_error);
        Err(ClientError::Failed(error.unwrap_or_else(|| CallError::new(answer.status.as_str(), text()))))
    }

    /// Records a call that runs whatever dies, and does not wait for it. With a key at most one call is made for it.
    /// [`Client::result_as`] fetches what it brings back.
    pub async fn spawn_as(
        &self,
        function: &Function,
        arguments: &impl Serialize,
        key: Option<&str>,
    ) -> Result<Spawned, ClientError> {
        let Function { environment, app, function } = function;
        let body = self.written(&format!("a call of {app} {function}"), arguments)?;
        self.spawn(environment.as_ref(), app, function, None, body, key).await
    }

    /// What a spawned call brings back, once it is done, however long that takes and over restarts of the agent.
    pub async fn result_as<R: DeserializeOwned>(&self, call: CallId) -> Result<R, ClientError> {
        let shown = self.call_done(call).await?.call;
        match shown.outcome {
            Some(CallOutcome::Succeeded) => {
                let answered = self.call_result(call).await?;
                let what = format!("the result of call {call}");
                serde_json::from_slice(&answered.bytes).map_err(|error| self.protocol(&what, &error))
            }
            outcome => {
                let words = outcome.map_or_else(String::new, |outcome| format!("it is {outcome}"));
                Err(ClientError::Failed(shown.error.unwrap_or_else(|| CallError::new("call", words))))
            }
        }
    }

    /// Calls a function once for each of these arguments. Every call is on record before it runs.
    ///
    /// ```no_run
    /// # async fn example(client: landfall::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use landfall::client::Function;
    ///
    /// let square = Function::new("maths", "square")?;
    /// let mut results = client.map_as::<u64>(&square, 1..=100_u64).await?;
    /// while let Some(mapped) = results.next().await? {
    ///     println!("{} → {:?}", mapped.index, mapped.result);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn map_as<R: DeserializeOwned>(
        &self,
        function: &Function,
        arguments: impl IntoIterator<Item = impl Serialize>,
    ) -> Result<Mapping<R>, ClientError> {
        let Function { environment, app, function } = function;
        let route = Route::new(&["apps", app.as_str(), "functions", function.as_str(), "map"])
            .with("environment", environment.as_ref());
        let what = format!("POST {}", route.as_str());
        let mut body = Vec::new();
        for argument in arguments {
            serde_json::to_writer(&mut body, &argument).map_err(|error| self.protocol(&what, &error))?;
            body.push(b'\n');
        }
        let request = self.request(Method::POST, &route).header("content-type", "application/x-ndjson").body(body);
        let response = send::send(request).await.map_err(|error| self.failed(&what, ANSWER, &error))?;
        if !response.status().is_success() {
            return Err(self.refused(&what, response).await);
        }
        let (client, buffer) = (self.clone(), Vec::new());
        Ok(Mapping { client, what, response, buffer, over: false, result: PhantomData })
    }

    fn written(&self, what: &str, arguments: &impl Serialize) -> Result<CallBody, ClientError> {
        serde_json::to_vec(arguments).map(CallBody::json).map_err(|error| self.protocol(what, &error))
    }
}

impl<R: DeserializeOwned> Mapping<R> {
    /// What became of the next argument; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<MapResult<R>>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return self.read(&line).map(Some);
            }
            if self.over {
                return Ok(None);
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(self.client.protocol(&self.what, &"a line of the answer is longer than 64 MiB"));
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.buffer.extend_from_slice(&piece),
                Ok(None) => self.over = true,
                Err(error) => {
                    let (target, what) = (self.client.target().clone(), self.what.clone());
                    return Err(ClientError::Interrupted { target, what, why: describe(&error) });
                }
            }
        }
    }

    fn read(&self, line: &[u8]) -> Result<MapResult<R>, ClientError> {
        let wrong = |error: &serde_json::Error| self.client.protocol(&self.what, error);
        let Mapped { index, call, outcome, result, error } =
            serde_json::from_slice(line).map_err(|error| wrong(&error))?;
        let result = match (outcome, result, error) {
            (Some(CallOutcome::Succeeded), result, _) => {
                Ok(serde_json::from_value(result.unwrap_or_default()).map_err(|error| wrong(&error))?)
            }
            (_, _, Some(error)) => Err(error),
            (outcome, _, None) => {
                let words =
                    outcome.map_or_else(|| "it has no outcome".to_owned(), |outcome| format!("it is {outcome}"));
                Err(CallError::new("call", words))
            }
        };
        Ok(MapResult { index, call, result })
    }
}
