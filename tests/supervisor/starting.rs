//! What an instance finds, and why one is not started.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use landfall::domain::InstanceId;
use landfall::domain::manifest::Millis;
use landfall::runtime::{LinkError, StartError};
use landfall::wire::supervisor::{ChildState, Identity, Users};

use crate::agent::{Agent, status, wait_for};

#[tokio::test]
async fn an_instance_runs_in_its_own_session_with_exactly_its_environment() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    let script = r#"env | sort; echo "umask=$(umask)"; echo "cwd=$(pwd)"; ls -l /proc/self/fd | grep -c -e socket -e lock -e eventpoll
        echo "session=$(cut -d' ' -f6 /proc/$$/stat) pid=$$"; grep -e NoNewPrivs -e SigIgn -e SigBlk /proc/self/status
        test -d "$TMPDIR" && touch "$TMPDIR/left" && echo "has tmp"; read line || echo "no input""#;
    let mut request = agent.request("a", script);
    request.env.insert("GREETING".into(), "hello".into());
    controller.link.start(request).await.expect("starts");
    let child = controller.exited("a").await;
    assert_eq!(status(&child), "exit code 0, stopped: false");
    let log = agent.log("a");
    let tmp = agent.plan.data_dir.join("tmp/a");
    let lines: Vec<&str> = log.lines().filter_map(|line| line.split_once(" stdout F ")).map(|(_, line)| line).collect();
    let own = |name: &str| lines.iter().any(|line| line.starts_with(&format!("{name}=")));
    assert!(lines.contains(&"GREETING=hello") && lines.contains(&"LANDFALL_INSTANCE=a"), "{log}");
    assert!(lines.contains(&format!("TMPDIR={}", tmp.display()).as_str()), "{log}");
    assert!(!own("HOME") && !own("LANDFALL_TEST_RELAY") && !own("LANDFALL_FDS"), "{log}");
    assert!(lines.contains(&"umask=0022") && lines.contains(&"has tmp") && lines.contains(&"no input"), "{log}");
    assert!(lines.contains(&"0"), "no descriptor of the supervisor is open: {log}");
    assert!(lines.contains(&format!("session={0} pid={0}", child.pid).as_str()), "{log}");
    assert!(lines.contains(&"NoNewPrivs:\t1") && lines.contains(&"SigIgn:\t0000000000000000"), "{log}");
    assert!(lines.contains(&"SigBlk:\t0000000000000000"), "{log}");
    assert!(log.lines().next().expect("a line").contains(" system F started, pid "), "{log}");
    assert!(log.lines().last().expect("a line").ends_with(" system F ended: exit code 0"), "{log}");
    wait_for("removed temporary directory", || (!tmp.exists()).then_some(())).await;
    agent.shut_down().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_at_once_and_says_why() {
    let agent = Agent::start();
    let controller = agent.controller().await;
    let directory = agent.directory.path();
    let script = |name: &str, text: &str, mode: u32| {
        fs::write(directory.join(name), text).expect("written");
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).expect("set");
    };
    script("plain", "#!/bin/sh\n", 0o644);
    script("orphaned", "#!/no/such/interpreter -x\n", 0o755);
    for (command, directory, words, is_missing) in [
        ("no-such-program", "", "`no-such-program` was not found in PATH (/usr/bin:/bin)", true),
        ("./missing", "", "`./missing` does not exist in", true),
        ("./orphaned", "", "asks for `/no/such/interpreter`, which does not exist", true),
        ("./plain", "", "chmod +x", false),
        ("sh", "nowhere", "nowhere does not exist", true),
        ("", "", "the command is empty", true),
    ] {
        let mut request = agent.request("a", "");
        request.command = vec![command.to_owned()];
        request.directory = request.directory.join(directory);
        let error = controller.link.start(request).await.expect_err(command);
        assert!(error.to_string().contains(words), "{command}: {error}");
        assert_eq!(matches!(error, StartError::NotFound(_)), is_missing, "{command}: {error:?}");
        assert!(agent.log("a").contains("not started: "), "the log says so, too");
    }
    let mut request = agent.request("a", "");
    request.log = "../../escape.log".into();
    assert!(matches!(controller.link.start(request).await, Err(StartError::NotPermitted(_))));
    assert!(controller.link.inventory().await.expect("answers").children.is_empty());
    agent.shut_down().await;
}

#[tokio::test]
async fn starting_and_forgetting_twice_is_the_same_as_once() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    let id = InstanceId::from_recorded("a");
    let first = controller.link.start(agent.request("a", "exec sleep 1000")).await.expect("starts");
    let second = controller.link.start(agent.request("a", "exec sleep 1000")).await.expect("is there");
    assert_eq!((first.pid, first.start_ticks), (second.pid, second.start_ticks));
    let refused = controller.link.forget(&id).await.expect_err("it runs");
    assert!(matches!(refused, LinkError::Refused { code, .. } if code == "running"));
    controller.link.log(&id, "a note").await.expect("written");
    controller.stop("a", 1000).await;
    assert_eq!(status(&controller.exited("a").await), "killed by SIGTERM, stopped: true");
    let kept = controller.link.inventory().await.expect("answers").children;
    assert!(matches!(kept[0].state, ChildState::Exited { stopped: true, .. }));
    controller.link.forget(&id).await.expect("forgotten");
    controller.link.forget(&id).await.expect("forgotten");
    assert!(controller.link.inventory().await.expect("answers").children.is_empty());
    let unknown = controller.link.stop(&id, Millis(1)).await.expect_err("unknown");
    assert!(matches!(unknown, LinkError::Refused { code, .. } if code == "unknown_instance"));
    let log = agent.log("a");
    assert!(log.contains(" system F a note\n") && log.contains("stop requested"), "{log}");
    agent.shut_down().await;
}

#[tokio::test]
async fn a_second_agent_on_the_same_data_is_refused_by_name() {
    let agent = Agent::start();
    let _controller = agent.controller().await;
    let said = agent.second();
    let data_dir = agent.plan.data_dir.display().to_string();
    assert!(said.contains(&data_dir) && said.contains(&format!("pid {}", agent.pid())), "{said}");
    agent.shut_down().await;
}

#[tokio::test]
async fn a_busy_port_is_refused_before_anything_is_started() {
    let mut agent = Agent::start();
    let _controller = agent.controller().await;
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.ended().await;
    let _busy = TcpListener::bind(agent.plan.proxy_listen[0]).expect("binds");
    let said = agent.second();
    let address = agent.plan.proxy_listen[0].to_string();
    assert!(said.contains(&address) && said.contains("in use") && said.contains("proxy.listen"), "{said}");
    assert!(!said.contains("started"), "{said}");
}

#[tokio::test]
async fn started_as_root_only_the_supervisor_keeps_privileges() {
    let Ok(Some(nobody)) = nix::unistd::User::from_name("nobody") else { return };
    let Ok(Some(daemon)) = nix::unistd::User::from_name("daemon") else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can change users");
        return;
    }
    let identity = |user: &nix::unistd::User| Identity {
        name: user.name.clone(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir.clone(),
    };
    let agent = Agent::start_with(|plan, launch| {
        // The stand-ins lie where other users may not read: shells play the roles.
        let say = |role: &str| format!("echo \"$(id -u) $HOME\" > {}/{role}; exec sleep 1000", plan.data_dir.display());
        launch.controller = ["sh", "-c", &say("controller")].map(Into::into).to_vec();
        launch.proxy = ["sh", "-c", &say("proxy")].map(Into::into).to_vec();
        fs::set_permissions(plan.data_dir.parent().expect("has one"), fs::Permissions::from_mode(0o755)).expect("set");
        plan.users = Some(Users { agent: identity(&nobody), apps: identity(&daemon) });
    });
    for role in ["controller", "proxy"] {
        let path = agent.plan.data_dir.join(role);
        let said = wait_for(role, || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await;
        assert_eq!(said, format!("{} {}\n", nobody.uid, nobody.dir.display()));
    }
    let owner = |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).expect("is there"));
    assert_eq!(owner(&agent.plan.data_dir), nobody.uid.as_raw());
    assert_eq!(owner(&agent.plan.api_socket), nobody.uid.as_raw());
    agent.shut_down().await;
}
