//! Who may do what, from where: tokens, browsers, and nobody.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use landfall::api::{Over, RULES, Rule};
use landfall::client::{AuditQuery, CallsQuery, Client, ClientError, Credentials, Target};
use landfall::domain::{Scope, Secret, Verb};
use landfall::wire::api;
use landfall::wire::tokens::TokenRequest;
use nix::sys::signal::Signal;

use crate::support::asking::name;
use crate::support::http::{Answer, Connection};
use crate::support::{Agent, Setup, free_port, send_signal, until, web_manifest};

/// A revoked token must be worth nothing after this.
const SOON: Duration = Duration::from_secs(10);

/// An agent whose API listens on the loopback; its port.
async fn start() -> (Agent, SocketAddr) {
    let mut setup = Setup::new();
    let port = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{port}\"");
    setup.repo.app("shop", "one").app("blog", "one");
    setup.repo.write("guarded/landfall.yaml", web_manifest("guarded", "    auth: token\n"));
    setup.repo.write("guarded/content.txt", "guarded");
    setup.repo.push("one");
    let agent = setup.start().await;
    agent.rest(&["shop", "blog", "guarded"]).await;
    (agent, SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Agent {
    async fn token(&self, name: &str, verbs: &[Verb], apps: &[&str]) -> String {
        let apps = apps.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
        let scope = Scope { verbs: verbs.to_vec(), apps };
        let request = TokenRequest { name: name.into(), actor: None, scope, expires_at: None };
        self.client.create_token(&request).await.expect("made").secret
    }
}

fn client(api: SocketAddr, token: &str) -> Client {
    let credentials = Credentials { token: Some(Secret::new(token)), ca_file: None };
    Client::connect_with(&Target::Url(format!("http://{api}")), &credentials).expect("a client")
}

fn status<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(error) => error.problem().unwrap_or_else(|| panic!("{error}")).status,
    }
}

/// A request over a connection of its own.
pub async fn send(at: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    let mut connection = Connection::open(at, "").await.expect("connected");
    connection.send(request.as_bytes()).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// `GET /` of an app through the proxy.
async fn web(agent: &Agent, app: &str, headers: &str) -> Answer {
    let request = format!("GET / HTTP/1.1\r\nhost: {app}.localhost\r\nconnection: close\r\n{headers}\r\n");
    Connection::open(agent.proxy, "").await.expect("connected").send(request.as_bytes()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_roll_back_and_the_history_says_who() {
    let (mut agent, api) = start().await;
    let ada = client(api, &agent.token("ada", &[Verb::Read, Verb::Deploy], &["shop"]).await);
    let eve = client(api, &agent.token("eve", &[Verb::Deploy, Verb::Read], &[]).await);
    agent.repo.app("shop", "two").app("blog", "two");
    agent.repo.push("two");
    agent.until_live("shop", 2).await;
    agent.until_live("blog", 2).await;
    agent.rest(&["shop", "blog"]).await;
    let request = api::RollbackRequest::default();
    assert_eq!(status(ada.rollback(None, &name("blog"), &request).await), 403);
    ada.rollback(None, &name("shop"), &request).await.expect("accepted");
    eve.rollback(None, &name("blog"), &request).await.expect("accepted");
    for (app, who) in [("shop", "token ada"), ("blog", "token eve")] {
        agent.until_live(app, 3).await;
        assert_eq!(agent.versions(app).await[0].actor, who);
    }
    assert_eq!(ada.apps(None).await.expect("a list").len(), 1, "she sees her app and no other");

    let entries = agent.client.audit(None, &AuditQuery { actor: Some("ada".into()), ..AuditQuery::default() }).await;
    let entries = entries.expect("the audit log");
    // What she was refused is there, too.
    let (done, refused): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.action != "refused");
    assert_eq!((done.len(), refused.len()), (1, 1), "{entries:?}");
    let entry = done[0];
    assert_eq!((entry.action.as_str(), entry.via.as_str()), ("app.rollback", "token"));
    assert_eq!(entry.address.as_deref(), Some("127.0.0.1"));
    assert_eq!(entry.app, Some(name("shop")));
    let number = |value: &Option<serde_json::Value>, key: &str| value.as_ref().and_then(|value| value[key].as_u64());
    assert_eq!(number(&entry.before, "live_version"), Some(2), "{entry:?}");
    assert_eq!(number(&entry.after, "held_at"), Some(3), "{entry:?}");
    assert_eq!((number(&entry.result, "status"), number(&entry.result, "version")), (Some(200), Some(3)), "{entry:?}");
    assert_eq!(status(eve.audit(None, &AuditQuery::default()).await), 403, "the audit log is for `admin`");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_on_record_once_with_what_came_of_it_and_without_secrets() {
    let (agent, api) = start().await;
    let token = agent.token("ops", &[Verb::Admin], &[]).await;
    let ops = client(api, &token);
    ops.suspend(None, &name("shop"), &api::SuspendRequest { reason: Some("a look".into()), until: None })
        .await
        .expect("frozen");
    assert_eq!(status(ops.rollback(None, &name("shop"), &api::RollbackRequest::default()).await), 409);
    ops.resume(None, &name("shop")).await.expect("thawed");
    ops.sync(&"fleet".parse().expect("a name")).await.expect("looked");
    let first = ops.audit(None, &AuditQuery { limit: Some(3), ..AuditQuery::default() }).await.expect("a page");
    let before = first.last().map(|entry| entry.id);
    let rest = ops.audit(None, &AuditQuery { before, ..AuditQuery::default() }).await.expect("the rest");
    let all: Vec<_> =
        first.iter().chain(&rest).filter(|entry| entry.via == "token" || entry.action == "token.create").collect();
    let seen: Vec<(&str, Option<u64>)> = all
        .iter()
        .map(|entry| (entry.action.as_str(), entry.result.as_ref().and_then(|result| result["status"].as_u64())))
        .collect();
    let done = Some(200);
    assert_eq!(
        seen,
        [
            ("source.sync", done),
            ("app.resume", done),
            ("app.rollback", Some(409)),
            ("app.suspend", done),
            ("token.create", done)
        ]
    );
    assert_eq!(all[3].detail["reason"], "a look");
    assert_eq!(all[4].detail["name"], "ops");
    assert_eq!((all[4].via.as_str(), all[4].address.as_deref()), ("local", None));
    assert!(!format!("{all:?}").contains(&token[3..]), "the token itself is on record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_worth_nothing_within_a_second_anywhere() {
    let (agent, api) = start().await;
    let token = agent.token("ci", &[Verb::Read, Verb::Call], &[]).await;
    let far = client(api, &token);
    far.status().await.expect("answered");
    let guarded = async |headers: &str| web(&agent, "guarded", headers).await.status;
    assert_eq!(guarded("").await, 401);
    assert_eq!(guarded("authorization: Bearer lf_0000\r\n").await, 401);
    until("the proxy has heard of the token", || async {
        let status = guarded(&bearer(&token)).await;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let reader = agent.token("reader", &[Verb::Read], &[]).await;
    until("the proxy has heard of the other", || async {
        let status = guarded(&bearer(&reader)).await;
        if status == 403 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    // A proxy that starts knows it, too.
    let proxy = agent.proxy_pid().await;
    send_signal(proxy, Signal::SIGKILL);
    agent.until_new_proxy(proxy).await;
    assert_eq!(guarded(&bearer(&token)).await, 200);

    agent.client.revoke_token("ci").await.expect("revoked");
    let revoked = Instant::now();
    assert_eq!(status(far.status().await), 401);
    while guarded(&bearer(&token)).await != 401 {
        assert!(revoked.elapsed() < SOON, "the proxy still lets it in after {:?}", revoked.elapsed());
    }
    let known = agent.client.tokens().await.expect("a list");
    let ci = known.iter().find(|token| token.name == "ci").expect("still on record");
    assert!(ci.revoked_at.is_some() && ci.revoked_by.is_some(), "{ci:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_behind_a_token_learns_who_it_is_and_not_the_token() {
    let mut agent = Agent::start().await;
    let echo = "import http.server, os\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        body = repr(dict((k.lower(), v) for k, v in self.headers.items())).encode()\n        self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers(); self.wfile.write(body)\nhttp.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n";
    agent
        .repo
        .write(
            "echo/landfall.yaml",
            "app: echo\nbake: 200ms\nweb:\n  main:\n    command: [python3, echo.py]\n    auth: token\n",
        )
        .write("echo/echo.py", echo);
    agent.repo.push("echo");
    agent.rest(&["echo"]).await;
    let token = agent.token("ada", &[Verb::Call], &["echo"]).await;
    let headers = format!("{}landfall-actor: root\r\n", bearer(&token));
    let seen = until("the proxy has heard of the token", || async {
        let answer = web(&agent, "echo", &headers).await;
        if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert!(seen.contains("'landfall-actor': 'token ada'"), "{seen}");
    assert!(!seen.contains("authorization") && !seen.contains(&token), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_called_from_elsewhere_with_a_token() {
    let mut agent = Agent::start().await;
    agent
        .repo
        .write("pods/landfall.yaml", "app: pods\nbake: 200ms\nfunctions:\n  hello: {command: [cat], mode: exec}\n");
    agent.repo.push("pods");
    agent.rest(&["pods"]).await;
    let token = agent.token("ci", &[Verb::Call], &["pods"]).await;
    let other = agent.token("other", &[Verb::Call], &["shop"]).await;
    let call = async |headers: String| {
        let request = format!(
            "POST /v1/apps/pods/functions/hello/call HTTP/1.1\r\nhost: deploy.example.com\r\nconnection: close\r\n{headers}content-length: 2\r\n\r\nhi"
        );
        let mut connection = Connection::open(agent.proxy, "").await.expect("connected");
        connection.send(request.as_bytes()).await.expect("an answer")
    };
    let answer = until("the proxy has heard of the token", || async {
        let answer = call(bearer(&token)).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(answer.body, "hi");
    until("the proxy has heard of the other", || async {
        let status = call(bearer(&other)).await.status;
        if status == 403 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(call(bearer(&format!("{token}0"))).await.status, 401);
    assert_eq!(call(String::new()).await.status, 404, "without a token it is a host like any other");
    until("the call is on record", || async {
        let calls = agent.client.calls(None, &CallsQuery::default()).await.map_err(|error| error.to_string())?;
        if calls.iter().any(|call| call.actor == "token ci") { Ok(()) } else { Err(format!("{calls:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_wait_for_their_answers_and_right_ones_do_not() {
    let (agent, api) = start().await;
    let right = client(api, &agent.token("ci", &[Verb::Read], &[]).await);
    let began = Instant::now();
    let mut seen = Vec::new();
    for number in 0..12 {
        let answer = send(api, "GET", "/v1/status", &bearer(&format!("lf_{number}")), "").await;
        assert!(answer.header("www-authenticate").is_some() || answer.status == 429, "{answer:?}");
        seen.push(answer.status);
        if number == 5 {
            // One of several: the machine may be busy, and whoever waits does so each time.
            let mut quickest = Duration::MAX;
            for _ in 0..5 {
                let asked = Instant::now();
                right.status().await.expect("answered");
                quickest = quickest.min(asked.elapsed());
            }
            assert!(quickest < Duration::from_millis(700), "a right token waited {quickest:?}");
        }
    }
    assert_eq!(seen[..10], [401; 10]);
    assert_eq!(seen[10..], [429, 429]);
    assert!(began.elapsed() > Duration::from_secs(12), "the waits add up: {:?}", began.elapsed());
    right.status().await.expect("still answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_with_a_token_and_other_sites_cannot_use_it() {
    let (agent, api) = start().await;
    let token = agent.token("ada", &[Verb::Read, Verb::Deploy], &[]).await;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let html = format!("{form}accept: text/html\r\n");
    let wrong = send(api, "POST", "/login", &html, "token=lf_0&next=/x").await;
    assert_eq!((wrong.status, wrong.header("location")), (303, Some("/login?failed=1&next=/x")));
    let foreign = format!("{form}origin: http://evil.example\r\n");
    assert_eq!(send(api, "POST", "/login", &foreign, &format!("token={token}")).await.status, 403);
    let signed_in = send(api, "POST", "/login", form, &format!("token={token}&next=//evil.example")).await;
    assert_eq!((signed_in.status, signed_in.header("location")), (303, Some("/")));
    let cookie = signed_in.header("set-cookie").expect("a cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = format!("cookie: {}\r\n", cookie.split(';').next().expect("the pair"));
    let stop = "/v1/apps/blog/stop";
    let json = format!("{cookie}content-type: application/json\r\n");
    assert_eq!(send(api, "GET", "/v1/apps", &cookie, "").await.status, 200);
    assert_eq!(send(api, "POST", stop, &json, "{}").await.status, 403, "without what only our pages know");
    assert_eq!(send(api, "POST", stop, &format!("{json}landfall-csrf: 00\r\n"), "{}").await.status, 403);
    assert_eq!(agent.app("blog").await.expect("there").state, api::AppState::Deployed);
    agent.client.revoke_token("ada").await.expect("revoked");
    // The loopback may look all the same; a change needs a name.
    assert_eq!(send(api, "GET", "/v1/tokens", &cookie, "").await.status, 403);
    assert_eq!(send(api, "POST", stop, &json, "{}").await.status, 403);
}

/// A path for a rule, about an app and things that are there or not: only who is let in matters.
fn path_for(rule: &Rule) -> String {
    let mut path = rule.path.to_owned();
    for (name, value) in [
        ("{app}", "shop"),
        ("{function}", "nothing"),
        ("{from}", "1"),
        ("{to}", "1"),
        ("{deployment}", "1"),
        ("{call}", "00000000000000000000000000"),
        ("{instance}", "nothing"),
        ("{source}", "nobody"),
        ("{channel}", "nobody"),
        ("{token}", "nobody"),
    ] {
        path = path.replace(name, value);
    }
    path
}

/// Answers that go on for as long as somebody listens. The guard does not know them from others.
const ENDLESS: [&str; 2] = ["/ui/live", "/ui/apps/{app}/logs"];

/// The rules to try.
fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(|rule| rule.over != Over::Open && !ENDLESS.contains(&rule.path))
}

/// What the table says of a scope without apps.
fn expected(rule: &Rule, verbs: &[Verb]) -> bool {
    rule.over == Over::Open || verbs.contains(&Verb::Admin) || rule.verbs.iter().any(|verb| verbs.contains(verb))
}

/// Whether somebody was let in: whatever a route says of what it was asked, it is neither of these.
fn let_in(answer: &Answer) -> bool {
    assert!(answer.status < 500 || answer.status == 503, "{answer:?}");
    !matches!(answer.status, 401 | 403)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_whom_the_table_says_and_nobody_else() {
    let (agent, api) = start().await;
    let none: [(&str, &[Verb]); 5] = [
        ("read", &[Verb::Read]),
        ("call", &[Verb::Call]),
        ("deploy", &[Verb::Deploy]),
        ("admin", &[Verb::Admin]),
        ("read-deploy", &[Verb::Read, Verb::Deploy]),
    ];
    for (name, verbs) in none {
        let whole = agent.token(name, verbs, &[]).await;
        let narrow = agent.token(&format!("{name}-shop"), verbs, &["shop"]).await;
        let elsewhere = agent.token(&format!("{name}-blog"), verbs, &["blog"]).await;
        for rule in rules() {
            let path = path_for(rule);
            // A body that no route takes, so that nothing is changed by whoever is let in.
            let json = "content-type: application/json\r\n";
            let body = if rule.method == "GET" { "" } else { "no json" };
            let ask =
                async |token: &str| send(api, rule.method, &path, &format!("{json}{}", bearer(token)), body).await;
            let has = expected(rule, verbs);
            let what = format!("{} {} with {name}", rule.method, rule.path);
            assert_eq!(let_in(&ask(&whole).await), has, "{what}");
            let reaches = matches!(rule.over, Over::App | Over::Apps | Over::Upload | Over::Owner);
            let named = rule.path.contains("{call}") || rule.path.contains("{instance}");
            let belongs = rule.path.contains("{deployment}");
            if !belongs {
                assert_eq!(let_in(&ask(&narrow).await), has && reaches, "{what} on shop");
            }
            let foreign = matches!(rule.over, Over::Apps | Over::Upload) || named;
            if !belongs {
                assert_eq!(let_in(&ask(&elsewhere).await), has && foreign, "{what} on blog");
            }
        }
    }
    // The deployments there are: each is shown to whoever reaches its app, and to nobody else.
    let (shop, blog) = (agent.deployment_of("shop", 1).await.id, agent.deployment_of("blog", 1).await.id);
    let reader = client(api, &agent.token("reader-of-shop", &[Verb::Read], &["shop"]).await);
    assert_eq!((status(reader.deployment(shop).await), status(reader.deployment(blog).await)), (200, 403));
    assert_eq!(status(reader.follow_deployment(blog).await), 403);
    assert_eq!(status(reader.instances(None, None).await), 403);
    assert_eq!(status(reader.instances(None, Some(&name("shop"))).await), 200);
    let events = reader.events(0, 1000).await.expect("events");
    let is_of_shop = |event: &api::EventRecord| event.event.app.as_ref().is_some_and(|key| key.app.as_str() == "shop");
    assert!(!events.is_empty() && events.iter().all(is_of_shop), "{events:?}");
    // An app in another spelling is the same app.
    let reader = agent.token("other-reader-of-shop", &[Verb::Read], &["shop"]).await;
    assert_eq!(send(api, "GET", "/v1/apps/bl%6fg", &bearer(&reader), "").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_at_the_end_of_a_tunnel_to_the_socket_is_no_local_user_for_other_sites() {
    let agent = Agent::start().await;
    let socket = agent.root.join("agent.sock");
    let http = reqwest::Client::builder().unix_socket(socket.as_path()).build().expect("a client");
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("an answer").status().as_u16();
    let sync = || http.post("http://localhost/v1/sources/fleet/sync");
    assert!(status(sync().header("content-type", "application/json").body("{}")).await < 300);
    for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("host", "evil.example")]
    {
        let from_elsewhere = sync().header(name, value).header("content-type", "application/json").body("{}");
        assert_eq!(status(from_elsewhere).await, 403, "{name}: {value}");
    }
    assert_eq!(status(http.get("http://evil.example/v1/apps")).await, 403, "a name that was made to lead here");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_the_loopback_only_looks_and_browsers_of_other_sites_do_not() {
    let (_agent, api) = start().await;
    for rule in rules() {
        let path = path_for(rule);
        let looks = rule.method == "GET" && rule.verbs.contains(&Verb::Read);
        let body = if rule.method == "GET" { "" } else { "no json" };
        assert_eq!(let_in(&send(api, rule.method, &path, "", body).await), looks, "{} {path}", rule.method);
        for headers in ["origin: http://evil.example\r\n", "sec-fetch-site: cross-site\r\n"] {
            let answer = send(api, rule.method, &path, headers, body).await;
            assert_eq!(answer.status, 403, "{} {path} from another site", rule.method);
        }
    }
}
