//! Push hooks as each forge sends them: `tests/data/hooks/<forge>/<case>.headers` and `.json`, written from the forges'
//! documentation and signed with [`SECRET`]. A new case is two files and, if its name is new, a row in [`CASES`].

use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use landfall::domain::Provider;
use landfall::files::config::GitReference;
use landfall::source::hook::{Claim, ClaimError, Hint, Secrets, Told};

const SECRET: &[u8] = b"one-secret-for-the-tests";

/// What a case means for a source that follows branch `main`, the default branch, and tag `v1.4.0`.
type Meaning = [Means; 3];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Look,
    Elsewhere,
    Deleted,
    Ping,
    Other,
    /// Look where the sender does not say what the default branch is, else elsewhere.
    Perhaps,
}

use Means::{Deleted, Elsewhere, Look, Other, Perhaps, Ping};

const CASES: [(&str, Meaning); 17] = [
    ("push", [Look, Look, Elsewhere]),
    ("push-short-name", [Look, Look, Elsewhere]),
    ("push-several", [Look, Look, Elsewhere]),
    ("system-push", [Look, Look, Elsewhere]),
    ("push-other-branch", [Elsewhere, Perhaps, Elsewhere]),
    ("push-tag", [Elsewhere, Elsewhere, Look]),
    ("create-tag", [Elsewhere, Elsewhere, Look]),
    ("push-deleted", [Deleted, Deleted, Elsewhere]),
    ("delete", [Deleted, Deleted, Elsewhere]),
    ("anything", [Look, Look, Look]),
    ("empty", [Look, Look, Look]),
    ("ping", [Ping, Ping, Ping]),
    ("issues", [Other, Other, Other]),
    ("issue", [Other, Other, Other]),
    ("comment", [Other, Other, Other]),
    ("forked", [Other, Other, Other]),
    ("system-other", [Other, Other, Other]),
];

const FORGES: [(&str, Provider); 8] = [
    ("github", Provider::GitHub),
    ("gitlab", Provider::GitLab),
    ("gitea", Provider::Gitea),
    ("forgejo", Provider::Forgejo),
    ("gogs", Provider::Gogs),
    ("bitbucket-cloud", Provider::Bitbucket),
    ("bitbucket-data-center", Provider::Bitbucket),
    ("generic", Provider::Landfall),
];

struct Delivery {
    forge: &'static str,
    provider: Provider,
    case: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hooks")
}

fn deliveries() -> Vec<Delivery> {
    let mut found = Vec::new();
    for (forge, provider) in FORGES {
        for entry in std::fs::read_dir(data().join(forge)).expect("the forge's directory").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let case = path.file_stem().expect("a name").to_string_lossy().into_owned();
                let headers = read_headers(&path.with_extension("headers"));
                found.push(Delivery { forge, provider, case, headers, body: std::fs::read(&path).expect("a body") });
            }
        }
    }
    assert!(found.len() >= 56, "{} deliveries", found.len());
    found
}

fn read_headers(path: &Path) -> HeaderMap {
    let text = std::fs::read_to_string(path).expect("headers");
    let pairs = text.lines().map(|line| line.split_once(": ").expect("name: value"));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn is_signature(name: &HeaderName) -> bool {
    name.as_str().contains("signature") || name.as_str() == "x-gitlab-token"
}

fn signatures(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.keys().filter(|name| is_signature(name)).cloned().collect()
}

fn secrets() -> Secrets {
    Secrets::new(SECRET, None)
}

fn claim(delivery: &Delivery) -> Claim {
    Claim::of(&delivery.headers).unwrap_or_else(|error| panic!("{}/{}: {error}", delivery.forge, delivery.case))
}

fn meant(told: Told, reference: &GitReference) -> Means {
    match told {
        Told::Ping => Ping,
        Told::Other => Other,
        Told::Pushed(push) => match push.meant_for(reference) {
            Hint::Look => Look,
            Hint::Elsewhere => Elsewhere,
            Hint::Deleted(_) => Deleted,
        },
    }
}

#[test]
fn every_delivery_is_genuine_and_means_what_it_should() {
    let followed = [GitReference::Branch("main".into()), GitReference::Head, GitReference::Tag("v1.4.0".into())];
    for delivery in deliveries() {
        let place = format!("{}/{}", delivery.forge, delivery.case);
        let claim = claim(&delivery);
        assert_eq!(claim.provider(), delivery.provider, "{place}");
        assert!(claim.is_genuine(&delivery.body, &secrets()), "{place}");
        let (_, expected) = CASES.iter().find(|(case, _)| *case == delivery.case).expect(&place);
        for (reference, expected) in followed.iter().zip(expected) {
            let told = claim.told(&delivery.body).unwrap_or_else(|error| panic!("{place}: {error}"));
            let says_default = matches!(&told, Told::Pushed(push) if push.default_branch.is_some());
            let expected = match expected {
                Perhaps if says_default => Elsewhere,
                Perhaps => Look,
                other => *other,
            };
            assert_eq!(meant(told, reference), expected, "{place} for {reference:?}");
        }
    }
}

#[test]
fn a_commit_that_is_waited_for_may_come_with_any_push() {
    let commit = GitReference::Commit("5b1f3c0a9d27e84c6f1a0b2d3e4f5a6b7c8d9e0f".parse().expect("an id"));
    for delivery in deliveries().iter().filter(|delivery| delivery.case.starts_with("push")) {
        let told = claim(delivery).told(&delivery.body).expect("readable");
        let expected = if delivery.case == "push-deleted" { Elsewhere } else { Look };
        assert_eq!(meant(told, &commit), expected, "{}/{}", delivery.forge, delivery.case);
    }
}

#[test]
fn other_ways_to_name_what_is_followed_are_understood() {
    let full = |name: &str| GitReference::Full(name.into());
    let named = |name: &str| GitReference::Named(name.into());
    let range = || GitReference::Semver("^1".parse().expect("a range"));
    for (reference, looked_at) in [
        (full("refs/heads/main"), &["push"][..]),
        (full("refs/tags/v1.4.0"), &["push-tag"]),
        (full("refs/heads/v1.4.0"), &[]),
        (named("main"), &["push"]),
        (named("v1.4.0"), &["push-tag"]),
        (range(), &["push-tag"]),
    ] {
        for delivery in deliveries() {
            if !["push", "push-tag", "push-other-branch"].contains(&delivery.case.as_str()) {
                continue;
            }
            let told = claim(&delivery).told(&delivery.body).expect("readable");
            let expected = if looked_at.contains(&delivery.case.as_str()) { Look } else { Elsewhere };
            assert_eq!(meant(told, &reference), expected, "{}/{} for {reference}", delivery.forge, delivery.case);
        }
    }
}

#[test]
fn a_tag_of_a_range_that_goes_makes_another_the_highest() {
    let gone = landfall::source::hook::Change { reference: "refs/tags/v1.4.0".into(), deleted: true };
    let push = landfall::source::hook::Push { changes: vec![gone], default_branch: None };
    assert_eq!(push.meant_for(&GitReference::Semver("^1".parse().expect("a range"))), Hint::Look);
    assert_eq!(push.meant_for(&GitReference::Named("v1.4.0".into())), Hint::Deleted("refs/tags/v1.4.0".into()));
}

#[test]
fn either_of_two_secrets_is_accepted_and_no_other() {
    for delivery in deliveries() {
        let place = format!("{}/{}", delivery.forge, delivery.case);
        let claim = claim(&delivery);
        assert!(claim.is_genuine(&delivery.body, &Secrets::new(SECRET, Some(b"the next one"))), "{place}");
        assert!(claim.is_genuine(&delivery.body, &Secrets::new(b"the one before", Some(SECRET))), "{place}");
        assert!(!claim.is_genuine(&delivery.body, &Secrets::new(b"the one before", Some(b"the next one"))), "{place}");
    }
}

#[test]
fn another_body_is_not_what_was_signed() {
    // GitLab's token says nothing about the body.
    for mut delivery in deliveries().into_iter().filter(|delivery| delivery.provider != Provider::GitLab) {
        let claim = claim(&delivery);
        delivery.body.push(b' ');
        assert!(!claim.is_genuine(&delivery.body, &secrets()), "{}/{}", delivery.forge, delivery.case);
    }
}

/// The last character becomes another one of its kind.
fn spoiled(value: &HeaderValue) -> HeaderValue {
    let mut text = value.to_str().expect("text").to_owned();
    let last = text.pop().expect("not empty");
    text.push(if last == '0' { '1' } else { '0' });
    HeaderValue::from_str(&text).expect("a value")
}

#[test]
fn one_wrong_signature_is_enough_whatever_stands_beside_it() {
    for delivery in deliveries() {
        for name in signatures(&delivery.headers) {
            let mut headers = delivery.headers.clone();
            let value = spoiled(&headers[&name]);
            headers.insert(&name, value);
            let claim = Claim::of(&headers).expect("still of the right form");
            assert!(!claim.is_genuine(&delivery.body, &secrets()), "{}/{}: {name}", delivery.forge, delivery.case);
        }
    }
}

#[test]
fn without_a_signature_nothing_is_claimed() {
    for delivery in deliveries() {
        let mut headers = delivery.headers.clone();
        for name in signatures(&delivery.headers) {
            headers.remove(name);
        }
        assert_eq!(Claim::of(&headers).err(), Some(ClaimError::Missing), "{}/{}", delivery.forge, delivery.case);
    }
}

#[test]
fn a_signature_that_comes_twice_or_has_no_form_is_refused() {
    for delivery in deliveries() {
        let place = format!("{}/{}", delivery.forge, delivery.case);
        for name in signatures(&delivery.headers) {
            let mut headers = delivery.headers.clone();
            let value = headers[&name].clone();
            headers.append(&name, value);
            assert!(matches!(Claim::of(&headers), Err(ClaimError::Repeated(_))), "{place}: {name} twice");
            for value in ["", "sha256=", "sha1=", "sha512=00", "md5"] {
                let token = name.as_str() == "x-gitlab-token";
                if token && !value.is_empty() {
                    continue;
                }
                let mut headers = delivery.headers.clone();
                headers.insert(&name, HeaderValue::from_static(value));
                assert!(matches!(Claim::of(&headers), Err(ClaimError::Malformed(_))), "{place}: {name}: {value}");
            }
        }
    }
}

/// Headers of two forges in one request, all of them right: still no one knows whose hook it is.
#[test]
fn hooks_of_two_forges_at_once_are_refused() {
    let all = deliveries();
    let of = |forge: &str| all.iter().find(|delivery| delivery.forge == forge && delivery.case == "push").expect("one");
    let foreign = [
        ("github", "gitlab"),
        ("github", "generic"),
        ("github", "bitbucket-cloud"),
        ("gitlab", "generic"),
        ("gitlab", "gitea"),
        ("gitlab", "bitbucket-cloud"),
        ("gitea", "generic"),
        ("gogs", "bitbucket-cloud"),
        ("generic", "bitbucket-cloud"),
        ("forgejo", "gitlab"),
    ];
    for (one, other) in foreign {
        let mut headers = of(one).headers.clone();
        for (name, value) in &of(other).headers {
            if name.as_str().starts_with("x-") {
                headers.insert(name, value.clone());
            }
        }
        let refused = Claim::of(&headers);
        assert!(
            matches!(refused, Err(ClaimError::Contradicting { .. } | ClaimError::Malformed(_))),
            "{one} and {other}: {refused:?}"
        );
    }
}

#[test]
fn an_event_that_contradicts_itself_is_refused() {
    let all = deliveries();
    let gitea = all.iter().find(|delivery| delivery.forge == "gitea" && delivery.case == "push").expect("one");
    let mut headers = gitea.headers.clone();
    headers.insert("x-github-event", HeaderValue::from_static("ping"));
    assert!(matches!(Claim::of(&headers), Err(ClaimError::Contradicting { header: "x-github-event", .. })));
    headers.insert("x-github-event", HeaderValue::from_bytes(b"\xff").expect("bytes"));
    assert_eq!(Claim::of(&headers).err(), Some(ClaimError::Event));
}

#[test]
fn a_genuine_body_that_is_not_json_says_what_to_change() {
    for delivery in deliveries().iter().filter(|delivery| delivery.case == "push") {
        for body in [&b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D"[..], b"{\"ref\":", b"[]", b"\xff\xfe"] {
            let error = claim(delivery).told(body).expect_err("not readable");
            assert!(error.mend().contains("application/json"), "{error}");
        }
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(claim(delivery).told(&deep).is_err(), "{}", delivery.forge);
    }
}
