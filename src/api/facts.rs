//! `GET /v1/events`: what happened, as a list or as it happens.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::events;
use super::extract::Asked;
use super::pages::List;
use super::peer::Asker;
use super::places::{InFacts, Resumed};
use super::problem::Refusal;
use super::routes::{Context, Shared, limit};
use crate::domain::Access;
use crate::engine::{CommandError, Engine};
use crate::wire::api::EventRecord;

/// Facts that are read at once while they are followed.
const PAGE: u32 = 500;
/// Facts that may wait for a slow reader.
const QUEUE: usize = 256;
/// Some facts are recorded without anybody being told; they are found after this.
const LOOK: Duration = Duration::from_millis(300);
/// Pause before the ledger is asked again that could not be read.
const RETRY: Duration = Duration::from_secs(2);

/// What of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FactsQuery {
    /// Only facts with a greater number; below 0 the newest.
    #[serde(default)]
    after: i64,
    /// Most entries of the answer: 1 to 1000, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Go on behind the page before: its `next`.
    cursor: Option<String>,
    /// Answer with a stream of events, and go on with what comes.
    #[serde(default)]
    follow: bool,
}

/// `GET /v1/events`
pub(super) async fn list(
    State(context): Shared,
    Asker(access): Asker,
    resumed: Resumed,
    Asked(query): Asked<FactsQuery>,
) -> Result<Response, Refusal> {
    let limit = limit(query.limit)?;
    let engine = context.engine().clone();
    if !query.follow {
        let after = List::Facts.place(query.cursor.as_ref())?.unwrap_or(query.after);
        // Behind the newest there is nothing.
        let more = u32::from(after >= 0);
        let found = page(&engine, &access, after, limit + more).await?;
        return Ok(Answer(List::Facts.page(found, limit, |record| record.sequence)).into_response());
    }
    let after = resumed.read()?.unwrap_or(query.after);
    Ok(follow(&context, access, after, limit).await?)
}

/// Facts after a place that the caller may see; below 0 the newest.
async fn page(engine: &Engine, access: &Access, after: i64, limit: u32) -> Result<Vec<EventRecord>, CommandError> {
    let mut found: Vec<EventRecord> = Vec::new();
    let mut after = after;
    loop {
        let page = engine.events(after, limit).await?;
        let newest = page.last().map(|record| record.sequence);
        let is_last = page.len() < limit as usize || after < 0;
        found.extend(page.into_iter().filter(|record| is_seen(access, record)));
        found.truncate(limit as usize);
        match newest {
            Some(newest) if !is_last && found.len() < limit as usize => after = newest,
            Some(_) | None => return Ok(found),
        }
    }
}

fn is_seen(access: &Access, record: &EventRecord) -> bool {
    match &record.event.app {
        Some(key) => access.sees(key),
        None => !access.scope.is_narrow(),
    }
}

async fn follow(context: &Context, access: Access, after: i64, limit: u32) -> Result<Response, CommandError> {
    let engine = context.engine().clone();
    let mut changes = engine.changes();
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Where the newest are asked for, what comes later is known by its number from the first.
    let newest = engine.events(-1, 1).await?.last().map_or(0, |record| record.sequence);
    let first = if after < 0 { page(&engine, &access, after, limit).await? } else { Vec::new() };
    let start = if after < 0 { first.last().map_or(newest, |record| record.sequence.max(newest)) } else { after };
    let places = InFacts(start);
    tokio::spawn(async move {
        for record in first {
            if sender.send(record).await.is_err() {
                return;
            }
        }
        let mut after = start;
        loop {
            changes.mark_unchanged();
            let found = match engine.events(after, PAGE).await {
                Ok(found) => found,
                // To end here would say that there are no more.
                Err(error) => {
                    tracing::warn!(%error, "events cannot be followed");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let whole = found.len() == PAGE as usize;
            for record in found {
                after = record.sequence;
                if is_seen(&access, &record) && sender.send(record).await.is_err() {
                    return;
                }
            }
            if whole {
                continue;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(events::answer(receiver, places, context.shutdown()))
}
