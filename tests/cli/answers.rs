//! What the program makes of an agent's answers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::stand_in::{Answers, stand_in};
use super::{landfall, run};

fn accepted(changed: bool) -> String {
    let deployment = if changed { json!("7") } else { Value::Null };
    json!({"message": "shop: v4 is v2 again", "changed": changed, "app": "shop", "environment": "main",
           "version": 4, "deployment": deployment})
    .to_string()
}

/// A deployment of v4 in a phase; `more` replaces keys.
fn deployment(phase: &str, more: Value) -> Value {
    let mut deployment = json!({"id": "7", "app": "shop", "environment": "main", "version": 4, "kind": "rollback",
        "phase": phase, "outcome": null, "failure": null, "actor": "ada", "created_at": "2026-03-01T12:00:00Z",
        "live_at": null, "ended_at": null, "phases": [{"phase": "pending", "at": "2026-03-01T12:00:00Z"}],
        "progress": null, "urls": [], "objects": [{"object": "main", "kind": "web",
        "url": "http://shop.localhost:8080", "ready": 1, "wanted": 1}]});
    for (key, value) in more.as_object().unwrap() {
        deployment[key] = value.clone();
    }
    deployment
}

fn rollback(states: &[Value]) -> Answers {
    let events: String = states.iter().map(|state| format!("data: {state}\n\n")).collect();
    Answers::from([
        ("POST /v1/apps/shop/rollback", (200, "application/json", accepted(true))),
        ("GET /v1/deployments/7/events", (200, "text/event-stream", events)),
    ])
}

fn ask(answers: Answers, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path(), answers);
    let arguments: Vec<&str> = ["--agent", "agent.sock"].iter().chain(arguments).copied().collect();
    run(dir.path(), &arguments)
}

#[test]
fn a_rollback_is_followed_until_it_is_live() {
    let live = json!({"live_at": "2026-03-01T12:00:01.5Z"});
    let answers = rollback(&[deployment("starting", json!({})), deployment("baking", live)]);
    let (code, stdout, stderr) = ask(answers, &["app", "rollback", "shop", "v2"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("v4 is v2 again") && stdout.contains("Live after 1.5 s."), "{stdout}");
    assert!(stdout.contains("http://shop.localhost:8080"), "{stdout}");
    assert!(!stdout.contains('\x1b'), "a pipe gets no control characters: {stdout:?}");
}

#[test]
fn a_failed_deployment_ends_with_1_and_says_why() {
    let failed = json!({"outcome": "failed", "ended_at": "2026-03-01T12:00:02Z", "failure": {"code": "exited_early",
        "message": "main ended before it was ready; run it by hand", "phase": "starting", "object": "main",
        "exit": "exit code 1", "log_tail": ["Traceback"]}});
    let (code, stdout, _) = ask(rollback(&[deployment("done", failed)]), &["app", "rollback", "shop"]);
    assert_eq!(code, 1);
    for part in ["starting of main", "exit code 1", "Traceback", "run it by hand"] {
        assert!(stdout.contains(part), "{part} is missing: {stdout}");
    }
}

#[test]
fn a_deployment_that_takes_too_long_ends_the_wait_with_6_and_goes_on() {
    let answers = rollback(&[deployment("starting", json!({}))]);
    let (code, _, stderr) = ask(answers, &["app", "rollback", "shop", "--timeout", "300ms"]);
    assert_eq!(code, 6);
    assert!(stderr.contains("goes on"), "{stderr}");
}

#[test]
fn no_changes_is_success_and_nothing_is_followed() {
    let answers = Answers::from([("POST /v1/apps/shop/rollover", (200, "application/json", accepted(false)))]);
    assert_eq!(ask(answers, &["app", "rollover", "shop"]).0, 0);
}

#[test]
fn refusals_keep_their_words_and_get_their_exit_code() {
    for (status, code, exit) in [(404, "not_found", 4), (409, "conflict", 5), (403, "refused", 1)] {
        let problem = json!({"status": status, "code": code, "title": "shop was stopped by ada at 12:00",
                             "mend": "start it with `landfall deploy`"});
        let answer = (status, "application/problem+json", problem.to_string());
        let (got, _, stderr) =
            ask(Answers::from([("POST /v1/apps/shop/stop", answer)]), &["app", "stop", "shop", "-y"]);
        assert_eq!(got, exit, "{stderr}");
        assert!(stderr.contains("stopped by ada at 12:00") && stderr.contains("landfall deploy"), "{stderr}");
    }
}

#[test]
fn status_with_problems_shows_them_and_ends_with_1() {
    let process = json!({"pid": 10, "version": "0.1.0", "started_at": "2026-03-01T12:00:00Z"});
    let status = json!({"healthy": false, "problems": ["source fleet cannot be read; check the URL"],
        "processes": {"supervisor": process, "controller": process, "proxy": null}, "data_dir": "/data",
        "environment": "main", "listen": {"proxy": ["127.0.0.1:8080"], "api_socket": "/data/landfall.sock",
        "api": null, "domain": "localhost"}, "apps": {"deployed": 2}, "instances": 3, "sources": []});
    let answers = Answers::from([("GET /v1/status", (200, "application/json", status.to_string()))]);
    let (code, stdout, stderr) = ask(answers.clone(), &["status"]);
    assert_eq!(code, 1, "{stderr}");
    for part in ["supervisor", "restarting", "127.0.0.1:8080", "2 deployed", "check the URL"] {
        assert!(stdout.contains(part), "{part} is missing: {stdout}");
    }
    let (code, stdout, _) = ask(answers, &["status", "--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&stdout).unwrap()["instances"].clone()), (1, json!(3)));
}

#[test]
fn apps_are_listed_with_version_commit_and_url() {
    let app = json!({"app": "shop", "environment": "main", "state": "held", "message": "held at v2 by ada",
        "live_version": 4, "commit": "1a2b3c4d5e6f70819203a4b5c6d7e8f901234567", "instances": 2, "ready": 1,
        "urls": [{"object": "main", "url": "http://shop.localhost:8080"}], "source": "fleet", "path": "shop",
        "hold": null, "suspension": null, "stopped": null, "deployment": null, "manifest_error": null,
        "updated_at": "2026-03-01T12:00:00Z"});
    let answers = Answers::from([("GET /v1/apps", (200, "application/json", json!([app]).to_string()))]);
    let (code, stdout, stderr) = ask(answers, &["app", "list"]);
    assert_eq!(code, 0, "{stderr}");
    let row: Vec<&str> = stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["shop", "held", "v4", "1a2b3c4", "1/2", "http://shop.localhost:8080"]);
}

#[test]
fn ctrl_c_ends_the_watching_with_130_and_says_that_the_deployment_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path(), rollback(&[deployment("starting", json!({}))]));
    let mut child = landfall(dir.path(), &["--agent", "agent.sock", "app", "rollback", "shop"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let watching = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(watching.into_iter().any(|line| line.contains("pending")), "it never began to watch");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("deployment 7 goes on"), "{stderr}");
}
