//! A push becomes containers, the next one takes over from them, and an earlier version comes back.

use landfall::domain::InstanceState;
use landfall::wire::exec::{ExecEnd, ExecStart, Frame};

use crate::engine::{agent_at, app_image, containers_at, docker, engine, logs, manifest, running, scene};
use crate::support::load::Load;
use crate::support::{number_from, send_signal, until};

/// `LANDFALL_TEST_CONTAINER_DEPLOYS=50` is the figure to quote.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_replace_containers_under_load_and_no_request_fails() {
    let deploys = number_from("LANDFALL_TEST_CONTAINER_DEPLOYS", 10);
    let Some((mut agent, image)) = scene().await else { return };
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let load = Load::start(agent.proxy, "shop", 16, 2);
    load.live(1);
    load.go_on().await;
    for version in 2..=deploys + 1 {
        agent.repo.write("shop/content.txt", format!("v{version}\n"));
        agent.repo.push("next");
        agent.until_live("shop", version).await;
        load.live(version);
    }
    load.go_on().await;
    let report = load.stop_unharmed().await;
    println!("{deploys} deploys of containers under load: {} requests, none failed", report.requests);
    // Of the versions before, nothing is left in the engine.
    running(&agent).await;
    let address = engine().expect("an engine");
    until("only the live container is left", || async {
        let left = containers_at(&address, &agent, "");
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let text = logs(&agent, "shop");
    assert!(text.contains("stdout F listening on 0.0.0.0:"), "{text}");
    // The agent's end is that of its containers.
    let name = crate::engine::owner(&agent);
    agent.stop();
    assert_eq!(docker(&["ps", "-aq", "--filter", &format!("label=landfall.owner={name}")]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_is_told_and_given() {
    let Some((mut agent, image)) = scene().await else { return };
    let text = manifest(
        "shop",
        &image,
        "    resources: {memory: 64MiB, cpu: 0.5, processes: 32}\nuser: \"1234\"\nread_only: true\nenv: {COLOUR: red}\nvolumes: {data: /data}\n",
    );
    agent.repo.write("shop/landfall.yaml", text).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let env = agent.get("shop", "/env").await.expect("an answer").body;
    for line in ["COLOUR=red", "HOST=0.0.0.0", "LANDFALL_VOLUME_DATA=/data", "LANDFALL_APP=shop", "LANDFALL_VERSION=1"]
    {
        assert!(env.lines().any(|found| found == line), "{line} in:\n{env}");
    }
    assert!(env.contains("LANDFALL_URL=http://host.docker.internal:"), "{env}");
    let container = running(&agent).await;
    let asked = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}}{{end}}{{end}}";
    let seen = docker(&["inspect", "-f", asked, &container]);
    let volume = format!("landfall-{}-main-shop-data", crate::engine::owner(&agent));
    assert_eq!(seen, format!("1234 true 67108864 500000000 32 {volume}"));
    assert_eq!(docker(&["volume", "inspect", "-f", "{{index .Labels \"landfall.app\"}}", &volume]), "shop");
    agent.stop();
    // Volumes stay, whatever happens to the app.
    docker(&["volume", "rm", &volume]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_is_started_again_and_what_it_wrote_is_kept() {
    let Some((mut agent, image)) = scene().await else { return };
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    for how in ["exit", "kill", "rm"] {
        let before = running(&agent).await;
        match how {
            "exit" => drop(agent.get("shop", "/exit?code=3").await),
            "kill" => drop(docker(&["kill", &before])),
            _ => drop(docker(&["rm", "-f", &before])),
        }
        until(&format!("another container serves after {how}"), || async {
            let serves = agent.get("shop", "/").await.is_ok_and(|answer| answer.body == "v1\n");
            let now = containers_at(&engine().expect("an engine"), &agent, "status=running");
            if serves && now.len() == 1 && now[0] != before { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
    let text = logs(&agent, "shop");
    for words in ["ended: exit code 3", "ended: killed by SIGKILL"] {
        assert!(text.contains(words), "{words} in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_finds_its_containers_and_loses_no_line() {
    let Some((mut agent, image)) = scene().await else { return };
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let container = running(&agent).await;
    let load = Load::start(agent.proxy, "shop", 8, 1);
    load.live(1);
    load.go_on().await;
    for _ in 0..3 {
        let killed = agent.kill_controller().await;
        load.go_on().await;
        agent.until_new_controller(killed).await;
        until("the instance is ready", || async {
            let found = agent.instances("shop").await?;
            match found.as_slice() {
                [one] if one.state == InstanceState::Ready => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    load.stop_unharmed().await;
    assert_eq!(running(&agent).await, container, "nothing was started anew");
    let listening = logs(&agent, "shop").matches("listening on").count();
    assert_eq!(listening, 1, "no line is written twice");
    // One that ends while no controller is there is noticed by the next.
    let killed = agent.controller_pid().await;
    send_signal(killed, nix::sys::signal::Signal::SIGSTOP);
    docker(&["kill", &container]);
    send_signal(killed, nix::sys::signal::Signal::SIGKILL);
    agent.until_new_controller(killed).await;
    agent.until_body("shop", "v1\n").await;
    assert_ne!(running(&agent).await, container);
}

/// As many deployments as may go on at once are enough for any number of apps, even one.
#[tokio::test(flavor = "multi_thread")]
async fn apps_that_come_at_once_take_turns() {
    let Some(address) = engine() else { return };
    let image = app_image(&address);
    let mut agent = agent_at(&address, "limits: {deployments: 1}\n").await;
    let apps = ["one", "two", "three"];
    for app in apps {
        let directory = agent.repo.write(&format!("{app}/landfall.yaml"), manifest(app, &image, ""));
        directory.write(&format!("{app}/content.txt"), app);
    }
    agent.repo.push("three apps");
    for app in apps {
        agent.until_body(app, app).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_and_containers_live_side_by_side() {
    let Some((mut agent, image)) = scene().await else { return };
    agent.repo.write("boxed/landfall.yaml", manifest("boxed", &image, "")).write("boxed/content.txt", "in a box\n");
    agent.repo.app("plain", "plain\n");
    agent.repo.push("both");
    agent.until_body("boxed", "in a box\n").await;
    agent.until_body("plain", "plain\n").await;
    // One app changes its sort.
    agent.repo.app("boxed", "no box\n");
    agent.repo.push("out of the box");
    agent.until_body("boxed", "no box\n").await;
    let address = engine().expect("an engine");
    until("no container is left", || async {
        let left = containers_at(&address, &agent, "");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_container_and_ends_with_its_caller() {
    let Some((mut agent, image)) = scene().await else { return };
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    agent.rest(&["shop"]).await;
    let id = agent.instances("shop").await.expect("instances")[0].instance.to_string();
    let run = |arguments: &[&str]| ExecStart {
        command: ["/app/test-app"].iter().chain(arguments).map(|word| (*word).to_owned()).collect(),
        terminal: None,
        term: None,
    };
    let mut exec = agent.client.exec(&id, run(&["exit", "7", "as", "asked"])).await.expect("runs");
    let (mut output, mut error) = (Vec::new(), Vec::new());
    let end = loop {
        match exec.next().await.expect("a frame") {
            Frame::Output(bytes) => output.extend(bytes),
            Frame::Error(bytes) => error.extend(bytes),
            Frame::Ended(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, ExecEnd::Exited { code: 7 });
    assert!(String::from_utf8_lossy(&error).contains("as asked"), "{output:?} {error:?}");

    let exec = agent.client.exec(&id, run(&["sleep", "exec"])).await.expect("runs");
    let container = running(&agent).await;
    let inside = || docker(&["top", &container, "-eo", "pid,args"]).matches("sleep exec").count();
    until("it runs", || async { if inside() == 1 { Ok(()) } else { Err("not yet".to_owned()) } }).await;
    drop(exec);
    until("it is gone", || async { if inside() == 0 { Ok(()) } else { Err("it runs".to_owned()) } }).await;
}
