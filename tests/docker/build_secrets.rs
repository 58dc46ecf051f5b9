//! Secrets of builds: a step that mounts one has it, and nothing else does.

use landfall::domain::Phase;
use landfall::wire::secrets::{NamedSecret, SetSecret};

use crate::engine::{agent_at, app_image, docker, docker_at, engine, has_buildkit, logs, running, until_failed};
use crate::support::asking::back_to;
use crate::support::{Agent, files_with, until};

/// A value that is nowhere but where the test puts it, and the same with other letters: what the build makes of it.
const CANARY: &str = "canary-77be01d2-of-the-build";
const ROTATED: &str = "dbobsz-77cf01e2-pg-uif-cvjme";

/// A manifest whose image is built with the secret `registry-login`.
const MANIFEST: &str = "app: shop\nbuild: {dockerfile: Dockerfile, secrets: {login: registry-login}}\nbake: 200ms\nweb: {main: {health: {path: /healthz}, grace: 100ms}}\n";

/// Mounts the secret, says it aloud, and leaves nothing of it but other letters. Steps are cached by what they say: those
/// of each test are its own.
fn dockerfile(base: &str, test: &str) -> String {
    format!(
        "FROM {base}\nWORKDIR /served\nRUN --mount=type=secret,id=login,required : {test} && cat /run/secrets/login && tr a-z b-za </run/secrets/login >content.txt\nRUN --mount=type=secret,id=unknown sleep 0\n"
    )
}

async fn store(agent: &Agent, value: &str) {
    let secret = "registry-login".parse().expect("a name");
    let secret = SetSecret { secret, environment: None, app: None, value: value.into() };
    agent.client.set_secret(&secret).await.expect("stored");
}

async fn remove(agent: &Agent) {
    let secret = NamedSecret { secret: "registry-login".parse().expect("a name"), environment: None, app: None };
    agent.client.remove_secret(&secret).await.expect("removed");
}

/// What a version was given, in words.
async fn given(agent: &Agent, version: u32) -> Vec<String> {
    let secrets = agent.version("shop", version).await.secrets;
    secrets.iter().map(|used| format!("{} {} {}", used.variable, used.secret, used.revision)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_build_has_the_secret_it_mounts_and_it_is_nowhere_else() {
    let Some(address) = engine().filter(|_| has_buildkit()) else { return };
    let mut agent = agent_at(&address, "").await;
    agent.repo.write("shop/landfall.yaml", MANIFEST).write("shop/Dockerfile", dockerfile(&app_image(&address), "once"));
    agent.repo.push("v1");
    let failure = until_failed(&agent, "is not there").await.failure.expect("a failure");
    assert_eq!((failure.code.as_str(), failure.phase), ("secret_missing", Phase::Building), "{failure:?}");
    for part in ["`registry-login` for build.secrets.login", "landfall secret set registry-login", "--force shop"] {
        assert!(failure.message.contains(part), "{part}: {failure:?}");
    }
    assert!(!logs(&agent, "shop").contains("with BuildKit"), "nothing was built");
    store(&agent, CANARY).await;
    agent.release("shop", true).await.expect("released");
    agent.until_body("shop", ROTATED).await;
    agent.until_done("shop").await;
    let version = agent.app("shop").await.expect("the app").live_version.expect("a version").get();
    assert_eq!(given(&agent, version).await, ["build.secrets.login registry-login 1"]);
    let text = logs(&agent, "shop");
    assert!(text.contains("[redacted]") && !text.contains(CANARY), "{text}");
    let container = running(&agent).await;
    let image = docker(&["inspect", "-f", "{{.Image}}", &container]);
    let told = docker(&["inspect", &container, &image]) + &docker(&["history", "--no-trunc", &image]);
    assert!(told.contains("tr a-z b-za") && !told.contains(CANARY), "{told}");
    let env = agent.get("shop", "/env").await.expect("an answer").body;
    assert!(!env.contains(CANARY), "{env}");
    let layers = std::process::Command::new("docker").args(["-H", &address, "save", &image]).output();
    let layers = layers.expect("docker runs");
    assert!(layers.status.success() && layers.stdout.len() > 1024);
    assert!(!layers.stdout.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "it is in no layer");
    // A step that cannot do without one that nobody gives.
    let needy = dockerfile(&app_image(&address), "once").replace("id=unknown", "id=unknown,required");
    agent.repo.write("shop/Dockerfile", needy);
    agent.repo.push("unknown");
    let failure = until_failed(&agent, "unknown").await.failure.expect("a failure");
    assert!(failure.code == "build_failed" && failure.message.contains("`build.secrets`"), "{failure:?}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, ROTATED);
    agent.stop();
    assert_eq!(files_with(&agent.root, CANARY), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_built_needs_its_secrets_only_when_it_is_built_again() {
    let Some(address) = engine().filter(|_| has_buildkit()) else { return };
    let mut agent = agent_at(&address, "").await;
    store(&agent, CANARY).await;
    let base = app_image(&address);
    agent.repo.write("shop/landfall.yaml", MANIFEST).write("shop/Dockerfile", dockerfile(&base, "again"));
    agent.repo.push("v1");
    agent.until_body("shop", ROTATED).await;
    agent.until_done("shop").await;
    let first = agent.version("shop", 1).await.image.expect("an image");
    // Another value changes nothing of what is built, and what starts anew does without any.
    store(&agent, "another-value").await;
    assert_eq!(agent.shown("shop").await.warnings, Vec::<String>::new());
    remove(&agent).await;
    docker(&["kill", &running(&agent).await]);
    agent.until_body("shop", ROTATED).await;
    agent
        .repo
        .write("shop/landfall.yaml", MANIFEST.replace(", secrets: {login: registry-login}", ""))
        .write("shop/Dockerfile", format!("FROM {base}\nCOPY . /served\nWORKDIR /served\n"))
        .write("shop/content.txt", "second\n");
    agent.repo.push("v2");
    agent.until_body("shop", "second\n").await;
    agent.until_done("shop").await;
    // Its image is still there.
    agent.rollback("shop", back_to(Some(1))).await;
    agent.until_body("shop", ROTATED).await;
    agent.until_done("shop").await;
    agent.rollback("shop", back_to(Some(2))).await;
    agent.until_body("shop", "second\n").await;
    agent.until_done("shop").await;
    // It is not: the version is built once more, with the secret as it is now.
    until("no container is made of it", || async { docker_at(&address, &["rmi", "-f", &first.id]) }).await;
    agent.rollback("shop", back_to(Some(1))).await;
    let failure = until_failed(&agent, "is not there").await.failure.expect("a failure");
    assert_eq!(failure.code, "secret_missing", "{failure:?}");
    store(&agent, "third-value").await;
    agent.rollback("shop", back_to(Some(1))).await;
    let app = agent.until_app("shop", "it is back", |app| app.live_version.is_some_and(|live| live.get() > 5)).await;
    let live = app.live_version.expect("a version").get();
    assert_eq!(given(&agent, live).await, ["build.secrets.login registry-login 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_cannot_give_secrets_is_refused_with_what_to_do() {
    let Some(address) = engine() else { return };
    let more = if has_buildkit() { "  builder: classic\n" } else { "" };
    let mut agent = agent_at(&address, more).await;
    store(&agent, CANARY).await;
    agent
        .repo
        .write("shop/landfall.yaml", MANIFEST)
        .write("shop/Dockerfile", dockerfile(&app_image(&address), "refused"));
    agent.repo.push("v1");
    let failure = until_failed(&agent, "`build.secrets` takes BuildKit").await.failure.expect("a failure");
    assert_eq!(failure.code, "build_failed", "{failure:?}");
    let mend = if has_buildkit() { "set `docker.builder` to `auto`" } else { "let Docker 18.09 or newer build" };
    assert!(failure.message.contains(mend), "{failure:?}");
}
