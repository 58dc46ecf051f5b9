//! Versions that cannot work: each failure names the thing and the mend, the version before and all other apps
//! go on, and nothing is left behind.

use landfall::domain::{DeploymentOutcome, Failure, Phase, VersionNumber};

use crate::support::{Agent, DEADLINE, Setup, free_port, http, processes_of, test_app, until};

/// An agent with two healthy apps, both at version 1.
async fn with_shop(setup: Setup) -> Agent {
    let mut agent = setup.start().await;
    agent.repo.app("shop", "good\n").app("neighbour", "still here\n");
    agent.repo.push("two good apps");
    agent.until_body("shop", "good\n").await;
    agent.until_body("neighbour", "still here\n").await;
    agent
}

/// A manifest of `shop` whose web endpoint runs the test app with these arguments.
fn shop(arguments: &str, more: &str) -> String {
    let command = test_app();
    format!(
        "app: shop\nbake: 200ms\n{more}web:\n  main:\n    command: [{command}, {arguments}]\n    health: {{path: /healthz, interval: 50ms, deadline: 2s}}\n    drain: 1s\n    grace: 500ms\n"
    )
}

/// Waits until the deployment of a version has ended without success.
async fn failure_of(agent: &Agent, app: &str, version: u32) -> Failure {
    let name = app.parse().expect("a name");
    until(&format!("version {version} of {app} fails"), || async {
        let all = agent.client.deployments(None, &name, Some(5)).await.map_err(|error| error.to_string())?;
        let deployment = all.into_iter().find(|deployment| Some(deployment.version) == VersionNumber::new(version));
        match deployment {
            Some(deployment) if deployment.outcome == Some(DeploymentOutcome::Failed) => {
                deployment.failure.ok_or_else(|| "a failed deployment without a failure".to_owned())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The version before serves, the other app serves, and no process of version 2 is left.
async fn assert_unharmed(agent: &Agent) {
    let answer = agent.get("shop", "/").await.expect("an answer");
    assert_eq!((answer.status, answer.version, answer.body.as_str()), (200, Some(1), "good\n"));
    assert_eq!(agent.get("neighbour", "/").await.expect("an answer").body, "still here\n");
    until("nothing of version 2 runs", || async {
        let left: Vec<_> = processes_of(&agent.root).into_iter().filter(|line| line.contains("sleep")).collect();
        let instances = agent.client.instances(None, None).await.map_err(|error| error.to_string())?;
        let second: Vec<_> =
            instances.iter().filter(|instance| Some(instance.version) == VersionNumber::new(2)).collect();
        if left.is_empty() && second.is_empty() { Ok(()) } else { Err(format!("{left:?} {second:?}")) }
    })
    .await;
}

fn assert_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// Pushes a bad version 2 of `shop`, and asserts that nobody notices but those who ask.
async fn push_bad(manifest: &str) -> (Agent, Failure) {
    let mut agent = with_shop(Setup::new()).await;
    agent.repo.write("shop/landfall.yaml", manifest);
    agent.repo.push("a bad version");
    let failure = failure_of(&agent, "shop", 2).await;
    assert_unharmed(&agent).await;
    let app = agent.app("shop").await.expect("the app");
    assert_words(app.message.as_deref().unwrap_or_default(), &["v2 failed while", &failure.message]);
    (agent, failure)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_is_named() {
    let manifest = shop("serve", "").replace(&test_app(), "./no-such-program");
    let (_agent, failure) = push_bad(&manifest).await;
    assert_eq!(failure.code, "start_failed");
    assert_words(&failure.message, &["`main`", "./no-such-program", "command"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_shows_its_exit_code_and_its_last_words() {
    let build = "build: {command: [sh, -c, 'echo compiling; echo no such module >&2; exit 3']}\n";
    let (_agent, failure) = push_bad(&shop("serve", build)).await;
    assert_eq!((failure.code.as_str(), failure.phase), ("build_failed", Phase::Building));
    assert_eq!(failure.exit.as_deref(), Some("exit code 3"));
    assert_words(&failure.message, &["the build failed", "exit code 3"]);
    assert_words(&failure.log_tail.join("\n"), &["compiling", "no such module"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_hangs_is_ended_with_all_its_processes() {
    let build = format!("build: {{command: [{}, with-orphans], timeout: 1s}}\n", test_app());
    let (_agent, failure) = push_bad(&shop("serve", &build)).await;
    assert_eq!((failure.code.as_str(), failure.phase), ("build_timed_out", Phase::Building));
    assert_words(&failure.message, &["1 s", "`build.timeout`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_exits_at_once_shows_its_exit_code_and_its_last_words() {
    let (_agent, failure) = push_bad(&shop("exit, \"7\", without, a, database", "")).await;
    assert_eq!((failure.code.as_str(), failure.phase), ("exited_early", Phase::Starting));
    assert_eq!(failure.exit.as_deref(), Some("exit code 7"));
    assert_words(&failure.message, &["`main`", "exit code 7", "$PORT"]);
    assert_words(&failure.log_tail.join("\n"), &["without a database"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_listens_is_told_to_listen_on_its_port() {
    let (_agent, failure) = push_bad(&shop("sleep", "")).await;
    assert_eq!((failure.code.as_str(), failure.phase), ("not_ready", Phase::Starting));
    assert_words(&failure.message, &["`main`", "refused", "$PORT", "`health.deadline`"]);
    assert_words(failure.last_probe.as_deref().unwrap_or_default(), &["refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_no_shell_replaces_is_pointed_out() {
    let (_agent, failure) = push_bad(&shop("exit, \"1\", $PORT", "")).await;
    assert_words(&failure.log_tail.join("\n"), &["$PORT"]);
    assert_words(&failure.message, &["`$PORT` in a list", "as one text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_listens_on_the_wrong_port_is_told_where_it_listens() {
    let elsewhere = format!("127.0.0.1:{}", free_port());
    let (_agent, failure) = push_bad(&shop(&format!("serve-on, \"{elsewhere}\""), "")).await;
    assert_eq!(failure.code, "not_ready");
    assert_words(&failure.message, &["`main`", &elsewhere, "$PORT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_path_that_answers_500_is_quoted() {
    let mut agent = with_shop(Setup::new()).await;
    agent.repo.write("shop/landfall.yaml", shop("serve", "")).write("shop/health", "500\n");
    agent.repo.push("unhealthy");
    let failure = failure_of(&agent, "shop", 2).await;
    assert_unharmed(&agent).await;
    assert_words(failure.last_probe.as_deref().unwrap_or_default(), &["500"]);
    assert_words(&failure.message, &["`main`", "/healthz", "500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut agent = with_shop(Setup::new()).await;
    agent.repo.write("shop/landfall.yaml", shop("serve-ignoring-sigterm", ""));
    agent.repo.push("deaf");
    agent.until_live("shop", 2).await;
    agent.repo.app("shop", "third\n");
    agent.repo.push("third");
    agent.until_body("shop", "third\n").await;
    until("the deaf version is gone", || async {
        let left: Vec<_> =
            processes_of(&agent.root).into_iter().filter(|line| line.contains("serve-ignoring-sigterm")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(agent.get("neighbour", "/").await.expect("an answer").body, "still here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_an_app_forks_off_leave_with_it() {
    let mut agent = with_shop(Setup::new()).await;
    let orphans = |agent: &Agent| {
        let all = processes_of(&agent.root);
        all.into_iter().filter(|line| line.contains(" orphan")).collect::<Vec<_>>()
    };
    agent.repo.write("shop/landfall.yaml", shop("with-orphans, serve", ""));
    agent.repo.push("forks");
    agent.until_live("shop", 2).await;
    assert_eq!(orphans(&agent).len(), 2, "one in the app's session and one in its own");
    agent.repo.app("shop", "third\n");
    agent.repo.push("third");
    agent.until_body("shop", "third\n").await;
    until("all that version 2 forked off is gone", || async {
        let left = orphans(&agent);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logs_is_bounded_and_holds_nobody_up() {
    const LIMIT: u64 = 8 * 1024 * 1024;
    let setup = Setup { more: "retention: {logs: 8MiB}\n".to_owned(), ..Setup::new() };
    let mut agent = with_shop(setup).await;
    // It serves only once all of it is written: an app that is never held up gets through.
    let flood = shop("flood, \"100\"", "").replace("deadline: 2s", "deadline: 50s");
    agent.repo.write("shop/landfall.yaml", flood);
    agent.repo.push("floods");
    until("version 2 is live, and all others answer meanwhile", || async {
        assert_eq!(agent.get("neighbour", "/").await.expect("an answer").body, "still here\n");
        let status = tokio::time::timeout(DEADLINE, agent.client.status()).await.expect("the agent answers in time");
        status.expect("the agent answers");
        let app = agent.app("shop").await?;
        if app.live_version == VersionNumber::new(2) { Ok(()) } else { Err(format!("{app:?}")) }
    })
    .await;
    agent.until_app("shop", "it is deployed", |app| app.state.as_str() == "deployed").await;
    until("the logs are within their limit", || async {
        let size = size_below(&agent.root.join("data/logs"));
        // The newest file of each instance may be full and is not thrown away.
        if size <= LIMIT + LIMIT / 2 { Ok(()) } else { Err(format!("{size} bytes")) }
    })
    .await;
}

fn size_below(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size_below(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_that_claim_one_host_are_told_who_has_it() {
    let mut agent = with_shop(Setup::new()).await;
    let host = |app: &str| crate::support::web_manifest(app, "    hosts: [pods.example.com]\n");
    agent.repo.write("neighbour/landfall.yaml", host("neighbour"));
    agent.repo.push("neighbour takes the host");
    agent.until_live("neighbour", 2).await;
    agent.repo.write("shop/landfall.yaml", host("shop"));
    agent.repo.push("shop wants it too");
    let failure = failure_of(&agent, "shop", 2).await;
    assert_eq!(failure.code, "host_conflict");
    assert_words(&failure.message, &["pods.example.com", "neighbour", "shop", "`hosts`"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").version, Some(1));
    let answer = http::get(agent.proxy, "pods.example.com", "/").await.expect("an answer");
    assert_eq!((answer.version, answer.body.as_str()), (Some(2), "still here\n"));
}

/// Pushes files of `shop` that must not be laid out on disk, and asserts what is said about them.
async fn assert_refused(agent: &Agent, words: &[&str]) {
    let app = agent.until_app("shop", "the tree is refused", |app| app.manifest_error.is_some()).await;
    assert_words(app.manifest_error.as_deref().unwrap_or_default(), words);
    let source = agent.client.sources().await.expect("sources").remove(0);
    assert_words(&source.manifest_errors.join("\n"), words);
    assert_unharmed(agent).await;
}

async fn assert_mended(agent: &mut Agent) {
    agent.repo.remove("shop").app("shop", "mended\n");
    agent.repo.push("mended");
    agent.until_body("shop", "mended\n").await;
    agent.until_app("shop", "the error is gone", |app| app.manifest_error.is_none()).await;
    agent.until_live("shop", 2).await;
    assert_eq!(agent.versions("shop").await.len(), 2, "the refused tree made no version");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_point_outside_an_apps_files_are_refused() {
    for (target, named) in [("/etc/passwd", "/etc/passwd"), ("../../../outside", "../../../outside")] {
        let mut agent = with_shop(Setup::new()).await;
        agent.repo.link("shop/secret", target);
        // Another app of the same revision is not concerned.
        agent.repo.app("bystander", "deployed all the same\n");
        agent.repo.push("a link");
        assert_refused(&agent, &["shop: `secret`", named, "link within them"]).await;
        agent.until_body("bystander", "deployed all the same\n").await;
        assert_mended(&mut agent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_with_names_that_lead_outside_are_refused() {
    for name in ["..", ".git"] {
        let mut agent = with_shop(Setup::new()).await;
        push_entry(&agent, name);
        assert_refused(&agent, &["shop", name, "rename or remove it"]).await;
        assert_mended(&mut agent).await;
    }
}

/// A commit whose `shop` has a directory entry that git itself would never make, written byte by byte.
fn push_entry(agent: &Agent, name: &str) {
    let repository = agent.repo.open();
    let head = repository.find_reference("refs/heads/main").and_then(|main| main.peel_to_commit()).expect("the head");
    let root = head.tree().expect("its tree");
    let shop = root.get_name("shop").expect("shop").id();
    let shop = repository.find_tree(shop).expect("its tree");
    let bytes = |tree: &git2::Tree<'_>, more: Option<(&str, git2::Oid)>, instead: Option<git2::Oid>| {
        let mut entries: Vec<(String, i32, git2::Oid)> = tree
            .iter()
            .map(|entry| {
                let name = entry.name().expect("a name").to_owned();
                let id = if name == "shop" { instead.unwrap_or(entry.id()) } else { entry.id() };
                (name, entry.filemode(), id)
            })
            .collect();
        entries.extend(more.map(|(name, id)| (name.to_owned(), 0o040_000, id)));
        entries.sort();
        let mut bytes = Vec::new();
        for (name, mode, id) in entries {
            bytes.extend_from_slice(format!("{mode:o} {name}\0").as_bytes());
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes
    };
    let objects = repository.odb().expect("the objects");
    let write = |bytes: Vec<u8>| objects.write(git2::ObjectType::Tree, &bytes).expect("a tree");
    let inner = write(bytes(&shop, None, None));
    let bad = write(bytes(&shop, Some((name, inner)), None));
    let tree = repository.find_tree(write(bytes(&root, None, Some(bad)))).expect("the tree");
    let who = git2::Signature::now("Mallory", "mallory@example.org").expect("a signature");
    repository.commit(Some("refs/heads/main"), &who, &who, "crafted", &tree, &[&head]).expect("a commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_include_that_does_not_exist_or_leaves_the_repository_is_named() {
    for (include, words) in
        [("../common", ["../common", "shop/landfall.yaml"]), ("../../else", ["../../else", "stay within"])]
    {
        let mut agent = with_shop(Setup::new()).await;
        agent.repo.write("shop/landfall.yaml", shop("serve", &format!("include: [{include}]\n")));
        agent.repo.push("includes nothing");
        assert_refused(&agent, &words).await;
        assert_mended(&mut agent).await;
    }
}
