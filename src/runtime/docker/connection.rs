//! The connection to the engine: where it is, whether it answers, and what its errors mean.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemVersion;
use bollard::{API_DEFAULT_VERSION, Docker};
use jiff::Timestamp;

use super::{Settings, transport};

/// The engine must have answered the first question after this long.
const HELLO: Duration = Duration::from_secs(10);
/// Seconds that a request may take until its answer begins.
const REQUEST_SECONDS: u64 = 120;
/// Where an engine that is not told listens.
const USUAL: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// The engine cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the container engine at {address} cannot be reached: {why}; start it, or correct `docker.socket`, and see that the agent's user may use it"
)]
pub struct Trouble {
    /// Where it was looked for.
    pub address: String,
    /// What went wrong.
    pub why: String,
}

/// How the engine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineState {
    /// Where it is looked for.
    pub address: String,
    /// What it calls itself, `Docker 27.1`; `None` while it has never answered.
    pub engine: Option<String>,
    /// Why it cannot be used, and since when; `None` while it can.
    pub trouble: Option<(String, Timestamp)>,
}

/// How instances are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By the container's own address: the network's bridge is on this machine, or the agent is in a container of that
    /// network itself. Nothing stands between, and an engine that restarts is not in the way.
    Address,
    /// By a port of this machine that the engine forwards: it runs without root, in a machine of its own, or elsewhere.
    Published,
    /// Containers have the machine's own network.
    Host,
}

/// The connection, made when it is needed.
#[derive(Debug, Default)]
pub(super) struct Connection {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<(Docker, Reach)>,
    address: String,
    engine: Option<String>,
    trouble: Option<(String, Timestamp)>,
}

impl Connection {
    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A client that has been answered once.
    pub(super) async fn client(&self, settings: &Settings) -> Result<Docker, Trouble> {
        self.connected(settings).await.map(|(client, _)| client)
    }

    /// The client, and how its containers are reached.
    pub(super) async fn connected(&self, settings: &Settings) -> Result<(Docker, Reach), Trouble> {
        if let Some(connected) = self.with(|state| state.client.clone()) {
            return Ok(connected);
        }
        let address = address(settings);
        let made = tokio::time::timeout(HELLO, connect(&address, settings)).await;
        let made = made.unwrap_or_else(|_| Err(format!("no answer within {} s", HELLO.as_secs())));
        match made {
            Ok((client, reach, engine)) => {
                self.with(|state| {
                    if state.trouble.take().is_some() {
                        tracing::info!(address, engine, "the container engine answers again");
                    }
                    state.address.clone_from(&address);
                    state.engine = Some(engine);
                    state.client = Some((client.clone(), reach));
                });
                Ok((client, reach))
            }
            Err(why) => {
                let trouble = Trouble { address, why };
                self.failed(&trouble);
                Err(trouble)
            }
        }
    }

    /// The engine does not answer any more: the next use connects anew.
    pub(super) fn lost(&self, why: &str) {
        let address = self.with(|state| state.address.clone());
        self.failed(&Trouble { address, why: why.to_owned() });
    }

    fn failed(&self, trouble: &Trouble) {
        self.with(|state| {
            state.client = None;
            state.address.clone_from(&trouble.address);
            match (&state.trouble, &state.engine) {
                (Some(_), _) => {}
                (None, Some(_)) => {
                    tracing::warn!(address = trouble.address, why = trouble.why, "the container engine cannot be used");
                }
                // Most machines have none, and nobody misses it.
                (None, None) => {
                    let (address, why) = (&trouble.address, &trouble.why);
                    tracing::info!(address, why, "no container engine; only apps in containers need one");
                }
            }
            let since = state.trouble.as_ref().map_or_else(Timestamp::now, |(_, since)| *since);
            state.trouble = Some((trouble.why.clone(), since));
        });
    }

    /// Other settings.
    pub(super) fn forget(&self) {
        self.with(|state| state.client = None);
    }

    pub(super) fn state(&self) -> EngineState {
        self.with(|state| EngineState {
            address: state.address.clone(),
            engine: state.engine.clone(),
            trouble: state.trouble.clone(),
        })
    }
}

/// Where the engine is: as configured, as `DOCKER_HOST` says, or the first usual socket that exists.
pub(super) fn address(settings: &Settings) -> String {
    let told = settings.socket.clone().or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
    told.unwrap_or_else(|| {
        let rootless = std::env::var("XDG_RUNTIME_DIR").ok().map(PathBuf::from);
        let of_user = rootless.into_iter().flat_map(|run| [run.join("docker.sock"), run.join("podman/podman.sock")]);
        let all: Vec<PathBuf> = USUAL.iter().map(PathBuf::from).chain(of_user).collect();
        let found = all.iter().find(|path| path.exists()).or(all.first());
        format!("unix://{}", found.map_or_else(String::new, |path| path.display().to_string()))
    })
}

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A socket of this machine, by its path.
    Socket(&'a str),
    /// `host:port`.
    Tcp(&'a str),
}

/// Takes an address apart.
pub(super) fn place(address: &str) -> Result<Place<'_>, String> {
    if let Some(path) = address.strip_prefix("unix://") {
        return Ok(Place::Socket(path));
    }
    let at = address.strip_prefix("tcp://").or_else(|| address.strip_prefix("http://"));
    at.map(|at| Place::Tcp(at.trim_end_matches('/'))).ok_or_else(|| "only unix:// and tcp:// are spoken".to_owned())
}

async fn connect(address: &str, settings: &Settings) -> Result<(Docker, Reach, String), String> {
    let client = match place(address)? {
        Place::Socket(path) => {
            Docker::connect_with_unix(path, REQUEST_SECONDS, API_DEFAULT_VERSION).map_err(|error| words(&error))?
        }
        Place::Tcp(at) => match &settings.tls {
            Some(files) => transport::over_tls(at, files, REQUEST_SECONDS)?,
            None => transport::plain(at, settings.insecure, REQUEST_SECONDS)?,
        },
    };
    let client = client.negotiate_version().await.map_err(|error| words(&error))?;
    let version = client.version().await.map_err(|error| words(&error))?;
    let engine = format!("{} {}", make(&version), version.version.as_deref().unwrap_or_default());
    let reach = reach(&client, settings.network.as_deref()).await;
    Ok((client, reach, engine))
}

/// Whose engine it is, as people call it.
fn make(version: &SystemVersion) -> &str {
    // Podman names the machine where Docker names its edition.
    if has_part(version, "Podman Engine") {
        return "Podman";
    }
    let name = version.platform.as_ref().and_then(|platform| platform.name.split(' ').next());
    name.filter(|name| !name.is_empty()).unwrap_or("Docker")
}

/// Whether an engine has a part of this name.
pub(super) fn has_part(version: &SystemVersion, name: &str) -> bool {
    version.components.iter().flatten().any(|part| part.name == name)
}

/// The bridge of the network is on this machine when its gateway's address is one of this machine's. An agent that is a
/// container of the network itself finds its own address among those of the network's containers.
async fn reach(client: &Docker, network: Option<&str>) -> Reach {
    if network == Some("host") {
        return Reach::Host;
    }
    let candidates = network.map_or_else(|| vec!["bridge", "podman"], |name| vec![name]);
    for name in candidates {
        let Ok(found) = client.inspect_network(name, None).await else { continue };
        let configs = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let gateways = configs.into_iter().filter_map(|config| match (config.gateway, config.subnet) {
            (Some(gateway), _) if !gateway.is_empty() => Some(gateway),
            // Docker does not tell it of a bridge that it has just made.
            (_, subnet) => first_address(&subnet?).map(|address| address.to_string()),
        });
        let members = found.containers.unwrap_or_default().into_values().filter_map(|member| member.ipv4_address);
        // A member's address has the width of its network behind it: `172.18.0.2/16`.
        let mut addresses = gateways.chain(members).filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        if addresses.any(|address| UdpSocket::bind((address, 0)).is_ok()) {
            return Reach::Address;
        }
    }
    Reach::Published
}

/// The first address of a network, `172.17.0.1` of `172.17.0.0/16`: that of its gateway where nothing else was asked for.
fn first_address(subnet: &str) -> Option<IpAddr> {
    let base: std::net::Ipv4Addr = subnet.split('/').next()?.parse().ok()?;
    Some(IpAddr::from(std::net::Ipv4Addr::from(u32::from(base).checked_add(1)?)))
}

/// The status that the engine answered with.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine did not answer at all, rather than with an error.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(
        error,
        Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::RequestTimeoutError
            | Error::SocketNotFoundError(_)
    )
}

/// An error as people read it: what the engine says, without what bollard says around it, and what mends it.
pub(super) fn words(error: &Error) -> String {
    mended(said(error))
}

/// What an engine says, with what mends it.
pub(super) fn mended(text: String) -> String {
    match text.contains("no space left on device") {
        true => format!(
            "{text}: the engine's disk is full; `docker system df` shows by what, `docker image prune` frees what nothing needs"
        ),
        false => text,
    }
}

fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::SocketNotFoundError(path) => format!("there is no socket {path}"),
        Error::RequestTimeoutError => format!("no answer within {REQUEST_SECONDS} s"),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(inner) = cause {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                cause = inner.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_a_network_is_its_first_address() {
        assert_eq!(first_address("172.17.0.0/16"), "172.17.0.1".parse().ok());
        assert_eq!(first_address("10.1.2.128/25"), "10.1.2.129".parse().ok());
        assert_eq!(first_address("fd00::/64"), None);
        assert_eq!(first_address(""), None);
    }
}
