//! One agent, one repository, two environments: the same app from two branches, and nothing of one touches the other.

use landfall::client::{Client, Credentials, Target};
use landfall::domain::{EnvironmentName, Scope, Secret, Verb, VersionNumber};
use landfall::wire::api::{self, AppState};
use landfall::wire::secrets::SetSecret;
use landfall::wire::tokens::TokenRequest;

use crate::support::asking::{back_to, function, manifest, name, refusal};
use crate::support::{Agent, Setup, free_port, http, until};

fn dev() -> EnvironmentName {
    "dev".parse().expect("a name")
}

/// A web endpoint with a secret, a function, and a schedule that only `dev` has when it is asked for.
fn shop(schedule: &str) -> String {
    let more = format!(
        "secrets: {{TOKEN: token}}\nfunctions:\n  where: {{command: [sh, -c, 'echo \"\\\"$LANDFALL_ENVIRONMENT\\\"\"'], mode: exec{schedule}}}\n"
    );
    manifest("shop", &["serve"], "100ms", &more)
}

/// Two sources over one repository.
fn two_sources(repository: &std::path::Path, environment: &str) -> String {
    let git = |branch: &str| format!("{{url: {}, branch: {branch}}}", repository.display());
    format!(
        "sources:\n  - {{name: live, git: {}}}\n  - {{name: trial, environment: {environment}, git: {}}}\n",
        git("main"),
        git("dev")
    )
}

impl Agent {
    async fn in_dev(&self, what: &str, holds: impl Fn(&api::App) -> bool) -> api::App {
        until(what, || async {
            let app = self.client.app(Some(&dev()), &name("shop")).await.map_err(|error| error.to_string())?;
            if holds(&app) { Ok(app) } else { Err(format!("{app:?}")) }
        })
        .await
    }

    async fn dev_body(&self, path: &str) -> String {
        let answer = http::get(self.proxy, "shop.dev.localhost", path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    async fn set(&self, environment: Option<EnvironmentName>, value: &str) {
        let secret = "token".parse().expect("a name");
        let request = SetSecret { secret, environment, app: None, value: value.to_owned() };
        self.client.set_secret(&request).await.expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_app_in_two_environments_has_two_of_everything() {
    let mut setup = Setup::new();
    setup.sources = Some(two_sources(setup.repo.path(), "dev"));
    let api = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{api}\"");
    let mut agent = setup.start().await;
    agent.set(None, "of-main").await;
    agent.set(Some(dev()), "of-dev").await;
    agent.repo.write("shop/landfall.yaml", shop("")).write("shop/content.txt", "live one");
    agent.repo.push("live");
    agent.repo.branch = "dev";
    agent.repo.write("shop/landfall.yaml", shop(", schedule: {every: 1h}")).write("shop/content.txt", "trial one");
    agent.repo.push("trial");
    agent.until_body("shop", "live one").await;
    let trial = agent.in_dev("v1 is live in dev", |app| app.live_version == VersionNumber::new(1)).await;
    assert_eq!(trial.urls[0].url, format!("http://shop.dev.localhost:{}", agent.proxy.port()));
    assert_eq!(agent.dev_body("/").await, "trial one");

    // Secrets: each environment has its own.
    assert!(agent.dev_body("/env").await.contains("TOKEN=of-dev"));
    assert!(agent.get("shop", "/env").await.expect("an answer").body.contains("TOKEN=of-main"));

    // Versions: a rollback in one is none in the other.
    agent.repo.write("shop/content.txt", "trial two");
    agent.repo.push("trial two");
    agent.in_dev("v2 is live in dev", |app| app.live_version == VersionNumber::new(2)).await;
    agent.in_dev("v2 is proven", |app| app.state == AppState::Deployed).await;
    until("the deployment is over", || async {
        let all = agent.client.deployments(Some(&dev()), &name("shop"), Some(1)).await.expect("deployments");
        if all[0].outcome.is_some() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    agent.client.rollback(Some(&dev()), &name("shop"), &back_to(Some(1))).await.expect("rolled back");
    agent.in_dev("dev is held", |app| app.state == AppState::Held && app.live_version == VersionNumber::new(3)).await;
    assert_eq!(agent.dev_body("/").await, "trial one");
    let live = agent.shown("shop").await;
    assert_eq!((live.state, live.live_version), (AppState::Deployed, VersionNumber::new(1)));
    assert_eq!(agent.versions("shop").await.len(), 1);

    // Calls and schedules.
    let body = || landfall::client::CallBody { bytes: "1".into(), content_type: Some("application/json".into()) };
    for (environment, expected) in [(None, "\"main\""), (Some(dev()), "\"dev\"")] {
        let called =
            agent.client.call_function(environment.as_ref(), &name("shop"), &function("where"), None, body()).await;
        let said = called.expect("an answer").whole().await.expect("a body");
        assert_eq!(String::from_utf8_lossy(&said).trim(), expected);
    }
    let all = agent.client.schedules(None, None).await.expect("schedules");
    let places: Vec<_> = all.iter().map(|one| (one.environment.as_str(), one.app.as_str())).collect();
    assert_eq!(places, [("dev", "shop")]);
    assert!(agent.client.schedules(Some(&"main".parse().expect("a name")), None).await.expect("none").is_empty());

    // The command line, by option and by variable.
    let (_, said) = agent.say(&["app", "list"], "");
    assert!(said.contains("main") && said.contains("dev"), "{said}");
    let (_, said) = agent.say(&["app", "history", "shop", "--env", "dev"], "");
    assert!(said.contains("rollback of v1"), "{said}");
    let output = std::process::Command::new(crate::support::landfall())
        .arg("--agent")
        .arg(agent.root.join("agent.sock"))
        .args(["app", "show", "shop", "--json"])
        .env("LANDFALL_ENV", "dev")
        .output()
        .expect("it runs");
    let shown: api::App = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((shown.environment, shown.state), (dev(), AppState::Held));
    let (well, said) = agent.say(&["call", "shop", "where", "1", "--env", "nowhere"], "");
    assert!(!well && said.contains("nowhere"), "{said}");

    // A token for one environment reaches nothing of the other.
    let scope = Scope { verbs: vec![Verb::Read], apps: vec!["dev/*".parse().expect("a pattern")] };
    let request = TokenRequest { name: "trial".into(), actor: None, scope, expires_at: None };
    let secret = agent.client.create_token(&request).await.expect("made").secret;
    let credentials = Credentials { token: Some(Secret::new(secret)), ca_file: None };
    let narrow = Client::connect_with(&Target::Url(format!("http://127.0.0.1:{api}")), &credentials).expect("a client");
    let seen = narrow.apps(None).await.expect("apps");
    assert_eq!(seen.iter().map(|app| app.environment.as_str()).collect::<Vec<_>>(), ["dev"]);
    assert_eq!(narrow.app(Some(&dev()), &name("shop")).await.expect("its own").environment, dev());
    assert_eq!(refusal(narrow.app(None, &name("shop")).await).status, 403);

    // Uploads go to an environment that there is.
    let upload = agent.root.join("upload");
    std::fs::create_dir(&upload).expect("a directory");
    std::fs::write(upload.join("landfall.yaml"), manifest("blog", &["serve"], "100ms", "")).expect("written");
    std::fs::write(upload.join("content.txt"), "uploaded").expect("written");
    let refused = refusal(agent.client.deploy(Some(&"nowhere".parse().expect("a name")), &upload, None).await);
    assert!(refused.title.contains("only dev, main"), "{refused:?}");
    let accepted = agent.client.deploy(Some(&dev()), &upload, None).await.expect("accepted");
    assert_eq!(accepted.environment, dev());

    // A source cannot take its apps to another environment: what runs would be nobody's.
    let file = agent.root.join("landfall.yaml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    agent.stop();
    std::fs::write(&file, text.replace("environment: dev", "environment: other")).expect("written");
    agent.launch();
    agent.until_up().await;
    let source = until("the source says so", || async {
        let source = agent.client.source(&"trial".parse().expect("a name")).await.map_err(|error| error.to_string())?;
        source.error.clone().ok_or_else(|| format!("{source:?}"))
    })
    .await;
    assert!(source.contains("its apps are in environment dev, and it is configured for other"), "{source}");
    agent.in_dev("dev goes on", |app| app.state == AppState::Held).await;
    assert_eq!(agent.dev_body("/").await, "trial one");
}
