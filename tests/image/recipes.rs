//! The recipes of `examples/sidecar-*` as their READMEs say: brought up by Compose, pushed to, rolled back.
//!
//! Two things differ: images of others are stand-ins made of this machine's Python, and ports and directories are the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::container::image;
use crate::engine::{docker, docker_at, engine, python_image};
use crate::support::{Repo, free_port, http, until};

/// What the Dockerfiles and Compose files of the recipes start from.
const PYTHON: &str = "python:3.13-alpine";

/// A recipe that is up, with a repository to push to.
struct Recipe {
    directory: PathBuf,
    project: String,
    variables: Vec<(&'static str, String)>,
    repo: Repo,
    port: u16,
    stand_in: String,
    files: tempfile::TempDir,
}

impl Recipe {
    /// Brings it up; `None`, said aloud, without an engine, the image, Compose or Python.
    async fn up(name: &str) -> Option<Self> {
        let (image, stand_in) = (image()?, python_image(&engine()?)?);
        if Command::new("docker-compose").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            println!("skipped: docker-compose is not installed");
            return None;
        }
        let files = tempfile::tempdir().expect("a directory");
        let repo = Repo::create(&files.path().join("repository.git"));
        let data = files.path().join("data");
        std::fs::create_dir(&data).expect("made");
        for path in [files.path(), &data] {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(path, everybody).expect("permitted");
        }
        let port = free_port();
        let project = format!("{name}-test{}", std::process::id());
        let variables = vec![
            ("LANDFALL_IMAGE", image),
            ("APP_IMAGE", stand_in.clone()),
            ("REPOSITORY", repo.path().display().to_string()),
            ("DATA", data.display().to_string()),
            ("DOCKER_SOCKET", engine()?.trim_start_matches("unix://").to_owned()),
            ("PORT", port.to_string()),
            ("PROJECT", project.clone()),
            ("INTERVAL", "1s".to_owned()),
        ];
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let recipe = Self { directory, project, variables, repo, port, stand_in, files };
        recipe.compose(&["up", "--detach", "--build"]);
        Some(recipe)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command.current_dir(&self.directory).stdin(Stdio::null());
        command.env("DOCKER_HOST", engine().expect("an engine")).env("COMPOSE_PROJECT_NAME", &self.project);
        // The builder that every engine has, whatever command line is installed here.
        command.env("COMPOSE_DOCKER_CLI_BUILD", "0");
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).args(arguments);
        command
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("docker-compose runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn landfall(&self, service: &str, arguments: &[&str]) -> String {
        self.compose(&[&["exec", "-T", service, "landfall"], arguments].concat())
    }

    /// Puts the files of a directory of the recipe into the repository, below `place`.
    fn take(&mut self, directory: &str, place: &str) {
        for entry in std::fs::read_dir(self.directory.join(directory)).expect("the recipe's files").flatten() {
            let name = entry.file_name().into_string().expect("a name");
            let text = std::fs::read_to_string(entry.path()).expect("text").replace(PYTHON, &self.stand_in);
            self.repo.write(&format!("{place}{name}"), text);
        }
    }

    async fn until(&self, host: &str, path: &str, status: u16, body: &str) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        until(&format!("{host}{path} answers {status} {body:?}"), || async {
            match http::get(address, host, path).await {
                Ok(answer) if answer.status == status && answer.body == body => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// What Compose says of the health of a service.
    async fn until_health(&self, service: &str, wanted: &str) {
        let container = self.compose(&["ps", "-q", service]).trim().to_owned();
        until(&format!("{service} is {wanted}"), || async {
            let health = docker(&["inspect", "--format", "{{.State.Health.Status}}", &container]);
            if health == wanted { Ok(()) } else { Err(health) }
        })
        .await;
    }
}

impl Drop for Recipe {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.command(&["logs", "--no-color"]).output();
            eprintln!(
                "{}",
                logs.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
            );
        }
        let _ = self.command(&["down", "--volumes", "--timeout", "10"]).output();
        // Files of other users are removed as who they are by: the engine.
        let own = format!("{}:/files", self.files.path().display());
        let clean = "import shutil; shutil.rmtree('/files/data', ignore_errors=True)";
        let address = engine().expect("an engine");
        let _ = docker_at(&address, &["run", "--rm", "-v", &own, &self.stand_in, "python3", "-c", clean]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_engines_socket_pushes_deploy_sibling_containers() {
    let Some(mut recipe) = Recipe::up("sidecar-engine").await else { return };
    recipe.take("shop", "shop/");
    recipe.repo.push("A shop");
    recipe.until("shop.localhost", "/", 200, "Good morning from version 1\n").await;
    let siblings = || docker(&["ps", "-q", "--filter", &format!("network={}", recipe.project)]).lines().count();
    assert_eq!(siblings(), 2, "the agent and the shop");
    recipe.repo.write("shop/greeting.txt", "Good evening\n");
    recipe.repo.push("It is late");
    recipe.until("shop.localhost", "/", 200, "Good evening from version 2\n").await;
    recipe.landfall("landfall", &["app", "rollback", "shop", "--reason", "too early"]);
    recipe.until("shop.localhost", "/", 200, "Good morning from version 3\n").await;
    recipe.compose(&["restart", "landfall"]);
    recipe.until("shop.localhost", "/", 200, "Good morning from version 3\n").await;
    recipe.compose(&["stop"]);
    assert_eq!(siblings(), 0, "who ends the agent ends its apps");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_shared_volume_what_is_checked_is_published_and_told() {
    let Some(mut recipe) = Recipe::up("sidecar-publish").await else { return };
    recipe.until("web", "/healthz", 503, "nothing is published yet\n").await;
    recipe.take("site", "");
    recipe.repo.push("Two pages");
    recipe.until("web", "/", 200, "Welcome\n").await;
    recipe.until_health("landfall", "healthy").await;
    recipe.repo.write("pages.json", r#"{"/about": "No start page"}"#);
    recipe.repo.push("A mistake");
    until("the check has refused it", || async {
        let history = recipe.landfall("landfall", &["app", "history", "site"]);
        if history.contains("failed") { Ok(()) } else { Err(history) }
    })
    .await;
    recipe.until("web", "/about", 200, "Published by Landfall\n").await;
    recipe.repo.write("pages.json", r#"{"/": "Welcome back"}"#);
    recipe.repo.push("Mended");
    recipe.until("web", "/", 200, "Welcome back\n").await;
    recipe.until("web", "/about", 404, "no such page\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_process_1_of_the_apps_image_it_runs_the_newest_commit() {
    let Some(mut recipe) = Recipe::up("sidecar-pid1").await else { return };
    recipe.take("app", "");
    recipe.repo.push("A counter");
    recipe.until("localhost", "/", 200, "1 counted by version 1\n").await;
    let server = std::fs::read_to_string(recipe.directory.join("app/server.py")).expect("text");
    recipe.repo.write("server.py", server.replace("STEP = 1", "STEP = 10"));
    recipe.repo.push("Faster");
    recipe.until("localhost", "/", 200, "10 counted by version 2\n").await;
    recipe.landfall("app", &["app", "rollback", "counter", "--reason", "too fast"]);
    recipe.until("localhost", "/", 200, "1 counted by version 3\n").await;
    let container = recipe.compose(&["ps", "-q", "app"]).trim().to_owned();
    recipe.compose(&["stop"]);
    assert_eq!(docker(&["inspect", "--format", "{{.State.ExitCode}}", &container]), "0");
}
