//! The supervisor replaces itself in place.

use std::fs;

use landfall::domain::manifest::Millis;
use landfall::runtime::LinkError;
use landfall::wire::supervisor::ChildState;
use nix::sys::signal::Signal;

use crate::agent::{Agent, ask, lives, number, status, wait_for};

#[tokio::test]
async fn an_upgrade_keeps_pid_children_sockets_and_half_lines() {
    let agent = Agent::start();
    let first = agent.controller().await;
    let address = agent.plan.proxy_listen[0];
    let proxy = ask(address).expect("answers");
    let script = "printf 'before '; trap 'echo after; exit 6' TERM; echo pid=$$ >&2; while true; do sleep 0.05; done";
    let child = first.link.start(agent.request("a", script)).await.expect("starts");
    first.link.start(agent.request("ended", "exit 3")).await.expect("starts");
    let mut hardened = agent.request("stopping", "trap '' TERM; echo up; while true; do sleep 0.05; done");
    hardened.grace = Millis(1500);
    first.link.start(hardened).await.expect("starts");
    assert_eq!(number(&agent.logged("a", "pid=").await, "pid"), child.pid);
    agent.logged("stopping", "F up").await;
    first.stop("stopping", 1500).await;
    wait_for("an end", || agent.log("ended").contains("ended: exit code 3").then_some(())).await;
    let cmdline = format!("/proc/{}/cmdline", agent.pid());
    // The new program answers, and ends the controller: the stand-in may be gone before it has passed that on.
    let answer = first.link.upgrade().await;
    assert!(matches!(answer, Ok(()) | Err(LinkError::Lost)), "{answer:?}");
    let mut second = agent.controller().await;
    assert!(fs::read_to_string(cmdline).expect("reads").contains("--resume-fd"));
    assert_ne!(first.pid, second.pid);
    let inventory = second.inventory.clone();
    assert_eq!((inventory.pid, inventory.started_at), (agent.pid(), first.inventory.started_at));
    let states: Vec<_> = inventory.children.iter().map(|c| (c.instance.to_string(), status(c), c.pid)).collect();
    assert_eq!(states[0], ("a".into(), "running".into(), child.pid), "{states:?}");
    assert_eq!((states[1].0.as_str(), states[1].1.as_str()), ("ended", "exit code 3, stopped: false"));
    // A stop that was under way is seen through.
    if matches!(inventory.children[2].state, ChildState::Stopping) {
        assert_eq!(status(&second.exited("stopping").await), "killed by SIGKILL, stopped: true");
    }
    wait_for("a new proxy", || ask(address).filter(|pid| *pid != proxy)).await;
    wait_for("the old proxy's end", || (!lives(proxy)).then_some(())).await;
    second.stop("a", 5000).await;
    assert_eq!(status(&second.exited("a").await), "exit code 6, stopped: true");
    assert!(agent.log("a").contains(" stdout F before after\n"), "{}", agent.log("a"));
    assert!(agent.second().contains("used by another agent"), "the lock is kept");
    agent.shut_down().await;
}

#[tokio::test]
async fn upgrades_by_signal_can_follow_each_other() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    let child = controller.link.start(agent.request("a", "exec sleep 1000")).await.expect("starts");
    for _ in 0..3 {
        agent.signal(Signal::SIGUSR2);
        controller = agent.controller().await;
        assert_eq!(controller.inventory.children[0].pid, child.pid);
    }
    agent.shut_down().await;
}

#[tokio::test]
async fn an_upgrade_that_cannot_start_changes_nothing() {
    let agent = Agent::start_with(|_, launch| launch.supervisor = vec!["/no/such/landfall".into()]);
    let mut controller = agent.controller().await;
    controller.link.start(agent.request("a", "exec sleep 1000")).await.expect("starts");
    let error = controller.link.upgrade().await.expect_err("cannot");
    assert!(matches!(&error, LinkError::Refused { message, .. } if message.contains("/no/such/landfall")), "{error}");
    assert!(ask(agent.plan.proxy_listen[0]).is_some());
    controller.stop("a", 1000).await;
    assert_eq!(status(&controller.exited("a").await), "killed by SIGTERM, stopped: true");
    agent.shut_down().await;
}
