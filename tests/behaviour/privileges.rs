//! An agent started as root: only the supervisor stays root, and everything works all the same.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{Uid, User};

use crate::support::{Agent, Setup, test_app};

/// Users every Debian, Fedora and Alpine has.
const AGENT: &str = "daemon";
const APPS: &str = "nobody";

/// The two users, or `None` where this test cannot run.
fn users() -> Option<(User, User)> {
    let find = |name| User::from_name(name).ok().flatten();
    let found = find(AGENT).zip(find(APPS)).filter(|_| Uid::effective().is_root());
    if found.is_none() {
        eprintln!("skipped: needs root, and users {AGENT} and {APPS}");
    }
    found
}

/// Real user id and `no_new_privs` of a process.
fn credentials(pid: i32) -> (u32, bool) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a field");
        line.split_whitespace().nth(1).and_then(|value| value.parse::<u32>().ok()).expect("a number")
    };
    (field("Uid:"), field("NoNewPrivs:") == 1)
}

async fn start_with_users() -> Agent {
    let mut setup = Setup::new();
    let root = setup.dir.path().to_owned();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).expect("open to all");
    // Where this checkout lies other users may not go.
    std::fs::copy(test_app(), root.join("test-app")).expect("copied");
    setup.more = format!("users: {{agent: {AGENT}, apps: {APPS}}}\n");
    setup.start().await
}

fn push(agent: &mut Agent, content: &str) {
    let program = agent.root.join("test-app").display().to_string();
    let manifest = format!(
        "app: shop\nbake: 200ms\nvolumes: {{data: /data}}\n\
         build: {{command: [sh, -c, \"umask 077; id -u > built-by; mkdir made; cp content.txt made/\"]}}\n\
         web:\n  main:\n    command: [sh, -c, \"id -u > $LANDFALL_VOLUME_DATA/written-by; \
         touch not-here 2> $LANDFALL_VOLUME_DATA/refused; cat ../../../../../ledger.db > /dev/null 2>> $LANDFALL_VOLUME_DATA/refused; \
         exec {program} serve\"]\n    health: {{path: /healthz, interval: 50ms}}\n    grace: 2s\n"
    );
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", content);
    agent.repo.push(content);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_supervisor_of_an_agent_of_root_stays_root() {
    let Some((agent_user, apps_user)) = users() else { return };
    let mut agent = start_with_users().await;
    push(&mut agent, "one\n");
    agent.until_body("shop", "one\n").await;
    let processes = agent.processes().await;
    assert_eq!(credentials(processes.supervisor.pid).0, 0);
    assert_eq!(credentials(processes.controller.pid).0, agent_user.uid.as_raw());
    assert_eq!(credentials(agent.proxy_pid().await).0, agent_user.uid.as_raw());
    let instance = agent.instances("shop").await.expect("instances").remove(0);
    assert_eq!(credentials(instance.pid.expect("a process")), (apps_user.uid.as_raw(), true));
    push(&mut agent, "two\n");
    agent.until_body("shop", "two\n").await;
    agent.until_live("shop", 2).await;
    agent.client.rollback(None, &"shop".parse().expect("a name"), &Default::default()).await.expect("accepted");
    agent.until_body("shop", "one\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_and_a_volume_can_be_written_and_a_release_cannot() {
    let Some((agent_user, apps_user)) = users() else { return };
    let mut agent = start_with_users().await;
    push(&mut agent, "one\n");
    agent.until_body("shop", "one\n").await;
    let apps_uid = format!("{}\n", apps_user.uid);
    let releases = agent.root.join("data/releases/main/shop");
    let release =
        std::fs::read_dir(&releases).expect("releases").next().expect("one").expect("one").path().join("tree");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    assert_eq!(read(&release.join("built-by")), apps_uid);
    let made = std::fs::metadata(release.join("made/content.txt")).expect("built");
    assert_eq!(made.uid(), agent_user.uid.as_raw(), "taken back from the build");
    assert_eq!(made.permissions().mode() & 0o777, 0o444, "readable by the app, writable by nobody");
    let volume = agent.root.join("data/volumes/main/shop/data");
    assert_eq!(read(&volume.join("written-by")), apps_uid);
    let refused = read(&volume.join("refused"));
    assert!(refused.contains("not-here") && refused.contains("ledger.db"), "{refused}");
    assert!(!release.join("not-here").exists());
    assert_eq!(std::fs::metadata(agent.root.join("data/run")).expect("run").permissions().mode() & 0o077, 0);
    let ledger = std::fs::metadata(agent.root.join("data/ledger.db")).expect("the ledger");
    assert_eq!(ledger.permissions().mode() & 0o077, 0, "the ledger is the agent's alone");
}
