//! How the containers of a project are, as the engine says, and what they write.

use std::collections::HashMap;
use std::io::Write as _;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{ListContainersOptions, LogsOptions};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;

use super::super::connection::status;
use super::super::inspect::{inspect, list};
use crate::wire::services::ServiceView;

/// The labels that Compose gives its containers.
pub(super) const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// So many lines of a container that did not come up are told.
const LAST_LINES: &str = "10";
/// So many characters of what a check said are told.
const LONGEST_SAID: usize = 300;

/// A container of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub id: String,
    /// Its service, with its number where it is not the first.
    pub name: String,
    /// In the engine's words: `running`, `exited`, …
    pub state: String,
    /// In the engine's words; empty without a check.
    pub health: String,
    /// What its check said last.
    pub said: String,
    pub exit_code: i64,
    /// It is to run on: the engine starts it again whatever its end.
    pub restarts_always: bool,
    /// How often the engine has started it again.
    pub restarts: u64,
    /// Its image's identifier.
    pub image: String,
}

/// How a project stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// All run, healthy where they say so, or have done their work.
    Good,
    /// Not yet; what is waited for.
    Coming(String),
    /// What does not come right by itself.
    Bad(String),
}

impl Container {
    pub(super) fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// It does not come right by itself.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.standing(), Standing::Bad(_))
    }

    /// As the API tells of it.
    pub(super) fn view(self) -> ServiceView {
        ServiceView {
            exit_code: matches!(self.state.as_str(), "exited" | "dead").then_some(self.exit_code),
            service: self.name,
            container: self.id,
            state: self.state,
            health: Some(self.health).filter(|health| !health.is_empty()),
            restarts: self.restarts,
            image: self.image,
        }
    }

    /// Its state as people read it.
    pub(super) fn words(&self) -> String {
        match (self.state.as_str(), self.health.as_str()) {
            ("exited" | "dead", _) => format!("exited with code {}", self.exit_code),
            (state, "") => state.to_owned(),
            (state, "unhealthy") if !self.said.is_empty() => format!("{state}, unhealthy: {}", self.said),
            (state, health) => format!("{state}, {health}"),
        }
    }

    fn standing(&self) -> Standing {
        let words = || format!("{} is {}", self.name, self.words());
        match (self.state.as_str(), self.health.as_str()) {
            ("running", "unhealthy") => Standing::Bad(words()),
            ("running", "starting") => Standing::Coming(words()),
            ("running", _) => Standing::Good,
            ("exited", _) if self.exit_code == 0 && !self.restarts_always => Standing::Good,
            ("exited" | "dead" | "paused" | "removing", _) => Standing::Bad(words()),
            (_, _) => Standing::Coming(words()),
        }
    }
}

/// The worst of all containers; a project without any does not stand.
pub(super) fn judge(containers: &[Container]) -> Standing {
    if containers.is_empty() {
        return Standing::Bad("the project has no containers: no service is enabled by its profiles".to_owned());
    }
    let standings: Vec<Standing> = containers.iter().map(Container::standing).collect();
    let bad = standings.iter().find(|standing| matches!(standing, Standing::Bad(_)));
    let coming = || standings.iter().find(|standing| matches!(standing, Standing::Coming(_)));
    bad.or_else(coming).cloned().unwrap_or(Standing::Good)
}

/// All containers of a project, but those of `compose run`.
pub(super) async fn containers(client: &Docker, project: &str) -> Result<Vec<Container>, Error> {
    let labels = vec![format!("{PROJECT}={project}"), format!("{ONE_OFF}=False")];
    let filters = Some(HashMap::from([("label".to_owned(), labels)]));
    let options = ListContainersOptions { all: true, filters, ..Default::default() };
    let mut found = Vec::new();
    for listed in list(client, options).await? {
        let Some(id) = listed.id else { continue };
        let labels = listed.labels.unwrap_or_default();
        match inspect(client, &id).await {
            Ok(inspected) => found.push(container(id, &labels, inspected)),
            // Removed in this very moment.
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn container(id: String, labels: &HashMap<String, String>, inspected: ContainerInspectResponse) -> Container {
    let service = labels.get(SERVICE).map_or("?", String::as_str);
    let name = match labels.get(NUMBER).map(String::as_str) {
        None | Some("1") => service.to_owned(),
        Some(number) => format!("{service}-{number}"),
    };
    let state = inspected.state.unwrap_or_default();
    let checks = state.health.unwrap_or_default();
    let health = checks.status.map(|status| status.to_string());
    let said = checks.log.and_then(|mut log| log.pop()).and_then(|last| last.output).unwrap_or_default();
    let said = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let policy = inspected.host_config.and_then(|host| host.restart_policy).and_then(|policy| policy.name);
    let policy = policy.map(|name| name.to_string()).unwrap_or_default();
    Container {
        restarts: inspected.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default(),
        image: inspected.image.unwrap_or_default(),
        id,
        name,
        state: state.status.map(|status| status.to_string()).unwrap_or_default(),
        health: health.filter(|health| health != "none").unwrap_or_default(),
        said: said.chars().take(LONGEST_SAID).collect(),
        exit_code: state.exit_code.unwrap_or_default(),
        restarts_always: matches!(policy.as_str(), "always" | "unless-stopped"),
    }
}

/// Writes the last lines of a container that nobody has followed.
pub(super) async fn tell_last(client: &Docker, container: &Container) {
    let options = LogsOptions { stdout: true, stderr: true, tail: LAST_LINES.to_owned(), ..Default::default() };
    write(client.logs(&container.id, Some(options)), &container.name).await;
}

/// Writes what a container writes, each line with the container's name in front, until it ends.
pub(super) async fn follow(client: Docker, id: String, name: String, since: Timestamp) {
    let since = i32::try_from(since.as_second()).unwrap_or(0);
    let options =
        LogsOptions { follow: true, stdout: true, stderr: true, since, tail: "all".to_owned(), ..Default::default() };
    write(client.logs(&id, Some(options)), &name).await;
}

async fn write(stream: impl Stream<Item = Result<LogOutput, Error>>, name: &str) {
    let mut stream = std::pin::pin!(stream);
    while let Some(Ok(output)) = stream.next().await {
        let (to_stderr, message) = match output {
            LogOutput::StdErr { message } => (true, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                (false, message)
            }
        };
        for line in String::from_utf8_lossy(&message).lines() {
            let line = format!("{name} | {line}\n");
            // Without a log the container goes on.
            let _ = match to_stderr {
                true => std::io::stderr().lock().write_all(line.as_bytes()),
                false => std::io::stdout().lock().write_all(line.as_bytes()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &str, health: &str, exit_code: i64, restarts_always: bool) -> Container {
        let (state, health) = (state.to_owned(), health.to_owned());
        let (id, name, image) = ("0".into(), "db".into(), String::new());
        Container { id, name, state, health, said: String::new(), exit_code, restarts_always, restarts: 0, image }
    }

    #[test]
    fn a_project_stands_as_its_worst_container_does() {
        let good = one("running", "healthy", 0, true);
        let words = |found: &[Container]| match judge(found) {
            Standing::Good => "good".to_owned(),
            Standing::Coming(words) => format!("coming: {words}"),
            Standing::Bad(words) => format!("bad: {words}"),
        };
        for (other, expected) in [
            (one("running", "", 0, false), "good"),
            (one("exited", "", 0, false), "good"),
            (one("exited", "", 0, true), "bad: db is exited with code 0"),
            (one("exited", "", 137, false), "bad: db is exited with code 137"),
            (one("running", "starting", 0, false), "coming: db is running, starting"),
            (one("running", "unhealthy", 0, false), "bad: db is running, unhealthy"),
            (one("restarting", "", 1, true), "coming: db is restarting"),
            (one("created", "", 0, false), "coming: db is created"),
            (one("paused", "", 0, false), "bad: db is paused"),
        ] {
            assert_eq!(words(&[good.clone(), other]), expected);
        }
        assert!(matches!(judge(&[]), Standing::Bad(_)));
    }
}
