//! `landfall agent`: from the configuration file to what the supervisor is told.
//!
//! The supervisor reads no YAML and knows no names of users: both are resolved here, before it starts.

use std::path::{Path, PathBuf};

use clap::Args;
use nix::unistd::{Uid, User};

use crate::domain::manifest::Millis;
use crate::files::Config;
use crate::wire::supervisor::{Identity, Plan, Users};

use super::Globals;
use super::exit::{CliError, Exit};
use super::locate;

/// On shutdown requests may go on for this long.
const SHUTDOWN_DRAIN: Millis = Millis::seconds(10);

/// Copy of the last configuration that could be read, in `<data_dir>/run`.
const LAST_GOOD: &str = "landfall.last-good.yaml";

/// Options of `landfall agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// Keep all data here instead of in the configuration's `data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Reads the configuration and makes the supervisor's plan of it.
pub fn plan(args: &AgentArgs, globals: &Globals) -> Result<Plan, CliError> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| CliError::new(Exit::Failed, format!("{}: {error}", path.display())))
    };
    let file = absolute(globals.config.as_deref().unwrap_or(Path::new(locate::DEFAULT_CONFIG)))?;
    let config = locate::read(&file)?;
    let data_dir = args.data_dir.as_deref().map(absolute).transpose()?;
    from_config(&config, file, data_dir, Uid::effective().is_root())
}

fn from_config(config: &Config, file: PathBuf, data_dir: Option<PathBuf>, root: bool) -> Result<Plan, CliError> {
    let data_dir = data_dir.unwrap_or_else(|| config.data_dir.clone());
    let api_socket = moved_socket(config, &data_dir);
    let users = match &config.users {
        Some(users) if root => Some(Users { agent: identity(&users.agent)?, apps: identity(&users.apps)? }),
        Some(_) => {
            tracing::warn!("`users` has no effect: only an agent started as root can change users");
            None
        }
        None => {
            if root {
                tracing::warn!(
                    "the agent runs as root and so do its apps: name unprivileged users in `users: {{agent: …, apps: …}}`"
                );
            }
            None
        }
    };
    Ok(Plan {
        data_dir,
        config: Some(file),
        proxy_listen: config.proxy.listen.clone(),
        proxy_tls_listen: config.proxy.tls.as_ref().map(|tls| tls.listen.clone()).unwrap_or_default(),
        api_socket,
        api_listen: config.api.listen,
        users,
        logs_total: config.retention.logs,
        shutdown_drain: SHUTDOWN_DRAIN,
    })
}

/// A socket that lies in the data directory moves with it.
fn moved_socket(config: &Config, data_dir: &Path) -> PathBuf {
    match config.api.socket.strip_prefix(&config.data_dir) {
        Ok(inside) => data_dir.join(inside),
        Err(_) => config.api.socket.clone(),
    }
}

/// The configuration for a controller.
#[derive(Debug)]
pub struct Found {
    /// As the file has it; the data directory in use may be another one.
    pub config: Config,
    /// Where the socket of the API lies.
    pub socket: PathBuf,
    /// Why it is not the file as it is now.
    pub problem: Option<String>,
}

/// The configuration for a controller. A file that cannot be read at this moment must not keep the control plane
/// from coming back after a crash: then the last one that could be read is used, and that is said.
pub fn controller_config(data_dir: &Path, file: Option<&Path>) -> Result<Found, CliError> {
    let Some(file) = file else {
        let config = Config::default_at(data_dir);
        return Ok(Found { socket: moved_socket(&config, data_dir), config, problem: None });
    };
    let kept = data_dir.join("run").join(LAST_GOOD);
    let (config, problem) = match read_and_keep(file, &kept) {
        Ok(config) => (config, None),
        Err(error) => match std::fs::read_to_string(&kept) {
            Ok(text) => {
                tracing::error!("{error}\nthe configuration that was read last is used until the file is mended");
                (locate::parse(file, &text)?, Some(error.to_string()))
            }
            Err(_) => return Err(error),
        },
    };
    Ok(Found { socket: moved_socket(&config, data_dir), config, problem })
}

/// Reads the configuration for a controller that runs already; an error says what is wrong, where, and the mend.
pub fn read_again(data_dir: &Path, file: Option<&Path>) -> Result<Config, String> {
    let Some(file) = file else { return Ok(Config::default_at(data_dir)) };
    read_and_keep(file, &data_dir.join("run").join(LAST_GOOD)).map_err(|error| error.to_string())
}

fn read_and_keep(file: &Path, kept: &Path) -> Result<Config, CliError> {
    let text = locate::text(file)?;
    let config = locate::parse(file, &text)?;
    // An agent on defaults has no sources. Whoever means that says so; an editor or a copy that is still under way, or
    // a disk that was full, leaves exactly this behind.
    let says_something = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    if !text.lines().any(says_something) && kept.exists() {
        return Err(CliError::hinted(
            Exit::Usage,
            format!("{}: the configuration is empty", file.display()),
            "write what is wanted into it; `sources: []` for an agent without sources",
        ));
    }
    keep(kept, &text);
    Ok(config)
}

/// Keeps the text for a controller that finds the file broken. Not being able to is no reason not to start.
fn keep(kept: &Path, text: &str) {
    if std::fs::read_to_string(kept).is_ok_and(|before| before == text) {
        return;
    }
    let write = || -> std::io::Result<()> {
        let directory = kept.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(kept).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    };
    if let Err(error) = write() {
        tracing::warn!(%error, path = %kept.display(), "the configuration cannot be kept for later");
    }
}

fn identity(name: &str) -> Result<Identity, CliError> {
    let unknown = |why: String| {
        CliError::hinted(
            Exit::Usage,
            format!("`users`: {why}"),
            format!("create it (`useradd --system {name}`), or name another user"),
        )
    };
    match User::from_name(name) {
        Ok(Some(user)) => {
            Ok(Identity { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir })
        }
        Ok(None) => Err(unknown(format!("there is no user `{name}` on this machine"))),
        Err(error) => Err(unknown(format!("user `{name}` cannot be looked up: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(users: &str) -> Config {
        let text = format!("data_dir: /srv/fleet\n{users}");
        crate::files::read_config(Path::new("/etc/landfall.yaml"), &text, &mut std::iter::empty()).unwrap()
    }

    #[test]
    fn the_socket_follows_a_data_directory_given_by_option() {
        let plan = from_config(&config(""), "/etc/landfall.yaml".into(), Some("/tmp/x".into()), false).unwrap();
        assert_eq!(plan.data_dir, Path::new("/tmp/x"));
        assert_eq!(plan.api_socket, Path::new("/tmp/x/landfall.sock"));
        assert_eq!(plan.config.as_deref(), Some(Path::new("/etc/landfall.yaml")));
    }

    #[test]
    fn users_are_resolved_for_root_and_ignored_otherwise() {
        let users = config("users: {agent: root, apps: no-such-user-here}\n");
        assert_eq!(from_config(&users, "/c".into(), None, false).unwrap().users, None);
        let error = from_config(&users, "/c".into(), None, true).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("no-such-user-here"), "{error}");
    }
}
