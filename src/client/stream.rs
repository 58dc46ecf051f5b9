//! Answers that go on: one value after the other, until the agent has said everything.

use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::ClientError;
use super::sse::SseParser;
use super::{Target, describe};

/// The agent says something at least every 15 s; after three times that, it is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// Values as the agent sends them. Dropping it ends the call.
#[derive(Debug)]
pub struct Follow<T> {
    target: Target,
    what: String,
    response: reqwest::Response,
    parser: SseParser,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Follow<T> {
    pub(super) fn new(target: Target, what: String, response: reqwest::Response) -> Self {
        Self { target, what, response, parser: SseParser::default(), value: PhantomData }
    }

    /// The next value; `None` when the agent has said everything. May be dropped and called again without
    /// losing a value.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(data) = self.parser.next() {
                return serde_json::from_slice(&data).map(Some).map_err(|error| self.protocol(&error));
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Err(_) => return Err(self.silent()),
                Ok(Err(error)) => return Err(self.interrupted(&error)),
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(piece))) => self.parser.feed(&piece).map_err(|error| self.protocol(&error))?,
            }
        }
    }

    fn protocol(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Protocol { target: self.target.clone(), what: self.what.clone(), why: error.to_string() }
    }

    fn silent(&self) -> ClientError {
        ClientError::Timeout { target: self.target.clone(), what: self.what.clone(), after: SILENCE }
    }

    fn interrupted(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Interrupted { target: self.target.clone(), what: self.what.clone(), why: describe(error) }
    }
}
