//! What people are told, and what not: real receivers, over failures, recoveries and restarts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use landfall::domain::{Notice, NoticeStatus, VersionStatus};
use landfall::files::config::{ChannelConfig, ChannelKind, EmailConfig, EmailTls};
use landfall::notify::Delivery;
use landfall::notify::channel::Channel;
use landfall::wire::api;
use ring::hmac;

use crate::servers::Authority;
use crate::support::asking::{back_to, manifest};
use crate::support::receiver::{Answer, Receiver, Request};
use crate::support::smtp::{Encrypted, MailServer};
use crate::support::{Agent, Setup, until};

pub const SECRET: &str = "a secret of the webhook";

pub fn webhook(name: &str, receiver: &Receiver, dir: &Path, more: &str) -> String {
    let secret = dir.join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("the secret");
    let address = receiver.address;
    format!("  {name}:\n    webhook: {{url: \"http://{address}/{name}\", secret_file: {}}}\n{more}", secret.display())
}

/// An agent with these channels, made from the directory of its files.
pub async fn agent_with(channels: impl FnOnce(&Path) -> String, prepare: impl FnOnce(&mut Setup)) -> Agent {
    let mut setup = Setup::new();
    let channels = channels(setup.dir.path());
    setup.more = format!("agent_name: box\nnotifications:\n{channels}");
    prepare(&mut setup);
    setup.start().await
}

/// The events it took, in order, each checked for its signature.
pub fn told(receiver: &Receiver) -> Vec<String> {
    let word = |request: &Request| {
        let (id, time) =
            (request.header("webhook-id").expect("an id"), request.header("webhook-timestamp").expect("a time"));
        let given = request.header("webhook-signature").and_then(|text| text.strip_prefix("v1,")).expect("a signature");
        let mut signed = format!("{id}.{time}.").into_bytes();
        signed.extend_from_slice(&request.raw);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &signed);
        assert_eq!(decode(given), tag.as_ref(), "the signature covers id, time and body");
        assert_eq!(request.body["id"], id);
        let text = |key: &str| request.body[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("event"), text("status"), text("cause")).trim_end().to_owned()
    };
    receiver.taken().iter().map(word).collect()
}

fn decode(base64: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = base64.trim_end_matches('=').chars().map(|digit| ALPHABET.find(digit).expect("base64") as u32);
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = bits << 6 | digit;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

pub async fn until_told(receiver: &Receiver, expected: &[&str]) {
    until(&format!("{expected:?} is told"), || async {
        let now = told(receiver);
        if now == expected { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// Waits until this version of the shop has failed.
async fn until_failed(agent: &Agent, version: u32) {
    until(&format!("v{version} has failed"), || async {
        let versions = agent.versions("shop").await;
        let found = versions.iter().find(|found| found.version.get() == version).map(|found| found.status);
        if found == Some(VersionStatus::Failed) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

pub async fn channel(agent: &Agent, name: &str) -> api::Channel {
    let channels = agent.client.channels().await.expect("the channels");
    channels.into_iter().find(|channel| channel.channel == name).expect("the channel")
}

#[tokio::test(flavor = "multi_thread")]
async fn people_hear_of_what_changes_and_of_nothing_else() {
    let receiver = Receiver::start().await;
    let mut agent = agent_with(
        |dir| webhook("ops", &receiver, dir, "    window: 0s\n"),
        |setup| {
            setup.repo.app("shop", "first\n");
            setup.repo.push("first");
        },
    )
    .await;
    agent.until_body("shop", "first\n").await;
    agent.until_done("shop").await;

    let broken = |words: &[&str]| manifest("shop", words, "200ms", "");
    agent.repo.write("shop/landfall.yaml", broken(&["exit", "3"]));
    agent.repo.push("broken");
    until_told(&receiver, &["deployment.failed failing exited_early"]).await;
    let notice = receiver.taken().pop().expect("a message").body;
    assert_eq!(notice["subjects"], serde_json::json!(["shop"]));
    assert_eq!(notice["title"], "shop v2 failed while starting");
    assert!(notice["text"].as_str().expect("a text").contains("exit code 3"), "{notice}");

    // The same again is no news, before and after a crash.
    agent.repo.write("shop/landfall.yaml", broken(&["exit", "4"]));
    agent.repo.push("broken as before");
    until_failed(&agent, 3).await;
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    agent.repo.write("shop/landfall.yaml", broken(&["exit", "5"]));
    agent.repo.push("and again");
    until_failed(&agent, 4).await;

    let never_ready =
        manifest("shop", &["sleep"], "200ms", "").replace("interval: 50ms", "interval: 50ms, deadline: 300ms");
    agent.repo.write("shop/landfall.yaml", never_ready);
    agent.repo.push("broken in another way");
    until_failed(&agent, 5).await;
    let failures = ["deployment.failed failing exited_early", "deployment.failed failing not_ready"];
    until_told(&receiver, &failures).await;
    assert_eq!(receiver.taken()[1].body["count"], 4);

    agent.repo.app("shop", "second\n");
    agent.repo.push("good");
    agent.until_body("shop", "second\n").await;
    let recovered = "deployment.recovered recovered not_ready";
    until_told(&receiver, &[failures[0], failures[1], recovered]).await;

    agent.rest_of("shop").await;
    agent.rollback("shop", back_to(None)).await;
    let rollback = "rollback information";
    until_told(&receiver, &[failures[0], failures[1], recovered, rollback]).await;
    agent.repo.app("shop", "third\n");
    agent.repo.push("better");
    agent.until_body("shop", "third\n").await;
    agent.repo.write("shop/landfall.yaml", "app: shop\nweb: 3\n");
    agent.repo.push("not a manifest");
    until_told(&receiver, &[failures[0], failures[1], recovered, rollback, "manifest.invalid information"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_apps_that_fail_for_one_cause_are_one_message() {
    let receiver = Receiver::start().await;
    let agent = agent_with(
        |dir| webhook("ops", &receiver, dir, "    window: 20s\n    events: [deployment.failed]\n"),
        |setup| {
            for app in ["one", "two", "three"] {
                setup.repo.write(&format!("{app}/landfall.yaml"), manifest(app, &["exit", "3"], "200ms", ""));
            }
            setup.repo.push("all broken");
        },
    )
    .await;
    until_told(&receiver, &["deployment.failed failing exited_early"]).await;
    let notice = receiver.taken().pop().expect("a message").body;
    let mut subjects: Vec<_> =
        notice["subjects"].as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["one", "three", "two"], "{notice}");
    assert!(notice["title"].as_str().expect("a title").starts_with("3 apps: deployment failed"), "{notice}");
    until("nothing waits", || async {
        let standing = channel(&agent, "ops").await.standing;
        if standing.queued == 0 && standing.delivered == 1 { Ok(()) } else { Err(format!("{standing:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_gets_the_apps_it_names_and_those_that_name_it() {
    let (all, team, asked) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let selects = |more: &str| format!("    window: 0s\n    events: [deployment.succeeded]\n{more}");
    let mut agent = agent_with(
        |dir| {
            webhook("all", &all, dir, &selects(""))
                + &webhook("team", &team, dir, &selects("    apps: [shop]\n"))
                + &webhook("asked", &asked, dir, &selects("    apps: []\n"))
        },
        |_| {},
    )
    .await;
    let ours = |app: &str, more: &str| manifest(app, &["serve"], "100ms", more);
    agent.repo.write("shop/landfall.yaml", ours("shop", "")).write("shop/content.txt", "shop\n");
    agent.repo.write("mail/landfall.yaml", ours("mail", "notify: [asked]\n")).write("mail/content.txt", "mail\n");
    agent.repo.push("both");
    // Both may have come to rest within one window, and be one message then.
    let subjects = |receiver: &Receiver| {
        let named = |request: Request| request.body["subjects"].as_array().expect("a list").clone();
        let names = receiver.taken().into_iter().flat_map(named);
        let mut names: Vec<_> = names.map(|name| name.as_str().expect("a name").to_owned()).collect();
        names.sort_unstable();
        names
    };
    until("both are told", || async {
        let now = (subjects(&all), subjects(&team), subjects(&asked));
        let expected: (Vec<String>, Vec<String>, Vec<String>) =
            (vec!["mail".into(), "shop".into()], vec!["shop".into()], vec!["mail".into()]);
        if now == expected { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_channel_is_shown_and_delays_nothing_and_nothing_is_lost_over_a_crash() {
    let (dead, well) = (Receiver::start().await, Receiver::start().await);
    dead.script(&[
        Answer::Refused("429 Too Many Requests\r\nretry-after: 1"),
        Answer::Refused("500 Internal Server Error"),
    ]);
    dead.otherwise(Answer::Hang);
    let more = "    window: 0s\n    events: [deployment.succeeded]\n";
    let mut agent = agent_with(
        |dir| webhook("dead", &dead, dir, more) + &webhook("well", &well, dir, more),
        |setup| {
            setup.repo.app("shop", "first\n");
            setup.repo.push("first");
        },
    )
    .await;
    agent.until_body("shop", "first\n").await;
    until_told(&well, &["deployment.succeeded information"]).await;
    until("the dead channel was tried three times", || async {
        let tries = dead.requests().len();
        if tries >= 3 { Ok(()) } else { Err(format!("{tries}")) }
    })
    .await;
    let standing = channel(&agent, "dead").await.standing;
    assert!(standing.error.as_ref().is_some_and(|why| why.contains("500")), "{standing:?}");
    let status = agent.client.status().await.expect("status");
    assert!(status.problems.iter().any(|problem| problem.contains("channel dead")), "{:?}", status.problems);

    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
    until_told(&well, &["deployment.succeeded information"; 2]).await;
    assert!(told(&dead).is_empty());

    let killed = agent.kill_controller().await;
    dead.otherwise(Answer::Created);
    agent.until_new_controller(killed).await;
    until_told(&dead, &["deployment.succeeded information"; 2]).await;
    until_told(&well, &["deployment.succeeded information"; 2]).await;
    until("the channel is well again", || async {
        let standing = channel(&agent, "dead").await.standing;
        if standing.error.is_none() && standing.queued == 0 { Ok(()) } else { Err(format!("{standing:?}")) }
    })
    .await;
    let ids: Vec<_> =
        dead.requests().iter().map(|request| request.header("webhook-id").expect("an id").to_owned()).collect();
    assert_eq!(ids[0], ids[1], "a message that is tried again keeps its id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_can_be_tried() {
    let receiver = Receiver::start().await;
    // Of the source, which cannot be read as long as nothing was pushed, this channel is not told.
    let more = "    events: [deployment.failed]\n";
    let agent = agent_with(|dir| webhook("ops", &receiver, dir, more), |_| {}).await;
    let tested = agent.client.test_channel("ops").await.expect("an answer");
    assert!(tested.delivered, "{tested:?}");
    assert_eq!(told(&receiver), ["test information"]);
    receiver.otherwise(Answer::Refused("403 Forbidden"));
    let tested = agent.client.test_channel("ops").await.expect("an answer");
    assert!(!tested.delivered && tested.message.contains("403") && !tested.message.contains(SECRET), "{tested:?}");
    let unknown = crate::support::asking::refusal(agent.client.test_channel("opps").await);
    assert_eq!(unknown.status, 404);
}

fn notice() -> Notice {
    let text = |text: &str| text.to_owned();
    Notice {
        id: text("n-1"),
        at: "2026-03-01T12:00:00Z".parse().expect("a time"),
        event: text("deployment.failed"),
        status: NoticeStatus::Failing,
        agent: text("box"),
        environment: text("main"),
        subjects: vec![text("shop")],
        key: text("deployment main/shop"),
        cause: Some(text("build_failed")),
        title: text("shop v3 failed while building ß"),
        text: text("the build failed: exit code 2"),
        log: vec![text("cc: error"), text(".leading dot")],
        count: Some(1),
        since: None,
        link: None,
        parts: Vec::new(),
    }
}

fn configured(kind: ChannelKind) -> Channel {
    let config = ChannelConfig {
        name: "ops".into(),
        kind,
        events: Vec::new(),
        apps: None,
        after: 1,
        reminder: Duration::from_secs(86_400),
        window: Duration::ZERO,
        title: None,
        text: None,
    };
    Channel::new(&config).expect("a channel")
}

#[tokio::test]
async fn each_service_is_told_in_its_own_words() {
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let url_file = dir.path().join("url");
    std::fs::write(&url_file, format!("http://{}/services/T0/s3cret\n", receiver.address)).expect("the URL");
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "t0ken\n").expect("the token");
    let root = format!("http://{}", receiver.address);
    for (kind, path, pointer, expected) in [
        (ChannelKind::Slack { url_file: url_file.clone() }, "/services/T0/s3cret", "/attachments/0/color", "danger"),
        (
            ChannelKind::Discord { url_file: url_file.clone() },
            "/services/T0/s3cret",
            "/embeds/0/timestamp",
            "2026-03-01T12:00:00Z",
        ),
        (
            ChannelKind::Ntfy { url: format!("{root}/topic"), token_file: Some(token_file.clone()) },
            "/",
            "/topic",
            "topic",
        ),
        (
            ChannelKind::Alertmanager { url: root.clone(), token_file: Some(token_file.clone()), ca_file: None },
            "/api/v2/alerts",
            "/0/labels/trouble",
            "deployment main/shop",
        ),
    ] {
        let name = kind.as_str();
        let by_token = matches!(name, "ntfy" | "alertmanager");
        let channel = configured(kind);
        assert_eq!(channel.deliver(&notice()).await, Delivery::Delivered, "{name}");
        let request = receiver.taken().pop().expect("a request");
        assert_eq!(request.path, path, "{name}");
        assert_eq!(
            request.body.pointer(pointer).and_then(|value| value.as_str()),
            Some(expected),
            "{name}: {}",
            request.body
        );
        assert!(request.body.to_string().contains("failed while building ß"), "{name}: {}", request.body);
        assert_eq!(request.header("authorization"), by_token.then_some("Bearer t0ken"), "{name}");
        receiver.script(&[Answer::Refused("404 Not Found\r\nx: y")]);
        let Delivery::Later { why, .. } = channel.deliver(&notice()).await else { panic!("{name}") };
        assert!(why.contains("404") && !why.contains("s3cret") && !why.contains("t0ken"), "{why}");
        receiver.script(&[Answer::Refused("429 Slow Down\r\nretry-after: 7")]);
        let slower = channel.deliver(&notice()).await;
        assert!(
            matches!(slower, Delivery::Later { after: Some(after), .. } if after == Duration::from_secs(7)),
            "{slower:?}"
        );
    }
}

#[tokio::test]
async fn mail_is_sent_over_tls_after_a_login_and_never_in_plain_text() {
    let Some(authority) = Authority::new() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "hunter2\n").expect("the password");
    // Base64 of "\0ada\0hunter2".
    let login = Some("AGFkYQBodW50ZXIy");
    let channel = |port: u16, tls: EmailTls, ca: bool| {
        configured(ChannelKind::Email(Box::new(EmailConfig {
            host: "localhost".into(),
            port,
            tls,
            login: Some(("ada".into(), password_file.clone())),
            from: "Landfall <landfall@example.org>".into(),
            to: vec!["ops@example.org".into(), "Ada <ada@example.org>".into()],
            ca_file: ca.then(|| authority.certificate()),
        })))
    };
    for (encrypted, tls) in [(Encrypted::ByStartTls, EmailTls::StartTls), (Encrypted::FromTheFirstByte, EmailTls::Tls)]
    {
        std::fs::write(&password_file, "hunter2\n").expect("the password");
        let server = MailServer::start(Arc::clone(&authority.server()), encrypted, login);
        assert_eq!(channel(server.port, tls, true).deliver(&notice()).await, Delivery::Delivered, "{encrypted:?}");
        let [mail] = &server.mails()[..] else { panic!("{:?}", server.mails()) };
        assert!(mail.encrypted && mail.logged_in, "{mail:?}");
        assert_eq!((mail.from.contains("landfall@example.org"), mail.to.len()), (true, 2));
        assert!(mail.data.contains("Message-ID: <n-1@example.org>"), "{}", mail.data);
        assert!(mail.data.contains("Auto-Submitted: auto-generated"), "{}", mail.data);
        assert!(mail.data.contains("exit code 2"), "{}", mail.data);

        let stranger = channel(server.port, tls, false).deliver(&notice()).await;
        assert!(matches!(&stranger, Delivery::Later { .. }), "an unknown authority is not trusted: {stranger:?}");
        std::fs::write(&password_file, "wrong-password\n").expect("the password");
        let Delivery::Later { why, .. } = channel(server.port, tls, true).deliver(&notice()).await else { panic!() };
        assert!(!why.contains("wrong-password"), "{why}");
        assert_eq!(server.mails().len(), 1);
        assert_eq!(server.refusals(), ["AUTH"]);
    }
    let plain = MailServer::start(Arc::clone(&authority.server()), Encrypted::Never, login);
    let refused = channel(plain.port, EmailTls::StartTls, true).deliver(&notice()).await;
    assert!(matches!(refused, Delivery::Later { .. }), "{refused:?}");
    assert!(
        plain.mails().is_empty() && plain.refusals().is_empty(),
        "nothing was said in plain text: {:?}",
        plain.refusals()
    );
}

#[tokio::test]
async fn a_program_gets_the_notice_and_is_ended_when_it_takes_too_long() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("notice.json");
    let exec = |script: &str, timeout: u64| {
        let command = ["sh", "-c", script, "sh"].into_iter().map(str::to_owned);
        let command = command.chain([file.display().to_string()]).collect();
        configured(ChannelKind::Exec { command, timeout: Duration::from_millis(timeout) })
    };
    let took = exec("cat > \"$1\"; echo \"$LANDFALL_NOTICE_EVENT $LANDFALL_NOTICE_SUBJECTS\" >> \"$1\"", 30_000);
    assert_eq!(took.deliver(&notice()).await, Delivery::Delivered);
    let text = std::fs::read_to_string(&file).expect("its file");
    let (json, variables) = text.split_once('}').map(|(json, rest)| (format!("{json}}}"), rest)).expect("both");
    assert_eq!(serde_json::from_str::<Notice>(&json).expect("a notice"), notice());
    assert_eq!(variables.trim(), "deployment.failed shop");
    let Delivery::Later { why, .. } = exec("echo no thanks >&2; exit 7", 30_000).deliver(&notice()).await else {
        panic!()
    };
    assert!(why.contains("no thanks") && why.contains('7'), "{why}");
    let Delivery::Later { why, .. } = exec("sleep 600 & sleep 600", 200).deliver(&notice()).await else { panic!() };
    assert!(why.contains("was ended"), "{why}");
}
