//! Streams go on where they broke: over controllers that are killed, nothing of a log or of what happened is lost, and
//! nothing comes twice, in the client library, on the command line, and for whoever speaks HTTP.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use landfall::client::LogQuery;
use landfall::wire::api::{Deployment, LogLine};

use crate::support::{Agent, DEADLINE, landfall, until};

/// Writes numbers until it is told to stop.
const COUNTER: &str = "app: counter\nworkers:\n  main:\n    command: [sh, -c, \"i=0; while :; do i=$((i+1)); echo line $i; sleep 0.005; done\"]\n";

async fn counting() -> Agent {
    let mut agent = Agent::start().await;
    agent.repo.write("counter/landfall.yaml", COUNTER);
    agent.repo.push("counter");
    agent.until_live("counter", 1).await;
    agent
}

fn number(line: &LogLine) -> Option<u64> {
    line.line.strip_prefix("line ")?.parse().ok()
}

/// Reads until it has seen this number; every number must be one more than the last.
async fn read_until(follow: &mut landfall::client::Follow<LogLine>, last: &mut u64, goal: u64) {
    while *last < goal {
        let line = tokio::time::timeout(DEADLINE, follow.next()).await.expect("in time").expect("it goes on");
        if let Some(number) = number(&line.expect("it does not end")) {
            assert_eq!(number, *last + 1, "a line was lost, or came twice");
            *last = number;
        }
    }
}

#[tokio::test]
async fn a_followed_log_goes_on_over_killed_controllers() {
    let agent = counting().await;
    let app = "counter".parse().expect("a name");
    let query = LogQuery { follow: true, source: Some("stdout".into()), ..LogQuery::default() };
    let mut follow = agent.client.logs(None, &app, &query).await.expect("followed");
    let mut last = 0;
    for _ in 0..3 {
        let goal = last + 50;
        read_until(&mut follow, &mut last, goal).await;
        let killed = agent.kill_controller().await;
        agent.until_new_controller(killed).await;
    }
    let goal = last + 100;
    read_until(&mut follow, &mut last, goal).await;
}

#[tokio::test]
async fn the_last_lines_alone_are_followed_without_a_gap_too() {
    let agent = counting().await;
    let app = "counter".parse().expect("a name");
    let query = LogQuery { follow: true, tail: Some(5), source: Some("stdout".into()), ..LogQuery::default() };
    for _ in 0..10 {
        let mut follow = agent.client.logs(None, &app, &query).await.expect("followed");
        let first = follow.next().await.expect("a line").expect("a line");
        let mut last = number(&first).expect("a number");
        let goal = last + 30;
        read_until(&mut follow, &mut last, goal).await;
    }
}

#[tokio::test]
async fn followed_events_go_on_over_killed_controllers() {
    let mut agent = Agent::start().await;
    agent.repo.write("shop/landfall.yaml", crate::support::web_manifest("shop", ""));
    let mut follow = agent.client.follow_events(0, 100).await.expect("followed");
    let (mut seen, mut last) = (Vec::new(), 0);
    for round in 1..=3 {
        agent.repo.write("shop/content.txt", round.to_string());
        agent.repo.push(&format!("round {round}"));
        agent.until_live("shop", round).await;
        let killed = agent.kill_controller().await;
        agent.until_new_controller(killed).await;
        agent.until_done("shop").await;
    }
    let recorded = agent.client.events(0, 1000).await.expect("events");
    let wanted = recorded.last().expect("an event").sequence;
    while last < wanted {
        let event = tokio::time::timeout(DEADLINE, follow.next()).await.expect("in time").expect("it goes on");
        last = event.expect("it does not end").sequence;
        seen.push(last);
    }
    let recorded: Vec<i64> = recorded.iter().map(|event| event.sequence).collect();
    assert_eq!(seen, recorded);
}

/// An event stream as it comes over the socket: the places and the data of the events.
async fn raw(agent: &Agent, path: &str, place: Option<&str>) -> Vec<(String, String)> {
    let mut command = Command::new("curl");
    command.args(["-sN", "--max-time", "20", "--unix-socket"]).arg(agent.root.join("agent.sock"));
    if let Some(place) = place {
        command.args(["-H", &format!("Last-Event-ID: {place}")]);
    }
    let output = command.arg(format!("http://localhost{path}")).output().expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut events = Vec::new();
    for event in text.split("\n\n").filter(|event| event.contains("data: ")) {
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        assert!(field("event: ").is_empty() || field("event: ") == "end", "{event}");
        events.push((field("id: "), field("data: ")));
    }
    events
}

#[tokio::test]
async fn whoever_names_the_last_event_gets_what_came_after_it_also_from_the_next_controller() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl here");
        return;
    }
    let agent = counting().await;
    let done = agent.until_done("counter").await;
    let stream = format!("/v1/deployments/{}/events", done.id);
    let states = raw(&agent, &stream, None).await;
    // The state, and that it is the last.
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(serde_json::from_str::<Deployment>(&states[0].1).is_ok(), "{states:?}");
    let logs = "/v1/apps/counter/logs?source=stdout&until=";
    let until = jiff::Timestamp::now();
    let logs = format!("{logs}{until}");
    let all = raw(&agent, &logs, None).await;
    assert!(all.len() > 3, "{all:?}");
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    for at in [0, all.len() / 2, all.len() - 2] {
        assert_eq!(raw(&agent, &logs, Some(&all[at].0)).await, all[at + 1..], "behind {}", all[at].0);
    }
    assert_eq!(raw(&agent, &stream, Some(&states[0].0)).await, states[1..]);
}

#[tokio::test]
async fn the_command_line_follows_over_a_killed_controller() {
    let mut agent = counting().await;
    let start = |words: &[&str]| {
        let mut command = Command::new(landfall());
        command.arg("--agent").arg(agent.root.join("agent.sock")).args(words);
        command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("it starts")
    };
    let mut logs = start(&["app", "logs", "counter", "--follow", "--source", "stdout", "--json"]);
    let mut events = start(&["events", "--follow", "--json"]);
    let (lines, received) = std::sync::mpsc::channel::<String>();
    let out = BufReader::new(logs.stdout.take().expect("piped"));
    std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok()));
    let (facts, happened) = std::sync::mpsc::channel::<String>();
    let out = BufReader::new(events.stdout.take().expect("piped"));
    std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| facts.send(line).is_ok()));
    let next = || received.recv_timeout(DEADLINE).expect("a line");
    let number_of = |line: String| number(&serde_json::from_str(&line).expect("a line")).expect("a number");
    let mut last = number_of(next());
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    for _ in 0..200 {
        let number = number_of(next());
        assert_eq!(number, last + 1);
        last = number;
    }
    agent.repo.write("counter/more.txt", "more");
    agent.repo.push("more");
    agent.until_live("counter", 2).await;
    until("the second version is told of", || async {
        let told = happened.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        if told.contains("deployment.live") && told.contains("\"version\":2") { Ok(()) } else { Err(told) }
    })
    .await;
    for mut process in [logs, events] {
        process.kill().expect("killed");
        process.wait().expect("its end");
    }
}
