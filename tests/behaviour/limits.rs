//! What the API bears from those who come over the network, and what it remembers of those it refuses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use landfall::client::{AuditQuery, CallBody, Client, Credentials, Target};
use landfall::domain::{Scope, Secret, Verb};
use landfall::wire::secrets::SetSecret;
use landfall::wire::tokens::{AuditEntry, TokenRequest};

use crate::support::asking::{name, refusal};
use crate::support::{Agent, DEADLINE, Setup, free_port, until};

/// An agent whose API listens on the loopback, with these keys in `api`.
async fn start(more: &str) -> (Agent, SocketAddr) {
    let mut setup = Setup::new();
    let port = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{port}\"{more}");
    (setup.start().await, SocketAddr::from(([127, 0, 0, 1], port)))
}

async fn token(agent: &Agent, name: &str, verbs: &[Verb], apps: &[&str]) -> String {
    let apps = apps.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
    let scope = Scope { verbs: verbs.to_vec(), apps };
    let request = TokenRequest { name: name.into(), actor: None, scope, expires_at: None };
    agent.client.create_token(&request).await.expect("made").secret
}

/// Sends a request and reads the whole answer; empty when the connection was closed instead.
fn ask(mut connection: TcpStream, request: &str) -> String {
    connection.set_read_timeout(Some(DEADLINE)).expect("set");
    let mut answer = Vec::new();
    // A connection that was closed at once may refuse the request as well.
    let _ = connection.write_all(request.as_bytes()).and_then(|()| connection.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(api: SocketAddr, path: &str, headers: &str) -> String {
    let connection = TcpStream::connect(api).expect("connected");
    ask(connection, &format!("GET {path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n{headers}\r\n"))
}

#[tokio::test]
async fn one_token_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let (agent, api) = start(", requests_per_second: 1").await;
    let (busy, quiet) =
        (token(&agent, "busy", &[Verb::Read], &[]).await, token(&agent, "quiet", &[Verb::Read], &[]).await);
    let with = |token: &str| get(api, "/v1/status", &format!("authorization: Bearer {token}\r\n"));
    let refused = (0..200).map(|_| with(&busy)).find(|answer| answer.starts_with("HTTP/1.1 429"));
    let refused = refused.expect("200 requests within a few seconds are more than one a second");
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("application/problem+json") && refused.contains("requests_per_second"), "{refused}");
    assert!(with(&quiet).starts_with("HTTP/1.1 200"), "another token has its own share");
    for _ in 0..50 {
        agent.client.status().await.expect("the socket has no such limit");
    }
    until("the busy one is heard again", || async {
        let answer = with(&busy);
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let (agent, api) = start(", max_connections_per_address: 3").await;
    let held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(api).expect("connected")).collect();
    // Closed without a word; that of the three one still answers shows that they were let in.
    until("a fourth connection is closed", || async {
        let answer = get(api, "/v1/status", "");
        if answer.is_empty() { Ok(()) } else { Err(answer) }
    })
    .await;
    let request = format!("GET /v1/status HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n\r\n");
    let mut held = held.into_iter();
    assert!(ask(held.next().expect("three"), &request).starts_with("HTTP/1.1 200"));
    until("its place is free", || async {
        let answer = get(api, "/v1/status", "");
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    })
    .await;
    agent.client.status().await.expect("the socket is another door");
}

async fn entries(agent: &Agent, wanted: &[&str]) -> Vec<AuditEntry> {
    until(&format!("{wanted:?} are on record"), || async {
        let all = agent.client.audit(None, &AuditQuery::default()).await.map_err(|error| error.to_string())?;
        let missing = wanted.iter().find(|action| !all.iter().any(|entry| entry.action == **action));
        missing.map_or(Ok(all), |action| Err(format!("{action} is missing")))
    })
    .await
}

#[tokio::test]
async fn refused_attempts_and_sign_ins_are_on_record_and_a_flood_of_them_is_bounded() {
    let (agent, api) = start("").await;
    let reader = token(&agent, "reader", &[Verb::Read], &[]).await;
    let bearer = format!("authorization: Bearer {reader}\r\n");
    assert!(get(api, "/v1/tokens", &bearer).starts_with("HTTP/1.1 403"));
    assert!(get(api, "/v1/apps", "authorization: Bearer lf_wrong\r\n").starts_with("HTTP/1.1 401"));
    let post = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        let head = format!("POST {path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n{form}{headers}");
        ask(TcpStream::connect(api).expect("connected"), &format!("{head}content-length: {length}\r\n\r\n{body}"))
    };
    let signed_in = post("/login", "", &format!("token={reader}"));
    let cookie = signed_in.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    let cookie = cookie.split(';').next().expect("the pair").to_owned();
    assert!(post("/logout", &format!("cookie: {cookie}\r\n"), "").starts_with("HTTP/1.1 303"));
    let all = entries(&agent, &["refused", "login", "logout"]).await;
    let of = |action: &str| all.iter().filter(|entry| entry.action == action).collect::<Vec<_>>();
    for action in ["login", "logout"] {
        let found = of(action);
        assert_eq!(found.len(), 1, "{all:?}");
        assert_eq!((found[0].actor.as_str(), found[0].address.as_deref()), ("token reader", Some("127.0.0.1")));
    }
    let refused = of("refused");
    assert_eq!(refused.len(), 2, "{refused:?}");
    let status = |entry: &AuditEntry| entry.result.as_ref().and_then(|result| result["status"].as_u64());
    let known = refused.iter().find(|entry| status(entry) == Some(403)).expect("what a known one may not");
    assert_eq!((known.actor.as_str(), known.via.as_str()), ("token reader", "token"));
    assert_eq!((&known.detail["method"], &known.detail["path"]), (&"GET".into(), &"/v1/tokens".into()));
    let stranger = refused.iter().find(|entry| status(entry) == Some(401)).expect("a wrong token");
    assert_eq!((stranger.actor.as_str(), stranger.via.as_str()), ("unknown", "unknown"));
    assert!(!format!("{all:?}").contains("lf_wrong"), "what was sent is on record");

    for _ in 0..300 {
        assert!(get(api, "/v1/tokens", &bearer).starts_with("HTTP/1.1 403"));
    }
    let query = AuditQuery { limit: Some(1000), ..AuditQuery::default() };
    let all = agent.client.audit(None, &query).await.expect("the audit log");
    let refused = all.iter().filter(|entry| entry.action == "refused").count();
    assert!((10..150).contains(&refused), "{refused} of 302 refusals are on record");
}

#[tokio::test]
async fn the_audit_log_names_the_secret_that_was_set_and_not_its_value() {
    let (agent, _) = start("").await;
    let secret = || "db-password".parse().expect("a name");
    let request =
        SetSecret { secret: secret(), environment: None, app: Some(name("shop")), value: "hunter2-hunter2".into() };
    agent.client.set_secret(&request).await.expect("stored");
    let all = entries(&agent, &["secret.create"]).await;
    let entry = all.iter().find(|entry| entry.action == "secret.create").expect("the entry");
    assert_eq!((&entry.detail["secret"], &entry.detail["app"]), (&"db-password".into(), &"shop".into()));
    assert!(!format!("{all:?}").contains("hunter2"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_names_no_app_that_the_caller_may_not_reach() {
    let (mut agent, api) = start("").await;
    agent.deploy_functions(&["work: {command: SERVER, mode: server}"]).await;
    let client = |token: String| {
        let credentials = Credentials { token: Some(Secret::new(token)), ca_file: None };
        Client::connect_with(&Target::Url(format!("http://{api}")), &credentials).expect("a client")
    };
    let all = client(token(&agent, "all", &[Verb::Call], &[]).await);
    let some = client(token(&agent, "some", &[Verb::Call], &["pod", "po"]).await);
    let work = "work".parse().expect("a name");
    let (pod, body) = (name("pod"), CallBody::empty);
    let told = refusal(all.spawn(None, &pod, &work, None, body(), None).await);
    assert!(told.status == 404 && told.mend.contains("did you mean pods?"), "{told:?}");
    for told in [
        refusal(some.spawn(None, &pod, &work, None, body(), None).await),
        refusal(some.call_function(None, &pod, &work, None, body()).await),
    ] {
        assert!(told.status == 404 && !format!("{told:?}").contains("pods"), "{told:?}");
    }
}

#[tokio::test]
async fn who_sends_a_request_drop_by_drop_is_cut_off() {
    let (_agent, api) = start("").await;
    let mut connection = TcpStream::connect(api).expect("connected");
    connection.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    connection.write_all(b"GET /v1/status HTTP/1.1\r\n").expect("sent");
    let begun = std::time::Instant::now();
    // The head of a request has half a minute, however often a byte of it comes.
    loop {
        assert!(begun.elapsed() < DEADLINE + DEADLINE, "a request that never ends was borne for {:?}", begun.elapsed());
        let mut byte = [0];
        match connection.read(&mut byte) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if connection.write_all(b"x").is_err() {
                    return;
                }
            }
            // Closed, or told so first.
            Ok(_) | Err(_) => return,
        }
    }
}
