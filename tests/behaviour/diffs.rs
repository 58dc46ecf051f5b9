//! How two versions of an app differ, as the API and the command line say it.

use landfall::domain::VersionNumber;
use landfall::wire::diffs::{FileChange, VersionDiff};
use landfall::wire::secrets::SetSecret;

use crate::support::asking::{back_to, manifest, name, number, refusal};
use crate::support::{Agent, Setup};

impl Agent {
    async fn diff(&self, from: u32, to: u32) -> VersionDiff {
        self.client.diff(None, &name("shop"), (number(from), number(to)), false).await.expect("a difference")
    }
}

fn secret(value: &str) -> SetSecret {
    SetSecret { secret: "token".parse().expect("a name"), environment: None, app: None, value: value.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_differ_in_files_manifest_and_secrets_and_no_value_is_told() {
    let mut agent = Agent::start().await;
    agent.client.set_secret(&secret("the-first-canary")).await.expect("stored");
    let shop = |bake: &str| manifest("shop", &["serve"], bake, "secrets: {TOKEN: token}\n");
    agent.repo.write("shop/landfall.yaml", shop("100ms")).write("shop/content.txt", "first\n");
    let first = agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    agent.rest_of("shop").await;
    agent.client.set_secret(&secret("the-second-canary")).await.expect("stored");
    agent.repo.write("shop/landfall.yaml", shop("200ms")).write("shop/content.txt", "second\n");
    agent.repo.write("shop/new.txt", "new\n");
    agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
    agent.rest_of("shop").await;

    let diff = agent.diff(1, 2).await;
    assert_eq!(diff.from_commit.as_ref().map(ToString::to_string), Some(first));
    let files = diff.files.as_ref().expect("files");
    let told: Vec<_> = files.files.iter().map(|file| (file.path.as_str(), file.change)).collect();
    let modified = FileChange::Modified;
    assert_eq!(told, [("content.txt", modified), ("landfall.yaml", modified), ("new.txt", FileChange::Added)]);
    assert!(files.files[0].patch.as_deref().is_some_and(|patch| patch.ends_with("-first\n+second\n")), "{files:?}");
    assert_eq!((files.total, files.added, files.removed, files.cut), (3, 3, 2, false));
    let fields: Vec<_> = diff.manifest.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["bake"]);
    let revisions: Vec<_> = diff
        .secrets
        .iter()
        .map(|change| [&change.before, &change.after].map(|given| given.as_ref().map(|given| given.revision.clone())))
        .collect();
    assert_eq!(revisions, [[Some("1".to_owned()), Some("2".to_owned())]]);
    assert!(!serde_json::to_string(&diff).expect("JSON").contains("canary"));
    // The other way round, and a version against itself.
    let back = agent.diff(2, 1).await.files.expect("files");
    assert_eq!(back.files[2].change, FileChange::Removed);
    assert!(agent.diff(2, 2).await.is_empty());
    // The content that is brought back is that of the first version.
    agent.rollback("shop", back_to(None)).await;
    agent.rest_of("shop").await;
    let same = agent.diff(1, 3).await;
    assert_eq!(same.files.map(|files| files.total), Some(0));
    assert!(same.manifest.is_empty());

    let (well, said) = agent.say(&["app", "diff", "shop"], "");
    assert!(well && said.starts_with("shop in main: v2 (commit "), "{said}");
    for part in ["bake: 200ms → 100ms", "removed   new.txt", "-second\n+first\n"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let (_, stat) = agent.say(&["app", "diff", "shop", "v1", "2", "--stat"], "");
    assert!(stat.contains("3 files, 3 lines added, 2 removed") && !stat.contains("@@"), "{stat}");
    assert!(stat.contains("TOKEN: token (environment, revision 1) → token (environment, revision 2)"), "{stat}");
    let (_, json) = agent.say(&["app", "diff", "shop", "1", "--json"], "");
    let diff: VersionDiff = serde_json::from_str(&json).expect("JSON");
    assert_eq!((diff.from.get(), diff.to.get()), (1, 3));

    let none = agent.client.diff(None, &name("shop"), (number(1), number(9)), false).await;
    let problem = refusal(none);
    assert_eq!((problem.status, problem.title.as_str()), (404, "app shop has no version v9"));
    let none = agent.client.diff(None, &name("nobody"), (number(1), VersionNumber::FIRST), false).await;
    assert!(refusal(none).title.contains("no app nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_longer_kept_are_told_as_such_and_the_rest_is_still_compared() {
    let mut setup = Setup::new();
    setup.more = "retention: {versions: 2}\n".into();
    let mut agent = setup.start().await;
    for content in ["one", "two", "three", "four"] {
        let bake = if content == "one" { "150ms" } else { "100ms" };
        agent
            .repo
            .write("shop/landfall.yaml", manifest("shop", &["serve"], bake, ""))
            .write("shop/content.txt", content);
        agent.repo.push(content);
        agent.until_body("shop", content).await;
        agent.rest_of("shop").await;
    }
    let gone = crate::support::until("the files of v1 are gone", || async {
        let diff = agent.diff(1, 4).await;
        if diff.files.is_none() { Ok(diff) } else { Err(format!("{:?}", diff.files)) }
    })
    .await;
    let missing = gone.missing.expect("a reason");
    assert!(missing.contains("v1") && missing.contains("retention.versions"), "{missing}");
    assert_eq!(gone.manifest.len(), 1);
}
