//! The engine under test, the images made in it, and agents whose apps are containers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use landfall::domain::DeploymentOutcome;
use landfall::wire::api::Deployment;

pub use crate::support::making::{docker_at, python_image};
use crate::support::{Agent, Setup, free_port, test_app, until};

/// The engine's address; `None`, said aloud, where there is none.
pub fn engine() -> Option<String> {
    let address = std::env::var("LANDFALL_TEST_DOCKER").ok().filter(|address| !address.is_empty());
    if address.is_none() {
        println!("skipped: LANDFALL_TEST_DOCKER names no container engine, for example unix:///var/run/docker.sock");
    }
    address
}

/// The same for the engine under test, where nothing may fail.
pub fn docker(arguments: &[&str]) -> String {
    docker_at(&engine().expect("an engine"), arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
}

/// Whether the engine under test has BuildKit; said aloud where it has none.
pub fn has_buildkit() -> bool {
    let is_docker = docker(&["version", "-f", "{{range .Server.Components}}{{.Name}} {{end}}"]).starts_with("Engine ");
    if !is_docker {
        println!("this engine has no BuildKit: what takes it is skipped");
    }
    is_docker
}

/// The image of the app that the tests deploy.
pub fn app_image(address: &str) -> String {
    crate::support::making::app_image(address, Path::new(&test_app()))
}

/// A manifest of one web app in a container that serves `content.txt`; `more` is added at its end.
pub fn manifest(app: &str, image: &str, more: &str) -> String {
    format!(
        "app: {app}\nimage: {image}\nbake: 200ms\nweb:\n  main:\n    health: {{path: /healthz, interval: 50ms}}\n    drain: 5s\n    grace: 100ms\n{more}"
    )
}

/// An agent whose containers run in that engine.
pub async fn agent_at(address: &str, more: &str) -> Agent {
    let mut setup = Setup::new();
    setup.more = format!("docker:\n  socket: {address}\n{more}");
    setup.start().await
}

/// An agent at the engine under test, and the image of the app.
pub async fn scene() -> Option<(Agent, String)> {
    let address = engine()?;
    let image = app_image(&address);
    Some((agent_at(&address, "").await, image))
}

/// The name of an agent in its engine.
pub fn owner(agent: &Agent) -> String {
    std::fs::read_to_string(agent.log_file().with_file_name("data").join("owner")).expect("a name").trim().to_owned()
}

/// Containers of an agent, running or not, by their identifiers.
pub fn containers_at(address: &str, agent: &Agent, filter: &str) -> Vec<String> {
    let label = format!("label=landfall.owner={}", owner(agent));
    let mut arguments = vec!["ps", "-aq", "--no-trunc", "--filter", &label];
    if !filter.is_empty() {
        arguments.extend(["--filter", filter]);
    }
    docker_at(address, &arguments).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The one container of an agent that runs, once there is one.
pub async fn running(agent: &Agent) -> String {
    let address = engine().expect("an engine");
    until("one container runs", || async {
        let found = containers_at(&address, agent, "status=running");
        match found.as_slice() {
            [one] => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// All log files of an app, one after the other.
pub fn logs(agent: &Agent, app: &str) -> String {
    let mut text = String::new();
    let mut directories = vec![agent.log_file().with_file_name("data").join("logs/main").join(app)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
            } else {
                text.push_str(&std::fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    text
}

/// A registry of its own, ended with the value.
pub struct Registry {
    process: std::process::Child,
    pub host: String,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// A registry that needs `user` and `password` where they are given; `None`, said aloud, where none is installed.
    pub async fn start(login: Option<(&str, &str)>) -> Option<Self> {
        let program =
            ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"].iter().find(|path| Path::new(path).exists());
        let Some(program) = program else {
            println!("skipped: docker-registry is not installed");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let host = format!("127.0.0.1:{}", free_port());
        let auth = match login {
            Some((user, password)) => format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                htpasswd(directory.path(), user, password)?.display()
            ),
            None => String::new(),
        };
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n{auth}",
            directory.path().join("images").display()
        );
        let file = directory.path().join("registry.yml");
        std::fs::write(&file, config).expect("written");
        let process = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let registry = Self { process, host, _directory: directory };
        until("the registry answers", || async {
            std::net::TcpStream::connect(&registry.host).map(drop).map_err(|error| error.to_string())
        })
        .await;
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A password file, its password hashed as registries want it; `None`, said aloud, without Python to do so.
fn htpasswd(directory: &Path, user: &str, password: &str) -> Option<PathBuf> {
    let script = "import crypt, sys; print(sys.argv[1] + ':' + crypt.crypt(sys.argv[2], crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=2**4)))";
    let output = Command::new("python3").args(["-W", "ignore", "-c", script, user, password]).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || !line.contains(":$2") {
        println!("skipped: this Python cannot hash a password for the registry");
        return None;
    }
    let file = directory.join("htpasswd");
    std::fs::write(&file, line).expect("written");
    Some(file)
}

/// Waits until a deployment of `shop` has failed with these words.
pub async fn until_failed(agent: &Agent, words: &str) -> Deployment {
    let deployment = until("it has failed", || async {
        let deployment = agent.until_done("shop").await;
        match deployment.failure.as_ref().is_some_and(|failure| failure.message.contains(words)) {
            true => Ok(deployment),
            false => Err(format!("{deployment:?}")),
        }
    })
    .await;
    assert_eq!(deployment.outcome, Some(DeploymentOutcome::Failed));
    deployment
}
