//! What is told of a host key, and the keys that come with Landfall.

use super::*;

const GITLAB: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf";
const GITLAB_PRINT: &str = "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8";
const CODEBERG: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVIC02vnjFyL+I4RHfvIGNtOgJMe769VTF1VR4EB3ZB";
const CODEBERG_PRINT: &str = "SHA256:mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g";

fn host(host: &str, port: u16) -> Endpoint {
    Endpoint { host: host.to_owned(), port }
}

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).expect("a key")
}

/// Trust in what `file` says; without one none is configured.
fn trust(file: Option<&str>) -> Trust {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("hosts");
    std::fs::write(&path, file.unwrap_or_default()).expect("written");
    let config = SshConfig {
        key_file: "/keys/deploy".into(),
        passphrase_file: None,
        known_hosts_file: file.is_some().then_some(path),
    };
    let mut trust = Trust::read(&config).unwrap_or_else(|trouble| panic!("{trouble:?}"));
    if file.is_some() {
        trust.path = "/etc/landfall/known_hosts".into();
    }
    trust
}

#[test]
fn the_forges_have_the_fingerprints_they_publish() {
    let forges = parse(FORGES, Path::new(BUILT_IN)).expect("readable");
    assert!(forges.unread.is_empty());
    let published = |name: &str, port: u16, expected: [&str; 3]| {
        let found: Vec<String> =
            forges.pinned(&host(name, port)).into_iter().map(|pinned| pinned.fingerprint).collect();
        assert_eq!(found, expected.map(|print| format!("SHA256:{print}")), "{name}");
    };
    let github = [
        "+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
        "p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
        "uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
    ];
    published("github.com", 22, github);
    published("ssh.github.com", 443, github);
    published(
        "gitlab.com",
        22,
        [
            "eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
            "HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
            "ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
        ],
    );
    published(
        "bitbucket.org",
        22,
        [
            "ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
            "FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
            "46OSHA1Rmj8E8ERTC6xkNcmGOw9oFxYr0WF6zWW8l1E",
        ],
    );
    published(
        "codeberg.org",
        22,
        [
            "mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g",
            "T9FYDEHELhVkulEKKwge5aVhVTbqCW0MIRwAfpARs/E",
            "6QQmYi4ppFS4/+zSZ5S4IU+4sa6rwvQ4PbhCtPEBekQ",
        ],
    );
}

#[test]
fn the_forges_are_trusted_unless_the_file_names_the_host() {
    let gitlab = host("gitlab.com", 22);
    assert_eq!(trust(None).check(&gitlab, &key(GITLAB)), Ok(()));
    assert_eq!(trust(Some(&format!("other {CODEBERG}\n"))).check(&gitlab, &key(GITLAB)), Ok(()));
    // Somebody has pinned another key for it: then only that one counts.
    let own = trust(Some(&format!("gitlab.com {CODEBERG}\n")));
    assert_eq!(own.check(&gitlab, &key(CODEBERG)), Ok(()));
    assert_eq!(own.check(&gitlab, &key(GITLAB)).expect_err("changed").kind, SourceErrorKind::HostKeyChanged);
    let revoked = trust(Some(&format!("@revoked * {GITLAB}\n"))).check(&gitlab, &key(GITLAB)).expect_err("revoked");
    assert!(revoked.kind == SourceErrorKind::HostKeyChanged && revoked.what.contains("revoked"), "{revoked:?}");
    assert_eq!(
        trust(None).check(&host("gitlab.com", 2222), &key(GITLAB)).expect_err("unknown").kind,
        SourceErrorKind::HostKeyUnknown
    );
}

#[test]
fn an_unknown_host_is_told_with_the_command_that_pins_it() {
    let trouble = trust(Some("junk\n")).check(&host("git.example.com", 2222), &key(CODEBERG)).expect_err("unknown");
    assert_eq!(trouble.kind, SourceErrorKind::HostKeyUnknown);
    assert!(trouble.what.contains("[git.example.com]:2222") && trouble.what.contains(CODEBERG_PRINT), "{trouble:?}");
    assert!(trouble.what.contains("could not be read in line 1"), "{trouble:?}");
    let command = format!("run: echo '[git.example.com]:2222 {CODEBERG}' >> /etc/landfall/known_hosts");
    assert!(trouble.mend.ends_with(&command), "{}", trouble.mend);
    let without = trust(None).check(&host("h", 22), &key(CODEBERG)).expect_err("unknown");
    let end =
        format!("run: echo 'h {CODEBERG}' >> /keys/known_hosts and set `git.ssh.known_hosts_file: /keys/known_hosts`");
    assert!(without.mend.ends_with(&end), "{}", without.mend);
}

#[test]
fn a_changed_key_is_told_with_both_fingerprints_and_the_command() {
    let trouble = trust(Some(&format!("\nh {GITLAB}\n"))).check(&host("h", 22), &key(CODEBERG)).expect_err("changed");
    assert_eq!(trouble.kind, SourceErrorKind::HostKeyChanged);
    let expected = format!(
        "expected {GITLAB_PRINT} (ssh-ed25519, /etc/landfall/known_hosts:2), offered {CODEBERG_PRINT} (ssh-ed25519)"
    );
    assert!(trouble.what.ends_with(&expected), "{}", trouble.what);
    let command = format!(
        "run: ssh-keygen -R h -f /etc/landfall/known_hosts && echo 'h {CODEBERG}' >> /etc/landfall/known_hosts"
    );
    assert!(trouble.mend.ends_with(&command), "{}", trouble.mend);
    // A built-in key cannot be removed; the own file wins over it.
    let forge = trust(None).check(&host("gitlab.com", 22), &key(CODEBERG)).expect_err("changed");
    assert!(
        forge.what.contains(GITLAB_PRINT) && forge.what.contains(BUILT_IN) && !forge.mend.contains("-R"),
        "{forge:?}"
    );
}

#[test]
fn an_authority_is_refused_in_words() {
    let trouble = trust(Some(&format!("@cert-authority * {GITLAB}\n")))
        .check(&host("h", 22), &key(CODEBERG))
        .expect_err("refused");
    assert!(trouble.what.contains("certificate authority") && trouble.what.contains(":1 "), "{trouble:?}");
}
