//! `landfall doctor`: what it finds with an agent, without one, and where something is wrong.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Agent, landfall};

/// What it says as JSON, with its exit code.
fn examine(root: &Path) -> (i32, Value) {
    let output = Command::new(landfall())
        .args(["doctor", "--json", "--config"])
        .arg(root.join("landfall.yaml"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code().expect("a code"), report)
}

/// `level: message → mend` of all findings of a check.
fn of(report: &Value, check: &str) -> Vec<String> {
    let all = report["checks"].as_array().expect("checks").iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    all.filter(|finding| finding["check"] == check)
        .map(|one| format!("{}: {} → {}", text(one, "level"), text(one, "message"), text(one, "mend")))
        .collect()
}

fn only(report: &Value, check: &str, level: &str, parts: &[&str]) {
    let found = of(report, check);
    assert!(found.len() == 1 && found[0].starts_with(level), "{check}: {found:?} in {report}");
    assert!(parts.iter().all(|part| found[0].contains(part)), "{parts:?}: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_fit_agent_fit_and_says_what_is_wrong_with_others() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "one");
    agent.repo.push("one");
    agent.rest_of("shop").await;
    let (code, report) = examine(&agent.root);
    assert_eq!((code, &report["healthy"]), (0, &Value::Bool(true)), "{report}");
    only(&report, "configuration", "ok", &["landfall.yaml"]);
    only(&report, "agent", "ok", &["it runs", env!("CARGO_PKG_VERSION")]);
    only(&report, "clock", "ok", &["later than all"]);
    only(&report, "sockets", "ok", &["all answer"]);
    only(&report, "addresses", "ok", &["apps answer at"]);
    only(&report, "data", "ok", &[]);
    only(&report, "sources", "ok", &["can be read"]);
    for check in ["disk", "time zones", "control groups", "open files", "secrets key", "programs", "status"] {
        assert!(!of(&report, check).is_empty(), "{check}: {report}");
    }

    // A key that others may read, a source that is gone.
    let key = agent.root.join("data/run/token.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let repository = agent.repo.path().to_owned();
    let aside = repository.with_extension("aside");
    std::fs::rename(&repository, &aside).expect("moved");
    let _ = agent.client.sync(&"fleet".parse().expect("a name")).await;
    let (code, report) = examine(&agent.root);
    assert_eq!(code, 1, "{report}");
    only(&report, "data", "failure", &["token.key (mode 644)", "chmod go-rwx"]);
    only(&report, "sources", "failure", &["fleet", "landfall source show fleet"]);
    std::fs::rename(&aside, &repository).expect("moved back");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("changed");

    // Killed: the socket is left behind. Ended in order and its socket removed: nothing is wrong with what is here.
    let socket = agent.root.join("agent.sock");
    agent.stop();
    std::fs::remove_file(&socket).ok();
    let (code, report) = examine(&agent.root);
    assert_eq!(code, 0, "{report}");
    only(&report, "agent", "warning", &["none runs at"]);
    only(&report, "addresses", "ok", &["is free"]);
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let other = std::net::TcpListener::bind(agent.proxy).expect("the port of the proxy");
    let (code, report) = examine(&agent.root);
    assert_eq!(code, 1, "{report}");
    only(&report, "agent", "failure", &["none runs at"]);
    assert!(of(&report, "sockets").iter().any(|found| found.contains("left behind")), "{report}");
    only(&report, "addresses", "failure", &["another program listens"]);
    drop(other);

    // A configuration with an error is a finding, not the end.
    std::fs::write(agent.root.join("landfall.yaml"), "proxi: {}\n").expect("written");
    let (code, report) = examine(&agent.root);
    assert_eq!(code, 1);
    only(&report, "configuration", "failure", &["proxi", "landfall.yaml:1"]);
}
