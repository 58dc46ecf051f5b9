//! Any of the agent's processes may be killed at any moment: versions stay dense, nothing is done twice, nothing is
//! left running unowned, and requests do not notice that the controller was gone.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};

use landfall::client::ClientError;
use landfall::domain::{AppName, DeploymentOutcome, InstanceState, Phase, VersionNumber};
use landfall::wire::api;
use nix::sys::signal::Signal;

use crate::support::load::{Load, Trouble};
use crate::support::{Agent, Setup, instance_processes, number_from, send_signal, test_app, until, web_manifest};

/// Kills in one life of an agent. More, and the supervisor's growing pauses between restarts are all that is tested.
const KILLS_IN_ONE_LIFE: u32 = 5;

/// An app with everything a deployment can be busy with: a tree that takes time to lay out, a build, a slow start,
/// and a worker that must never run twice.
fn busy_app(agent: &mut Agent, build: &str, content: &str) {
    let (app, lock) = (test_app(), agent.root.join("lock").display().to_string());
    let manifest = format!(
        "app: shop\nbake: 1s\nbuild: {{command: [sh, -c, \"{build}\"]}}\n\
         web:\n  main:\n    command: [{app}, serve-after, \"300\"]\n    health: {{path: /healthz, interval: 50ms}}\n    \
         instances: 2\n    drain: 5s\n    grace: 2s\n\
         workers:\n  mailer:\n    command: [{app}, worker, {lock}]\n    handover: stop-first\n    grace: 2s\n"
    );
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_while_a_deployment_is_pending_carries_it_out() {
    // The deployment before is being built, does not listen, and keeps the new one waiting.
    controller_killed_in(Phase::Pending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_while_preparing_carries_the_deployment_out() {
    controller_killed_in(Phase::Preparing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_while_building_carries_the_deployment_out() {
    controller_killed_in(Phase::Building).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_while_starting_carries_the_deployment_out() {
    controller_killed_in(Phase::Starting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_during_the_handover_never_runs_a_worker_twice() {
    controller_killed_in(Phase::Handover).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_between_record_and_routes_of_a_switch_publishes_them() {
    controller_killed_in(Phase::Switching).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_in_the_bake_window_goes_on_watching() {
    controller_killed_in(Phase::Baking).await;
}

/// Deploys v1, begins the next version, kills the controller in `phase`, and looks at everything there is to see.
async fn controller_killed_in(phase: Phase) {
    let mut agent = Agent::start().await;
    busy_app(&mut agent, "true", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    let load = Load::start(agent.proxy, "shop", 8, 2);
    load.go_on().await;
    let mut newest = 2;
    let proxy = agent.proxy_pid().await;
    match phase {
        Phase::Pending => {
            busy_app(&mut agent, "trap '' TERM; sleep 2", "v2\n");
            agent.repo.push("v2");
            until_phase(&agent, 2, Phase::Building).await;
            newest = 3;
        }
        Phase::Preparing => {
            for file in 0..1500 {
                agent.repo.write(&format!("shop/files/{file}.txt"), format!("{file}\n"));
            }
        }
        Phase::Switching => send_signal(proxy, Signal::SIGSTOP),
        Phase::Building | Phase::Starting | Phase::Handover | Phase::Baking | Phase::Done => {}
    }
    busy_app(&mut agent, "sleep 0.4", &format!("v{newest}\n"));
    agent.repo.push("next");
    until_phase(&agent, newest, phase).await;
    if phase == Phase::Handover {
        // The old worker has made room, the new one runs: starting the old one again would be one too many.
        until_worker_of(&agent, newest).await;
    }
    let killed = agent.kill_controller().await;
    let reached = agent.until_new_controller(killed).await;
    send_signal(proxy, Signal::SIGCONT);
    assert_ne!(reached, killed);
    agent.until_body("shop", &format!("v{newest}\n")).await;
    load.live(newest);
    let last = agent.until_done("shop").await;
    assert_eq!((last.version.get(), last.outcome), (newest, Some(DeploymentOutcome::Succeeded)), "{last:#?}");
    if phase == Phase::Pending {
        let before = &all_deployments(&agent).await.expect("deployments")[1];
        assert_eq!(before.outcome, Some(DeploymentOutcome::Cancelled), "it was superseded: {before:#?}");
    }
    load.go_on().await;
    assert_eq!(agent.proxy_pid().await, proxy, "the proxy is the same as before");
    load.stop_unharmed().await;
    assert_sound(&agent, newest).await;
}

/// `LANDFALL_TEST_KILLS=50` is the figure to quote.
#[tokio::test(flavor = "multi_thread")]
async fn controllers_killed_at_random_moments_lose_nothing_and_do_nothing_twice() {
    let mut left = number_from("LANDFALL_TEST_KILLS", 10);
    let (mut kills, mut requests, mut versions) = (0, 0, 0);
    while left > 0 {
        let now = left.min(KILLS_IN_ONE_LIFE);
        left -= now;
        let mut agent = Agent::start().await;
        agent.repo.app("shop", "v1\n");
        agent.repo.push("v1");
        agent.until_body("shop", "v1\n").await;
        let load = Load::start(agent.proxy, "shop", 16, 2);
        let mut newest = 1;
        for _ in 0..now {
            let killed = agent.controller_pid().await;
            // Somewhere in the first moments of a deployment, whatever those moments do.
            newest += 1;
            agent.repo.app("shop", &format!("content {newest}\n"));
            agent.repo.push("next");
            tokio::time::sleep(Duration::from_millis(random_below(150))).await;
            send_signal(killed, Signal::SIGKILL);
            agent.until_new_controller(killed).await;
            kills += 1;
        }
        agent.until_body("shop", &format!("content {newest}\n")).await;
        agent.until_done("shop").await;
        let report = load.stop_unharmed().await;
        requests += report.requests;
        versions += assert_sound(&agent, newest).await;
    }
    println!("{kills} kills of the controller: {requests} requests, 0 failed, {versions} versions, all dense");
}

/// `LANDFALL_TEST_KILLS=20` is the figure to quote.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_refuses_nobody_and_its_successor_serves_what_is_live() {
    let mut left = number_from("LANDFALL_TEST_KILLS", 5).min(20);
    let (mut kills, mut requests, mut broken) = (0, 0, 0);
    while left > 0 {
        let now = left.min(KILLS_IN_ONE_LIFE);
        left -= now;
        let mut agent = Agent::start().await;
        agent.repo.app("shop", "v1\n");
        agent.repo.push("v1");
        agent.until_body("shop", "v1\n").await;
        let load = Load::start(agent.proxy, "shop", 16, 4);
        load.live(1);
        for kill in 1..=now {
            load.go_on().await;
            let killed = agent.proxy_pid().await;
            let version = kill + 1;
            agent.repo.app("shop", &format!("v{version}\n"));
            agent.repo.push("next");
            tokio::time::sleep(Duration::from_millis(random_below(150))).await;
            send_signal(killed, Signal::SIGKILL);
            agent.until_new_proxy(killed).await;
            agent.until_live("shop", version).await;
            load.live(version);
            kills += 1;
        }
        load.go_on().await;
        let report = load.stop().await;
        let unexpected: Vec<_> =
            report.troubles.iter().filter(|trouble| !matches!(trouble, Trouble::Broken(_))).collect();
        assert!(unexpected.is_empty(), "{} of {}: {unexpected:#?}", unexpected.len(), report.requests);
        let most = usize::try_from(now * 20).expect("a small number");
        assert!(report.troubles.len() <= most, "only what was under way may break: {:#?}", report.troubles);
        requests += report.requests;
        broken += report.troubles.len();
        agent.until_done("shop").await;
        assert_sound(&agent, now + 1).await;
    }
    println!("{kills} kills of the proxy: {requests} requests, 0 refused, {broken} broken while under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_does_not_serve_what_was_replaced_while_there_was_none() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    // What a proxy would find that was killed before it heard of v2.
    let routes = agent.root.join("data/run/routes.json");
    let of_v1 = std::fs::read(&routes).expect("the routes");
    agent.repo.app("shop", "v2\n");
    agent.repo.push("v2");
    agent.until_body("shop", "v2\n").await;
    until_settled(&agent, 2).await;
    let killed = agent.proxy_pid().await;
    std::fs::write(&routes, of_v1).expect("the routes");
    let load = Load::start(agent.proxy, "shop", 4, 4);
    load.live(2);
    send_signal(killed, Signal::SIGKILL);
    agent.until_new_proxy(killed).await;
    load.go_on().await;
    let report = load.stop().await;
    let unexpected: Vec<_> = report.troubles.iter().filter(|trouble| !matches!(trouble, Trouble::Broken(_))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_after_one_that_was_killed_cleans_up_and_brings_everything_back() {
    let mut agent = Agent::start().await;
    busy_app(&mut agent, "true", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    let before: BTreeSet<_> = instance_processes(&agent.root);
    agent.kill();
    agent.launch();
    agent.until_up().await;
    agent.until_body("shop", "v1\n").await;
    assert_sound(&agent, 1).await;
    let after = instance_processes(&agent.root);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
}

/// A process that was just being started when its supervisor was killed has the lock for a moment longer.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_for_what_a_killed_one_still_holds() {
    let mut agent = Agent::start().await;
    agent.kill();
    let held = File::open(agent.root.join("data/lock")).expect("the lock");
    held.lock().expect("nobody has it");
    agent.launch();
    until("the agent waits", || async {
        agent.log().contains("still in use").then_some(()).ok_or_else(|| agent.log())
    })
    .await;
    drop(held);
    agent.until_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_in_place_keeps_supervisor_and_instances_and_fails_no_request() {
    let mut agent = Agent::start().await;
    busy_app(&mut agent, "true", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    let load = Load::start(agent.proxy, "shop", 16, 4);
    for _ in 0..3 {
        load.go_on().await;
        let (instances, processes) = (instance_processes(&agent.root), agent.processes().await);
        send_signal(agent.pid(), Signal::SIGUSR2);
        agent.until_new_controller(processes.controller.pid).await;
        agent.until_new_proxy(processes.proxy.expect("a proxy").pid).await;
        load.go_on().await;
        assert_eq!(agent.processes().await.supervisor.pid, agent.pid());
        assert_eq!(instance_processes(&agent.root), instances, "instances are the same processes as before");
    }
    // It can still deploy.
    busy_app(&mut agent, "true", "v2\n");
    agent.repo.push("v2");
    agent.until_body("shop", "v2\n").await;
    agent.until_done("shop").await;
    load.stop_unharmed().await;
    assert_sound(&agent, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_every_app_is_as_it_was() {
    let mut setup = Setup::new();
    for app in ["plain", "held", "stopped", "suspended"] {
        setup.repo.app(app, "v1\n");
    }
    setup.repo.push("v1");
    let mut agent = setup.start().await;
    for app in ["plain", "held", "stopped", "suspended"] {
        agent.until_body(app, "v1\n").await;
        agent.until_done(app).await;
    }
    let name = |app: &str| app.parse::<AppName>().expect("a name");
    agent.repo.app("held", "v2\n");
    agent.repo.push("v2");
    agent.until_body("held", "v2\n").await;
    agent.until_done("held").await;
    agent.client.rollback(None, &name("held"), &api::RollbackRequest::default()).await.expect("rolled back");
    agent.until_body("held", "v1\n").await;
    agent.until_done("held").await;
    agent.client.stop(None, &name("stopped"), &api::ReasonRequest::default()).await.expect("stopped");
    agent.until_app("stopped", "its instances are gone", |app| app.instances == 0).await;
    agent.client.suspend(None, &name("suspended"), &api::SuspendRequest::default()).await.expect("suspended");
    let before = apps(&agent).await;
    for _ in 0..2 {
        agent.stop();
        assert!(instance_processes(&agent.root).is_empty());
        agent.launch();
        agent.until_up().await;
        for app in ["plain", "held", "suspended"] {
            agent.until_body(app, "v1\n").await;
        }
        let answer = agent.get("stopped", "/").await.expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
        until("apps are as they were", || async {
            let now = apps(&agent).await;
            if now == before { Ok(()) } else { Err(format!("{now:#?}, not {before:#?}")) }
        })
        .await;
    }
    // A frozen app stays frozen, a held one is released by new content.
    agent.repo.app("suspended", "v2\n").app("held", "v3\n");
    agent.repo.push("v3");
    agent.until_body("held", "v3\n").await;
    assert_eq!(agent.get("suspended", "/").await.expect("an answer").body, "v1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_window_that_ends_while_the_agent_is_down_judges_nothing_that_is_only_starting() {
    let mut agent = Agent::start().await;
    let window = Duration::from_secs(3);
    let manifest =
        web_manifest("shop", "").replace("serve]", "serve-after, \"700\"]").replace("bake: 200ms", "bake: 3s");
    for (version, content) in [(1, "v1\n"), (2, "v2\n")] {
        agent.repo.write("shop/landfall.yaml", &manifest).write("shop/content.txt", content);
        agent.repo.push(content.trim());
        assert_eq!(agent.until_body("shop", content).await.version, Some(version));
        if version == 1 {
            agent.until_done("shop").await;
        }
    }
    let switched = Instant::now();
    agent.stop();
    until("the bake window is over", || async {
        let left = window.saturating_sub(switched.elapsed());
        if left.is_zero() { Ok(()) } else { Err(format!("{left:?} are left")) }
    })
    .await;
    agent.launch();
    agent.until_up().await;
    agent.until_body("shop", "v2\n").await;
    agent.until_done("shop").await;
    let newest = &all_deployments(&agent).await.expect("deployments")[0];
    assert_eq!((newest.version.get(), newest.outcome), (2, Some(DeploymentOutcome::Succeeded)), "{newest:#?}");
    assert_eq!(agent.app("shop").await.expect("the app").state, api::AppState::Deployed);
}

/// What must be the same after a restart.
async fn apps(agent: &Agent) -> Vec<String> {
    let mut found = Vec::new();
    for app in agent.client.apps(None).await.expect("apps") {
        let versions = agent.versions(app.app.as_str()).await.len();
        found.push(format!(
            "{} {:?} live {:?} of {versions}, {} instances, {} ready, hold {:?}, suspension {:?}, stopped {:?}",
            app.app, app.state, app.live_version, app.instances, app.ready, app.hold, app.suspension, app.stopped
        ));
    }
    found
}

async fn until_phase(agent: &Agent, version: u32, phase: Phase) {
    let app: AppName = "shop".parse().expect("a name");
    until(&format!("v{version} is {}", phase.as_str()), || async {
        let found = agent.client.deployments(None, &app, Some(1)).await.map_err(|error| error.to_string())?;
        match found.first() {
            Some(deployment) if deployment.version.get() == version && deployment.phase == phase => Ok(()),
            Some(deployment) if deployment.version.get() == version && deployment.phase > phase => {
                panic!("v{version} was {} too briefly to be seen: {deployment:#?}", phase.as_str())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn until_worker_of(agent: &Agent, version: u32) {
    until("the new worker runs", || async {
        let instances = agent.instances("shop").await?;
        let new = |instance: &&api::Instance| instance.object == "mailer" && instance.version.get() == version;
        match instances.iter().find(new) {
            Some(instance) if instance.pid.is_some() => Ok(()),
            _ => Err(format!("{instances:?}")),
        }
    })
    .await;
}

/// Waits until nothing but the live version runs, all of it ready.
async fn until_settled(agent: &Agent, live: u32) {
    let live = VersionNumber::new(live).expect("a number");
    until(&format!("only {live} runs, and every process is known"), || async {
        let instances = agent.instances("shop").await?;
        let known: BTreeSet<_> = instances.iter().filter_map(|instance| instance.pid).collect();
        let there = instance_processes(&agent.root);
        let settled = |instance: &api::Instance| instance.version == live && instance.state == InstanceState::Ready;
        if instances.iter().all(settled) && known == there && !known.is_empty() {
            return Ok(());
        }
        Err(format!("processes {there:?}, instances {instances:#?}"))
    })
    .await;
}

/// Versions are dense, each deployed once; exactly the wanted instances run. Answers how many versions there are.
async fn assert_sound(agent: &Agent, newest: u32) -> u32 {
    let versions = agent.versions("shop").await;
    let mut numbers: Vec<u32> = versions.iter().map(|version| version.version.get()).collect();
    numbers.reverse();
    let last = numbers.last().copied().unwrap_or_default();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "versions are dense");
    let commits: BTreeSet<_> = versions.iter().map(|version| &version.commit).collect();
    assert_eq!(commits.len(), versions.len(), "each commit made one version: {versions:#?}");
    assert!(last <= newest, "{last} versions of {newest} commits");
    let deployments = all_deployments(agent).await.expect("deployments");
    let deployed: BTreeSet<_> = deployments.iter().map(|deployment| deployment.version).collect();
    assert_eq!(deployed.len(), deployments.len(), "no version is deployed twice: {deployments:#?}");
    assert_eq!(deployments.len(), versions.len());
    assert!(deployments.iter().all(|deployment| deployment.outcome.is_some()), "{deployments:#?}");
    until_settled(agent, last).await;
    let wanted: u32 = deployments[0].objects.iter().map(|object| object.wanted).sum();
    let running = agent.instances("shop").await.expect("instances");
    assert_eq!(running.len(), usize::try_from(wanted).expect("a small number"), "{running:#?}");
    for log in logs(agent) {
        assert!(!log.contains("another worker runs"), "{log}");
    }
    last
}

async fn all_deployments(agent: &Agent) -> Result<Vec<api::Deployment>, ClientError> {
    agent.client.deployments(None, &"shop".parse().expect("a name"), Some(100)).await
}

/// What every worker wrote.
fn logs(agent: &Agent) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![agent.root.join("data/logs")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.push(std::fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    found
}

fn random_below(limit: u64) -> u64 {
    // Only to be different each time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::from(now.subsec_nanos()) / 1000 % limit
}
