//! Input that cannot be right, and machines that cannot do what they should: the message names the thing, the place
//! and the mend; what ran before goes on; nothing is lost.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use landfall::domain::VersionNumber;
use landfall::wire::api;
use nix::sys::signal::Signal;

use crate::support::{Agent, DEADLINE, Repo, Setup, free_port, landfall, send_signal, until, web_manifest};

fn assert_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// An agent whose app `shop` serves version 1.
async fn with_shop(setup: Setup) -> Agent {
    let mut agent = setup.start().await;
    agent.repo.app("shop", "good\n");
    agent.repo.push("good");
    agent.until_body("shop", "good\n").await;
    agent
}

/// Waits until a source says that something is wrong with it.
async fn source_error(agent: &Agent, name: &str) -> String {
    until_source(agent, name, "it is failing", |source| source.error.is_some()).await.error.expect("an error")
}

async fn until_source(agent: &Agent, name: &str, what: &str, holds: impl Fn(&api::Source) -> bool) -> api::Source {
    until(&format!("source {name}: {what}"), || async {
        let sources = agent.client.sources().await.map_err(|error| error.to_string())?;
        match sources.into_iter().find(|source| source.source.as_str() == name) {
            Some(source) if holds(&source) => Ok(source),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

fn git_source(name: &str, url: &str, more: &str) -> String {
    format!("  - name: {name}\n    git: {{url: \"{url}\"{more}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_a_manifest_is_shown_with_its_place_and_the_app_goes_on() {
    let mut agent = with_shop(Setup::new()).await;
    let broken = "app: shop\nweb:\n  main:\n    comand: [./serve]\n    drain: soon\n";
    agent.repo.write("shop/landfall.yaml", broken).app("other", "not concerned\n");
    let commit = agent.repo.push("typos");
    agent.until_body("other", "not concerned\n").await;
    let app = agent.until_app("shop", "the mistakes are shown", |app| app.manifest_error.is_some()).await;
    let error = app.manifest_error.expect("an error");
    assert_words(&error, &["shop/landfall.yaml:4:", "`comand`", "`command`", "shop/landfall.yaml:5:", "soon"]);
    assert_words(app.message.as_deref().unwrap_or_default(), &["landfall.yaml"]);
    assert_eq!(app.live_version, VersionNumber::new(1));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
    let source =
        until_source(&agent, "fleet", "the commit is read", |source| source.revision.as_ref() == Some(&commit)).await;
    assert_words(&source.manifest_errors.join("\n"), &["shop/landfall.yaml:4:"]);
    assert!(!agent.client.status().await.expect("status").healthy);

    agent.repo.app("shop", "mended\n");
    agent.repo.push("mended");
    agent.until_body("shop", "mended\n").await;
    agent.until_app("shop", "no mistake is left", |app| app.manifest_error.is_none()).await;
    agent.until_live("shop", 2).await;
    until_source(&agent, "fleet", "no mistake is left", |source| source.manifest_errors.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_too_long_is_shown_with_its_limit() {
    let mut agent = with_shop(Setup::new()).await;
    let long = "a".repeat(41);
    agent.repo.write("long/landfall.yaml", web_manifest(&long, ""));
    agent.repo.push("a long name");
    let source =
        until_source(&agent, "fleet", "the name is refused", |source| !source.manifest_errors.is_empty()).await;
    assert_words(&source.manifest_errors.join("\n"), &["long/landfall.yaml:1:", &long, "40"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_manifests_is_told_what_is_missing() {
    let mut agent = Agent::start().await;
    // Nothing was ever pushed: the branch does not exist.
    assert_words(&source_error(&agent, "fleet").await, &["fleet", "main"]);
    agent.repo.write("README.md", "nothing to run\n");
    agent.repo.push("no manifests");
    let without = |source: &api::Source| source.error.as_ref().is_some_and(|error| error.contains("landfall.yaml"));
    let source = until_source(&agent, "fleet", "it has no manifest", without).await;
    assert_words(&source.error.unwrap_or_default(), &["fleet", "add one", "`path`"]);
    agent.repo.app("shop", "at last\n");
    agent.repo.push("an app");
    agent.until_body("shop", "at last\n").await;
    until_source(&agent, "fleet", "all is well", |source| source.error.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_lost_all_its_manifests_stops_nothing() {
    let mut agent = with_shop(Setup::new()).await;
    agent.repo.remove("shop").write("README.md", "where have they gone?\n");
    agent.repo.push("everything removed");
    assert_words(&source_error(&agent, "fleet").await, &["fleet", "nothing is stopped", "landfall app stop"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_name_belongs_to_whoever_had_it_first() {
    let mut setup = Setup::new();
    let second = Repo::create(&setup.dir.path().join("second.git"));
    let url = |repo: &Repo| repo.path().display().to_string();
    let sources = git_source("fleet", &url(&setup.repo), "") + &git_source("second", &url(&second), "");
    setup.sources = Some(format!("sources:\n{sources}"));
    let mut agent = with_shop(setup).await;
    // Within one source.
    agent.repo.write("copy/landfall.yaml", web_manifest("shop", "")).write("copy/content.txt", "a copy\n");
    agent.repo.push("a copy");
    let source =
        until_source(&agent, "fleet", "the copy is refused", |source| !source.manifest_errors.is_empty()).await;
    assert_words(
        &source.manifest_errors.join("\n"),
        &["copy/landfall.yaml", "`shop`", "shop/landfall.yaml", "another name"],
    );
    // Over two sources.
    let mut second = second;
    second.app("shop", "from elsewhere\n").app("guest", "welcome\n");
    second.push("the same name");
    agent.until_body("guest", "welcome\n").await;
    let source =
        until_source(&agent, "second", "the name is refused", |source| !source.manifest_errors.is_empty()).await;
    assert_words(&source.manifest_errors.join("\n"), &["shop", "fleet", "another name"]);
    let app = agent.app("shop").await.expect("the app");
    assert_eq!((app.live_version, app.manifest_error), (VersionNumber::new(1), None));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
    // The owner leaves, the name is free.
    agent.repo.remove("shop");
    agent.repo.push("only the copy is left");
    agent.until_body("shop", "a copy\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_does_not_exist_is_named() {
    let mut setup = Setup::new();
    let url = setup.repo.path().display().to_string();
    let sources = git_source("fleet", &url, ", branch: main")
        + &git_source("wrong", &url, ", branch: mian")
        + &git_source("tagged", &url, ", tag: v9");
    setup.sources = Some(format!("sources:\n{sources}"));
    let agent = with_shop(setup).await;
    let said = |word: &'static str| move |source: &api::Source| source.error.as_ref().is_some_and(|e| e.contains(word));
    let wrong = until_source(&agent, "wrong", "its branch is missing", said("mian")).await;
    assert_words(&wrong.error.unwrap_or_default(), &["`wrong`", "mian", "branch"]);
    let tagged = until_source(&agent, "tagged", "its tag is missing", said("v9")).await;
    assert_words(&tagged.error.unwrap_or_default(), &["`tagged`", "v9", "tag"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn remotes_that_refuse_or_hang_are_named_and_hold_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener that never answers");
    let silent = (silent.local_addr().expect("its address").port(), silent);
    let closed = free_port();
    let mut setup = Setup::new();
    let url = setup.repo.path().display().to_string();
    let sources = git_source("fleet", &url, "")
        + &git_source("refused", &format!("http://127.0.0.1:{closed}/x.git"), "")
        + &git_source("refused-git", &format!("git://127.0.0.1:{closed}/x.git"), "")
        + &git_source("hangs", &format!("http://127.0.0.1:{}/x.git", silent.0), ", timeout: 1s")
        + &git_source("hangs-git", &format!("git://127.0.0.1:{}/x.git", silent.0), ", timeout: 1s")
        + &git_source("nowhere", "/no/such/repository.git", "");
    setup.sources = Some(format!("sources:\n{sources}"));
    let agent = with_shop(setup).await;
    for name in ["refused", "refused-git"] {
        assert_words(&source_error(&agent, name).await, &[name, &closed.to_string(), "refused", "reachable"]);
    }
    for name in ["hangs", "hangs-git"] {
        assert_words(&source_error(&agent, name).await, &[name, "deadline", "`timeout`"]);
    }
    assert_words(&source_error(&agent, "nowhere").await, &["nowhere", "/no/such/repository.git"]);
    let problems = agent.client.status().await.expect("status").problems.join("\n");
    assert_words(&problems, &["refused", "hangs", "nowhere"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_goes_away_and_comes_back_changes_nothing() {
    let mut agent = with_shop(Setup { more: String::new(), ..Setup::new() }).await;
    let aside = agent.root.join("aside.git");
    std::fs::rename(agent.repo.path(), &aside).expect("moved away");
    let fleet = "fleet".parse().expect("a name");
    let _ = agent.client.sync(&fleet).await;
    assert_words(&source_error(&agent, "fleet").await, &["fleet", &agent.repo.path().display().to_string()]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
    std::fs::rename(&aside, agent.repo.path()).expect("moved back");
    agent.repo.app("shop", "back again\n");
    agent.repo.push("back");
    agent.client.sync(&fleet).await.expect("a look");
    agent.until_body("shop", "back again\n").await;
    until_source(&agent, "fleet", "all is well", |source| source.error.is_none()).await;
    // A push is seen by itself again.
    agent.repo.app("shop", "and watched\n");
    agent.repo.push("watched");
    agent.until_body("shop", "and watched\n").await;
}

/// Runs `landfall agent` on a configuration until it ends by itself.
fn run_agent(root: &Path, config: &str) -> Output {
    let file = root.join("other.yaml");
    std::fs::write(&file, config).expect("the configuration");
    let mut process = Command::new(landfall())
        .args(["agent", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let deadline = Instant::now() + DEADLINE;
    while process.try_wait().expect("its end").is_none() {
        if Instant::now() > deadline {
            let _ = process.kill();
            panic!("the agent did not end: {:?}", process.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    process.wait_with_output().expect("what it said")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn config(root: &Path, data: &str, proxy: u16, more: &str) -> String {
    let at = |name: &str| root.join(name).display().to_string();
    format!(
        "data_dir: {}\nproxy: {{listen: [\"127.0.0.1:{proxy}\"]}}\napi: {{socket: {}{more}}}\n",
        at(data),
        at("other.sock")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_data_is_refused() {
    let agent = with_shop(Setup::new()).await;
    let output = run_agent(&agent.root, &config(&agent.root, "data", free_port(), ""));
    assert!(!output.status.success());
    let data = agent.root.join("data").display().to_string();
    assert_words(&said(&output), &[&data, "another agent", &agent.pid().to_string(), "`data_dir`"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_named_with_its_key() {
    let agent = with_shop(Setup::new()).await;
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("its address").port();
    let output = run_agent(&agent.root, &config(&agent.root, "data2", port, ""));
    assert!(!output.status.success());
    assert_words(&said(&output), &[&format!("127.0.0.1:{port}"), "in use", "proxy.listen"]);
    let more = format!(", listen: \"127.0.0.1:{port}\"");
    let output = run_agent(&agent.root, &config(&agent.root, "data2", free_port(), &more));
    assert!(!output.status.success());
    assert_words(&said(&output), &[&format!("127.0.0.1:{port}"), "in use", "api.listen"]);
}

/// The ledger of an agent whose controller stands still, all of it in the one file.
struct StoppedLedger {
    path: PathBuf,
    whole: Vec<u8>,
    controller: i32,
}

impl StoppedLedger {
    async fn of(agent: &Agent) -> Self {
        let path = agent.root.join("data/ledger.db");
        let controller = agent.controller_pid().await;
        send_signal(controller, Signal::SIGSTOP);
        // Stopped in the middle of a transaction it would hold a lock; then it goes on for a moment.
        let whole = until("the ledger is at rest", || async {
            let connection = rusqlite::Connection::open(&path).map_err(|error| error.to_string())?;
            let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            if busy == Ok(0) {
                return std::fs::read(&path).map_err(|error| error.to_string());
            }
            send_signal(controller, Signal::SIGCONT);
            tokio::time::sleep(Duration::from_millis(20)).await;
            send_signal(controller, Signal::SIGSTOP);
            Err(format!("{busy:?}"))
        })
        .await;
        Self { path, whole, controller }
    }

    /// Puts this in the place of the ledger.
    fn replace(&self, content: &[u8]) {
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, content).and_then(|()| std::fs::rename(&beside, &self.path)).expect("replaced");
    }

    /// Ends the controller; the next one must say this.
    async fn until_said(&self, agent: &Agent, words: &[&str]) {
        let before = agent.log().len();
        send_signal(self.controller, Signal::SIGKILL);
        until(&format!("the log says {words:?}"), || async {
            let log = agent.log();
            let new = log.get(before..).unwrap_or_default();
            if words.iter().all(|word| new.contains(word)) { Ok(()) } else { Err(new.to_owned()) }
        })
        .await;
    }
}

/// Apps go on, and the controller is started less and less often.
async fn assert_no_hot_loop(agent: &Agent) {
    let starts = || agent.log().matches("controller started").count();
    let (before, from) = (starts(), Instant::now());
    until("a few seconds of restarts are over", || async {
        assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n", "apps go on");
        if from.elapsed() > Duration::from_secs(2) { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let more = starts() - before;
    assert!(more <= 8, "{more} restarts in two seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_named_and_apps_go_on() {
    let mut agent = with_shop(Setup::new()).await;
    agent.until_done("shop").await;
    let ledger = StoppedLedger::of(&agent).await;
    let mut damaged = ledger.whole.clone();
    damaged[..100].fill(0x5a);
    ledger.replace(&damaged);
    let path = ledger.path.display().to_string();
    ledger.until_said(&agent, &["ledger", &path, "damaged", "backup"]).await;
    assert_no_hot_loop(&agent).await;
    // With the file restored, everything goes on as if nothing had been.
    ledger.replace(&ledger.whole);
    agent.until_up().await;
    assert_eq!(agent.app("shop").await.expect("the app").live_version, VersionNumber::new(1));
    agent.repo.app("shop", "goes on\n");
    agent.repo.push("goes on");
    let answer = agent.until_body("shop", "goes on\n").await;
    assert_eq!(answer.version, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_a_newer_landfall_is_named_and_apps_go_on() {
    let agent = with_shop(Setup::new()).await;
    agent.until_done("shop").await;
    let ledger = StoppedLedger::of(&agent).await;
    let number = |number: Option<i64>| {
        let connection = rusqlite::Connection::open(&ledger.path).expect("the ledger");
        connection.busy_timeout(DEADLINE).expect("a timeout");
        match number {
            Some(number) => connection.pragma_update(None, "user_version", number).map(|()| number),
            None => connection.query_row("PRAGMA user_version", [], |row| row.get(0)),
        }
        .expect("the number of its schema")
    };
    let own = number(None);
    number(Some(999));
    ledger.until_said(&agent, &["ledger", "999", "newer Landfall", "backup"]).await;
    assert_no_hot_loop(&agent).await;
    number(Some(own));
    agent.until_up().await;
    assert_eq!(agent.app("shop").await.expect("the app").live_version, VersionNumber::new(1));
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_the_configuration_is_shown_and_nothing_is_started() {
    let root = tempfile::tempdir().expect("a directory");
    let broken = format!(
        "data_dir: {}\nproxi: {{listen: []}}\nlimits: {{builds: many}}\nsources: [{{name: fleet}}]\n",
        root.path().join("data").display()
    );
    let output = run_agent(root.path(), &broken);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_words(
        &said(&output),
        &["other.yaml:2:", "`proxi`", "`proxy`", "other.yaml:3:", "many", "other.yaml:4:", "`directory`"],
    );
    assert!(!root.path().join("data").exists(), "nothing was started");
}

/// A small file system of its own, gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let size = Some("size=32m,mode=0700");
        match nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), size) {
            Ok(()) => Some(Self(at.to_owned())),
            Err(error) => {
                eprintln!("skipped: a disk to fill cannot be mounted here ({error}); that needs root");
                None
            }
        }
    }

    /// Takes all the room there is left.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        for size in [1 << 16, 1 << 12, 1] {
            while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_apps_go_on_and_nothing_is_lost() {
    let setup = Setup::new();
    let Some(disk) = SmallDisk::mount(&setup.dir.path().join("data")) else { return };
    let mut agent = with_shop(setup).await;
    // Detached before the agent's directory is removed.
    let disk = disk;
    agent.until_done("shop").await;
    let filler = disk.fill();
    agent.repo.app("shop", "second\n");
    agent.repo.push("no room for this");
    let error = source_error(&agent, "fleet").await;
    assert_words(&error, &["full", "free"]);
    let problems = agent.client.status().await.expect("status").problems;
    assert!(problems.iter().any(|problem| problem.contains("nearly full")), "{problems:#?}");
    let refused = agent.client.rollover(None, &"shop".parse().expect("a name"), &api::ReasonRequest::default()).await;
    let refused = refused.expect_err("nothing can be recorded");
    assert_words(&refused.to_string(), &["full"]);
    assert_words(&refused.mend(), &["free space"]);
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "good\n");
    std::fs::remove_file(filler).expect("room again");
    agent.client.sync(&"fleet".parse().expect("a name")).await.expect("a look");
    let answer = agent.until_body("shop", "second\n").await;
    assert_eq!(answer.version, Some(2), "nothing was recorded while there was no room");
    agent.stop();
}
