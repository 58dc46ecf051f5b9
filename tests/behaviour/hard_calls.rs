//! Functions under load and in trouble: floods, full lines, long queues beside short ones, deployments and crashes in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use landfall::client::{CallBody, CallsQuery};
use landfall::domain::{AttemptOutcome, CallId, CallOutcome, CallState, InstanceState};
use landfall::wire::call_views::CallDetail;

use crate::support::asking::{function, name};
use crate::support::place::written;
use crate::support::{Agent, until};

async fn with(functions: &[&str]) -> Agent {
    let mut agent = Agent::start().await;
    agent.deploy_functions(functions).await;
    agent
}

impl Agent {
    async fn spawned(&self, of: &str, body: &str) -> CallId {
        let spawned = self.client.spawn(None, &name("pods"), &function(of), None, CallBody::bytes(body), None).await;
        spawned.expect("spawned").call
    }

    async fn ended(&self, call: CallId) -> CallDetail {
        until(&format!("{call} is done"), || async {
            let shown = self.client.call_record(call, Duration::from_secs(1)).await;
            let shown = shown.map_err(|error| error.to_string())?;
            if shown.call.state == CallState::Done { Ok(shown) } else { Err(format!("{shown:?}")) }
        })
        .await
    }

    async fn until_ready(&self, count: usize) {
        until("so many instances are ready", || async {
            let instances = self.instances("pods").await?;
            let ready = instances.iter().filter(|one| one.state == InstanceState::Ready).count();
            if (ready, instances.len()) == (count, count) { Ok(()) } else { Err(format!("{instances:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_calls_all_succeed_while_versions_change_under_them() {
    let mut agent = with(&["work: {command: SERVER, mode: server, concurrency: 4, instances: 2}"]).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, over) = (agent.client.clone(), Arc::clone(&over));
        callers.spawn(async move {
            let mut versions = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let body = CallBody::bytes("wait 3");
                let answer = client.call_function(None, &name("pods"), &function("work"), None, body).await;
                let mut answer = answer.expect("an answer");
                assert_eq!(answer.whole().await.expect("all of it"), b"wait 3");
                assert!(answer.status.is_success());
                versions.extend(answer.version.map(|version| version.get()));
            }
            versions
        });
    }
    for version in 2..=4 {
        agent.repo.write("pods/more.txt", version.to_string());
        agent.repo.push("more");
        agent.until_live("pods", version).await;
    }
    over.store(true, Ordering::Relaxed);
    let all = callers.join_all().await;
    for versions in &all {
        assert!(versions.is_sorted(), "no call runs on an older version than one before it: {versions:?}");
    }
    assert!(all.iter().flatten().any(|version| *version == 1) && all.iter().map(Vec::len).sum::<usize>() > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_line_says_when_to_come_again() {
    let agent = with(&["work: {command: SERVER, mode: server, instances: 1, queue: 1}"]).await;
    let http =
        reqwest::Client::builder().unix_socket(agent.root.join("agent.sock").as_path()).build().expect("a client");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let http = http.clone();
        calls.spawn(async move {
            let url = "http://localhost/v1/apps/pods/functions/work/call";
            let answer = http.post(url).body("wait 1500").send().await.expect("an answer");
            let after = answer.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
            (answer.status().as_u16(), after)
        });
    }
    let mut answers = calls.join_all().await;
    answers.sort();
    let full = (429, Some("1".to_owned()));
    assert_eq!(answers, [(200, None), (200, None), full.clone(), full]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_kept_to_spare_and_another_started_when_it_is_taken() {
    let agent = with(&["work: {command: SERVER, mode: server, instances: {min: 0, max: 3, spare: 1, idle: 1s}}"]).await;
    agent.until_ready(1).await;
    let calling = tokio::spawn({
        let client = agent.client.clone();
        async move {
            let body = CallBody::bytes("wait 4000");
            let answer = client.call_function(None, &name("pods"), &function("work"), None, body).await;
            answer.expect("an answer").whole().await.expect("all of it")
        }
    });
    agent.until_ready(2).await;
    assert_eq!(calling.await.expect("ends"), b"wait 4000");
    agent.until_ready(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_of_one_function_keeps_no_other_waiting() {
    let agent = with(&[
        "slow: {command: SERVER, mode: server, instances: 1}",
        "quick: {command: SERVER, mode: server, instances: 1}",
    ])
    .await;
    for _ in 0..200 {
        agent.spawned("slow", "wait 200").await;
    }
    for number in 0..5 {
        let call = agent.spawned("quick", &number.to_string()).await;
        assert_eq!(agent.ended(call).await.call.outcome, Some(CallOutcome::Succeeded));
    }
    let waiting = CallsQuery { state: Some(CallState::Queued), limit: Some(1000), ..CallsQuery::default() };
    let waiting = agent.client.calls(None, &waiting).await.expect("listed");
    assert!(waiting.len() > 50 && waiting.iter().all(|call| call.function == function("slow")), "{}", waiting.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_and_calls_that_run_outlive_the_whole_agent() {
    let mut agent = with(&["work: {command: SERVER, mode: server, concurrency: 4, instances: 1}"]).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(agent.spawned("work", "wait 3000").await);
    }
    for number in 0..40 {
        calls.push(agent.spawned("work", &format!("wait {number}")).await);
    }
    until("some run", || async {
        let ran = written(&agent.root, "pods", "ran");
        if ran.lines().count() >= 4 { Ok(()) } else { Err(ran) }
    })
    .await;
    // As after a power cut: nothing of it is left, and it starts again from what is on disk.
    agent.kill();
    agent.launch();
    agent.until_up().await;
    let mut lost = 0;
    for call in &calls {
        let shown = agent.ended(*call).await;
        assert_eq!(shown.call.outcome, Some(CallOutcome::Succeeded), "{shown:?}");
        let ends: Vec<_> = shown.tries.iter().map(|one| one.end.as_ref().expect("an end").outcome).collect();
        assert_eq!(ends.last(), Some(&AttemptOutcome::Succeeded));
        lost += ends.iter().filter(|end| matches!(end, AttemptOutcome::Lost | AttemptOutcome::Crashed)).count();
    }
    assert!(lost >= 4, "what ran was tried again: {lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_floods_its_log_ends_and_holds_nobody_up() {
    let flood = r#"flood: {command: "i=0; while [ $i -lt 40000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; i=$((i+1)); done; echo done", mode: exec}"#;
    let agent = with(&[flood, "work: {command: SERVER, mode: server, instances: 1}"]).await;
    let flooding = tokio::spawn({
        let client = agent.client.clone();
        async move {
            let answer = client.call_function(None, &name("pods"), &function("flood"), None, CallBody::empty()).await;
            answer.expect("an answer").whole().await.expect("all of it")
        }
    });
    for _ in 0..20 {
        let body = CallBody::bytes("x");
        let answer = agent.client.call_function(None, &name("pods"), &function("work"), None, body).await;
        assert_eq!(answer.expect("an answer").whole().await.expect("all of it"), b"x");
    }
    assert_eq!(flooding.await.expect("ends"), b"done\n");
}
