//! How remotes are polled: together, politely, and without ever being given up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use landfall::client::ClientError;
use landfall::domain::SourceName;
use landfall::wire::api;

use crate::support::forge::{Forge, Mood};
use crate::support::{Agent, Setup, until};

fn name(name: &str) -> SourceName {
    name.parse().expect("a name")
}

async fn until_source(agent: &Agent, source: &str, what: &str, holds: impl Fn(&api::Source) -> bool) -> api::Source {
    until(&format!("source {source}: {what}"), || async {
        match agent.client.source(&name(source)).await {
            Ok(found) if holds(&found) => Ok(found),
            Ok(found) => Err(format!("{found:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// An agent whose source `fleet` follows its repository on a forge.
async fn on_a_forge(poll: &str) -> Option<(Agent, Forge)> {
    let mut setup = Setup::new();
    let forge = Forge::serve(setup.dir.path())?;
    let url = forge.url("127.0.0.1", "fleet.git");
    setup.sources =
        Some(format!("sources:\n  - {{name: fleet, git: {{url: \"{url}\", branch: main, poll: {poll}}}}}\n"));
    setup.repo.app("shop", "first\n");
    setup.repo.push("first");
    let agent = setup.start().await;
    agent.until_body("shop", "first\n").await;
    Some((agent, forge))
}

/// Every file of a directory with its length and times.
fn files(root: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let about = std::fs::symlink_metadata(&path).expect("a file");
        if about.is_dir() {
            todo.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else {
            found.insert(path, (about.len(), about.modified().expect("a time")));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_one_remote_share_one_listing_and_finding_nothing_writes_nothing() {
    let mut setup = Setup::new();
    let Some(forge) = Forge::serve(setup.dir.path()) else { return };
    let url = forge.url("127.0.0.1", "fleet.git");
    let source =
        |name: &str| format!("  - {{name: {name}, git: {{url: \"{url}\", branch: main, path: {name}, poll: 1s}}}}\n");
    setup.sources = Some(format!("sources:\n{}{}{}", source("shop"), source("blog"), source("docs")));
    for app in ["shop", "blog", "docs"] {
        setup.repo.app(app, "first\n");
    }
    setup.repo.push("first");
    let mut agent = setup.start().await;
    for app in ["shop", "blog", "docs"] {
        agent.until_body(app, "first\n").await;
        agent.until_done(app).await;
    }
    // A whole poll in which nothing is new any more …
    forge.until_listings(forge.listings().len() + 2).await;
    let ledger = || {
        let all = files(&agent.root.join("data"));
        all.into_iter()
            .filter(|(path, _)| {
                let path = path.to_string_lossy();
                path.contains("/ledger.db") || path.contains("/cache/") || path.contains("/store.git/")
            })
            .filter(|(path, _)| !path.ends_with("ledger.db-shm"))
            .collect::<BTreeMap<_, _>>()
    };
    let (before, requests) = (ledger(), forge.requests());
    let listings = forge.listings().len();
    forge.until_listings(listings + 5).await;
    let seen = forge.listings();
    // … is one request, for all three together, and no file is written.
    assert_eq!(forge.requests() - requests, (seen.len() - listings) as u64, "{seen:?}");
    for pair in seen[listings - 1..].windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart >= Duration::from_millis(850), "two listings {apart:?} apart, with `poll: 1s`");
    }
    assert_eq!(ledger(), before);
    // Each still finds what is new for it.
    agent.repo.app("blog", "second\n");
    agent.repo.push("second");
    agent.until_body("blog", "second\n").await;
    let shop = until_source(&agent, "shop", "it has seen the commit as well", |source| {
        source.revision.is_some() && source.error.is_none()
    })
    .await;
    assert_eq!(shop.apps, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_remote_is_asked_ever_more_rarely_and_a_sync_asks_it_at_once() {
    let Some((mut agent, forge)) = on_a_forge("1s").await else { return };
    forge.mood(Mood::Says("503 Service Unavailable", ""));
    let source = until_source(&agent, "fleet", "it fails", |source| source.error.is_some()).await;
    let kind = source.error_kind.as_deref();
    assert!(matches!(kind, Some("server" | "rate-limited")), "{source:?}");
    // Four more tries: 1, 2, 4 seconds apart, each a tenth more or less.
    let first = forge.listings().len();
    forge.until_listings(first + 3).await;
    let seen = forge.listings();
    let tries: Vec<Duration> = seen[first - 1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(tries[1] > tries[0] && tries[2] > tries[1], "{tries:?}");
    // Whoever asks is not made to wait for that.
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    forge.mood(Mood::Well);
    let source = agent.client.sync(&name("fleet")).await.expect("a look");
    assert_eq!((source.error, source.error_kind), (None, None));
    agent.until_body("shop", "second\n").await;
    // And the rhythm is the usual one again.
    let listings = forge.listings().len();
    forge.until_listings(listings + 3).await;
    let events = agent.client.events(0, 1000).await.expect("events");
    let told: Vec<&str> =
        events.iter().map(|event| event.event.kind.as_str()).filter(|kind| kind.starts_with("source.")).collect();
    assert_eq!(told, ["source.failing", "source.recovered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_names_a_pause_gets_it() {
    let Some((mut agent, forge)) = on_a_forge("1s").await else { return };
    forge.mood(Mood::Says("429 Too Many Requests", "Retry-After: 8\r\n"));
    let source = until_source(&agent, "fleet", "it is limited", |source| source.error.is_some()).await;
    assert_eq!(source.error_kind.as_deref(), Some("rate-limited"), "{source:?}");
    forge.mood(Mood::Well);
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    let refused = *forge.listings().last().expect("a listing");
    let listings = forge.listings().len();
    forge.until_listings(listings + 1).await;
    let apart = forge.listings()[listings] - refused;
    assert!(apart >= Duration::from_millis(7500), "asked again after {apart:?}");
    agent.until_body("shop", "second\n").await;
    until_source(&agent, "fleet", "all is well", |source| source.error.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_slows_no_other() {
    let mut setup = Setup::new();
    let (Some(hanging), Some(well)) = (Forge::serve(setup.dir.path()), Forge::serve(setup.dir.path())) else { return };
    hanging.mood(Mood::Hangs);
    // More sources than a host has turns, each of its own remote.
    let mut sources = String::from("sources:\n");
    for number in 0..20 {
        let url = hanging.url("localhost", &format!("hanging-{number}.git"));
        sources += &format!("  - {{name: hanging-{number}, git: {{url: \"{url}\", poll: 1s, timeout: 20s}}}}\n");
    }
    let url = well.url("127.0.0.1", "fleet.git");
    sources += &format!("  - {{name: fleet, git: {{url: \"{url}\", branch: main, poll: 1s}}}}\n");
    setup.sources = Some(sources);
    setup.repo.app("shop", "first\n");
    setup.repo.push("first");
    let mut agent = setup.start().await;
    agent.until_body("shop", "first\n").await;
    let pushed = Instant::now();
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    agent.until_body("shop", "second\n").await;
    assert!(pushed.elapsed() < Duration::from_secs(15), "took {:?}", pushed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_source_is_not_looked_at_until_it_is_resumed_also_over_a_restart() {
    let Some((mut agent, forge)) = on_a_forge("1s").await else { return };
    let request = api::SuspendRequest { reason: Some("the forge moves".into()), until: None };
    let source = agent.client.suspend_source(&name("fleet"), &request).await.expect("suspended");
    let suspension = source.suspension.expect("a suspension");
    assert_eq!((suspension.reason.as_str(), source.next_look_at), ("the forge moves", None));
    let listings = forge.listings().len();
    agent.repo.app("shop", "second\n");
    agent.repo.push("second");
    let refused = agent.client.sync(&name("fleet")).await.expect_err("refused");
    let ClientError::Problem(problem) = &refused else { panic!("{refused:?}") };
    assert_eq!(problem.status, 409, "{problem:?}");
    assert!(problem.title.contains("the forge moves"), "{problem:?}");
    assert!(problem.mend.contains("landfall source resume fleet"), "{problem:?}");

    // Neither the controller that comes after a crash nor the agent's next start looks at it.
    let controller = agent.kill_controller().await;
    agent.until_new_controller(controller).await;
    agent.kill();
    agent.launch();
    agent.until_up().await;
    agent.until_body("shop", "first\n").await;
    let source = until_source(&agent, "fleet", "it is still suspended", |source| source.suspension.is_some()).await;
    let kept = source.suspension.expect("the suspension");
    assert_eq!((kept.reason, kept.actor), (suspension.reason, suspension.actor));
    assert_eq!(forge.listings().len(), listings, "it was looked at");

    agent.client.resume_source(&name("fleet")).await.expect("resumed");
    agent.until_body("shop", "second\n").await;
    let again = agent.client.resume_source(&name("fleet")).await.expect_err("there is nothing to resume");
    assert!(again.to_string().contains("not suspended"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_ends_by_itself_at_its_time() {
    let mut agent = Agent::start().await;
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let request = api::SuspendRequest { reason: None, until: Some(until) };
    agent.client.suspend_source(&name("fleet"), &request).await.expect("suspended");
    agent.repo.app("shop", "first\n");
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    assert!(jiff::Timestamp::now() >= until);
    let source = agent.client.source(&name("fleet")).await.expect("the source");
    assert_eq!(source.suspension, None);
    let events = agent.client.events(0, 1000).await.expect("events");
    let told: Vec<&str> = events
        .iter()
        .filter(|event| event.event.source.as_ref().is_some_and(|source| source.as_str() == "fleet"))
        .map(|event| event.event.kind.as_str())
        .filter(|kind| !kind.starts_with("source."))
        .collect();
    assert_eq!(told, ["suspended", "resumed"]);
}
