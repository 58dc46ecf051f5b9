//! An engine that goes away and comes back. These tests start one of their own, which takes root and `dockerd`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use landfall::domain::DeploymentOutcome;

use crate::engine::{agent_at, app_image, containers_at, docker_at, engine, manifest};
use crate::support::{send_signal, until};

/// A `dockerd` of its own, with a bridge of its own; both go with the value.
struct Dockerd {
    directory: tempfile::TempDir,
    bridge: String,
    process: Option<Child>,
}

impl Dockerd {
    async fn start(number: u8) -> Option<Self> {
        engine()?;
        let has_it = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
        if !nix::unistd::geteuid().is_root() || !has_it {
            println!("skipped: a `dockerd` of its own takes root");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("landfall-dockerd-").tempdir().expect("a directory");
        let bridge = format!("lf-test{number}");
        ip(&["link", "del", &bridge]);
        assert!(ip(&["link", "add", "name", &bridge, "type", "bridge"]), "a bridge");
        assert!(ip(&["addr", "add", &format!("10.213.{number}.1/24"), "dev", &bridge]), "its address");
        assert!(ip(&["link", "set", &bridge, "up"]), "up");
        let mut dockerd = Self { directory, bridge, process: None };
        dockerd.launch().await;
        Some(dockerd)
    }

    fn address(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    async fn launch(&mut self) {
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        // Left by one that was killed; its containerd may still wait to be reaped, and must not be taken for alive.
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(path(left));
        }
        let log = std::fs::File::options().append(true).create(true).open(path("log")).expect("a log");
        let process = Command::new("dockerd")
            .arg("--data-root")
            .arg(path("root"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(["-H", &self.address(), "--bridge", &self.bridge, "--live-restore"])
            .args(["--iptables=false", "--ip-forward=false", "--ip-masq=false"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        self.process = Some(process);
        let address = self.address();
        until("the engine answers", || async { docker_at(&address, &["version"]).map(drop) }).await;
    }

    /// Gone at once; its containers stay.
    fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("killed");
        process.wait().expect("its end");
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let all = docker_at(&self.address(), &["ps", "-aq"]).unwrap_or_default();
        for container in all.lines() {
            let _ = docker_at(&self.address(), &["rm", "-f", container]);
        }
        if let Some(mut process) = self.process.take() {
            send_signal(i32::try_from(process.id()).expect("a process id"), nix::sys::signal::Signal::SIGTERM);
            let _ = process.wait();
        }
        ip(&["link", "del", &self.bridge]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_engine_is_away_apps_are_served_deployments_say_so_and_it_mends_itself() {
    let Some(mut dockerd) = Dockerd::start(1).await else { return };
    let address = dockerd.address();
    let image = app_image(&address);
    let mut agent = agent_at(&address, "").await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    let before = containers_at(&address, &agent, "status=running");
    dockerd.kill();
    until("the agent says so", || async {
        let status = agent.client.status().await.map_err(|error| error.to_string())?;
        let told = format!("{:?}", status.problems);
        if told.contains("apps in containers wait") { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "v1\n", "what runs is served");
    agent.repo.write("shop/content.txt", "v2\n");
    agent.repo.push("v2");
    let deployment = until("the deployment has failed", || async {
        let deployment = agent.until_done("shop").await;
        if deployment.outcome == Some(DeploymentOutcome::Failed) {
            Ok(deployment)
        } else {
            Err(format!("{deployment:?}"))
        }
    })
    .await;
    let failure = deployment.failure.expect("a failure");
    assert!(failure.message.contains("cannot be reached") || failure.message.contains("went away"), "{failure:?}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "v1\n");
    dockerd.launch().await;
    until("the agent is content", || async {
        let status = agent.client.status().await.map_err(|error| error.to_string())?;
        let told = format!("{:?}", status.problems);
        if told.contains("containers") { Err(told) } else { Ok(()) }
    })
    .await;
    assert_eq!(containers_at(&address, &agent, "status=running"), before, "nothing was started anew");
    agent.repo.write("shop/content.txt", "v3\n");
    agent.repo.push("v3");
    agent.until_body("shop", "v3\n").await;
    // One that ended while nobody could say so.
    let now = containers_at(&address, &agent, "status=running").remove(0);
    let pid: i32 =
        docker_at(&address, &["inspect", "-f", "{{.State.Pid}}", &now]).expect("seen").parse().expect("a pid");
    dockerd.kill();
    send_signal(pid, nix::sys::signal::Signal::SIGKILL);
    dockerd.launch().await;
    agent.until_body("shop", "v3\n").await;
    until("another container runs", || async {
        let found = containers_at(&address, &agent, "status=running");
        if found.len() == 1 && found[0] != now { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    drop(agent);
}
