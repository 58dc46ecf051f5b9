//! Everything people hear of besides deployments, at a receiver that checks signatures; and over a long history.
//!
//! Time that must pass before a reminder is taken from the ledger: while the agent is away, what it has on record is
//! moved into the past, as if that time had gone by.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use landfall::domain::CallOutcome;
use landfall::wire::api::{self, AppState};

use crate::notifications::{agent_with, channel, told, webhook};
use crate::servers::Authority;
use crate::support::asking::{back_to, manifest, name};
use crate::support::receiver::{Answer, Receiver};
use crate::support::{Agent, Setup, landfall, until};

const NOW: &str = "    window: 0s\n";
const FAILED: &str = "deployment.failed failing exited_early";

fn broken(app: &str, code: &str) -> String {
    manifest(app, &["exit", code], "200ms", "")
}

/// What was told, in order. A message that was taken just as the agent died comes again, under its identifier.
fn told_once(receiver: &Receiver) -> Vec<String> {
    let mut ids = BTreeSet::new();
    let requests = receiver.taken();
    let each =
        told(receiver).into_iter().zip(requests.iter().map(|request| request.header("webhook-id").expect("an id")));
    each.filter(|(_, id)| ids.insert((*id).to_owned())).map(|(message, _)| message).collect()
}

async fn until_told(receiver: &Receiver, expected: &[&str]) {
    until(&format!("{expected:?} is told"), || async {
        let now = told_once(receiver);
        if now == expected { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// A repository with an app: without one the source would be told of first.
fn begun(setup: &mut Setup) {
    setup.repo.app("another", "nothing\n");
    setup.repo.push("a beginning");
}

/// An app with one function that is called by a schedule; the command may say what it likes.
fn scheduled(command: &str, schedule: &str) -> String {
    format!(
        "app: jobs\nbake: 200ms\nfunctions:\n  tick: {{command: [sh, -c, '{command}'], mode: exec, schedule: {schedule}}}\n"
    )
}

/// Moves what channels remember into the past. The agent must be away.
fn a_day_goes_by(root: &Path) {
    let ledger = rusqlite::Connection::open(root.join("data/ledger.db")).expect("the ledger");
    let mut read = ledger.prepare("SELECT channel, topic, body FROM episodes").expect("a question");
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("episodes");
    let rows: Vec<(String, String, String)> = rows.collect::<Result<_, _>>().expect("episodes");
    for (channel, topic, body) in rows {
        let mut episode: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        for key in ["since", "announced_at"] {
            let Some(text) = episode[key].as_str() else { continue };
            let at: Timestamp = text.parse().expect("a time");
            episode[key] = (at - SignedDuration::from_hours(24)).to_string().into();
        }
        let update = "UPDATE episodes SET body = ?3 WHERE channel = ?1 AND topic = ?2";
        ledger.execute(update, (channel, topic, episode.to_string())).expect("moved");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lasts_is_told_again_after_a_day_and_so_is_a_hold() {
    let receiver = Receiver::start().await;
    let mut agent = agent_with(|dir| webhook("ops", &receiver, dir, NOW), begun).await;
    for content in ["first\n", "second\n"] {
        agent.repo.app("mail", content);
        agent.repo.push(content);
        agent.until_body("mail", content).await;
    }
    agent.rest_of("mail").await;
    agent.rollback("mail", back_to(None)).await;
    let mut expected = vec!["rollback information"];
    until_told(&receiver, &expected).await;
    agent.rest_of("mail").await;
    agent.repo.write("shop/landfall.yaml", broken("shop", "3"));
    agent.repo.push("broken");
    expected.push(FAILED);
    until_told(&receiver, &expected).await;

    for day in 1..=2 {
        agent.stop();
        a_day_goes_by(&agent.root);
        agent.launch();
        agent.until_up().await;
        expected.extend([FAILED, "hold.reminder failing held"]);
        until_told(&receiver, &expected).await;
        let mut taken = receiver.taken();
        taken.retain(|request| request.body["event"] == "deployment.failed");
        let notice = taken.pop().expect("a message").body;
        assert!(notice["title"].as_str().expect("a title").contains("still"), "day {day}: {notice}");
        assert_eq!(notice["count"], 1, "{notice}");
    }
    agent.repo.app("shop", "good\n").app("mail", "third\n");
    agent.repo.push("both are well again");
    agent.until_body("mail", "third\n").await;
    // A program that was reminded of a hold is told of its end; people are not.
    let ends: BTreeSet<String> = ["hold.reminder recovered held", "deployment.recovered recovered exited_early"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    until("both ends are told", || async {
        let now = told_once(&receiver);
        let new: BTreeSet<String> = now.iter().skip(expected.len()).cloned().collect();
        if new == ends && now.len() == expected.len() + 2 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_crashes_again_and_again_is_told_once_and_so_is_its_recovery() {
    let receiver = Receiver::start().await;
    let mut agent = agent_with(
        |dir| webhook("ops", &receiver, dir, "    window: 0s\n    events: [app.crashing, app.recovered]\n"),
        |setup| {
            setup.repo.app("shop", "first\n");
            setup.repo.push("first");
        },
    )
    .await;
    agent.until_body("shop", "first\n").await;
    agent.until_done("shop").await;
    while agent.shown("shop").await.state != AppState::Crashing {
        agent.until_served("shop").await;
        agent.crash("shop", 3).await;
    }
    until_told(&receiver, &["app.crashing failing crashing"]).await;
    agent.until_served("shop").await;
    agent.crash("shop", 3).await;
    agent.until_served("shop").await;
    agent.repo.app("shop", "second\n");
    agent.repo.push("mended");
    agent.until_body("shop", "second\n").await;
    until_told(&receiver, &["app.crashing failing crashing", "app.recovered recovered crashing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_read_and_one_that_waits_for_a_person_are_told_until_they_are_settled() {
    let receiver = Receiver::start().await;
    let apps = ["a", "b", "c", "d"];
    let mut agent = agent_with(
        |dir| webhook("ops", &receiver, dir, NOW),
        |setup| {
            for app in apps {
                setup.repo.app(app, app);
            }
            setup.repo.push("four apps");
        },
    )
    .await;
    agent.rest(&apps).await;
    let fleet = "fleet".parse().expect("a name");
    let away = agent.root.join("away.git");
    std::fs::rename(agent.repo.path(), &away).expect("moved away");
    for _ in 0..2 {
        let _ = agent.client.sync(&fleet).await;
    }
    let mut expected = vec!["source.failing failing not-found"];
    until_told(&receiver, &expected).await;
    assert_eq!(receiver.taken()[0].body["subjects"], serde_json::json!(["source fleet"]));
    std::fs::rename(&away, agent.repo.path()).expect("moved back");
    agent.client.sync(&fleet).await.expect("a look");
    expected.push("source.recovered recovered not-found");
    until_told(&receiver, &expected).await;

    agent.repo.remove("a").remove("b").remove("c");
    agent.repo.push("most of them go");
    let source = agent.client.sync(&fleet).await.expect("a look");
    let waits: Vec<i64> = source.waiting.iter().map(|waiting| waiting.id).collect();
    assert_eq!(waits.len(), 1, "{source:?}");
    until("the brake is told", || async {
        let now = told(&receiver);
        let last = now.get(2).is_some_and(|last| last.starts_with("source.waiting failing"));
        if last && now.len() == 3 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let approved = api::ApproveRequest { waits, reason: Some("meant".into()) };
    agent.client.approve(&fleet, &approved).await.expect("approved");
    until("that it is settled is told", || async {
        let now = told(&receiver);
        let last = now.get(3).is_some_and(|last| last.starts_with("source.settled recovered"));
        if last && now.len() == 4 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_less_room_than_somebody_asks_for_is_told_and_so_is_that_there_is_room_again() {
    let receiver = Receiver::start().await;
    let agent = agent_with(|dir| webhook("ops", &receiver, dir, NOW), begun).await;
    let before = agent.config();
    agent.replace_config(&format!("{before}limits: {{disk_free: 1000TiB}}\n"));
    until_told(&receiver, &["disk.low failing disk"]).await;
    let status = agent.client.status().await.expect("the status");
    assert!(status.problems.iter().any(|problem| problem.contains("nearly full")), "{:?}", status.problems);
    agent.replace_config(&format!("{before}limits: {{disk_free: 0B}}\n"));
    until_told(&receiver, &["disk.low failing disk", "disk.recovered recovered disk"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_fails_recovers_is_skipped_and_missed_is_told_each_time() {
    let receiver = Receiver::start().await;
    let mut agent = agent_with(|dir| webhook("ops", &receiver, dir, NOW), begun).await;
    let deploy = async |agent: &mut Agent, command: &str, schedule: &str| {
        agent.repo.write("jobs/landfall.yaml", scheduled(command, schedule));
        agent.repo.push(command);
        agent.rest_of("jobs").await;
    };
    deploy(&mut agent, "echo woe is me >&2; exit 3", "{every: 1s, overlap: allow}").await;
    let mut expected = vec!["schedule.failed failing exit"];
    until_told(&receiver, &expected).await;
    let notice = receiver.taken()[0].body.clone();
    assert_eq!(notice["subjects"], serde_json::json!(["jobs tick"]), "{notice}");
    assert_eq!(notice["log"], serde_json::json!(["woe is me"]), "the end of what it wrote is in the message: {notice}");
    deploy(&mut agent, "true", "{every: 1s, overlap: allow}").await;
    expected.push("schedule.recovered recovered exit");
    until_told(&receiver, &expected).await;
    deploy(&mut agent, "sleep 5", "{every: 1s}").await;
    expected.push("schedule.skipped information");
    until_told(&receiver, &expected).await;

    // The other word for the same schedule, and no skips any more.
    deploy(&mut agent, "exit 4", "{every: 1s, overlap: allow}").await;
    expected.push("schedule.failed failing exit");
    until_told(&receiver, &expected).await;
    // With its app goes the trouble; programs are told so.
    agent.stop_app("jobs", "enough").await.expect("stopped");
    expected.push("schedule.failed recovered exit");
    until_told(&receiver, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_whose_time_passed_while_the_agent_was_away_are_told_together() {
    let receiver = Receiver::start().await;
    let more = "    window: 0s\n    events: [schedule.missed]\n";
    let mut agent = agent_with(|dir| webhook("ops", &receiver, dir, more), |_| {}).await;
    agent.repo.write("jobs/landfall.yaml", scheduled("true", "{every: 1s, overlap: allow}"));
    agent.repo.push("a job");
    agent.rest_of("jobs").await;
    agent.kill();
    // Only the clock can make a run be missed.
    let back = Timestamp::now() + SignedDuration::from_secs(3);
    while Timestamp::now() < back {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    agent.launch();
    agent.until_up().await;
    until_told(&receiver, &["schedule.missed information"]).await;
    let notice = receiver.taken().pop().expect("a message").body;
    assert!(notice["title"].as_str().expect("a title").contains("tick of jobs missed"), "{notice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_run_wrote_is_kept_when_its_logs_are_gone() {
    let mut agent = Agent::start().await;
    let command =
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i of a long tale that nobody reads >&2; done; exit 9";
    agent.repo.write("jobs/landfall.yaml", scheduled(command, "\"0 0 1 1 *\""));
    agent.repo.push("a talkative job");
    agent.rest_of("jobs").await;
    let tick = "tick".parse().expect("a name");
    agent.client.run_schedule(None, &name("jobs"), &tick).await.expect("started");
    let run = until("the run has failed", || async {
        let runs = agent.client.schedule_runs(None, &name("jobs"), &tick, None, None, None).await;
        let runs = runs.map_err(|error| error.to_string())?;
        runs.into_iter().find(|run| run.outcome == Some(CallOutcome::Failed)).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(run.error.as_ref().and_then(|error| error.exit_code), Some(9), "{run:?}");
    let kept = until("its output is kept", || async {
        let kept = agent.client.run_output(None, &name("jobs"), &tick, run.scheduled_at).await;
        kept.map_err(|error| error.to_string())
    })
    .await;
    assert!(kept.head.starts_with("line 1 of") && kept.tail.ends_with("line 3000 of a long tale that nobody reads\n"));
    assert_eq!(kept.head.lines().count() + kept.tail.lines().count() + kept.left_out as usize, 3000);
    agent.stop();
    std::fs::remove_dir_all(agent.root.join("data/logs/main/jobs")).expect("logs are removed");
    agent.launch();
    agent.until_up().await;
    let socket = agent.root.join("agent.sock");
    let logs = tokio::process::Command::new(landfall())
        .arg("--agent")
        .arg(socket)
        .args(["schedule", "logs", "jobs", "tick", "--failed"])
        .output();
    let logs = logs.await.expect("its end");
    let text = String::from_utf8_lossy(&logs.stdout);
    assert!(logs.status.success() && text.starts_with("line 1 of"), "{logs:?}");
    assert!(text.ends_with("line 3000 of a long tale that nobody reads\n"), "{text}");
    assert!(String::from_utf8_lossy(&logs.stderr).contains("lines are not kept"), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_cannot_be_opened_is_shown_and_works_once_it_can_be() {
    let receiver = Receiver::start().await;
    let Some(authority) = Authority::new() else { return };
    let authorities = std::cell::OnceCell::new();
    let agent = agent_with(
        |dir| {
            let ca = authorities.get_or_init(|| dir.join("ca.pem"));
            let address = receiver.address;
            format!("  am:\n    alertmanager: {{url: \"http://{address}\", ca_file: {}}}\n", ca.display())
        },
        |_| {},
    )
    .await;
    let standing = until("it is shown", || async {
        let standing = channel(&agent, "am").await.standing;
        if standing.error.is_some() { Ok(standing) } else { Err(format!("{standing:?}")) }
    })
    .await;
    let why = standing.error.unwrap_or_default();
    assert!(why.contains("ca.pem") && standing.failing_since.is_some(), "{why}");
    let problems = agent.client.status().await.expect("the status").problems;
    assert!(
        problems.iter().any(|problem| problem.contains("channel am") && problem.contains("ca.pem")),
        "{problems:?}"
    );
    let beside = agent.root.join("new.pem");
    std::fs::copy(authority.certificate(), &beside).expect("a file");
    std::fs::rename(&beside, authorities.get().expect("a path")).expect("in its place");
    until("it is well", || async {
        let standing = channel(&agent, "am").await.standing;
        if standing.error.is_none() { Ok(()) } else { Err(format!("{standing:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_names_a_channel_there_is_none_of_is_warned_of() {
    let mut agent = Agent::start().await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve"], "100ms", "notify: [shop-team]\n"));
    agent.repo.write("shop/content.txt", "first\n");
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    let app = agent.until_live("shop", 1).await;
    assert!(app.warnings.iter().any(|warning| warning.contains("channel `shop-team`")), "{app:?}");
    let problems = agent.client.status().await.expect("the status").problems;
    assert!(problems.iter().any(|problem| problem.contains("channel `shop-team`")), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heartbeat_comes_while_the_agent_works_and_follows_its_configuration() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let beat = |receiver: &Receiver| format!("heartbeat: {{url: \"http://{}/beat\", every: 1s}}\n", receiver.address);
    let agent = agent_with(
        |_| String::new(),
        |setup| {
            begun(setup);
            setup.more = beat(&first);
        },
    )
    .await;
    let until_beats = async |receiver: &Receiver, count: usize| {
        until("the heart beats", || async {
            let beats = receiver.requests();
            if beats.len() >= count { Ok(()) } else { Err(format!("{beats:?}")) }
        })
        .await;
    };
    until_beats(&first, 2).await;
    assert_eq!(first.requests()[0].path, "/beat");
    let config = agent.config();
    agent.replace_config(&config.replace(&beat(&first), &beat(&second)));
    until_beats(&second, 2).await;
    let over = first.requests().len();
    second.otherwise(Answer::Refused("503 Service Unavailable"));
    until("that it is not taken is shown", || async {
        let problems = agent.client.status().await.map_err(|error| error.to_string())?.problems;
        if problems.iter().any(|problem| problem.contains("heartbeat is not taken")) {
            Ok(())
        } else {
            Err(format!("{problems:?}"))
        }
    })
    .await;
    assert_eq!(first.requests().len(), over, "the address before hears nothing any more");
    agent.replace_config(&config.replace(&beat(&first), ""));
    until("nothing is wrong without one", || async {
        let problems = agent.client.status().await.map_err(|error| error.to_string())?.problems;
        if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
    })
    .await;
}

/// What a script does to an agent.
enum Step {
    /// Pushes this manifest of an app, and waits for the end of its deployment.
    Push(&'static str, String),
    /// The controller dies.
    Kill,
    /// The whole agent ends and comes back.
    Restart,
    /// A day goes by without the agent.
    Day,
    /// The receiver answers the next requests badly.
    Trouble,
}

/// Plays a history; at its end exactly `expected` was told, whatever died on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_of_failures_and_recoveries_over_crashes_is_told_exactly() {
    use Step::{Day, Kill, Push, Restart, Trouble};
    let receiver = Receiver::start().await;
    let mut agent = agent_with(|dir| webhook("ops", &receiver, dir, NOW), begun).await;
    // A number makes each content another one.
    let well = |app: &str, number: u16| manifest(app, &["serve"], "100ms", &format!("env: {{N: \"{number}\"}}\n"));
    let never_ready =
        manifest("shop", &["sleep"], "200ms", "").replace("interval: 50ms", "interval: 50ms, deadline: 300ms");
    let script: Vec<(Step, Vec<&str>)> = vec![
        (Push("shop", well("shop", 1)), vec![]),
        (Push("shop", broken("shop", "3")), vec![FAILED]),
        (Kill, vec![]),
        (Push("shop", broken("shop", "4")), vec![]),
        (Restart, vec![]),
        (Push("mail", broken("mail", "5")), vec![FAILED]),
        (Day, vec![FAILED]),
        (Trouble, vec![]),
        (Push("shop", never_ready), vec!["deployment.failed failing not_ready"]),
        (Kill, vec![]),
        (Push("shop", well("shop", 2)), vec!["deployment.recovered recovered not_ready"]),
        (Push("shop", well("shop", 3)), vec![]),
        (Restart, vec![]),
        (Push("mail", well("mail", 4)), vec!["deployment.recovered recovered exited_early"]),
        (Day, vec![]),
        (Push("mail", broken("mail", "6")), vec![FAILED]),
        (Kill, vec![]),
        (Push("mail", well("mail", 5)), vec!["deployment.recovered recovered exited_early"]),
    ];
    let mut expected: Vec<&str> = Vec::new();
    for (step, messages) in script {
        match step {
            Push(app, text) => {
                agent.repo.write(&format!("{app}/landfall.yaml"), text).write(&format!("{app}/content.txt"), app);
                agent.repo.push(app);
                agent.rest_of(app).await;
            }
            Kill => {
                let killed = agent.kill_controller().await;
                agent.until_new_controller(killed).await;
            }
            Restart | Day => {
                agent.stop();
                if matches!(step, Day) {
                    a_day_goes_by(&agent.root);
                }
                agent.launch();
                agent.until_up().await;
            }
            Trouble => receiver.script(&[
                Answer::Refused("500 Internal Server Error"),
                Answer::Refused("429 Too Many Requests\r\nretry-after: 1"),
            ]),
        }
        expected.extend(messages);
        until_told(&receiver, &expected).await;
    }
}
