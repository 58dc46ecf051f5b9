//! Where apps come from: directories, tags, commits, several repositories at once, `git://` and `http://`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use landfall::domain::VersionNumber;
use landfall::wire::api;

use crate::support::{Agent, DEADLINE, Repo, Setup, free_port, has_git, until, web_manifest};

/// Waits until one source of the agent fulfils a condition.
pub async fn until_source(agent: &Agent, name: &str, what: &str, holds: impl Fn(&api::Source) -> bool) -> api::Source {
    until(&format!("source {name}: {what}"), || async {
        let sources = agent.client.sources().await.map_err(|error| error.to_string())?;
        match sources.into_iter().find(|source| source.source.as_str() == name) {
            Some(source) if holds(&source) => Ok(source),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
    std::fs::write(path, content).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_a_watched_directory_becomes_a_version() {
    let mut setup = Setup::new();
    let here = setup.dir.path().join("here");
    write(&here.join("shop/landfall.yaml"), &web_manifest("shop", ""));
    write(&here.join("shop/content.txt"), "first\n");
    setup.sources =
        Some(format!("sources:\n  - name: here\n    directory: {{path: {}, debounce: 50ms}}\n", here.display()));
    let agent = setup.start().await;
    agent.until_body("shop", "first\n").await;
    write(&here.join("shop/content.txt"), "second\n");
    let answer = agent.until_body("shop", "second\n").await;
    assert_eq!(answer.version, Some(2));
    // A new directory is watched as well.
    write(&here.join("deeper/blog/landfall.yaml"), &web_manifest("blog", ""));
    write(&here.join("deeper/blog/content.txt"), "a blog\n");
    agent.until_body("blog", "a blog\n").await;

    // The directory goes away: its apps run on, and the source says what is missing.
    let aside = agent.root.join("aside");
    std::fs::rename(&here, &aside).expect("moved away");
    let name = "here".parse().expect("a name");
    let _ = agent.client.sync(&name).await;
    let source = until_source(&agent, "here", "it is gone", |source| source.error.is_some()).await;
    let error = source.error.unwrap_or_default();
    assert!(error.contains("here") && error.contains(&here.display().to_string()), "{error}");
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "second\n");

    // It comes back, changed.
    write(&aside.join("shop/content.txt"), "third\n");
    std::fs::rename(&aside, &here).expect("moved back");
    agent.client.sync(&name).await.expect("a look");
    agent.until_body("shop", "third\n").await;
    until_source(&agent, "here", "all is well", |source| source.error.is_none()).await;
    // And is watched again.
    write(&here.join("shop/content.txt"), "fourth\n");
    agent.until_body("shop", "fourth\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_followed_and_a_commit_stays() {
    let mut setup = Setup::new();
    setup.repo.app("tagged", "one\n").app("pinned", "one\n");
    let first = setup.repo.push("first");
    let url = setup.repo.path().display().to_string();
    let tag = |repo: &Repo, commit: &str| {
        let repository = repo.open();
        let commit = git2::Oid::from_str(commit).expect("an id");
        repository.reference("refs/tags/v1", commit, true, "tag").expect("a tag");
    };
    tag(&setup.repo, &first);
    setup.sources = Some(format!(
        "sources:\n  - {{name: by-tag, git: {{url: {url}, tag: v1, path: tagged}}}}\n  - {{name: by-commit, git: {{url: {url}, commit: {first}, path: pinned}}}}\n"
    ));
    let mut agent = setup.start().await;
    agent.until_body("tagged", "one\n").await;
    agent.until_body("pinned", "one\n").await;
    agent.repo.app("tagged", "two\n").app("pinned", "two\n");
    let second = agent.repo.push("second");
    tag(&agent.repo, &second);
    agent.until_body("tagged", "two\n").await;
    agent.client.sync(&"by-commit".parse().expect("a name")).await.expect("a look");
    assert_eq!(agent.app("pinned").await.expect("the app").live_version, VersionNumber::new(1));
    assert_eq!(agent.get("pinned", "/").await.expect("an answer").body, "one\n");
}

/// A real `git daemon` on loopback.
struct Daemon {
    process: Child,
    port: u16,
}

impl Daemon {
    /// `None` where there is no git; CI must have it.
    async fn serve(directory: &Path) -> Option<Self> {
        use std::os::unix::process::CommandExt;
        if !has_git("serve git://") {
            return None;
        }
        let port = free_port();
        let process = Command::new("git")
            .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", directory.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("git daemon");
        let daemon = Self { process, port };
        until("git daemon listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())
        })
        .await;
        Some(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The git command and the server that is its child.
        if let Ok(group) = i32::try_from(self.process.id()) {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}

/// An agent that follows its repository over `git://`, with `shop` at version 1. The daemon leaves first.
async fn over_git() -> Option<(Agent, Daemon)> {
    let mut setup = Setup::new();
    let daemon = Daemon::serve(setup.dir.path()).await?;
    setup.sources = Some(format!(
        "sources:\n  - name: fleet\n    git: {{url: \"git://127.0.0.1:{}/fleet.git\", branch: main, poll: 1s}}\n",
        daemon.port
    ));
    setup.repo.app("shop", "first\n");
    setup.repo.push("first");
    let agent = setup.start().await;
    agent.until_body("shop", "first\n").await;
    Some((agent, daemon))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_remote_is_found_by_polling() {
    let Some((mut agent, _daemon)) = over_git().await else { return };
    agent.repo.app("shop", "second\n");
    let commit = agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
    assert_eq!(agent.versions("shop").await[0].commit.as_ref().map(ToString::to_string), Some(commit));
    agent.repo.app("shop", "instead\n");
    agent.repo.force_push("history rewritten");
    agent.until_body("shop", "instead\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_is_fetched_anew_and_nothing_is_lost() {
    let Some((mut agent, _daemon)) = over_git().await else { return };
    damage(&agent.root.join("data/cache"));
    agent.repo.app("shop", "second\n").app("blog", "new\n");
    agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
    agent.until_body("blog", "new\n").await;
    until_source(&agent, "fleet", "all is well", |source| source.error.is_none()).await;
    let versions: Vec<u32> = agent.versions("shop").await.iter().map(|version| version.version.get()).collect();
    assert_eq!(versions, [2, 1]);
}

/// Overwrites everything but the names of the files.
fn damage(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("the cache").flatten() {
        let path = entry.path();
        if path.is_dir() {
            damage(&path);
        } else {
            let length = usize::try_from(entry.metadata().expect("its size").len()).expect("a size");
            // Packs are read-only.
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, vec![0x5a; length]).expect("damaged");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_leaves_the_configuration_leaves_its_apps_running() {
    let mut setup = Setup::new();
    let mut second = Repo::create(&setup.dir.path().join("second.git"));
    let url = |repo: &Repo| repo.path().display().to_string();
    let only_first = format!("sources:\n  - {{name: fleet, git: {{url: {}}}}}\n", url(&setup.repo));
    setup.sources = Some(format!("{only_first}  - {{name: second, git: {{url: {}}}}}\n", url(&second)));
    let mut agent = setup.start().await;
    agent.repo.app("shop", "shop\n");
    agent.repo.push("shop");
    second.app("guest", "guest\n");
    second.push("guest");
    agent.until_body("shop", "shop\n").await;
    agent.until_body("guest", "guest\n").await;
    let file = agent.root.join("landfall.yaml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let line = text.lines().find(|line| line.contains("name: second")).expect("the second source").to_owned();
    agent.stop();
    std::fs::write(&file, text.replace(&format!("{line}\n"), "")).expect("the configuration");
    agent.launch();
    agent.until_up().await;
    agent.until_body("shop", "shop\n").await;
    agent.until_body("guest", "guest\n").await;
    assert_eq!(agent.app("guest").await.expect("the app").source, None);
    tokio::time::timeout(DEADLINE, agent.client.sources()).await.expect("in time").expect("sources");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_a_source_that_cannot_be_read_and_has_the_others() {
    let mut setup = Setup::new();
    let gone = setup.dir.path().join("gone.git");
    let url = setup.repo.path().display().to_string();
    setup.sources = Some(format!(
        "sources:\n  - {{name: absent, git: {{url: {}}}}}\n  - {{name: fleet, git: {{url: {url}}}}}\n",
        gone.display()
    ));
    setup.repo.app("shop", "shop\n");
    setup.repo.push("shop");
    let agent = setup.start().await;
    agent.until_body("shop", "shop\n").await;
    let items = agent.client.plan(None).await.expect("a plan");
    let of = |source: &str| items.iter().find(|item| item.source.as_ref().is_some_and(|name| name.as_str() == source));
    let (absent, fleet) = (of("absent").expect("told"), of("fleet").expect("planned"));
    assert_eq!((absent.action.as_str(), absent.app.as_ref()), ("error", None));
    assert!(absent.reasons[0].contains(&gone.display().to_string()), "{absent:?}");
    assert_eq!((fleet.action.as_str(), fleet.app.as_ref().map(|app| app.as_str())), ("none", Some("shop")));
    // Asked for by its name, it is simply an error.
    assert!(agent.client.plan(Some(&"absent".parse().expect("a name"))).await.is_err());
}
