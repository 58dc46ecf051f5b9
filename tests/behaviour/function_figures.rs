//! How functions fare, as people and programs see it; and what holds when there is too much of it.

use std::time::Duration;

use landfall::client::CallBody;
use landfall::domain::{CallOutcome, InstanceState};
use landfall::wire::api::ScaleRequest;
use landfall::wire::functions::FunctionView;

use crate::support::asking::{function, name, refusal};
use crate::support::{Agent, Setup, landfall, until};

async fn with(environment: &[(&str, &str)], functions: &[&str]) -> Agent {
    let mut setup = Setup::new();
    setup.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut agent = setup.start().await;
    agent.deploy_functions(functions).await;
    agent
}

impl Agent {
    async fn figures(&self, of: &str) -> Result<FunctionView, String> {
        let all = self.client.functions(None, &name("pods")).await.map_err(|error| error.to_string())?;
        all.into_iter().find(|one| one.function == function(of)).ok_or_else(|| format!("no {of}"))
    }

    async fn waited_for(&self, of: &str, body: &str) {
        let called = self.client.call_function(None, &name("pods"), &function(of), None, CallBody::bytes(body)).await;
        called.expect("an answer").whole().await.expect("all of it");
    }

    async fn program(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::new(landfall());
        command.arg("--agent").arg(self.root.join("agent.sock")).args(arguments);
        let output = command.output().await.expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_times_and_outcomes_are_told_by_function() {
    let agent = with(
        &[],
        &[
            "work: {command: SERVER, mode: server, concurrency: 4, instances: 2}",
            "cold: {command: SERVER, mode: server, instances: {min: 0, max: 1, idle: 1s}}",
        ],
    )
    .await;
    for _ in 0..5 {
        agent.waited_for("work", "wait 20").await;
    }
    for body in ["a", "b", "fail 9"] {
        agent
            .client
            .spawn(None, &name("pods"), &function("work"), None, CallBody::bytes(body), None)
            .await
            .expect("spawned");
    }
    let seen = until("all eight are counted", || async {
        let seen = agent.figures("work").await?;
        let counted = seen.hour.outcomes.get(&CallOutcome::Succeeded) == Some(&7);
        // What is free is known from the proxies, which tell of it a moment later.
        if counted && seen.hour.outcomes.get(&CallOutcome::Failed) == Some(&1) && seen.headroom == 8 {
            Ok(seen)
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    assert_eq!((seen.instances, seen.ready, seen.concurrency, (seen.min, seen.max)), (2, 2, 4, (2, 2)));
    assert_eq!((seen.headroom, seen.backlog, seen.running, seen.scaled), (8, 0, 0, false));
    assert!((seen.hour.per_second - 8.0 / 3600.0).abs() < 1e-9, "{seen:?}");
    let run = seen.recent.run;
    assert!(
        run.p99_us.is_some_and(|time| time > 20_000) && run.p50_us <= run.p95_us && run.p95_us <= run.p99_us,
        "{run:?}"
    );
    assert_eq!(seen.recent.start.p50_us, None, "nobody waited for an instance");

    until("there is no instance", || async {
        let seen = agent.figures("cold").await?;
        if seen.instances == 0 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    agent.waited_for("cold", "x").await;
    let start = until("the start is counted", || async {
        let seen = agent.figures("cold").await?;
        seen.recent.start.p50_us.ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    assert!(start > 100, "an instance takes longer than {start} µs to start");
    let calls = agent.client.calls(None, &landfall::client::CallsQuery::default()).await.expect("calls");
    let cold = calls.iter().find(|call| call.function == function("cold")).expect("the call");
    let shown = agent.client.call_record(cold.call, Duration::ZERO).await.expect("shown");
    let times = shown.tries[0].end.as_ref().expect("an end").times;
    assert!(times.starting_us > 0 && times.starting_us <= times.queued_us, "{times:?}");

    let (code, text) = agent.program(&["app", "functions", "pods"]).await;
    assert!(code == Some(0) && text.contains("2 of 2 (2)") && text.contains("7 succeeded, 1 failed"), "{text}");
    let (code, text) = agent.program(&["app", "functions", "pods", "work"]).await;
    assert!(code == Some(0) && text.contains("running") && text.contains("MINUTE"), "{text}");
    let (code, text) = agent.program(&["app", "functions", "pods", "wrok"]).await;
    assert!(code == Some(4) && text.contains("did you mean work?"), "{text}");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http =
        reqwest::Client::builder().unix_socket(agent.root.join("agent.sock").as_path()).build().expect("a client");
    let metrics = http.get("http://localhost/metrics").send().await.expect("an answer").text().await.expect("text");
    let label = "environment=\"main\",app=\"pods\",function=\"work\"";
    for line in [
        format!("landfall_function_ready_instances{{{label}}} 2"),
        format!("landfall_function_headroom{{{label}}} 8"),
        format!("landfall_function_calls_total{{{label},outcome=\"succeeded\"}} 7"),
        format!("landfall_function_run_time_seconds{{{label},quantile=\"0.99\"}} 0.0"),
    ] {
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_full_is_refused_with_the_mend_and_taken_again_later() {
    let agent =
        with(&[("LANDFALL_LIMITS__BACKLOG", "3")], &["work: {command: SERVER, mode: server, instances: 1}"]).await;
    let spawn = async |body: &'static str| {
        let body = CallBody::bytes(body);
        agent.client.spawn(None, &name("pods"), &function("work"), None, body, None).await
    };
    let mut spawned = vec![spawn("wait 20000").await.expect("spawned").call];
    let refused = loop {
        match spawn("x").await {
            Ok(one) => spawned.push(one.call),
            refused => break refusal(refused),
        }
        assert!(spawned.len() < 12, "nothing is refused");
    };
    assert_eq!((refused.status, refused.code.as_str()), (429, "too_many"));
    assert!(
        refused.title.contains("3 calls of pods work wait") && refused.mend.contains("limits.backlog"),
        "{refused:?}"
    );
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http =
        reqwest::Client::builder().unix_socket(agent.root.join("agent.sock").as_path()).build().expect("a client");
    let answer =
        http.post("http://localhost/v1/apps/pods/functions/work/spawn").body("x").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().expect("text")), (429, "5"));
    agent.client.cancel_call(spawned[0]).await.expect("cancelled");
    until("there is room again", || async { spawn("x").await.map_err(|error| error.to_string()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_flooded_is_refused_by_its_own_bound_and_takes_no_others_share() {
    let flooded = "flooded: {command: SERVER, mode: server, instances: 1, backlog: 2}";
    let agent = with(&[], &[flooded, "work: {command: SERVER, mode: server, instances: 1}"]).await;
    let spawn = async |of: &str, body: &'static str| {
        agent.client.spawn(None, &name("pods"), &function(of), None, CallBody::bytes(body), None).await
    };
    let mut spawned = 0;
    let refused = loop {
        match spawn("flooded", "wait 60000").await {
            Ok(_) => spawned += 1,
            refused => break refusal(refused),
        }
        assert!(spawned < 12, "nothing is refused");
    };
    assert_eq!((refused.status, refused.code.as_str()), (429, "too_many"));
    assert!(refused.title.contains("2 calls of pods flooded wait"), "{refused:?}");
    assert!(
        refused.title.contains("`backlog` of function flooded") && refused.mend.contains("manifest"),
        "{refused:?}"
    );
    let mut other = Vec::new();
    for _ in 0..8 {
        other.push(spawn("work", "x").await.expect("spawned").call);
    }
    for call in other {
        let shown = agent.client.call_record(call, std::time::Duration::from_secs(30)).await.expect("known");
        assert_eq!(shown.call.outcome, Some(landfall::domain::CallOutcome::Succeeded), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_go_on_over_a_restart_of_the_agent() {
    let mut agent = with(&[], &["work: {command: SERVER, mode: server, instances: 1}"]).await;
    agent.waited_for("work", "x").await;
    let spawned = agent.client.spawn(None, &name("pods"), &function("work"), None, CallBody::bytes("x"), None).await;
    let call = spawned.expect("spawned").call;
    agent.client.call_record(call, std::time::Duration::from_secs(30)).await.expect("known");
    let counted = async |agent: &Agent| {
        until("both are counted", || async {
            let seen = agent.figures("work").await?;
            let calls: u64 = seen.hour.outcomes.values().sum();
            if calls == 2 { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
        .await
    };
    let before = counted(&agent).await;
    agent.stop();
    agent.launch();
    agent.until_up().await;
    let after = counted(&agent).await;
    assert_eq!((after.hour.run, after.hour.queue), (before.hour.run, before.hour.queue));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_scaled_by_hand_stays_so_over_a_restart_and_ends_with_the_version() {
    let mut agent = with(&[], &["work: {command: SERVER, mode: server, instances: 1}"]).await;
    let request = ScaleRequest { object: function("work"), min: Some(3), max: Some(3) };
    agent.client.scale(None, &name("pods"), &request).await.expect("scaled");
    let ready = async |agent: &Agent, count: usize| {
        until("so many instances are ready", || async {
            let instances = agent.instances("pods").await?;
            let ready = instances.iter().filter(|one| one.state == InstanceState::Ready).count();
            if (ready, instances.len()) == (count, count) { Ok(()) } else { Err(format!("{instances:?}")) }
        })
        .await;
    };
    ready(&agent, 3).await;
    let before = agent.instance_ids("pods").await;
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    ready(&agent, 3).await;
    assert_eq!(agent.instance_ids("pods").await, before, "none was stopped and started again");
    let seen = agent.figures("work").await.expect("figures");
    assert!(seen.scaled && (seen.min, seen.max) == (3, 3), "{seen:?}");
    agent.stop();
    agent.launch();
    agent.until_up().await;
    ready(&agent, 3).await;
    agent.repo.write("pods/more.txt", "two");
    agent.repo.push("two");
    agent.rest(&["pods"]).await;
    ready(&agent, 1).await;
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    ready(&agent, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_name_is_answered_with_the_one_that_was_meant() {
    let agent = with(&[], &["work: {command: SERVER, mode: server, instances: 1}"]).await;
    for arguments in [&["call", "pods", "wrok"][..], &["call", "pods", "wrok", "--spawn"]] {
        let (code, said) = agent.program(arguments).await;
        assert!(code == Some(4) && said.contains("app pods has no function wrok"), "{said}");
        assert!(said.contains("did you mean work?") && said.contains("it has: work"), "{said}");
    }
    for arguments in [&["call", "pdos", "work"][..], &["call", "pdos", "work", "--spawn"]] {
        let (code, said) = agent.program(arguments).await;
        assert!(code == Some(4) && said.contains("no app pdos") && said.contains("did you mean pods?"), "{said}");
    }
}
