//! Calls of functions: the answer as it comes.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};

use super::query::Route;
use super::{ANSWER, Client, ClientError, describe, send};
use crate::domain::{AppName, CallError, CallId, CallOutcome, EnvironmentName, ObjectName, VersionNumber};
use crate::wire::api::Problem;
use crate::wire::call_views::CallDetail;

/// One question for a call that goes on waits this long.
const ONE_WAIT: Duration = Duration::from_secs(60);
/// Pause before a controller that does not answer is asked again, and how often that may be in a row.
const PAUSE: Duration = Duration::from_millis(500);
const UNHEARD: u32 = 60;

/// What a call brings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallBody {
    /// Its media type; JSON and bytes mean something to handlers.
    pub content_type: Option<String>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl CallBody {
    /// Nothing: a handler is called without arguments.
    pub fn empty() -> Self {
        Self::default()
    }

    /// JSON text: an object names a handler's arguments, an array lists them, anything else is the only one.
    pub fn json(text: impl Into<Vec<u8>>) -> Self {
        Self { content_type: Some("application/json".to_owned()), bytes: text.into() }
    }

    /// Bytes: a handler's only argument.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { content_type: Some("application/octet-stream".to_owned()), bytes: bytes.into() }
    }
}

/// The answer to a call. Its body is read piece by piece.
#[derive(Debug)]
pub struct CallAnswer {
    /// The answer's status: below 300 the function succeeded.
    pub status: StatusCode,
    /// The call.
    pub call: Option<CallId>,
    /// The version whose code ran.
    pub version: Option<VersionNumber>,
    /// The instance it ran on.
    pub instance: Option<String>,
    /// Media type of the body.
    pub content_type: String,
    /// Whether the body tells, as JSON with `type`, `message` and `traceback`, how the function failed.
    pub is_own_error: bool,
    client: Client,
    what: String,
    body: Answered,
}

#[derive(Debug)]
enum Answered {
    /// Still coming in.
    Stream(Response),
    /// Known from the record of the call.
    Whole(Option<Vec<u8>>),
}

impl CallAnswer {
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let response = match &mut self.body {
            Answered::Stream(response) => response,
            Answered::Whole(body) => return Ok(body.take()),
        };
        match response.chunk().await {
            Ok(piece) => Ok(piece.map(|piece| piece.to_vec())),
            Err(error) => Err(ClientError::Interrupted {
                target: self.client.target.clone(),
                what: self.what.clone(),
                why: describe(&error),
            }),
        }
    }

    /// The rest of the body.
    pub async fn whole(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        while let Some(piece) = self.chunk().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

impl Client {
    /// Calls a function and waits until it begins to answer, however long that takes. An answer of the function's own, also one that says that
    /// it failed, is a [`CallAnswer`]; what Landfall itself refuses is an error.
    pub async fn call_function(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
        version: Option<VersionNumber>,
        body: CallBody,
    ) -> Result<CallAnswer, ClientError> {
        self.call_function_as(
            CallId::new(jiff::Timestamp::now(), fastrand::u128(..)),
            environment,
            app,
            function,
            version,
            body,
        )
        .await
    }

    /// The same for a call that gets this identifier, so that its log can be followed while it runs. No two calls may
    /// have the same.
    pub async fn call_function_as(
        &self,
        call: CallId,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        function: &ObjectName,
        version: Option<VersionNumber>,
        body: CallBody,
    ) -> Result<CallAnswer, ClientError> {
        let route = Route::new(&["apps", app.as_str(), "functions", function.as_str(), "call"])
            .with("environment", environment)
            .with("version", version.map(VersionNumber::get));
        let what = format!("POST {}", route.as_str());
        let mut request = self.request(Method::POST, &route).header("landfall-call", call.to_string()).body(body.bytes);
        if let Some(kind) = body.content_type {
            request = request.header("content-type", kind);
        }
        // No deadline here: the function's own ends every call.
        let response = send::send(request).await.map_err(|error| self.failed(&what, ANSWER, &error))?;
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let own_word = text("landfall-error");
        if response.status() == StatusCode::SEE_OTHER {
            return self.follow_call(call, what).await;
        }
        let from_instance = !text("landfall-instance").is_empty();
        if !from_instance {
            return Err(self.refused(&what, response).await);
        }
        Ok(CallAnswer {
            status: response.status(),
            call: text("landfall-call").parse().ok(),
            version: text("landfall-version").parse().ok(),
            instance: Some(text("landfall-instance").to_owned()),
            content_type: text("content-type").to_owned(),
            is_own_error: own_word == "function_failed",
            client: self.clone(),
            what,
            body: Answered::Stream(response),
        })
    }

    /// Waits for a call that lasts longer than the agent keeps a caller waiting, and fetches what it brought back.
    async fn follow_call(&self, call: CallId, what: String) -> Result<CallAnswer, ClientError> {
        let shown = self.call_done(call).await?;
        let outcome = shown.call.outcome.unwrap_or(CallOutcome::Failed);
        let end = shown.tries.into_iter().filter_map(|attempt| attempt.end).next_back();
        let error = shown.call.error.unwrap_or_else(|| CallError::new("call", format!("it is {outcome}")));
        let refusal = |status: u16, code: &str, title: &str| {
            let mend = format!("`landfall calls show {call}` shows how it went");
            let (code, title, detail) = (code.to_owned(), title.to_owned(), error.message.clone());
            Err(ClientError::Problem(Problem { status, code, title, detail, mend }))
        };
        let (status, content_type, body) = match outcome {
            CallOutcome::Succeeded => {
                let answered = self.call_result(call).await?;
                (StatusCode::OK, answered.content_type, answered.bytes)
            }
            CallOutcome::TimedOut => return refusal(504, "call_timeout", "Gateway Timeout"),
            CallOutcome::Cancelled => return refusal(409, "call_cancelled", "the call was cancelled"),
            CallOutcome::Failed | CallOutcome::SkippedOverlap | CallOutcome::Missed => {
                let words = serde_json::to_vec(&error).unwrap_or_default();
                (StatusCode::INTERNAL_SERVER_ERROR, "application/json".to_owned(), words)
            }
        };
        Ok(CallAnswer {
            status,
            call: Some(call),
            version: end.as_ref().and_then(|end| end.version),
            instance: end.and_then(|end| end.instance).map(|instance| instance.to_string()),
            content_type,
            is_own_error: outcome != CallOutcome::Succeeded,
            client: self.clone(),
            what,
            body: Answered::Whole(Some(body)),
        })
    }

    /// A call once it is done, over restarts of the controller.
    pub(super) async fn call_done(&self, call: CallId) -> Result<CallDetail, ClientError> {
        let mut unheard = 0;
        loop {
            match self.call_record(call, ONE_WAIT).await {
                Ok(shown) if shown.call.outcome.is_some() => return Ok(shown),
                Ok(_) => unheard = 0,
                Err(ClientError::NoAgent { .. } | ClientError::Interrupted { .. }) if unheard < UNHEARD => {
                    unheard += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
