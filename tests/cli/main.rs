//! The real program as people and scripts meet it, where no agent is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may end at the first thing that is not as it must be.

mod answers;
mod demo;
mod hanging_up;
mod init;
#[path = "../common/ports.rs"]
mod ports;
mod stand_in;

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program in a directory of its own, without anything of the environment that could find an agent.
fn landfall(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LANDFALL_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = landfall(directory, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn without_an_agent_every_question_ends_with_3_and_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["status"][..],
        &["app", "list", "--json"],
        &["app", "rollback", "shop", "v3"],
        &["app", "logs", "shop", "-f"],
        &["source", "sync"],
        &["instance", "list"],
        &["plan"],
        &["events"],
        &["--agent", "http://127.0.0.1:1", "status"],
    ] {
        let (code, stdout, stderr) = run(dir.path(), arguments);
        assert_eq!(code, 3, "{arguments:?}: {stderr}");
        assert!(stdout.is_empty(), "{arguments:?}: {stdout}");
        assert!(stderr.contains("no agent answers") && stderr.contains("--agent"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_place_of_the_agent_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, stderr) = run(dir.path(), &["status"]);
    assert!(stderr.contains("data/landfall.sock"), "{stderr}");
    let mut named = landfall(dir.path(), &["status"]);
    let output = named.env("LANDFALL_AGENT", "/nowhere/agent.sock").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/agent.sock"));
}

#[test]
fn wrong_arguments_end_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["no-such-command"][..], &["app", "rollback", "shop", "v0"], &["app", "show", "Shop"], &[]] {
        assert_eq!(run(dir.path(), arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn stop_without_a_terminal_refuses_and_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(dir.path(), &["app", "stop", "shop"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("landfall app stop shop -y"), "{stderr}");
}

#[test]
fn deploying_a_directory_without_a_sound_manifest_ends_with_2_before_an_agent_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(dir.path(), &["deploy", "."]);
    assert_eq!(code, 2);
    assert!(stderr.contains("landfall.yaml"), "{stderr}");
    std::fs::write(dir.path().join("landfall.yaml"), "app: shop\nweb: {main: {comand: [x]}}\n").unwrap();
    let (code, _, stderr) = run(dir.path(), &["deploy", "."]);
    assert_eq!(code, 2);
    assert!(stderr.contains("comand"), "{stderr}");
}

#[test]
fn check_says_ok_or_every_error_at_once_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (code, stdout, _) = run(dir.path(), &["check", examples.to_str().unwrap()]);
    assert_eq!((code, stdout.trim()), (0, "10 files: ok"));

    let bad = dir.path().join("landfall.yaml");
    std::fs::write(&bad, "app: Shop\nweb:\n  main: {comand: [x]}\n").unwrap();
    let (code, stdout, _) = run(dir.path(), &["check", "landfall.yaml"]);
    assert_eq!(code, 2);
    assert!(stdout.contains("landfall.yaml:1:6") && stdout.contains("did you mean `command`"), "{stdout}");

    let (code, stdout, _) = run(dir.path(), &["check", "--json", "landfall.yaml"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["ok"]), (2, &serde_json::json!(false)));
    assert!(report["errors"].as_array().unwrap().len() >= 2, "{stdout}");
}

#[test]
fn check_explains_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello/landfall.yaml");
    let (code, stdout, _) = run(dir.path(), &["check", "--explain", hello.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(stdout.contains("bake") && stdout.contains("30s"), "{stdout}");
}

#[test]
fn schemas_are_json_and_completions_name_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["manifest", "config"] {
        let (code, stdout, _) = run(dir.path(), &["schema", file]);
        let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(code, 0);
        assert!(schema["$schema"].is_string(), "{stdout}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = run(dir.path(), &["completions", shell]);
        assert_eq!(code, 0);
        assert!(stdout.contains("rollback"), "{shell}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(dir.path(), &["--help"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("Exit codes:") && stdout.contains("no agent answers"), "{stdout}");
}

#[test]
fn a_reader_that_leaves_ends_the_program_silently() {
    let dir = tempfile::tempdir().unwrap();
    let mut child =
        landfall(dir.path(), &["schema", "manifest"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The reading end is gone before, or while, the program writes.
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_agent_refuses_a_configuration_with_errors() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("agent.yaml"), "prxy: {}\n").unwrap();
    let (code, _, stderr) = run(dir.path(), &["agent", "--config", "agent.yaml"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("agent.yaml:1:1") && stderr.contains("prxy"), "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["agent"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("config/landfall.yaml"), "{stderr}");
}

#[test]
fn the_demo_says_at_once_what_is_in_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(dir.path(), &["demo", "--listen", &address]);
    assert_eq!(code, 1);
    assert!(stderr.contains(&address) && stderr.contains("--listen"), "{stderr}");
}

#[test]
fn an_answer_that_is_no_agents_is_a_failure_and_not_a_missing_agent() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("other.sock")).unwrap();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
    });
    let (code, _, stderr) = run(dir.path(), &["--agent", "other.sock", "status"]);
    assert_eq!(code, 1, "{stderr}");
    server.join().unwrap();
}
