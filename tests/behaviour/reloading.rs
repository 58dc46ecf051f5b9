//! A changed configuration is taken over while everything runs; a bad one changes nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use landfall::domain::{DeploymentOutcome, EventKind, Phase};
use landfall::wire::api;

use crate::sources::until_source;
use crate::support::asking::name;
use crate::support::forge::Forge;
use crate::support::{Agent, Repo, Setup, free_port, http, send_signal, until, web_manifest};

impl Agent {
    fn config_file(&self) -> PathBuf {
        self.root.join("landfall.yaml")
    }

    pub fn config(&self) -> String {
        std::fs::read_to_string(self.config_file()).expect("the configuration")
    }

    /// Writes the configuration as careful editors do: beside it, then renamed into its place.
    pub fn replace_config(&self, text: &str) {
        let beside = self.root.join(".landfall.yaml.new");
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(&beside, self.config_file()).expect("in its place");
    }

    /// Adds sources to the configuration.
    fn add_sources(&self, lines: &str) {
        self.replace_config(&self.config().replacen("sources:\n", &format!("sources:\n{lines}"), 1));
    }

    /// Messages of all events of this kind, oldest first.
    async fn told(&self, kind: EventKind) -> Vec<String> {
        let all = self.client.events(0, 1000).await.expect("events");
        all.into_iter().filter(|event| event.event.kind == kind).map(|event| event.event.message).collect()
    }

    /// Waits until as many events of this kind are there; answers the last one's message.
    async fn until_told(&self, kind: EventKind, count: usize) -> String {
        until(&format!("{count} × {kind:?}"), || async {
            let told = self.told(kind).await;
            if told.len() >= count { Ok(told.last().cloned().unwrap_or_default()) } else { Err(format!("{told:?}")) }
        })
        .await
    }

    async fn configuration(&self) -> api::Configuration {
        self.client.status().await.expect("status").configuration.expect("the configuration")
    }

    async fn source_names(&self) -> Vec<String> {
        let sources = self.client.sources().await.expect("sources");
        sources.into_iter().map(|source| source.source.to_string()).collect()
    }
}

/// A source in one line, on a repository of this machine.
fn local(name: &str, repo: &Repo) -> String {
    format!("  - {{name: {name}, git: {{url: {}}}}}\n", repo.path().display())
}

fn app_in(directory: &Path, name: &str, content: &str) {
    let app = directory.join(name);
    std::fs::create_dir_all(&app).expect("a directory");
    std::fs::write(app.join("content.txt"), content).expect("its content");
    std::fs::write(app.join("landfall.yaml"), web_manifest(name, "")).expect("its manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_come_change_and_go_and_the_others_are_not_even_looked_at() {
    let mut setup = Setup::new();
    let Some(forge) = Forge::serve(setup.dir.path()) else { return };
    setup.repo.app("shop", "shop\n");
    setup.repo.push("shop");
    let more = setup.dir.path().join("more");
    std::fs::create_dir(&more).expect("a directory");
    let mut second = Repo::create(&more.join("second.git"));
    second.app("guest", "guest\n");
    second.push("guest");
    let other = Forge::serve(&more).expect("a second forge");
    let stays = format!(
        "  - {{name: fleet, git: {{url: \"{}\", branch: main, poll: 10m}}}}\n",
        forge.url("127.0.0.1", "fleet.git")
    );
    let goes = format!(
        "  - {{name: second, git: {{url: \"{}\", branch: main, poll: 10m}}}}\n",
        other.url("127.0.0.1", "second.git")
    );
    setup.sources = Some(format!("sources:\n{stays}{goes}"));
    let agent = setup.start().await;
    agent.until_body("shop", "shop\n").await;
    agent.until_body("guest", "guest\n").await;
    agent.until_done("shop").await;
    agent.until_done("guest").await;
    let cache = agent.root.join("data/cache/second.git");
    assert!(cache.is_dir(), "what was fetched lies there");
    let (looked, asked) = (forge.requests(), agent.client.source(&"fleet".parse().unwrap()).await.expect("fleet"));

    // One comes.
    let here = agent.root.join("here");
    app_in(&here, "local", "local\n");
    let comes = format!("  - {{name: here, directory: {{path: {}, debounce: 50ms}}}}\n", here.display());
    agent.add_sources(&comes);
    agent.until_body("local", "local\n").await;
    let told = agent.until_told(EventKind::ConfigReloaded, 1).await;
    assert_eq!(told, "the configuration was read: source here added");

    // It changes: another directory, another content of the same app.
    let there = agent.root.join("there");
    app_in(&there, "local", "moved\n");
    agent.replace_config(&agent.config().replace(&here.display().to_string(), &there.display().to_string()));
    agent.until_body("local", "moved\n").await;
    let told = agent.until_told(EventKind::ConfigReloaded, 2).await;
    assert_eq!(told, "the configuration was read: source here changed");

    // Another one goes; what it deployed runs on, and its cache does not stay.
    agent.replace_config(&agent.config().replace(&goes, ""));
    let told = agent.until_told(EventKind::SourceRemoved, 1).await;
    assert!(told.contains("source second") && told.contains("guest") && told.contains("runs on"), "{told}");
    agent.until_told(EventKind::ConfigReloaded, 3).await;
    assert_eq!(agent.source_names().await, ["here", "fleet"]);
    assert!(!cache.exists(), "the cache of a source that is gone");
    let guest = agent.app("guest").await.expect("the app");
    assert_eq!((guest.source, guest.state), (None, api::AppState::Deployed));
    assert_eq!(agent.get("guest", "/").await.expect("an answer").body, "guest\n");

    // It comes back and has its app again, without a restart.
    agent.add_sources(&goes);
    agent.until_app("guest", "guest has its source again", |app| app.source.is_some()).await;
    assert_eq!(agent.live_and_newest("guest").await, (Some(1), 1));

    // All the while nobody has asked for the source that stayed as it was.
    let still = agent.client.source(&"fleet".parse().unwrap()).await.expect("fleet");
    assert_eq!((forge.requests(), still.looked_at), (looked, asked.looked_at));
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_the_next_good_one_counts() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "first\n");
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    let good = agent.config();
    let file = agent.config_file().display().to_string();

    agent.replace_config(&good.replace("branch: main", "brnch: main"));
    let told = agent.until_told(EventKind::ConfigInvalid, 1).await;
    assert!(told.contains(&file) && told.contains(":4:") && told.contains("brnch"), "{told}");
    let status = agent.client.status().await.expect("status");
    assert!(!status.healthy);
    assert!(status.problems.iter().any(|problem| problem.contains("brnch") && problem.contains("stays in force")));
    assert!(agent.configuration().await.error.is_some_and(|error| error.contains("did you mean `branch`")));
    // Everything goes on as before.
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    agent.until_body("shop", "second\n").await;

    // An empty file is not a wish for no sources.
    std::fs::write(agent.config_file(), "# soon\n").expect("written");
    let told = agent.until_told(EventKind::ConfigInvalid, 2).await;
    assert!(told.contains("is empty"), "{told}");
    // Nor is one that is gone.
    std::fs::remove_file(agent.config_file()).expect("removed");
    let told = agent.until_told(EventKind::ConfigInvalid, 3).await;
    assert!(told.contains("cannot be read"), "{told}");
    assert_eq!(agent.source_names().await, ["fleet"]);

    // A controller that comes back now goes by the last good one, and still says so.
    let before = agent.kill_controller().await;
    agent.until_new_controller(before).await;
    assert!(agent.configuration().await.error.is_some_and(|error| error.contains("cannot be read")));
    agent.until_body("shop", "second\n").await;

    let here = agent.root.join("here");
    app_in(&here, "local", "local\n");
    let more = format!("sources:\n  - {{name: here, directory: {{path: {}}}}}\n", here.display());
    agent.replace_config(&good.replacen("sources:\n", &more, 1));
    agent.until_body("local", "local\n").await;
    let status = until("nothing is wrong", || async {
        let status = agent.client.status().await.map_err(|error| error.to_string())?;
        if status.healthy { Ok(status) } else { Err(format!("{:?}", status.problems)) }
    })
    .await;
    assert_eq!(status.configuration.and_then(|configuration| configuration.error), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_although_nothing_was_noticed() {
    let agent = Agent::start().await;
    // Written under another name, a file changes without an event in the directory it is watched in.
    let elsewhere = agent.root.join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    std::fs::hard_link(agent.config_file(), elsewhere.join("same")).expect("another name");
    let said = |times: usize| {
        let log = agent.log_file();
        until("the agent says that nothing has changed", move || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let found = log.matches("the configuration is as it was").count();
            async move { if found >= times { Ok(()) } else { Err(format!("{found}")) } }
        })
    };
    send_signal(agent.pid(), nix::sys::signal::Signal::SIGHUP);
    said(1).await;
    assert_eq!(agent.told(EventKind::ConfigReloaded).await, Vec::<String>::new());

    let here = agent.root.join("here");
    app_in(&here, "local", "local\n");
    let more = format!("sources:\n  - {{name: here, directory: {{path: {}}}}}\n", here.display());
    std::fs::write(elsewhere.join("same"), agent.config().replacen("sources:\n", &more, 1)).expect("written");
    send_signal(agent.pid(), nix::sys::signal::Signal::SIGHUP);
    agent.until_body("local", "local\n").await;
    agent.until_told(EventKind::ConfigReloaded, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_configuration_is_swapped_as_kubernetes_does_it() {
    use std::os::unix::fs::symlink;
    let mut agent = Agent::start().await;
    agent.stop();
    // landfall.yaml → mount/landfall.yaml → ..data/landfall.yaml, and `..data` is what changes.
    let mount = agent.root.join("mount");
    std::fs::create_dir_all(mount.join("..first")).expect("a directory");
    std::fs::rename(agent.config_file(), mount.join("..first/landfall.yaml")).expect("moved");
    symlink("..first", mount.join("..data")).expect("a link");
    symlink("..data/landfall.yaml", mount.join("landfall.yaml")).expect("a link");
    symlink("mount/landfall.yaml", agent.config_file()).expect("a link");
    agent.launch();
    agent.until_up().await;
    let mut before = "..first".to_owned();
    for (count, source) in ["one", "two"].into_iter().enumerate() {
        let directory = agent.root.join(source);
        app_in(&directory, source, "here\n");
        let more = format!("sources:\n  - {{name: {source}, directory: {{path: {}}}}}\n", directory.display());
        let text = agent.config().replacen("sources:\n", &more, 1);
        let next = format!("..{source}");
        std::fs::create_dir(mount.join(&next)).expect("a directory");
        std::fs::write(mount.join(&next).join("landfall.yaml"), text).expect("written");
        symlink(&next, mount.join("..data_tmp")).expect("a link");
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("swapped");
        std::fs::remove_dir_all(mount.join(&before)).expect("removed");
        before = next;
        agent.until_body(source, "here\n").await;
        agent.until_told(EventKind::ConfigReloaded, count + 1).await;
    }
    assert_eq!(agent.source_names().await, ["two", "one", "fleet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_under_way_does_not_notice() {
    let mut agent = Agent::start().await;
    let go = agent.root.join("go");
    let waits = format!("build: {{command: [sh, -c, 'while [ ! -e {} ]; do sleep 0.02; done']}}\n", go.display());
    agent.repo.app("shop", "first\n").write("shop/landfall.yaml", format!("{}{waits}", web_manifest("shop", "")));
    agent.repo.push("first");
    let deployment = until("it builds", || async {
        let all = agent.client.deployments(None, &name("shop"), Some(1)).await.map_err(|error| error.to_string())?;
        all.into_iter().find(|deployment| deployment.phase == Phase::Building).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let second = Repo::create(&agent.root.join("second.git"));
    let text = agent.config().replacen("sources:\n", &format!("sources:\n{}", local("second", &second)), 1);
    // Its own source changes too, and the bounds on what goes on at once.
    let text = text.replace("branch: main", "branch: main, poll: 7s");
    agent.replace_config(&format!("{text}limits: {{deployments: 1, builds: 2}}\n"));
    let told = agent.until_told(EventKind::ConfigReloaded, 1).await;
    for part in ["source second added", "source fleet changed", "limits.builds"] {
        assert!(told.contains(part), "{told}");
    }
    std::fs::write(&go, "").expect("written");
    let done = agent.until_done("shop").await;
    assert_eq!((done.id, done.outcome), (deployment.id, Some(DeploymentOutcome::Succeeded)));
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
    // The only slot there is now is free again.
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_moves_to_another_address_or_nothing_moves() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "shop\n");
    agent.repo.push("shop");
    agent.until_body("shop", "shop\n").await;

    // Somebody else has the address: the whole file is refused.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (old, busy) = (agent.proxy, taken.local_addr().expect("its address"));
    let second = Repo::create(&agent.root.join("second.git"));
    let wanted = agent.config().replacen("sources:\n", &format!("sources:\n{}", local("second", &second)), 1);
    agent.replace_config(&wanted.replace(&old.to_string(), &busy.to_string()));
    let told = agent.until_told(EventKind::ConfigInvalid, 1).await;
    assert!(told.contains(&busy.to_string()) && told.contains("in use"), "{told}");
    assert_eq!(agent.source_names().await, ["fleet"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "shop\n");
    drop(taken);

    let new = SocketAddr::from(([127, 0, 0, 1], free_port()));
    agent.replace_config(&wanted.replace(&old.to_string(), &new.to_string()));
    until("the app answers on the new address", || async {
        let answer = http::get(new, "shop.localhost", "/").await?;
        if answer.body == "shop\n" { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    agent.until_told(EventKind::ConfigReloaded, 1).await;
    assert_eq!(agent.source_names().await, ["second", "fleet"]);
    let shop = agent.app("shop").await.expect("the app");
    assert!(shop.urls[0].url.ends_with(&format!(":{}", new.port())), "{:?}", shop.urls);
    until("nobody answers on the old address", || async {
        match http::get(old, "shop.localhost", "/").await {
            Ok(answer) => Err(format!("{answer:?}")),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert_eq!(agent.live_and_newest("shop").await, (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_start_is_named_and_the_environment_wins() {
    let mut setup = Setup::new();
    setup.environment = vec![("LANDFALL_PROXY__DOMAIN".into(), "localhost".into())];
    let mut agent = setup.start().await;
    agent.repo.app("shop", "shop\n");
    agent.repo.push("shop");
    agent.until_body("shop", "shop\n").await;
    let good = agent.config();
    let text = good.replace("domain: localhost", "domain: example.com");
    let text = format!("{text}environment: other\nretention: {{versions: 3}}\n");
    agent.replace_config(&text.replace("agent.sock", "elsewhere.sock"));
    let told = agent.until_told(EventKind::ConfigReloaded, 1).await;
    assert!(told.contains("retention.versions") && told.contains("→ 3"), "{told}");
    assert!(told.contains("`environment`, `api.socket` cannot change while the agent runs"), "{told}");
    let status = agent.client.status().await.expect("status");
    assert_eq!(status.configuration.expect("it").at_next_start, ["environment", "api.socket"]);
    assert!(status.problems.iter().any(|problem| problem.contains("`api.socket`")), "{:?}", status.problems);
    assert_eq!((status.environment.as_str(), status.listen.domain.as_str()), ("main", "localhost"));
    assert_eq!(agent.live_and_newest("shop").await.0, Some(1));
    // Taken back, nothing waits any more.
    agent.replace_config(&good);
    agent.until_told(EventKind::ConfigReloaded, 2).await;
    assert!(agent.client.status().await.expect("status").healthy);
    let _ = until_source(&agent, "fleet", "it is well", |source| source.error.is_none()).await;
}
