//! Which agent a command talks to.
//!
//! First that is given wins: `--agent`, `LANDFALL_AGENT`, the socket of the configuration file (`--config`, else
//! `./config/landfall.yaml` if it exists), the default socket.

use std::path::{Path, PathBuf};

use crate::client::{Client, Credentials, Target};
use crate::domain::Secret;
use crate::files;

use super::exit::{CliError, Exit};

/// Where the configuration lies unless said otherwise.
pub const DEFAULT_CONFIG: &str = "config/landfall.yaml";
/// Where the socket lies unless said otherwise.
pub const DEFAULT_SOCKET: &str = "data/landfall.sock";

/// What was said about the agent.
#[derive(Debug, Default, Clone)]
pub struct Said {
    /// `--agent`, or `LANDFALL_AGENT`.
    pub agent: Option<String>,
    /// `--config`
    pub config: Option<PathBuf>,
}

/// A client of the agent at `target`, with the token and the authorities that the environment names. Over the socket the kernel
/// says who we are, and a token there is somebody else's: instances of apps have one in the same variable.
pub fn connect(target: &Target) -> Result<Client, CliError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let credentials = match target {
        Target::Socket(_) => Credentials::default(),
        Target::Url(_) => Credentials {
            token: variable("LANDFALL_TOKEN").map(Secret::new),
            ca_file: variable("LANDFALL_CA_FILE").map(PathBuf::from),
        },
    };
    Ok(Client::connect_with(target, &credentials)?)
}

/// Finds the agent. `here` is the current directory.
pub fn locate(said: &Said, here: &Path) -> Result<Target, CliError> {
    if let Some(agent) = said.agent.as_deref().filter(|agent| !agent.is_empty()) {
        return Ok(target(agent));
    }
    let usual = here.join(DEFAULT_CONFIG);
    let config = match &said.config {
        Some(file) => Some(here.join(file)),
        None => usual.is_file().then_some(usual),
    };
    match config {
        Some(file) => socket_of(&file).map(Target::Socket),
        None => Ok(Target::Socket(here.join(DEFAULT_SOCKET))),
    }
}

fn target(agent: &str) -> Target {
    if agent.starts_with("http://") || agent.starts_with("https://") {
        Target::Url(agent.trim_end_matches('/').to_owned())
    } else {
        let path = agent.strip_prefix("unix://").or_else(|| agent.strip_prefix("unix:")).unwrap_or(agent);
        Target::Socket(PathBuf::from(path))
    }
}

/// The API's socket in a configuration; the same variables count as for the agent itself.
fn socket_of(file: &Path) -> Result<PathBuf, CliError> {
    read(file).map(|config| config.api.socket)
}

/// Reads a configuration file; all its errors at once.
pub fn read(file: &Path) -> Result<files::Config, CliError> {
    parse(file, &text(file)?)
}

/// The text of a configuration file.
pub fn text(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| {
        CliError::hinted(
            Exit::Usage,
            format!("{}: the configuration cannot be read: {error}", file.display()),
            "name another one with `--config FILE`; `landfall demo` needs none",
        )
    })
}

/// The configuration from the text of `file` and the environment.
pub fn parse(file: &Path, text: &str) -> Result<files::Config, CliError> {
    files::read_config(file, text, &mut variables()).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CliError::new(Exit::Usage, all.join("\n"))
    })
}

/// The environment, without variables that are not text.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(target: Target) -> PathBuf {
        match target {
            Target::Socket(path) => path,
            Target::Url(url) => panic!("a socket was expected, not {url}"),
        }
    }

    #[test]
    fn the_agent_is_looked_for_in_the_documented_order() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path();
        let mut said = Said::default();
        assert_eq!(socket(locate(&said, here).unwrap()), here.join("data/landfall.sock"));

        std::fs::create_dir(here.join("config")).unwrap();
        std::fs::write(here.join(DEFAULT_CONFIG), "api: {socket: usual.sock}\n").unwrap();
        assert_eq!(socket(locate(&said, here).unwrap()), here.join("config/usual.sock"));

        std::fs::write(here.join("other.yaml"), "api: {socket: other.sock}\n").unwrap();
        said.config = Some("other.yaml".into());
        assert_eq!(socket(locate(&said, here).unwrap()), here.join("other.sock"));

        said.agent = Some("/run/landfall.sock".into());
        assert_eq!(socket(locate(&said, here).unwrap()), PathBuf::from("/run/landfall.sock"));
        said.agent = Some("unix:///run/a.sock".into());
        assert_eq!(socket(locate(&said, here).unwrap()), PathBuf::from("/run/a.sock"));
        said.agent = Some("http://127.0.0.1:7171/".into());
        assert!(matches!(locate(&said, here).unwrap(), Target::Url(url) if url == "http://127.0.0.1:7171"));
    }

    #[test]
    fn a_configuration_with_errors_or_without_a_file_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.yaml"), "prxy: {}\n").unwrap();
        for file in ["bad.yaml", "missing.yaml"] {
            let said = Said { agent: None, config: Some(file.into()) };
            let error = locate(&said, dir.path()).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}
