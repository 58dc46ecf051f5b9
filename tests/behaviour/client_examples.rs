//! The examples of the client library, as somebody would run them, against a real agent.

use std::process::Command;

use crate::support::{Agent, example};

/// Runs an example against an agent; answers what it printed.
fn run(agent: &Agent, name: &str, words: &[&str]) -> String {
    let program = example(name, &format!("examples/{name}.rs"));
    let output = Command::new(program).arg(agent.root.join("agent.sock")).args(words).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}\n{said}", output.status);
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_deployed_and_functions_are_called_with_typed_values() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3 here");
        return;
    }
    let agent = Agent::start().await;
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions");
    let said = run(&agent, "client_deploy", &[app]);
    assert!(said.contains("v1 baking") && said.contains("v1 done"), "{said}");
    agent.until_live("functions", 1).await;
    let said = run(&agent, "client_call", &["functions", "Ada", "Grace"]);
    for (line, times) in
        [("called: {\"text\":\"Hello, Ada!\"", 1), ("spawned: {\"text\":\"Hello, Grace!\"", 1), ("mapped ", 2)]
    {
        assert_eq!(said.matches(line).count(), times, "{line}\n{said}");
    }
    let position = |line: &str| said.find(line).unwrap_or_else(|| panic!("{line} is missing in\n{said}"));
    assert!(position("mapped 0: ") < position("mapped 1: "), "in the order of the arguments: {said}");
}
