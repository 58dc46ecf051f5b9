//! An engine that goes away and comes back. These tests start one of their own, which takes root and `dockerd`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use landfall::domain::{DeploymentOutcome, InstanceState};
use nix::sys::signal::Signal;

use crate::engine::{agent_at, app_image, containers_at, docker_at, engine, logs, manifest, until_failed};
use crate::support::load::Load;
use crate::support::{Agent, send_signal, until};

/// A `dockerd` of its own, with a bridge of its own; both go with the value.
struct Dockerd {
    directory: tempfile::TempDir,
    bridge: String,
    process: Option<Child>,
    /// Its data lie on a disk of their own.
    mounted: bool,
    /// Its further arguments.
    more: Vec<String>,
}

impl Dockerd {
    async fn start(number: u8) -> Option<Self> {
        Self::start_on(number, None).await
    }

    /// On a disk of its own of this size, in bytes.
    async fn start_on(number: u8, disk: Option<u64>) -> Option<Self> {
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
        let mut dockerd = Self { directory, bridge, process: None, mounted: false, more: Vec::new() };
        if let Some(size) = disk {
            let root = dockerd.directory.path().join("root");
            std::fs::create_dir(&root).expect("made");
            let options = format!("size={size}");
            let flags = nix::mount::MsFlags::empty();
            let mounted = nix::mount::mount(Some("tmpfs"), &root, Some("tmpfs"), flags, Some(options.as_str()));
            mounted.expect("a small disk");
            dockerd.mounted = true;
        }
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
            .args(&self.more)
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
            send_signal(i32::try_from(process.id()).expect("a process id"), Signal::SIGTERM);
            let _ = process.wait();
        }
        if self.mounted {
            let root = self.directory.path().join("root");
            let _ = nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH);
        }
        ip(&["link", "del", &self.bridge]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// An agent at this engine with the app `shop`, deployed once.
async fn agent_with_shop(address: &str) -> Agent {
    let image = app_image(address);
    let mut agent = agent_at(address, "").await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_engine_is_away_apps_are_served_deployments_say_so_and_it_mends_itself() {
    let Some(mut dockerd) = Dockerd::start(1).await else { return };
    let address = dockerd.address();
    let mut agent = agent_with_shop(&address).await;
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
    until_content(&agent).await;
    assert_eq!(containers_at(&address, &agent, "status=running"), before, "nothing was started anew");
    agent.repo.write("shop/content.txt", "v3\n");
    agent.repo.push("v3");
    agent.until_body("shop", "v3\n").await;
    // One that ended while nobody could say so.
    let now = containers_at(&address, &agent, "status=running").remove(0);
    let pid = pid_of(&address, &now);
    dockerd.kill();
    send_signal(pid, Signal::SIGKILL);
    dockerd.launch().await;
    agent.until_body("shop", "v3\n").await;
    until_another(&address, &agent, &now).await;
    drop(agent);
}

/// Waits until the agent has nothing to say of its engine any more.
async fn until_content(agent: &Agent) {
    until("the agent is content", || async {
        let status = agent.client.status().await.map_err(|error| error.to_string())?;
        let told = format!("{:?}", status.problems);
        if told.contains("containers") { Err(told) } else { Ok(()) }
    })
    .await;
}

/// Waits until another container than this one is the only one of the agent, running or not.
async fn until_another(address: &str, agent: &Agent, than: &str) -> String {
    until("another container took the place, and none is left beside it", || async {
        let (running, all) = (containers_at(address, agent, "status=running"), containers_at(address, agent, ""));
        match running.as_slice() {
            [one] if one != than && all == running => Ok(one.clone()),
            _ => Err(format!("{running:?} of {all:?}")),
        }
    })
    .await
}

/// The process of a container, as the engine tells it.
fn pid_of(address: &str, container: &str) -> i32 {
    let pid = docker_at(address, &["inspect", "-f", "{{.State.Pid}}", container]).expect("seen");
    pid.parse().expect("a process id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_begins_while_the_engine_is_away_keeps_what_runs_and_replaces_what_ended() {
    let Some(mut dockerd) = Dockerd::start(4).await else { return };
    let address = dockerd.address();
    let mut agent = agent_with_shop(&address).await;
    let before = containers_at(&address, &agent, "");
    let load = Load::start(agent.proxy, "shop", 4, 1);
    load.live(1);
    load.go_on().await;
    dockerd.kill();
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    let found = agent.instances("shop").await.expect("an answer");
    assert!(matches!(found.as_slice(), [one] if one.state == InstanceState::Ready), "{found:?}");
    load.go_on().await;
    dockerd.launch().await;
    until_content(&agent).await;
    load.go_on().await;
    load.stop_unharmed().await;
    assert_eq!(containers_at(&address, &agent, ""), before, "nothing was started anew");
    assert_eq!(logs(&agent, "shop").matches("listening on").count(), 1, "no line is written twice");
    // One that ends while there is neither engine nor controller; the controller is back first.
    let pid = pid_of(&address, &before[0]);
    dockerd.kill();
    let killed = agent.kill_controller().await;
    send_signal(pid, Signal::SIGKILL);
    agent.until_new_controller(killed).await;
    dockerd.launch().await;
    let second = until_another(&address, &agent, &before[0]).await;
    agent.until_body("shop", "v1\n").await;
    // The same, and the engine is back first.
    let pid = pid_of(&address, &second);
    let controller = agent.controller_pid().await;
    send_signal(controller, Signal::SIGSTOP);
    dockerd.kill();
    send_signal(pid, Signal::SIGKILL);
    dockerd.launch().await;
    send_signal(controller, Signal::SIGKILL);
    agent.until_new_controller(controller).await;
    until_another(&address, &agent, &second).await;
    agent.until_body("shop", "v1\n").await;
    agent.repo.write("shop/content.txt", "v2\n");
    agent.repo.push("v2");
    agent.until_body("shop", "v2\n").await;
    drop(agent);
}

/// Writes until nothing fits any more.
fn fill(file: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(file).expect("a file");
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_a_deployment_with_its_mend_and_loses_nothing() {
    // Room for the image, twice: it is unpacked beside what is sent.
    let Some(dockerd) = Dockerd::start_on(2, Some(512 << 20)).await else { return };
    let address = dockerd.address();
    let mut agent = agent_with_shop(&address).await;
    let before = containers_at(&address, &agent, "status=running");
    let filler = dockerd.directory.path().join("root/filler");
    fill(&filler);
    agent.repo.write("shop/content.txt", "v2\n");
    agent.repo.push("v2");
    let failure = until_failed(&agent, "no space left on device").await.failure.expect("a failure");
    assert!(failure.message.contains("`docker system df` shows by what"), "{failure:?}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "v1\n", "what runs is served");
    assert_eq!(containers_at(&address, &agent, "status=running"), before);
    std::fs::remove_file(&filler).expect("removed");
    agent.repo.write("shop/content.txt", "v3\n");
    agent.repo.push("v3");
    agent.until_body("shop", "v3\n").await;
    agent.rollback("shop", crate::support::asking::back_to(Some(1))).await;
    agent.until_body("shop", "v1\n").await;
    drop(agent);
}

/// Makes an authority, a server's and a client's certificate, and writes them as `dockerd` and Landfall read them.
fn certificates(directory: &Path) {
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("written");
    let key = || rcgen::KeyPair::generate().expect("a key");
    let authority_key = key();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    write("ca.pem", authority.self_signed(&authority_key).expect("signed").pem());
    let issuer = rcgen::Issuer::new(authority, authority_key);
    for (name, hosts, usage) in [
        ("server", vec!["127.0.0.1".to_owned()], rcgen::ExtendedKeyUsagePurpose::ServerAuth),
        // As in Docker's own instructions, a client's names nobody.
        ("client", Vec::new(), rcgen::ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = rcgen::CertificateParams::new(hosts).expect("parameters");
        params.extended_key_usages.push(usage);
        let key = key();
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).expect("signed").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_over_tls_is_used_when_both_know_each_other_and_else_refused() {
    let Some(mut dockerd) = Dockerd::start(3).await else { return };
    let address = dockerd.address();
    let image = app_image(&address);
    let files = dockerd.directory.path().to_owned();
    certificates(&files);
    let port = crate::support::free_port();
    dockerd.kill();
    let file = |flag: &str, name: &str| format!("--{flag}={}", files.join(name).display());
    dockerd.more = vec!["-H".to_owned(), format!("tcp://127.0.0.1:{port}"), "--tlsverify".to_owned()];
    dockerd.more.extend([file("tlscacert", "ca.pem"), file("tlscert", "server.pem"), file("tlskey", "server.key")]);
    dockerd.launch().await;
    let at = |own: &str, authority: &str| {
        format!(
            "docker: {{socket: \"tcp://127.0.0.1:{port}\", tls: {{ca_file: {}{own}}}}}\n",
            files.join(authority).display()
        )
    };
    let own = format!(", certificate_file: {0}/client.pem, key_file: {0}/client.key", files.display());
    let start = async |more: String| {
        let mut setup = crate::support::Setup::new();
        setup.more = more;
        let mut agent = setup.start().await;
        agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
        agent.repo.push("v1");
        agent
    };
    let agent = start(at(&own, "ca.pem")).await;
    agent.until_body("shop", "v1\n").await;
    assert_eq!(containers_at(&address, &agent, "status=running").len(), 1);
    drop(agent);
    // One that shows nothing, and one that is shown what it does not trust.
    for more in [at("", "ca.pem"), at(&own, "client.pem")] {
        let agent = start(more).await;
        let failure = until_failed(&agent, "cannot be reached").await.failure.expect("a failure");
        assert!(failure.message.to_lowercase().contains("certificate"), "{failure:?}");
    }
}
