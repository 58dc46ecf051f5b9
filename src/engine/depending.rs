//! The reconciler's part in the order of deployments: who waits for whom, and what is wrong with who names whom.
//!
//! What `decide::depends` needs to know is gathered here; what it answers is carried out here. A deployment that waits
//! stays `pending` and is looked at again when something about those it names changes: they are decided, become live,
//! fail, are healthy. Nobody asks for that in turns, and an app that names nobody is not looked at at all.
//!
//! Invariant: only deployments that a source asks for wait. Names that lead nowhere, or in a circle, are mistakes of the
//! manifest: nothing new of the app is deployed, and what runs goes on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::deployer::Change;
use super::reconciler::Reconciler;
use super::records::{self, AppEntry};
use crate::decide::depends::{self, Graph, Seen, Why, neighbour};
use crate::domain::{Actor, AppKey, AppName, EventKind, SourceName, VersionKind};
use crate::files::manifest::dependency_error;
use crate::files::reader::closest;
use crate::ledger::LedgerError;
use crate::ledger::apps::WantedKind;
use crate::ledger::versions::VersionRecord;

/// Why a deployment is not started yet.
#[derive(Debug)]
pub(super) struct HeldUp {
    /// For people.
    pub words: String,
    /// Somebody it names is about to be decided.
    undecided: bool,
    /// Wait until those it names are healthy; end with this.
    _watching: Vec<AbortOnDropHandle<()>>,
}

/// What is wrong with who names whom.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// Nobody has this name; somebody has one that is like it.
    Unknown { name: AppName, guess: Option<AppName> },
    /// The app waits for itself, this way.
    Cycle(Vec<AppName>),
}

/// What the reconciler knows of who names whom.
#[derive(Debug, Default)]
pub(super) struct Depending {
    graph: Graph,
    faults: BTreeMap<AppKey, (Fault, Option<SourceName>, String)>,
}

impl Depending {
    pub(super) fn of(apps: &BTreeMap<AppKey, AppEntry>) -> Self {
        let mut graph = Graph::default();
        for (key, entry) in apps {
            graph.set(key, named_by(entry));
        }
        Self { graph, faults: BTreeMap::new() }
    }

    /// What is wrong, in words, with the source that says so.
    pub(super) fn told(&self) -> BTreeMap<AppKey, (Option<SourceName>, String)> {
        self.faults.iter().map(|(key, (_, source, words))| (key.clone(), (source.clone(), words.clone()))).collect()
    }
}

/// Whom the newest manifest of an app names.
fn named_by(entry: &AppEntry) -> &[AppName] {
    let app = &entry.recorded.app;
    let asked_for = app.material.as_ref().filter(|_| app.owner.is_some() && app.wanted != WantedKind::Absent);
    asked_for.map(|material| material.manifest.depends_on.as_slice()).unwrap_or_default()
}

/// Whether a deployment of this version waits for those it names.
pub(super) fn is_ordered(version: &VersionRecord) -> bool {
    let by_source = matches!(version.actor, Actor::Source { .. });
    by_source && version.kind == VersionKind::Deploy && !version.material.manifest.depends_on.is_empty()
}

impl Reconciler {
    /// Whether there is an app that others may name: it runs, or somebody asks for it.
    pub(super) fn is_known(&self, key: &AppKey) -> bool {
        let is_there =
            |entry: &AppEntry| entry.recorded.app.wanted != WantedKind::Absent || entry.recorded.live.is_some();
        self.apps.get(key).is_some_and(is_there)
    }

    /// Called after an app's record has changed: whoever that concerns is decided anew.
    pub(super) fn needs_may_have_changed(&mut self, key: &AppKey, was_known: bool) {
        let names = self.apps.get(key).map(named_by).unwrap_or_default().to_vec();
        let changed = self.depending.graph.set(key, &names);
        if changed {
            self.undecided.insert(key.clone());
        }
        if changed || was_known != self.is_known(key) {
            self.undecided.extend(self.depending.graph.all_dependants(key));
        }
        if !self.apps.contains_key(key) {
            self.depending.faults.remove(key);
        }
        self.wake_dependants(key);
    }

    /// Has those looked at again whose deployments wait, for this app among others.
    pub(super) fn wake_dependants(&mut self, key: &AppKey) {
        let waits = |dependant: &&AppKey| self.apps.get(*dependant).is_some_and(|entry| entry.waiting.is_some());
        let waiting: Vec<AppKey> = self.depending.graph.dependants(key).filter(waits).cloned().collect();
        self.undecided.extend(waiting);
    }

    /// After an app was decided: its deployment may have its turn now, and those who waited for the decision are next.
    pub(super) async fn look_again(&mut self, key: &AppKey) {
        if self.apps.get(key).is_some_and(|entry| entry.waiting.is_some() && entry.running.is_none()) {
            self.start_waiting(key).await;
        }
        let waits = |dependant: &&AppKey| {
            let held_up = self.apps.get(*dependant).filter(|entry| entry.waiting.is_some());
            held_up.and_then(|entry| entry.held_up.as_ref()).is_some_and(|held_up| held_up.undecided)
        };
        let waiting: Vec<AppKey> = self.depending.graph.dependants(key).filter(waits).cloned().collect();
        self.undecided.extend(waiting);
    }

    /// Whether a deployment has to wait for those its version names. If so, it is looked at again when that may be over.
    pub(super) async fn is_held_up(&mut self, key: &AppKey, version: &VersionRecord) -> bool {
        let (mut words, mut undecided, mut watching) = (Vec::new(), false, Vec::new());
        let names = if is_ordered(version) { version.material.manifest.depends_on.as_slice() } else { &[] };
        for name in names {
            let needed = neighbour(key, name);
            let mut seen = self.seen(&needed);
            if depends::waits_for(&Seen { ready: true, ..seen.clone() }).is_none() {
                let health = self.tools.fleet.live(needed).await;
                seen.ready = health.as_ref().is_some_and(|health| health.borrow().is_healthy());
                if let Some(mut health) = health.filter(|_| !seen.ready) {
                    let (changes, key) = (self.tools.changes.clone(), key.clone());
                    watching.push(AbortOnDropHandle::new(tokio::spawn(async move {
                        // An end of the watch is news as well: another version is live, or none.
                        let _ = health.wait_for(super::fleet::Progress::is_healthy).await;
                        let _ = changes.send(Change::LookAgain { key }).await;
                    })));
                }
            }
            if let Some(why) = depends::waits_for(&seen) {
                undecided |= why == Why::Undecided;
                words.push(why.words(name));
            }
        }
        let Some(entry) = self.apps.get_mut(key) else { return false };
        if words.is_empty() {
            entry.held_up = None;
            return false;
        }
        let words = words.join("; ");
        if !undecided && entry.held_up.as_ref().is_none_or(|before| before.words != words) {
            info!(app = %key, version = %version.number, "{words}");
        }
        entry.held_up = Some(HeldUp { words, undecided, _watching: watching });
        true
    }

    /// What is known of an app that another one names, but for its health.
    fn seen(&self, key: &AppKey) -> Seen {
        let Some(entry) = self.apps.get(key) else { return Seen::default() };
        let app = &entry.recorded.app;
        let left_open = entry.left_open.as_ref().filter(|(_, deployment)| !deployment.phase.is_live());
        let open = entry.before_its_switch().map(|(version, _)| version);
        let git = entry.git_content();
        let failed = git.is_some() && entry.recorded.failed == git && entry.recorded.live != git;
        Seen {
            undecided: self.undecided.contains(key),
            open: open.or(left_open.map(|(version, _)| version.number)),
            failed: failed && app.hold.is_none(),
            live: app.live.is_some() && app.stop.is_none(),
            ready: false,
        }
    }

    /// Judges whom an app names; tells of a mistake once. `true` when there is one.
    pub(super) async fn judge_needs(&mut self, key: &AppKey) -> Result<bool, LedgerError> {
        let Some(fault) = self.fault(key) else {
            self.depending.faults.remove(key);
            return Ok(false);
        };
        if self.depending.faults.get(key).is_some_and(|(known, ..)| *known == fault) {
            return Ok(true);
        }
        let words = self.fault_words(key, &fault).await;
        let source = self.apps.get(key).and_then(|entry| entry.recorded.app.owner.clone()).map(|(source, _)| source);
        warn!(app = %key, "{words}");
        let mut event = records::event(EventKind::ManifestInvalid, key, None, Timestamp::now(), words.clone());
        event.source.clone_from(&source);
        self.depending.faults.insert(key.clone(), (fault, source, words));
        self.note(event).await?;
        Ok(true)
    }

    fn fault(&self, key: &AppKey) -> Option<Fault> {
        let names = self.depending.graph.needs(key);
        let unknown = names.iter().find(|name| !self.is_known(&neighbour(key, name)));
        if let Some(name) = unknown {
            // Of the same source only: who writes there reads it, and need not know what else runs here.
            let source = |of: &AppKey| {
                let entry = self.apps.get(of)?;
                entry.recorded.app.owner.as_ref().map(|(source, _)| source)
            };
            let others = self.apps.keys().filter(|other| other.environment == key.environment && *other != key);
            let others = others.filter(|other| source(other).is_some_and(|owner| Some(owner) == source(key)));
            let guess = closest(name.as_str(), others.map(|other| other.app.as_str()));
            return Some(Fault::Unknown { name: name.clone(), guess: guess.and_then(|guess| guess.parse().ok()) });
        }
        if names.is_empty() { None } else { self.depending.graph.cycle(key).map(Fault::Cycle) }
    }

    /// A mistake with its place in the manifest, as far as that can be found.
    async fn fault_words(&self, key: &AppKey, fault: &Fault) -> String {
        let (name, message, hint) = match fault {
            Fault::Unknown { name, guess } => {
                let guess = guess.as_ref().map(|guess| format!(", did you mean `{guess}`?")).unwrap_or_default();
                let message =
                    format!("`depends_on` names `{name}`, and environment {} has no such app{guess}", key.environment);
                (name, message, "name an app that a source of this agent has, or add its manifest".to_owned())
            }
            Fault::Cycle(way) => {
                let words: Vec<&str> = way.iter().map(AppName::as_str).collect();
                let message = format!("`depends_on` leads in a circle: {}", words.join(" → "));
                (way.get(1).unwrap_or(&key.app), message, "take one of these out".to_owned())
            }
        };
        let hint = format!("{hint}; until then nothing new of {} is deployed, what runs goes on", key.app);
        let app = self.apps.get(key).map(|entry| &entry.recorded.app);
        let path = app.and_then(|app| app.owner.as_ref()).map(|(_, path)| path.clone()).unwrap_or_default();
        let slash = if path.is_empty() { "" } else { "/" };
        let file = format!("{path}{slash}landfall.yaml");
        let text = match app.and_then(|app| app.material.clone()) {
            Some(material) => {
                let directory =
                    if material.workdir.is_empty() { String::new() } else { format!("{}/", material.workdir) };
                let read = move |store: &crate::store::Store| {
                    store.read_file(&material.tree, &format!("{directory}landfall.yaml"))
                };
                self.tools.workshop.blocking(read).await.ok().flatten()
            }
            None => None,
        };
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        dependency_error(&file, &text, name.as_str(), message, hint).to_string()
    }
}
