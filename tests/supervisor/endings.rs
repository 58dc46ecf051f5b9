//! Ends of instances: nothing of them is left, whatever they do.

use std::time::{Duration, Instant};

use landfall::wire::supervisor::ChildState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::{Agent, DEADLINE, Groups, lives, number, status};

#[tokio::test]
async fn the_way_an_instance_ended_is_reported() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    for (name, script, how) in [
        ("a", "exit 0", "exit code 0, stopped: false"),
        ("b", "echo broken >&2; exit 3", "exit code 3, stopped: false"),
        ("c", "kill -SEGV $$", "killed by SIGSEGV, stopped: false"),
    ] {
        controller.link.start(agent.request(name, script)).await.expect("starts");
        assert_eq!(status(&controller.exited(name).await), how);
    }
    assert!(agent.log("b").contains(" stderr F broken\n"));
    agent.shut_down().await;
}

#[tokio::test]
async fn an_instance_that_ignores_sigterm_is_killed_after_its_grace() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    let script = "trap 'echo asked' TERM; echo up; while true; do sleep 0.05; done";
    controller.link.start(agent.request("a", script)).await.expect("starts");
    agent.logged("a", "F up").await;
    let started = Instant::now();
    controller.stop("a", 400).await;
    assert_eq!(status(&controller.exited("a").await), "killed by SIGKILL, stopped: true");
    assert!(started.elapsed() >= Duration::from_millis(400), "not before its grace");
    assert!(agent.log("a").contains("F asked"));
    agent.shut_down().await;
}

#[tokio::test]
async fn a_shorter_grace_replaces_a_longer_one() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    controller.link.start(agent.request("a", "trap '' TERM; echo up; sleep 1000")).await.expect("starts");
    agent.logged("a", "F up").await;
    controller.stop("a", 600_000).await;
    let inventory = controller.link.inventory().await.expect("answers");
    assert_eq!(inventory.children[0].state, ChildState::Stopping);
    controller.stop("a", 100).await;
    assert_eq!(status(&controller.exited("a").await), "killed by SIGKILL, stopped: true");
    agent.shut_down().await;
}

/// A process in the group, one in a session of its own, and a daemon that has left its parents; all ignore SIGTERM.
const FAMILY: &str = r#"trap '' TERM
    sleep 1000 & echo "child=$!"
    setsid sh -c 'echo "session=$$"; exec sleep 1000' &
    (setsid sh -c 'sh -c "echo daemon=\$\$; exec sleep 1000" &' &)
    until test -e "$TMPDIR/go"; do sleep 0.02; done"#;

/// The three, once all of them run. Their parent goes on then.
async fn family_of(agent: &Agent, name: &str) -> [i32; 3] {
    let mut family = [0; 3];
    for (pid, word) in family.iter_mut().zip(["child", "session", "daemon"]) {
        *pid = number(&agent.logged(name, &format!("F {word}=")).await, word);
    }
    std::fs::write(agent.plan.data_dir.join("tmp").join(name).join("go"), "").expect("written");
    family
}

#[tokio::test]
async fn grandchildren_sessions_and_daemons_end_with_their_instance() {
    for groups in [Groups::IfPossible, Groups::None] {
        a_family_ends(groups).await;
    }
}

async fn a_family_ends(groups: Groups) {
    let agent = Agent::start_in(groups, |_, _| {});
    let mut controller = agent.controller().await;
    for (name, then) in [("stopped", "wait; wait; wait"), ("left", "exit 7")] {
        controller.link.start(agent.request(name, &format!("{FAMILY}\n{then}"))).await.expect("starts");
        let family = family_of(&agent, name).await;
        let started = Instant::now();
        if name == "stopped" {
            assert!(family.iter().all(|pid| lives(*pid)), "{family:?}");
            controller.stop(name, 300).await;
            assert_eq!(status(&controller.exited(name).await), "killed by SIGKILL, stopped: true");
        } else {
            assert_eq!(status(&controller.exited(name).await), "exit code 7, stopped: false");
        }
        // Said only when it is true.
        assert_eq!(family.map(lives), [false; 3], "{name}: child, session, daemon");
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    }
    agent.shut_down().await;
}

#[tokio::test]
async fn orphans_are_reaped() {
    let agent = Agent::start();
    let controller = agent.controller().await;
    let script = "for i in 1 2 3 4 5; do (sh -c 'echo orphan=$$; exec sleep 0.2' &); done; echo ready; exec sleep 1000";
    controller.link.start(agent.request("a", script)).await.expect("starts");
    agent.logged("a", "orphan=").await;
    agent.logged("a", "ready").await;
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    let mut seen = Vec::new();
    let end = Instant::now() + DEADLINE;
    // The controller, the proxy and the instance stay.
    while seen.len() != 3 {
        assert!(Instant::now() < end, "these are left: {seen:#?}");
        let list = std::fs::read_to_string(&children).expect("reads");
        seen = list.split_whitespace().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat"))).collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agent.shut_down().await;
}

#[tokio::test]
async fn a_shutdown_leaves_nothing_and_takes_no_longer_than_the_longest_grace() {
    let mut agent = Agent::start_in(Groups::None, |_, _| {});
    let controller = agent.controller().await;
    let mut pids = Vec::new();
    for name in ["a", "b", "c"] {
        controller.link.start(agent.request(name, FAMILY)).await.expect("starts");
        pids.extend(family_of(&agent, name).await);
    }
    let started = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert!(agent.ended().await.success());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    pids.push(controller.pid);
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert!(!agent.plan.api_socket.exists() && !agent.plan.control_socket().exists());
    assert!(!agent.plan.data_dir.join("run/children.json").exists());
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting() {
    let mut agent = Agent::start();
    let controller = agent.controller().await;
    let mut request = agent.request("a", "trap '' TERM; echo up; while true; do sleep 0.1; done");
    request.grace = landfall::domain::manifest::Millis::seconds(600);
    let child = controller.link.start(request).await.expect("starts");
    agent.logged("a", "F up").await;
    agent.signal(Signal::SIGINT);
    agent.logged("a", "stop requested").await;
    agent.signal(Signal::SIGINT);
    assert!(agent.ended().await.success());
    assert!(!lives(child.pid));
}

#[tokio::test]
async fn the_next_agent_ends_what_a_killed_one_left() {
    for groups in [Groups::IfPossible, Groups::None] {
        leftovers_end(groups).await;
    }
}

async fn leftovers_end(groups: Groups) {
    let neighbour = Agent::start();
    let other = neighbour.controller().await;
    let other = other.link.start(neighbour.request("a", "exec sleep 1000")).await.expect("starts");
    let mut agent = Agent::start_in(groups, |_, _| {});
    let controller = agent.controller().await;
    controller.link.start(agent.request("a", &format!("{FAMILY}\nsleep 1000"))).await.expect("starts");
    let family = family_of(&agent, "a").await;
    kill(Pid::from_raw(agent.pid()), Signal::SIGKILL).expect("it is there");
    agent.ended().await;
    assert!(family.iter().any(|pid| lives(*pid)), "otherwise this shows nothing");
    drop(controller);
    agent.start_again();
    let controller = agent.controller().await;
    assert_eq!(family.map(lives), [false; 3], "child, session, daemon");
    assert!(controller.inventory.children.is_empty());
    assert!(lives(other.pid), "an instance of the same name of another agent is none of its business");
    agent.shut_down().await;
    neighbour.shut_down().await;
}
