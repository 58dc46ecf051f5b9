//! Containers that somebody changes by hand: put right, told of, or left alone.

use landfall::domain::EventKind;

use crate::engine::{containers_at, docker, engine, manifest, owner, running, scene};
use crate::support::load::Load;
use crate::support::{Agent, until};

/// What the agent has told of changes by hand, newest last.
async fn told(agent: &Agent) -> Vec<String> {
    let events = agent.client.events(0, 1000).await.expect("events");
    events
        .into_iter()
        .filter(|record| record.event.kind == EventKind::AppDrifted)
        .map(|record| record.event.message)
        .collect()
}

async fn until_told(agent: &Agent, words: &str) {
    until(&format!("`{words}` is told"), || async {
        let told = told(agent).await;
        if told.iter().any(|message| message.contains(words)) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

async fn until_problem(agent: &Agent, words: &str, there: bool) {
    until(&format!("`{words}` is a problem: {there}"), || async {
        let problems = agent.client.status().await.map_err(|error| error.to_string())?.problems;
        if problems.iter().any(|problem| problem.contains(words)) == there {
            Ok(())
        } else {
            Err(format!("{problems:?}"))
        }
    })
    .await;
}

/// Another container than this one runs, alone, and answers.
async fn until_another(agent: &mut Agent, before: &str) -> String {
    let now = until("another container runs", || async {
        let now = containers_at(&engine().expect("an engine"), agent, "status=running");
        match now.as_slice() {
            [one] if one != before => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    agent.until_body("shop", "v1\n").await;
    now
}

async fn deployed(more: &str) -> Option<Agent> {
    let (mut agent, image) = scene().await?;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, more)).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.until_done("shop").await;
    Some(agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changes_by_hand_is_put_right_and_told() {
    let Some(mut agent) = deployed("    resources: {memory: 64MiB}\n").await else { return };
    let first = running(&agent).await;
    docker(&["pause", &first]);
    until_told(&agent, "it was paused; it goes on").await;
    assert_eq!(docker(&["inspect", "-f", "{{.State.Status}}", &first]), "running");
    let name = docker(&["inspect", "-f", "{{.Name}}", &first]);
    docker(&["rename", &first, &format!("by-hand-{}", owner(&agent))]);
    until_told(&agent, "it has its name again").await;
    assert_eq!(docker(&["inspect", "-f", "{{.Name}}", &first]), name);
    // What cannot be taken back costs the container its place, and nobody an answer.
    let load = Load::start(agent.proxy, "shop", 4, 2);
    load.go_on().await;
    docker(&["update", "--memory", "128m", "--memory-swap", "128m", &first]);
    until_told(&agent, "its limit of memory is 134217728 instead of 67108864; another takes its place").await;
    let second = until_another(&mut agent, &first).await;
    load.stop_unharmed().await;
    docker(&["network", "disconnect", "-f", "bridge", &second]);
    until_told(&agent, "it was taken off its network").await;
    let third = until_another(&mut agent, &second).await;
    docker(&["stop", "-t", "1", &third]);
    until_told(&agent, "it was stopped or removed; another is started").await;
    until_another(&mut agent, &third).await;
    assert_eq!(told(&agent).await.len(), 5, "each is told once");
    let log = crate::engine::logs(&agent, "shop");
    assert!(log.contains("changed by hand: it was paused"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_only_to_be_told_stays_and_is_a_problem_until_it_is_undone() {
    let Some(agent) = deployed("    resources: {memory: 64MiB}\ndrift: warn\n").await else { return };
    let container = running(&agent).await;
    let name = docker(&["inspect", "-f", "{{.Name}}", &container]);
    docker(&["rename", &container, &format!("by-hand-{}", owner(&agent))]);
    until_told(&agent, "it is left so (`drift: warn`)").await;
    until_problem(&agent, "it was renamed to by-hand-", true).await;
    docker(&["rename", &container, name.trim_start_matches('/')]);
    until_problem(&agent, "was changed by hand", false).await;
    // What was asked for is known to the next controller, too.
    docker(&["update", "--memory", "128m", "--memory-swap", "128m", &container]);
    until_problem(&agent, "its limit of memory is", true).await;
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    until_problem(&agent, "its limit of memory is", true).await;
    assert_eq!(running(&agent).await, container, "nothing was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_nobody_is_to_look_at_are_not_told_but_what_ended_is_started_again() {
    let Some(mut agent) = deployed("drift: off\n").await else { return };
    let container = running(&agent).await;
    docker(&["rename", &container, &format!("by-hand-{}", owner(&agent))]);
    docker(&["kill", &container]);
    until_another(&mut agent, &container).await;
    assert_eq!(told(&agent).await, Vec::<String>::new());
    until_problem(&agent, "changed by hand", false).await;
}
