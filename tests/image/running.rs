//! The image as it is run: by whom, on what, and how it ends.

use std::time::Duration;

use crate::container::{Container, apps, image, processes_beside};
use crate::engine::{docker, engine};
use crate::support::{send_signal, until};

/// Beyond this `docker stop` kills.
const GRACE: Duration = Duration::from_secs(10);

/// What the image may weigh, as it lies on the disk and as it is fetched.
const MOST_ON_DISK: u64 = 40_000_000;
const MOST_FETCHED: u64 = 25_000_000;

async fn deploys_is_healthy_and_stops(options: &[&str]) {
    let Some(apps) = apps("[./test-app, serve]") else { return };
    let Some(container) = Container::start(apps.path(), options) else { return };
    container.until_body("v1\n").await;
    container.until_healthy().await;
    std::fs::write(apps.path().join("shop/content.txt"), "v2\n").expect("written");
    container.until_body("v2\n").await;
    assert!(container.landfall(&["app", "history", "shop"]).contains("v2"), "the command finds its agent");
    let (code, took) = container.stop();
    assert_eq!(code, "0", "{}", container.log());
    assert!(took < GRACE, "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_it_is() {
    deploys_is_healthy_and_stops(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_with_apps_as_another_user() {
    let users = ["--env", "LANDFALL_USERS__AGENT=landfall", "--env", "LANDFALL_USERS__APPS=apps"];
    deploys_is_healthy_and_stops(&[&["--user", "0"], users.as_slice()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_any_user_without_rights_on_files_that_cannot_be_written() {
    deploys_is_healthy_and_stops(&[
        "--user",
        "123456:0",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_data_in_memory() {
    deploys_is_healthy_and_stops(&["--read-only", "--tmpfs", "/var/lib/landfall:exec"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_process_1_it_reaps_what_others_leave_behind() {
    let Some(apps) = apps("[./test-app, with-orphans, serve]") else { return };
    let Some(container) = Container::start(apps.path(), &[]) else { return };
    container.until_body("v1\n").await;
    let init = container.init();
    let orphans: Vec<i32> =
        processes_beside(init).into_iter().filter(|process| process.3 == "test-app").map(|process| process.0).collect();
    assert_eq!(orphans.len(), 3, "an instance and two that it does not wait for");
    // All at once: whoever was their parent is gone before it could do anything.
    for pid in &orphans {
        send_signal(*pid, nix::sys::signal::Signal::SIGKILL);
    }
    until("they are reaped", || async {
        let left = processes_beside(init);
        match left.iter().any(|(pid, _, state, _)| *state == 'Z' || orphans.contains(pid)) {
            false => Ok(()),
            true => Err(format!("{left:?}")),
        }
    })
    .await;
    container.until_body("v1\n").await;
    let (code, took) = container.stop();
    assert_eq!(code, "0", "{}", container.log());
    assert!(took < GRACE, "it took {took:?}");
}

#[test]
fn it_is_small_and_says_what_it_is() {
    let (Some(image), Some(address)) = (image(), engine()) else { return };
    let on_disk: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", &image]).parse().expect("a number");
    let script = r#"docker -H "$0" save "$1" | gzip | wc -c"#;
    let output = std::process::Command::new("sh").args(["-c", script, &address, &image]).output().expect("a shell");
    let fetched: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    println!("the image: {:.1} MB, {:.1} MB to fetch", on_disk as f64 / 1e6, fetched as f64 / 1e6);
    assert!(on_disk <= MOST_ON_DISK && fetched <= MOST_FETCHED && fetched > 1_000_000, "{on_disk} and {fetched} bytes");
    let config = docker(&["image", "inspect", "--format", "{{json .Config}}", &image]);
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], "Landfall");
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn time_zones_authorities_and_a_list_of_what_is_in_it_come_with_it() {
    let (Some(image), Some(address)) = (image(), engine()) else { return };
    let due = ["run", "--rm", &image, "schedule", "next", "0 4 * * *", "--timezone", "Europe/Oslo", "--json"];
    let due = docker(&due);
    assert!(due.contains("T03:00:00Z") || due.contains("T02:00:00Z"), "four o'clock in Oslo: {due}");
    // The files of an image without a shell are had by a container that is never started.
    let container = docker(&["create", &image]);
    let script = r#"docker -H "$0" cp "$1:$2" - | tar -xO"#;
    let content = |path: &str| {
        let output = std::process::Command::new("sh").args(["-c", script, &address, &container, path]).output();
        String::from_utf8_lossy(&output.expect("a shell").stdout).into_owned()
    };
    let authorities = content("/etc/ssl/certs/ca-certificates.crt");
    let list = content("/usr/share/doc/landfall/sbom.cdx.json");
    docker(&["rm", &container]);
    assert!(authorities.matches("BEGIN CERTIFICATE").count() > 50, "certificates of authorities");
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let names: Vec<_> = list["components"].as_array().expect("a list").iter().map(|part| &part["name"]).collect();
    assert!(names.len() > 200 && names.iter().any(|name| *name == "libgit2-sys"), "{names:?}");
}
