//! Where a demo lives: a directory with the repository, the configuration and the agent's data.
//!
//! Invariant: a temporary directory goes with the demo; one that was named stays, and is taken up again.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cli::exit::{CliError, Exit};

use super::seed;

/// First line of a demo's configuration: what the demo may write over.
const MARK: &str = "# Written by `landfall demo`; written anew by each start on this directory.";
/// What the demo's channel does: the title of each notification becomes a line of the file it is given.
const TELL: &str = r#"printf '%s\n' "$LANDFALL_NOTICE_TITLE" >> "$1""#;
/// Interpreters of the example apps.
const INTERPRETERS: [&str; 2] = ["python3", "node"];

/// Where the dashboard is, unless somebody says otherwise or is there already.
const DASHBOARD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7171);

/// The directory of a demo.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    /// Removes the directory at the end; `None` when it was named.
    temporary: Option<TempDir>,
    /// The repository was made by this start, so exactly the examples will come up.
    pub fresh: bool,
    /// Where the dashboard is.
    pub dashboard: SocketAddr,
    /// Example apps that this machine cannot run, by the interpreter it lacks.
    pub left_out: Vec<(&'static str, Vec<String>)>,
}

impl Place {
    /// Makes or takes up the directory, with a repository and a configuration that listens on `listen`.
    pub fn prepare(named: Option<&Path>, listen: SocketAddr, dashboard: Option<SocketAddr>) -> Result<Self, CliError> {
        check_free(listen, "--listen 127.0.0.1:8081")?;
        let dashboard = match dashboard {
            Some(named) => check_free(named, "--dashboard 127.0.0.1:7172").map(|()| named)?,
            None => usual_or_any(),
        };
        let (dir, temporary) = match named {
            Some(dir) => {
                fs::create_dir_all(dir).map_err(|error| broken(dir, "cannot be made", &error))?;
                (dir.canonicalize().map_err(|error| broken(dir, "cannot be read", &error))?, None)
            }
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("landfall-demo-")
                    .tempdir()
                    .map_err(|error| broken(&std::env::temp_dir(), "takes no new directory", &error))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let mut place = Self { dir, temporary, fresh: true, dashboard, left_out: Vec::new() };
        place.fresh = !place.repository().exists();
        place.write_config(listen)?;
        let missing = INTERPRETERS.into_iter().filter(|program| place.fresh && !has(program));
        place.left_out = missing.map(|program| (program, seed::apps_that_need(program))).collect();
        seed::seed(&place.repository(), &place.without()).map_err(|error| {
            CliError::hinted(
                Exit::Failed,
                format!("{}: the demo's repository cannot be made: {error}", place.repository().display()),
                "name another directory with `--dir`",
            )
        })?;
        Ok(place)
    }

    /// Names of the example apps that are left out.
    pub fn without(&self) -> Vec<String> {
        self.left_out.iter().flat_map(|(_, apps)| apps.clone()).collect()
    }

    /// Whether this machine lacks this interpreter, and apps are left out for it.
    pub fn lacks(&self, interpreter: &str) -> bool {
        self.left_out.iter().any(|(missing, _)| *missing == interpreter)
    }

    /// The bare repository.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("fleet.git")
    }

    /// The agent's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("landfall.yaml")
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("data").join("landfall.sock")
    }

    /// What people are told: the demo's channel adds a line for each notification.
    pub fn notices(&self) -> PathBuf {
        self.dir.join("notifications.log")
    }

    /// What the agent says.
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// Removes the directory or says where it stays.
    pub fn leave(self) -> String {
        if self.temporary.is_some() {
            make_writable(&self.dir);
        }
        match self.temporary.map(TempDir::close) {
            None => {
                format!("Stopped. {0} is kept: go on with `landfall demo --dir {0}`, or remove it.", self.dir.display())
            }
            Some(Ok(())) => "Stopped; nothing is left running, and the demo's directory is removed.".to_owned(),
            Some(Err(error)) => {
                format!("Stopped, but {} cannot be removed: {error}; please remove it.", self.dir.display())
            }
        }
    }

    fn write_config(&self, listen: SocketAddr) -> Result<(), CliError> {
        let file = self.config();
        match fs::read_to_string(&file) {
            Ok(text) if !text.starts_with(MARK) => {
                return Err(CliError::hinted(
                    Exit::Conflict,
                    format!("{} is not the configuration of a demo, and is left alone", file.display()),
                    "name an empty directory or an earlier demo's with `--dir`",
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(broken(&file, "cannot be read", &error)),
        }
        let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
        let text = format!(
            "{MARK}\ndata_dir: {data}\nsources:\n  - name: fleet\n    git: {{url: {url}, branch: {branch}}}\n\
             proxy: {{listen: [\"{listen}\"], domain: localhost}}\napi: {{socket: {socket}, listen: \"{dashboard}\"}}\n\
             notifications:\n  demo:\n    exec: {{command: [sh, -c, {tell}, tell, {notices}]}}\n    window: 1s\n",
            data = quoted(self.dir.join("data")),
            url = quoted(self.repository()),
            branch = seed::BRANCH,
            socket = quoted(self.socket()),
            tell = serde_json::Value::from(TELL),
            notices = quoted(self.notices()),
            dashboard = self.dashboard,
        );
        fs::write(&file, text).map_err(|error| broken(&file, "cannot be written", &error))
    }
}

/// Releases are read-only, directories included, and only root removes those as they are. What cannot be changed
/// shows when the directory is removed.
fn make_writable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

fn broken(path: &Path, what: &str, error: &io::Error) -> CliError {
    CliError::hinted(Exit::Failed, format!("{} {what}: {error}", path.display()), "name another directory with `--dir`")
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The agent would find out as well, but only its log would say so.
fn check_free(listen: SocketAddr, other: &str) -> Result<(), CliError> {
    TcpListener::bind(listen).map(drop).map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::AddrInUse => format!("{listen} is in use by another program"),
            _ => format!("cannot listen on {listen}: {error}"),
        };
        CliError::hinted(Exit::Failed, message, format!("name another address, for example `{other}`"))
    })
}

/// The dashboard's usual port, or any that is free: a second demo has one, too.
fn usual_or_any() -> SocketAddr {
    let free = |address: SocketAddr| TcpListener::bind(address).and_then(|listener| listener.local_addr()).ok();
    free(DASHBOARD).or_else(|| free(SocketAddr::new(DASHBOARD.ip(), 0))).unwrap_or(DASHBOARD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_directory_with_read_only_releases_can_be_removed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("releases/tree");
        fs::create_dir_all(&release).unwrap();
        fs::write(release.join("file"), "x").unwrap();
        fs::set_permissions(&release, fs::Permissions::from_mode(0o500)).unwrap();
        make_writable(dir.path());
        assert_eq!(fs::metadata(&release).unwrap().permissions().mode() & 0o700, 0o700);
        dir.close().unwrap();
    }

    #[test]
    fn a_named_directory_is_kept_and_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::prepare(Some(dir.path()), free(), None).unwrap();
        assert!(first.fresh);
        assert!(first.leave().contains("is kept"));
        let again = Place::prepare(Some(dir.path()), free(), None).unwrap();
        assert!(!again.fresh);
        let config = crate::cli::locate::read(&again.config()).unwrap();
        assert_eq!(config.api.socket, again.socket());
    }

    #[test]
    fn a_temporary_directory_goes_with_the_demo() {
        let place = Place::prepare(None, free(), None).unwrap();
        let dir = place.config().parent().unwrap().to_owned();
        assert!(dir.exists());
        place.leave();
        assert!(!dir.exists());
    }

    #[test]
    fn a_configuration_that_is_not_a_demos_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("landfall.yaml"), "app: shop\n").unwrap();
        let error = Place::prepare(Some(dir.path()), free(), None).unwrap_err();
        assert_eq!(error.exit(), Exit::Conflict);
        assert_eq!(fs::read_to_string(dir.path().join("landfall.yaml")).unwrap(), "app: shop\n");
    }

    #[test]
    fn a_busy_port_is_named_together_with_the_option_that_helps() {
        let taken = TcpListener::bind(free()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = Place::prepare(None, address, None).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
    }
}
