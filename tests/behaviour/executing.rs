//! Commands in instances: what they are given, what they say, and that none outlives whoever asked for it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use landfall::client::{AuditQuery, Exec};
use landfall::wire::exec::{ExecEnd, ExecStart, Frame, TerminalSize};

use crate::support::asking::refusal;
use crate::support::{Agent, landfall, until};

/// An agent with `shop`, and its one instance.
async fn with_shop() -> (Agent, String) {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "one");
    agent.repo.push("one");
    agent.rest(&["shop"]).await;
    let id = agent.instances("shop").await.expect("instances")[0].instance.to_string();
    (agent, id)
}

fn shell(script: &str) -> ExecStart {
    ExecStart { command: ["sh", "-c", script].map(str::to_owned).to_vec(), terminal: None, term: None }
}

async fn next(exec: &mut Exec) -> Frame {
    tokio::time::timeout(Duration::from_secs(60), exec.next()).await.expect("in time").expect("a frame")
}

/// Everything it says until its end.
async fn to_the_end(exec: &mut Exec) -> (String, String, ExecEnd) {
    let (mut output, mut error) = (Vec::new(), Vec::new());
    loop {
        match next(exec).await {
            Frame::Output(bytes) => output.extend(bytes),
            Frame::Error(bytes) => error.extend(bytes),
            Frame::Ended(end) => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
                return (text(output), text(error), end);
            }
            other => panic!("the agent says {other:?}"),
        }
    }
}

/// What it says until that ends in `ending`. A line may come in pieces, a terminal's most of all.
async fn said(exec: &mut Exec, ending: &str) -> String {
    let mut shown = String::new();
    while !shown.ends_with(ending) {
        match next(exec).await {
            Frame::Output(bytes) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {shown:?}"),
        }
    }
    shown
}

/// The number that the command says first, and nothing after it.
async fn pid(exec: &mut Exec) -> i32 {
    said(exec, "\n").await.trim().parse().expect("a number")
}

async fn until_gone(pid: i32) {
    until(&format!("process {pid} is gone"), || async {
        let alive = std::path::Path::new(&format!("/proc/{pid}")).exists();
        if alive { Err("it runs".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_instances_setting_and_its_own_two_outputs() {
    let (agent, id) = with_shop().await;
    let script = "read line; echo \"$line $LANDFALL_APP $LANDFALL_INSTANCE\"; cat content.txt; echo no >&2; exit 7";
    let mut exec = agent.client.exec(&id, shell(script)).await.expect("runs");
    exec.input().send(Frame::Input(b"hello\n".to_vec())).await.expect("taken");
    let all = to_the_end(&mut exec).await;
    assert_eq!(all, (format!("hello shop {id}\none"), "no\n".into(), ExecEnd::Exited { code: 7 }));

    let mut exec = agent.client.exec(&id, shell("kill -9 $$")).await.expect("runs");
    assert_eq!(to_the_end(&mut exec).await.2, ExecEnd::Killed { signal: 9 });

    // What it leaves running in the background does not hold it up, and ends with the instance.
    let mut exec = agent.client.exec(&id, shell("sleep 3600 & echo $!")).await.expect("runs");
    let left = pid(&mut exec).await;
    assert_eq!(to_the_end(&mut exec).await.2, ExecEnd::Exited { code: 0 });
    agent.client.stop_instance(&id).await.expect("accepted");
    until_gone(left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_told_with_its_mend() {
    let (agent, id) = with_shop().await;
    let problem = refusal(agent.client.exec("shop-main-v9-nobody", shell("true")).await);
    assert_eq!((problem.status, problem.code.as_str()), (404, "not_found"));
    assert!(problem.mend.contains("landfall instance list"), "{problem:?}");
    let nothing = ExecStart { command: Vec::new(), terminal: None, term: None };
    assert_eq!(refusal(agent.client.exec(&id, nothing).await).status, 422);
    let missing = ExecStart { command: vec!["no-such-program".into()], terminal: None, term: None };
    let mut exec = agent.client.exec(&id, missing).await.expect("runs");
    match to_the_end(&mut exec).await.2 {
        ExecEnd::Failed { code, message } => {
            assert_eq!(code, "not_found");
            assert!(message.contains("`no-such-program`"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one_and_follows_its_window() {
    let (agent, id) = with_shop().await;
    let size = |rows, columns| TerminalSize { rows, columns };
    let script = "test -t 0 && test -t 2 && stty size; echo $TERM; read line; stty size; exit 3";
    let start = ExecStart { terminal: Some(size(33, 77)), term: Some("dumb".into()), ..shell(script) };
    let mut exec = agent.client.exec(&id, start).await.expect("runs");
    assert_eq!(said(&mut exec, "dumb\r\n").await, "33 77\r\ndumb\r\n");
    let input = exec.input();
    input.send(Frame::Resize(size(10, 20))).await.expect("taken");
    input.send(Frame::Input(b"go\n".to_vec())).await.expect("taken");
    let (rest, error, end) = to_the_end(&mut exec).await;
    assert_eq!((rest.as_str(), error.as_str(), end), ("go\r\n10 20\r\n", "", ExecEnd::Exited { code: 3 }));

    // Ctrl-C is the command's. A shell loses one that comes just while it starts another program.
    let start = ExecStart { terminal: Some(size(24, 80)), ..shell("echo ready; exec sleep 3600") };
    let mut exec = agent.client.exec(&id, start).await.expect("runs");
    assert_eq!(said(&mut exec, "\n").await, "ready\r\n");
    exec.input().send(Frame::Input(vec![3])).await.expect("taken");
    assert_eq!(to_the_end(&mut exec).await.2, ExecEnd::Killed { signal: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_command_down_and_gets_everything() {
    const MEGABYTES: usize = 48;
    let (agent, id) = with_shop().await;
    let script = format!("echo $$; read line; exec dd if=/dev/zero bs=1048576 count={MEGABYTES} 2>/dev/null");
    let mut exec = agent.client.exec(&id, shell(&script)).await.expect("runs");
    let writer = pid(&mut exec).await;
    exec.input().send(Frame::Input(b"go\n".to_vec())).await.expect("taken");
    // Nothing is read: what is on the way is bounded, so the writer gets stuck, far from its end.
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{writer}/io")).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap_or("0");
        line.parse::<usize>().expect("a number")
    };
    let mut last = (0, 0);
    until("it is stuck", || {
        let now = written();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        let stuck = last.1 > 50 && now > 0;
        async move { if stuck { Ok(()) } else { Err(format!("{now} bytes")) } }
    })
    .await;
    assert!(written() < MEGABYTES * 1024 * 1024 / 2, "{} bytes are held somewhere", written());
    let mut had = 0;
    let end = loop {
        match next(&mut exec).await {
            Frame::Output(bytes) => had += bytes.len(),
            Frame::Ended(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((had, end), (MEGABYTES * 1024 * 1024, ExecEnd::Exited { code: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_caller_its_instance_and_its_controller() {
    let (agent, id) = with_shop().await;
    let script = "trap '' HUP; echo $$; sleep 3600; true";
    for terminal in [None, Some(TerminalSize { rows: 24, columns: 80 })] {
        let mut exec = agent.client.exec(&id, ExecStart { terminal, ..shell(script) }).await.expect("runs");
        let running = pid(&mut exec).await;
        drop(exec);
        until_gone(running).await;
    }
    let mut exec = agent.client.exec(&id, shell(script)).await.expect("runs");
    let running = pid(&mut exec).await;
    agent.kill_controller().await;
    until_gone(running).await;
    assert!(exec.next().await.is_err(), "nobody knows how it ended");

    let mut exec = agent.client.exec(&id, shell(script)).await.expect("runs");
    let running = pid(&mut exec).await;
    agent.client.stop_instance(&id).await.expect("accepted");
    until_gone(running).await;
    let end = to_the_end(&mut exec).await.2;
    assert_ne!(end, ExecEnd::Exited { code: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_is_as_if_it_ran_here_and_it_is_on_record() {
    let (agent, id) = with_shop().await;
    let socket = agent.root.join("agent.sock");
    let run = |arguments: &[&str], input: &str| {
        let mut command = Command::new(landfall());
        command.arg("--agent").arg(&socket).args(["instance", "exec"]).args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let said = run(&["-i", &id, "--", "sh", "-c", "tr a-z A-Z; echo no >&2; exit 9"], "quiet\n");
    assert_eq!(said, (Some(9), "QUIET\n".into(), "no\n".into()));
    // Without -i there is no input to wait for.
    assert_eq!(run(&[&id, "--", "cat"], "").0, Some(0));
    assert_eq!(run(&[&id, "--", "sh", "-c", "kill -15 $$"], "").0, Some(128 + 15));
    let (code, _, error) = run(&[&id, "--", "no-such-program"], "");
    assert!(code == Some(127) && error.contains("`no-such-program`"), "{code:?} {error}");
    let (code, _, error) = run(&["nobody", "--", "true"], "");
    assert!(code == Some(4) && error.contains("landfall instance list"), "{code:?} {error}");

    let entries = until("the end is on record", || async {
        let entries = agent.client.audit(None, &AuditQuery::default()).await.map_err(|error| error.to_string())?;
        let ours: Vec<_> = entries.into_iter().filter(|entry| entry.action == "instance.exec").collect();
        if ours.len() == 4 && ours.iter().all(|entry| entry.result.is_some()) {
            Ok(ours)
        } else {
            Err(format!("{ours:?}"))
        }
    })
    .await;
    let first = entries.last().expect("four");
    assert_eq!(first.detail["command"][0], "sh");
    assert_eq!(first.detail["instance"], id.as_str());
    assert_eq!(first.result.as_ref().expect("ended")["exit_code"], 9);
}
