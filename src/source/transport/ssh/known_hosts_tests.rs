//! The format of known hosts, as `ssh-keygen` and people write it, and as nobody should.

use super::*;
use proptest::prelude::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVIC02vnjFyL+I4RHfvIGNtOgJMe769VTF1VR4EB3ZB";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).expect("a key")
}

fn host(host: &str, port: u16) -> Endpoint {
    Endpoint { host: host.to_owned(), port }
}

fn check(file: &str, at: &Endpoint) -> Verdict {
    KnownHosts::parse(file).expect("a file").check(at, &key(ED25519))
}

fn trusts(patterns: &str, at: &Endpoint) -> bool {
    check(&format!("{patterns} {ED25519}\n"), at) == Verdict::Trusted
}

#[test]
fn hosts_are_named_by_lists_patterns_ports_and_exceptions() {
    let plain = host("git.example.com", 22);
    let other = host("git.example.com", 2222);
    for (patterns, plainly, at_port) in [
        ("git.example.com", true, false),
        ("GIT.Example.com", true, false),
        ("a,git.example.com,b", true, false),
        ("[git.example.com]:2222", false, true),
        ("git.example.com,[git.example.com]:2222", true, true),
        ("*.example.com", true, false),
        ("[*.example.com]:2222", false, true),
        ("[*]:*", false, true),
        ("*", true, true),
        ("???.example.com", true, false),
        ("??.example.com", false, false),
        ("*.example.com,!git.example.com", false, false),
        ("!git.example.com", false, false),
        ("!other,*.com", true, false),
        ("git.example.co", false, false),
        ("example.com", false, false),
        ("", false, false),
    ] {
        assert_eq!((trusts(patterns, &plain), trusts(patterns, &other)), (plainly, at_port), "{patterns}");
    }
    assert!(trusts("[::1]:2222", &host("::1", 2222)));
    assert!(trusts("::1", &host("::1", 22)));
}

#[test]
fn names_that_ssh_keygen_hashed_are_found() {
    // ssh-keygen -H of the two lines `git.example.com KEY` and `[git.example.com]:2222 KEY`.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("known_hosts");
    std::fs::write(&path, format!("git.example.com {ED25519}\n[git.example.com]:2222 {ED25519}\n")).expect("written");
    let made = std::process::Command::new("ssh-keygen").arg("-H").arg("-f").arg(&path).output();
    if !made.is_ok_and(|output| output.status.success()) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs ssh-keygen");
        eprintln!("skipped: there is no ssh-keygen here to hash names");
        return;
    }
    let file = std::fs::read_to_string(&path).expect("hashed");
    assert!(file.starts_with("|1|") && !file.contains("example"), "{file}");
    assert_eq!(check(&file, &host("git.example.com", 22)), Verdict::Trusted);
    assert_eq!(check(&file, &host("git.example.com", 2222)), Verdict::Trusted);
    assert_eq!(check(&file, &host("git.example.com", 23)), Verdict::Unknown);
    assert_eq!(check(&file, &host("other.example.com", 22)), Verdict::Unknown);
}

#[test]
fn another_key_is_a_change_and_every_pinned_one_is_told() {
    let at = host("h", 22);
    let file = format!("# a comment\n\nh {OTHER} a comment\r\n\t h\t{OTHER}\nx {ED25519}\n");
    let Verdict::Changed(pinned) = check(&file, &at) else { panic!("{:?}", check(&file, &at)) };
    assert_eq!(pinned.iter().map(|pinned| pinned.line).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(pinned[0].fingerprint, "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8");
    // Old and new at once: a change that was announced.
    assert_eq!(check(&format!("h {OTHER}\nh {ED25519}\n"), &at), Verdict::Trusted);
    assert_eq!(check("", &at), Verdict::Unknown);
}

#[test]
fn a_revoked_key_is_refused_whatever_else_is_said() {
    let at = host("h", 22);
    assert_eq!(check(&format!("h {ED25519}\n@revoked * {ED25519}\n"), &at), Verdict::Revoked(2));
    assert_eq!(check(&format!("h {ED25519}\n@revoked other {ED25519}\n"), &at), Verdict::Trusted);
    assert_eq!(check(&format!("h {ED25519}\n@revoked h {OTHER}\n"), &at), Verdict::Trusted);
    // A revocation alone pins nothing.
    let known = KnownHosts::parse(&format!("@revoked * {OTHER}\n")).expect("a file");
    assert!(!known.names(&at));
}

#[test]
fn an_authority_is_recognised_and_no_pin() {
    let at = host("h", 22);
    assert_eq!(check(&format!("@cert-authority h {ED25519}\n"), &at), Verdict::Authority(1));
    assert_eq!(check(&format!("@cert-authority h {OTHER}\nh {ED25519}\n"), &at), Verdict::Trusted);
    assert_eq!(check(&format!("@cert-authority other {ED25519}\n"), &at), Verdict::Unknown);
}

#[test]
fn lines_that_cannot_be_read_are_told_and_markers_among_them_refuse_the_file() {
    let long = format!("h {ED25519} {}", "x".repeat(MAX_LINE));
    let file = format!("h\nh ssh-ed25519\nh ssh-ed25519 %%%\nh 1024 35 1234\n|1|a {ED25519}\n{long}\nh {ED25519}\n");
    let known = KnownHosts::parse(&file).expect("a file");
    assert_eq!(known.unread, [1, 2, 3, 4, 5, 6]);
    assert_eq!(known.check(&host("h", 22), &key(ED25519)), Verdict::Trusted);
    for marked in ["@revoked", "@revoked h", "@revoke h ssh-ed25519 AAAA", "@revoked h ssh-ed25519 %%", "@"] {
        assert_eq!(KnownHosts::parse(&format!("\n{marked}\n")).err(), Some(2), "{marked}");
    }
}

#[test]
fn a_pattern_that_is_meant_to_take_for_ever_does_not() {
    let pattern = "*a".repeat(4000);
    assert!(!trusts(&pattern, &host(&"a".repeat(3999), 22)));
    assert!(trusts(&pattern, &host(&"a".repeat(4000), 22)));
}

fn line() -> impl Strategy<Value = String> {
    let hosts = prop_oneof![
        "[a-c*?!,.\\[\\]:0-9|]{0,12}",
        "h(,[a-z]{1,3}){0,2}",
        Just("|1|".to_owned()),
        "\\|1\\|[A-Za-z0-9+/=]{0,30}\\|[A-Za-z0-9+/=]{0,30}",
    ];
    let marker = prop_oneof![Just(""), Just("@revoked "), Just("@cert-authority "), Just("@x ")];
    let key = prop_oneof![
        Just(ED25519.to_owned()),
        Just(OTHER.to_owned()),
        "(ssh-rsa|ssh-ed25519|ecdsa-sha2-nistp256|ssh-ed25519-cert-v01@openssh.com) [A-Za-z0-9+/=]{0,80}",
        "\\PC{0,20}",
    ];
    (marker, hosts, "[ \t]{0,2}", key, "[ #\r\u{0}a]{0,3}")
        .prop_map(|(marker, hosts, space, key, end)| format!("{marker}{hosts}{space}{key}{end}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_file_makes_it_fail_and_trust_needs_the_very_key(lines in prop::collection::vec(line(), 0..12), at in "[a-c]{1,3}|h", port in 20u16..25) {
        let file = lines.join("\n");
        if let Ok(known) = KnownHosts::parse(&file) {
            let at = host(&at, port);
            let verdict = known.check(&at, &key(ED25519));
            if verdict == Verdict::Trusted {
                prop_assert!(lines.iter().any(|line| line.contains(ED25519) && !line.starts_with('@')));
                prop_assert!(known.names(&at));
            }
            if !known.names(&at) {
                prop_assert!(matches!(verdict, Verdict::Unknown | Verdict::Revoked(_)));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = KnownHosts::parse(&String::from_utf8_lossy(&bytes)).map(|known| known.check(&host("h", 22), &key(ED25519)));
    }

    #[test]
    fn a_revocation_is_never_outvoted(lines in prop::collection::vec(line(), 0..8), at in 0usize..9) {
        let mut lines = lines;
        lines.insert(at.min(lines.len()), format!("@revoked h {ED25519}"));
        if let Ok(known) = KnownHosts::parse(&lines.join("\n")) {
            prop_assert!(matches!(known.check(&host("h", 22), &key(ED25519)), Verdict::Revoked(_)));
        }
    }

    #[test]
    fn patterns_mean_what_the_slow_way_of_reading_them_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        fn slow(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), None) => slow(rest, text),
                (Some((b'*', rest)), Some((_, more))) => slow(rest, text) || slow(pattern, more),
                (Some((p, rest)), Some((t, more))) => (*p == b'?' || p == t) && slow(rest, more),
                (Some(_), None) | (None, Some(_)) => false,
            }
        }
        prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
    }
}
