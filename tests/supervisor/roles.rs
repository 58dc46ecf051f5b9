//! Controller and proxy: restarted, replaced, drained.

use std::time::{Duration, Instant};

use landfall::domain::manifest::Millis;
use landfall::runtime::{LinkError, SupervisorEvent};
use landfall::wire::supervisor::ChildState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::{Agent, DEADLINE, ask, free_address, lives, status, wait_for};

#[tokio::test]
async fn a_killed_controller_comes_back_and_finds_everything_that_happened() {
    let agent = Agent::start();
    let first = agent.controller().await;
    let running = first.link.start(agent.request("running", "exec sleep 1000")).await.expect("starts");
    first.link.start(agent.request("ending", "echo up; sleep 0.3; exit 4")).await.expect("starts");
    first
        .link
        .start(agent.request("stopping", "trap 'exit 5' TERM; echo up; while true; do sleep 0.05; done"))
        .await
        .expect("starts");
    agent.logged("stopping", "F up").await;
    first.stop("stopping", 600_000).await;
    kill(Pid::from_raw(first.pid), Signal::SIGKILL).expect("it is there");
    let mut second = agent.controller().await;
    assert_ne!(first.pid, second.pid);
    assert_eq!(second.inventory.controller_restarts, 1);
    let kept = second.inventory.children.clone();
    let find = |name: &str| kept.iter().find(|child| child.instance.as_str() == name).cloned();
    let running_now = find("running").expect("is kept");
    assert_eq!(
        (running_now.pid, running_now.start_ticks, running_now.state),
        (running.pid, running.start_ticks, ChildState::Running)
    );
    for (name, how) in [("ending", "exit code 4, stopped: false"), ("stopping", "exit code 5, stopped: true")] {
        let found = find(name).expect("is kept");
        let child = if matches!(found.state, ChildState::Exited { .. }) { found } else { second.exited(name).await };
        assert_eq!(status(&child), how);
    }
    assert_eq!(ask(agent.plan.proxy_listen[0]), Some(second.inventory.proxies[0].pid), "the proxy never noticed");
    agent.shut_down().await;
}

#[tokio::test]
async fn a_controller_that_breaks_its_promise_to_be_heard_of_is_replaced() {
    let agent = Agent::start();
    let first = agent.controller().await;
    let running = first.link.start(agent.request("running", "exec sleep 1000")).await.expect("starts");
    // The newest promise counts.
    first.link.alive(Millis::seconds(600)).await.expect("heard");
    first.link.alive(Millis(50)).await.expect("heard");
    let second = agent.controller().await;
    assert_ne!(first.pid, second.pid);
    wait_for("the end of the first", || (!lives(first.pid)).then_some(())).await;
    let kept = second.inventory.children.first().expect("is kept");
    assert_eq!((kept.pid, kept.state.clone()), (running.pid, ChildState::Running));
    agent.shut_down().await;
}

#[tokio::test]
async fn connections_wait_while_a_killed_proxy_is_started_again() {
    let agent = Agent::start();
    let _controller = agent.controller().await;
    let address = agent.plan.proxy_listen[0];
    let first = ask(address).expect("answers");
    for _ in 0..2 {
        let serving = ask(address).expect("answers");
        kill(Pid::from_raw(serving), Signal::SIGKILL).expect("it is there");
        wait_for("the proxy's death", || (!lives(serving)).then_some(())).await;
        // Refused by none: the connection is taken by the next proxy.
        assert_ne!(ask(address).expect("waits for the next proxy"), first);
    }
    agent.shut_down().await;
}

#[tokio::test]
async fn a_replaced_proxy_is_drained_once_the_new_one_serves() {
    let agent = Agent::start();
    let mut controller = agent.controller().await;
    let address = agent.plan.proxy_listen[0];
    let first = ask(address).expect("answers");
    controller.link.replace_proxy().await.expect("done");
    let one_left = async {
        loop {
            if let Some(SupervisorEvent::Proxies(proxies)) = controller.events.recv().await
                && let [only] = proxies.as_slice()
                && only.pid != first
            {
                return only.clone();
            }
        }
    };
    let second = tokio::time::timeout(DEADLINE, one_left).await.expect("the old one leaves");
    assert!(!second.draining);
    assert_eq!(ask(address), Some(second.pid));
    agent.shut_down().await;
}

#[tokio::test]
async fn a_replacement_that_dies_leaves_the_old_proxy_serving() {
    let agent = Agent::start_with(|plan, launch| {
        // The first proxy works; others end at once.
        let real = launch.proxy.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        let tried = plan.data_dir.join("tried").display().to_string();
        let script = format!("echo x >> {tried}; test $(wc -l < {tried}) = 1 || exit 9; exec {real}");
        launch.proxy = ["sh", "-c", &script].map(Into::into).to_vec();
    });
    let controller = agent.controller().await;
    let address = agent.plan.proxy_listen[0];
    let first = ask(address).expect("answers");
    controller.link.replace_proxy().await.expect("done");
    let tried = || std::fs::read_to_string(agent.plan.data_dir.join("tried")).ok().filter(|text| text.len() == 4);
    wait_for("a second attempt", tried).await;
    let end = Instant::now() + DEADLINE;
    loop {
        let proxies = controller.link.inventory().await.expect("answers").proxies;
        match proxies.as_slice() {
            [only] if only.pid == first && !only.draining => break,
            _ => assert!(Instant::now() < end, "{proxies:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(address), Some(first));
    agent.shut_down().await;
}

#[tokio::test]
async fn signals_reach_the_controller_as_messages() {
    let mut agent = Agent::start();
    let mut controller = agent.controller().await;
    // Keeps the shutdown busy: at its end the controller is ended, and the stand-in passes on nothing more.
    controller
        .link
        .start(agent.request("a", "trap '' TERM; echo up; while true; do sleep 0.05; done"))
        .await
        .expect("starts");
    agent.logged("a", "F up").await;
    agent.signal(Signal::SIGHUP);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match tokio::time::timeout(DEADLINE, controller.events.recv()).await.expect("an event") {
            Some(SupervisorEvent::Reload) => {
                seen.push("reload");
                agent.signal(Signal::SIGTERM);
            }
            Some(SupervisorEvent::Shutdown) => seen.push("shutdown"),
            Some(_) => {}
            None => panic!("the supervisor is gone"),
        }
    }
    assert_eq!(seen, ["reload", "shutdown"]);
    assert!(agent.ended().await.success());
}

#[tokio::test]
async fn new_addresses_are_served_and_old_ones_given_up() {
    let agent = Agent::start();
    let controller = agent.controller().await;
    let old = agent.plan.proxy_listen[0];
    let mut plan = agent.plan.clone();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    plan.proxy_listen = vec![busy.local_addr().expect("has one")];
    let error = controller.link.apply(plan.clone()).await.expect_err("is busy");
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(ask(old).is_some(), "nothing was changed");
    plan.proxy_listen = vec![free_address()];
    controller.link.apply(plan.clone()).await.expect("applied");
    wait_for("an answer on the new address", || ask(plan.proxy_listen[0])).await;
    wait_for("a refusal on the old one", || std::net::TcpStream::connect(old).is_err().then_some(())).await;
    plan.data_dir = "/elsewhere".into();
    let error = controller.link.apply(plan).await.expect_err("cannot move");
    assert!(matches!(error, LinkError::Refused { message, .. } if message.contains("data_dir")));
    agent.shut_down().await;
}
