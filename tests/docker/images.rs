//! Which image a version gets, that it keeps it, and what is said when there is none.

use landfall::domain::VersionNumber;

use crate::engine::{
    Registry, agent_at, app_image, containers_at, docker, docker_at, engine, has_buildkit, logs, manifest, owner,
    running, scene, until_failed,
};
use crate::support::asking::back_to;
use crate::support::until;

/// Gives an image another name in a registry, with a file that tells it from others.
fn push(address: &str, base: &str, registry: &str, content: &str, tag: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("content.txt"), content).expect("written");
    std::fs::write(
        directory.path().join("Dockerfile"),
        format!("FROM {base}\nCOPY content.txt /served/content.txt\nWORKDIR /served\n"),
    )
    .expect("written");
    let name = format!("{registry}/shop:{tag}");
    docker(&["build", "-q", "-t", &name, &directory.path().display().to_string()]);
    docker_at(address, &["push", "-q", &name]).expect("pushed");
    docker(&["rmi", &name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_runs_the_very_same_image_although_its_tag_has_moved() {
    let Some(address) = engine() else { return };
    let Some(registry) = Registry::start(None).await else { return };
    let base = app_image(&address);
    let mut agent = agent_at(&address, "retention: {versions: 2}\n").await;
    let image = format!("{}/shop:latest", registry.host);
    push(&address, &base, &registry.host, "first\n", "latest");
    let text = |n: u32| manifest("shop", &image, &format!("pull: always\nenv: {{N: \"{n}\"}}\n"));
    agent.repo.write("shop/landfall.yaml", text(1));
    agent.repo.push("v1");
    agent.until_body("shop", "first\n").await;
    push(&address, &base, &registry.host, "second\n", "latest");
    agent.repo.write("shop/landfall.yaml", text(2));
    agent.repo.push("v2");
    agent.until_body("shop", "second\n").await;
    agent.until_done("shop").await;
    // Somebody tidies; what kept versions need has a name, and stays.
    docker(&["image", "prune", "-f"]);
    drop(registry);
    agent.rollback("shop", back_to(Some(1))).await;
    agent.until_body("shop", "first\n").await;
    agent.until_live("shop", 3).await;
    let (first, third) =
        (agent.version("shop", 1).await.image, agent.version("shop", 3).await.image.expect("an image"));
    assert_eq!(first.as_ref(), Some(&third));
    assert!(third.digest.is_some_and(|digest| digest.contains("/shop@sha256:")) && third.reference == image);
    // Versions that are not kept any more take their images along.
    let own = format!("landfall/{}/main/shop", owner(&agent));
    until("the images of old versions are given up", || async {
        let tags = docker(&["images", "--format", "{{.Tag}}", &own]);
        let mut tags: Vec<&str> = tags.lines().collect();
        tags.sort_unstable();
        if tags == ["v2", "v3"] { Ok(()) } else { Err(format!("{tags:?}")) }
    })
    .await;
    let text = logs(&agent, "shop");
    assert!(text.contains(&format!("fetching {image}")) && text.contains("the image is"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_a_failure_that_says_why_and_the_version_before_goes_on() {
    let Some((mut agent, base)) = scene().await else { return };
    let Some(registry) = Registry::start(None).await else { return };
    agent.repo.write("shop/landfall.yaml", manifest("shop", &base, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let unknown = format!("{}/nothing:1", registry.host);
    let nowhere = "127.0.0.1:1/shop:1".to_owned();
    for (image, more, code, words) in [
        (&unknown, "", "image_missing", "see that name and tag are right"),
        (&nowhere, "", "registry_unreachable", "cannot be reached by the engine"),
        (&unknown, "pull: never\n", "image_missing", "`pull: never` forbids"),
    ] {
        agent.repo.write("shop/landfall.yaml", manifest("shop", image, more));
        agent.repo.push(code);
        let deployment = until_failed(&agent, words).await;
        assert_eq!(deployment.failure.expect("a failure").code, code);
        assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "v1\n");
    }
}

/// Brings an image into a registry that needs a login, and takes it out of the engine again.
pub fn push_private(address: &str, registry: &Registry, base: &str) -> String {
    let config = tempfile::tempdir().expect("a directory");
    let with_login = |arguments: &[&str]| {
        let mut all =
            vec!["--config".to_owned(), config.path().display().to_string(), "-H".to_owned(), address.to_owned()];
        all.extend(arguments.iter().map(ToString::to_string));
        let output = std::process::Command::new("docker").args(&all).output().expect("docker runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let image = format!("{}/private:1", registry.host);
    with_login(&["login", "-u", "bot", "-p", "right", &registry.host]);
    with_login(&["tag", base, &image]);
    with_login(&["push", "-q", &image]);
    with_login(&["rmi", &image]);
    image
}

/// The configuration of the bot's login at a registry, its password in a file.
pub fn login_of_the_bot(registry: &Registry, password: &std::path::Path) -> String {
    format!("  registries: [{{host: \"{}\", username: bot, password_file: {}}}]\n", registry.host, password.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_is_asked_with_the_configured_login() {
    let Some(address) = engine() else { return };
    let Some(registry) = Registry::start(Some(("bot", "right"))).await else { return };
    let image = push_private(&address, &registry, &app_image(&address));
    let directory = tempfile::tempdir().expect("a directory");
    let password = directory.path().join("password");
    std::fs::write(&password, "wrong\n").expect("written");
    let mut agent = agent_at(&address, &login_of_the_bot(&registry, &password)).await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    let failure = agent.until_done("shop").await.failure.expect("a failure");
    assert_eq!(failure.code, "image_denied", "{failure:?}");
    assert!(failure.message.contains("`docker.registries`") && !failure.message.contains("wrong\n"), "{failure:?}");
    // A password that is mended needs no restart.
    std::fs::write(&password, "right\n").expect("written");
    agent.repo.write("shop/content.txt", "v2\n");
    agent.repo.push("v2");
    agent.until_body("shop", "v2\n").await;
}

/// A manifest of one web app whose image is built.
const BUILT: &str = "app: shop\nbuild: {dockerfile: docker/Dockerfile, args: {GREETING: hello}}\nbake: 200ms\nweb: {main: {health: {path: /healthz}, grace: 100ms}}\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_from_the_tree_once_and_a_build_that_fails_says_its_last_lines_by_the_engines_choice() {
    an_image_is_built_from_the_tree_once_and_a_build_that_fails_says_its_last_lines("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_from_the_tree_once_and_a_build_that_fails_says_its_last_lines_by_the_classic_builder() {
    an_image_is_built_from_the_tree_once_and_a_build_that_fails_says_its_last_lines("  builder: classic\n").await;
}

async fn an_image_is_built_from_the_tree_once_and_a_build_that_fails_says_its_last_lines(builder: &str) {
    let Some(address) = engine() else { return };
    let base = app_image(&address);
    let mut agent = agent_at(&address, builder).await;
    let dockerfile = format!("FROM {base}\nARG GREETING\nLABEL greeting=$GREETING\nCOPY . /served\nWORKDIR /served\n");
    agent
        .repo
        .write("shop/landfall.yaml", BUILT)
        .write("shop/docker/Dockerfile", dockerfile.clone())
        .write("shop/content.txt", "built\n")
        .write("shop/.dockerignore", "*.secret\n")
        .write("shop/a.secret", "no\n");
    agent.repo.push("v1");
    agent.until_body("shop", "built\n").await;
    let container = running(&agent).await;
    assert_eq!(docker(&["inspect", "-f", "{{index .Config.Labels \"greeting\"}}", &container]), "hello");
    let copied = docker_at(&address, &["cp", &format!("{container}:/served/a.secret"), "-"]);
    assert!(copied.is_err(), "what .dockerignore names is not sent");
    // A build that fails.
    agent.repo.write("shop/docker/Dockerfile", format!("{dockerfile}COPY nothing-like-this /x\n"));
    agent.repo.push("broken");
    let failure = until("it has failed", || async {
        agent.until_done("shop").await.failure.ok_or_else(|| "no failure yet".to_owned())
    })
    .await;
    assert_eq!(failure.code, "build_failed");
    assert!(failure.log_tail.iter().any(|line| line.contains("nothing-like-this")), "{failure:?}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "built\n");
    // What was built before is not built again.
    agent.repo.write("shop/docker/Dockerfile", dockerfile);
    agent.repo.push("as it was");
    agent.until_app("shop", "nothing of it is left over", |app| app.live_version == VersionNumber::new(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_what_buildkit_knows_and_its_steps_are_in_the_log() {
    let Some((mut agent, base)) = scene().await else { return };
    if !has_buildkit() {
        return;
    }
    // Two stages of which one is not wanted, and rights of a copied file: the classic builder knows neither.
    let dockerfile = format!(
        "FROM {base} AS unwanted\nCOPY --from={base} /no/such/file /x\nFROM {base}\nCOPY --chmod=0640 content.txt /served/\nRUN [\"/app/test-app\", \"exit\", \"0\", \"said by a step\"]\nWORKDIR /served\n"
    );
    agent
        .repo
        .write("shop/landfall.yaml", BUILT)
        .write("shop/docker/Dockerfile", dockerfile.clone())
        .write("shop/content.txt", "built\n");
    agent.repo.push("v1");
    agent.until_body("shop", "built\n").await;
    let text = logs(&agent, "shop");
    for words in ["with BuildKit", "COPY --chmod=0640 content.txt /served/", "said by a step"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("unwanted"), "{text}");
    // A step that fails.
    let failing = format!("{dockerfile}RUN [\"/app/test-app\", \"exit\", \"7\"]\n");
    agent.repo.write("shop/docker/Dockerfile", failing);
    agent.repo.push("broken");
    let deployment = until_failed(&agent, "exit code: 7").await;
    assert_eq!(deployment.failure.expect("a failure").code, "build_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_upon_a_private_image_has_the_configured_login() {
    let Some(address) = engine() else { return };
    for builder in ["auto", "classic"] {
        let Some(registry) = Registry::start(Some(("bot", "right"))).await else { return };
        let image = push_private(&address, &registry, &app_image(&address));
        let directory = tempfile::tempdir().expect("a directory");
        let password = directory.path().join("password");
        std::fs::write(&password, "wrong\n").expect("written");
        let more = format!("  builder: {builder}\n{}", login_of_the_bot(&registry, &password));
        let mut agent = agent_at(&address, &more).await;
        agent
            .repo
            .write("shop/landfall.yaml", BUILT)
            .write("shop/docker/Dockerfile", format!("FROM {image}\nCOPY . /served\nWORKDIR /served\n"))
            .write("shop/content.txt", "v1\n");
        agent.repo.push("v1");
        let failure = agent.until_done("shop").await.failure.expect("a failure");
        assert_eq!(failure.code, "build_failed", "{builder}: {failure:?}");
        assert!(failure.message.contains("`docker.registries`"), "{builder}: {failure:?}");
        std::fs::write(&password, "right\n").expect("written");
        agent.repo.write("shop/content.txt", "v2\n");
        agent.repo.push("v2");
        agent.until_body("shop", "v2\n").await;
        let _ = docker_at(&address, &["rmi", &image]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_somebody_removed_is_fetched_again_when_it_is_needed() {
    let Some(address) = engine() else { return };
    let Some(registry) = Registry::start(None).await else { return };
    let base = app_image(&address);
    push(&address, &base, &registry.host, "v1\n", "1");
    let mut agent = agent_at(&address, "").await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &format!("{}/shop:1", registry.host), ""));
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let before = running(&agent).await;
    let image = docker(&["inspect", "-f", "{{.Image}}", &before]);
    docker(&["rm", "-f", &before]);
    // The engine refuses while the next container is made of it already.
    let _ = docker_at(&address, &["rmi", "-f", &image]);
    until("it serves again", || async {
        let serves = agent.get("shop", "/").await.is_ok_and(|answer| answer.body == "v1\n");
        let now = containers_at(&address, &agent, "status=running");
        if serves && now.len() == 1 && now[0] != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}
