//! Listens to the events of the ledger and writes what each channel is told into the outbox.
//!
//! One task. Neighbours: whoever records a fact records its event in the same transaction; `decide::announce` says what
//! of it people hear; `telling` delivers. A channel waits `window` after something new, so that what happens together
//! is told together; then its messages, its troubles and how far it has come are recorded in one transaction.
//!
//! Invariant: a restart at any moment neither loses an event, nor tells of one twice.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::disk;
use crate::decide::announce::bundle::{Teller, bundle};
use crate::decide::announce::episode::Rules;
use crate::decide::announce::happening::happenings;
use crate::domain::manifest::Bytes;
use crate::domain::{Event, EventKind};
use crate::files::config::{ChannelConfig, ChannelKind};
use crate::ledger::outbox::{self, NOTIFICATION, Post};
use crate::ledger::{Connection, Ledger, LedgerError, announcing, facts};

/// Reminders that are due and the disk are looked after this often.
const ROUND: Duration = Duration::from_secs(60);
/// After an error of the ledger.
const LEDGER_WAIT: Duration = Duration::from_secs(5);
/// Events taken in by one transaction.
const AT_ONCE: u32 = 500;
/// After a commit, others that follow it are waited for.
const BURST: Duration = Duration::from_millis(20);

/// Who is told, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Audience {
    pub channels: Vec<ChannelConfig>,
    pub teller: Teller,
    /// What must be free on the data's disk, where somebody said so.
    pub disk_free: Option<Bytes>,
}

/// The task.
pub(super) struct Announcer {
    ledger: Ledger,
    data_dir: PathBuf,
    audience: watch::Receiver<Arc<Audience>>,
    /// Since when a channel waits for what else happens.
    waiting: HashMap<String, Instant>,
    last_round: Option<Instant>,
}

impl Announcer {
    pub(super) fn new(ledger: Ledger, data_dir: PathBuf, audience: watch::Receiver<Arc<Audience>>) -> Self {
        Self { ledger, data_dir, audience, waiting: HashMap::new(), last_round: None }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut commits = self.ledger.commits();
        loop {
            commits.mark_unchanged();
            let wait = tokio::select! {
                done = self.announce() => done.unwrap_or_else(|error| {
                    warn!(%error, "events cannot be announced");
                    LEDGER_WAIT
                }),
                () = cancel.cancelled() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Others are told now, or of something else.
                changed = self.audience.changed() => if changed.is_err() { return } else { self.audience.mark_changed() },
                changed = commits.changed() => match changed {
                    Ok(()) => tokio::time::sleep(BURST).await,
                    // The ledger is closed: the agent ends.
                    Err(_) => return,
                },
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Does what is due; answers how long to wait.
    async fn announce(&mut self) -> Result<Duration, LedgerError> {
        let other = self.audience.has_changed().unwrap_or(false);
        let audience = Arc::clone(&self.audience.borrow_and_update());
        let round = other || self.last_round.is_none_or(|last| last.elapsed() >= ROUND);
        if round {
            self.last_round = Some(Instant::now());
            self.look_at_disk(audience.disk_free).await?;
        }
        let (newest, heard) =
            self.ledger.read(|ledger| Ok((announcing::newest(ledger)?, announcing::heard(ledger)?))).await?;
        let mut wait = ROUND;
        for channel in &audience.channels {
            let Some(heard) = heard.get(&channel.name) else { continue };
            let news = *heard < newest;
            if news {
                let since = *self.waiting.entry(channel.name.clone()).or_insert_with(Instant::now);
                let left = channel.window.saturating_sub(since.elapsed());
                if !left.is_zero() {
                    wait = wait.min(left);
                    continue;
                }
            } else if !round {
                continue;
            }
            self.waiting.remove(&channel.name);
            let (channel, teller) = (channel.clone(), audience.teller.clone());
            let more = self.ledger.write(move |ledger| hear(ledger, &channel, &teller, Timestamp::now())).await?;
            if more {
                wait = Duration::ZERO;
            }
        }
        Ok(wait)
    }

    async fn look_at_disk(&self, least: Option<Bytes>) -> Result<(), LedgerError> {
        let data_dir = self.data_dir.clone();
        let looked = tokio::task::spawn_blocking(move || disk::problem(&data_dir, least)).await;
        let (kind, message) = match looked.unwrap_or_default() {
            Some(problem) => (EventKind::DiskLow, problem),
            None => (EventKind::DiskRecovered, "the disk with the agent's data has room again".to_owned()),
        };
        let at = Timestamp::now();
        let event = Event { at, kind, app: None, version: None, source: None, object: None, cause: None, message };
        self.ledger.write(move |ledger| announcing::disk(ledger, &event)).await.map(drop)
    }
}

/// Lets a channel hear what is new, and reminds it; answers whether there is more.
fn hear(ledger: &Connection, channel: &ChannelConfig, teller: &Teller, now: Timestamp) -> Result<bool, LedgerError> {
    // The channel may have gone meanwhile.
    let Some(mut heard) = announcing::heard(ledger)?.remove(&channel.name) else { return Ok(false) };
    let mut memory = announcing::memory(ledger, &channel.name)?;
    let programs = matches!(channel.kind, ChannelKind::Webhook { .. } | ChannelKind::Alertmanager { .. });
    let rules = Rules { after: channel.after, reminder: channel.reminder, ends: programs };
    let selects = |word: &str| channel.events.iter().any(|event| event == word);
    let events = facts::events_after(ledger, heard, AT_ONCE)?;
    let more = events.len() >= AT_ONCE as usize;
    let mut announcements = Vec::new();
    for (sequence, event) in events {
        heard = sequence;
        let facts = announcing::facts_of(ledger, &event)?;
        let concerns = match (&channel.apps, &event.app) {
            (None, _) => true,
            (Some(apps), Some(key)) => apps.contains(&key.app) || facts.notify.contains(&channel.name),
            (Some(_), None) => false,
        };
        if !concerns {
            continue;
        }
        for happening in happenings(&event, &facts) {
            announcements.extend(memory.hear(&happening, event.at, rules, &selects));
        }
    }
    announcements.extend(memory.remind(now, rules));
    let id = |_: usize| format!("{:x}-{:08x}", now.as_microsecond(), fastrand::u32(..));
    for notice in bundle(announcements, teller, &id) {
        let body = serde_json::to_string(&notice)
            .map_err(|error| LedgerError::Row { what: "message", detail: error.to_string() })?;
        let post = Post { kind: NOTIFICATION, destination: &channel.name, about: "", body: &body };
        outbox::post(ledger, &post, now)?;
    }
    announcing::save(ledger, &channel.name, heard, &memory)?;
    Ok(more)
}
