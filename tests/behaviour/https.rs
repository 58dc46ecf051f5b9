//! HTTPS, end to end: certificates from files and from a real ACME server (Let's Encrypt's own test server, Pebble).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use landfall::wire::certificates::{Certificate, CertificateStanding};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};

use crate::support::{Agent, Setup, free_port, send_signal, until, web_manifest};

/// A certificate for these hosts, with its key, as PEM.
fn made(hosts: &[&str]) -> String {
    let key = KeyPair::generate().expect("a key");
    let hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    CertificateParams::new(hosts).expect("names").self_signed(&key).expect("signs").pem() + &key.serialize_pem()
}

/// As a renewing program does it: under another name first.
fn lay(path: &Path, text: &str) {
    std::fs::write(path.with_extension("new"), text).expect("writes");
    std::fs::rename(path.with_extension("new"), path).expect("renames");
}

/// `GET` over HTTPS from the host at this address, trusting this certificate alone.
async fn get(address: SocketAddr, host: &str, trusted: &[u8]) -> Result<(u16, String), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = reqwest::Certificate::from_pem(trusted).map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted])
        .resolve(host, address)
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())?;
    let answer =
        client.get(format!("https://{host}:{}/", address.port())).send().await.map_err(|error| format!("{error:?}"))?;
    Ok((answer.status().as_u16(), answer.text().await.map_err(|error| error.to_string())?))
}

async fn until_secure(address: SocketAddr, host: &str, trusted: &[u8], body: &str) {
    until(&format!("{host} answers over HTTPS"), || async {
        let answer = get(address, host, trusted).await?;
        if answer == (200, body.to_owned()) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

async fn certificate(agent: &Agent, subject: &str, what: &str, holds: impl Fn(&Certificate) -> bool) -> Certificate {
    until(what, || async {
        let certificates = agent.client.certificates().await.map_err(|error| error.to_string())?;
        let found = certificates.iter().find(|certificate| certificate.subject == subject);
        found.filter(|certificate| holds(certificate)).cloned().ok_or_else(|| format!("{certificates:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_served_with_a_certificate_from_a_file_and_with_its_successor() {
    let mut setup = Setup::new();
    let api = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{api}\"");
    let (good, bad) = (setup.dir.path().join("good.pem"), setup.dir.path().join("bad.pem"));
    let first = made(&["shop.localhost"]);
    lay(&good, &first);
    lay(&bad, "this is no certificate\n");
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    setup.proxy = format!(
        ", tls: {{listen: [\"{secure}\"], certificates: [{{certificate_file: {}}}, {{certificate_file: {}}}]}}",
        good.display(),
        bad.display()
    );
    setup.repo.app("shop", "hello\n").app("other", "hello\n");
    setup.repo.push("first");
    let agent = setup.start().await;
    agent.until_live("shop", 1).await;
    until_secure(secure, "shop.localhost", first.as_bytes(), "hello\n").await;

    // The URL says so, plain HTTP leads there, and what has no certificate stays where it was.
    let app = agent
        .until_app("shop", "the URL is one of HTTPS", |app| app.urls.iter().all(|one| one.url.starts_with("https://")))
        .await;
    assert_eq!(
        app.urls.iter().map(|one| one.url.clone()).collect::<Vec<_>>(),
        [format!("https://shop.localhost:{}", secure.port())]
    );
    let plain = agent.get("shop", "/a?b").await.expect("an answer");
    assert_eq!(
        (plain.status, plain.header("location")),
        (308, Some(format!("https://shop.localhost:{}/a?b", secure.port()).as_str()))
    );
    agent.until_body("other", "hello\n").await;

    // The one that is bad is shown, and harms no other.
    let shown =
        certificate(&agent, &bad.display().to_string(), "the bad one is shown", |one| one.problem.is_some()).await;
    assert_eq!(shown.state, CertificateStanding::Missing);
    assert!(shown.problem.expect("a problem").contains("no certificate in it"));

    // Renewed in place, it is shown from then on; a proxy that starts anew shows it too.
    let second = made(&["shop.localhost", "www.shop.localhost"]);
    lay(&good, &second);
    until_secure(secure, "shop.localhost", second.as_bytes(), "hello\n").await;
    let old = agent.proxy_pid().await;
    send_signal(old, Signal::SIGKILL);
    agent.until_new_proxy(old).await;
    until_secure(secure, "shop.localhost", second.as_bytes(), "hello\n").await;
    lay(&good, "damaged\n");
    let subject = good.display().to_string();
    let shown =
        certificate(&agent, &subject, "the damage is shown", |one| one.state == CertificateStanding::Troubled).await;
    assert_eq!(shown.names, ["shop.localhost", "www.shop.localhost"]);
    let metrics = crate::metrics::scrape(api).await;
    let value = |name: &str| {
        let label = format!("landfall_certificate_{name}{{host=\"www.shop.localhost\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&label));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{label}: {metrics}"))
    };
    assert_eq!(value("failing"), 1.0);
    assert!(value("expiry_seconds") > 3600.0, "{metrics}");
    until_secure(secure, "shop.localhost", second.as_bytes(), "hello\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_added_and_removed_while_the_agent_runs() {
    let mut setup = Setup::new();
    setup.repo.app("shop", "hello\n");
    setup.repo.push("first");
    let agent = setup.start().await;
    agent.until_body("shop", "hello\n").await;
    let pem = agent.root.join("shop.pem");
    let text = made(&["shop.localhost"]);
    lay(&pem, &text);
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let file = agent.root.join("landfall.yaml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    let tls = format!(
        "domain: localhost, tls: {{redirect: false, listen: [\"{secure}\"], certificates: [{{certificate_file: {}}}]}}",
        pem.display()
    );
    lay(&file, &before.replace("domain: localhost", &tls));
    until_secure(secure, "shop.localhost", text.as_bytes(), "hello\n").await;
    agent.until_body("shop", "hello\n").await;
    lay(&file, &before);
    until("HTTPS is gone", || async {
        match tokio::net::TcpStream::connect(secure).await {
            Ok(_) => Err("somebody listens".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    agent.until_body("shop", "hello\n").await;
}

/// Let's Encrypt's test server.
struct Pebble {
    directory: String,
    management: SocketAddr,
    ca: PathBuf,
    children: Vec<Child>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where it is installed, if it is.
fn pebble() -> Option<PathBuf> {
    let own = std::env::var_os("LANDFALL_TEST_PEBBLE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|directory| directory.join("pebble").is_file());
    let found = own.or(in_path).filter(|directory| directory.join("pebble-challtestsrv").is_file());
    if found.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs pebble and pebble-challtestsrv");
        eprintln!(
            "skipped: there is no pebble here; `go install github.com/letsencrypt/pebble/v2/cmd/...@latest` brings it"
        );
    }
    found
}

impl Pebble {
    /// One that looks at hosts of any name on this machine, at these ports, after up to so many seconds.
    async fn start(programs: &Path, root: &Path, (http, tls): (u16, u16), life: u64, pause: u64) -> Self {
        let (api, management, dns) = (free_port(), free_port(), free_port());
        let (api, management) =
            (SocketAddr::from(([127, 0, 0, 1], api)), SocketAddr::from(([127, 0, 0, 1], management)));
        let own = made(&["localhost", "127.0.0.1"]);
        let ca = root.join("pebble.pem");
        std::fs::write(&ca, &own).expect("writes");
        let config = serde_json::json!({"pebble": {
            "listenAddress": api.to_string(), "managementListenAddress": management.to_string(),
            "certificate": ca, "privateKey": ca, "httpPort": http, "tlsPort": tls, "ocspResponderURL": "",
            "externalAccountBindingRequired": false, "domainBlocklist": ["refused.example.com"],
            "profiles": {"default": {"description": "the only one", "validityPeriod": life}},
        }});
        let file = root.join("pebble.json");
        std::fs::write(&file, config.to_string()).expect("writes");
        let log = std::fs::File::create(root.join("pebble.log")).expect("a log");
        let names = Command::new(programs.join("pebble-challtestsrv"))
            .args([
                "-defaultIPv4",
                "127.0.0.1",
                "-defaultIPv6",
                "",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-doh",
                "",
            ])
            .args(["-management", &format!("127.0.0.1:{}", free_port()), "-dnsserver", &format!("127.0.0.1:{dns}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the name server starts");
        let server = Command::new(programs.join("pebble"))
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
            .env(if pause == 0 { "PEBBLE_VA_NOSLEEP" } else { "PEBBLE_VA_SLEEPTIME" }, pause.max(1).to_string())
            .env("PEBBLE_WFE_NONCEREJECT", "50")
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the authority starts");
        let pebble = Self { directory: format!("https://{api}/dir"), management, ca, children: vec![names, server] };
        until("the authority answers", || async { pebble.root().await.map(drop) }).await;
        pebble
    }

    /// The certificate that all it issues can be verified with.
    async fn root(&self) -> Result<Vec<u8>, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = std::fs::read(&self.ca).map_err(|error| error.to_string())?;
        let trusted = reqwest::Certificate::from_pem(&own).map_err(|error| error.to_string())?;
        let client = reqwest::Client::builder()
            .tls_certs_only([trusted])
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        let answer = client
            .get(format!("https://{}/roots/0", self.management))
            .send()
            .await
            .map_err(|error| format!("{error:?}"))?;
        Ok(answer.bytes().await.map_err(|error| error.to_string())?.to_vec())
    }

    fn configuration(&self, secure: SocketAddr, staging: Option<&Self>) -> String {
        let staging = staging.map(|staging| format!(", staging: \"{}\"", staging.directory)).unwrap_or_default();
        format!(
            ", tls: {{listen: [\"{secure}\"], acme: {{accept_terms: true, directory: \"{}\", ca_file: {}{staging}}}}}",
            self.directory,
            self.ca.display()
        )
    }
}

/// An app with these hosts besides its own.
fn hosts(app: &str, hosts: &str) -> String {
    web_manifest(app, &format!("    hosts: [{hosts}]\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_had_from_an_authority_one_host_never_harming_another_and_renewed() {
    let Some(programs) = pebble() else { return };
    let mut setup = Setup::new();
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // So short that it is renewed while the test looks.
    let pebble = Pebble::start(&programs, setup.dir.path(), (setup.port, secure.port()), 45, 0).await;
    setup.proxy = pebble.configuration(secure, None);
    setup.repo.write("shop/landfall.yaml", hosts("shop", "shop.example.com, refused.example.com, www.example.com"));
    setup.repo.write("shop/content.txt", "hello\n");
    setup.repo.push("first");
    let agent = setup.start().await;
    agent.until_live("shop", 1).await;
    let root = pebble.root().await.expect("the root");
    until_secure(secure, "shop.example.com", &root, "hello\n").await;
    until_secure(secure, "www.example.com", &root, "hello\n").await;
    let refused = certificate(&agent, "refused.example.com", "the refusal is shown", |one| one.problem.is_some()).await;
    assert_eq!(refused.state, CertificateStanding::Missing);
    assert!(refused.next_order.is_some());

    let first = certificate(&agent, "shop.example.com", "it is in use", |one| one.not_after.is_some()).await;
    let renewed = certificate(&agent, "shop.example.com", "it is renewed", |one| one.not_after > first.not_after).await;
    assert!(renewed.issuer.expect("an issuer").contains("Pebble"));
    until_secure(secure, "shop.example.com", &root, "hello\n").await;
    let events = agent.client.events(0, 1000).await.expect("events");
    assert!(events.iter().any(|event| event.event.message.contains("shop.example.com was issued")), "{events:?}");
    // Before the agent's end, which looks for whatever still runs in its directory.
    drop(pebble);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_reached_by_tls_alone_is_proved_that_way_and_an_open_order_survives_its_controller() {
    let Some(programs) = pebble() else { return };
    let mut setup = Setup::new();
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // Nobody answers at the port for HTTP.
    let pebble = Pebble::start(&programs, setup.dir.path(), (free_port(), secure.port()), 3600, 2).await;
    setup.proxy = pebble.configuration(secure, Some(&pebble));
    setup.repo.write("shop/landfall.yaml", hosts("shop", "shop.example.com"));
    setup.repo.write("shop/content.txt", "hello\n");
    setup.repo.push("first");
    let agent = setup.start().await;
    agent.until_live("shop", 1).await;
    let shown = certificate(&agent, "shop.example.com", "the first try is in vain", |one| one.problem.is_some()).await;
    let problem = shown.problem.expect("a problem");
    assert!(problem.contains("by HTTP") && problem.contains("port 80"), "{problem}");
    // Orders are open nearly all the time now; whichever it is, the next controller goes on with it.
    let old = agent.kill_controller().await;
    agent.until_new_controller(old).await;
    let root = pebble.root().await.expect("the root");
    until_secure(secure, "shop.example.com", &root, "hello\n").await;
    certificate(&agent, "shop.example.com", "all is well", |one| one.state == CertificateStanding::Valid).await;
    assert!(agent.log().contains("the order was tried out; now it is meant"));
    drop(pebble);
}
