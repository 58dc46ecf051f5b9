//! Secrets of containers: where they are to be, and nowhere else.

use landfall::wire::secrets::SetSecret;

use crate::engine::{docker, engine, manifest, running, scene};
use crate::support::until;

/// A value that is nowhere but where the test puts it.
const CANARY: &str = "canary-40d1c7aa-of-the-container";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_secret_is_in_its_container_and_in_no_layer_and_goes_with_it() {
    let Some((mut agent, image)) = scene().await else { return };
    let secret =
        SetSecret { secret: "token".parse().expect("a name"), environment: None, app: None, value: CANARY.into() };
    agent.client.set_secret(&secret).await.expect("stored");
    let more = "user: \"1234\"\nread_only: true\nsecret_files: {TOKEN_FILE: token}\n";
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, more)).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let env = agent.get("shop", "/env").await.expect("an answer").body;
    assert!(env.lines().any(|line| line == "TOKEN_FILE=/run/secrets/token"), "{env}");
    let container = running(&agent).await;
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &container]);
    let within = format!("/proc/{pid}/root/run/secrets/token");
    // Where the engine runs elsewhere, or the test not as root, the mount alone is looked at.
    if let Ok(content) = std::fs::read_to_string(&within) {
        assert_eq!(content, CANARY);
    }
    let mount = "{{range .Mounts}}{{if eq .Destination \"/run/secrets\"}}{{.Source}} {{.RW}}{{end}}{{end}}";
    let mount = docker(&["inspect", "-f", mount, &container]);
    let (here, writable) = mount.split_once(' ').expect("it is mounted");
    let file = std::path::Path::new(here).join("token");
    assert_eq!((std::fs::read_to_string(&file).as_deref().ok(), writable), (Some(CANARY), "false"));
    let whole = docker(&["inspect", &container]) + &docker(&["history", "--no-trunc", &image]);
    assert!(!whole.contains(CANARY), "nothing of it is in what the engine tells");
    let address = engine().expect("an engine");
    let layers = std::process::Command::new("docker").args(["-H", &address, "export", &container]).output();
    let layers = layers.expect("docker runs");
    assert!(layers.status.success() && layers.stdout.len() > 1024);
    assert!(!layers.stdout.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "nor in a layer");
    // Another controller leaves the files of what runs; the container's end takes them along.
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    assert!(file.exists());
    docker(&["kill", &container]);
    until("the file is gone", || async { if file.exists() { Err(file.display().to_string()) } else { Ok(()) } }).await;
    agent.until_body("shop", "v1\n").await;
    agent.stop();
    assert!(!std::path::Path::new(here).exists());
}
