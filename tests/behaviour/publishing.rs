//! Apps that are published instead of run: a link to the tree of the live version, for programs that Landfall does not run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use landfall::domain::DeploymentOutcome;
use landfall::wire::api;

use crate::support::asking::back_to;
use crate::support::receiver::Receiver;
use crate::support::{Agent, Setup, number_from, until};

/// Files of a tree; all say the same.
const FILES: usize = 40;

/// An agent that lets apps publish below `www`.
async fn agent() -> Agent {
    let mut setup = Setup::new();
    setup.more = format!("publish_roots: [{}]\n", setup.dir.path().join("www").display());
    setup.start().await
}

fn link(agent: &Agent) -> PathBuf {
    agent.root.join("www/current")
}

/// Pushes a tree that says `words`, published with these further keys.
fn push(agent: &mut Agent, words: &str, more: &str) -> String {
    let path = link(agent).display().to_string();
    agent.repo.write("site/landfall.yaml", format!("app: site\nbake: 0s\npublish:\n  path: {path}\n{more}"));
    for file in 0..FILES {
        agent.repo.write(&format!("site/f{file}.txt"), words);
    }
    agent.repo.push(words)
}

/// The last part of the link.
fn leaf(agent: &Agent) -> Option<String> {
    Some(std::fs::read_link(link(agent)).ok()?.file_name()?.to_string_lossy().into_owned())
}

fn words(agent: &Agent) -> String {
    std::fs::read_to_string(link(agent).join("f0.txt")).expect("a published file")
}

async fn until_leaf(agent: &Agent, commit: &str) {
    until(&format!("{commit} is published"), || async {
        let now = leaf(agent);
        if now.as_deref() == Some(commit) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

async fn until_version(agent: &Agent, version: u32) -> api::Deployment {
    until(&format!("the deployment of version {version} is over"), || async {
        let last = agent.until_done("site").await;
        if last.version.get() == version { Ok(last) } else { Err(format!("{last:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_checked_published_and_told_and_an_earlier_version_comes_back() {
    let receiver = Receiver::start().await;
    let mut agent = agent().await;
    let more = format!(
        "  check: {{command: [sh, -c, \"grep -q good f0.txt && test -n \\\"$LANDFALL_COMMIT\\\"\"]}}\n  reload: {{url: \"http://{}/reload\"}}\n",
        receiver.address
    );
    let first = push(&mut agent, "good one", &more);
    until_leaf(&agent, &first).await;
    assert_eq!(until_version(&agent, 1).await.outcome, Some(DeploymentOutcome::Succeeded));
    assert_eq!(words(&agent), "good one");
    assert!(std::fs::read_link(link(&agent)).expect("a link").is_relative());

    push(&mut agent, "bad", &more);
    let failed = until_version(&agent, 2).await;
    let failure = failed.failure.expect("why it failed");
    assert_eq!((failed.outcome, &*failure.code), (Some(DeploymentOutcome::Failed), "check_failed"));
    assert_eq!((leaf(&agent), words(&agent)), (Some(first.clone()), "good one".to_owned()));

    let third = push(&mut agent, "good three", &more);
    until_leaf(&agent, &third).await;
    until_version(&agent, 3).await;
    agent.rollback("site", back_to(None)).await;
    until_leaf(&agent, &first).await;
    assert_eq!(words(&agent), "good one");
    until("the readers were told three times", || async {
        let told: Vec<_> = receiver.taken().iter().map(|request| request.body["commit"].clone()).collect();
        if told == [&*first, &*third, &*first] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let request = &receiver.taken()[1];
    assert_eq!(
        (&request.body["app"], &request.body["path"]),
        (&"site".into(), &link(&agent).display().to_string().into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_readers_cannot_be_told_is_rolled_back() {
    let mut agent = agent().await;
    let more = "  reload: {command: [sh, -c, \"echo told; test $LANDFALL_VERSION != 2\"], timeout: 2s}\n";
    let first = push(&mut agent, "one", more);
    until_leaf(&agent, &first).await;
    until_version(&agent, 1).await;
    push(&mut agent, "two", more);
    until("version 2 is rolled back, by a third with the content of the first", || async {
        let app = agent.app("site").await?;
        let live = app.live_version.map(|version| version.get());
        if live == Some(3) && leaf(&agent).as_deref() == Some(&*first) && app.hold.is_some() {
            Ok(())
        } else {
            Err(format!("{:?} {live:?}", leaf(&agent)))
        }
    })
    .await;
    assert_eq!(words(&agent), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_a_signal_by_the_file_with_their_number() {
    let mut agent = agent().await;
    let mut reader = std::process::Command::new("sleep").arg("600").spawn().expect("a reader");
    let file = agent.root.join("reader.pid");
    std::fs::write(&file, reader.id().to_string()).expect("its number");
    push(&mut agent, "one", &format!("  reload: {{signal: HUP, pid_file: {}}}\n", file.display()));
    assert_eq!(until_version(&agent, 1).await.outcome, Some(DeploymentOutcome::Succeeded));
    let ended = reader.wait().expect("it has ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_where_the_operator_has_not_allowed_it() {
    let mut agent = agent().await;
    let elsewhere = agent.root.join("elsewhere/current");
    let manifest = format!("app: site\nbake: 0s\npublish: {{path: {}}}\n", elsewhere.display());
    agent.repo.write("site/landfall.yaml", manifest).push("elsewhere");
    let failure = until_version(&agent, 1).await.failure.expect("why it failed");
    assert_eq!(failure.code, "publish_refused");
    assert!(failure.message.contains("publish_roots"), "{}", failure.message);
    assert!(!elsewhere.exists() && !elsewhere.parent().expect("a directory").exists());
}

/// Looks at what is published, over and over, as a program would: by the link, and file by file.
struct Reader {
    looks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

impl Reader {
    fn start(link: PathBuf) -> Self {
        let (looks, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&looks), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look(&link)?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { looks, stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the reader").expect("a whole tree at every look");
        self.looks.load(Ordering::Relaxed)
    }
}

/// One look: the tree the link points to now is whole, and all of one version.
fn look(link: &std::path::Path) -> Result<(), String> {
    let dir = link.canonicalize().map_err(|error| format!("the link: {error}"))?;
    let names = std::fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?.count();
    if names != FILES + 1 {
        return Err(format!("{} has {names} files", dir.display()));
    }
    let read = |file: usize| {
        let path = dir.join(format!("f{file}.txt"));
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let first = read(0)?;
    for file in 1..FILES {
        let other = read(file)?;
        if other != first {
            return Err(format!("{} says {other:?} beside {first:?}", dir.display()));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_a_whole_tree_at_every_moment_whatever_is_killed() {
    let kills = number_from("LANDFALL_TEST_KILLS", 10);
    let mut agent = agent().await;
    let more = "  keep: 1\n  check: {command: [\"true\"]}\n  reload: {command: [\"true\"], timeout: 20s}\n";
    let mut last = push(&mut agent, "version 0", more);
    until_leaf(&agent, &last).await;
    let reader = Reader::start(link(&agent));
    let mut random = fastrand::Rng::with_seed(7);
    for number in 1..=kills {
        last = push(&mut agent, &format!("version {number}"), more);
        // Somewhere between the push and a little after the switch: each step is met by one of many runs.
        tokio::time::sleep(Duration::from_millis(random.u64(0..250))).await;
        if number % 5 == 0 {
            agent.kill();
            agent.launch();
            agent.until_up().await;
        } else {
            let killed = agent.kill_controller().await;
            agent.until_new_controller(killed).await;
        }
        if number % 4 == 0 {
            until_leaf(&agent, &last).await;
        }
    }
    until_leaf(&agent, &last).await;
    agent.until_done("site").await;
    let looks = reader.stop();
    assert!(looks > 100, "the reader looked {looks} times");
    println!("{kills} kills, {looks} looks at a published tree");
    // Nothing half done is left once a deployment has come to its end.
    let trees = agent.root.join("www/.current.landfall");
    let leftovers = || {
        let entries = std::fs::read_dir(&trees).expect("the trees").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".part") || name.ends_with(".gone")).collect::<Vec<_>>()
    };
    last = push(&mut agent, "the last one", more);
    until_leaf(&agent, &last).await;
    until("nothing half done is left", || async {
        let left = leftovers();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
