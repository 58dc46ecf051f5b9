//! Push hooks, from the forge's request to the running version.

use std::time::{Duration, Instant};

use landfall::domain::{EventKind, HookOutcome, Provider};
use landfall::wire::api;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::git_server::{Gate, GitServer};
use crate::support::http::{Answer, Connection};
use crate::support::{Agent, DEADLINE, Setup, free_port, until};

const SECRET: &str = "the secret of the fleet";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sign(secret: &str, body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    hex(ring::hmac::sign(&key, body).as_ref())
}

/// A hook as GitHub would send it.
fn github(source: &str, event: &str, secret: &str, body: &[u8]) -> Vec<u8> {
    let signature = format!("x-hub-signature-256: sha256={}\r\n", sign(secret, body));
    request(source, &format!("x-github-event: {event}\r\n{signature}"), body)
}

fn request(source: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/hooks/{source} HTTP/1.1\r\nhost: deploy.example.com\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn push(branch: &str) -> Vec<u8> {
    let repository = serde_json::json!({"default_branch": "main"});
    let (reference, none) = (format!("refs/heads/{branch}"), "0".repeat(40));
    serde_json::json!({"ref": reference, "before": none, "after": "1".repeat(40), "repository": repository})
        .to_string()
        .into_bytes()
}

/// An agent that would poll once a day, with `shop` at version 1. The server leaves first, with all its processes.
struct Fleet {
    server: GitServer,
    agent: Agent,
    port: u16,
}

impl Fleet {
    async fn start() -> Option<Self> {
        let mut setup = Setup::new();
        let server = GitServer::serve(setup.dir.path())?;
        let (port, root) = (free_port(), setup.dir.path());
        std::fs::write(root.join("secret"), format!("{SECRET}\n")).expect("written");
        setup.api = format!(", listen: \"0.0.0.0:{port}\"");
        setup.sources = Some(format!(
            "sources:\n  - name: fleet\n    git:\n      url: {}\n      branch: main\n      poll: 1d\n      webhook: {{secret_files: [{}, {}]}}\n  - name: quiet\n    directory: {{path: {}}}\n",
            server.url(),
            root.join("secret").display(),
            root.join("next").display(),
            root.join("quiet").display(),
        ));
        std::fs::create_dir_all(root.join("quiet")).expect("made");
        setup.repo.app("shop", "first\n");
        setup.repo.push("first");
        let agent = setup.start().await;
        agent.until_body("shop", "first\n").await;
        Some(Self { server, agent, port })
    }

    async fn connect(&self) -> Connection {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.port));
        Connection::open(address, "deploy.example.com").await.expect("connected")
    }

    async fn send(&self, request: &[u8]) -> Answer {
        self.connect().await.send(request).await.expect("an answer")
    }

    async fn source(&self) -> api::Source {
        let sources = self.agent.client.sources().await.expect("sources");
        sources.into_iter().find(|source| source.source.as_str() == "fleet").expect("fleet")
    }

    async fn until_visits(&self, count: usize) {
        until(&format!("{count} looks"), || async {
            let visits = self.server.visits();
            if visits >= count { Ok(()) } else { Err(format!("{visits}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_push_is_deployed_at_once() {
    let Some(mut fleet) = Fleet::start().await else { return };
    fleet.agent.repo.app("shop", "second\n");
    fleet.agent.repo.push("second");
    let answer = fleet.send(&github("fleet", "push", SECRET, &push("main"))).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let taken: api::HookTaken = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((taken.source.as_str(), taken.outcome), ("fleet", HookOutcome::Accepted));
    fleet.agent.until_body("shop", "second\n").await;
    let last = fleet.source().await.last_hook.expect("a hook");
    assert_eq!((last.provider, last.outcome), (Provider::GitHub, HookOutcome::Accepted));

    // Over the Unix socket as well.
    fleet.agent.repo.app("shop", "third\n");
    fleet.agent.repo.push("third");
    let mut socket = UnixStream::connect(fleet.agent.root.join("agent.sock")).await.expect("connected");
    socket.write_all(&github("fleet", "push", SECRET, &push("main"))).await.expect("sent");
    let mut status = [0; 12];
    tokio::time::timeout(DEADLINE, socket.read_exact(&mut status)).await.expect("in time").expect("read");
    assert_eq!(&status, b"HTTP/1.1 202");
    fleet.agent.until_body("shop", "third\n").await;
    until("the mark is gone", || async {
        let source = fleet.source().await;
        if source.dirty { Err(format!("{source:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_about_something_else_are_answered_and_cost_no_look() {
    let Some(fleet) = Fleet::start().await else { return };
    let looks = fleet.server.visits();
    let gone = serde_json::json!({"ref": "refs/heads/main", "after": "0".repeat(40), "deleted": true}).to_string();
    let ping = b"{\"zen\":\"keep it simple\"}";
    let feature = push("feature");
    let cases: [(&str, &[u8], HookOutcome); 5] = [
        ("ping", ping, HookOutcome::Ping),
        ("push", &feature, HookOutcome::Ignored),
        ("issues", b"{}", HookOutcome::Ignored),
        ("push", gone.as_bytes(), HookOutcome::Deleted),
        ("push", gone.as_bytes(), HookOutcome::Deleted),
    ];
    for (event, body, outcome) in cases {
        let answer = fleet.send(&github("fleet", event, SECRET, body)).await;
        assert_eq!(answer.status, 200, "{event}: {answer:?}");
        let taken: api::HookTaken = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(taken.outcome, outcome, "{answer:?}");
        assert_eq!(fleet.source().await.last_hook.expect("a hook").outcome, outcome);
    }
    let events = fleet.agent.client.events(0, 100).await.expect("events");
    let deleted: Vec<_> = events.iter().filter(|event| event.event.kind == EventKind::SourceRefDeleted).collect();
    assert_eq!(deleted.len(), 1, "said once: {events:?}");
    assert!(deleted[0].event.message.contains("refs/heads/main"), "{deleted:?}");
    assert_eq!(fleet.server.visits(), looks);
    assert_eq!(fleet.agent.get("shop", "/").await.expect("an answer").body, "first\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_right_is_refused_and_changes_nothing() {
    let Some(fleet) = Fleet::start().await else { return };
    let (looks, body) = (fleet.server.visits(), push("main"));
    let wrong = fleet.send(&github("fleet", "push", "a guess", &body)).await;
    assert_eq!(wrong.status, 403, "{wrong:?}");
    assert!(wrong.body.contains("secret_files"), "{wrong:?}");
    // Nobody learns from the answer which sources there are.
    for other in ["nobody", "quiet", "No%20Name", "%2e%2e", "fleet%00"] {
        let answer = fleet.send(&github(other, "push", SECRET, &body)).await;
        assert_eq!((answer.status, &answer.body), (403, &wrong.body), "{other}");
    }
    let nothing = "0".repeat(64);
    let good = sign(SECRET, &body);
    for headers in [
        "x-github-event: push\r\n".to_owned(),
        format!("x-hub-signature-256: sha256={nothing}\r\n"),
        format!("x-hub-signature-256: sha256={good}\r\nx-hub-signature-256: sha256={good}\r\n"),
        format!("x-hub-signature-256: sha256={good}\r\nx-gitlab-token: {SECRET}\r\n"),
        format!("x-gitea-signature: {good}\r\nx-hub-signature-256: sha256={nothing}\r\n"),
        format!("x-landfall-signature: sha256={good}\r\nx-hub-signature-256: sha256={good}\r\n"),
        format!("x-hub-signature-256: {good}\r\n"),
    ] {
        let answer = fleet.send(&request("fleet", &headers, &body)).await;
        assert_eq!(answer.status, 403, "{headers}: {answer:?}");
        assert!(answer.body.contains("\"mend\""), "{headers}: {answer:?}");
    }
    let source = fleet.source().await;
    assert_eq!((source.last_hook, source.dirty), (None, false));
    assert!(source.hooks_refused >= 3, "{source:?}");
    assert_eq!(fleet.server.visits(), looks);
    let log = fleet.agent.log();
    assert_eq!(
        log.matches("a push hook was refused").count(),
        3,
        "fleet, quiet, and one for all that do not exist: {log}"
    );
    assert!(!log.contains(SECRET), "the secret is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_is_accepted_without_a_restart() {
    let Some(fleet) = Fleet::start().await else { return };
    let body = push("feature");
    let status = async |secret: &str| fleet.send(&github("fleet", "push", secret, &body)).await.status;
    assert_eq!((status(SECRET).await, status("the next one").await), (200, 403));
    std::fs::write(fleet.agent.root.join("next"), "the next one\n").expect("written");
    assert_eq!((status(SECRET).await, status("the next one").await), (200, 200));
    std::fs::remove_file(fleet.agent.root.join("secret")).expect("removed");
    assert_eq!((status(SECRET).await, status("the next one").await), (403, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_long_or_no_json_are_refused_with_the_mend() {
    let Some(fleet) = Fleet::start().await else { return };
    let form = b"payload=%7B%7D";
    let answer = fleet.send(&github("fleet", "push", SECRET, form)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("application/json"), "{answer:?}");

    let mut big = push("main");
    big.resize(5 * 1024 * 1024 + 1, b' ');
    let answer = fleet.send(&github("fleet", "push", SECRET, &big)).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    big.pop();
    let answer = fleet.send(&github("fleet", "push", SECRET, &big)).await;
    assert_eq!(answer.status, 202, "exactly the limit: {answer:?}");

    // What is not even said to be signed is not read to its end.
    let mut stream = TcpStream::connect(("127.0.0.1", fleet.port)).await.expect("connected");
    let head = "POST /v1/hooks/fleet HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut status)).await.expect("in time").expect("read");
    assert_eq!(&status, b"HTTP/1.1 403");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_hooks_is_taken_whole_and_costs_three_looks() {
    const HOOKS: usize = 1000;
    const SENDERS: usize = 50;
    let Some(mut fleet) = Fleet::start().await else { return };
    fleet.agent.repo.app("shop", "second\n");
    fleet.agent.repo.push("second");
    let (before, fetched) = (fleet.server.visits(), fleet.server.fetches());
    let request = github("fleet", "push", SECRET, &push("main"));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], fleet.port));
    let start = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let request = request.clone();
        senders.spawn(async move {
            let mut connection = Connection::open(address, "x").await.expect("connected");
            let mut times = Vec::new();
            for hook in 0..HOOKS / SENDERS {
                // All of them within one second, evenly.
                let due = Duration::from_micros(u64::try_from(hook * SENDERS + sender).expect("small") * 950);
                tokio::time::sleep_until((start + due).into()).await;
                let sent = Instant::now();
                let answer = connection.send(&request).await.expect("an answer");
                assert_eq!(answer.status, 202, "{answer:?}");
                times.push(sent.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = senders.join_all().await.into_iter().flatten().collect();
    let whole = start.elapsed();
    fleet.agent.until_body("shop", "second\n").await;
    until("the source rests", || async {
        let source = fleet.source().await;
        if source.dirty { Err(format!("{source:?}")) } else { Ok(()) }
    })
    .await;
    let (looks, fetches) = (fleet.server.visits() - before, fleet.server.fetches() - fetched);
    times.sort();
    let at = |share: usize| times[times.len() * share / 1000 - 1];
    println!(
        "{HOOKS} signed hooks in {whole:?}: all 202; p50 {:?}, p99 {:?}, longest {:?}; {looks} looks at the repository, {fetches} fetches",
        at(500),
        at(990),
        at(1000)
    );
    assert_eq!(times.len(), HOOKS);
    assert!((1..=3).contains(&fetches), "{fetches} fetches");
    // A look is a listing and, where that shows something new, the visit that fetches it. On a machine so busy that a
    // thousand hooks take many seconds, each sixteen of them may add a look.
    let allowed = 2 * (3 + usize::try_from(whole.as_secs() / 5).expect("small"));
    assert!((1..=allowed).contains(&looks), "{looks} visits in {whole:?}");
    assert!(at(990) < Duration::from_secs(5), "p99 {:?}", at(990));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_during_a_fetch_is_not_lost() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let hook = github("fleet", "push", SECRET, &push("main"));
    let before = fleet.server.visits();
    fleet.server.set_gate(Gate::AfterListing);
    fleet.agent.repo.app("shop", "second\n");
    fleet.agent.repo.push("second");
    assert_eq!(fleet.send(&hook).await.status, 202);
    fleet.until_visits(before + 1).await;
    // The look has begun; whether or not it has listed already, it does not end before the third commit is there.
    fleet.agent.repo.app("shop", "third\n");
    fleet.agent.repo.push("third");
    assert_eq!(fleet.send(&hook).await.status, 202);
    assert!(fleet.source().await.dirty);
    fleet.server.set_gate(Gate::Open);
    fleet.agent.until_body("shop", "third\n").await;
    fleet.until_visits(before + 2).await;
}

/// The mark in the ledger, as another program sees it.
fn marked(fleet: &Fleet) -> bool {
    let path = fleet.agent.root.join("data/ledger.db");
    let ledger = rusqlite::Connection::open(path).expect("the ledger");
    ledger.query_row("SELECT dirty FROM sources WHERE name = 'fleet'", [], |row| row.get(0)).expect("the source")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_was_answered_survives_the_death_of_the_controller() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let hook = github("fleet", "push", SECRET, &push("main"));
    let before = fleet.server.visits();
    // One look is under way and held up, so that the next hook's mark stands until the controller is dead.
    fleet.server.set_gate(Gate::BeforeListing);
    assert_eq!(fleet.send(&hook).await.status, 202);
    fleet.until_visits(before + 1).await;
    fleet.agent.repo.app("shop", "second\n");
    fleet.agent.repo.push("second");
    assert_eq!(fleet.send(&hook).await.status, 202);
    let killed = fleet.agent.kill_controller().await;
    assert!(marked(&fleet), "the mark is durable before the answer");
    fleet.server.set_gate(Gate::Open);
    fleet.agent.until_new_controller(killed).await;
    fleet.agent.until_body("shop", "second\n").await;
    until("the mark is gone", || async { if marked(&fleet) { Err("it stands".to_owned()) } else { Ok(()) } }).await;
    let last = fleet.source().await.last_hook.expect("remembered");
    assert_eq!((last.provider, last.outcome), (Provider::GitHub, HookOutcome::Accepted));
}
