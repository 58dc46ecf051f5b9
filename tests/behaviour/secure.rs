//! The API from other machines: over TLS, with certificates that are renewed while it runs.

use std::path::Path;

use landfall::client::{Client, Credentials, Target};
use landfall::domain::{Scope, Secret, Verb};
use landfall::wire::tokens::TokenRequest;
use rcgen::{CertificateParams, KeyPair};

use crate::support::{Agent, Setup, free_port, landfall, until};

/// Puts a new certificate for the loopback in place, as whoever renews one does: each file whole or not at all.
fn renew(place: &Path) {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    for (name, text) in [("key.pem", key.serialize_pem()), ("chain.pem", certificate.pem())] {
        let temporary = place.join("new.pem");
        std::fs::write(&temporary, text).expect("written");
        std::fs::rename(&temporary, place.join(name)).expect("in place");
    }
}

async fn start() -> (Agent, String) {
    let mut setup = Setup::new();
    let place = setup.dir.path().to_owned();
    renew(&place);
    let port = free_port();
    setup.api = format!(
        ", listen: \"127.0.0.1:{port}\", tls: {{certificate_file: {0}/chain.pem, key_file: {0}/key.pem}}",
        place.display()
    );
    (setup.start().await, format!("https://127.0.0.1:{port}"))
}

fn client(url: &str, token: &str, ca: &Path) -> Client {
    let credentials = Credentials { token: Some(Secret::new(token)), ca_file: Some(ca.to_owned()) };
    Client::connect_with(&Target::Url(url.to_owned()), &credentials).expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_speaks_tls_and_takes_up_renewed_certificates() {
    let (agent, url) = start().await;
    let scope = Scope { verbs: vec![Verb::Read], apps: Vec::new() };
    let request = TokenRequest { name: "ci".into(), actor: None, scope, expires_at: None };
    let token = agent.client.create_token(&request).await.expect("made").secret;
    let ca = agent.root.join("chain.pem");
    let first = agent.root.join("first.pem");
    std::fs::copy(&ca, &first).expect("kept");
    client(&url, &token, &ca).status().await.expect("answered over TLS");
    let plain = Client::connect(&Target::Url(url.replace("https", "http"))).expect("a client");
    assert!(plain.status().await.is_err(), "nothing is answered without TLS");

    let output = tokio::process::Command::new(landfall())
        .args(["--agent", &url, "app", "list", "--json"])
        .env("LANDFALL_TOKEN", &token)
        .env("LANDFALL_CA_FILE", &ca)
        .output()
        .await
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    renew(&agent.root);
    until("the renewed certificate is shown", || async {
        client(&url, &token, &ca).status().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert!(client(&url, &token, &first).status().await.is_err(), "the one from before is no longer shown");

    std::fs::write(agent.root.join("broken.pem"), "no certificate").expect("written");
    std::fs::rename(agent.root.join("broken.pem"), &ca).expect("in place");
    assert!(agent.client.status().await.is_ok());
    let before = agent.root.join("second.pem");
    assert!(!before.exists());
    until("the log tells of the broken file", || async {
        let _ = client(&url, &token, &first).status().await;
        if agent.log().contains("the one from before stays in use") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}
