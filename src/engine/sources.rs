//! The set of watched sources: who is watched, and how that changes while the agent runs.
//!
//! Owned by the engine's handle. Neighbours: `start` fills it, `reload` changes it, the handle asks it. Invariants: a
//! source that does not change keeps its watcher; a watcher has ended before the record of its source is touched;
//! apps of a source that goes are owned by nobody and go on.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::commands::refuse_the_past;
use super::reconciler::{Input, internal};
use super::records::whole_seconds;
use super::watcher::{self, Tools, Watching};
use super::{Caller, CommandError, Result};
use crate::domain::{Actor, AppKey, Event, EventKind, SourceName, Suspension};
use crate::files::config::SourceConfig;
use crate::ledger::sources::SourceRecord;
use crate::ledger::{Ledger, LedgerError, apps, facts, sources, waits};
use crate::wire::api;

/// A look asked for by a person is waited for this long.
const SYNC_DEADLINE: Duration = Duration::from_secs(120);
/// A watcher that was told to end or to pause does so within this, unless the disk hangs.
const OBEYS: Duration = Duration::from_secs(30);

/// All watched sources.
pub(super) struct Sources {
    tools: Tools,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    watched: RwLock<Arc<Vec<Watching>>>,
    /// The tasks of those in `watched`; held while the set changes.
    running: Mutex<HashMap<SourceName, (CancellationToken, JoinHandle<()>)>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("watched", &self.all().len()).finish_non_exhaustive()
    }
}

/// What a change of the configuration did to the sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub added: Vec<SourceName>,
    pub changed: Vec<SourceName>,
    pub removed: Vec<SourceName>,
}

impl Changed {
    /// What there is to do to get from one list to another.
    pub(super) fn between(before: &[SourceConfig], after: &[SourceConfig]) -> Self {
        let find = |list: &[SourceConfig], name: &SourceName| list.iter().find(|s| s.name == *name).cloned();
        let names = |list: &[SourceConfig]| list.iter().map(|source| source.name.clone()).collect::<Vec<_>>();
        Self {
            added: names(after).into_iter().filter(|name| find(before, name).is_none()).collect(),
            changed: names(after)
                .into_iter()
                .filter(|name| find(before, name).is_some_and(|source| find(after, name) != Some(source)))
                .collect(),
            removed: names(before).into_iter().filter(|name| find(after, name).is_none()).collect(),
        }
    }

    fn ends(&self, name: &SourceName) -> bool {
        self.changed.contains(name) || self.removed.contains(name)
    }
}

impl Sources {
    pub(super) fn new(tools: Tools, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { tools, shutdown, tasks, watched: RwLock::default(), running: Mutex::default() }
    }

    /// All of them, in the configuration's order.
    pub(super) fn all(&self) -> Arc<Vec<Watching>> {
        Arc::clone(&self.watched.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One of them.
    pub(super) fn one(&self, name: &SourceName) -> Result<Watching> {
        self.all().iter().find(|watching| watching.config.name == *name).cloned().ok_or_else(|| {
            CommandError::NotFound {
                what: format!("there is no source {name}"),
                mend: "`landfall source list` shows the sources of the configuration".into(),
            }
        })
    }

    /// Watches exactly these from now on. Sources that are configured as before notice nothing.
    pub(super) async fn set(&self, wanted: &[SourceConfig]) -> std::result::Result<Changed, LedgerError> {
        let mut running = self.running.lock().await;
        let before: Vec<SourceConfig> = self.all().iter().map(|watching| watching.config.clone()).collect();
        let change = Changed::between(&before, wanted);
        let kept: Vec<Watching> =
            self.all().iter().filter(|watching| !change.ends(&watching.config.name)).cloned().collect();
        self.publish(kept.clone());
        for name in change.changed.iter().chain(&change.removed) {
            if let Some((cancel, task)) = running.remove(name) {
                end(name, cancel, task).await;
            }
        }
        let disowned = adopt(&self.tools.ledger, wanted).await?;
        let recorded = self.tools.ledger.read(sources::all).await?;
        let mut watched = Vec::new();
        for config in wanted {
            let started = kept.iter().find(|watching| watching.config == *config).cloned();
            let record = recorded.iter().find(|record| record.name == config.name);
            match (started, record) {
                (Some(watching), _) => watched.push(watching),
                (None, Some(record)) => watched.extend(self.start(config, record, &mut running).await?),
                (None, None) => {}
            }
        }
        self.publish(watched);
        self.forget_caches(&change.removed).await;
        if !disowned.is_empty() {
            // The reconciler may be ending; then the next controller reads it from the ledger.
            let _ = self.tools.inputs.send(Input::Observed { touched: disowned }).await;
        }
        Ok(change)
    }

    /// Removes what was fetched of sources that are gone; nobody uses it any more.
    async fn forget_caches(&self, removed: &[SourceName]) {
        let (cache_dir, removed) = (self.tools.cache_dir.clone(), removed.to_vec());
        let forget = move || removed.iter().for_each(|name| crate::source::forget(&cache_dir, name.as_str()));
        if let Err(error) = tokio::task::spawn_blocking(forget).await {
            warn!(%error, "removing caches broke off; the next start does it");
        }
    }

    fn publish(&self, watched: Vec<Watching>) {
        *self.watched.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(watched);
    }

    async fn start(
        &self,
        config: &SourceConfig,
        record: &SourceRecord,
        running: &mut HashMap<SourceName, (CancellationToken, JoinHandle<()>)>,
    ) -> std::result::Result<Option<Watching>, LedgerError> {
        let name = config.name.clone();
        let known =
            self.tools.ledger.read(move |ledger| Ok((sources::manifests(ledger, &name)?, waits::of(ledger, &name)?)));
        let (manifests, waiting) = known.await?;
        match watcher::prepare(config.clone(), record, &manifests, waiting, self.tools.clone()) {
            Ok((watching, watcher)) => {
                let cancel = self.shutdown.child_token();
                let task = self.tasks.spawn(watcher.run(cancel.clone()));
                running.insert(config.name.clone(), (cancel, task));
                Ok(Some(watching))
            }
            Err(error) => {
                error!("{error}");
                Ok(None)
            }
        }
    }

    /// Looks at a source now; answers when it is decided what follows from the look.
    pub(super) async fn sync(&self, caller: Caller, name: &SourceName) -> Result<()> {
        let watching = self.one(name)?;
        refuse_suspended(&watching)?;
        let (source, at) = (name.clone(), Timestamp::now());
        let audited = self.tools.ledger.write(move |ledger| {
            let detail = serde_json::json!({"source": source});
            facts::audit(ledger, &caller.actor, "source.sync", None, &detail, at)
        });
        audited.await.map_err(internal)?;
        self.look_at(name).await
    }

    /// Has a source looked at, and waits until it is decided what follows.
    pub(super) async fn look_at(&self, name: &SourceName) -> Result<()> {
        let watching = self.one(name)?;
        let (done, looked) = oneshot::channel();
        let unavailable = |what: String| CommandError::Unavailable { what, mend: "try again in a moment".into() };
        watching.asked.send(done).await.map_err(|_| unavailable(format!("source {name} is not watched any more")))?;
        // What the look brought reaches the reconciler before this question does.
        let looked_and_decided = async {
            looked.await?;
            let (reply, settled) = oneshot::channel();
            match self.tools.inputs.send(Input::Settled { reply }).await {
                Ok(()) => settled.await,
                Err(_) => Ok(()),
            }
        };
        match tokio::time::timeout(SYNC_DEADLINE, looked_and_decided).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                Err(unavailable(format!("source {name} is not watched any more, or the agent is about to end")))
            }
            Err(_) => Err(unavailable(format!("the look at source {name} is not over yet; it goes on"))),
        }
    }

    /// Freezes a source: it is not looked at until `until`, or until it is resumed.
    pub(super) async fn suspend(
        &self,
        caller: Caller,
        name: &SourceName,
        request: api::SuspendRequest,
    ) -> Result<Watching> {
        let at = Timestamp::now();
        refuse_the_past(request.until, at)?;
        let suspension = Suspension {
            reason: request.reason.unwrap_or_else(|| "no reason given".to_owned()),
            actor: caller.actor,
            since: at,
            until: request.until,
        };
        let until = suspension.until.map(|until| format!(" until {}", whole_seconds(until))).unwrap_or_default();
        let message = format!("source {name} is suspended{until}: {}", suspension.reason);
        let event = watcher::event(EventKind::Suspended, name, at, message);
        self.set_suspension(name, suspension.actor.clone(), Some(suspension), event).await
    }

    /// Ends the freeze of a source; it is looked at at once.
    pub(super) async fn resume(&self, caller: Caller, name: &SourceName) -> Result<Watching> {
        if self.one(name)?.suspension.borrow().is_none() {
            return Err(CommandError::Conflict {
                what: format!("source {name} is not suspended"),
                mend: "nothing needs to be done".into(),
            });
        }
        let message = format!("source {name} is looked at again");
        let event = watcher::event(EventKind::Resumed, name, Timestamp::now(), message);
        self.set_suspension(name, caller.actor, None, event).await
    }

    /// Records a suspension or its end, then waits until the watcher obeys.
    async fn set_suspension(
        &self,
        name: &SourceName,
        actor: Actor,
        suspension: Option<Suspension>,
        event: Event,
    ) -> Result<Watching> {
        // No reload must put another watcher in this one's place meanwhile.
        let _unchanged = self.running.lock().await;
        let watching = self.one(name)?;
        let (source, wanted) = (name.clone(), suspension.clone());
        let recorded = self.tools.ledger.write(move |ledger| {
            let action = match &wanted {
                Some(suspension) => {
                    sources::set_suspension(ledger, &source, suspension)?;
                    "source.suspend"
                }
                None => {
                    sources::end_suspension(ledger, &source)?;
                    "source.resume"
                }
            };
            facts::event(ledger, &event)?;
            let detail = serde_json::json!({"source": source, "suspension": wanted});
            facts::audit(ledger, &actor, action, None, &detail, event.at)
        });
        recorded.await.map_err(internal)?;
        watching.suspension.send_replace(suspension.clone());
        let mut state = watching.state.clone();
        let obeyed = state.wait_for(|state| state.suspension == suspension);
        match tokio::time::timeout(OBEYS, obeyed).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => warn!(source = %name, "the watcher has not taken over its suspension yet"),
        }
        Ok(watching)
    }
}

fn refuse_suspended(watching: &Watching) -> Result<()> {
    let Some(suspension) = watching.suspension.borrow().clone() else { return Ok(()) };
    let until = suspension.until.map(|until| format!(" until {}", whole_seconds(until))).unwrap_or_default();
    let name = &watching.config.name;
    Err(CommandError::Conflict {
        what: format!("source {name} is suspended by {}{until}: {}", suspension.actor, suspension.reason),
        mend: format!("`landfall source resume {name}` lets it be looked at again"),
    })
}

/// Ends a watcher and waits for it.
async fn end(name: &SourceName, cancel: CancellationToken, task: JoinHandle<()>) {
    cancel.cancel();
    match tokio::time::timeout(OBEYS, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(source = %name, %error, "a watcher ended unexpectedly"),
        Err(_) => warn!(source = %name, "a watcher that is no longer wanted does not end"),
    }
}

/// Makes the configured sources known to the ledger. Apps of a source that is gone go on, owned by nobody; answers
/// which those are.
pub(super) async fn adopt(
    ledger: &Ledger,
    configured: &[SourceConfig],
) -> std::result::Result<BTreeSet<AppKey>, LedgerError> {
    let names: Vec<_> = configured.iter().map(|config| (config.name.clone(), watcher::fingerprint(config))).collect();
    let recorded = ledger.read(sources::all).await?;
    let gone = watcher::no_longer_configured(&recorded, configured);
    let write = ledger.write(move |ledger| {
        let at = Timestamp::now();
        let mut disowned = BTreeSet::new();
        let all = if gone.is_empty() { Vec::new() } else { apps::all(ledger)? };
        for name in &gone {
            let owned = all.iter().filter(|app| app.owner.as_ref().is_some_and(|(owner, _)| owner == name));
            let left: Vec<AppKey> = owned.map(|app| app.key.clone()).collect();
            apps::disown(ledger, name, at)?;
            sources::remove(ledger, name)?;
            facts::event(ledger, &watcher::event(EventKind::SourceRemoved, name, at, removed(name, &left)))?;
            disowned.extend(left);
        }
        super::ownership::hand_over_free(ledger, at)?;
        for (name, fingerprint) in &names {
            sources::ensure(ledger, name, fingerprint)?;
        }
        Ok(disowned)
    });
    write.await
}

/// What becomes of the apps of a source that is gone, in words.
fn removed(name: &SourceName, left: &[AppKey]) -> String {
    /// More names than this are only counted.
    const NAMED: usize = 10;
    let names: Vec<&str> = left.iter().take(NAMED).map(|key| key.app.as_str()).collect();
    match left.len() {
        0 => format!("source {name} is no longer configured; it had no apps"),
        count => format!(
            "source {name} is no longer configured; what it deployed runs on ({}{}): `landfall app stop NAME` stops an app, \
             a source that has its manifest takes it over without a restart",
            names.join(", "),
            if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, path: &str) -> SourceConfig {
        let text = format!("sources: [{{name: {name}, directory: {{path: {path}}}}}]\n");
        let config = crate::files::read_config("/c.yaml".as_ref(), &text, &mut std::iter::empty()).unwrap();
        config.sources.into_iter().next().unwrap()
    }

    #[test]
    fn only_what_differs_is_touched() {
        let before = [source("stays", "/a"), source("moves", "/b"), source("goes", "/c")];
        let after = [source("comes", "/d"), source("moves", "/e"), source("stays", "/a")];
        let change = Changed::between(&before, &after);
        let name = |name: &str| vec![name.parse::<SourceName>().unwrap()];
        assert_eq!(change, Changed { added: name("comes"), changed: name("moves"), removed: name("goes") });
        assert_eq!(Changed::between(&after, &after), Changed::default());
    }
}
