//! What is no longer needed goes, and nothing else does.

use landfall::wire::api::{self, AppState};

use crate::support::asking::{back_to, name};
use crate::support::{Agent, Setup, until};

async fn agent_with(retention: &str) -> Agent {
    let mut setup = Setup::new();
    setup.more = format!("retention: {{{retention}}}\n");
    setup.start().await
}

async fn push(agent: &mut Agent, content: &str) {
    agent.repo.app("shop", content);
    agent.repo.push(content);
    agent.rest(&["shop"]).await;
}

/// Contents that are laid out on disk for an app.
fn releases(agent: &Agent, app: &str) -> usize {
    let directory = agent.root.join("data/releases/main").join(app);
    std::fs::read_dir(directory).map_or(0, |entries| {
        entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().contains('.')).count()
    })
}

/// Versions of an app whose tree is pinned in the store.
fn pins(agent: &Agent, app: &str) -> Vec<String> {
    let store = git2::Repository::open_bare(agent.root.join("data/store.git")).expect("the store");
    let pattern = format!("refs/landfall/main/{app}/*");
    let mut names: Vec<String> = store
        .references_glob(&pattern)
        .expect("references")
        .flatten()
        .filter_map(|reference| reference.name().ok().and_then(|name| name.rsplit('/').next().map(str::to_owned)))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_collected_but_never_what_is_live_or_held() {
    let mut agent = agent_with("versions: 2").await;
    push(&mut agent, "one").await;
    push(&mut agent, "two").await;
    agent.rollback("shop", back_to(None)).await;
    agent.rest(&["shop"]).await;
    for content in ["three", "four", "five"] {
        push(&mut agent, content).await;
    }
    until("only the newest two versions are kept", || async {
        let kept: Vec<u32> = agent.versions("shop").await.iter().filter(|v| v.kept).map(|v| v.version.get()).collect();
        let found = (kept, pins(&agent, "shop"), releases(&agent, "shop"));
        let wanted = (vec![6, 5], vec!["v5".to_owned(), "v6".to_owned()], 2);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let problem = agent.refused_rollback("shop", back_to(Some(1))).await;
    assert_eq!((problem.status, problem.code.as_str()), (409, "conflict"));
    assert!(problem.mend.contains("retention.versions"), "{problem:?}");
    agent.rollback("shop", back_to(None)).await;
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "four");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_version_outlives_any_number_of_failed_ones() {
    let mut agent = agent_with("versions: 2").await;
    push(&mut agent, "good").await;
    for code in 1..=4 {
        let bad = crate::support::asking::manifest("shop", &["exit", &code.to_string(), "bad"], "100ms", "");
        agent.repo.write("shop/landfall.yaml", bad);
        agent.repo.push("bad");
        agent.rest(&["shop"]).await;
    }
    until("the failed ones are collected", || async {
        let found = (pins(&agent, "shop"), releases(&agent, "shop"));
        let wanted = (vec!["v1".to_owned(), "v4".to_owned(), "v5".to_owned()], 3);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    agent.client.rollover(None, &name("shop"), &api::ReasonRequest::default()).await.expect("accepted");
    agent.rest(&["shop"]).await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gone_long_ago_is_removed_but_for_its_volumes() {
    let mut agent = agent_with("stopped_apps: 1s").await;
    agent.repo.app("blog", "hello");
    let manifest = crate::support::web_manifest("shop", "") + "volumes: {data: /data}\n";
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", "one");
    agent.repo.push("both");
    agent.rest(&["shop", "blog"]).await;
    let volume = agent.root.join("data/volumes/main/shop/data");
    std::fs::write(volume.join("orders"), "42").expect("the volume is there");
    assert!(agent.root.join("data/logs/main/shop").exists());
    agent.repo.remove("shop");
    agent.repo.push("shop is gone");
    until("the app is gone", || async {
        match agent.app("shop").await {
            Err(error) => Ok(error),
            Ok(app) => Err(format!("{app:?}")),
        }
    })
    .await;
    until("its files are gone", || async {
        let found = (pins(&agent, "shop"), releases(&agent, "shop"), agent.root.join("data/logs/main/shop").exists());
        if found == (Vec::new(), 0, false) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(std::fs::read_to_string(volume.join("orders")).expect("kept"), "42");
    until("its host is unknown", || async {
        let answer = agent.get("shop", "/").await?;
        if answer.status == 404 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(agent.get("blog", "/").await.expect("an answer").body, "hello");
    // Back in git it begins anew, with what its volumes hold.
    let manifest = crate::support::web_manifest("shop", "") + "volumes: {data: /data}\n";
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", "again");
    agent.repo.push("shop is back");
    agent.until_body("shop", "again").await;
    agent.rest(&["shop"]).await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_app_still_in_git_is_emptied_and_not_resurrected() {
    let mut agent = agent_with("stopped_apps: 1s").await;
    push(&mut agent, "one").await;
    push(&mut agent, "two").await;
    agent.stop_app("shop", "for good").await.expect("stopped");
    until("its versions are collected", || async {
        let found = pins(&agent, "shop");
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    agent.repo.app("blog", "hello");
    agent.repo.push("blog");
    agent.rest(&["shop", "blog"]).await;
    let app = agent.shown("shop").await;
    assert_eq!((app.state, app.live_version), (AppState::Stopped, None));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").status, 503);
    agent.stop();
    agent.launch();
    agent.until_up().await;
    agent.rest(&["shop"]).await;
    assert_eq!(agent.shown("shop").await.state, AppState::Stopped);
    push(&mut agent, "three").await;
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "three");
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 3));
}
