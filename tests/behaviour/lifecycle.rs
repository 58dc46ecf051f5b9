//! Failing, freezing, stopping, vanishing, uploading, starting afresh, crashing.

use std::time::Duration;

use landfall::domain::{DeploymentOutcome, EventKind, InstanceState, Phase, VersionStatus};
use landfall::wire::api;
use landfall::wire::api::AppState;

use crate::support::asking::{command, from_now, manifest, name, number, refusal};
use crate::support::{Agent, until};

/// An agent whose app `shop` serves `one` as v1.
async fn with_shop() -> Agent {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "one");
    agent.repo.push("one");
    agent.rest(&["shop"]).await;
    agent
}

fn why(reason: &str) -> api::SuspendRequest {
    api::SuspendRequest { reason: Some(reason.into()), until: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_exits_at_once_leaves_the_old_one_serving_and_is_not_tried_again() {
    let mut agent = with_shop().await;
    let before = agent.instance_ids("shop").await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["exit", "7", "no", "such", "table"], "200ms", ""));
    agent.repo.push("bad");
    agent.rest(&["shop"]).await;
    let failed = agent.deployment_of("shop", 2).await;
    assert_eq!(failed.outcome, Some(DeploymentOutcome::Failed));
    let failure = failed.failure.expect("a failure");
    assert_eq!((failure.code.as_str(), failure.phase), ("exited_early", Phase::Starting));
    assert_eq!((failure.object.as_deref(), failure.exit.as_deref()), (Some("main"), Some("exit code 7")));
    assert_eq!(failure.log_tail.last().map(|line| line.contains("no such table")), Some(true), "{failure:?}");
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.live_version), (AppState::Deployed, Some(number(1))));
    assert!(app.message.as_ref().is_some_and(|m| m.contains("v2 failed") && m.contains("exit code 7")), "{app:?}");
    assert_eq!(agent.instance_ids("shop").await, before, "the old version never noticed");
    assert_eq!(agent.version("shop", 2).await.status, VersionStatus::Failed);
    assert_eq!(agent.events("shop", EventKind::DeploymentFailed).await.len(), 1);

    // A commit elsewhere, a look, a fresh start of what is live: none of them tries the same content again.
    agent.repo.app("blog", "hello");
    agent.repo.push("blog");
    agent.rest(&["shop", "blog"]).await;
    agent.client.rollover(None, &name("shop"), &api::ReasonRequest::default()).await.expect("accepted");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));

    agent.repo.app("shop", "mended");
    agent.repo.push("mended");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "mended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_never_becomes_ready_leaves_the_old_one_serving() {
    let mut agent = with_shop().await;
    let never = manifest("shop", &["serve"], "200ms", "").replace("interval: 50ms", "interval: 50ms, deadline: 1s");
    agent.repo.write("shop/landfall.yaml", never).write("shop/health", "503");
    agent.repo.push("ill");
    agent.rest(&["shop"]).await;
    let failure = agent.deployment_of("shop", 2).await.failure.expect("a failure");
    assert_eq!((failure.code.as_str(), failure.phase), ("not_ready", Phase::Starting));
    assert!(failure.last_probe.as_ref().is_some_and(|probe| probe.contains("503")), "{failure:?}");
    assert!(failure.message.contains("health.deadline"), "{}", failure.message);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    assert_eq!(agent.instance_ids("shop").await.len(), 1, "what was started is gone");
    let problem = refusal(agent.client.rollback(None, &name("shop"), &api::RollbackRequest::default()).await);
    assert_eq!(problem.status, 409, "there is nothing before v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_first_version_fails_is_failed_until_mended() {
    let mut agent = Agent::start().await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["exit", "1", "oh"], "200ms", ""));
    agent.repo.push("bad");
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.live_version), (AppState::Failed, None));
    assert!(app.message.is_some_and(|message| message.contains("v1 failed")));
    let problem = refusal(agent.client.rollover(None, &name("shop"), &api::ReasonRequest::default()).await);
    assert_eq!(problem.status, 409);
    agent.repo.app("shop", "mended");
    agent.repo.push("mended");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.shown("shop").await.state, AppState::Deployed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_app_stays_as_it_is_and_resumes_with_the_newest() {
    let mut agent = with_shop().await;
    let app = agent.client.suspend(None, &name("shop"), &why("audit")).await.expect("suspended");
    assert_eq!(app.state, AppState::Suspended);
    assert_eq!(app.suspension.expect("a suspension").reason, "audit");
    for content in ["two", "three"] {
        agent.repo.app("shop", content);
        agent.repo.push(content);
        agent.rest(&["shop"]).await;
    }
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
    let problem = agent.refused_rollback("shop", api::RollbackRequest::default()).await;
    assert!(problem.detail.contains("audit") || problem.title.contains("audit"), "{problem:?}");
    assert!(problem.mend.contains("app resume"), "{problem:?}");
    agent.client.resume(None, &name("shop")).await.expect("resumed");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 2), "only the newest content is deployed");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "three");
    assert_eq!(refusal(agent.client.resume(None, &name("shop")).await).status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_with_a_time_ends_by_itself() {
    let mut agent = with_shop().await;
    let request = api::SuspendRequest { until: Some(from_now(Duration::from_secs(2))), ..why("lunch") };
    agent.client.suspend(None, &name("shop"), &request).await.expect("suspended");
    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.until_body("shop", "two").await;
    let app = agent.shown("shop").await;
    assert_eq!(app.suspension, None);
    assert!(agent.version("shop", 2).await.created_at >= request.until.expect("a time"), "not before its time");
    let past = api::SuspendRequest { until: Some(from_now(Duration::ZERO) - Duration::from_secs(9)), ..why("late") };
    assert_eq!(refusal(agent.client.suspend(None, &name("shop"), &past).await).status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_cancels_a_deployment_that_has_not_switched_and_resuming_does_it_again() {
    let mut agent = with_shop().await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve-after", "3000"], "200ms", ""));
    agent.repo.write("shop/content.txt", "two");
    agent.repo.push("slow");
    agent.until_app("shop", "v2 is on its way", |app| app.state == AppState::Deploying).await;
    agent.client.suspend(None, &name("shop"), &why("wait")).await.expect("suspended");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.version("shop", 2).await.status, VersionStatus::Cancelled);
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 2));
    agent.client.resume(None, &name("shop")).await.expect("resumed");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_app_says_who_and_when_and_starts_with_other_content() {
    let mut agent = with_shop().await;
    agent.stop_app("shop", "moved away").await.expect("stopped");
    until("its instances are gone", || async {
        let left = agent.client.instances(None, Some(&name("shop"))).await.map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.live_version), (AppState::Stopped, None));
    let stopped = app.stopped.expect("a stop");
    assert_eq!(stopped.reason.as_deref(), Some("moved away"));
    let answer = agent.get("shop", "/").await.expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("moved away") && answer.body.contains(&stopped.actor), "{answer:?}");

    let problem = refusal(agent.stop_app("shop", "again").await);
    assert_eq!((problem.status, problem.code.as_str()), (409, "conflict"));
    let said = format!("{} {}", problem.title, problem.detail);
    let second = stopped.at.as_second();
    let when = jiff::Timestamp::from_second(second).expect("a time").to_string();
    assert!(said.contains(&stopped.actor) && said.contains(&when) && said.contains("moved away"), "{said}");

    // The same content does not start it, and neither does a fresh agent.
    agent.rest(&["shop"]).await;
    agent.stop();
    agent.launch();
    agent.until_up().await;
    agent.rest(&["shop"]).await;
    assert_eq!(agent.shown("shop").await.state, AppState::Stopped);
    let answer = agent.get("shop", "/").await.expect("an answer");
    assert!(answer.status == 503 && answer.body.contains("moved away"), "{answer:?}");

    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 2));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "two");
    assert_eq!(agent.shown("shop").await.stopped, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_deployment_on_its_way_too() {
    let mut agent = with_shop().await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve-after", "600000"], "200ms", ""));
    agent.repo.push("slow");
    agent.until_app("shop", "v2 is on its way", |app| app.state == AppState::Deploying).await;
    agent.stop_app("shop", "enough").await.expect("stopped");
    agent.rest(&["shop"]).await;
    agent.until_app("shop", "it is stopped", |app| app.state == AppState::Stopped).await;
    assert_eq!(agent.version("shop", 2).await.status, VersionStatus::Cancelled);
    assert_eq!(agent.live_and_newest("shop").await, (None, 2));
    until("everything is gone", || async {
        let left = agent.instance_ids("shop").await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// A directory with an app that serves this content.
fn directory(agent: &Agent, app: &str, content: &str) -> std::path::PathBuf {
    let directory = agent.root.join(format!("upload-{app}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("landfall.yaml"), crate::support::web_manifest(app, "")).expect("written");
    std::fs::write(directory.join("content.txt"), content).expect("written");
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_directory_becomes_a_version_without_git() {
    let agent = with_shop().await;
    let accepted = agent.client.deploy(None, &directory(&agent, "blog", "hello"), Some("try")).await.expect("accepted");
    assert_eq!((accepted.version, accepted.changed), (Some(number(1)), true));
    agent.rest_of("blog").await;
    assert_eq!(agent.get("blog", "/").await.expect("an answer").body, "hello");
    let version = agent.version("blog", 1).await;
    assert_eq!((version.commit, version.reason.as_deref()), (None, Some("try")));
    let app = agent.shown("blog").await;
    assert_eq!((app.state, app.source, app.hold), (AppState::Deployed, None, None));

    let again = agent.client.deploy(None, &directory(&agent, "blog", "hello"), None).await.expect("accepted");
    assert!(!again.changed && again.message.contains("no changes"), "{again:?}");
    assert_eq!(agent.live_and_newest("blog").await, (Some(1), 1));
    // A reading of the source says nothing about it.
    agent.rest(&["blog"]).await;
    agent.client.deploy(None, &directory(&agent, "blog", "bye"), None).await.expect("accepted");
    agent.rest_of("blog").await;
    assert_eq!(agent.get("blog", "/").await.expect("an answer").body, "bye");
    assert_eq!(agent.shown("blog").await.hold, None);
    // Stopped, it starts again by an upload of the same content.
    agent.stop_app("blog", "pause").await.expect("stopped");
    let accepted = agent.client.deploy(None, &directory(&agent, "blog", "bye"), None).await.expect("accepted");
    assert_eq!(accepted.version, Some(number(3)));
    agent.rest_of("blog").await;
    assert_eq!(agent.get("blog", "/").await.expect("an answer").body, "bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_an_app_of_git_is_a_hold_until_git_has_something_else() {
    let mut agent = with_shop().await;
    agent.client.deploy(None, &directory(&agent, "shop", "hotfix"), Some("quick mend")).await.expect("accepted");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "hotfix");
    let app = agent.shown("shop").await;
    let hold = app.hold.expect("a hold");
    assert_eq!((app.state, hold.version, hold.reason.as_str()), (AppState::Held, number(2), "quick mend"));
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 2));
    // What git asked for was not bad, only passed over.
    assert!(!agent.version("shop", 1).await.quarantined);
    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "two");
    assert_eq!(agent.shown("shop").await.hold, None);

    // Released by a person, it goes back to what git asks for at once.
    agent.client.deploy(None, &directory(&agent, "shop", "hotfix two"), None).await.expect("accepted");
    agent.rest(&["shop"]).await;
    agent.release("shop", false).await.expect("released");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollover_starts_the_same_content_as_a_new_version() {
    let agent = with_shop().await;
    let before = agent.instance_ids("shop").await;
    let request = api::ReasonRequest { reason: Some("leak".into()) };
    let accepted = agent.client.rollover(None, &name("shop"), &request).await.expect("accepted");
    assert_eq!(accepted.version, Some(number(2)));
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 2));
    let version = agent.version("shop", 2).await;
    assert_eq!(
        (version.kind.as_str(), version.rollover_of, version.reason.as_deref()),
        ("rollover", Some(number(1)), Some("leak"))
    );
    assert_ne!(agent.instance_ids("shop").await, before);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    assert_eq!(agent.shown("shop").await.state, AppState::Deployed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollover_of_a_held_version_keeps_the_hold() {
    let mut agent = with_shop().await;
    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.rest(&["shop"]).await;
    agent.rollback("shop", api::RollbackRequest { reason: Some("bad prices".into()), ..Default::default() }).await;
    agent.rest(&["shop"]).await;
    agent.client.rollover(None, &name("shop"), &api::ReasonRequest::default()).await.expect("accepted");
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    let hold = app.hold.expect("a hold");
    assert_eq!((app.live_version, hold.version, hold.reason.as_str()), (Some(number(4)), number(4), "bad prices"));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gone_from_its_source_is_stopped_and_comes_back_with_it() {
    let mut agent = with_shop().await;
    agent.repo.app("blog", "hello");
    agent.repo.push("blog");
    agent.rest(&["shop", "blog"]).await;
    agent.repo.remove("shop");
    agent.repo.push("shop is gone");
    agent.rest(&["shop", "blog"]).await;
    let app = agent.shown("shop").await;
    assert_eq!(app.state, AppState::Stopped);
    assert!(app.message.is_some_and(|message| message.contains("source")));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").status, 503);
    assert_eq!(agent.get("blog", "/").await.expect("an answer").body, "hello");
    agent.repo.app("shop", "one");
    agent.repo.push("shop is back");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_repository_or_a_broken_manifest_stops_nothing() {
    let mut agent = with_shop().await;
    agent.repo.remove("shop").write("README", "nothing here");
    agent.repo.push("oops");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.shown("shop").await.state, AppState::Deployed);
    let status = agent.client.status().await.expect("status");
    assert!(status.problems.iter().any(|problem| problem.contains("no manifest at all")), "{:?}", status.problems);
    agent
        .repo
        .write("shop/landfall.yaml", "app: shop\nweb: [\n")
        .write("blog/landfall.yaml", manifest("blog", &["serve"], "100ms", ""));
    agent.repo.push("broken");
    agent.rest(&["shop", "blog"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.live_version), (AppState::Deployed, Some(number(1))));
    assert!(app.manifest_error.is_some(), "{app:?}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_moves_to_another_directory_goes_on() {
    let mut agent = with_shop().await;
    agent.repo.app("blog", "hello");
    agent.repo.push("blog");
    agent.rest(&["shop", "blog"]).await;
    let before = agent.instance_ids("shop").await;
    let manifest = crate::support::web_manifest("shop", "");
    agent.repo.remove("shop").write("stores/main/landfall.yaml", manifest).write("stores/main/content.txt", "one");
    agent.repo.push("moved");
    agent.rest(&["shop", "blog"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.path.as_deref()), (AppState::Deployed, Some("stores/main")));
    assert_eq!(agent.instance_ids("shop").await, before, "the same content is the same version");
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_instance_is_taken_out_started_again_and_told_of() {
    let mut agent = Agent::start().await;
    let two = format!(
        "app: shop\nbake: 100ms\nweb:\n  main:\n    command: {}\n    instances: 2\n    health: {{path: /healthz, interval: 50ms}}\n",
        command(&["serve"])
    );
    agent.repo.write("shop/landfall.yaml", two).write("shop/content.txt", "one");
    agent.repo.push("one");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.instance_ids("shop").await.len(), 2);
    agent.crash("shop", 4).await;
    for _ in 0..20 {
        let answer = agent.get("shop", "/").await.expect("an answer");
        assert_eq!(answer.status, 200, "the other instance serves: {answer:?}");
    }
    agent.until_app("shop", "both are ready again", |app| app.ready == 2).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
    let instances = agent.client.instances(None, Some(&name("shop"))).await.expect("instances");
    assert_eq!(instances.iter().map(|instance| instance.restarts).sum::<u32>(), 1, "{instances:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_instance_is_replaced_and_no_request_notices() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "one");
    agent.repo.push("one");
    agent.rest(&["shop"]).await;
    let first = agent.instances("shop").await.expect("instances")[0].instance.clone();
    agent.client.stop_instance(first.as_str()).await.expect("taken");
    until("another has taken its place", || async {
        let answer = agent.get("shop", "/").await?;
        assert_eq!((answer.status, answer.body.as_str()), (200, "one"), "{answer:?}");
        let now = agent.instances("shop").await?;
        let replaced = matches!(now.as_slice(), [only] if only.instance != first && only.state == InstanceState::Ready);
        if replaced { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let gone = refusal(agent.client.stop_instance(first.as_str()).await);
    assert_eq!(gone.status, 404);
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1), "it is the same version");
}
