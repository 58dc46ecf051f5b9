//! What the engine says of a container, in the words of the house.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, HealthStatusEnum};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::create::labels;
use super::drift::Shape;
use super::{Known, Shared, Stage, create, names};
use crate::domain::{AppKey, Drift, ExitStatus, InstanceId, VersionNumber};
use crate::runtime::ProbeAnswer;
use crate::wire::supervisor::{ChildKind, Labels};

/// A shell tells an end by signal N as 128 + N, and so does an engine.
const BY_SIGNAL: i64 = 128;
/// The last signal.
const LAST_SIGNAL: i64 = 64;
/// This much of what a check of the image has printed is shown.
const CHECK_OUTPUT: usize = 200;

/// A state that cannot be read has passed after this long …
const SETTLED: Duration = Duration::from_secs(3);
/// … and is asked for so often.
const ASKED_AGAIN: Duration = Duration::from_millis(50);

/// A container as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub id: String,
    pub labels: HashMap<String, String>,
    pub pid: i32,
    pub running: bool,
    pub started: bool,
    pub started_at: Timestamp,
    pub address: Option<IpAddr>,
    pub exit_code: i64,
    pub finished_at: Timestamp,
    pub oom: bool,
    /// Its image says how to find out that it is healthy.
    pub own_check: bool,
    /// It has the machine's own network.
    pub on_host: bool,
    /// What of it can be changed by hand.
    pub shape: Shape,
}

/// What the engine says of a container.
pub(super) async fn inspect(client: &Docker, name: &str) -> Result<ContainerInspectResponse, Error> {
    when_settled(|| client.inspect_container(name, None::<InspectContainerOptions>)).await
}

/// What the engine lists.
pub(super) async fn list(client: &Docker, options: ListContainersOptions) -> Result<Vec<ContainerSummary>, Error> {
    when_settled(|| client.list_containers(Some(options.clone()))).await
}

/// Podman has states of a moment that Docker's API does not know: `stopped` between a container's end and its being put down as
/// `exited`. They cannot be read, and have passed when the engine is asked again.
async fn when_settled<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> Result<T, Error> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(Error::JsonDataError { message, .. })
                if message.contains("unknown variant") && began.elapsed() < SETTLED =>
            {
                tokio::time::sleep(ASKED_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

pub(super) async fn container(client: &Docker, name: &str) -> Result<Seen, Error> {
    let found = inspect(client, name).await?;
    let shape = Shape::of(&found);
    let state = found.state.unwrap_or_default();
    let time = |text: Option<String>| text.and_then(|text| text.parse::<Timestamp>().ok());
    // A container that never ran was started in the year one.
    let real = |at: &Timestamp| at.as_second() > 0;
    let started_at = time(state.started_at).filter(real);
    let of_host = |host: bollard::models::HostConfig| host.network_mode.as_deref() == Some("host");
    let none = |status: &HealthStatusEnum| matches!(status, HealthStatusEnum::EMPTY | HealthStatusEnum::NONE);
    let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let address = networks.into_values().find_map(|network| network.ip_address?.parse().ok());
    Ok(Seen {
        id: found.id.unwrap_or_else(|| name.to_owned()),
        labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
        pid: state.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default(),
        running: state.running.unwrap_or_default(),
        started: started_at.is_some(),
        started_at: started_at.unwrap_or_else(Timestamp::now),
        address,
        exit_code: state.exit_code.unwrap_or_default(),
        finished_at: time(state.finished_at).filter(real).unwrap_or_else(Timestamp::now),
        oom: state.oom_killed.unwrap_or_default(),
        own_check: state.health.and_then(|health| health.status).is_some_and(|status| !none(&status)),
        on_host: found.host_config.is_some_and(of_host),
        shape,
    })
}

/// The instance that a container of ours is, from its labels; `None` when they are not complete.
pub(super) fn known(owner: &str, seen: &Seen) -> Option<(InstanceId, Known)> {
    let text = |label: &str| seen.labels.get(label);
    let instance = InstanceId::from_recorded(text(labels::INSTANCE)?.as_str());
    let app = AppKey::new(text(labels::ENVIRONMENT)?.parse().ok()?, text(labels::APP)?.parse().ok()?);
    let log = PathBuf::from(text(labels::LOG)?);
    let address = create::address_again(&seen.labels, seen.address);
    let known = Known {
        container: seen.id.clone(),
        labels: Labels {
            app,
            version: VersionNumber::new(text(labels::VERSION)?.parse().ok()?)?,
            object: text(labels::OBJECT)?.clone(),
            kind: kind(text(labels::KIND)?)?,
            port: address.map(|address| address.port()),
        },
        log,
        pid: seen.pid,
        started_at: seen.started_at,
        address,
        forwarded: seen.labels.contains_key(labels::PUBLISHED) && !seen.on_host,
        own_check: seen.own_check,
        stage: Stage::Running,
        drift: text(labels::DRIFT).and_then(|word| Drift::from_word(word)).unwrap_or_default(),
        shape: seen.shape.should_be(names::container(owner, &instance), &seen.labels),
        changes: Vec::new(),
        answered: false,
        signalled: None,
        output: None,
    };
    Some((instance, known))
}

pub(super) fn kind_word(kind: ChildKind) -> &'static str {
    match kind {
        ChildKind::Web => "web",
        ChildKind::Function => "function",
        ChildKind::Worker => "worker",
        ChildKind::Build => "build",
    }
}

fn kind(word: &str) -> Option<ChildKind> {
    [ChildKind::Web, ChildKind::Function, ChildKind::Worker, ChildKind::Build]
        .into_iter()
        .find(|kind| kind_word(*kind) == word)
}

/// How a container ended.
pub(super) fn exit(code: i64) -> ExitStatus {
    match code - BY_SIGNAL {
        signal @ 1..=LAST_SIGNAL => ExitStatus::Signal(i32::try_from(signal).unwrap_or_default()),
        _ => ExitStatus::Code(i32::try_from(code).unwrap_or(-1)),
    }
}

/// The signal that ends a container in good order: the image's, else SIGTERM.
pub(super) async fn stop_signal(client: &Docker, name: &str) -> String {
    let found = inspect(client, name).await.ok();
    let signal = found.and_then(|found| found.config?.stop_signal).filter(|signal| !signal.is_empty());
    signal.unwrap_or_else(|| "SIGTERM".to_owned())
}

/// What the image's own check has found; `None` for an image without one.
pub(super) async fn own_health(shared: &Shared, container: &str, limit: Duration) -> Option<ProbeAnswer> {
    let asked = async {
        let client = shared.client().await.ok()?;
        let found = inspect(&client, container).await.ok()?;
        found.state?.health
    };
    let health = tokio::time::timeout(limit, asked).await.ok().flatten()?;
    let last = health.log.unwrap_or_default().pop().and_then(|check| check.output).unwrap_or_default();
    let last: String = last.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHECK_OUTPUT).collect();
    match health.status? {
        HealthStatusEnum::HEALTHY => Some(ProbeAnswer::Good("the image's HEALTHCHECK is content".to_owned())),
        HealthStatusEnum::STARTING => {
            Some(ProbeAnswer::Bad("the image's HEALTHCHECK has not succeeded yet".to_owned()))
        }
        HealthStatusEnum::UNHEALTHY => Some(ProbeAnswer::Bad(format!("the image's HEALTHCHECK fails: {last}"))),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_by_signal_are_told_as_such() {
        assert_eq!(exit(0), ExitStatus::Code(0));
        assert_eq!(exit(3), ExitStatus::Code(3));
        assert_eq!(exit(137), ExitStatus::Signal(9));
        assert_eq!(exit(255), ExitStatus::Code(255));
        assert_eq!(exit(128), ExitStatus::Code(128));
    }
}
