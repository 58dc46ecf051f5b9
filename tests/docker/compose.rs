//! Apps that are Compose projects, brought up by the tool that is installed here.

use std::net::SocketAddr;
use std::path::Path;

use landfall::domain::DeploymentOutcome;
use landfall::domain::InstanceState;
use landfall::wire::api::RollbackRequest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::{agent_at, docker, engine, logs, owner, python_image};
use crate::support::{Agent, free_port, http, until};

/// An agent, and an image with Python; `None`, said aloud, where something is missing.
pub async fn scene() -> Option<(Agent, String)> {
    scene_with("").await
}

/// The same with more lines under `docker` in the agent's configuration.
pub async fn scene_with(more: &str) -> Option<(Agent, String)> {
    let address = engine()?;
    let has = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !has("docker", &["compose", "version"]) && !has("docker-compose", &["version"]) {
        assert!(std::env::var_os("CI").is_none(), "neither docker compose nor docker-compose is installed");
        println!("skipped: neither docker compose nor docker-compose is installed");
        return None;
    }
    let image = python_image(&address)?;
    Some((agent_at(&address, more).await, image))
}

/// A store that notes a word in its volume, and a shop that waits until the store is healthy.
fn project(image: &str, check: &str) -> String {
    let store = "import os, time; open('/data/words', 'a').write(os.environ['WORD'] + ' '); print('noted', os.environ['WORD'], flush=True); time.sleep(10 ** 6)";
    // A store that comes up slowly is waited for; one that never does is told soon.
    let retries = if check == NEVER { 2 } else { 50 };
    format!(
        r#"services:
  store:
    image: {image}
    command: [/usr/bin/python3, -c, "{store}"]
    environment: {{WORD: "${{WORD}}"}}
    volumes: ["data:/data"]
    stop_signal: SIGKILL
    restart: unless-stopped
    healthcheck: {{test: [CMD, /usr/bin/python3, -c, "{check}"], interval: 200ms, timeout: 10s, retries: {retries}}}
  shop:
    image: {image}
    command: [/usr/bin/python3, -c, "import time; time.sleep(10 ** 6)"]
    stop_signal: SIGKILL
    depends_on: {{store: {{condition: service_healthy}}}}
volumes: {{data: {{}}}}
"#
    )
}

const HEALTHY: &str = "import os; os.stat('/data/words')";
const NEVER: &str = "print('no words yet'); raise SystemExit(1)";

fn push(agent: &mut Agent, image: &str, word: &str, check: &str) {
    let manifest = format!("app: shop\nbake: 200ms\ncompose: compose.yaml\nenv: {{WORD: {word}}}\n");
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/compose.yaml", project(image, check));
    agent.repo.push(word);
}

pub fn project_name(agent: &Agent) -> String {
    format!("landfall-{}_main_shop", owner(agent))
}

/// The containers of the project, running or not: their names and identifiers.
fn containers(agent: &Agent) -> Vec<String> {
    let label = format!("label=com.docker.compose.project={}", project_name(agent));
    let format = "{{.Label \"com.docker.compose.service\"}} {{.ID}}";
    let mut found: Vec<String> =
        docker(&["ps", "-a", "--filter", &label, "--format", format]).lines().map(str::to_owned).collect();
    found.sort();
    found
}

pub fn container(agent: &Agent, service: &str) -> Option<String> {
    containers(agent).iter().find_map(|line| line.strip_prefix(&format!("{service} ")).map(str::to_owned))
}

/// What is in the volume.
fn words(agent: &Agent) -> String {
    let store = container(agent, "store").expect("a store");
    docker(&["exec", &store, "/usr/bin/python3", "-c", "print(open('/data/words').read())"])
}

async fn until_gone(agent: &Agent) {
    until("no container of the project is left", || async {
        let left = containers(agent);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// Kills what looks after the project until it waits for seconds to be started again.
async fn leave_alone(agent: &Agent) {
    // What ends in the bake window is rolled back.
    agent.until_done("shop").await;
    let mut killed = None;
    for _ in 0..6 {
        let pid = until("it looks after the project", || async {
            let found =
                agent.instances("shop").await?.into_iter().find_map(|one| one.pid.filter(|pid| Some(*pid) != killed));
            found.ok_or_else(|| "nothing does".to_owned())
        })
        .await;
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
        killed = Some(pid);
    }
}

/// Ends the agent; its project goes with it. Then the volume is removed, which Landfall never does.
pub async fn finish(mut agent: Agent) {
    agent.stop();
    until_gone(&agent).await;
    let volume = format!("{}_data", project_name(&agent));
    // `docker compose` makes no volume that no service mounts.
    if !docker(&["volume", "ls", "-q", "--filter", &format!("name={volume}")]).is_empty() {
        docker(&["volume", "rm", &volume]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_deployed_changed_rolled_back_and_stopped_and_its_volume_stays() {
    let Some((mut agent, image)) = scene().await else { return };
    push(&mut agent, &image, "one", HEALTHY);
    agent.until_live("shop", 1).await;
    assert_eq!(words(&agent), "one");
    let shop = container(&agent, "shop");
    push(&mut agent, &image, "two", HEALTHY);
    agent.until_live("shop", 2).await;
    assert_eq!(words(&agent), "one two");
    assert_eq!(container(&agent, "shop"), shop, "what has not changed is not made anew");
    let text = logs(&agent, "shop");
    for line in ["store | noted two", "store is running, healthy", "a newer version takes the project over"] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
    agent.rollback("shop", RollbackRequest::default()).await;
    agent.until_live("shop", 3).await;
    assert_eq!(words(&agent), "one two one");
    agent.stop_app("shop", "a test").await.expect("stopped");
    until_gone(&agent).await;
    assert_ne!(docker(&["volume", "ls", "-q", "--filter", &format!("name={}_data", project_name(&agent))]), "");
    finish(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_come_up_fails_and_the_one_before_comes_back() {
    let Some((mut agent, image)) = scene().await else { return };
    // Without one before, nothing is left.
    push(&mut agent, &image, "bad", NEVER);
    let first = agent.until_done("shop").await;
    assert_eq!(first.outcome, Some(DeploymentOutcome::Failed), "{first:?}");
    until_gone(&agent).await;
    push(&mut agent, &image, "good", HEALTHY);
    agent.until_live("shop", 2).await;
    push(&mut agent, &image, "worse", NEVER);
    let failed = until("the third has failed", || async {
        let deployment = agent.until_done("shop").await;
        if deployment.version.get() == 3 { Ok(deployment) } else { Err(format!("{deployment:?}")) }
    })
    .await;
    assert_eq!(failed.outcome, Some(DeploymentOutcome::Failed), "{failed:?}");
    let failure = failed.failure.expect("a reason");
    assert!(failure.message.contains("project"), "{failure:?}");
    for told in ["store is running, unhealthy: no words yet", "store | noted worse"] {
        assert!(failure.log_tail.iter().any(|line| line.contains(told)), "{told} in {failure:?}");
    }
    until("the version before is back", || async {
        let text = logs(&agent, "shop");
        let told = text.contains("this one takes the project back");
        let all = containers(&agent);
        let healthy = docker(&["ps", "-q", "--filter", "health=healthy", "--no-trunc"]);
        let store = container(&agent, "store").unwrap_or_default();
        if told && all.len() == 2 && healthy.contains(&store) && words(&agent).ends_with("worse good") {
            Ok(())
        } else {
            Err(format!("{all:?} {text}"))
        }
    })
    .await;
    assert_eq!(agent.app("shop").await.expect("shown").live_version.map(|version| version.get()), Some(2));
    finish(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_removed_comes_back_and_a_new_controller_touches_nothing() {
    let Some((mut agent, image)) = scene().await else { return };
    // A source without any app would stop nothing.
    agent.repo.app("plain", "plain\n");
    push(&mut agent, &image, "one", HEALTHY);
    agent.until_live("shop", 1).await;
    let before = containers(&agent);
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    until("its instance is ready", || async {
        let found = agent.instances("shop").await?;
        match found.as_slice() {
            [one] if one.state == InstanceState::Ready => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(containers(&agent), before);
    let store = container(&agent, "store").expect("a store");
    docker(&["rm", "-f", &store]);
    until("another store runs", || async {
        match container(&agent, "store") {
            Some(other) if other != store => Ok(()),
            other => Err(format!("{other:?}\n{}", logs(&agent, "shop"))),
        }
    })
    .await;
    assert!(logs(&agent, "shop").contains("store: its container is gone"), "{}", logs(&agent, "shop"));
    // Gone from its source: taken down.
    agent.repo.remove("shop/landfall.yaml").remove("shop/compose.yaml");
    agent.repo.push("removed");
    until_gone(&agent).await;
    finish(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_looks_after_when_its_app_is_stopped_goes_too() {
    let Some((mut agent, image)) = scene().await else { return };
    push(&mut agent, &image, "one", HEALTHY);
    agent.until_live("shop", 1).await;
    // A container of the project that the tool does not see.
    let label = format!("com.docker.compose.project={}", project_name(&agent));
    docker(&[
        "run",
        "--detach",
        "--label",
        &label,
        &image,
        "/usr/bin/python3",
        "-c",
        "import time; time.sleep(10 ** 6)",
    ]);
    agent.stop_app("shop", "a test").await.expect("stopped");
    until_gone(&agent).await;
    push(&mut agent, &image, "two", HEALTHY);
    agent.until_live("shop", 2).await;
    leave_alone(&agent).await;
    assert_ne!(containers(&agent), Vec::<String>::new(), "what runs goes on");
    agent.stop_app("shop", "a test").await.expect("stopped");
    until_gone(&agent).await;
    let network = format!("label={label}");
    until("its network is gone", || async {
        let left = docker(&["network", "ls", "-q", "--filter", &network]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    // The same when the agent ends.
    push(&mut agent, &image, "three", HEALTHY);
    agent.until_live("shop", 3).await;
    leave_alone(&agent).await;
    finish(agent).await;
}

/// What the example takes for a store, made of this machine's Python: it counts in `/data`, and has a `redis-cli`.
fn store_image(python: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let cli = "#!/usr/bin/python3\nimport socket\nassert socket.create_connection(('127.0.0.1', 6379), 5).makefile().readline()\n";
    let server = r#"
import os, socket
os.makedirs("/data", exist_ok=True)
listener = socket.create_server(("", 6379))
while True:
    client, _ = listener.accept()
    client.settimeout(5)
    try:
        told = client.recv(100) if client.getsockname()[0] != "127.0.0.1" else b""
        count = int(open("/data/count").read() or 0) if os.path.exists("/data/count") else 0
        if told.startswith(b"INCR"):
            count += 1
            open("/data/count", "w").write(str(count))
        client.sendall(b":%d\r\n" % count)
    except OSError:
        pass
    client.close()
"#;
    let dockerfile = format!(
        "FROM {python}\nCOPY redis-cli /usr/local/bin/redis-cli\nCOPY server.py /server.py\nCMD [\"python3\", \"/server.py\"]\n"
    );
    std::fs::write(directory.path().join("redis-cli"), cli).expect("written");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path().join("redis-cli"), runs).expect("permitted");
    std::fs::write(directory.path().join("server.py"), server).expect("written");
    std::fs::write(directory.path().join("Dockerfile"), dockerfile).expect("written");
    let name = format!("landfall-test/store:{}", std::process::id());
    docker(&["build", "--quiet", "--tag", &name, &directory.path().display().to_string()]);
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_greets_counts_and_keeps_its_count_over_versions() {
    let Some((mut agent, python)) = scene().await else { return };
    let (store, port) = (store_image(&python), free_port());
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose");
    for entry in std::fs::read_dir(files).expect("the example's files").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        let text = std::fs::read_to_string(entry.path()).expect("text");
        // Images of others are stand-ins, and the port is the test's own.
        let text = text.replace("redis:7-alpine", &store).replace("python:3.13-slim", &python);
        agent.repo.write(
            &format!("shop/{name}"),
            text.replace("127.0.0.1:8000:", &format!("127.0.0.1:{port}:")).replace("app: compose", "app: shop"),
        );
    }
    agent.repo.push("The example");
    agent.until_live("shop", 1).await;
    let says = |body: String| async move {
        until(&format!("it says {body:?}"), || async {
            match http::get(SocketAddr::from(([127, 0, 0, 1], port)), "localhost", "/").await {
                Ok(answer) if answer.body.starts_with(&body) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    says("hello from Compose, visitor 1\n".to_owned()).await;
    let manifest = "app: shop\ncompose: compose.yaml\nenv: {GREETING: good evening}\n";
    agent.repo.write("shop/landfall.yaml", manifest);
    agent.repo.push("It is late");
    agent.until_live("shop", 2).await;
    says("good evening, visitor 2\n".to_owned()).await;
    agent.rollback("shop", RollbackRequest::default()).await;
    agent.until_live("shop", 3).await;
    says("hello from Compose, visitor 3\n".to_owned()).await;
    finish(agent).await;
    docker(&["rmi", &store]);
}
