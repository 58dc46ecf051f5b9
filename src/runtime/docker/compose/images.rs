//! The images of a project's services, before anything of it starts: `landfall internal-compose --images-of`.
//!
//! A child of its own, as the app's user, because the file and its builds are the app's. It only has images built and says
//! which are wanted; the controller, who alone knows the logins of registries, fetches them, gives names and records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::super::names;
use super::tool::{Failed, Tool};
use super::{ComposeError, DIRECTORY, Order, PROJECT, REPOSITORY, lent, say, until_told, variable};
use crate::domain::Pull;

/// The file with what was found, in the directory the child was given.
pub const FOUND: &str = "images.json";

/// The image that a service is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceImage {
    /// As the project names it; the service's own name for one that is built without a name.
    pub reference: String,
    /// What the engine knows it by now.
    pub image: String,
    /// It was built from the version's tree.
    pub built: bool,
    /// When it is fetched, if it was not built.
    pub pull: Pull,
    /// Another platform than the engine's own, as `linux/arm64`.
    pub platform: Option<String>,
}

/// What the tool says of a project when all files, variables and `extends` are resolved.
#[derive(Debug, Deserialize)]
struct Resolved {
    #[serde(default)]
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    image: Option<String>,
    build: Option<IgnoredAny>,
    #[serde(default)]
    profiles: Vec<String>,
    pull_policy: Option<String>,
    platform: Option<String>,
}

impl Service {
    /// `docker-compose` tells of all services, whatever their profiles.
    fn is_enabled(&self, profiles: &[String]) -> bool {
        self.profiles.is_empty() || self.profiles.iter().any(|own| profiles.iter().any(|on| on == own || on == "*"))
    }

    /// Policies with a time (`daily`) are the tool's to know: what is there will do.
    fn pull(&self) -> Pull {
        match self.pull_policy.as_deref() {
            Some("always") => Pull::Always,
            Some("never") => Pull::Never,
            _ => Pull::Missing,
        }
    }
}

/// Has the images of a project built that are, and writes which all are. `directory` is the app's.
pub fn find(order: &Order, directory: &Path) -> Result<(), ComposeError> {
    std::env::set_current_dir(directory).map_err(|error| ComposeError::of("the app's directory", error))?;
    until_told(async |mut leave| {
        let stop = CancellationToken::new();
        let mut work = std::pin::pin!(work(order, &stop));
        tokio::select! {
            done = &mut work => done,
            _ = leave.recv() => {
                stop.cancel();
                // Its tool has a deadline for ending.
                work.await
            }
        }
    })
}

async fn work(order: &Order, stop: &CancellationToken) -> Result<(), ComposeError> {
    let mut tool = Tool::find(order, &variable(PROJECT)?, &lent()).await.map_err(ComposeError)?;
    let text = tool.output(&["config"], order.timeout, stop).await.map_err(failed)?;
    let resolved: Resolved =
        serde_yaml::from_str(&text).map_err(|error| ComposeError::of("what the tool says of the project", error))?;
    let on: Vec<String> = order.profiles.iter().cloned().chain(from_environment()).collect();
    let repository = variable(REPOSITORY)?;
    let (mut found, mut built, mut unnamed) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for (name, service) in resolved.services.into_iter().filter(|(_, service)| service.is_enabled(&on)) {
        let pull = service.pull();
        let is_built = service.build.is_some();
        let (reference, image) = match service.image {
            Some(image) => (image.clone(), image),
            None if is_built => {
                let image = names::built_service(&repository, &name);
                unnamed.insert(name.clone(), image.clone());
                (name.clone(), image)
            }
            // The tool has its own word for a service without either.
            None => continue,
        };
        if is_built {
            built.push(name.clone());
        }
        found.insert(name, ServiceImage { reference, image, built: is_built, pull, platform: service.platform });
    }
    if !built.is_empty() {
        let names: Vec<&str> = built.iter().map(String::as_str).collect();
        say(format_args!("images are built for {}", names.join(", ")));
        tool.overlay(order, &unnamed)?;
        tool.run(&[&["build"], names.as_slice()].concat(), order.timeout, stop).await.map_err(failed)?;
    }
    let at = PathBuf::from(variable(DIRECTORY)?);
    let text = serde_json::to_vec(&found).map_err(|error| ComposeError::of("what was found", error))?;
    let (file, new) = (at.join(FOUND), at.join(".images.json.new"));
    crate::whole::write(&file, &new, &text).map_err(|error| ComposeError::of(&file.display().to_string(), error))
}

fn failed(why: Failed) -> ComposeError {
    match why {
        Failed::Stopped => ComposeError("it was told to stop".to_owned()),
        Failed::Ended(words) => ComposeError(words),
    }
}

/// Profiles that the tool takes from its environment, as an `env` of the manifest may set it.
fn from_environment() -> Vec<String> {
    let said = std::env::var("COMPOSE_PROFILES").unwrap_or_default();
    said.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_understood() {
        let text = "services:\n  mail:\n    image: x\n    profiles:\n    - mail\n  web:\n    build:\n      context: /a\n    depends_on: {mail: {}}\n  old: {image: y, pull_policy: always}\nversion: '3.9'\n";
        let resolved: Resolved = serde_yaml::from_str(text).expect("read");
        let enabled = |on: &[&str]| {
            let on: Vec<String> = on.iter().map(|&name| name.to_owned()).collect();
            let names = resolved.services.iter().filter(|(_, service)| service.is_enabled(&on)).map(|(name, _)| name);
            names.cloned().collect::<Vec<_>>()
        };
        assert_eq!(enabled(&[]), ["old", "web"]);
        assert_eq!(enabled(&["mail"]), ["mail", "old", "web"]);
        assert_eq!(enabled(&["*"]), ["mail", "old", "web"]);
        assert!(resolved.services["web"].build.is_some() && resolved.services["old"].pull() == Pull::Always);
    }
}
