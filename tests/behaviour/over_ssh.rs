//! A private repository behind ssh, with a real agent: it signs in, and says what keeps it out.

use crate::sources::until_source;
use crate::sshd::{Sshd, available, keygen, public, replace};
use crate::support::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_deployed_from_a_repository_behind_ssh_and_outlives_a_changed_host_key() {
    if !available() {
        return;
    }
    let mut setup = Setup::new();
    // Not below the agent's directory: nothing from there may be left running when the agent has ended.
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    let sshd = Sshd::serve(root, &["ed25519"], "");
    let (key, known_hosts) = (root.join("deploy-key"), root.join("known_hosts"));
    sshd.authorize(&keygen(&key, &["-t", "ed25519"], ""));
    replace(&known_hosts, &sshd.pin("ed25519"));
    setup.sources = Some(format!(
        "sources:\n  - name: fleet\n    git:\n      url: {}\n      branch: main\n      poll: 1s\n      \
         ssh: {{key_file: {}, known_hosts_file: {}}}\n",
        sshd.url(setup.repo.path()),
        key.display(),
        known_hosts.display()
    ));
    setup.repo.app("shop", "first\n");
    setup.repo.push("first");
    let mut agent = setup.start().await;
    agent.until_body("shop", "first\n").await;

    // The server seems to be another one: nothing is fetched, the app runs on, and the state says what to do.
    let other = keygen(&root.join("other"), &["-t", "ed25519"], "");
    replace(&known_hosts, &format!("{} {other}\n", sshd.name()));
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    let source = until_source(&agent, "fleet", "the host key is refused", |source| source.error.is_some()).await;
    let error = source.error.unwrap_or_default();
    assert!(error.contains("expected SHA256:") && error.contains("offered SHA256:"), "{error}");
    assert!(error.contains("ssh-keygen -R"), "{error}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "first\n");

    // The key is another one meanwhile, too. Both files are put right; nothing is restarted.
    sshd.authorize(&keygen(&key, &["-t", "rsa", "-b", "2048"], ""));
    replace(&known_hosts, &sshd.pin("ed25519"));
    agent.until_body("shop", "second\n").await;
    until_source(&agent, "fleet", "all is well", |source| source.error.is_none()).await;

    let secret = std::fs::read_to_string(&key).expect("the key");
    let secret = secret.lines().nth(1).expect("a line of the key").to_owned();
    assert!(!agent.log().contains(&secret));
    let ledger = std::fs::read(agent.root.join("data/ledger.db")).expect("the ledger");
    for never in [secret.as_bytes(), public(&key).as_bytes()] {
        assert!(!ledger.windows(never.len()).any(|window| window == never), "the ledger knows no key");
    }
}
