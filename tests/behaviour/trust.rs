//! Only what is signed by a trusted key is deployed; everything else waits, and people hear of it.

use std::process::Command;

use landfall::domain::{EventKind, WaitReason};
use landfall::wire::api;

use crate::support::asking::back_to;
use crate::support::{Setup, until};

/// Makes an SSH key; `None` where there is no `ssh-keygen`. CI must have it.
fn key(file: &std::path::Path) -> Option<String> {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f"]).arg(file).status();
    if !made.is_ok_and(|status| status.success()) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs ssh-keygen");
        eprintln!("skipped: there is no ssh-keygen here to sign commits with");
        return None;
    }
    Some(std::fs::read_to_string(file.with_extension("pub")).expect("the public key"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_commit_waits_while_the_last_good_one_runs_on() {
    let mut setup = Setup::new();
    let (ada, allowed) = (setup.dir.path().join("ada"), setup.dir.path().join("allowed"));
    let Some(public) = key(&ada) else { return };
    std::fs::write(&allowed, format!("ada@example.org {public}")).expect("the trusted keys");
    setup.sources = Some(format!(
        "sources:\n  - name: fleet\n    git:\n      url: {}\n      branch: main\n      verify: {{ssh_allowed_signers_file: {}}}\n",
        setup.repo.path().display(),
        allowed.display()
    ));
    setup.repo.signing_key = Some(ada.clone());
    setup.repo.app("shop", "first\n");
    setup.repo.push("signed");
    let mut agent = setup.start().await;
    agent.until_body("shop", "first\n").await;
    let source = || async {
        let sources = agent.client.sources().await.map_err(|error| error.to_string())?;
        sources.into_iter().next().ok_or_else(|| "no source".to_owned())
    };
    assert!(source().await.expect("the source").waiting.is_empty());

    agent.repo.signing_key = None;
    // Not even a manifest that cannot be read is looked at.
    agent.repo.app("shop", "second\n").write("broken/landfall.yaml", "app: [");
    let unsigned = agent.repo.push("unsigned");
    let name = "fleet".parse().expect("a name");
    let waiting = |source: &api::Source| source.waiting.first().map(|waiting| waiting.reason.clone());
    let shown = agent.client.sync(&name).await.expect("a look");
    let Some(WaitReason::Unverified { commit, problem }) = waiting(&shown) else { panic!("{shown:?}") };
    assert_eq!(commit.as_str(), unsigned);
    assert!(problem.contains("is not signed"), "{problem}");
    assert_eq!((shown.error, shown.manifest_errors), (None, Vec::new()));
    assert_eq!(agent.versions("shop").await.len(), 1);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "first\n");
    let status = agent.client.status().await.expect("the status");
    assert!(status.problems.iter().any(|problem| problem.contains("is not signed")), "{:?}", status.problems);

    // A controller that comes anew does not tell it again, and still knows.
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    let shown = agent.client.sync(&name).await.expect("a look");
    assert!(waiting(&shown).is_some(), "{shown:?}");

    agent.repo.signing_key = Some(ada);
    agent.repo.app("shop", "third\n").remove("broken");
    agent.repo.push("signed again");
    let answer = agent.until_body("shop", "third\n").await;
    assert_eq!(answer.version, Some(2));
    until("nothing waits any more", || async {
        let shown = agent.client.sources().await.map_err(|error| error.to_string())?;
        if shown.iter().all(|source| source.waiting.is_empty()) { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    let events = agent.client.events(0, 1000).await.expect("events");
    let told = |kind: EventKind| events.iter().filter(|event| event.event.kind == kind).count();
    assert_eq!((told(EventKind::SourceWaiting), told(EventKind::SourceSettled)), (1, 1), "{events:?}");

    // Going back is a person's command and needs no signature.
    agent.rest_of("shop").await;
    agent.rollback("shop", back_to(None)).await;
    agent.until_body("shop", "first\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_branch_waits_even_if_it_is_signed_and_an_approval_stands_in_for_no_signature() {
    let mut setup = Setup::new();
    let (ada, allowed) = (setup.dir.path().join("ada"), setup.dir.path().join("allowed"));
    let Some(public) = key(&ada) else { return };
    std::fs::write(&allowed, format!("ada@example.org {public}")).expect("the trusted keys");
    setup.sources = Some(format!(
        "sources:\n  - name: fleet\n    git:\n      url: {}\n      branch: main\n      on_force_push: hold\n      verify: {{ssh_allowed_signers_file: {}}}\n",
        setup.repo.path().display(),
        allowed.display()
    ));
    setup.repo.signing_key = Some(ada);
    setup.repo.app("shop", "first\n");
    setup.repo.push("signed");
    let mut agent = setup.start().await;
    agent.until_body("shop", "first\n").await;
    let name = "fleet".parse().expect("a name");
    let reasons = |source: &api::Source| {
        source.waiting.iter().map(|waiting| (waiting.id, waiting.reason.clone())).collect::<Vec<_>>()
    };

    // Rewritten and signed: it waits for the rewriting.
    agent.repo.app("shop", "second\n");
    let rewritten = agent.repo.force_push("rewritten, signed");
    let shown = agent.client.sync(&name).await.expect("a look");
    let waiting = reasons(&shown);
    let [(id, WaitReason::ForcePush { commit, .. })] = waiting.as_slice() else { panic!("{shown:?}") };
    assert_eq!(commit.as_str(), rewritten);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "first\n");
    let request = api::ApproveRequest { waits: vec![*id], reason: None };
    agent.client.approve(&name, &request).await.expect("approved");
    agent.until_body("shop", "second\n").await;

    // Rewritten and not signed: nobody can let that through.
    agent.repo.signing_key = None;
    agent.repo.app("shop", "third\n");
    let unsigned = agent.repo.force_push("rewritten, unsigned");
    let shown = agent.client.sync(&name).await.expect("a look");
    let waiting = reasons(&shown);
    assert!(!waiting.is_empty(), "{shown:?}");
    let request = api::ApproveRequest { waits: waiting.iter().map(|(id, _)| *id).collect(), reason: None };
    let _ = agent.client.approve(&name, &request).await;
    let shown = agent.client.sync(&name).await.expect("a look");
    let waiting = reasons(&shown);
    let unverified = waiting.iter().find_map(|(_, reason)| match reason {
        WaitReason::Unverified { commit, .. } => Some(commit.as_str()),
        WaitReason::ForcePush { .. } | WaitReason::PruneBrake { .. } => None,
    });
    assert_eq!(unverified, Some(unsigned.as_str()), "{shown:?}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "second\n");
    assert_eq!(agent.versions("shop").await.len(), 2);
}
