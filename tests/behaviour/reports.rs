//! What became of a commit is told to its forge: once it has begun, and once it is over. A real HTTP receiver stands in
//! for the forge, and behaves as the documents of GitHub, GitLab and Gitea say, or badly.

use landfall::domain::{AppKey, CommitReport, CommitState};
use landfall::files::config::{ForgeKind, StatusReports};
use landfall::notify::Delivery;
use landfall::notify::forge::{Caller, Forge};
use landfall::wire::api;

use crate::support::asking::{back_to, manifest};
use crate::support::receiver::{Answer, Receiver};
use crate::support::{Agent, Setup, until};

const TOKEN: &str = "s3cret-t0ken";

/// An agent whose source reports to this receiver as if it were GitHub.
async fn agent_reporting_to(receiver: &Receiver, prepare: impl FnOnce(&mut Setup)) -> Agent {
    let mut setup = Setup::new();
    let token = setup.dir.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).expect("the token");
    setup.sources = Some(format!(
        "agent_name: box\nsources:\n  - name: fleet\n    git:\n      url: {}\n      branch: main\n      status: {{provider: github, api_url: \"http://{}\", repository: acme/fleet, token_file: {}}}\n",
        setup.repo.path().display(),
        receiver.address,
        token.display()
    ));
    setup.api = ", public_url: \"https://deploy.example.org/\"".to_owned();
    prepare(&mut setup);
    setup.start().await
}

async fn reports(agent: &Agent, what: &str, holds: impl Fn(&api::Standing) -> bool) -> api::Standing {
    until(what, || async {
        let sources = agent.client.sources().await.map_err(|error| error.to_string())?;
        let found = sources.into_iter().next().and_then(|source| source.reports);
        found.filter(|reports| holds(reports)).ok_or_else(|| "not yet".to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_pending_once_and_then_succeeds_or_fails() {
    let receiver = Receiver::start().await;
    let mut first = String::new();
    let mut agent = agent_reporting_to(&receiver, |setup| {
        setup.repo.app("shop", "first\n");
        first = setup.repo.push("first");
    })
    .await;
    receiver.until_states(&first, &["pending", "success"]).await;
    let request = receiver.requests().into_iter().next().expect("a request");
    assert_eq!(request.path, format!("/repos/acme/fleet/statuses/{first}"));
    assert_eq!(request.body["context"], "landfall/box/main/shop");
    assert_eq!(request.body["target_url"], "https://deploy.example.org/v1/apps/shop?environment=main");
    assert!(request.head.contains(&format!("Bearer {TOKEN}")), "{}", request.head);

    agent.repo.write("shop/landfall.yaml", manifest("shop", &["exit", "3"], "200ms", ""));
    let broken = agent.repo.push("broken");
    receiver.until_states(&broken, &["pending", "failure"]).await;
    let told = receiver.requests().into_iter().rfind(|request| request.path.ends_with(&broken)).expect("told");
    let words = told.body["description"].as_str().expect("words");
    assert!(words.contains("failed") && words.chars().count() <= 140, "{words}");

    agent.repo.app("shop", "third\n");
    let third = agent.repo.push("third");
    receiver.until_states(&third, &["pending", "success"]).await;
    agent.rest_of("shop").await;
    agent.rollback("shop", back_to(None)).await;
    agent.until_body("shop", "first\n").await;
    receiver.until_states(&third, &["pending", "success", "failure"]).await;
    receiver.until_states(&first, &["pending", "success", "success"]).await;
    agent.repo.write("shop/content.txt", "fourth\n");
    let fourth = agent.repo.push("fourth");
    receiver.until_states(&fourth, &["pending", "success"]).await;
    agent.rest_of("shop").await;
    agent.repo.write("shop/content.txt", "third\n");
    let again = agent.repo.push("third again");
    receiver.until_states(&again, &["failure"]).await;
    assert_eq!(receiver.states(&third), ["pending", "success", "failure"], "nothing is told twice");
    let shown = reports(&agent, "all is told", |reports| reports.queued == 0).await;
    assert_eq!(shown.error, None);
    assert!(!agent.log().contains(TOKEN), "the token is in no log");
    let ledger = std::fs::read(agent.root.join("data/ledger.db")).expect("the ledger");
    assert!(!ledger.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "nor in the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_refuses_is_tried_again_and_shown() {
    let receiver = Receiver::start().await;
    receiver.script(&[
        Answer::Refused("429 Too Many Requests\r\nretry-after: 1"),
        Answer::Refused("500 Internal Server Error"),
    ]);
    let mut first = String::new();
    let mut agent = agent_reporting_to(&receiver, |setup| {
        setup.repo.app("shop", "first\n");
        first = setup.repo.push("first");
    })
    .await;
    // The state before was tried in vain and is old news by then.
    until("the outcome is told", || async {
        let now = receiver.states(&first);
        if now.last().is_some_and(|state| state == "success") { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;

    receiver.otherwise(Answer::Refused("401 Unauthorized"));
    agent.repo.app("shop", "second\n");
    let second = agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
    let shown = reports(&agent, "the refusal is shown", |reports| reports.error.is_some()).await;
    let error = shown.error.unwrap_or_default();
    assert!(error.contains("401") && error.contains("token_file") && !error.contains(TOKEN), "{error}");
    assert!(shown.failing_since.is_some() && shown.queued > 0);

    receiver.otherwise(Answer::Created);
    until("the outcome is told", || async {
        let now = receiver.states(&second);
        if now.last().is_some_and(|state| state == "success") { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    reports(&agent, "all is well", |reports| reports.error.is_none() && reports.queued == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_forge_delays_nothing_and_what_it_missed_is_told_after_a_crash() {
    let receiver = Receiver::start().await;
    receiver.otherwise(Answer::Hang);
    let mut first = String::new();
    let agent = agent_reporting_to(&receiver, |setup| {
        setup.repo.app("shop", "first\n");
        first = setup.repo.push("first");
    })
    .await;
    agent.until_body("shop", "first\n").await;
    agent.until_done("shop").await;
    assert!(receiver.states(&first).is_empty(), "nothing was taken, and the deployment is over");
    let killed = agent.kill_controller().await;
    receiver.otherwise(Answer::Created);
    agent.until_new_controller(killed).await;
    receiver.until_states(&first, &["pending", "success"]).await;
}

#[tokio::test]
async fn each_forge_is_told_in_its_own_words() {
    let receiver = Receiver::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, TOKEN).expect("the token");
    let commit = "a".repeat(40);
    let report = CommitReport {
        commit: commit.parse().expect("a commit"),
        app: Some(AppKey::new("prod".parse().expect("a name"), "shop".parse().expect("a name"))),
        state: CommitState::Failure,
        description: "it failed".into(),
    };
    for (provider, repository, path, state, header) in [
        (ForgeKind::GitHub, "a/b", "/api/repos/a/b/statuses/", "failure", format!("authorization: Bearer {TOKEN}")),
        (ForgeKind::GitLab, "g/s/b", "/api/projects/g%2Fs%2Fb/statuses/", "failed", format!("private-token: {TOKEN}")),
        (ForgeKind::Gitea, "a/b", "/api/repos/a/b/statuses/", "failure", format!("authorization: token {TOKEN}")),
    ] {
        let reports = StatusReports {
            provider,
            api_url: format!("http://{}/api", receiver.address),
            repository: repository.into(),
            token_file: token_file.clone(),
        };
        let caller = Caller { agent: "box".into(), environment: "prod".parse().expect("a name"), public_url: None };
        let forge = Forge::new(reports, None, caller).expect("a client");
        assert_eq!(forge.deliver(&report).await, Delivery::Delivered);
        let told = receiver.requests().pop().expect("a request");
        assert_eq!((told.path, told.body["state"].as_str()), (format!("{path}{commit}"), Some(state)));
        assert_eq!(told.body["context"], "landfall/box/prod/shop");
        assert!(told.head.contains(&header), "{}", told.head);
        receiver.script(&[Answer::Refused("422 Unprocessable Entity")]);
        assert!(matches!(forge.deliver(&report).await, Delivery::Never { .. }));
    }
}
