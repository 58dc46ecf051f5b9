//! Workers, several objects in one app, and what an instance finds around it.

use std::collections::BTreeMap;

use landfall::domain::{DeploymentOutcome, InstanceState, Phase};
use landfall::wire::api;
use landfall::wire::api::AppState;

use crate::support::asking::{command, name, number};
use crate::support::{Agent, until};

/// An app with one worker; `more` is added to it.
fn worker(arguments: &[&str], more: &str) -> String {
    let command = command(arguments);
    format!("app: mailer\nbake: 100ms\nworkers:\n  main:\n    command: {command}\n    grace: 5s\n{more}")
}

async fn push(agent: &mut Agent, app: &str, manifest: String, content: &str) {
    agent.repo.write(&format!("{app}/landfall.yaml"), manifest).write(&format!("{app}/content.txt"), content);
    agent.repo.push(content);
    agent.rest(&[app]).await;
}

/// Starts and ends of the app's workers in the order they happened, as `+version` and `-version`.
fn history(file: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_must_not_run_twice_never_does() {
    let mut agent = Agent::start().await;
    let lock = agent.root.join("lock").display().to_string();
    for version in 1..=4_u32 {
        push(&mut agent, "mailer", worker(&["worker", &lock], ""), &version.to_string()).await;
        // The test app exits at once when another one holds the lock.
        assert_eq!(agent.live_and_newest("mailer").await, (Some(version), version));
        let phases: Vec<Phase> =
            agent.deployment_of("mailer", version).await.phases.iter().map(|phase| phase.phase).collect();
        assert_eq!(phases.contains(&Phase::Handover), version > 1, "{phases:?}");
    }
    agent.rollback("mailer", api::RollbackRequest::default()).await;
    agent.rest(&["mailer"]).await;
    assert_eq!(agent.live_and_newest("mailer").await, (Some(5), 5));
    let instances = agent.client.instances(None, Some(&name("mailer"))).await.expect("instances");
    assert_eq!(instances.iter().map(|i| (i.version, i.state)).collect::<Vec<_>>(), [(number(5), InstanceState::Ready)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_first_overlaps_with_the_one_before() {
    let mut agent = Agent::start().await;
    let file = agent.root.join("history");
    let script = "trap 'echo -$LANDFALL_VERSION >> \"$0\"; exit 0' TERM; echo +$LANDFALL_VERSION >> \"$0\"; while :; do sleep 0.05; done";
    let manifest = |handover: &str| {
        format!(
            "app: mailer\nbake: 100ms\nworkers:\n  main:\n    command: [sh, -c, {script:?}, {}]\n    handover: {handover}\n",
            file.display()
        )
    };
    push(&mut agent, "mailer", manifest("start-first"), "one").await;
    push(&mut agent, "mailer", manifest("start-first"), "two").await;
    until("the first has ended", || async {
        let seen = history(&file);
        if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(history(&file), ["+1", "+2", "-1"], "the new one ran before the old one was told to stop");
    push(&mut agent, "mailer", manifest("stop-first"), "three").await;
    assert_eq!(history(&file)[3..], ["-2", "+3"], "the old one had ended before the new one started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_that_fails_brings_the_old_one_back() {
    let mut agent = Agent::start().await;
    let lock = agent.root.join("lock").display().to_string();
    push(&mut agent, "mailer", worker(&["worker", &lock], ""), "one").await;
    push(&mut agent, "mailer", worker(&["exit", "5", "no queue"], ""), "two").await;
    let failed = agent.deployment_of("mailer", 2).await;
    assert_eq!(failed.outcome, Some(DeploymentOutcome::Failed));
    let failure = failed.failure.expect("a failure");
    assert_eq!((failure.phase, failure.exit.as_deref()), (Phase::Handover, Some("exit code 5")), "{failure:?}");
    assert!(failure.log_tail.iter().any(|line| line.contains("no queue")), "{failure:?}");
    let app = agent.until_app("mailer", "the old worker is back", |app| app.ready == 1).await;
    assert_eq!((app.state, app.live_version), (AppState::Deployed, Some(number(1))));
    let instances = agent.client.instances(None, Some(&name("mailer"))).await.expect("instances");
    assert_eq!(instances.iter().map(|i| i.version).collect::<Vec<_>>(), [number(1)]);
}

/// Two web objects and a worker, each run by these arguments of the test app.
fn three(parts: [&[&str]; 3]) -> String {
    let [main, admin, worker] = parts.map(command);
    format!(
        "app: shop\nbake: 100ms\nweb:\n  main:\n    command: {main}\n    health: {{path: /healthz, interval: 50ms}}\n  admin:\n    command: {admin}\n    health: {{path: /healthz, interval: 50ms}}\nworkers:\n  queue:\n    command: {worker}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_several_objects_changes_as_a_whole_or_not_at_all() {
    let mut agent = Agent::start().await;
    let (good, sleep, bad): (&[&str], &[&str], &[&str]) = (&["serve"], &["sleep"], &["exit", "1", "no"]);
    push(&mut agent, "shop", three([good, good, sleep]), "one").await;
    let app = agent.shown("shop").await;
    let urls: Vec<String> = app.urls.iter().map(|url| format!("{} {}", url.object, url.url)).collect();
    let port = agent.proxy.port();
    assert_eq!(
        urls,
        [format!("main http://shop.localhost:{port}"), format!("admin http://shop-admin.localhost:{port}")]
    );
    for (part, parts) in
        ["main", "admin", "queue"].into_iter().zip([[bad, good, sleep], [good, bad, sleep], [good, good, bad]])
    {
        push(&mut agent, "shop", three(parts), part).await;
        let (live, newest) = agent.live_and_newest("shop").await;
        assert_eq!(live, Some(1), "{part} failed");
        let failure = agent.deployment_of("shop", newest).await.failure.expect("a failure");
        assert_eq!(failure.object.as_deref(), Some(part));
        for host in ["shop", "shop-admin"] {
            assert_eq!(agent.get(host, "/").await.expect("an answer").version, Some(1));
        }
        let app = agent.until_app("shop", "all three run", |app| (app.ready, app.instances) == (3, 3)).await;
        assert_eq!(app.state, AppState::Deployed);
    }
    push(&mut agent, "shop", three([good, good, sleep]), "five").await;
    for host in ["shop", "shop-admin"] {
        let answer = agent.get(host, "/").await.expect("an answer");
        assert_eq!((answer.version, answer.body.as_str()), (Some(5), "five"));
    }
}

/// What `/env` shows.
async fn environment(agent: &Agent, host: &str) -> BTreeMap<String, String> {
    let body = agent.get(host, "/env").await.expect("an answer").body;
    body.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_sees_its_own_environment_and_nothing_of_the_agents() {
    let mut agent = Agent::start().await;
    let manifest = crate::support::web_manifest("shop", "    env: {LEVEL: debug}\n")
        + "env: {LEVEL: info, COLOUR: blue}\nvolumes: {user-data: /data}\n";
    agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", "one");
    let commit = agent.repo.push("one");
    agent.rest(&["shop"]).await;
    let mut seen = environment(&agent, "shop").await;
    let mut take = |variable: &str| seen.remove(variable).unwrap_or_else(|| panic!("no {variable}"));
    let instance = agent.instance_ids("shop").await.remove(0);
    for (variable, expected) in [
        ("HOST", "127.0.0.1"),
        ("LANDFALL_APP", "shop"),
        ("LANDFALL_ENVIRONMENT", "main"),
        ("LANDFALL_VERSION", "1"),
        ("LANDFALL_COMMIT", commit.as_str()),
        ("LANDFALL_OBJECT", "main"),
        ("LANDFALL_INSTANCE", instance.as_str()),
        ("LEVEL", "debug"),
        ("COLOUR", "blue"),
        ("LANG", "C.UTF-8"),
        ("PATH", &std::env::var("PATH").expect("a path")),
    ] {
        assert_eq!(take(variable), expected, "{variable}");
    }
    assert!(take("PORT").parse::<u16>().is_ok());
    let volume = take("LANDFALL_VOLUME_USER_DATA");
    assert!(std::path::Path::new(&volume).is_dir(), "{volume}");
    for private in ["HOME", "TMPDIR"] {
        let directory = take(private);
        assert!(directory.starts_with(agent.root.to_str().expect("text")), "{private}={directory}");
    }
    // How it calls functions, and as whom.
    assert_eq!(take("LANDFALL_URL"), format!("http://{}", agent.proxy));
    assert!(take("LANDFALL_TOKEN").starts_with("lf1.main.shop.1."), "the token names whose it is");
    // The supervisor's mark, by which it knows its own after a crash.
    take("LANDFALL_SUPERVISOR");
    // The agent itself was started with more than that, `LANDFALL_LOG` for one.
    assert_eq!(seen, BTreeMap::new(), "nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_the_same_for_every_version() {
    let mut agent = Agent::start().await;
    let manifest = crate::support::web_manifest("shop", "") + "volumes: {data: /data}\n";
    push(&mut agent, "shop", manifest.clone(), "one").await;
    let volume = environment(&agent, "shop").await["LANDFALL_VOLUME_DATA"].clone();
    std::fs::write(std::path::Path::new(&volume).join("orders"), "42").expect("written");
    push(&mut agent, "shop", manifest, "two").await;
    let seen = environment(&agent, "shop").await;
    assert_eq!((seen["LANDFALL_VERSION"].as_str(), &seen["LANDFALL_VOLUME_DATA"]), ("2", &volume));
    assert_eq!(std::fs::read_to_string(std::path::Path::new(&volume).join("orders")).expect("kept"), "42");
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_stops_everything_of_the_old_version_before_the_new_one_starts() {
    let mut agent = Agent::start().await;
    let lock = agent.root.join("lock").display().to_string();
    let manifest = |more: &str| {
        format!(
            "app: shop\nbake: 100ms\nstrategy: recreate\nweb:\n  main:\n    command: {}\n    health: {{path: /healthz, interval: 50ms}}\nworkers:\n  queue:\n    command: {}\n{more}",
            command(&["serve"]),
            command(&["worker", &lock])
        )
    };
    for version in 1..=3_u32 {
        push(&mut agent, "shop", manifest(""), &version.to_string()).await;
        assert_eq!(agent.live_and_newest("shop").await, (Some(version), version));
        assert_eq!(agent.get("shop", "/").await.expect("an answer").version, Some(version));
    }
    // One that does not come up: the version before is brought back.
    let bad = manifest("").replace(&command(&["serve"]), &command(&["exit", "1", "no"]));
    push(&mut agent, "shop", bad, "bad").await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(3), 4));
    agent.until_body("shop", "3").await;
    agent.until_app("shop", "all of it is back", |app| app.ready == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_an_instance_hold() {
    let mut agent = Agent::start().await;
    let script = "ulimit -u > limit; exec sleep 3600";
    let manifest = format!(
        "app: mailer\nbake: 100ms\nvolumes: {{out: /out}}\nworkers:\n  main:\n    command: [sh, -c, {:?}]\n    instances: 2\n    resources: {{memory: 64MiB, processes: 64}}\n",
        script.replace("> limit", "> \"$LANDFALL_VOLUME_OUT/$LANDFALL_INSTANCE\"")
    );
    push(&mut agent, "mailer", manifest, "one").await;
    let app = agent.shown("mailer").await;
    assert_eq!((app.state, app.ready, app.instances), (AppState::Deployed, 2, 2));
    assert_eq!(agent.instance_ids("mailer").await.len(), 2);
}
