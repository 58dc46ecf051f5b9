//! Instances that need more memory than they may have.

use std::time::Duration;

use landfall::client::{CallBody, ClientError};
use landfall::domain::{AttemptOutcome, CallOutcome};

use crate::support::asking::name;
use crate::support::{Agent, until};

const APP: &str = r#"
import os, sys

def take(mebibytes):
    return len(b"x" * (mebibytes << 20))

if os.path.exists("greedy"):
    take(200)
"#;

async fn agent() -> Agent {
    let mut agent = Agent::start().await;
    let manifest = "app: pods\nbake: 100ms\nfunctions:\n  \
                    take: {handler: app.py:take, resources: {memory: 64MiB}, instances: 1}\n";
    agent.repo.write("pods/landfall.yaml", manifest).write("pods/app.py", APP);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    agent
}

impl Agent {
    /// Whether the kernel holds the limit here; elsewhere each process has a limit of its own, and asks in vain.
    async fn kernel_limits_memory(&self) -> bool {
        let app = name("pods");
        let instance = until("an instance", || async {
            let all = self.client.instances(None, Some(&app)).await.map_err(|error| error.to_string())?;
            all.into_iter().next().ok_or_else(|| "none".to_owned())
        })
        .await;
        let log = self.root.join("data/logs/main/pods/v1/take").join(format!("{}.log", instance.instance));
        let log = std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let holds = !log.contains("memory holds for each process");
        if !holds {
            eprintln!("skipped in part: this agent has no control group with the memory controller");
        }
        holds
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_instance_runs_out_of_memory_says_so_with_its_limit() {
    if !crate::functions::has("python3") {
        return;
    }
    let agent = agent().await;
    let holds = agent.kernel_limits_memory().await;
    let (app, function) = (name("pods"), "take".parse().expect("a name"));
    let answer = agent.client.call_function(None, &app, &function, None, CallBody::json("[1]")).await;
    assert!(answer.expect("an answer").status.is_success(), "what fits is no trouble");
    let answer = agent.client.call_function(None, &app, &function, None, CallBody::json("[200]")).await;
    let said = match answer {
        Ok(mut answer) if !holds => String::from_utf8(answer.whole().await.expect("a body")).expect("text"),
        Err(ClientError::Problem(problem)) if holds => {
            assert_eq!(problem.status, 502);
            format!("{} {} {}", problem.code, problem.detail, problem.mend)
        }
        other => panic!("{other:?}"),
    };
    assert!(said.contains("out_of_memory") && said.contains("resources.memory") && said.contains("64MiB"), "{said}");

    let spawned = agent.client.spawn(None, &app, &function, None, CallBody::json("[200]"), None).await;
    let call = spawned.expect("spawned").call;
    let shown = until(&format!("{call} is done"), || async {
        let shown = agent.client.call_record(call, Duration::from_secs(5)).await.map_err(|error| error.to_string())?;
        if shown.call.outcome.is_some() { Ok(shown) } else { Err(format!("{shown:?}")) }
    })
    .await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Failed), "{shown:?}");
    let attempt = if holds { AttemptOutcome::Crashed } else { AttemptOutcome::Failed };
    // Between two of them the function may have been given a pause.
    let ends: Vec<_> = shown.tries.iter().map(|one| one.end.as_ref().expect("an end")).collect();
    let reached: Vec<_> = ends.iter().filter(|end| end.outcome != AttemptOutcome::Refused).collect();
    assert!(!reached.is_empty(), "{ends:?}");
    for end in reached {
        let error = end.error.as_ref().expect("why");
        assert!(end.outcome == attempt && error.kind == "out_of_memory", "{end:?}");
        assert!(error.message.contains("64MiB"), "{error:?}");
    }
    if holds {
        let show = agent.client.app(None, &app).await.expect("shown");
        let show = serde_json::to_string(&show).expect("JSON");
        assert!(show.contains("ran out of memory, its limit is 64MiB"), "{show}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_fit_into_its_memory_fails_with_that_reason() {
    if !crate::functions::has("python3") {
        return;
    }
    let mut agent = agent().await;
    if !agent.kernel_limits_memory().await {
        return;
    }
    agent.repo.write("pods/greedy", "yes");
    agent.repo.push("greedy");
    agent.rest(&["pods"]).await;
    let failure = agent.deployment_of("pods", 2).await.failure.expect("a failure");
    assert_eq!(failure.code, "out_of_memory", "{failure:?}");
    assert!(failure.message.contains("64MiB") && failure.message.contains("resources.memory"), "{failure:?}");
    let (app, function) = (name("pods"), "take".parse().expect("a name"));
    let answer = agent.client.call_function(None, &app, &function, None, CallBody::json("[1]")).await;
    assert!(answer.expect("an answer").status.is_success(), "the version before serves on");
}
