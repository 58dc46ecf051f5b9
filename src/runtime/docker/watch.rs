//! Hearing of containers that end, whoever ended them.
//!
//! One stream of events while the engine answers. Each time it begins, everything is looked at once: what ended or was
//! removed meanwhile is reported, what is ours and nobody knows is removed. A controller that begins takes over what the
//! engine has of ours; while the engine is away, what is remembered of it, which that look then corrects.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch as channel;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Trouble, is_lost, status, words};
use super::create::labels;
use super::inspect::Seen;
use super::{Known, LAST_OUTPUT, OWNER, Shared, Stage, drift, inspect, output};
use crate::domain::{Drift, ExitStatus, InstanceId};
use crate::runtime::supervisor_link::SupervisorEvent;

/// An engine that does not answer is asked again after this long, then after longer and longer …
const SOON: Duration = Duration::from_millis(250);
/// … up to this.
const AT_LATEST: Duration = Duration::from_secs(5);
/// Events are not relied on alone.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// At the start of a controller whose apps need the engine, it is waited for so long …
const RECOVERY: Duration = Duration::from_secs(15);
/// … or only so long when it is remembered what runs.
const RECOVERY_FROM_MEMORY: Duration = Duration::from_secs(3);

/// An end so soon after somebody's signal is that signal's.
const AFTER_SIGNAL: SignedDuration = SignedDuration::from_secs(120);

/// Between two looks whether an end has been reported.
const END_REPORTED: Duration = Duration::from_millis(5);

/// Watches for ever, once containers are used at all.
pub(super) async fn run(shared: Weak<Shared>, mut needed: channel::Receiver<bool>) {
    if needed.wait_for(|needed| *needed).await.is_err() {
        return;
    }
    let mut pause = SOON;
    loop {
        let Some(strong) = shared.upgrade() else { return };
        match strong.client().await {
            Ok(client) => {
                drop(strong);
                if watch(&shared, &client).await {
                    pause = SOON;
                }
            }
            Err(_) => drop(strong),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AT_LATEST);
    }
}

/// Follows the events until they end; whether there were any to follow.
async fn watch(shared: &Weak<Shared>, client: &Docker) -> bool {
    let Some(strong) = shared.upgrade() else { return false };
    // Events from before the list are heard again: better twice than not at all.
    let since = Timestamp::now().as_second().to_string();
    let of = |filters: [(&str, String); 2]| {
        let filters = filters.map(|(name, value)| (name.to_owned(), vec![value]));
        client.events(Some(EventsOptions { since: Some(since.clone()), until: None, filters: Some(filters.into()) }))
    };
    let containers = of([("type", "container".to_owned()), ("label", format!("{OWNER}={}", strong.owner))]);
    // These carry no labels. An engine that does not tell them is looked at every now and then.
    let networks = of([("type", "network".to_owned()), ("event", "disconnect".to_owned())]);
    let networks = networks.filter(|event| std::future::ready(event.is_ok())).chain(stream::pending());
    let mut events =
        std::pin::pin!(stream::select(containers.map(Some).chain(stream::iter([None])), networks.map(Some)));
    if let Err(error) = look_at_all(&strong, client).await {
        lost(&strong, &error);
        return false;
    }
    drop(strong);
    loop {
        let next = tokio::time::timeout(LOOK_AGAIN, events.next()).await;
        let Some(strong) = shared.upgrade() else { return true };
        match next {
            Ok(Some(Some(Ok(event)))) => heard(&strong, client, &event),
            Ok(Some(Some(Err(error)))) => {
                lost(&strong, &error);
                return true;
            }
            Ok(Some(None) | None) => {
                strong.connection.lost("it has closed the connection");
                return true;
            }
            Err(_) => {
                if let Err(error) = look_at_all(&strong, client).await {
                    lost(&strong, &error);
                    return true;
                }
            }
        }
    }
}

fn lost(shared: &Shared, error: &Error) {
    shared.connection.lost(&words(error));
}

fn heard(shared: &Arc<Shared>, client: &Docker, event: &EventMessage) {
    let Some(attributes) = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref()) else { return };
    let by_container = |container: &String| {
        let of = |known: &HashMap<InstanceId, Known>| {
            known.iter().find(|(_, known)| &known.container == container).map(|(id, _)| id.clone())
        };
        shared.with(|known| of(known))
    };
    let labelled = attributes.get(labels::INSTANCE).map(|text| InstanceId::from_recorded(text.as_str()));
    let Some(instance) = labelled.or_else(|| attributes.get("container").and_then(by_container)) else { return };
    let action = event.action.as_deref().unwrap_or_default();
    let code = || attributes.get("exitCode").and_then(|code| code.parse::<i64>().ok());
    match action {
        "die" => ended(shared, &instance, code()),
        "destroy" => ended(shared, &instance, None),
        "kill" => shared.with(|known| {
            let known = known.get_mut(&instance).filter(|known| known.stage == Stage::Running);
            // Others tell a program to read its files anew, or the like.
            let ends = attributes.get("signal").is_none_or(|signal| ["2", "3", "9", "15"].contains(&signal.as_str()));
            if let Some(known) = known.filter(|_| ends) {
                known.signalled = Some(Timestamp::now());
            }
        }),
        "pause" | "unpause" | "rename" | "update" | "disconnect" => {
            let (shared, client) = (Arc::clone(shared), client.clone());
            tokio::spawn(async move {
                if let Err(error) = drift::look(&shared, &client, &instance).await {
                    tracing::debug!(%instance, error = words(&error), "a changed container cannot be looked at");
                }
            });
        }
        _ => {}
    }
}

async fn list(shared: &Shared, client: &Docker) -> Result<Vec<(String, Option<InstanceId>, bool)>, Error> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![format!("{OWNER}={}", shared.owner)])])),
        ..Default::default()
    };
    let found = inspect::list(client, options).await?;
    let of_ours = found.into_iter().filter_map(|container| {
        let labels_found = container.labels.unwrap_or_default();
        let instance = labels_found.get(labels::INSTANCE).map(|text| InstanceId::from_recorded(text.as_str()));
        let state = container.state.map(|state| state.to_string()).unwrap_or_default();
        let alive = matches!(state.as_str(), "running" | "paused" | "restarting" | "created" | "stopping");
        Some((container.id?, instance, alive))
    });
    Ok(of_ours.collect())
}

async fn look_at_all(shared: &Arc<Shared>, client: &Docker) -> Result<(), Error> {
    // What is started while the list is made may not be on it.
    let before: HashSet<InstanceId> = shared.with(|known| {
        let settled = known.iter().filter(|(_, known)| matches!(known.stage, Stage::Running | Stage::Stopping));
        settled.map(|(id, _)| id.clone()).collect()
    });
    let found = list(shared, client).await?;
    let mut listed = HashSet::new();
    for (container, instance, alive) in found {
        let known = instance.as_ref().is_some_and(|id| shared.with(|known| known.contains_key(id)));
        match instance.clone().filter(|_| known) {
            Some(instance) => {
                if !alive {
                    ended(shared, &instance, None);
                }
                listed.insert(instance);
            }
            None => remove_stray(shared, &container, instance.as_ref()).await,
        }
    }
    for gone in before.difference(&listed) {
        ended(shared, gone, None);
    }
    drift::look_at_all(shared, client).await
}

/// Removes a container of this agent that nobody knows any more, with what its instance has on this machine.
async fn remove_stray(shared: &Shared, container: &str, instance: Option<&InstanceId>) {
    tracing::warn!(container, "a container of this agent that nobody knows any more is removed");
    shared.remove_container(container).await;
    if let Some(instance) = instance {
        shared.clear(instance).await;
    }
}

/// Looks at one instance that has just been started: it may have ended unheard.
pub(super) fn look_at(shared: &Arc<Shared>, instance: &InstanceId) {
    let (shared, instance) = (Arc::clone(shared), instance.clone());
    tokio::spawn(async move {
        let Some(container) = shared.with(|known| known.get(&instance).map(|known| known.container.clone())) else {
            return;
        };
        let Ok(client) = shared.client().await else { return };
        match inspect::container(&client, &container).await {
            Ok(seen) if !seen.running => ended(&shared, &instance, Some(seen.exit_code)),
            Err(error) if status(&error) == Some(404) => ended(&shared, &instance, None),
            Ok(_) | Err(_) => {}
        }
    });
}

/// Looks whether an instance has ended unheard; if so, waits until that is reported.
pub(super) async fn when_ended(shared: &Arc<Shared>, instance: &InstanceId) {
    let stage = || shared.with(|known| known.get(instance).map(|known| known.stage.clone()));
    let ending = async {
        if stage() == Some(Stage::Running) {
            let container = shared.with(|known| known.get(instance).map(|known| known.container.clone()));
            let client = shared.client().await.ok();
            let (Some(container), Some(client)) = (container, client) else { return };
            match inspect::container(&client, &container).await {
                Ok(seen) if !seen.running => ended(shared, instance, Some(seen.exit_code)),
                Ok(_) | Err(_) => return,
            }
        }
        while matches!(stage(), Some(Stage::Ending { .. })) {
            tokio::time::sleep(END_REPORTED).await;
        }
    };
    // Longer than the last output is waited for, nobody waits here.
    let _ = tokio::time::timeout(LAST_OUTPUT, ending).await;
}

/// An instance has ended: reported once, after its last output.
fn ended(shared: &Arc<Shared>, instance: &InstanceId, code: Option<i64>) {
    let found = shared.with(|known| {
        let known = known.get_mut(instance)?;
        let stopped = match known.stage {
            Stage::Running => false,
            Stage::Stopping => true,
            // Not started yet: whoever starts it looks at it then.
            Stage::Starting | Stage::Ending { .. } | Stage::Ended { .. } => return None,
        };
        known.stage = Stage::Ending { stopped };
        let signalled = known.signalled.is_some_and(|at| Timestamp::now().duration_since(at) < AFTER_SIGNAL);
        // Landfall's own probes may have noticed before the engine said so: then it was told to stop as well.
        let by_hand = signalled && known.drift != Drift::Off;
        Some((known.container.clone(), known.log.clone(), known.output.take(), stopped, by_hand))
    });
    let Some((container, log, reader, stopped, by_hand)) = found else { return };
    let (shared, instance) = (Arc::clone(shared), instance.clone());
    tokio::spawn(async move {
        let seen = match shared.client().await {
            Ok(client) => inspect::container(&client, &container).await.ok().filter(|seen| !seen.running),
            Err(_) => None,
        };
        if let Some(reader) = reader {
            // Ends by itself with the container's output.
            let _ = tokio::time::timeout(LAST_OUTPUT, reader).await;
        }
        let status = match (&seen, code) {
            (Some(seen), _) => inspect::exit(seen.exit_code),
            (None, Some(code)) => inspect::exit(code),
            (None, None) => ExitStatus::Unknown,
        };
        let oom = seen.as_ref().is_some_and(|seen| seen.oom);
        let at = seen.as_ref().map_or_else(Timestamp::now, |seen| seen.finished_at);
        if by_hand {
            drift::ended_by_hand(&shared, &instance).await;
        }
        let removed = if seen.is_none() { " (the container is gone)" } else { "" };
        let why = if oom { " (out of memory)" } else { removed };
        shared.say(&log, &format!("ended: {status}{why}")).await;
        shared.close(&log).await;
        let report = shared.with(|known| {
            let known = known.get_mut(&instance)?;
            known.stage = Stage::Ended { status, at, oom, stopped };
            Some(known.report(&instance))
        });
        if let Some(child) = report {
            // Nobody to hear it: the controller is ending.
            let _ = shared.ends.send(SupervisorEvent::Exited(Box::new(child))).await;
        }
    });
}

/// Takes over what an earlier controller left in the engine; while the engine is away, what is remembered of it.
pub(super) async fn recover(shared: &Arc<Shared>, needed: bool) {
    let records = shared.remembered.clone();
    let remembered = tokio::task::spawn_blocking(move || records.all()).await.unwrap_or_default();
    // What no app needs any more has to be ended all the same.
    let needed = needed || !remembered.is_empty();
    let patience = match (needed, remembered.is_empty()) {
        (false, _) => Duration::ZERO,
        (true, false) => RECOVERY_FROM_MEMORY,
        (true, true) => RECOVERY,
    };
    let found = match wait_for_engine(shared, patience).await {
        Ok(client) => adopt(shared, &client, &remembered).await.map_err(|error| {
            if is_lost(&error) {
                lost(shared, &error);
            }
            format!("containers of this agent cannot be listed: {}", words(&error))
        }),
        Err(trouble) => Err(trouble.to_string()),
    };
    let needed = match found {
        Ok(found) => needed || found > 0,
        Err(trouble) => {
            if needed {
                let containers = remembered.len();
                tracing::warn!(
                    trouble,
                    containers,
                    "containers are taken to run as remembered until the engine answers"
                );
            }
            for seen in &remembered {
                take_as_remembered(shared, seen).await;
            }
            needed
        }
    };
    if needed {
        shared.need();
    }
}

/// A client of the engine; the engine is waited for so long.
async fn wait_for_engine(shared: &Shared, patience: Duration) -> Result<Docker, Trouble> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut told = false;
    loop {
        match shared.client().await {
            Ok(client) => return Ok(client),
            Err(trouble) if tokio::time::Instant::now() >= deadline => return Err(trouble),
            Err(trouble) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%trouble, "waiting for the container engine");
                }
                tokio::time::sleep(SOON).await;
            }
        }
    }
}

/// An instance that ran when it was last seen, and may have ended since: it counts as running until the engine says.
async fn take_as_remembered(shared: &Arc<Shared>, seen: &Seen) {
    let Some((instance, mut known)) = inspect::known(&shared.owner, seen) else { return };
    // The engine may have shown some before it went away.
    if !shared.knows(&instance) {
        known.output = Some(read_on(shared, seen, &known.log).await);
        shared.with(|all| all.insert(instance, known));
    }
}

/// Goes on bringing a container's output where an earlier controller left off.
async fn read_on(shared: &Arc<Shared>, seen: &Seen, log: &Path) -> AbortOnDropHandle<()> {
    shared.open(log).await;
    let path = shared.logs.join(log);
    let after = tokio::task::spawn_blocking(move || output::last_line(&path)).await.ok().flatten();
    output::follow(shared, seen.id.clone(), log.to_owned(), after)
}

async fn adopt(shared: &Arc<Shared>, client: &Docker, remembered: &[Seen]) -> Result<usize, Error> {
    let found = list(shared, client).await?;
    let count = found.len();
    for (container, _, _) in found {
        let seen = match inspect::container(client, &container).await {
            Ok(seen) => seen,
            Err(error) if status(&error) == Some(404) => continue,
            Err(error) => return Err(error),
        };
        let Some((instance, mut known)) = inspect::known(&shared.owner, &seen).filter(|_| seen.started) else {
            // Made and never started, or not labelled as we do.
            shared.remove_container(&container).await;
            continue;
        };
        let mut reader = read_on(shared, &seen, &known.log).await;
        if seen.running {
            known.output = Some(reader);
            let is_this = |of: &Seen| (&of.id, of.pid, of.address) == (&seen.id, seen.pid, seen.address);
            if !remembered.iter().any(is_this) {
                shared.remember(&instance, &seen).await;
            }
        } else {
            // The rest of what it wrote, before it is removed.
            let _ = tokio::time::timeout(LAST_OUTPUT, &mut reader).await;
            let status = inspect::exit(seen.exit_code);
            let why = if seen.oom { " (out of memory)" } else { "" };
            shared.say(&known.log, &format!("ended: {status}{why}")).await;
            shared.close(&known.log).await;
            known.stage = Stage::Ended { status, at: seen.finished_at, oom: seen.oom, stopped: false };
        }
        shared.with(|all| all.insert(instance, known));
    }
    let strong = Arc::clone(shared);
    let swept = tokio::task::spawn_blocking(move || {
        strong.secret_files.sweep(|instance| strong.knows(&InstanceId::from_recorded(instance)));
        strong.remembered.sweep(|instance| strong.knows(instance));
    });
    if let Err(error) = swept.await {
        tracing::error!(%error, "what containers that are gone left on this machine was not swept");
    }
    Ok(count)
}
