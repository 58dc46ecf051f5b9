//! What the services of a Compose project are: their images from version to version, and what a file may say.

use landfall::domain::{DeploymentOutcome, Phase};
use landfall::wire::api::RollbackRequest;
use landfall::wire::secrets::SetSecret;

use crate::compose::{container, finish, scene, scene_with};
use crate::engine::{Registry, docker, engine, logs};
use crate::images::{login_of_the_bot, push_private};
use crate::support::{Agent, until};

/// An image that differs from the one it is made of by what the lines say.
fn image_of(python: &str, tag: &str, lines: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("Dockerfile"), format!("FROM {python}\n{lines}\n")).expect("written");
    docker(&["build", "--quiet", "--tag", tag, &directory.path().display().to_string()]);
    id(tag)
}

fn id(image: &str) -> String {
    docker(&["image", "inspect", "--format", "{{.Id}}", image])
}

fn image_of_container(container: &str) -> String {
    docker(&["inspect", "--format", "{{.Image}}", container])
}

const SLEEP: &str = "command: [/usr/bin/python3, -c, \"import time; time.sleep(10 ** 6)\"]\n    stop_signal: SIGKILL\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_keeps_its_images_while_tags_move_and_others_tidy() {
    let Some((mut agent, python)) = scene().await else { return };
    let tag = format!("landfall-test/moving:{}", std::process::id());
    let word = |word: &str| format!("LABEL landfall-test={}\nENV WORD={word}", std::process::id());
    let one = image_of(&python, &tag, &word("one"));
    let file = |more: &str| {
        format!(
            "services:\n  store:\n    image: {tag}\n    {SLEEP}  made:\n    build: .\n    {SLEEP}{more}volumes: {{data: {{}}}}\n"
        )
    };
    let manifest = "app: shop\nbake: 200ms\ncompose: compose.yaml\n";
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/compose.yaml", file(""));
    agent.repo.write("shop/Dockerfile", format!("FROM {python}\nENV MADE=first\n"));
    agent.repo.push("one");
    agent.until_live("shop", 1).await;
    let running = |agent: &Agent, service: &str| image_of_container(&container(agent, service).expect("a container"));
    let (first, made) = (agent.version("shop", 1).await.services, running(&agent, "made"));
    assert_eq!((first["store"].id.clone(), first["store"].reference.clone()), (one.clone(), tag.clone()));
    assert_eq!((first["made"].id.clone(), running(&agent, "store")), (made.clone(), one.clone()));

    let two = image_of(&python, &tag, &word("two"));
    agent.repo.write("shop/Dockerfile", format!("FROM {python}\nENV MADE=second\n"));
    agent.repo.push("two");
    agent.until_live("shop", 2).await;
    assert_eq!(running(&agent, "store"), two);
    assert_ne!(running(&agent, "made"), made);
    // No container has these images now, and no tag but Landfall's own names them.
    docker(&["image", "prune", "--force", "--filter", &format!("label=landfall-test={}", std::process::id())]);

    agent.rollback("shop", RollbackRequest::default()).await;
    agent.until_live("shop", 3).await;
    assert_eq!((running(&agent, "store"), running(&agent, "made")), (one.clone(), made));
    assert_eq!(agent.version("shop", 3).await.services, first);
    let deployment = agent.deployment_of("shop", 1).await;
    let phases: Vec<Phase> = deployment.phases.iter().map(|entered| entered.phase).collect();
    assert!(phases.contains(&Phase::Building), "{phases:?}");
    finish(agent).await;
    docker(&["rmi", &tag]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_fails_before_anything_starts() {
    let Some((mut agent, python)) = scene().await else { return };
    let file = |image: &str| format!("services:\n  store:\n    image: {image}\n    {SLEEP}volumes: {{data: {{}}}}\n");
    agent.repo.write("shop/landfall.yaml", "app: shop\nbake: 200ms\ncompose: compose.yaml\n");
    agent.repo.write("shop/compose.yaml", file(&python));
    agent.repo.push("good");
    agent.until_live("shop", 1).await;
    let before = container(&agent, "store");
    agent.repo.write("shop/compose.yaml", file("127.0.0.1:1/none:1"));
    agent.repo.push("none");
    let failed = crate::engine::until_failed(&agent, "cannot be reached by the engine").await;
    assert_eq!(failed.outcome, Some(DeploymentOutcome::Failed));
    let failure = failed.failure.expect("a reason");
    assert_eq!((failure.code.as_str(), failure.phase), ("registry_unreachable", Phase::Building));
    assert!(failure.message.starts_with("127.0.0.1:1 cannot"), "{failure:?}");
    assert_eq!(container(&agent, "store"), before, "what runs is not touched");
    finish(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_fetched_with_the_configured_login_and_again_when_somebody_removed_it() {
    if engine().is_none() {
        return;
    }
    let Some(registry) = Registry::start(Some(("bot", "right"))).await else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let password = directory.path().join("password");
    std::fs::write(&password, "wrong\n").expect("written");
    let Some((mut agent, python)) = scene_with(&login_of_the_bot(&registry, &password)).await else { return };
    let made = format!("landfall-test/private:{}", std::process::id());
    let known = image_of(&python, &made, "ENV WORD=private");
    let private = push_private(&engine().expect("an engine"), &registry, &made);
    docker(&["rmi", &made]);
    let file = |image: &str| {
        format!("services:\n  store:\n    image: {image}\n    {SLEEP}  other:\n    image: {image}\n    {SLEEP}")
    };
    agent.repo.write("shop/landfall.yaml", "app: shop\nbake: 200ms\ncompose: compose.yaml\n");
    agent.repo.write("shop/compose.yaml", file(&private));
    agent.repo.push("private");
    let failure = agent.until_done("shop").await.failure.expect("a failure");
    assert_eq!((failure.code.as_str(), failure.phase), ("image_denied", Phase::Building), "{failure:?}");
    assert!(failure.message.contains("`docker.registries`"), "{failure:?}");

    std::fs::write(&password, "right\n").expect("written");
    agent.repo.write("shop/note.txt", "the password is right now\n");
    agent.repo.push("again");
    agent.until_live("shop", 2).await;
    let running = |agent: &Agent| image_of_container(&container(agent, "store").expect("a container"));
    assert_eq!(running(&agent), known);
    let services = agent.version("shop", 2).await.services;
    for service in ["store", "other"] {
        let image = &services[service];
        assert_eq!((&image.id, &image.reference), (&known, &private));
        assert!(image.digest.as_ref().is_some_and(|digest| digest.starts_with(&registry.host)), "{image:?}");
    }

    agent.repo.write("shop/compose.yaml", file(&python));
    agent.repo.push("another");
    agent.until_live("shop", 3).await;
    docker(&["rmi", "--force", &known]);
    agent.rollback("shop", RollbackRequest::default()).await;
    agent.until_live("shop", 4).await;
    assert_eq!(running(&agent), known);
    assert!(logs(&agent, "shop").contains("any more"), "its log says why it was fetched");
    finish(agent).await;
    docker(&["rmi", "--force", &known]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_profiles_secrets_and_services_that_do_their_work_once() {
    let Some((mut agent, python)) = scene().await else { return };
    let secret = SetSecret {
        secret: "db-password".parse().expect("a name"),
        environment: None,
        app: None,
        value: "s3same".into(),
    };
    agent.client.set_secret(&secret).await.expect("stored");
    let says = "command: [/usr/bin/python3, -uc, \"import os, time; print('WHO says', os.environ.get('PASSWORD'), os.environ.get('LEVEL'), os.path.exists('/data/migrated')); time.sleep(10 ** 6)\"]\n    stop_signal: SIGKILL\n";
    let base = format!(
        r#"services:
  migrate:
    image: {python}
    command: [/usr/bin/python3, -c, "open('/data/migrated', 'w')"]
    volumes: ["data:/data"]
  shop:
    image: {python}
    {}    volumes: ["data:/data"]
    env_file: shop.env
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
  mail:
    image: {python}
    profiles: [mail]
    {SLEEP}  other:
    image: 127.0.0.1:1/none:1
    profiles: [other]
volumes: {{data: {{}}}}
"#,
        says.replace("WHO", "shop")
    );
    agent.repo.write("shop/compose.yaml", base).write("shop/shop.env", "LEVEL=debug\n");
    agent.repo.write("shop/more.yaml", "services: {shop: {environment: {PASSWORD: \"${DB_PASSWORD:?}\"}}}\n");
    let manifest = "app: shop\nbake: 200ms\ncompose: {files: [compose.yaml, more.yaml], profiles: [mail]}\nsecrets: {DB_PASSWORD: db-password}\n";
    agent.repo.write("shop/landfall.yaml", manifest);
    agent.repo.push("everything");
    agent.until_live("shop", 1).await;
    until("the services have said it", || async {
        let text = logs(&agent, "shop");
        let told = ["shop | shop says s3same debug True", "migrate is exited with code 0"];
        if told.iter().all(|words| text.contains(words)) { Ok(()) } else { Err(text) }
    })
    .await;
    let shown = agent.client.services(None, &"shop".parse().expect("a name")).await.expect("shown");
    let states: Vec<_> =
        shown.iter().map(|one| (one.service.as_str(), one.state.as_str(), one.exit_code, one.restarts)).collect();
    let expected = [("mail", "running", None, 0), ("migrate", "exited", Some(0), 0), ("shop", "running", None, 0)];
    assert_eq!(states, expected);
    assert_eq!(shown[0].image, id(&python));
    assert!(container(&agent, "mail").is_some() && container(&agent, "other").is_none());
    let services: Vec<String> = agent.version("shop", 1).await.services.into_keys().collect();
    assert_eq!(services, ["mail", "migrate", "shop"]);
    finish(agent).await;
}
