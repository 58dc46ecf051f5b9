//! Answers that go on: one value after the other, until the agent has said everything.
//!
//! ```text
//! reading ──value──► reading          ──end──► over
//!    └──cut off──► asking again, behind the last place ──► reading
//!                     └──in vain for 30 s, or refused──► error
//! ```
//!
//! Invariant: over restarts of the agent no value is lost and none comes twice: each has a place, and whoever asks again
//! names the last one.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::error::ClientError;
use super::query::Route;
use super::sse::SseParser;
use super::{Client, describe};

/// The agent says something at least every 15 s; after three times that, it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// A stream that was cut off is asked for again for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Values as the agent sends them. Dropping it ends the call.
///
/// When the agent restarts, or the connection breaks, it asks again for up to half a minute and goes on behind
/// the last value it had.
#[derive(Debug)]
pub struct Follow<T> {
    client: Client,
    route: Route,
    /// `None` while it is cut off.
    response: Option<reqwest::Response>,
    parser: SseParser,
    /// Since when it is asked for again, and why.
    cut_off: Option<(Instant, ClientError)>,
    /// Everything is said.
    over: bool,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Follow<T> {
    pub(super) fn new(client: Client, route: Route, response: reqwest::Response) -> Self {
        let parser = SseParser::default();
        Self { client, route, response: Some(response), parser, cut_off: None, over: false, value: PhantomData }
    }

    /// The next value; `None` when the agent has said everything. May be dropped and called again without
    /// losing a value.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(event) = self.parser.next() {
                self.cut_off = None;
                if event.kind == "end" {
                    self.over = true;
                    return Ok(None);
                }
                return serde_json::from_slice(&event.data).map(Some).map_err(|error| self.protocol(&error));
            }
            if self.over {
                return Ok(None);
            }
            let Some(response) = &mut self.response else {
                self.ask_again().await?;
                continue;
            };
            let broken = match tokio::time::timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    self.parser.feed(&piece).map_err(|error| self.protocol(&error))?;
                    continue;
                }
                Ok(Ok(None)) => self.interrupted("the agent has ended or restarts".to_owned()),
                Ok(Err(error)) => self.interrupted(describe(&error)),
                Err(_) => self.client.timeout(&self.what(), SILENCE),
            };
            self.response = None;
            self.parser.cut_off();
            self.cut_off.get_or_insert((Instant::now(), broken));
        }
    }

    /// One attempt to go on; an error when that is given up.
    async fn ask_again(&mut self) -> Result<(), ClientError> {
        if let Some((since, _)) = &self.cut_off
            && since.elapsed() > PATIENCE
            && let Some((_, error)) = self.cut_off.take()
        {
            self.over = true;
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
        match self.client.open(&self.route, self.parser.place()).await {
            Ok(response) => self.response = Some(response),
            // It starts or ends; that is no answer to the question.
            Err(ClientError::Problem(problem)) if problem.status == 503 => {}
            Err(error @ ClientError::Problem(_)) => {
                self.over = true;
                return Err(error);
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn what(&self) -> String {
        format!("GET {}", self.route.as_str())
    }

    fn protocol(&self, error: &dyn std::error::Error) -> ClientError {
        self.client.protocol(&self.what(), error)
    }

    fn interrupted(&self, why: String) -> ClientError {
        ClientError::Interrupted { target: self.client.target().clone(), what: self.what(), why }
    }
}
