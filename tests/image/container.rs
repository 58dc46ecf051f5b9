//! A container of the image under test.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{docker, docker_at, engine};
use crate::support::{http, until};

/// The image under test; `None`, said aloud, where there is none.
pub fn image() -> Option<String> {
    engine()?;
    let image = std::env::var("LANDFALL_TEST_IMAGE").ok().filter(|image| !image.is_empty());
    if image.is_none() {
        println!("skipped: LANDFALL_TEST_IMAGE names no image; tests/image/build makes one");
    }
    image
}

/// The app that the tests deploy, linked so that it runs where no library is.
fn static_app() -> PathBuf {
    let machine = std::env::consts::ARCH;
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/{machine}-unknown-linux-musl/image/examples/test-app"))
}

/// A directory with one app, `shop`, that everybody may read; `None` where no image is to run it.
pub fn apps(command: &str) -> Option<tempfile::TempDir> {
    image()?;
    let directory = tempfile::tempdir().expect("a directory");
    let shop = directory.path().join("shop");
    std::fs::create_dir(&shop).expect("made");
    std::fs::copy(static_app(), shop.join("test-app")).expect("tests/image/build has made it");
    std::fs::write(shop.join("content.txt"), "v1\n").expect("written");
    let manifest = format!(
        "app: shop\nbake: 0s\nweb:\n  main:\n    command: {command}\n    health: {{path: /healthz, interval: 50ms}}\n"
    );
    std::fs::write(shop.join("landfall.yaml"), manifest).expect("written");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("permitted");
    Some(directory)
}

/// A running container, removed with the value.
pub struct Container {
    pub name: String,
}

impl Container {
    /// An agent that watches `apps`, started with `options` of `docker run`.
    pub fn start(apps: &Path, options: &[&str]) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let image = image()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let container = Self { name: format!("landfall-test-image-{}-{number}", std::process::id()) };
        let apps = format!("{}:/apps:ro", apps.display());
        let mut arguments = vec!["run", "--detach", "--name", &container.name, "--health-interval", "1s"];
        arguments.extend(["--volume", &apps, "--env", "LANDFALL_SOURCES__0__NAME=apps"]);
        arguments.extend(["--env", "LANDFALL_SOURCES__0__DIRECTORY__PATH=/apps"]);
        arguments.extend(options);
        arguments.push(&image);
        docker(&arguments);
        Some(container)
    }

    /// What `docker inspect` says at this place.
    pub fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name])
    }

    pub fn log(&self) -> String {
        let output = std::process::Command::new("docker")
            .args(["-H", &engine().expect("an engine"), "logs", &self.name])
            .output()
            .expect("docker runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The proxy of the agent.
    fn proxy(&self) -> SocketAddr {
        let address = self.inspect("{{.NetworkSettings.IPAddress}}");
        SocketAddr::new(address.parse().expect("the address of a running container"), 8080)
    }

    /// Waits until `shop` answers with this.
    pub async fn until_body(&self, body: &str) {
        let proxy = self.proxy();
        until(&format!("shop answers {body:?}"), || async {
            match http::get(proxy, "shop.localhost", "/").await {
                Ok(answer) if answer.status == 200 && answer.body == body => Ok(()),
                other => Err(format!("{other:?}\n{}", self.log())),
            }
        })
        .await;
    }

    pub async fn until_healthy(&self) {
        until("the image's own check is content", || async {
            let health = self.inspect("{{.State.Health.Status}}");
            if health == "healthy" { Ok(()) } else { Err(format!("{health}\n{}", self.log())) }
        })
        .await;
    }

    /// `landfall …` in the container.
    pub fn landfall(&self, arguments: &[&str]) -> String {
        docker(&[&["exec", self.name.as_str(), "landfall"], arguments].concat())
    }

    /// Stops it as people do; answers its exit code and how long that took.
    pub fn stop(&self) -> (String, Duration) {
        let begun = Instant::now();
        docker(&["stop", &self.name]);
        (self.inspect("{{.State.ExitCode}}"), begun.elapsed())
    }

    /// The number of its process 1 on this machine.
    pub fn init(&self) -> i32 {
        self.inspect("{{.State.Pid}}").parse().expect("a process id")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the container's log ---\n{}", self.log());
        }
        let _ = docker_at(&engine().expect("an engine"), &["rm", "--force", "--volumes", &self.name]);
    }
}

/// What runs, or waits to be reaped, in the process namespace of this process: number, parent, state and command.
pub fn processes_beside(init: i32) -> Vec<(i32, i32, char, String)> {
    let space = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = space(init);
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let described = pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (command, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next()?.chars().next()?, fields.next()?.parse().ok()?);
        Some((pid, parent, state, command.to_owned()))
    });
    // The dead have no namespace any more; they are known by their parent.
    described.filter(|(pid, parent, ..)| *parent == init || space(*pid) == own).collect()
}
