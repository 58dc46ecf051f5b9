//! Rollback, hold, quarantine, release: what git asks for against what a person or the agent decided.

use std::time::Duration;

use landfall::domain::{DeploymentOutcome, EventKind, Phase, VersionStatus};
use landfall::wire::api;
use landfall::wire::api::AppState;

use crate::support::Agent;
use crate::support::asking::{back_to, from_now, manifest, refusal};

/// An agent whose app `shop` has these contents as its versions 1, 2, …, each live for its whole bake time.
async fn with_versions(contents: &[&str]) -> Agent {
    let mut agent = Agent::start().await;
    for content in contents {
        agent.repo.app("shop", content);
        agent.repo.push(content);
        agent.rest(&["shop"]).await;
    }
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_holds_the_version_before_until_git_has_something_new_for_this_app() {
    let mut agent = with_versions(&["one", "two"]).await;
    let until = from_now(Duration::from_secs(3600));
    let request = api::RollbackRequest {
        version: None,
        reason: Some("prices are wrong".into()),
        until: Some(until),
        propose: false,
    };
    let accepted = agent.rollback("shop", request).await;
    assert_eq!(accepted.version.map(|version| version.get()), Some(3), "{}", accepted.message);
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    let app = agent.shown("shop").await;
    assert_eq!(app.state, AppState::Held);
    let hold = app.hold.expect("a hold");
    assert_eq!((hold.version.get(), hold.reason.as_str()), (3, "prices are wrong"));
    assert_eq!(hold.until.map(|at| at.as_microsecond()), Some(until.as_microsecond()));
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let version = agent.version("shop", 3).await;
    assert_eq!((version.kind.as_str(), version.rollback_of.map(|v| v.get())), ("rollback", Some(1)));
    if let Some(user) = user {
        assert!(version.actor.contains(&user), "{}", version.actor);
        assert!(hold.actor.to_string().contains(&user), "{}", hold.actor);
    }
    assert!(agent.version("shop", 2).await.quarantined && !version.quarantined);

    // Another app's commit is none of this app's business.
    agent.repo.app("blog", "hello");
    agent.repo.push("blog");
    agent.rest(&["shop", "blog"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));
    assert!(agent.shown("shop").await.hold.is_some());

    agent.repo.app("shop", "three");
    agent.repo.push("mended");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "three");
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.hold), (AppState::Deployed, None));
    assert_eq!(agent.events("shop", EventKind::Released).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_rollbacks_walk_backwards_and_stop_at_the_first_version() {
    let agent = with_versions(&["one", "two", "three"]).await;
    for expected in ["two", "one"] {
        agent.rollback("shop", back_to(None)).await;
        agent.rest(&["shop"]).await;
        assert_eq!(agent.get("shop", "/").await.expect("an answer").body, expected);
    }
    let problem = agent.refused_rollback("shop", back_to(None)).await;
    assert_eq!((problem.status, problem.code.as_str()), (409, "conflict"));
    assert!(problem.mend.contains("app history"), "{problem:?}");
    assert_eq!(agent.live_and_newest("shop").await, (Some(5), 5));
    assert!(agent.version("shop", 3).await.quarantined && agent.version("shop", 2).await.quarantined);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_names_a_version_or_is_told_why_not() {
    let agent = with_versions(&["one", "two", "three"]).await;
    let problem = agent.refused_rollback("shop", back_to(Some(9))).await;
    assert_eq!((problem.status, problem.code.as_str()), (404, "not_found"), "{problem:?}");
    let problem = agent.refused_rollback("shop", back_to(Some(3))).await;
    assert_eq!(problem.status, 409, "{problem:?}");
    assert!(problem.mend.contains("rollover"), "{problem:?}");
    let past =
        api::RollbackRequest { until: Some(from_now(Duration::ZERO) - Duration::from_secs(5)), ..back_to(Some(1)) };
    let problem = agent.refused_rollback("shop", past).await;
    assert_eq!((problem.status, problem.code.as_str()), (422, "invalid"), "{problem:?}");
    agent.rollback("shop", back_to(Some(1))).await;
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    // A person may go forward again to what was quarantined; that lifts its quarantine.
    agent.rollback("shop", back_to(Some(3))).await;
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "three");
    assert!(!agent.version("shop", 3).await.quarantined);
    assert_eq!(agent.shown("shop").await.hold, None, "git asks for just this content");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_going_back_to_the_held_content_ends_the_hold_without_a_restart() {
    let mut agent = with_versions(&["one", "two"]).await;
    agent.rollback("shop", back_to(None)).await;
    agent.rest(&["shop"]).await;
    let instances = agent.instance_ids("shop").await;
    agent.repo.app("shop", "one");
    agent.repo.push("revert");
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.hold), (AppState::Deployed, None));
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));
    assert_eq!(agent.instance_ids("shop").await, instances, "nothing was started or stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_at_its_time_and_the_quarantine_stays() {
    let agent = with_versions(&["one", "two"]).await;
    // Long enough for the rollback itself.
    agent
        .rollback("shop", api::RollbackRequest { until: Some(from_now(Duration::from_secs(8))), ..back_to(None) })
        .await;
    agent.until_live("shop", 3).await;
    assert!(agent.shown("shop").await.hold.is_some());
    let app = agent.until_app("shop", "the hold has ended", |app| app.hold.is_none()).await;
    assert_eq!(app.live_version.map(|version| version.get()), Some(3));
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));
    assert!(app.message.as_ref().is_some_and(|message| message.contains("quarantined")), "{app:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn release_ends_the_hold_and_only_force_starts_quarantined_content() {
    let agent = with_versions(&["one", "two"]).await;
    agent.rollback("shop", back_to(None)).await;
    agent.rest(&["shop"]).await;
    let accepted = agent.release("shop", false).await.expect("released");
    assert!(accepted.changed && accepted.version.is_none(), "{accepted:?}");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));
    let problem = refusal(agent.release("shop", false).await);
    assert_eq!(problem.status, 409);
    assert!(problem.mend.contains("--force"), "{problem:?}");
    let accepted = agent.release("shop", true).await.expect("forced");
    assert_eq!(accepted.version.map(|version| version.get()), Some(4));
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "two");
    assert!(!agent.version("shop", 2).await.quarantined);
    let again = agent.release("shop", false).await.expect("nothing to do");
    assert!(!again.changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushing_quarantined_content_again_does_nothing_but_say_so() {
    let mut agent = with_versions(&["one", "two"]).await;
    agent.rollback("shop", back_to(None)).await;
    agent.rest(&["shop"]).await;
    agent.repo.app("shop", "three");
    agent.repo.push("mended");
    agent.rest(&["shop"]).await;
    let said = agent.events("shop", EventKind::Quarantined).await.len();
    agent.repo.app("shop", "two");
    agent.repo.push("once more");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(4), 4));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "three");
    let now = agent.events("shop", EventKind::Quarantined).await;
    assert_eq!(now.len(), said + 1, "{now:?}");
    assert!(now.last().is_some_and(|message| message.contains("release --force")), "{now:?}");
    // Looking again is no news.
    agent.rest(&["shop"]).await;
    assert_eq!(agent.events("shop", EventKind::Quarantined).await.len(), said + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_during_a_deployment_keeps_what_is_live() {
    let mut agent = with_versions(&["one", "two"]).await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve-after", "600000"], "200ms", ""));
    agent.repo.push("slow");
    agent.until_app("shop", "v3 is on its way", |app| app.state == AppState::Deploying).await;
    let instances_before = agent.get("shop", "/").await.expect("an answer").version;
    let accepted = agent.rollback("shop", back_to(None)).await;
    assert_eq!(accepted.version.map(|version| version.get()), Some(2), "{accepted:?}");
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.live_version.map(|v| v.get())), (AppState::Held, Some(2)));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").version, instances_before);
    let unwanted = agent.version("shop", 3).await;
    assert!(unwanted.quarantined);
    assert_eq!(unwanted.status, VersionStatus::Cancelled);
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 3));
}

/// From the record of a deployment to the switch of its version.
fn took(deployment: &api::Deployment) -> f64 {
    let switched = deployment.phases.iter().find(|phase| phase.phase == Phase::Switching).expect("it switched").at;
    switched.duration_since(deployment.created_at).as_secs_f64() * 1000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_needs_neither_the_remote_nor_a_build() {
    let mut agent = Agent::start().await;
    let trace = agent.root.join("builds");
    let building = format!("build: {{command: [sh, -c, \"cat content.txt >> {}\"]}}\n", trace.display());
    for content in ["one", "two", "three"] {
        agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve"], "200ms", &building));
        agent.repo.write("shop/content.txt", content);
        agent.repo.push(content);
        agent.rest(&["shop"]).await;
    }
    assert_eq!(std::fs::read_to_string(&trace).expect("the trace"), "onetwothree");
    std::fs::rename(agent.repo.path(), agent.root.join("gone.git")).expect("the repository goes away");
    for expected in ["two", "one"] {
        agent.rollback("shop", back_to(None)).await;
        agent.rest_of("shop").await;
        assert_eq!(agent.get("shop", "/").await.expect("an answer").body, expected);
    }
    assert_eq!(std::fs::read_to_string(&trace).expect("the trace"), "onetwothree", "nothing was built again");
    agent
        .client
        .rollover(None, &"shop".parse().expect("a name"), &api::ReasonRequest::default())
        .await
        .expect("accepted");
    agent.rest_of("shop").await;
    let mut figures = Vec::new();
    for version in 4..=6 {
        let deployment = agent.deployment_of("shop", version).await;
        assert_eq!(deployment.outcome, Some(DeploymentOutcome::Succeeded));
        assert!(!deployment.phases.iter().any(|phase| phase.phase == Phase::Building), "{deployment:?}");
        figures.push(format!("{} {:.1} ms", deployment.kind, took(&deployment)));
    }
    println!("from the record to the switch, the remote gone: {}", figures.join(", "));
}

/// Waits until the instance that serves is another one than before, then ends it once more.
async fn crash_until_noticed(agent: &Agent, app: &str) {
    agent.crash(app, 3).await;
    agent.until_served(app).await;
    agent.crash(app, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_crashes_after_its_switch_is_rolled_back_once_by_the_agent() {
    let mut agent = with_versions(&["one"]).await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve"], "60s", "")).write("shop/content.txt", "bad");
    agent.repo.push("bad");
    agent.until_live("shop", 2).await;
    crash_until_noticed(&agent, "shop").await;
    agent.until_live("shop", 3).await;
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    let hold = app.hold.expect("a hold");
    assert_eq!((app.state, hold.version.get(), hold.actor.to_string().as_str()), (AppState::Held, 3, "agent"));
    assert!(hold.reason.contains("v2") && hold.reason.contains("exit code 3"), "{}", hold.reason);
    let bad = agent.deployment_of("shop", 2).await;
    assert_eq!(bad.outcome, Some(DeploymentOutcome::RolledBack));
    let failure = bad.failure.expect("a failure");
    assert_eq!((failure.phase, failure.code.as_str()), (Phase::Baking, "bake_failed"), "{failure:?}");
    let version = agent.version("shop", 3).await;
    assert_eq!((version.rollback_of.map(|v| v.get()), version.actor.as_str()), (Some(1), "agent"));
    assert!(agent.version("shop", 2).await.quarantined);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    assert_eq!(agent.events("shop", EventKind::Rollback).await.len(), 1);
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3), "git still asks for v2; nothing is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_fails_too_is_not_rolled_back_again() {
    let mut agent = Agent::start().await;
    for content in ["one", "two", "three"] {
        agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve"], "60s", ""));
        agent.repo.write("shop/content.txt", content);
        agent.repo.push(content);
        let version = ["one", "two", "three"].iter().position(|c| *c == content).expect("there") as u32 + 1;
        agent.until_live("shop", version).await;
    }
    crash_until_noticed(&agent, "shop").await;
    agent.until_live("shop", 4).await;
    crash_until_noticed(&agent, "shop").await;
    agent.rest_of("shop").await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(4), 4), "it stays, and people are told");
    agent.until_served("shop").await;
    agent.crash("shop", 3).await;
    agent.until_app("shop", "it is shown as crashing", |app| app.state == AppState::Crashing).await;
    let deployment = agent.deployment_of("shop", 4).await;
    assert_eq!(deployment.outcome, Some(DeploymentOutcome::Failed), "{deployment:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_version_that_crashes_stays_and_is_shown_as_crashing() {
    let mut agent = Agent::start().await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &["serve"], "60s", "")).write("shop/content.txt", "bad");
    agent.repo.push("bad");
    agent.until_live("shop", 1).await;
    crash_until_noticed(&agent, "shop").await;
    agent.rest_of("shop").await;
    agent.until_served("shop").await;
    agent.crash("shop", 3).await;
    let app = agent.until_app("shop", "it is crashing", |app| app.state == AppState::Crashing).await;
    assert!(app.message.as_ref().is_some_and(|message| message.contains("exit code 3")), "{app:?}");
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
    assert_eq!(agent.events("shop", EventKind::AppCrashing).await.len(), 1);
    assert_eq!(app.hold, None);
    // It goes on being started.
    assert_eq!(agent.until_served("shop").await, "bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_asked_for_twice_is_one_rollback() {
    let mut agent = Agent::start().await;
    for (content, command) in [("one", ["serve-after", "1500"]), ("two", ["serve-after", "0"])] {
        agent.repo.write("shop/landfall.yaml", manifest("shop", &command, "200ms", ""));
        agent.repo.write("shop/content.txt", content);
        agent.repo.push(content);
        agent.rest(&["shop"]).await;
    }
    let first = agent.rollback("shop", back_to(None)).await;
    let second = agent.rollback("shop", back_to(None)).await;
    assert!(first.changed && !second.changed, "{second:?}");
    assert_eq!((second.version, second.deployment), (first.version, first.deployment), "{second:?}");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "one");
    assert!(!agent.version("shop", 1).await.quarantined);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_does_not_come_up_leaves_what_is_live_and_no_hold() {
    let mut agent = Agent::start().await;
    let flag = agent.root.join("database");
    std::fs::write(&flag, "").expect("written");
    let needy = format!("{{sh, -c, \"test -e {} && exec {} serve\"}}", flag.display(), crate::support::test_app())
        .replace('{', "[")
        .replace('}', "]");
    let one = manifest("shop", &["serve"], "200ms", "").replace(&crate::support::asking::command(&["serve"]), &needy);
    agent.repo.write("shop/landfall.yaml", one).write("shop/content.txt", "one");
    agent.repo.push("one");
    agent.rest(&["shop"]).await;
    agent.repo.app("shop", "two");
    agent.repo.push("two");
    agent.rest(&["shop"]).await;
    std::fs::remove_file(&flag).expect("removed");
    agent.rollback("shop", back_to(None)).await;
    agent.rest(&["shop"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.hold), (AppState::Deployed, None), "{:?}", app.message);
    assert!(app.message.is_some_and(|message| message.contains("v3 failed")));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "two");
    assert_eq!(agent.live_and_newest("shop").await, (Some(2), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposed_revert_is_a_branch_of_its_own_and_the_followed_one_is_not_touched() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "good\n").app("blog", "blog\n");
    agent.repo.push("good");
    agent.until_live("shop", 1).await;
    agent.repo.app("shop", "bad\n");
    let bad = agent.repo.push("bad");
    agent.until_live("shop", 2).await;
    let request = api::RollbackRequest { propose: true, ..Default::default() };
    let accepted = agent.client.rollback(None, &"shop".parse().expect("a name"), &request).await.expect("accepted");
    assert!(accepted.message.contains("landfall/shop-v3"), "{}", accepted.message);
    let repository = git2::Repository::open_bare(agent.repo.path()).expect("the repository");
    let head = |branch: &str| {
        let found = repository.find_branch(branch, git2::BranchType::Local).expect("the branch");
        found.get().peel_to_commit().expect("a commit")
    };
    assert_eq!(head("main").id().to_string(), bad);
    let proposed = head("landfall/shop-v3");
    assert_eq!(proposed.parent_id(0).expect("a parent").to_string(), bad);
    let text = |path: &str| {
        let entry = proposed.tree().expect("a tree").get_path(std::path::Path::new(path)).expect("a file");
        String::from_utf8(repository.find_blob(entry.id()).expect("a blob").content().to_vec()).expect("text")
    };
    assert_eq!((text("shop/content.txt").as_str(), text("blog/content.txt").as_str()), ("good\n", "blog\n"));
    agent.until_body("shop", "good\n").await;
}
