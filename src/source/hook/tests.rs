//! What must hold for any headers and any body, however hostile. The same properties are fuzzed in `fuzz/`; real
//! deliveries are read in `tests/source/hooks.rs`.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::files::config::GitReference;

const NAMES: [&str; 15] = [
    "x-landfall-signature",
    "x-landfall-event",
    "x-gitlab-token",
    "x-gitlab-event",
    "x-forgejo-signature",
    "x-forgejo-event",
    "x-gitea-signature",
    "x-gitea-event",
    "x-gogs-signature",
    "x-gogs-event",
    "x-hub-signature-256",
    "x-hub-signature",
    "x-github-event",
    "x-event-key",
    "content-type",
];

const SECRET: &[u8] = b"one-secret-for-the-tests";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sign(secret: &[u8], body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    hex(ring::hmac::sign(&key, body).as_ref())
}

/// Headers as strangers may write them: known names, values of nearly the right form.
fn headers() -> impl Strategy<Value = HeaderMap> {
    let value = prop_oneof![
        "[ -~]{0,80}",
        "(sha256=|sha1=)?[0-9a-fA-F]{0,66}",
        "sha256=[0-9a-f]{64}",
        "[0-9a-f]{64}",
        Just("push".to_owned()),
        Just("ping".to_owned()),
    ];
    prop::collection::vec((prop::sample::select(NAMES.to_vec()), value), 0..8).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(&value).expect("printable"));
        }
        headers
    })
}

/// Bodies that are nearly those of a forge.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "null",
        "true",
        "0",
        "\"ref\"",
        "\"refs/heads/main\"",
        "\"push\"",
        "\"changes\"",
        "\"new\"",
        "\"old\"",
        "\"type\"",
        "\"branch\"",
        "\"name\"",
        "\"object_kind\"",
        "\"repository\"",
        "\"deleted\"",
        "\"default_branch\"",
        "\"after\"",
        "\\",
        "\u{1F680}",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
        any::<(String, bool)>().prop_map(|(name, deleted)| {
            serde_json::json!({"ref": name, "deleted": deleted, "object_kind": "push"}).to_string().into_bytes()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn headers_of_strangers_are_never_genuine(headers in headers(), body in bodies()) {
        if let Ok(claim) = Claim::of(&headers) {
            prop_assert!(!claim.is_genuine(&body, &Secrets::new(SECRET, Some(b"another"))));
        }
    }

    #[test]
    fn any_body_is_read_or_refused_with_a_mend(headers in headers(), body in bodies()) {
        if let Ok(claim) = Claim::of(&headers) {
            match claim.told(&body) {
                Ok(Told::Pushed(push)) => { push.meant_for(&GitReference::Head); }
                Ok(Told::Ping | Told::Other) => {}
                Err(error) => prop_assert!(!error.mend().is_empty()),
            }
        }
    }

    #[test]
    fn a_signature_holds_for_its_body_and_secret_alone(
        secret in prop::collection::vec(any::<u8>(), 1..80),
        body in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut headers = HeaderMap::new();
        let value = format!("sha256={}", sign(&secret, &body));
        headers.insert("x-hub-signature-256", HeaderValue::from_str(&value).expect("printable"));
        headers.insert("x-github-event", HeaderValue::from_static("push"));
        let claim = Claim::of(&headers).expect("a claim");
        prop_assert!(claim.is_genuine(&body, &Secrets::new(&secret, None)));
        prop_assert!(claim.is_genuine(&body, &Secrets::new(b"the one before", Some(&secret))));
        let mut other = body.clone();
        other[at.index(body.len())] ^= 1 << bit;
        prop_assert!(!claim.is_genuine(&other, &Secrets::new(&secret, None)));
        let mut wrong = secret.clone();
        wrong[at.index(secret.len())] ^= 1 << bit;
        prop_assert!(!claim.is_genuine(&body, &Secrets::new(&wrong, None)));
    }

    #[test]
    fn a_token_is_the_whole_secret(secret in "[!-~]{2,60}", cut in any::<prop::sample::Index>()) {
        let claim = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-gitlab-token", HeaderValue::from_str(token).expect("printable"));
            Claim::of(&headers).expect("a claim")
        };
        let secrets = Secrets::new(secret.as_bytes(), None);
        let genuine = |token: &str| claim(token).is_genuine(b"any", &secrets);
        prop_assert!(genuine(&secret));
        let part = &secret[..1 + cut.index(secret.len() - 1)];
        prop_assert!(!genuine(part));
        let longer = secret.clone() + "x";
        prop_assert!(!genuine(&longer));
    }
}

#[test]
fn neither_claim_nor_secrets_show_a_secret() {
    let mut headers = HeaderMap::new();
    headers.insert("x-gitlab-token", HeaderValue::from_static("hush-hush"));
    let claim = Claim::of(&headers).expect("a claim");
    let shown = format!("{claim:?} {:?}", Secrets::new(b"hush-hush", None));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn secret_files_are_read_as_people_write_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("good"), "s3cret\r\n").expect("written");
    std::fs::write(path("empty"), "\n").expect("written");
    std::fs::write(path("long"), vec![b'x'; 5000]).expect("written");
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let mut headers = HeaderMap::new();
    headers.insert("x-gitlab-token", HeaderValue::from_static("s3cret"));
    let claim = Claim::of(&headers).expect("a claim");

    let (secrets, troubles) = Secrets::read(&[path("gone"), path("good")]);
    assert!(claim.is_genuine(b"", &secrets.expect("one of two is enough")));
    assert!(troubles[0].to_string().contains("gone"), "{troubles:?}");
    for (name, words) in [("empty", "is empty"), ("long", "longer than 4096"), ("pipe", "not a file")] {
        let (secrets, troubles) = Secrets::read(&[path(name)]);
        assert!(secrets.is_none() && troubles[0].to_string().contains(words), "{name}: {troubles:?}");
    }
}
