//! Instances in containers: what they see of the machine, and where.
//!
//! What a container needs of Landfall comes in by read-only mounts below [`WITHIN`]; nothing has to be in its image.

use std::collections::BTreeMap;

use super::spec::{Surroundings, VersionSpec};
use crate::domain::manifest::Code;
use crate::domain::{ImageSource, InstanceId, ObjectName};
use crate::files::config::{DockerConfig, HostCredentials};
use crate::runtime::docker::{EngineTls, Login, Logins, Settings};
use crate::runtime::{carried, workers};
use crate::source::password_of;
use crate::wire::supervisor::ContainerRequest;

/// Everything that Landfall brings into a container lies below this.
pub(super) const WITHIN: &str = "/landfall";
/// How a container calls the machine it runs on.
const HOST: &str = "host.docker.internal";
/// A password command of a registry may take this long.
const LOGIN_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

impl VersionSpec {
    /// Whether its instances are containers.
    pub fn is_container(&self) -> bool {
        self.manifest.container.is_some()
    }

    /// How an instance runs as a container; `None` for one that is a process. `port` is the one Landfall chose.
    pub(super) fn container(
        &self,
        around: &Surroundings,
        object: &ObjectName,
        port: Option<u16>,
    ) -> Option<Box<ContainerRequest>> {
        let container = self.manifest.container.as_ref()?;
        let own_port = self.web(object).and_then(|web| web.port);
        let named = matches!(container.image, ImageSource::Named { .. });
        let code = self.function(object).map(|function| &function.code);
        let mut mounts = Vec::new();
        if named {
            mounts.push((self.directory.clone(), format!("{WITHIN}/app")));
        }
        match code {
            Some(Code::Python(_) | Code::JavaScript(_)) => {
                mounts.push((around.workers.clone(), format!("{WITHIN}/workers")));
            }
            Some(Code::Exec(_)) => mounts.extend(carried::mounts(&around.program, &format!("{WITHIN}/program"))),
            Some(Code::Server(_)) | None => {}
        }
        let handler = matches!(code, Some(Code::Python(_) | Code::JavaScript(_)));
        Some(Box::new(ContainerRequest {
            // A version without one has not been prepared; its start says so.
            image: self.image.clone()?,
            port: port.map(|chosen| own_port.unwrap_or(chosen)),
            user: container.user.clone(),
            read_only: container.read_only,
            volumes: self.manifest.volumes.clone(),
            mounts,
            // Handlers are files of the app: next to the tree for a named image, where the image has them for a built one.
            drift: container.drift,
            directory: (handler && named).then(|| format!("{WITHIN}/app")),
        }))
    }

    /// The variables every container of this version sees: none of the machine's.
    pub(super) fn container_environment(&self, object: &str, instance: &InstanceId) -> BTreeMap<String, String> {
        let mut env = self.manifest.env.clone();
        for (name, path) in &self.manifest.volumes {
            env.insert(super::spec::volume_variable(name), path.clone());
        }
        env.extend(self.identity(object, instance));
        env
    }
}

impl Surroundings {
    /// What runs a function within a container.
    pub(super) fn command_in_container(&self, code: &Code) -> Vec<String> {
        let worker = |interpreter: &str, file: &str, handler: String| {
            vec![interpreter.to_owned(), format!("{WITHIN}/workers/{file}"), handler]
        };
        match code {
            Code::Python(handler) => worker("python3", workers::PYTHON, handler.to_string()),
            Code::JavaScript(handler) => worker("node", workers::JAVASCRIPT, handler.to_string()),
            Code::Server(command) => command.clone(),
            Code::Exec(command) => {
                let mut own = carried::command(&self.program, &format!("{WITHIN}/program"));
                own.extend(["internal-exec".to_owned(), "--".to_owned()]);
                own.extend(command.iter().cloned());
                own
            }
        }
    }

    /// Where an instance in a container calls others.
    pub(super) fn url_for_containers(port: u16) -> String {
        format!("http://{HOST}:{port}")
    }
}

/// Looks logins of registries up anew each time, so that a changed password needs no restart.
fn logins(registries: Vec<HostCredentials>) -> Logins {
    let hosts = registries.iter().map(|registry| registry.host.clone()).collect();
    Logins::new(hosts, move |host| {
        let Some(found) = registries.iter().find(|registry| registry.host == host) else { return Ok(None) };
        let password = password_of(&found.credentials, LOGIN_DEADLINE)?;
        Ok(Some(Login { username: found.credentials.username.clone(), password }))
    })
}

/// What of a configuration concerns containers.
pub fn docker_settings(config: &DockerConfig) -> Settings {
    Settings {
        socket: config.socket.clone(),
        tls: config.tls.as_ref().map(|tls| EngineTls { authority: tls.ca_file.clone(), own: tls.own.clone() }),
        insecure: config.insecure,
        network: config.network.clone(),
        builder: config.builder,
        logins: logins(config.registries.clone()),
    }
}
