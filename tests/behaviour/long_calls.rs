//! Calls that last longer than callers are kept waiting, and what apps ask of the agent besides calls.

use std::time::{Duration, Instant};

use landfall::client::{CallBody, CallsQuery};
use landfall::domain::{AttemptOutcome, CallId, CallOutcome, CallState, Trigger};
use landfall::wire::call_views::CallDetail;

use crate::support::asking::{command, name, refusal};
use crate::support::place::written;
use crate::support::{Agent, Setup, landfall, until};

/// An agent that keeps callers waiting for a second, with a function that is a server and one that fails after two.
async fn impatient() -> Agent {
    let mut setup = Setup::new();
    setup.environment = vec![("LANDFALL_PROXY__CALL_WAIT".to_owned(), "1s".to_owned())];
    let mut agent = setup.start().await;
    let server = command(&["calls", &agent.root.join("ran").display().to_string()]);
    let manifest = format!(
        "app: pods\nbake: 100ms\nfunctions:\n  work: {{command: {server}, mode: server, concurrency: 8}}\n  \
         late: {{command: \"sleep 2; echo no such pod >&2; exit 3\", mode: exec}}\n  \
         slow: {{command: \"sleep 60\", mode: exec, timeout: 3s}}\n"
    );
    agent.repo.write("pods/landfall.yaml", manifest);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    agent
}

impl Agent {
    /// The agent's socket, without following anything.
    fn plain(&self) -> reqwest::Client {
        let socket = self.root.join("agent.sock");
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        builder.unix_socket(socket.as_path()).build().expect("a client")
    }

    async fn called_plainly(&self, body: &str) -> (CallId, String) {
        let url = "http://localhost/v1/apps/pods/functions/work/call";
        let answer = self.plain().post(url).body(body.to_owned()).send().await.expect("an answer");
        assert_eq!(answer.status(), 303);
        let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        (header("landfall-call").parse().expect("an identifier"), header("location"))
    }

    fn times_run(&self, call: CallId) -> usize {
        let ran = written(&self.root, "pods", "ran");
        ran.lines().filter(|line| line.starts_with(&call.to_string())).count()
    }

    async fn over(&self, call: CallId) -> CallDetail {
        until(&format!("{call} is done"), || async {
            let shown = self.client.call_record(call, Duration::from_secs(1)).await;
            let shown = shown.map_err(|error| error.to_string())?;
            if shown.call.state == CallState::Done { Ok(shown) } else { Err(format!("{shown:?}")) }
        })
        .await
    }

    async fn landfall(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = tokio::process::Command::new(landfall());
        command.arg("--agent").arg(self.root.join("agent.sock")).args(arguments);
        command.output().await.expect("the program runs")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_has_waited_long_enough_is_told_where_the_result_will_be() {
    let agent = impatient().await;
    let (call, place) = agent.called_plainly("wait 2500").await;
    assert_eq!(place, format!("/v1/calls/{call}/result?wait=120&follow=true"));
    let shown = agent.client.call_record(call, Duration::ZERO).await.expect("on record before the answer");
    assert_eq!((shown.call.state, shown.call.trigger), (CallState::Running, Trigger::Call));
    // Asked too early, it leads to itself.
    let early = agent.plain().get(format!("http://localhost/v1/calls/{call}/result?wait=1&follow=true"));
    let early = early.send().await.expect("an answer");
    if early.status() == 303 {
        assert_eq!(early.headers()["location"], format!("/v1/calls/{call}/result?wait=1&follow=true").as_str());
    }
    let answer = agent.plain().get(format!("http://localhost{place}")).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.text().await.expect("text")), (200, "wait 2500".to_owned()));
    let shown = agent.over(call).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Succeeded));
    let end = shown.tries[0].end.as_ref().expect("an end");
    assert!(end.instance.as_ref().is_some_and(|instance| instance.as_str().starts_with("pods-work-v1-")), "{end:?}");
    assert!(end.times.running_us > 2_400_000, "{end:?}");
    assert_eq!((agent.times_run(call), shown.tries.len()), (1, 1));
    assert_eq!(refusal(agent.client.redrive_call(call).await).status, 409);
    let query = CallsQuery { app: Some(name("pods")), ..CallsQuery::default() };
    let listed = agent.client.calls(None, &query).await.expect("listed");
    assert_eq!(listed.iter().filter(|one| one.call == call).count(), 1, "one record: {listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_uses_the_program_notices_nothing_of_it() {
    let agent = impatient().await;
    let output = agent.landfall(&["call", "pods", "work", "wait 2000", "--type", "text/plain"]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "wait 2000");
    let output = agent.landfall(&["call", "pods", "late"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("exit code 3") && said.contains("no such pod"), "{said}");
    let output = agent.landfall(&["call", "pods", "slow"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(6) && said.contains("timeout"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_goes_on_survives_the_controller_and_not_its_proxy() {
    let agent = impatient().await;
    let (call, _) = agent.called_plainly("wait 4000").await;
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    let shown = agent.over(call).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Succeeded), "{shown:?}");
    assert_eq!(agent.client.call_result(call).await.expect("a result").bytes, b"wait 4000");

    let (call, _) = agent.called_plainly("wait 30000").await;
    let proxy = agent.proxy_pid().await;
    crate::support::send_signal(proxy, nix::sys::signal::Signal::SIGKILL);
    let shown = agent.over(call).await;
    let outcomes: Vec<_> = shown.tries.iter().map(|one| one.end.as_ref().expect("an end").outcome).collect();
    assert_eq!((shown.call.outcome, outcomes.as_slice()), (Some(CallOutcome::Failed), &[AttemptOutcome::Lost][..]));
    assert!(shown.call.error.expect("why").message.contains("not tried again"));
    assert_eq!(agent.times_run(call), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_goes_on_can_be_cancelled() {
    let agent = impatient().await;
    let began = Instant::now();
    let (call, _) = agent.called_plainly("wait 30000").await;
    let output = agent.landfall(&["calls", "cancel", &call.to_string()]).await;
    assert!(output.status.success(), "{output:?}");
    let shown = agent.over(call).await;
    assert_eq!(shown.call.outcome, Some(CallOutcome::Cancelled), "{shown:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "it did not wait for the function");
}

const APP: &str = r#"
import json, os, urllib.error, urllib.request

def version():
    return int(os.environ["LANDFALL_VERSION"])

def ask(path, body=None, method=None):
    headers = {"Authorization": "Bearer " + os.environ["LANDFALL_TOKEN"], "Content-Type": "application/json"}
    data = None if body is None else body.encode()
    request = urllib.request.Request(os.environ["LANDFALL_URL"] + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]

def inner():
    return json.loads(ask("/v1/apps/pods/functions/version/call", "[]")[1])

def later():
    call = json.loads(ask("/v1/apps/pods/functions/version/spawn", "[]")[1])["call"]
    return json.loads(ask(f"/v1/calls/{call}/result?wait=60")[1])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn apps_spawn_and_follow_calls_with_the_token_they_were_given() {
    if !crate::functions::has("python3") {
        return;
    }
    let mut agent = Agent::start().await;
    let functions = "app: pods\nbake: 100ms\nfunctions:\n  version: {handler: app.py:version}\n  \
                     ask: {handler: app.py:ask}\n  inner: {handler: app.py:inner}\n  later: {handler: app.py:later}\n";
    agent.repo.write("pods/landfall.yaml", functions).write("pods/app.py", APP);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    let call = async |function: &str, version: Option<u32>, body: &str| {
        let version = version.map(crate::support::asking::number);
        let function = function.parse().expect("a name");
        let answer = agent.client.call_function(None, &name("pods"), &function, version, CallBody::json(body)).await;
        String::from_utf8(answer.expect("an answer").whole().await.expect("a body")).expect("text")
    };
    let ask = async |path: &str, body: Option<&str>| -> (u16, String) {
        let body = serde_json::to_string(&(path, body)).expect("JSON");
        serde_json::from_str(&call("ask", None, &body).await).expect("two values")
    };
    let (status, spawned) = ask("/v1/apps/pods/functions/version/spawn", Some("[]")).await;
    assert_eq!(status, 202, "{spawned}");
    let spawned: serde_json::Value = serde_json::from_str(&spawned).expect("JSON");
    let id = spawned["call"].as_str().expect("an identifier").to_owned();
    assert_eq!(ask(&format!("/v1/calls/{id}/result?wait=60"), None).await, (200, "1".to_owned()));
    let (status, shown) = ask(&format!("/v1/calls/{id}"), None).await;
    assert!(status == 200 && shown.contains("\"actor\":\"app main/pods v1\""), "{shown}");
    let (status, mapped) = ask("/v1/apps/pods/functions/version/map", Some("[]\n[]\n")).await;
    assert!(status == 200 && mapped.lines().count() == 2 && mapped.contains("\"result\":1"), "{mapped}");
    assert_eq!(ask("/v1/apps/pods/functions/version/spawn?environment=other", Some("[]")).await.0, 400);
    assert_eq!(ask("/v1/apps/pods/functions/nothing/spawn", Some("[]")).await.0, 404);
    assert_eq!(ask("/v1/calls/00000000000000000000000000", None).await.0, 404);
    // The rest of the API is not for apps.
    for path in ["/v1/apps", "/v1/status", "/v1/calls", "/v1/apps/pods/stop"] {
        let (status, answer) = ask(path, None).await;
        assert!(matches!(status, 400 | 404 | 405), "{path}: {status} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_asked_for_by_number_is_kept_to_by_all_it_calls() {
    if !crate::functions::has("python3") {
        return;
    }
    let mut agent = Agent::start().await;
    let functions = "app: pods\nbake: 100ms\nfunctions:\n  version: {handler: app.py:version, instances: {min: 0, max: 1}}\n  \
                     inner: {handler: app.py:inner}\n  later: {handler: app.py:later}\n";
    agent.repo.write("pods/landfall.yaml", functions).write("pods/app.py", APP);
    agent.repo.push("one");
    agent.rest(&["pods"]).await;
    agent.repo.write("pods/more.txt", "two");
    agent.repo.push("two");
    agent.rest(&["pods"]).await;
    let call = async |function: &str, version: Option<u32>| {
        let version = version.map(crate::support::asking::number);
        let function = function.parse().expect("a name");
        let answer = agent.client.call_function(None, &name("pods"), &function, version, CallBody::json("[]")).await;
        String::from_utf8(answer.expect("an answer").whole().await.expect("a body")).expect("text")
    };
    assert_eq!((call("inner", None).await, call("later", None).await), ("2".to_owned(), "2".to_owned()));
    assert_eq!((call("inner", Some(1)).await, call("later", Some(1)).await), ("1".to_owned(), "1".to_owned()));
    // The same for calls that are recorded first, also when they are tried anew.
    let (app, function, one) = (name("pods"), "version".parse().expect("a name"), crate::support::asking::number(1));
    let spawned = agent.client.spawn(None, &app, &function, Some(one), CallBody::json("[]"), None).await;
    let shown = agent.over(spawned.expect("spawned").call).await;
    assert_eq!((shown.call.outcome, shown.call.version), (Some(CallOutcome::Succeeded), Some(one)), "{shown:?}");
    assert_eq!(shown.tries[0].end.as_ref().and_then(|end| end.version), Some(one));
    let spawned = agent.client.spawn(None, &app, &function, Some(one), CallBody::json("[1, 2, 3]"), None).await;
    let failed = agent.over(spawned.expect("spawned").call).await.call;
    assert_eq!(failed.outcome, Some(CallOutcome::Failed));
    let anew = agent.client.redrive_call(failed.call).await.expect("redriven").call;
    assert_eq!(agent.over(anew).await.tries[0].end.as_ref().and_then(|end| end.version), Some(one));
    let unknown = crate::support::asking::number(9);
    let refused = agent.client.spawn(None, &app, &function, Some(unknown), CallBody::json("[]"), None).await;
    assert_eq!(refusal(refused).status, 404);
}
