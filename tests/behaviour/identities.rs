//! People sign in to the dashboard with a provider of identities (OpenID Connect).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use landfall::client::AuditQuery;
use landfall::wire::tokens::AuditEntry;
use serde_json::json;

use crate::access::send;
use crate::support::http::Answer;
use crate::support::identity::{Identities, Mood, SECRET};
use crate::support::{Agent, Setup, free_port, until};

/// The agent answers within its own deadline of 10 s, and a busy machine.
const BOUND: Duration = Duration::from_secs(40);

/// Somebody of the group `ops`.
fn ada() -> serde_json::Value {
    json!({"sub": "1", "email": "ada@example.com", "email_verified": true, "groups": ["dev", "ops"]})
}

/// An agent that lets in what `allow` says, and the provider.
async fn start(allow: &str) -> (Agent, SocketAddr, Identities) {
    let identities = Identities::start().await;
    let mut setup = Setup::new();
    let port = free_port();
    let file = setup.dir.path().join("oidc-secret");
    std::fs::write(&file, format!("{SECRET}\n")).expect("written");
    setup.api = format!(
        ", listen: \"127.0.0.1:{port}\", public_url: \"http://127.0.0.1:{port}\", oidc: {{issuer: \"http://{}\", client_id: landfall, client_secret_file: {}, name: Acme, scopes: [email, groups], allow: {allow}}}",
        identities.address,
        file.display()
    );
    setup.repo.app("shop", "one").app("blog", "one");
    setup.repo.push("one");
    let agent = setup.start().await;
    agent.rest(&["shop", "blog"]).await;
    identities.says(ada());
    (agent, SocketAddr::from(([127, 0, 0, 1], port)), identities)
}

/// A browser in the middle of a sign-in.
struct Begun {
    /// `name=value` of its cookie.
    cookie: String,
    /// Where the provider sends it back to.
    back: String,
}

fn page(cookie: &str) -> String {
    format!("accept: text/html\r\ncookie: {cookie}\r\n")
}

fn cookie(answer: &Answer, name: &str) -> Option<String> {
    let all = answer.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case("set-cookie"));
    let mut pairs = all.filter_map(|(_, value)| value.split(';').next());
    pairs
        .find(|pair| pair.strip_prefix(name).is_some_and(|rest| rest.starts_with('=') && rest.len() > 1))
        .map(str::to_owned)
}

fn session(answer: &Answer) -> Option<String> {
    cookie(answer, "landfall_session")
}

/// To the provider's page and, as it lets everybody in, on its way back.
async fn begin(api: SocketAddr, identities: &Identities, next: &str) -> Begun {
    let away = send(api, "GET", &format!("/login/oidc?next={next}"), &page(""), "").await;
    assert_eq!(away.status, 303, "{}", away.body);
    let set = away.header("set-cookie").expect("a cookie");
    for word in ["HttpOnly", "SameSite=Lax", "Path=/login/oidc", "Max-Age=600"] {
        assert!(set.contains(word), "{set}");
    }
    let url = away.header("location").expect("a place");
    let path = url.strip_prefix(&format!("http://{}", identities.address)).expect("the provider's page");
    assert!(path.contains("scope=openid+email+groups"), "{path}");
    let back = send(identities.address, "GET", path, "", "").await;
    let back =
        back.header("location").expect("the way back").strip_prefix(&format!("http://{api}")).expect("here").to_owned();
    Begun { cookie: cookie(&away, "landfall_oidc").expect("a cookie"), back }
}

async fn finish(api: SocketAddr, begun: &Begun) -> Answer {
    send(api, "GET", &begun.back, &page(&begun.cookie), "").await
}

/// Signs in; the cookie of the session.
async fn sign_in(api: SocketAddr, identities: &Identities) -> String {
    let answer = finish(api, &begin(api, identities, "/").await).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    session(&answer).expect("a session")
}

async fn status(api: SocketAddr, path: &str, cookie: &str) -> u16 {
    send(api, "GET", path, &page(cookie), "").await.status
}

impl Agent {
    /// Sign-ins of the audit log, newest first: those that were refused, or the others.
    async fn sign_ins(&self, refused: bool) -> Vec<AuditEntry> {
        let all = self.client.audit(None, &AuditQuery::default()).await.expect("the audit log");
        let is_one = |entry: &AuditEntry| match refused {
            true => {
                entry.action == "refused"
                    && entry.detail["path"].as_str().is_some_and(|path| path.starts_with("/login/oidc"))
            }
            false => entry.action == "login",
        };
        all.into_iter().filter(is_one).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_provider_vouches_for_gets_what_the_first_rule_gives_and_is_named_in_the_audit_log() {
    let allow = "[{when: {groups: [ops], email: ['*@example.com']}, verbs: [read, deploy], apps: [shop]}, {when: {sub: ['*']}, verbs: [admin]}]";
    let (agent, api, identities) = start(allow).await;
    let login = send(api, "GET", "/login?next=/apps/shop", &page(""), "").await;
    assert!(
        login.body.contains("/login/oidc?next=/apps/shop") || login.body.contains("/login/oidc?next=%2Fapps%2Fshop"),
        "{}",
        login.body
    );
    assert!(login.body.contains("Sign in with Acme"), "{}", login.body);
    let policy = login.header("content-security-policy").expect("a policy").to_owned();
    assert!(policy.contains("form-action 'self';"), "{policy}");

    let answer = finish(api, &begin(api, &identities, "/apps/shop").await).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("oidc:ada@example.com"), "{}", answer.body);
    // The page goes on by itself, from this site to this site: a redirect would take no Strict cookie along.
    assert_eq!(answer.header("refresh"), Some("0; url=/apps/shop"));
    let set: Vec<&(String, String)> =
        answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).collect();
    assert!(
        set.iter()
            .any(|(_, value)| value.starts_with("landfall_session=") && value.contains("HttpOnly; SameSite=Strict")),
        "{set:?}"
    );
    assert!(
        set.iter().any(|(_, value)| value.starts_with("landfall_oidc=;") && value.contains("Max-Age=0")),
        "{set:?}"
    );
    let cookie = session(&answer).expect("a session");
    for (path, wanted) in [("/apps/shop", 200), ("/apps/blog", 403), ("/audit", 403), ("/v1/status", 403)] {
        assert_eq!(status(api, path, &cookie).await, wanted, "{path}");
    }

    let shop = send(api, "GET", "/ui/apps/shop/suspend", &page(&cookie), "").await;
    let csrf =
        shop.body.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a field");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let without =
        send(api, "POST", "/ui/apps/shop/suspend", &format!("{}{form}", page(&cookie)), "reason=a+look").await;
    assert_eq!(without.status, 403, "{}", without.body);
    let body = format!("csrf={csrf}&reason=a+look");
    let done = send(api, "POST", "/ui/apps/shop/suspend", &format!("{}{form}", page(&cookie)), &body).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let by = AuditQuery { actor: Some("ada@example.com".into()), ..AuditQuery::default() };
    let entries = agent.client.audit(None, &by).await.expect("the audit log");
    let seen: Vec<(&str, &str, &str)> =
        entries.iter().map(|entry| (entry.action.as_str(), entry.actor.as_str(), entry.via.as_str())).collect();
    for action in ["app.suspend", "login"] {
        assert!(seen.contains(&(action, "oidc:ada@example.com", "oidc")), "{seen:?}");
    }

    // Whoever fits only the second rule gets that one; who has signed out is nobody.
    identities.says(json!({"sub": "2", "email": "eve@example.com", "email_verified": false, "groups": ["ops"]}));
    let other = sign_in(api, &identities).await;
    assert_eq!(status(api, "/audit", &other).await, 200);
    let page_of_other = send(api, "GET", "/", &page(&other), "").await.body;
    assert!(page_of_other.contains("oidc:2") && !page_of_other.contains("eve@example.com"), "{page_of_other}");
    let csrf =
        page_of_other.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a field");
    let out = send(api, "POST", "/logout", &format!("{}{form}", page(&other)), &format!("csrf={csrf}")).await;
    assert_eq!(out.status, 303);
    assert_eq!(status(api, "/audit", &other).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_believed_signs_nobody_in_and_is_on_record() {
    let (agent, api, identities) = start("[{when: {groups: [ops]}, verbs: [admin]}]").await;
    let table = [
        (Mood::WrongNonce, "nonce"),
        (Mood::WrongAudience, "audience"),
        (Mood::WrongIssuer, "issuer"),
        (Mood::Expired, "Expired"),
        (Mood::ForeignKey, "Signature verification failed"),
        (Mood::Unsigned, "No signature found"),
        (Mood::Shared, "Disallowed signature algorithm"),
    ];
    let mut count = 0;
    let mut refused_as_told = async |mood: Mood, word: &str| {
        identities.mood(mood);
        let answer = finish(api, &begin(api, &identities, "/").await).await;
        assert_eq!((answer.status, session(&answer)), (403, None), "{mood:?}: {}", answer.body);
        assert!(answer.body.contains(word), "{mood:?}: {}", answer.body);
        for secret in [SECRET, "code0", "access_token"] {
            assert!(!answer.body.contains(secret), "{mood:?}: {}", answer.body);
        }
        count += 1;
        until("it is on record", || async {
            let refused = agent.sign_ins(true).await;
            if refused.len() == count { Ok(()) } else { Err(format!("{mood:?}: {refused:?}")) }
        })
        .await;
    };
    for (mood, word) in table {
        refused_as_told(mood, word).await;
    }
    // An honest answer about somebody who is not meant is told to that one alone, and as slowly as the others.
    identities.says(json!({"sub": "3", "groups": ["dev"], "other": "unasked"}));
    let before = Instant::now();
    refused_as_told(Mood::Honest, "groups: [&quot;dev&quot;]").await;
    assert!(before.elapsed() >= Duration::from_millis(1600), "the eighth failure in a row waits");
    assert!(agent.sign_ins(false).await.is_empty());
    assert!(!agent.log().contains(SECRET));
    identities.says(ada());
    sign_in(api, &identities).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_finished_once_by_the_browser_that_began_it_and_leads_to_no_other_site() {
    let (_agent, api, identities) = start("[{when: {groups: [ops]}, verbs: [admin]}]").await;
    let begun = begin(api, &identities, "/").await;
    let other = begin(api, &identities, "/").await;
    let crossed = Begun { cookie: other.cookie, back: begun.back.clone() };
    assert_eq!(finish(api, &crossed).await.status, 403, "another browser's cookie");
    assert_eq!(finish(api, &begun).await.status, 403, "the sign-in is over with the first try");
    let nobody = Begun { cookie: String::new(), back: "/login/oidc/callback?code=x&state=made-up".to_owned() };
    assert_eq!(finish(api, &nobody).await.status, 403);
    let begun = begin(api, &identities, "/").await;
    let declined = Begun { back: begun.back.replace("code=", "error=access_denied&ignored="), ..begun };
    let answer = finish(api, &declined).await;
    assert!(answer.status == 403 && answer.body.contains("access_denied"), "{}", answer.body);
    for next in ["//evil.example", "https://evil.example", "/%5Cevil.example", "/%0d%0aevil:%20x"] {
        let begun = begin(api, &identities, next).await;
        let answer = finish(api, &begun).await;
        assert_eq!((answer.status, answer.header("refresh")), (200, Some("0; url=/")), "{next}");
        assert!(!answer.body.contains("evil"), "{}", answer.body);
        assert_eq!(finish(api, &begun).await.status, 403, "once");
    }
    let foreign = send(api, "GET", "/login/oidc", "sec-fetch-site: cross-site\r\n", "").await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_provider_the_page_says_so_and_a_token_still_signs_in() {
    let (agent, api, identities) = start("[{when: {groups: [ops]}, verbs: [admin]}]").await;
    identities.mood(Mood::Broken);
    let answer = send(api, "GET", "/login/oidc", &page(""), "").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(
        answer.body.contains("500 Internal Server Error") && answer.body.contains("with a token"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("stack trace"), "{}", answer.body);
    assert_eq!(status(api, "/login", "").await, 200);
    identities.mood(Mood::Honest);
    // A provider that failed is asked again after a moment.
    let begun = until("the provider is asked again", || async {
        let away = send(api, "GET", "/login/oidc", &page(""), "").await;
        if away.status == 303 { Ok(()) } else { Err(away.body) }
    });
    begun.await;
    for mood in [Mood::Broken, Mood::Hanging] {
        identities.mood(Mood::Honest);
        let begun = begin(api, &identities, "/").await;
        identities.mood(mood);
        let since = Instant::now();
        let answer = finish(api, &begun).await;
        assert_eq!((answer.status, session(&answer)), (503, None), "{mood:?}: {}", answer.body);
        assert!(!answer.body.contains("stack trace"), "{}", answer.body);
        assert!(since.elapsed() < BOUND, "{mood:?} took {:?}", since.elapsed());
    }
    until("all are on record", || async {
        let refused = agent.sign_ins(true).await;
        if refused.len() >= 3 { Ok(()) } else { Err(format!("{refused:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_loses_what_the_rules_no_longer_give_and_new_keys_are_found() {
    let (agent, api, identities) = start("[{when: {groups: [ops]}, verbs: [admin]}]").await;
    let cookie = sign_in(api, &identities).await;
    assert_eq!(status(api, "/audit", &cookie).await, 200);
    identities.change_key();
    let second = sign_in(api, &identities).await;
    assert_eq!(status(api, "/audit", &second).await, 200);
    let becomes = async |wanted: u16| {
        until(&format!("/audit answers {wanted}"), || async {
            let now = status(api, "/audit", &cookie).await;
            if now == wanted { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    };
    agent.replace_config(&agent.config().replace("verbs: [admin]", "verbs: [read]"));
    becomes(403).await;
    agent.replace_config(&agent.config().replace("verbs: [read]", "verbs: [admin]"));
    becomes(200).await;
    agent.replace_config(&agent.config().replace("groups: [ops]", "groups: [others]"));
    becomes(403).await;
    // What ended does not come back.
    let name = |answer: Answer| answer.body.contains("oidc:ada@example.com");
    assert!(!name(send(api, "GET", "/", &page(&cookie), "").await));
    agent.replace_config(&agent.config().replace("groups: [others]", "groups: [ops]"));
    until("the rule is back", || async {
        let answer = finish(api, &begin(api, &identities, "/").await).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    assert!(!name(send(api, "GET", "/", &page(&cookie), "").await));
}
