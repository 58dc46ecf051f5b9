//! Where a stream goes on after a break: the header `Last-Event-ID`, and the places of each kind of stream.
//!
//! | stream | place |
//! |---|---|
//! | facts | the fact's number |
//! | logs | a time, and how many lines of that very time were said |
//! | a deployment | what was said of it last, as a hash |
//!
//! Invariant: a place is made from what is on record, so the next controller understands it as well.

use axum::extract::FromRequestParts;
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::events::Places;
use super::problem::Refusal;
use crate::domain::hex;
use crate::engine::LogPlace;
use crate::wire::api::{EventRecord, LogLine};

/// Longest place that is read.
const LONGEST: usize = 100;
/// What is silent has said everything older than this.
const SILENT: SignedDuration = SignedDuration::from_millis(500);

/// Where the caller was cut off; `None` for whoever begins.
pub struct Resumed(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for Resumed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let Some(value) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        match value.to_str() {
            // Browsers send an empty one for none.
            Ok("") => Ok(Self(None)),
            Ok(place) if place.len() <= LONGEST => Ok(Self(Some(place.to_owned()))),
            Ok(_) | Err(_) => Err(nowhere("it is too long, or no ASCII")),
        }
    }
}

impl Resumed {
    /// The place as this kind of stream writes it.
    pub fn read<T: std::str::FromStr>(self) -> Result<Option<T>, Refusal> {
        self.0.map(|text| text.parse().map_err(|_| nowhere(&text))).transpose()
    }
}

fn nowhere(why: &str) -> Refusal {
    Refusal::unreadable(
        format!("the header `Last-Event-ID` names no place in this stream: {why}"),
        "send the `id` of the last event of this stream, or leave the header out",
    )
}

/// Places in a log.
pub struct InLog(LogPlace);

impl InLog {
    /// From a place on, or from the beginning.
    pub fn after(place: Option<LogPlace>) -> Self {
        Self(place.unwrap_or(LogPlace { at: Timestamp::UNIX_EPOCH, seen: 0 }))
    }
}

impl Places<LogLine> for InLog {
    fn behind(&mut self, line: &LogLine) -> Option<String> {
        self.0.pass(line.at);
        Some(self.0.to_string())
    }

    fn silent(&mut self) -> Option<String> {
        let at = Timestamp::now().checked_sub(SILENT).ok()?;
        if at > self.0.at {
            self.0 = LogPlace { at, seen: 0 };
        }
        Some(self.0.to_string())
    }
}

/// Places among facts.
pub struct InFacts(pub i64);

impl Places<EventRecord> for InFacts {
    fn behind(&mut self, fact: &EventRecord) -> Option<String> {
        self.0 = fact.sequence;
        self.silent()
    }

    fn silent(&mut self) -> Option<String> {
        (self.0 >= 0).then(|| self.0.to_string())
    }
}

/// Places among the states of something.
pub struct InStates;

/// What a state is known by.
pub fn mark(state: &impl Serialize) -> String {
    let text = serde_json::to_vec(state).unwrap_or_default();
    hex::encode(&Sha256::digest(&text)[..12])
}

impl<T: Serialize> Places<T> for InStates {
    fn behind(&mut self, state: &T) -> Option<String> {
        Some(mark(state))
    }
}
