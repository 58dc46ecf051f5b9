//! Apps that disappear, move or collide: nothing is lost by a mistake, nothing is stopped for a move.

use landfall::client::ClientError;
use landfall::domain::{EventKind, SourceName, WaitReason};
use landfall::wire::api::{self, AppState};
use nix::sys::signal::Signal;

use crate::support::asking::{name, refusal};
use crate::support::{Agent, Repo, Setup, send_signal, until};

fn fleet() -> SourceName {
    "fleet".parse().expect("a name")
}

async fn look(agent: &Agent) -> api::Source {
    agent.client.sync(&fleet()).await.expect("a look")
}

async fn approve(agent: &Agent, waits: Vec<i64>) -> Result<api::Approved, ClientError> {
    let request = api::ApproveRequest { waits, reason: Some("meant".into()) };
    agent.client.approve(&fleet(), &request).await
}

/// The apps whose removal waits, in order.
fn held(source: &api::Source) -> Vec<&str> {
    let apps = source.waiting.iter().filter_map(|waiting| match &waiting.reason {
        WaitReason::PruneBrake { apps, .. } => Some(apps.iter().map(|app| app.as_str())),
        WaitReason::ForcePush { .. } | WaitReason::Unverified { .. } => None,
    });
    apps.flatten().collect()
}

async fn kill_controller(agent: &Agent) {
    let before = agent.controller_pid().await;
    send_signal(before, Signal::SIGKILL);
    until("another controller answers", || async {
        let status = agent.client.status().await.map_err(|error| error.to_string())?;
        let now = status.processes.controller.pid;
        if now == before { Err(format!("still {now}")) } else { Ok(()) }
    })
    .await;
}

/// Waits until this version, the newest, is recorded as live: a moment after it answers.
async fn until_live(agent: &Agent, app: &str, version: u32) {
    until(&format!("{app} v{version} is live"), || async {
        match agent.live_and_newest(app).await {
            (Some(live), newest) if live == version && newest == version => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn source_events(agent: &Agent, kind: EventKind) -> Vec<String> {
    let all = agent.client.events(0, 1000).await.expect("events");
    all.into_iter().filter(|event| event.event.kind == kind).map(|event| event.event.message).collect()
}

/// An agent with apps `a` to `f`, each serving its name.
async fn six_apps() -> Agent {
    let mut agent = Agent::start().await;
    for app in ["a", "b", "c", "d", "e", "f"] {
        agent.repo.app(app, app);
    }
    agent.repo.push("six apps");
    for app in ["a", "b", "c", "d", "e", "f"] {
        agent.until_body(app, app).await;
    }
    agent.rest(&["a", "b", "c", "d", "e", "f"]).await;
    agent
}

async fn all_run(agent: &Agent, apps: &[&str]) {
    for app in apps {
        assert_eq!(agent.get(app, "/").await.expect("an answer").body, *app, "{app} runs on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_apps_gone_at_once_run_on_until_a_person_approves_exactly_those() {
    let mut agent = six_apps().await;
    let ids = agent.instance_ids("a").await;
    agent.repo.remove("a").remove("b").remove("c");
    agent.repo.push("half of them");
    let source = look(&agent).await;
    assert_eq!(held(&source), ["a", "b", "c"], "{source:?}");
    let shown = source.waiting[0].id;
    let status = agent.client.status().await.expect("the status");
    let problem = status.problems.join("\n");
    assert!(
        problem.contains("3 of 6 apps are gone (a, b, c)") && problem.contains("source approve fleet"),
        "{problem}"
    );
    assert_eq!(source_events(&agent, EventKind::SourceWaiting).await.len(), 1);
    // Neither another commit nor a restart changes what waits.
    agent.repo.write("readme.md", "nothing\n");
    agent.repo.push("something else");
    assert_eq!(look(&agent).await.waiting[0].id, shown);
    agent.stop();
    agent.launch();
    agent.until_up().await;
    assert_eq!(look(&agent).await.waiting[0].id, shown);
    assert_eq!(source_events(&agent, EventKind::SourceWaiting).await.len(), 1, "told once");
    all_run(&agent, &["a", "b", "c", "d", "e", "f"]).await;

    // One comes back and another goes: what was shown is no longer what waits.
    agent.repo.app("a", "a").remove("d");
    agent.repo.push("another set");
    let source = look(&agent).await;
    assert_eq!(held(&source), ["b", "c", "d"]);
    let problem = refusal(approve(&agent, vec![shown]).await);
    assert_eq!(problem.status, 409, "{problem:?}");
    all_run(&agent, &["a", "b", "c", "d", "e", "f"]).await;

    let approved = approve(&agent, vec![source.waiting[0].id]).await.expect("approved");
    assert!(approved.message.contains("b, c, d"), "{}", approved.message);
    assert!(approved.source.waiting.is_empty(), "{approved:?}");
    for app in ["b", "c", "d"] {
        let shown = agent.shown(app).await;
        assert_eq!(shown.state, AppState::Stopped, "{shown:?}");
    }
    all_run(&agent, &["a", "e", "f"]).await;
    let told = source_events(&agent, EventKind::SourceApproved).await;
    assert!(told.len() == 1 && told[0].contains("meant"), "{told:?}");
    // The first `a` was never touched.
    kill_controller(&agent).await;
    look(&agent).await;
    until_live(&agent, "a", 1).await;
    assert_eq!(agent.shown("b").await.state, AppState::Stopped);
    assert!(!ids.is_empty());
    assert!(refusal(approve(&agent, Vec::new()).await).title.contains("nothing"), "nothing waits any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_that_come_back_before_the_approval_are_simply_kept() {
    let mut agent = six_apps().await;
    let before: Vec<_> = agent.instance_ids("b").await;
    for app in ["a", "b", "c", "d"] {
        agent.repo.remove(app);
    }
    agent.repo.push("most of them");
    assert_eq!(held(&look(&agent).await), ["a", "b", "c", "d"]);
    for app in ["a", "b", "c", "d"] {
        agent.repo.app(app, app);
    }
    agent.repo.push("back");
    let source = look(&agent).await;
    assert!(source.waiting.is_empty(), "{source:?}");
    assert_eq!(agent.instance_ids("b").await, before, "never restarted");
    until_live(&agent, "b", 1).await;
    assert_eq!(source_events(&agent, EventKind::SourceSettled).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_apps_goes_without_a_question() {
    let mut agent = Agent::start().await;
    agent.repo.app("a", "a").app("b", "b");
    agent.repo.push("two");
    agent.until_body("a", "a").await;
    agent.until_body("b", "b").await;
    agent.repo.remove("a");
    agent.repo.push("one");
    assert!(look(&agent).await.waiting.is_empty());
    assert_eq!(agent.shown("a").await.state, AppState::Stopped);
    all_run(&agent, &["b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_repository_stops_nothing_and_says_so() {
    let mut agent = six_apps().await;
    for app in ["a", "b", "c", "d", "e", "f"] {
        agent.repo.remove(app);
    }
    agent.repo.write("readme.md", "empty\n");
    agent.repo.push("emptied");
    let source = look(&agent).await;
    let error = source.error.unwrap_or_default();
    assert!(error.contains("no manifest at all") && error.contains("nothing is stopped"), "{error}");
    agent.stop();
    agent.launch();
    agent.until_up().await;
    assert!(look(&agent).await.error.is_some());
    all_run(&agent, &["a", "b", "c", "d", "e", "f"]).await;
    // An approval is no way to lose them all either.
    assert_eq!(refusal(approve(&agent, Vec::new()).await).status, 409);
    agent.repo.app("a", "a2");
    for app in ["b", "c", "d", "e", "f"] {
        agent.repo.app(app, app);
    }
    agent.repo.push("restored");
    agent.until_body("a", "a2").await;
    assert_eq!(look(&agent).await.error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_manifest_is_the_same_app_and_a_renamed_one_is_another() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "goods").app("other", "other");
    agent.repo.push("first");
    agent.until_body("shop", "goods").await;
    let ids = agent.instance_ids("shop").await;
    // To another directory, in one commit.
    let manifest = crate::support::web_manifest("shop", "");
    agent.repo.remove("shop").write("deep/er/landfall.yaml", &manifest).write("deep/er/content.txt", "goods");
    agent.repo.push("moved");
    look(&agent).await;
    let shown = agent.shown("shop").await;
    assert_eq!((shown.path.as_deref(), shown.state), (Some("deep/er"), AppState::Deployed), "{shown:?}");
    assert_eq!(agent.instance_ids("shop").await, ids, "not restarted");
    kill_controller(&agent).await;
    look(&agent).await;
    until_live(&agent, "shop", 1).await;
    // Two apps change places.
    let other = crate::support::web_manifest("other", "");
    agent.repo.write("deep/er/landfall.yaml", &other).write("other/landfall.yaml", &manifest);
    agent.repo.write("deep/er/content.txt", "other").write("other/content.txt", "goods");
    agent.repo.push("swapped");
    look(&agent).await;
    all_run(&agent, &["other"]).await;
    assert_eq!(agent.shown("shop").await.path.as_deref(), Some("other"));
    assert_eq!(agent.instance_ids("shop").await, ids, "not restarted");
    // Another name in the same place is another app.
    agent.repo.write("other/landfall.yaml", crate::support::web_manifest("store", ""));
    agent.repo.push("renamed");
    agent.until_body("store", "goods").await;
    look(&agent).await;
    assert_eq!(agent.shown("shop").await.state, AppState::Stopped);
    // And back: the old one goes on with its own history.
    agent.repo.write("other/landfall.yaml", &manifest);
    agent.repo.push("named as before");
    agent.until_body("shop", "goods").await;
    until_live(&agent, "shop", 2).await;
    look(&agent).await;
    assert_eq!(agent.shown("store").await.state, AppState::Stopped);
}

/// An agent with the sources `fleet` and `second`.
async fn two_sources() -> (Agent, Repo) {
    let mut setup = Setup::new();
    let second = Repo::create(&setup.dir.path().join("second.git"));
    let url = |repo: &Repo| repo.path().display().to_string();
    setup.sources = Some(format!(
        "sources:\n  - {{name: fleet, git: {{url: {}}}}}\n  - {{name: second, git: {{url: {}}}}}\n",
        url(&setup.repo),
        url(&second)
    ));
    let mut agent = setup.start().await;
    let mut second = second;
    agent.repo.app("shop", "goods").app("stays", "stays");
    agent.repo.push("first");
    second.app("guest", "guest");
    second.push("second");
    agent.until_body("shop", "goods").await;
    agent.until_body("guest", "guest").await;
    (agent, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_moves_to_another_source_is_taken_over_as_it_runs() {
    let (mut agent, mut second) = two_sources().await;
    let second_name: SourceName = "second".parse().expect("a name");
    let ids = agent.instance_ids("shop").await;
    // The new source asks for it first, and is told who has it.
    second.app("shop", "goods");
    second.push("shop as well");
    let source = agent.client.sync(&second_name).await.expect("a look");
    let problem = source.manifest_errors.join("\n");
    for words in ["shop/landfall.yaml of source `second`", "shop/landfall.yaml of source `fleet`", "another name"] {
        assert!(problem.contains(words), "{words} is missing: {problem}");
    }
    assert_eq!(agent.shown("shop").await.source, Some(fleet()));
    kill_controller(&agent).await;
    // The old one gives it up.
    agent.repo.remove("shop");
    agent.repo.push("moved away");
    look(&agent).await;
    let shown = agent.shown("shop").await;
    assert_eq!((shown.source.as_ref(), shown.state), (Some(&second_name), AppState::Deployed), "{shown:?}");
    assert_eq!(agent.instance_ids("shop").await, ids, "not restarted");
    let source = agent.client.sync(&second_name).await.expect("a look");
    assert!(source.manifest_errors.is_empty(), "{source:?}");
    assert_eq!(agent.events("shop", EventKind::AppMoved).await.len(), 1);
    // It follows its new source, also after a restart.
    agent.stop();
    agent.launch();
    agent.until_up().await;
    second.app("shop", "new goods");
    second.push("news");
    agent.until_body("shop", "new goods").await;
    until_live(&agent, "shop", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_left_its_source_first_goes_on_in_the_next_one() {
    let (mut agent, mut second) = two_sources().await;
    agent.repo.remove("shop");
    agent.repo.push("moved away");
    look(&agent).await;
    assert_eq!(agent.shown("shop").await.state, AppState::Stopped);
    second.app("shop", "goods");
    second.push("moved here");
    agent.until_body("shop", "goods").await;
    until_live(&agent, "shop", 2).await;
    // Held back by a brake it is free for another source as well, and never stops.
    for app in ["p", "q", "r", "s"] {
        agent.repo.app(app, app);
    }
    agent.repo.push("more");
    for app in ["p", "q", "r", "s"] {
        agent.until_body(app, app).await;
        agent.repo.remove(app);
    }
    let ids = agent.instance_ids("p").await;
    agent.repo.push("all away");
    assert_eq!(held(&look(&agent).await), ["p", "q", "r", "s"]);
    second.app("p", "p");
    second.push("p is here now");
    agent.client.sync(&"second".parse().expect("a name")).await.expect("a look");
    assert_eq!(agent.shown("p").await.source.map(|source| source.to_string()).as_deref(), Some("second"));
    assert_eq!(agent.instance_ids("p").await, ids, "not restarted");
    let source = look(&agent).await;
    assert_eq!(held(&source), ["q", "r", "s"]);
    approve(&agent, vec![source.waiting[0].id]).await.expect("approved");
    all_run(&agent, &["p", "stays"]).await;
    assert_eq!(agent.shown("q").await.state, AppState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_manifest_of_a_running_app_loses_nothing() {
    let mut agent = six_apps().await;
    for app in ["a", "b", "c", "d"] {
        agent.repo.write(&format!("{app}/landfall.yaml"), "app: [");
    }
    agent.repo.push("broken");
    let source = look(&agent).await;
    assert_eq!(source.manifest_errors.len(), 4, "{source:?}");
    agent.stop();
    agent.launch();
    agent.until_up().await;
    let source = look(&agent).await;
    assert!(source.waiting.is_empty() && source.manifest_errors.len() == 4, "{source:?}");
    all_run(&agent, &["a", "b", "c", "d", "e", "f"]).await;
    assert_eq!(agent.client.app(None, &name("a")).await.expect("the app").state, AppState::Deployed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_branch_waits_until_it_is_approved_or_put_back() {
    let mut setup = Setup::new();
    setup.sources = Some(format!(
        "sources:\n  - {{name: fleet, git: {{url: {}, on_force_push: hold}}}}\n",
        setup.repo.path().display()
    ));
    let mut agent = setup.start().await;
    agent.repo.app("shop", "first");
    let first = agent.repo.push("first");
    agent.until_body("shop", "first").await;
    agent.repo.app("shop", "second");
    let second = agent.repo.push("second");
    agent.until_body("shop", "second").await;
    // A version that still proves itself when the agent ends would have to do so again.
    agent.rest(&["shop"]).await;

    agent.repo.app("shop", "rewritten").app("new", "new");
    let rewritten = agent.repo.force_push("rewritten");
    let source = look(&agent).await;
    let [waiting] = source.waiting.as_slice() else { panic!("{source:?}") };
    assert_eq!(waiting.revision.as_ref(), Some(&rewritten));
    assert!(matches!(waiting.reason, WaitReason::ForcePush { .. }), "{waiting:?}");
    assert_eq!(source.revision.as_ref(), Some(&second), "nothing of it is taken");
    assert_eq!(source.error, None);
    agent.stop();
    agent.launch();
    agent.until_up().await;
    look(&agent).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "second");
    assert!(agent.client.status().await.expect("the status").problems.join("\n").contains("does not descend"));
    assert_eq!(source_events(&agent, EventKind::SourceWaiting).await.len(), 1);

    // Put back, and moved on from there: nothing waits.
    let point = |repo: &Repo, commit: &str| {
        let commit = git2::Oid::from_str(commit).expect("an id");
        repo.open().reference("refs/heads/main", commit, true, "put back").expect("the branch moves");
    };
    point(&agent.repo, &second);
    assert!(look(&agent).await.waiting.is_empty());
    agent.repo.app("shop", "third").remove("new");
    agent.repo.push("third");
    agent.until_body("shop", "third").await;

    // Back to an old commit is a rewrite as well; approved, it is taken.
    point(&agent.repo, &first);
    let source = look(&agent).await;
    assert_eq!(source.waiting.len(), 1, "{source:?}");
    let approved = approve(&agent, vec![source.waiting[0].id]).await.expect("approved");
    assert!(approved.source.waiting.is_empty(), "{approved:?}");
    agent.until_body("shop", "first").await;
    until_live(&agent, "shop", 4).await;
    assert_eq!(agent.shown("shop").await.commit.map(|commit| commit.to_string()), Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_for_each_app_what_would_happen_and_why() {
    let mut agent = six_apps().await;
    let suspend = api::SuspendRequest { reason: Some("frozen".into()), until: None };
    agent.client.suspend(None, &name("e"), &suspend).await.expect("suspended");
    let manifest = crate::support::web_manifest("e", "    instances: 2\nenv: {LOG_LEVEL: debug}\n");
    agent.repo.write("e/landfall.yaml", manifest).write("e/content.txt", "changed").write("e/more.txt", "more");
    agent.repo.write("f/landfall.yaml", "app: [");
    for app in ["a", "b", "c"] {
        agent.repo.remove(app);
    }
    agent.repo.push("all kinds of things");
    look(&agent).await;
    let plan = agent.client.plan(Some(&fleet())).await.expect("a plan");
    let of = |app: &str| {
        let item =
            plan.iter().find(|item| item.app.as_ref().is_some_and(|name| name.as_str() == app)).expect("an item");
        (item.action.as_str(), item.reasons.join("; "))
    };
    let (action, why) = of("a");
    assert!(
        action == "held_back" && why.contains("held back by the brake") && why.contains("3 of 6"),
        "{action}: {why}"
    );
    assert_eq!(of("d"), ("none", "unchanged".to_owned()));
    let (action, why) = of("e");
    assert_eq!(
        (action, why.as_str()),
        ("suspended", "env.LOG_LEVEL: none → debug; web.main.instances: 1 → 2; tree changed: content.txt, more.txt")
    );
    let (action, why) = of("f");
    assert!(action == "invalid" && why.contains("f/landfall.yaml:1:"), "{action}: {why}");
}
