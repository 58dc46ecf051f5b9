//! Calls that somebody waits for: seen, and ended, while they run.

use std::process::{Output, Stdio};
use std::time::Duration;

use landfall::client::CallsQuery;
use landfall::domain::{CallId, CallOutcome, CallState, Trigger};
use landfall::wire::call_views::CallView;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::support::asking::{command, name, refusal};
use crate::support::place::written;
use crate::support::{Agent, landfall, until};

/// An agent with a function that is a server for one call at a time, and one that is a process for each.
async fn agent() -> Agent {
    let mut agent = Agent::start().await;
    let server = command(&["calls", &agent.root.join("ran").display().to_string()]);
    let manifest = format!(
        "app: pods\nbake: 100ms\nfunctions:\n  work: {{command: {server}, mode: server}}\n  \
         slow: {{command: \"echo $$ > \\\"$PIDFILE\\\"; exec sleep 600\", mode: exec, timeout: 10m}}\n\
         env: {{PIDFILE: {}}}\n",
        agent.root.join("pid").display()
    );
    agent.repo.write("pods/landfall.yaml", manifest);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    agent
}

/// `landfall call`, under way.
struct Caller {
    call: CallId,
    over: JoinHandle<Output>,
}

impl Agent {
    fn landfall_with(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(landfall());
        command.arg("--agent").arg(self.root.join("agent.sock")).args(arguments).kill_on_drop(true);
        command
    }

    async fn calls_out(&self, arguments: &[&str]) -> Caller {
        let mut command = self.landfall_with(&["call", "pods"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Child = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let first = lines.next_line().await.expect("read").expect("a line");
        let call = first.strip_prefix("call ").expect("names the call").parse().expect("an identifier");
        let over = tokio::spawn(async move {
            let mut rest = String::new();
            while let Some(line) = lines.next_line().await.expect("read") {
                rest.push_str(&line);
                rest.push('\n');
            }
            let output = child.wait_with_output().await.expect("its end");
            Output { stderr: rest.into_bytes(), ..output }
        });
        Caller { call, over }
    }

    async fn calls_that_run(&self) -> Vec<CallView> {
        let query = CallsQuery { app: Some(name("pods")), state: Some(CallState::Running), ..CallsQuery::default() };
        self.client.calls(None, &query).await.expect("listed")
    }

    /// The call once it is on an instance.
    async fn call_on_instance(&self, call: CallId) -> CallView {
        until(&format!("{call} runs"), || async {
            let all = self.calls_that_run().await;
            let on = |one: &&CallView| {
                one.call == call && one.progress.as_ref().is_some_and(|progress| progress.instance.is_some())
            };
            all.iter().find(on).cloned().ok_or_else(|| format!("{all:?}"))
        })
        .await
    }

    /// How a call ended; its record follows its end by a moment.
    async fn over_for(&self, call: CallId) -> CallView {
        let shown = self.client.call_record(call, Duration::from_secs(20)).await.expect("known");
        assert_eq!(shown.call.state, CallState::Done, "{shown:?}");
        shown.call
    }

    async fn work_works(&self) {
        let output = self.landfall_with(&["call", "-q", "pods", "work", "1"]).output().await.expect("runs");
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_somebody_waits_for_is_shown_while_it_runs_and_ends_when_it_is_cancelled() {
    let agent = agent().await;
    let caller = agent.calls_out(&["slow"]).await;
    let shown = agent.call_on_instance(caller.call).await;
    assert_eq!((shown.trigger, shown.state, shown.outcome), (Trigger::Call, CallState::Running, None));
    let output = agent.landfall_with(&["calls", "list", "pods"]).output().await.expect("runs");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.contains(&caller.call.to_string()) && listed.contains("running"), "{listed}");
    assert!(listed.contains(" in line") && listed.contains("pods-slow-v1-"), "{listed}");
    let detail = agent.client.call_record(caller.call, Duration::ZERO).await.expect("known");
    assert!(detail.tries.len() == 1 && detail.tries[0].end.is_none(), "{detail:?}");
    assert_eq!(refusal(agent.client.call_result(caller.call).await).status, 409);
    let pid = until("the process has begun", || async {
        let text = std::fs::read_to_string(agent.root.join("pid")).map_err(|error| error.to_string())?;
        text.trim().parse::<i32>().map_err(|error| error.to_string())
    });
    let pid = nix::unistd::Pid::from_raw(pid.await);

    let output = agent.landfall_with(&["calls", "cancel", &caller.call.to_string()]).output().await.expect("runs");
    assert!(output.status.success(), "{output:?}");
    let over = caller.over.await.expect("its end");
    let said = String::from_utf8_lossy(&over.stderr).into_owned();
    assert!(over.status.code() == Some(5) && said.contains("somebody ended the call"), "{:?} {said}", over.status);
    let ended = agent.over_for(caller.call).await;
    assert_eq!(ended.outcome, Some(CallOutcome::Cancelled), "{ended:?}");
    let error = ended.error.expect("why");
    assert!(error.kind == "call_cancelled" && error.message.ends_with("ended the call"), "{error:?}");
    // As for a call that was spawned: its process is ended, and the instance goes on.
    until("the process is gone", || async {
        nix::sys::signal::kill(pid, None).err().map(|_| ()).ok_or_else(|| "it is there".to_owned())
    })
    .await;
    assert!(agent.calls_that_run().await.is_empty());
    assert_eq!(refusal(agent.client.cancel_call(caller.call).await).status, 409);
    let unknown = "00000000000000000000000000".parse().expect("an identifier");
    assert_eq!(refusal(agent.client.cancel_call(unknown).await).status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_line_can_be_ended_and_the_one_before_it_goes_on() {
    let agent = agent().await;
    let first = agent.calls_out(&["work", "wait 3000", "--type", "text/plain"]).await;
    agent.call_on_instance(first.call).await;
    let second = agent.calls_out(&["work", "wait 3000", "--type", "text/plain"]).await;
    let waiting = until("the second is in line", || async {
        let all = agent.calls_that_run().await;
        all.iter().find(|one| one.call == second.call).cloned().ok_or_else(|| format!("{all:?}"))
    })
    .await;
    let progress = waiting.progress.expect("how far it is");
    assert_eq!((progress.instance, progress.times.running_us), (None, 0));
    agent.client.cancel_call(second.call).await.expect("cancelled");
    assert_eq!(second.over.await.expect("its end").status.code(), Some(5));
    assert_eq!(agent.over_for(second.call).await.outcome, Some(CallOutcome::Cancelled));
    let over = first.over.await.expect("its end");
    assert!(over.status.success() && over.stdout.starts_with(b"wait 3000"), "{over:?}");
    let ran = written(&agent.root, "pods", "ran");
    assert!(!ran.contains(&second.call.to_string()), "{ran}");
    agent.work_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_has_just_begun_knows_the_calls_that_run_and_ends_them() {
    let agent = agent().await;
    let caller = agent.calls_out(&["--type", "text/plain", "slow"]).await;
    agent.call_on_instance(caller.call).await;
    // The caller's own connection is the controller's; its call goes on without it.
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    assert!(!caller.over.await.expect("its end").status.success());
    agent.call_on_instance(caller.call).await;
    let cancelled = agent.client.cancel_call(caller.call).await.expect("cancelled");
    assert!(cancelled.cancelled_by.is_some() || cancelled.outcome.is_some(), "{cancelled:?}");
    assert_eq!(agent.over_for(caller.call).await.outcome, Some(CallOutcome::Cancelled));
    assert!(agent.calls_that_run().await.is_empty());
}

const APP: &str = r#"
import json, os, urllib.error, urllib.request

def ask(path, body=None):
    headers = {"Authorization": "Bearer " + os.environ["LANDFALL_TOKEN"], "Content-Type": "application/json"}
    data = None if body is None else body.encode()
    request = urllib.request.Request(os.environ["LANDFALL_URL"] + path, data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_own_calls_are_shown_and_ended_also_with_its_token() {
    if !crate::functions::has("python3") {
        return;
    }
    let mut agent = Agent::start().await;
    let manifest = "app: pods\nbake: 100ms\nfunctions:\n  ask: {handler: app.py:ask, instances: 2}\n  \
                    slow: {command: \"exec sleep 600\", mode: exec, timeout: 10m}\n";
    agent.repo.write("pods/landfall.yaml", manifest).write("pods/app.py", APP);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    let outer = agent.calls_out(&["ask", r#"["/v1/apps/pods/functions/slow/call", ""]"#]).await;
    let inner = until("the app's call runs", || async {
        let all = agent.calls_that_run().await;
        let found = all.iter().find(|one| one.function.as_str() == "slow");
        found.cloned().ok_or_else(|| format!("{all:?}"))
    })
    .await;
    assert_eq!(inner.actor, "app main/pods v1");
    let path = format!(r#"["/v1/calls/{}/cancel", "{{}}"]"#, inner.call);
    let output = agent.landfall_with(&["call", "-q", "pods", "ask", &path]).output().await.expect("runs");
    let answer: (u16, String) = serde_json::from_slice(&output.stdout).expect("two values");
    assert_eq!(answer.0, 200, "{answer:?}");
    let over = outer.over.await.expect("its end");
    let answer: (u16, String) = serde_json::from_slice(&over.stdout).expect("two values");
    assert!(answer.0 == 409 && answer.1.contains("call_cancelled"), "{answer:?}");
    assert_eq!(agent.over_for(inner.call).await.outcome, Some(CallOutcome::Cancelled));
    assert_eq!(agent.over_for(outer.call).await.outcome, Some(CallOutcome::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_misspells_a_name_is_told_which_was_meant() {
    if !crate::functions::has("python3") {
        return;
    }
    let mut agent = Agent::start().await;
    let manifest =
        "app: pods\nbake: 100ms\nfunctions:\n  ask: {handler: app.py:ask}\n  slow: {command: \"true\", mode: exec}\n";
    agent.repo.write("pods/landfall.yaml", manifest).write("pods/app.py", APP);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    for (path, meant) in
        [("pods/functions/slwo", "did you mean `slow`?"), ("pdos/functions/slow", "did you mean `pods`?")]
    {
        let body = format!(r#"["/v1/apps/{path}/call", ""]"#);
        let output = agent.landfall_with(&["call", "-q", "pods", "ask", &body]).output().await.expect("runs");
        let (status, said): (u16, String) = serde_json::from_slice(&output.stdout).expect("two values");
        assert!(status == 404 && said.contains(meant), "{status} {said}");
    }
}
