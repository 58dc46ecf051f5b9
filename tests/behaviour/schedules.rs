//! Schedules: every instant has exactly one record, whatever happens to the agent, and people can see and steer them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use landfall::domain::{CallOutcome, EventKind, Trigger};
use landfall::wire::api::SuspendRequest;
use landfall::wire::schedules::{Run, Schedule};

use crate::support::asking::{function, name};
use crate::support::place::written;
use crate::support::{Agent, landfall, until};

/// Functions of the app `jobs`, one per line, each a shell command that appends to a file of its name.
fn manifest(functions: &[&str]) -> String {
    let functions: String = functions.iter().map(|line| format!("  {line}\n")).collect();
    format!("app: jobs\nbake: 200ms\nfunctions:\n{functions}")
}

/// A function that writes its call down and then does something.
fn job(agent: &Agent, function: &str, then: &str, schedule: &str) -> String {
    let file = agent.root.join(written_by(function));
    let command = format!("echo $LANDFALL_CALL >> {}; {then}", file.display());
    format!("{function}: {{command: [sh, -c, '{command}'], mode: exec, schedule: {schedule}}}")
}

fn written_by(function: &str) -> String {
    format!("{function}.calls")
}

async fn with_jobs(jobs: impl Fn(&Agent) -> Vec<String>) -> Agent {
    let mut agent = Agent::start().await;
    deploy(&mut agent, jobs, "jobs").await;
    agent
}

async fn deploy(agent: &mut Agent, jobs: impl Fn(&Agent) -> Vec<String>, message: &str) {
    let jobs = jobs(agent);
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    agent.repo.write("jobs/landfall.yaml", manifest(&jobs)).write("jobs/content.txt", message);
    agent.repo.push(message);
    agent.rest(&["jobs"]).await;
}

impl Agent {
    async fn runs(&self, of: &str) -> Vec<Run> {
        let runs = self.client.schedule_runs(None, &name("jobs"), &function(of), Some(1000), None, None).await;
        runs.unwrap_or_default()
    }

    async fn schedule(&self, of: &str) -> Schedule {
        self.client.schedule(None, &name("jobs"), &function(of)).await.expect("a schedule")
    }

    /// Waits until the runs are as wanted.
    async fn until_runs(&self, of: &str, what: &str, wanted: impl Fn(&[Run]) -> bool) -> Vec<Run> {
        until(what, || async {
            let runs = self.runs(of).await;
            if wanted(&runs) { Ok(runs) } else { Err(format!("{runs:#?}")) }
        })
        .await
    }

    async fn until_succeeded(&self, of: &str, count: usize) -> Vec<Run> {
        let enough = |runs: &[Run]| with(runs, CallOutcome::Succeeded).len() >= count;
        self.until_runs(of, &format!("{count} runs of {of} have succeeded"), enough).await
    }
}

fn with(runs: &[Run], outcome: CallOutcome) -> Vec<&Run> {
    runs.iter().filter(|run| run.outcome == Some(outcome)).collect()
}

/// Every second from the first to the last one on record has exactly one record.
fn assert_one_record_for_each_second(runs: &[Run]) {
    let mut seconds = BTreeSet::new();
    for run in runs.iter().filter(|run| run.trigger == Trigger::Schedule) {
        let last = run.until.unwrap_or(run.scheduled_at);
        assert_eq!(run.scheduled_at.subsec_nanosecond(), 0, "{run:?}");
        let mut at = run.scheduled_at;
        let mut counted = 0;
        while at <= last {
            assert!(seconds.insert(at.as_second()), "{at} is on record twice: {runs:#?}");
            at += SignedDuration::from_secs(1);
            counted += 1;
        }
        assert_eq!(counted, run.count, "{run:?}");
    }
    let (first, last) = (seconds.first().copied().unwrap_or(0), seconds.last().copied().unwrap_or(-1));
    assert_eq!(seconds.len() as i64, last - first + 1, "a second has no record: {runs:#?}");
}

/// The clock passes a moment. Nothing else can make a run be missed.
async fn until_the_clock_says(at: Timestamp) {
    while Timestamp::now() < at {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn calls(agent: &Agent, of: &str) -> Vec<String> {
    written(&agent.root, "jobs", &written_by(of)).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_its_function_once_for_each_instant() {
    let agent = with_jobs(|agent| vec![job(agent, "tick", "true", "{every: 1s, overlap: allow}")]).await;
    let runs = agent.until_succeeded("tick", 3).await;
    assert_one_record_for_each_second(&runs);
    let shown = agent.schedule("tick").await;
    assert_eq!((shown.every_ms, shown.next.len(), shown.failures_in_a_row), (Some(1000), 3, 0));
    assert!(shown.successes_in_a_row >= 3 && shown.last_outcome == Some(CallOutcome::Succeeded), "{shown:?}");
    let calls = calls(&agent, "tick");
    assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), calls.len(), "a call was carried out twice");
    for run in with(&runs, CallOutcome::Succeeded) {
        let call = run.call.expect("a call").to_string();
        assert!(calls.contains(&call), "{call} never ran: {calls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_over_ticks_runs_none_twice_and_records_what_it_missed() {
    let jobs = |agent: &Agent| vec![job(agent, "tick", "true", "{every: 1s, overlap: allow}")];
    let mut agent = with_jobs(jobs).await;
    agent.until_succeeded("tick", 2).await;
    for _ in 0..2 {
        agent.kill();
        until_the_clock_says(Timestamp::now() + SignedDuration::from_secs(3)).await;
        let before = Timestamp::now();
        agent.launch();
        agent.until_up().await;
        let runs = agent
            .until_runs("tick", "a run succeeds after the restart", |runs| {
                with(runs, CallOutcome::Succeeded).iter().any(|run| run.scheduled_at > before)
            })
            .await;
        assert_one_record_for_each_second(&runs);
        assert!(!with(&runs, CallOutcome::Missed).is_empty(), "{runs:#?}");
    }
    // The controller alone is away for less than what counts as late.
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    let before = Timestamp::now();
    let runs = agent
        .until_runs("tick", "a run succeeds after the restart", |runs| {
            with(runs, CallOutcome::Succeeded).iter().any(|run| run.scheduled_at > before)
        })
        .await;
    assert_one_record_for_each_second(&runs);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_missed_run_is_caught_up_with_where_that_is_wanted() {
    let jobs = |agent: &Agent| {
        vec![job(agent, "late", "true", "{every: 15s, catch_up: 1h}"), job(agent, "strict", "true", "{every: 15s}")]
    };
    let mut agent = with_jobs(jobs).await;
    agent.until_succeeded("late", 1).await;
    agent.until_succeeded("strict", 1).await;
    let next = agent.schedule("late").await.next[0];
    agent.kill();
    // Later than what is on time, earlier than the instant after it.
    until_the_clock_says(next + SignedDuration::from_millis(10_500)).await;
    agent.launch();
    agent.until_up().await;
    let of = |runs: &[Run]| runs.iter().find(|run| run.scheduled_at == next).cloned();
    let passed = |runs: &[Run]| of(runs).is_some_and(|run| run.outcome.is_some());
    let late = of(&agent.until_runs("late", "the run is caught up with", passed).await).expect("a run");
    let strict = of(&agent.until_runs("strict", "the run is missed", passed).await).expect("a run");
    // Under load the agent may come up only after the instant that follows; then neither is the latest.
    if late.outcome == Some(CallOutcome::Succeeded) {
        assert!(late.caught_up, "{late:?}");
    } else {
        assert!(late.outcome == Some(CallOutcome::Missed) && late.count >= 1, "{late:?}");
    }
    assert_eq!((strict.outcome, strict.call), (Some(CallOutcome::Missed), None), "{strict:?}");
    let told = agent.events("jobs", EventKind::ScheduleMissed).await;
    assert!(told.iter().any(|words| words.contains("strict of jobs missed")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_due_during_another_is_skipped_queued_replaced_or_started() {
    let agent = with_jobs(|agent| {
        let slow = "sleep 2.5";
        vec![
            job(agent, "skips", "sleep 4.5", "{every: 1s, overlap: skip}"),
            job(agent, "queues", slow, "{every: 1s, overlap: queue}"),
            job(agent, "replaces", slow, "{every: 1s, overlap: replace}"),
        ]
    })
    .await;
    let runs = agent
        .until_runs("skips", "one succeeds and others are skipped", |runs| {
            !with(runs, CallOutcome::Succeeded).is_empty() && with(runs, CallOutcome::SkippedOverlap).len() >= 3
        })
        .await;
    assert_one_record_for_each_second(&runs);
    assert!(runs.iter().filter(|run| run.state == "running").count() <= 1);
    let runs = agent
        .until_runs("queues", "one succeeds while others wait", |runs| {
            !with(runs, CallOutcome::Succeeded).is_empty() && runs.iter().any(|run| run.state == "waiting")
        })
        .await;
    assert_one_record_for_each_second(&runs);
    assert!(runs.iter().filter(|run| run.state == "running").count() <= 1);
    let runs =
        agent.until_runs("replaces", "two make room", |runs| with(runs, CallOutcome::Cancelled).len() >= 2).await;
    assert_one_record_for_each_second(&runs);
    assert!(runs.iter().filter(|run| run.state == "running").count() <= 1);
    let told = agent.events("jobs", EventKind::ScheduleSkipped).await;
    assert!(told.iter().any(|words| words.contains("skips of jobs was skipped 3 times")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_does_not_disturb_a_schedule_and_a_removed_one_runs_no_more() {
    let jobs = |agent: &Agent| vec![job(agent, "tick", "true", "{every: 1s, overlap: allow}")];
    let mut agent = with_jobs(jobs).await;
    agent.until_succeeded("tick", 2).await;
    for message in ["second", "third"] {
        deploy(&mut agent, jobs, message).await;
        let deployed = Timestamp::now();
        agent
            .until_runs("tick", "a run succeeds after the deployment", |runs| {
                with(runs, CallOutcome::Succeeded).iter().any(|run| run.scheduled_at > deployed)
            })
            .await;
    }
    let runs = agent.runs("tick").await;
    assert_one_record_for_each_second(&runs);
    assert!(with(&runs, CallOutcome::Missed).is_empty(), "{runs:#?}");
    // A run that is under way when its schedule goes finishes.
    deploy(&mut agent, |agent| vec![job(agent, "tick", "sleep 3", "{every: 1s}")], "slow").await;
    let running = |runs: &[Run]| runs.iter().any(|run| run.state == "running");
    let runs = agent.until_runs("tick", "a slow run is under way", running).await;
    let slow = runs.iter().find(|run| run.state == "running").expect("one").scheduled_at;
    let plain = "tick: {command: [sh, -c, 'true'], mode: exec}".to_owned();
    deploy(&mut agent, |_| vec![plain.clone()], "without").await;
    until("no schedule is left", || async {
        let all = agent.client.schedules(None, None).await.map_err(|error| error.to_string())?;
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    let gone = Timestamp::now();
    let over = |runs: &[Run]| runs.iter().any(|run| run.scheduled_at == slow && run.outcome.is_some());
    let runs = agent.until_runs("tick", "the slow run has ended", over).await;
    let ended = runs.iter().find(|run| run.scheduled_at == slow).expect("on record");
    assert_eq!(ended.outcome, Some(CallOutcome::Succeeded), "{ended:?}");
    until_the_clock_says(gone + SignedDuration::from_secs(3)).await;
    let runs = agent.runs("tick").await;
    assert!(runs.iter().all(|run| run.scheduled_at <= gone), "{runs:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_schedule_starts_nothing_and_makes_up_for_nothing() {
    let jobs = |agent: &Agent| vec![job(agent, "tick", "true", "{every: 1s, catch_up: 1h, overlap: allow}")];
    let mut agent = with_jobs(jobs).await;
    agent.until_succeeded("tick", 1).await;
    let request = SuspendRequest { reason: Some("a move".into()), until: None };
    let paused = agent.client.pause_schedule(None, &name("jobs"), &function("tick"), &request).await.expect("paused");
    assert_eq!(paused.pause.as_ref().map(|pause| pause.reason.as_str()), Some("a move"));
    assert!(paused.next.is_empty(), "{paused:?}");
    let since = Timestamp::now();
    // A pause outlives the agent.
    agent.kill();
    until_the_clock_says(since + SignedDuration::from_secs(2)).await;
    agent.launch();
    agent.until_up().await;
    assert!(agent.schedule("tick").await.pause.is_some());
    let runs = agent.runs("tick").await;
    assert!(runs.iter().all(|run| run.scheduled_at <= since), "{runs:#?}");
    let resumed = Timestamp::now();
    agent.client.resume_schedule(None, &name("jobs"), &function("tick")).await.expect("resumed");
    let runs = agent
        .until_runs("tick", "it runs again", |runs| {
            with(runs, CallOutcome::Succeeded).iter().any(|run| run.scheduled_at > resumed)
        })
        .await;
    let within = runs.iter().find(|run| run.scheduled_at > since && run.scheduled_at <= resumed);
    assert_eq!(within, None, "{runs:#?}");
    assert!(agent.client.resume_schedule(None, &name("jobs"), &function("tick")).await.is_err(), "it is not paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_in_a_row_are_told_once_and_so_is_the_recovery() {
    let failing = |agent: &Agent| vec![job(agent, "tick", "exit 3", "{every: 1s, notify_after: 2, overlap: allow}")];
    let mut agent = with_jobs(failing).await;
    let runs = agent.until_runs("tick", "four fail", |runs| with(runs, CallOutcome::Failed).len() >= 4).await;
    let failed = with(&runs, CallOutcome::Failed)[0];
    let why = failed.error.as_ref().expect("a reason").to_string();
    assert!(why.contains('3'), "{why}");
    let told = agent.events("jobs", EventKind::ScheduleFailed).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("failed 2 times in a row") && told[0].contains("landfall schedule history"), "{told:?}");
    assert!(agent.schedule("tick").await.failures_in_a_row >= 4);
    deploy(&mut agent, |agent| vec![job(agent, "tick", "true", "{every: 1s, overlap: allow}")], "mended").await;
    agent.until_succeeded("tick", 2).await;
    assert_eq!(agent.events("jobs", EventKind::ScheduleFailed).await.len(), 1);
    assert_eq!(agent.events("jobs", EventKind::ScheduleRecovered).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_asked_for_and_waited_for() {
    let agent = with_jobs(|agent| {
        vec![
            job(agent, "good", "true", "\"0 0 1 1 *\""),
            job(agent, "bad", "echo woe >&2; exit 7", "\"0 0 1 1 *\""),
            job(agent, "slow", "sleep 20", "{cron: \"0 0 1 1 *\", timezone: Europe/Oslo}"),
        ]
    })
    .await;
    let say = |arguments: Vec<&'static str>| {
        let socket = agent.root.join("agent.sock");
        tokio::process::Command::new(landfall()).arg("--agent").arg(socket).args(arguments).output()
    };
    let good = say(vec!["schedule", "run", "jobs", "good", "--wait"]).await.expect("its end");
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("good of jobs succeeded"), "{good:?}");
    let bad = say(vec!["schedule", "run", "jobs", "bad", "--wait"]).await.expect("its end");
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(String::from_utf8_lossy(&bad.stdout).contains("bad of jobs failed"), "{bad:?}");
    let logs = say(vec!["schedule", "logs", "jobs", "bad", "--failed"]).await.expect("its end");
    assert_eq!(String::from_utf8_lossy(&logs.stdout), "woe\n", "{logs:?}");
    let runs = agent.runs("good").await;
    assert_eq!((runs.len(), runs[0].trigger), (1, Trigger::Manual), "{runs:?}");
    assert!(runs[0].actor.is_some());
    assert!(say(vec!["schedule", "run", "jobs", "slow"]).await.expect("its end").status.success());
    let again = say(vec!["schedule", "run", "jobs", "slow"]).await.expect("its end");
    assert!(String::from_utf8_lossy(&again.stderr).contains("is under way since"), "{again:?}");
    let list = say(vec!["schedule", "list"]).await.expect("its end");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for part in ["0 0 1 1 * Europe/Oslo", "+01:00", "running", "1 failed", "1 succeeded"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let none = say(vec!["schedule", "history", "jobs", "nothing"]).await.expect("its end");
    assert!(String::from_utf8_lossy(&none.stderr).contains("has no schedule"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_tells_of_start_and_end_of_each_run() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (heard, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0_u8; 2048];
            let read = stream.read(&mut request).unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if heard.send(line).is_err() {
                return;
            }
        }
    });
    let schedule = |path: &str| format!("{{cron: \"0 0 1 1 *\", ping: \"http://127.0.0.1:{port}/{path}\"}}");
    let agent = with_jobs(|agent| {
        vec![job(agent, "good", "true", &schedule("good")), job(agent, "bad", "exit 7", &schedule("bad"))]
    })
    .await;
    for of in ["good", "bad"] {
        agent.client.run_schedule(None, &name("jobs"), &function(of)).await.expect("started");
    }
    let mut paths = BTreeSet::new();
    while paths.len() < 4 {
        let line = asked.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("only {paths:?}"));
        let path = line.strip_prefix("GET ").and_then(|line| line.split('?').next()).unwrap_or_default();
        assert!(line.contains("?rid="), "{line}");
        paths.insert(path.to_owned());
    }
    assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["/bad/7", "/bad/start", "/good", "/good/start"]);
}
