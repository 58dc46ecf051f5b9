//! One commit, all the way.

use crate::support::Agent;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_becomes_a_version_and_the_next_push_replaces_it() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "first\n");
    let first = agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    agent.repo.app("shop", "second\n");
    let second = agent.repo.push("second");
    let answer = agent.until_body("shop", "second\n").await;
    assert_eq!(answer.version, Some(2));
    // The proxy answers with it a moment before that is on record.
    agent.until_live("shop", 2).await;
    let versions = agent.versions("shop").await;
    let commits: Vec<_> =
        versions.iter().map(|version| version.commit.as_ref().expect("a commit").to_string()).collect();
    assert_eq!(commits, [second, first], "newest first");
    assert_eq!(versions[0].author.as_deref(), Some("Ada Lovelace <ada@example.org>"));
    assert!(versions[0].live && !versions[1].live);
}
