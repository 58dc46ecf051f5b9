//! What goes wrong in containers, and what is said.

use crate::engine::{
    agent_at, app_image, containers_at, docker, engine, manifest, owner, running, scene, until_failed,
};
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_needs_too_much_memory_is_said_to() {
    let Some(address) = engine() else { return };
    let Some(image) = crate::engine::python_image(&address) else { return };
    let mut agent = agent_at(&address, "").await;
    let text = format!(
        "app: shop\nimage: {image}\nworkers: {{w: {{command: [/usr/bin/python3, -c, \"x = bytearray(200_000_000)\"], resources: {{memory: 32MiB}}}}}}\n"
    );
    agent.repo.write("shop/landfall.yaml", text);
    agent.repo.push("v1");
    let deployment = agent.until_done("shop").await;
    let failure = deployment.failure.expect("a failure");
    assert!(failure.message.contains("ran out of memory"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_what_the_container_said_and_leaves_nothing() {
    let Some((mut agent, image)) = scene().await else { return };
    for (command, words) in [
        ("[/no/such/program]", "cannot be started"),
        ("[/app/test-app, exit, \"7\", it, is, broken]", "exit code 7"),
        // Within its own network nobody would reach it.
        ("[/app/test-app, serve-on, \"127.0.0.1:8080\"]", "was not ready"),
    ] {
        let text = manifest("shop", &image, "").replace(
            "health: {path: /healthz",
            &format!("command: {command}\n    health: {{path: /healthz, deadline: 3s"),
        );
        agent.repo.write("shop/landfall.yaml", text);
        agent.repo.push(words);
        let deployment = until_failed(&agent, words).await;
        if words.contains('7') {
            let tail = deployment.failure.expect("a failure").log_tail;
            assert!(tail.iter().any(|line| line.contains("it is broken")), "{tail:?}");
        }
        let address = engine().expect("an engine");
        until("nothing of it is left", || async {
            let left = containers_at(&address, &agent, "");
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_nobody_knows_is_removed_and_those_of_others_are_not() {
    let Some((mut agent, image)) = scene().await else { return };
    let address = engine().expect("an engine");
    let other = agent_at(&address, "").await;
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let own = running(&agent).await;
    let like = |name: &str| {
        docker(&[
            "run",
            "-d",
            "--label",
            &format!("landfall.owner={name}"),
            &app_image(&address),
            "/app/test-app",
            "sleep",
        ])
    };
    // Another agent has a name of its own in the same engine.
    let foreign = like("0123456789ab");
    let left_over = like(&owner(&agent));
    let killed = agent.kill_controller().await;
    agent.until_new_controller(killed).await;
    until("what is left over is gone", || async {
        let left = containers_at(&address, &agent, "");
        if left == [own.clone()] { Ok(()) } else { Err(format!("{left:?} with {left_over}")) }
    })
    .await;
    assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", &foreign]), "true");
    docker(&["rm", "-f", &foreign]);
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_s_own_check_decides_where_the_manifest_has_none() {
    let Some((mut agent, image)) = scene().await else { return };
    let text = "app: shop\nbuild: {dockerfile: Dockerfile}\nbake: 200ms\nweb: {main: {health: {deadline: 4s}, grace: 100ms}}\n";
    let dockerfile = |code: &str| {
        format!(
            "FROM {image}\nCOPY . /served\nWORKDIR /served\nHEALTHCHECK --interval=1s CMD [\"/app/test-app\", \"exit\", \"{code}\", \"sick\"]\n"
        )
    };
    agent
        .repo
        .write("shop/landfall.yaml", text)
        .write("shop/Dockerfile", dockerfile("1"))
        .write("shop/content.txt", "v1\n");
    agent.repo.push("sick");
    let failure = agent.until_done("shop").await.failure.expect("a failure");
    assert!(failure.message.contains("HEALTHCHECK"), "{failure:?}");
    agent.repo.write("shop/Dockerfile", dockerfile("0"));
    agent.repo.push("well");
    agent.until_body("shop", "v1\n").await;
}
