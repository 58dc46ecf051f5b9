//! Tells open pages that something has changed, so that they fetch what they show anew.
//!
//! Each page holds one stream. It says *that* something is different and of which apps, never what: the page asks for
//! itself again, so there is one way to draw a thing and a page that missed a message is right again with the next. Facts
//! (what the ledger calls events) come along in words, to be shown and read out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::mpsc;

use super::super::events;
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::viewer::Viewer;
use crate::domain::{AppKey, EventKind, Tone};
use crate::engine::Engine;
use crate::wire::api::EventRecord;

/// Changes that come close together are told once.
const GATHER: Duration = Duration::from_millis(150);
/// Between two looks at the instances: not everything they do is announced.
const LOOK: Duration = Duration::from_secs(1);
/// Messages that may wait for a slow reader.
const QUEUE: usize = 32;
/// Facts told at once; a page that was away gets the newest.
const FACTS: u32 = 50;

/// What an open page is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Told {
    /// Something is different.
    Change {
        /// With these apps (`main/shop`); `None` where it is not known with which.
        apps: Option<BTreeSet<String>>,
    },
    /// Something happened.
    Fact {
        /// In words.
        words: String,
        /// How good or bad that is.
        tone: &'static str,
    },
}

/// `GET /ui/live`: server-sent events until the page goes.
pub(super) async fn live(State(context): Shared, viewer: Viewer) -> Result<Response, Refusal> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let newest = context.engine().events(-1, 1).await?;
    let after = newest.last().map_or(0, |record| record.sequence);
    let pulse = Pulse { engine: context.engine().clone(), viewer, sender, after };
    tokio::spawn(pulse.run());
    Ok(events::answer(receiver, events::Nowhere, context.shutdown()))
}

/// What feeds one stream.
struct Pulse {
    engine: Engine,
    viewer: Viewer,
    sender: mpsc::Sender<Told>,
    /// The last fact that was told.
    after: i64,
}

impl Pulse {
    async fn run(mut self) {
        let mut changes = self.engine.changes();
        let mut instances = self.instances().await;
        loop {
            let moved = tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = tokio::time::sleep(LOOK) => false,
                () = self.sender.closed() => return,
            };
            if moved {
                tokio::time::sleep(GATHER).await;
                changes.mark_unchanged();
            }
            let now = self.instances().await;
            let facts = self.facts().await;
            let mut apps: BTreeSet<String> =
                facts.iter().filter_map(|record| record.event.app.as_ref()).map(place).collect();
            apps.extend(different(&instances, &now));
            instances = now;
            let whole = facts.iter().any(|record| record.event.app.is_none());
            if moved || whole || !apps.is_empty() {
                let known = !apps.is_empty() && !whole;
                let told = Told::Change { apps: known.then_some(apps) };
                if self.sender.send(told).await.is_err() {
                    return;
                }
            }
            for record in facts.iter().filter(|record| is_news(record.event.kind)) {
                let told = Told::Fact { words: record.event.message.clone(), tone: tone(record.event.kind) };
                if self.sender.send(told).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What is different about the instances of an app when this number is.
    async fn instances(&self) -> BTreeMap<String, u64> {
        let mut apps: BTreeMap<String, DefaultHasher> = BTreeMap::new();
        for instance in self.engine.instances(None, None).await.unwrap_or_default() {
            let hasher = apps.entry(format!("{}/{}", instance.environment, instance.app)).or_default();
            (instance.instance.as_str(), instance.state, instance.restarts).hash(hasher);
        }
        apps.into_iter().map(|(app, hasher)| (app, hasher.finish())).collect()
    }

    /// What happened since the last look, as far as they may know.
    async fn facts(&mut self) -> Vec<EventRecord> {
        let Ok(mut facts) = self.engine.events(self.after, FACTS).await else { return Vec::new() };
        if let Some(last) = facts.last() {
            self.after = last.sequence;
        }
        facts.retain(|record| match &record.event.app {
            Some(key) => self.viewer.sees(key),
            None => self.viewer.may(crate::domain::Verb::Read, None),
        });
        facts
    }
}

fn place(key: &AppKey) -> String {
    format!("{}/{}", key.environment, key.app)
}

/// The apps of which one has something that the other has not.
fn different(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let all = before.keys().chain(after.keys());
    all.filter(|app| before.get(*app) != after.get(*app)).cloned().collect()
}

/// Whether people want to be told while they look at something else.
fn is_news(kind: EventKind) -> bool {
    !matches!(kind, EventKind::DeploymentPending | EventKind::DeploymentSucceeded | EventKind::DeploymentCancelled)
}

/// The style of a fact, by how good or bad it is.
pub(super) fn tone(kind: EventKind) -> &'static str {
    match kind.tone() {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Warning => "warn",
        Tone::Quiet => "quiet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_different_when_its_instances_come_go_or_change() {
        let map = |pairs: &[(&str, u64)]| pairs.iter().map(|(app, hash)| ((*app).to_owned(), *hash)).collect();
        let (before, after) = (map(&[("a", 1), ("b", 1), ("c", 1)]), map(&[("a", 1), ("b", 2), ("d", 1)]));
        assert_eq!(different(&before, &after), ["b", "c", "d"].map(str::to_owned).into());
        assert!(different(&before, &before).is_empty());
    }
}
