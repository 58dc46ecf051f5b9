//! Containers that somebody changes by hand: paused, renamed, given other limits, taken off their network, stopped.
//!
//! Looked at when the engine tells of a change, whenever its events begin, and every now and then besides. A container is
//! compared with what it was right after its start; one that was found again, with what its labels say was asked for. Each
//! change is told once, in the instance's log and as an event. What `drift: correct` does about it is the least that puts it
//! right: a pause and a name are taken back, for anything else another instance takes the place. What is done within a
//! container (`docker exec`, `docker cp`) is not seen.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use bollard::query_parameters::RenameContainerOptions;
use serde::{Deserialize, Serialize};

use super::connection::words;
use super::create::labels;
use super::{Shared, Stage, inspect};
use crate::domain::manifest::Resources;
use crate::domain::{Drift, InstanceId};
use crate::runtime::supervisor_link::{Drifted, SupervisorEvent};

/// What of a running container can be changed by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub name: String,
    pub paused: bool,
    /// It is in no network although it was.
    pub networks: usize,
    /// The kinds of [`LIMITS`], in their order; 0 for none.
    pub limits: [i64; LIMITS.len()],
    /// The engine starts it again by itself.
    pub restarts: bool,
}

/// The limits that are compared.
const LIMITS: [&str; 3] = ["memory", "cpu", "processes"];

/// Limits as a label holds them: those that were asked for.
pub(super) fn limits_asked(resources: &Resources) -> String {
    let asked = [
        resources.memory.map(|memory| memory.0),
        resources.cpu_millis.map(|millis| u64::from(millis) * 1_000_000),
        resources.processes.map(u64::from),
    ];
    let words = LIMITS.iter().zip(asked).filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    words.collect::<Vec<_>>().join(" ")
}

impl Shape {
    /// As the engine describes it.
    pub fn of(found: &ContainerInspectResponse) -> Self {
        let host = found.host_config.as_ref();
        let limit =
            |read: fn(&bollard::models::HostConfig) -> Option<i64>| host.and_then(read).unwrap_or_default().max(0);
        let policy = host.and_then(|host| host.restart_policy.as_ref()?.name);
        Self {
            name: found.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
            paused: found.state.as_ref().and_then(|state| state.paused).unwrap_or_default(),
            networks: found
                .network_settings
                .as_ref()
                .and_then(|settings| settings.networks.as_ref())
                .map_or(0, HashMap::len),
            limits: [limit(|host| host.memory), limit(|host| host.nano_cpus), limit(|host| host.pids_limit)],
            restarts: policy
                .is_some_and(|policy| !matches!(policy, RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY)),
        }
    }

    /// What a container that was found again should be: as its labels say, and as it is where they say nothing.
    pub fn should_be(&self, name: String, labels_found: &HashMap<String, String>) -> Self {
        let mut limits = self.limits;
        let asked = labels_found.get(labels::LIMITS).map(String::as_str).unwrap_or_default();
        for (name, value) in asked.split(' ').filter_map(|word| word.split_once('=')) {
            for (limit, _) in limits.iter_mut().zip(LIMITS).filter(|(_, known)| *known == name) {
                *limit = value.parse().unwrap_or(*limit);
            }
        }
        Self { name, paused: false, networks: self.networks.max(1), limits, restarts: false }
    }

    /// What of `now` is not as this says.
    fn changes(&self, now: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if now.paused && !self.paused {
            changes.push(Change::Paused);
        }
        if now.name != self.name {
            changes.push(Change::Renamed { now: now.name.clone() });
        }
        if now.networks < self.networks {
            changes.push(Change::OffNetwork);
        }
        let limits = LIMITS.iter().zip(self.limits.iter().zip(now.limits));
        changes.extend(limits.filter(|(_, (was, now))| **was != *now).map(|(what, (was, now))| Change::Limit {
            what,
            was: *was,
            now,
        }));
        if now.restarts && !self.restarts {
            changes.push(Change::Restarts);
        }
        changes
    }
}

/// Something that was done by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Paused,
    Renamed { now: String },
    OffNetwork,
    Limit { what: &'static str, was: i64, now: i64 },
    Restarts,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |value: i64| if value == 0 { "none".to_owned() } else { value.to_string() };
        match self {
            Self::Paused => f.write_str("it was paused"),
            Self::Renamed { now } => write!(f, "it was renamed to {now}"),
            Self::OffNetwork => f.write_str("it was taken off its network"),
            Self::Limit { what, was, now } => {
                write!(f, "its limit of {what} is {} instead of {}", limit(*now), limit(*was))
            }
            Self::Restarts => f.write_str("it has a restart policy of the engine"),
        }
    }
}

fn in_words(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Looks at one instance, and does what its `drift` says about what is not as it should be.
pub(super) async fn look(shared: &Arc<Shared>, client: &Docker, instance: &InstanceId) -> Result<(), Error> {
    let found = shared.with(|known| {
        let known = known.get(instance).filter(|known| known.stage == Stage::Running && known.drift != Drift::Off)?;
        Some((known.container.clone(), known.shape.clone(), known.drift))
    });
    let Some((container, shape, drift)) = found else { return Ok(()) };
    let seen = match inspect::container(client, &container).await {
        Ok(seen) if seen.running => seen,
        // One that has ended is another's business.
        Ok(_) => return Ok(()),
        Err(error) if super::connection::status(&error) == Some(404) => return Ok(()),
        Err(error) => return Err(error),
    };
    let changes = shape.changes(&seen.shape);
    let fresh = shared.with(|known| {
        let known = known.get_mut(instance)?;
        let fresh: Vec<Change> = changes.iter().filter(|change| !known.changes.contains(change)).cloned().collect();
        known.changes.clone_from(&changes);
        Some(fresh).filter(|fresh| !fresh.is_empty())
    });
    let Some(fresh) = fresh else { return Ok(()) };
    let (done, replace) = match drift {
        Drift::Correct => put_right(client, &container, &shape.name, &fresh).await,
        Drift::Warn | Drift::Off => ("it is left so (`drift: warn`)".to_owned(), false),
    };
    if drift == Drift::Correct && !replace {
        shared.with(|known| known.get_mut(instance).map(|known| known.changes.clear()));
    }
    tell(shared, instance, &format!("{}; {done}", in_words(&fresh)), replace).await;
    Ok(())
}

/// The least that puts it right: what was done, and whether another instance has to take the place.
async fn put_right(client: &Docker, container: &str, name: &str, changes: &[Change]) -> (String, bool) {
    let mut done = Vec::new();
    for change in changes {
        let result = match change {
            Change::Paused => client.unpause_container(container).await.map(|()| "it goes on"),
            Change::Renamed { .. } => {
                let options = RenameContainerOptions { name: name.to_owned() };
                client.rename_container(container, options).await.map(|()| "it has its name again")
            }
            Change::OffNetwork | Change::Limit { .. } | Change::Restarts => {
                return ("another takes its place".to_owned(), true);
            }
        };
        match result {
            Ok(words) => done.push(words),
            Err(error) => return (format!("that cannot be undone ({}), another takes its place", words(&error)), true),
        }
    }
    (done.join(", "), false)
}

/// An instance has ended soon after somebody sent it a signal.
pub(super) async fn ended_by_hand(shared: &Shared, instance: &InstanceId) {
    tell(shared, instance, "it was stopped or removed; another is started", false).await;
}

async fn tell(shared: &Shared, instance: &InstanceId, words: &str, replace: bool) {
    let found = shared.with(|known| known.get(instance).map(|known| (known.container.clone(), known.log.clone())));
    let Some((container, log)) = found else { return };
    shared.say(&log, &format!("changed by hand: {words}")).await;
    let short: String = container.chars().take(12).collect();
    let drifted = Drifted {
        instance: instance.clone(),
        message: format!("container {short} was changed by hand: {words}"),
        replace,
    };
    // Nobody to hear it: the controller is ending.
    let _ = shared.ends.send(SupervisorEvent::Drifted(Box::new(drifted))).await;
}

/// Looks at all instances that run.
pub(super) async fn look_at_all(shared: &Arc<Shared>, client: &Docker) -> Result<(), Error> {
    let running: Vec<InstanceId> = shared.with(|known| {
        let running = known.iter().filter(|(_, known)| known.stage == Stage::Running);
        running.map(|(id, _)| id.clone()).collect()
    });
    for instance in running {
        look(shared, client, &instance).await?;
    }
    Ok(())
}

/// What is known of changes that stay: each instance's, in words.
pub(super) fn standing(shared: &Shared) -> Vec<String> {
    shared.with(|known| {
        let changed = known.values().filter(|known| known.stage == Stage::Running && !known.changes.is_empty());
        let mut all: Vec<String> = changed
            .map(|known| {
                let (of, changes) = (&known.labels, in_words(&known.changes));
                let container: String = known.container.chars().take(12).collect();
                format!(
                    "container {container} of {} {} ({}) was changed by hand: {changes}; `docker inspect {container}` shows it, `landfall instance stop` has it replaced",
                    of.app.app, of.version, of.object
                )
            })
            .collect();
        all.sort();
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::Bytes;

    fn shape() -> Shape {
        Shape { name: "a".into(), networks: 1, limits: [64, 0, 32], ..Shape::default() }
    }

    #[test]
    fn every_change_is_told_for_what_it_is() {
        assert_eq!(shape().changes(&shape()), vec![]);
        let now = Shape { name: "b".into(), paused: true, networks: 0, limits: [128, 0, 0], restarts: true };
        let words = in_words(&shape().changes(&now));
        assert_eq!(
            words,
            "it was paused, it was renamed to b, it was taken off its network, its limit of memory is 128 instead of 64, its limit of processes is none instead of 32, it has a restart policy of the engine"
        );
        // A network more takes nothing away.
        assert_eq!(shape().changes(&Shape { networks: 2, ..shape() }), vec![]);
    }

    #[test]
    fn one_that_is_found_again_should_be_as_it_was_asked_for() {
        let resources = Resources { memory: Some(Bytes(64)), cpu_millis: None, processes: Some(32) };
        let asked = limits_asked(&resources);
        assert_eq!(asked, "memory=64 processes=32");
        let found = Shape { name: "b".into(), paused: true, networks: 0, limits: [128, 7, 32], restarts: true };
        let should_be = found.should_be("a".into(), &HashMap::from([(labels::LIMITS.to_owned(), asked)]));
        let expected = Shape { name: "a".into(), networks: 1, limits: [64, 7, 32], ..Shape::default() };
        assert_eq!(should_be, expected);
    }
}
