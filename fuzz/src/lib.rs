//! What must hold for any input. Each target feeds one of these; whatever panics here is a finding.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};
use landfall::files::config::GitReference;
use landfall::files::{FileErrors, read_config, read_manifest};
use landfall::source::hook::{Claim, Secrets, Told};

const SECRET: &[u8] = b"a secret that no input holds by chance";

/// A manifest is read, or refused with errors that lie within the text.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = read_manifest("landfall.yaml", text) {
        place(text, &errors);
    }
}

/// The same for the agent's configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = read_config(Path::new("/etc/landfall/landfall.yaml"), text, &mut std::iter::empty()) {
        place(text, &errors);
    }
}

fn place(text: &str, errors: &FileErrors) {
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    for error in errors.iter() {
        assert!(!error.to_string().is_empty());
        assert!(error.line <= lines + 1, "line {} of {lines}: {error}", error.line);
    }
}

/// How each forge signs and names a push; the first byte of an input chooses.
const FORGES: [(&str, &str, &str, &str); 9] = [
    ("x-hub-signature-256", "sha256=", "x-github-event", "push"),
    ("x-hub-signature-256", "sha256=", "x-github-event", "delete"),
    ("x-gitlab-token", "", "x-gitlab-event", "Push Hook"),
    ("x-gitea-signature", "", "x-gitea-event", "push"),
    ("x-forgejo-signature", "", "x-forgejo-event", "create"),
    ("x-gogs-signature", "", "x-gogs-event", "push"),
    ("x-hub-signature", "sha256=", "x-event-key", "repo:push"),
    ("x-hub-signature", "sha256=", "x-event-key", "repo:refs_changed"),
    ("x-landfall-signature", "sha256=", "x-landfall-event", "push"),
];

/// A body that is rightly signed is read, or refused with a mend; another body under that signature is not genuine.
pub fn hook(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let (header, prefix, event_header, event) = FORGES[usize::from(*choice) % FORGES.len()];
    let token = header == "x-gitlab-token";
    let proof = if token { SECRET.to_vec() } else { format!("{prefix}{}", sign(body)).into_bytes() };
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(header), HeaderValue::from_bytes(&proof).expect("printable"));
    headers.insert(HeaderName::from_static(event_header), HeaderValue::from_static(event));
    let claim = Claim::of(&headers).expect("headers as the forge sends them");
    let secrets = Secrets::new(b"the one before", Some(SECRET));
    assert!(claim.is_genuine(body, &secrets));
    let mut other = body.to_vec();
    other.push(b' ');
    assert!(token || !claim.is_genuine(&other, &secrets));
    match claim.told(body) {
        Ok(Told::Pushed(push)) => {
            for reference in [
                GitReference::Head,
                GitReference::Branch("main".into()),
                GitReference::Tag("v1".into()),
                GitReference::Full("refs/heads/main".into()),
                GitReference::Named("main".into()),
                GitReference::Semver("^1".parse().expect("a range")),
            ] {
                let _ = push.meant_for(&reference);
            }
        }
        Ok(Told::Ping | Told::Other) => {}
        Err(error) => assert!(!error.mend().is_empty() && !error.to_string().is_empty()),
    }
}

/// Lines `name: value`, then an empty line, then a body. Nobody who does not know the secret is genuine.
pub fn signature(data: &[u8]) {
    let end = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    match Claim::of(&headers) {
        Ok(claim) => {
            assert!(!claim.is_genuine(body, &Secrets::new(SECRET, None)));
            let _ = claim.told(body);
        }
        Err(error) => assert!(!error.mend().is_empty() && !error.to_string().is_empty()),
    }
}

fn sign(body: &[u8]) -> String {
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET), body);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
