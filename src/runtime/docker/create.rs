//! Making and starting a container.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions, PortBinding,
    RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};

use super::connection::{Reach, is_lost, status, words};
use super::drift::Shape;
use super::{Known, OWNER, Shared, Stage, drift, images, inspect, names, output};
use crate::domain::InstanceId;
use crate::domain::manifest::{Millis, defaults};
use crate::runtime::supervisor_link::StartError;
use crate::secret_files::Readers;
use crate::wire::supervisor::{Child, ChildKind, ContainerRequest, StartRequest};

/// The labels of a container, besides [`OWNER`].
pub(super) mod labels {
    pub const ENVIRONMENT: &str = "landfall.environment";
    pub const APP: &str = "landfall.app";
    pub const VERSION: &str = "landfall.version";
    pub const OBJECT: &str = "landfall.object";
    pub const INSTANCE: &str = "landfall.instance";
    pub const KIND: &str = "landfall.kind";
    /// The port within that was told.
    pub const PORT: &str = "landfall.port";
    /// The port of this machine that leads there, where one does.
    pub const PUBLISHED: &str = "landfall.published";
    /// The log file, relative to the directory with all log files.
    pub const LOG: &str = "landfall.log";
    /// What is done when somebody changes it by hand.
    pub const DRIFT: &str = "landfall.drift";
    /// The limits that were asked for.
    pub const LIMITS: &str = "landfall.limits";
    /// Milliseconds between the stop signal and SIGKILL.
    pub const GRACE: &str = "landfall.grace";
}

/// The engine's own copy of what a container writes: enough to read on after a controller was away, and no more.
const LOG_COPY: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "2")];
/// How the machine is called from within.
const MACHINE: &str = "host.docker.internal";

/// Why the engine refused, as the fleet knows it.
fn start_error(error: &Error) -> StartError {
    let text = words(error);
    let lower = text.to_lowercase();
    let is = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if is(&["executable file not found", "no such file or directory: unknown", "no command specified"]) {
        return StartError::NotFound(format!("{text}. Name a program that the image has in `command`"));
    }
    if is(&["permission denied", "not a directory: unknown"]) {
        return StartError::NotPermitted(text);
    }
    StartError::Io(text)
}

pub(super) async fn start(shared: &Arc<Shared>, request: &StartRequest) -> Result<Child, StartError> {
    let Some(wanted) = &request.container else {
        return Err(StartError::NotFound("the version has no image yet".to_owned()));
    };
    let settings = shared.settings.load_full();
    let connected = shared.connection.connected(&settings).await;
    let (client, reach) = connected.map_err(|trouble| StartError::Io(trouble.to_string()))?;
    let result = started(shared, &client, reach, request, wanted).await;
    if let Err(error) = &result
        && is_lost(error)
    {
        shared.connection.lost(&words(error));
    }
    result.map_err(|error| start_error(&error))
}

async fn started(
    shared: &Arc<Shared>,
    client: &Docker,
    reach: Reach,
    request: &StartRequest,
    wanted: &ContainerRequest,
) -> Result<Child, Error> {
    make_volumes(shared, client, request, wanted).await?;
    let name = names::container(&shared.owner, &request.instance);
    let secret_files = put_secret_files(shared, request)?;
    let body = body(shared, reach, request, wanted, secret_files.as_deref());
    let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
    let created = match client.create_container(Some(options.clone()), body.clone()).await {
        // Somebody has removed the image behind our back.
        Err(error) if status(&error) == Some(404) && words(&error).to_lowercase().contains("image") => {
            shared.say(&request.log, "the image is not there any more; it is fetched again").await;
            images::fetch_again(shared, client, &wanted.image).await?;
            client.create_container(Some(options), body).await
        }
        other => other,
    };
    let id = match created {
        Ok(created) => created.id,
        // Made before by a controller that ended in between.
        Err(error) if status(&error) == Some(409) => name.clone(),
        Err(error) => return Err(error),
    };
    shared.with(|known| {
        if let Some(known) = known.get_mut(&request.instance) {
            known.container.clone_from(&id);
        }
    });
    client.start_container(&id, None::<StartContainerOptions>).await?;
    let seen = inspect::container(client, &id).await?;
    shared.remember(&request.instance, &seen).await;
    let port = wanted.port.unwrap_or_default();
    let address = match (request.labels.port, reach) {
        (None, _) | (_, Reach::Published | Reach::Host) => None,
        (Some(_), Reach::Address) => seen.address.map(|ip| SocketAddr::new(ip, port)),
    };
    let address = match reach {
        Reach::Host => request.labels.port.map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Reach::Address | Reach::Published => address,
    };
    let image = wanted.image.name();
    let short: String = id.chars().take(12).collect();
    shared.say(&request.log, &format!("started, container {short} of {image}, pid {}", seen.pid)).await;
    let reader = output::follow(shared, id.clone(), request.log.clone(), None);
    let shape = Shape { name, paused: false, ..seen.shape.clone() };
    let child = shared.with(|known| {
        let known = known.get_mut(&request.instance)?;
        known.pid = seen.pid;
        known.started_at = seen.started_at;
        known.address = address;
        known.forwarded = reach == Reach::Published;
        known.own_check = seen.own_check;
        known.shape = shape;
        known.output = Some(reader);
        if known.stage == Stage::Starting {
            known.stage = Stage::Running;
        }
        Some(known.report(&request.instance))
    });
    // Only a caller that has given up removes it meanwhile; that one hears nothing of this.
    child.ok_or(Error::RequestTimeoutError)
}

async fn make_volumes(
    shared: &Shared,
    client: &Docker,
    request: &StartRequest,
    wanted: &ContainerRequest,
) -> Result<(), Error> {
    let app = &request.labels.app;
    for name in wanted.volumes.keys() {
        let body = VolumeCreateRequest {
            name: Some(names::volume(&shared.owner, app, name)),
            labels: Some(HashMap::from([
                (OWNER.to_owned(), shared.owner.clone()),
                (labels::ENVIRONMENT.to_owned(), app.environment.to_string()),
                (labels::APP.to_owned(), app.app.to_string()),
                ("landfall.volume".to_owned(), name.clone()),
            ])),
            ..Default::default()
        };
        // One that exists is left as it is.
        client.create_volume(body).await?;
    }
    Ok(())
}

/// Where a container finds its files with secrets.
const SECRET_FILES: &str = "/run/secrets";

/// Writes the files with secrets, where it has any: on this machine, in memory where that can be. They come into the
/// container by a mount, so that they are in no layer of it.
fn put_secret_files(shared: &Shared, request: &StartRequest) -> Result<Option<PathBuf>, Error> {
    if request.secret_files.is_empty() {
        return Ok(None);
    }
    let exposed = request.secret_files.exposed();
    Ok(Some(shared.secret_files.put(request.instance.as_str(), exposed, Readers::Container)?))
}

fn body(
    shared: &Shared,
    reach: Reach,
    request: &StartRequest,
    wanted: &ContainerRequest,
    secret_files: Option<&Path>,
) -> ContainerCreateBody {
    let mut env: Vec<String> = request.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    env.extend(request.secrets.exposed().map(|(name, value)| format!("{name}={value}")));
    env.extend(request.secret_paths.iter().map(|(variable, name)| format!("{variable}={SECRET_FILES}/{name}")));
    if reach == Reach::Host && wanted.port.is_some() {
        // On the machine's own network nobody but this machine is to reach it.
        env.retain(|variable| !variable.starts_with("HOST="));
        env.push("HOST=127.0.0.1".to_owned());
    }
    // A function is what its manifest says; for others `command` is handed to what the image starts with, as its CMD is.
    let function = request.labels.kind == ChildKind::Function;
    let command = Some(request.command.clone()).filter(|command| !command.is_empty());
    let (entrypoint, cmd) = if function { (command, None) } else { (None, command) };
    let host_config = host(shared, reach, request, wanted, secret_files);
    // Engines forward no port that the container does not expose as well.
    let exposed_ports = host_config.port_bindings.as_ref().map(|bindings| bindings.keys().cloned().collect());
    ContainerCreateBody {
        image: Some(wanted.image.id.clone()),
        exposed_ports,
        cmd,
        entrypoint,
        env: Some(env),
        user: wanted.user.clone(),
        working_dir: wanted.directory.clone(),
        labels: Some(labels_of(shared, reach, request, wanted)),
        host_config: Some(host_config),
        ..Default::default()
    }
}

fn host(
    shared: &Shared,
    reach: Reach,
    request: &StartRequest,
    wanted: &ContainerRequest,
    secret_files: Option<&Path>,
) -> HostConfig {
    let bytes = |size: crate::domain::manifest::Bytes| i64::try_from(size.0).unwrap_or(i64::MAX);
    let published = match (reach, request.labels.port, wanted.port) {
        (Reach::Published, Some(host), Some(within)) => {
            let binding =
                PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: Some(host.to_string()) };
            Some(HashMap::from([(format!("{within}/tcp"), Some(vec![binding]))]))
        }
        _ => None,
    };
    let machine = match reach {
        Reach::Host => format!("{MACHINE}:127.0.0.1"),
        Reach::Address | Reach::Published => format!("{MACHINE}:host-gateway"),
    };
    HostConfig {
        memory: request.resources.memory.map(bytes),
        // No swap besides: a limit is a limit.
        memory_swap: request.resources.memory.map(bytes),
        nano_cpus: request.resources.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        pids_limit: request.resources.processes.map(i64::from),
        network_mode: shared.settings.load().network.clone(),
        port_bindings: published,
        mounts: Some(mounts(shared, request, wanted, secret_files)),
        readonly_rootfs: Some(wanted.read_only),
        tmpfs: wanted.read_only.then(|| HashMap::from([("/tmp".to_owned(), String::new())])),
        extra_hosts: Some(vec![machine]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // Landfall restarts, with its own back-off; after a restart of the engine it decides anew.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(LOG_COPY.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        }),
        ..Default::default()
    }
}

fn mounts(
    shared: &Shared,
    request: &StartRequest,
    wanted: &ContainerRequest,
    secret_files: Option<&Path>,
) -> Vec<Mount> {
    let volumes = wanted.volumes.iter().map(|(name, path)| Mount {
        target: Some(path.clone()),
        source: Some(names::volume(&shared.owner, &request.labels.app, name)),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions::default()),
        ..Default::default()
    });
    let own = wanted.mounts.iter().map(|(here, there)| (here.as_path(), there.as_str()));
    let binds = own.chain(secret_files.map(|here| (here, SECRET_FILES))).map(|(here, there)| Mount {
        target: Some(there.to_owned()),
        source: Some(here.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Default::default()
    });
    volumes.chain(binds).collect()
}

fn labels_of(
    shared: &Shared,
    reach: Reach,
    request: &StartRequest,
    wanted: &ContainerRequest,
) -> HashMap<String, String> {
    let of = &request.labels;
    let mut all = HashMap::from([
        (OWNER.to_owned(), shared.owner.clone()),
        (labels::ENVIRONMENT.to_owned(), of.app.environment.to_string()),
        (labels::APP.to_owned(), of.app.app.to_string()),
        (labels::VERSION.to_owned(), of.version.get().to_string()),
        (labels::OBJECT.to_owned(), of.object.clone()),
        (labels::INSTANCE.to_owned(), request.instance.to_string()),
        (labels::KIND.to_owned(), inspect::kind_word(of.kind).to_owned()),
        (labels::LOG.to_owned(), request.log.display().to_string()),
        (labels::GRACE.to_owned(), request.grace.0.to_string()),
        (labels::DRIFT.to_owned(), wanted.drift.as_str().to_owned()),
        (labels::LIMITS.to_owned(), drift::limits_asked(&request.resources)),
    ]);
    if let (Some(chosen), Some(within)) = (of.port, wanted.port) {
        all.insert(labels::PORT.to_owned(), within.to_string());
        if reach != Reach::Address {
            let on_this_machine = if reach == Reach::Host { within } else { chosen };
            all.insert(labels::PUBLISHED.to_owned(), on_this_machine.to_string());
        }
    }
    all
}

/// How long an instance may take to end, as its container says.
pub(super) async fn grace_of(shared: &Shared, instance: &InstanceId) -> Millis {
    let container = shared.with(|known| known.get(instance).map(|known: &Known| known.container.clone()));
    let asked = async {
        let client = shared.client().await.ok()?;
        let seen = inspect::container(&client, &container?).await.ok()?;
        seen.labels.get(labels::GRACE)?.parse().ok().map(Millis)
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten().unwrap_or(defaults::GRACE)
}

/// The address of a container found again, as its labels say it is reached.
pub(super) fn address_again(labels_found: &HashMap<String, String>, own: Option<IpAddr>) -> Option<SocketAddr> {
    let number = |label: &str| labels_found.get(label).and_then(|text| text.parse::<u16>().ok());
    match (number(labels::PUBLISHED), number(labels::PORT), own) {
        (Some(port), _, _) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        (None, Some(port), Some(ip)) => Some(SocketAddr::new(ip, port)),
        (None, _, _) => None,
    }
}
