//! Spawned calls: on record before their identifier is told, carried out whatever dies, with one outcome each.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use landfall::client::{CallBody, CallsQuery};
use landfall::domain::{AttemptOutcome, CallId, CallOutcome, CallState, Trigger};
use landfall::wire::call_views::{CallDetail, CallView, Mapped};
use nix::sys::signal::Signal;

use crate::support::asking::{function, name, refusal};
use crate::support::place::written;
use crate::support::{Agent, instance_processes, landfall, number_from, send_signal, until};

/// An app with a function that is a fast server, and one that is tried three times.
async fn with_calls(options: &str) -> Agent {
    let mut agent = Agent::start().await;
    agent
        .deploy_functions(&[
            &format!("work: {{command: SERVER, mode: server, {options}}}"),
            "tried: {command: SERVER, mode: server, retries: {max: 2, delay: 10ms}}",
            "say: {command: \"echo heard >&2; cat\", mode: exec, instances: {min: 0, max: 1}}",
        ])
        .await;
    agent
}

impl Agent {
    async fn spawn(&self, name_of: &str, body: &str) -> CallId {
        let (app, function) = (name("pods"), function(name_of));
        let spawned = self.client.spawn(None, &app, &function, None, CallBody::bytes(body), None);
        let spawned = spawned.await.expect("spawned");
        assert!(spawned.new);
        spawned.call
    }

    /// Waits until a call is done.
    async fn done(&self, call: CallId) -> CallDetail {
        until(&format!("{call} is done"), || async {
            let shown =
                self.client.call_record(call, Duration::from_secs(1)).await.map_err(|error| error.to_string())?;
            if shown.call.state == CallState::Done { Ok(shown) } else { Err(format!("{shown:?}")) }
        })
        .await
    }

    async fn result(&self, call: CallId) -> Vec<u8> {
        self.client.call_result(call).await.expect("a result").bytes
    }

    async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(landfall());
        command.arg("--agent").arg(self.root.join("agent.sock")).args(arguments);
        command.output().await.expect("the program runs")
    }

    /// How often the function ran for each attempt, by its own account.
    fn ran(&self) -> BTreeMap<(CallId, u32), u32> {
        let text = written(&self.root, "pods", "ran");
        let mut ran = BTreeMap::new();
        for line in text.lines() {
            let (call, attempt) = line.split_once(' ').expect("two words");
            *ran.entry((call.parse().expect("a call"), attempt.parse().expect("a number"))).or_default() += 1;
        }
        ran
    }
}

fn outcomes(shown: &CallDetail) -> Vec<AttemptOutcome> {
    shown.tries.iter().map(|attempt| attempt.end.as_ref().expect("it has ended").outcome).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_call_runs_and_its_result_is_kept() {
    let agent = with_calls("instances: 1").await;
    let spawned = agent.command(&["call", "pods", "work", r#"{"n": 1}"#, "--spawn"]).await;
    assert!(spawned.status.success(), "{spawned:?}");
    let call: CallId = text(&spawned).parse().expect("the identifier and nothing else");
    let shown = agent.done(call).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Succeeded));
    assert_eq!(outcomes(&shown), [AttemptOutcome::Succeeded]);
    let end = shown.tries[0].end.as_ref().expect("an end");
    assert_eq!(end.version.map(|version| version.get()), Some(1));
    assert!(end.instance.as_ref().is_some_and(|instance| instance.as_str().starts_with("pods-work-v1-")));
    assert_eq!(text(&agent.command(&["calls", "result", &call.to_string(), "--wait"]).await), r#"{"n": 1}"#);
    let listed: Vec<CallView> =
        serde_json::from_str(&text(&agent.command(&["calls", "list", "pods", "--json"]).await)).expect("JSON");
    assert_eq!(listed.iter().map(|call| call.call).collect::<Vec<_>>(), [call]);
    let words = text(&agent.command(&["calls", "show", &call.to_string()]).await);
    assert!(words.contains("succeeded on v1, pods-work-v1-"), "{words}");

    let said = agent.spawn("say", "1").await;
    assert_eq!(agent.done(said).await.call.outcome, Some(CallOutcome::Succeeded));
    until("what it wrote is in its log", || async {
        let logs = text(&agent.command(&["calls", "logs", &said.to_string()]).await);
        if logs == "heard" { Ok(()) } else { Err(logs) }
    })
    .await;

    let unknown = agent.command(&["calls", "show", "00000000000000000000000000"]).await;
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
    let nowhere = agent.command(&["call", "pods", "wrok", "--spawn"]).await;
    assert_eq!(nowhere.status.code(), Some(4), "{nowhere:?}");
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("it has: say, tried, work"), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_is_tried_as_often_as_asked_for_and_redriven_by_a_person() {
    let agent = with_calls("instances: 1").await;
    let recovers = agent.spawn("tried", "fail 2").await;
    let shown = agent.done(recovers).await;
    assert_eq!(outcomes(&shown), [AttemptOutcome::Failed, AttemptOutcome::Failed, AttemptOutcome::Succeeded]);
    let fails = agent.spawn("tried", "fail 3").await;
    let shown = agent.done(fails).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Failed));
    assert_eq!(outcomes(&shown), [AttemptOutcome::Failed; 3]);
    let error = shown.call.error.expect("a reason").to_string();
    assert_eq!(error, "http: it answered 500: as it was asked to");
    let problem = refusal(agent.client.call_result(fails).await);
    assert!(problem.status == 422 && problem.title.contains("as it was asked to"), "{problem:?}");

    let dead = CallsQuery { dead: true, ..CallsQuery::default() };
    let listed = agent.client.calls(None, &dead).await.expect("listed");
    assert_eq!(listed.iter().map(|call| call.call).collect::<Vec<_>>(), [fails]);
    let redriven = agent.command(&["calls", "redrive", "--dead", "--json"]).await;
    assert!(redriven.status.success(), "{redriven:?}");
    assert!(agent.client.calls(None, &dead).await.expect("listed").iter().all(|call| call.call != fails));
    let anew = agent.client.call_record(fails, Duration::ZERO).await.expect("shown").call.redriven_as.expect("a call");
    assert_eq!(agent.client.redrive_call(fails).await.expect("known").call, anew, "once is enough");
    assert_eq!(agent.done(anew).await.call.redrive_of, Some(fails));
    assert_eq!(refusal(agent.client.redrive_call(recovers).await).status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_and_calls_that_run_can_be_cancelled() {
    let agent = with_calls("instances: 1, concurrency: 1").await;
    let running = agent.spawn("work", "wait 20000").await;
    until("it runs", || async {
        let ran = agent.ran();
        if ran.contains_key(&(running, 1)) { Ok(()) } else { Err(format!("{ran:?}")) }
    })
    .await;
    let waiting: Vec<CallId> = {
        let mut calls = Vec::new();
        for _ in 0..20 {
            calls.push(agent.spawn("work", "x").await);
        }
        calls
    };
    for call in waiting.iter().chain([&running]) {
        agent.client.cancel_call(*call).await.expect("cancelled");
    }
    for call in waiting.iter().chain([&running]) {
        let shown = agent.done(*call).await;
        assert_eq!(shown.call.outcome, Some(CallOutcome::Cancelled), "{shown:?}");
        assert!(shown.call.cancelled_by.is_some());
    }
    assert_eq!(refusal(agent.client.cancel_call(running).await).status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_one_call_however_often_it_is_sent() {
    let agent = with_calls("instances: 1").await;
    let send = async |body: &str| {
        let (app, work) = (name("pods"), function("work"));
        agent.client.spawn(None, &app, &work, None, CallBody::bytes(body), Some("order-7")).await
    };
    let first = send("a").await.expect("spawned");
    let again = send("a").await.expect("known");
    assert!(first.new && !again.new && first.call == again.call);
    assert_eq!(refusal(send("b").await).status, 409);
    agent.done(first.call).await;
    assert_eq!(send("a").await.expect("known").call, first.call);
    assert_eq!(agent.ran().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_bodies_and_results_lie_in_files_and_survive_a_restart() {
    let mut agent = with_calls("instances: 1").await;
    let body = "y".repeat(2 * 1024 * 1024);
    let (echoed, made) = (agent.spawn("work", &body).await, agent.spawn("work", "long 300000").await);
    agent.done(echoed).await;
    agent.done(made).await;
    agent.stop();
    agent.launch();
    agent.until_up().await;
    assert!(agent.result(echoed).await == body.as_bytes(), "it is the body");
    assert!(agent.result(made).await == vec![b'x'; 300_000], "all of it");
    let files = std::fs::read_dir(agent.root.join("data/calls")).expect("the directory").count();
    assert_eq!(files, 3, "a body and two results");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_ends_under_a_call_costs_it_no_retry_unless_it_happens_again_and_again() {
    let agent = with_calls("instances: 1").await;
    let unlucky = agent.spawn("work", "die 1").await;
    let shown = agent.done(unlucky).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Succeeded));
    let ends = outcomes(&shown);
    assert_eq!((ends.first(), ends.last()), (Some(&AttemptOutcome::Crashed), Some(&AttemptOutcome::Succeeded)));
    let deadly = agent.spawn("work", "die 1000").await;
    let shown = agent.done(deadly).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Failed));
    let crashes = outcomes(&shown).iter().filter(|outcome| **outcome == AttemptOutcome::Crashed).count();
    assert_eq!(crashes, 3, "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_neither_loses_nor_repeats_what_runs() {
    let agent = with_calls("instances: 1, concurrency: 8").await;
    let calls = [agent.spawn("work", "wait 1500").await, agent.spawn("work", "wait 1500").await];
    until("both run", || async { if agent.ran().len() == 2 { Ok(()) } else { Err(format!("{:?}", agent.ran())) } })
        .await;
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    for call in calls {
        let shown = agent.done(call).await;
        assert_eq!(outcomes(&shown), [AttemptOutcome::Succeeded], "{shown:?}");
    }
    assert!(agent.ran().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bodies_are_mapped_in_order_or_as_they_are_done() {
    let agent = with_calls("instances: 2, concurrency: 8").await;
    let bodies: String = (0..100).map(|number| format!("{{\"n\": {number}}}\n")).collect();
    let ordered = agent.map("?order=input&in_flight=16", &bodies).await;
    let results: Vec<u64> = ordered
        .iter()
        .map(|one| one.result.as_ref().and_then(|result| result["n"].as_u64()).expect("a number"))
        .collect();
    assert_eq!(results, (0..100).collect::<Vec<_>>());
    let mut any: Vec<u64> = agent.map("?order=completed", &bodies).await.iter().map(|one| one.index).collect();
    any.sort_unstable();
    assert_eq!(any, (0..100).collect::<Vec<_>>());
    let broken = agent.map("", "{\"n\": 1}\nnot json\n").await;
    assert!(broken[1].call.is_none() && broken[1].error.as_ref().is_some_and(|error| error.message.contains("JSON")));
}

impl Agent {
    async fn map(&self, query: &str, bodies: &str) -> Vec<Mapped> {
        let socket = self.root.join("agent.sock");
        let http = reqwest::Client::builder().unix_socket(socket.as_path()).build().expect("a client");
        let url = format!("http://localhost/v1/apps/pods/functions/work/map{query}");
        let answer = http.post(url).body(bodies.to_owned()).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("the answer");
        text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_somebody_waited_for_are_on_record_too() {
    let mut agent = with_calls("instances: 1, concurrency: 8").await;
    let (app, work, tried) = (name("pods"), function("work"), function("tried"));
    let mut made = Vec::new();
    for (function, body) in [(&work, "a"), (&tried, "fail 9")] {
        let mut answer =
            agent.client.call_function(None, &app, function, None, CallBody::bytes(body)).await.expect("an answer");
        answer.whole().await.expect("all of it");
        made.push(answer.call.expect("a call"));
    }
    let listed = async || {
        let query = CallsQuery { app: Some(name("pods")), ..CallsQuery::default() };
        agent.client.calls(None, &query).await.map_err(|error| error.to_string())
    };
    let calls = until("both are on record", async || {
        let calls = listed().await?;
        if calls.len() == 2 { Ok(calls) } else { Err(format!("{calls:?}")) }
    })
    .await;
    assert_eq!(calls.iter().map(|call| call.call).collect::<Vec<_>>(), [made[1], made[0]], "newest first");
    let outcomes_of: Vec<_> = calls.iter().map(|call| call.outcome).collect();
    assert_eq!(outcomes_of, [Some(CallOutcome::Failed), Some(CallOutcome::Succeeded)]);
    assert!(calls.iter().all(|call| call.trigger == Trigger::Call && !call.actor.is_empty()), "{calls:?}");

    agent.stop();
    agent.launch();
    agent.until_up().await;
    let shown = agent.client.call_record(made[0], Duration::ZERO).await.expect("shown");
    let end = shown.tries[0].end.as_ref().expect("an end");
    assert_eq!(end.version.map(|version| version.get()), Some(1));
    assert!(end.instance.as_ref().is_some_and(|instance| instance.as_str().starts_with("pods-work-v1-")));
    assert_eq!(refusal(agent.client.redrive_call(made[1]).await).status, 409);
    assert!(refusal(agent.client.call_result(made[0]).await).title.contains("it is not kept"));
}

/// Calls spawned while everything is killed; `LANDFALL_TEST_SPAWNS` for more.
const SPAWNS: u32 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn every_spawned_call_has_one_outcome_whatever_is_killed() {
    let spawns = number_from("LANDFALL_TEST_SPAWNS", SPAWNS);
    let agent = with_calls("instances: {min: 2, max: 4}, concurrency: 8, retries: {max: 1, delay: 20ms}").await;
    let killing = async {
        let mut random = fastrand::Rng::with_seed(7);
        // More in one life of an agent, and the supervisor's growing pauses are all that is tested.
        for _ in 0..9 {
            match random.u8(0..3) {
                0 => {
                    let controller = agent.kill_controller().await;
                    agent.until_new_controller(controller).await;
                }
                1 => {
                    let proxy = agent.proxy_pid().await;
                    send_signal(proxy, Signal::SIGKILL);
                    agent.until_new_proxy(proxy).await;
                }
                _ => {
                    let workers: Vec<i32> = instance_processes(&agent.root).into_iter().collect();
                    if let Some(worker) = random.choice(&workers) {
                        send_signal(*worker, Signal::SIGKILL);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await;
        }
    };
    let spawning = async {
        let mut calls = Vec::new();
        for number in 0..spawns {
            let body = format!("wait {}", number % 20);
            // One that was killed answers nobody; with its key the call is sent again, and made once.
            let key = format!("call-{number}");
            let call = until("it is spawned", || async {
                let (app, work, body) = (name("pods"), function("work"), CallBody::bytes(body.as_str()));
                let spawned = agent.client.spawn(None, &app, &work, None, body, Some(&key)).await;
                spawned.map(|spawned| spawned.call).map_err(|error| error.to_string())
            })
            .await;
            calls.push(call);
        }
        calls
    };
    let (calls, ()) = tokio::join!(spawning, killing);
    let distinct: std::collections::BTreeSet<&CallId> = calls.iter().collect();
    assert_eq!(distinct.len(), calls.len(), "each key made a call of its own");
    let mut told = BTreeMap::new();
    for call in &calls {
        let shown = agent.done(*call).await;
        let numbers: Vec<u32> = shown.tries.iter().map(|attempt| attempt.attempt).collect();
        assert_eq!(numbers, (1..=shown.call.attempts).collect::<Vec<_>>());
        let ends = outcomes(&shown);
        match shown.call.outcome.expect("an outcome") {
            CallOutcome::Succeeded => assert_eq!(ends.last(), Some(&AttemptOutcome::Succeeded), "{shown:?}"),
            // Each time an instance was killed under it.
            CallOutcome::Failed => {
                assert!(ends.iter().filter(|end| **end == AttemptOutcome::Crashed).count() >= 4, "{shown:?}")
            }
            other => panic!("{call} is {other}: {shown:?}"),
        }
        told.extend(shown.tries.iter().map(|attempt| ((*call, attempt.attempt), attempt.end.clone())));
    }
    let ran = agent.ran();
    for ((call, attempt), times) in &ran {
        assert!(told.contains_key(&(*call, *attempt)), "{call} attempt {attempt} ran and is not on record");
        assert_eq!(*times, 1, "{call} attempt {attempt} ran more than once");
    }
    for ((call, attempt), end) in &told {
        let succeeded = end.as_ref().is_some_and(|end| end.outcome == AttemptOutcome::Succeeded);
        assert!(!succeeded || ran.contains_key(&(*call, *attempt)), "{call} attempt {attempt} never ran");
    }
    let queued = CallsQuery { state: Some(CallState::Queued), ..CallsQuery::default() };
    assert!(agent.client.calls(None, &queued).await.expect("listed").is_empty());
}
