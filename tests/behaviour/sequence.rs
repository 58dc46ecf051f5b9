//! Generated sequences of everything that may happen to an app, against a small model of what should come of it:
//!
//! `desired(app) = hold(app) ? ledger[hold.version] : newest content from git that is not quarantined`
//!
//! After every step the agent and the model agree on the versions, the live one, the hold and the quarantine.
//! `LANDFALL_TEST_SEQUENCES` sets how many sequences are run, `LANDFALL_TEST_SEED` (a number, or `random`) which; without
//! it they are the same every time.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::asking::{back_to, manifest};
use crate::support::{Agent, Setup, number_from, send_signal, until};

const APP: &str = "shop";

/// What the app's directory may hold. Few, so that git goes back to what was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Good(u8),
    /// Fails before its switch.
    Bad(u8),
    /// Becomes live, then fails.
    Failing(u8),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Push(Content),
    ForcePush(Content),
    /// The controller is killed while it deals with the push.
    PushAndKill(Content),
    PushOther,
    Rollback,
    RollbackTo(u32),
    Release {
        force: bool,
    },
    RemoteGone,
    RemoteBack,
    Kill,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    content: Content,
    healthy: bool,
}

/// What should come of it. Versions are numbered from 1.
#[derive(Debug, Default)]
struct Model {
    git: Option<Content>,
    versions: Vec<Version>,
    live: Option<usize>,
    /// The held version, and what git asked for when the hold was made.
    hold: Option<(usize, Option<Content>)>,
    quarantine: BTreeSet<Content>,
    /// The newest content that was deployed for its own sake, if that failed.
    failed: Option<Content>,
}

impl Model {
    fn content(&self, version: usize) -> Content {
        self.versions[version - 1].content
    }

    fn live_content(&self) -> Option<Content> {
        self.live.map(|live| self.content(live))
    }

    fn push(&mut self, content: Content) {
        self.git = Some(content);
        self.settle();
    }

    /// Does what git asks for, as far as it may be done.
    fn settle(&mut self) {
        let Some(git) = self.git else { return };
        if let Some((held, over)) = self.hold {
            if self.content(held) == git {
                self.hold = None;
            } else if !self.quarantine.contains(&git) && over != Some(git) {
                self.deploy(git);
            }
        } else if self.live_content() != Some(git) && !self.quarantine.contains(&git) && self.failed != Some(git) {
            self.deploy(git);
        }
    }

    fn deploy(&mut self, content: Content) {
        self.hold = None;
        self.quarantine.remove(&content);
        self.versions.push(Version { content, healthy: matches!(content, Content::Good(_)) });
        self.failed = matches!(content, Content::Bad(_)).then_some(content);
        match content {
            Content::Bad(_) => {}
            Content::Good(_) => self.live = Some(self.versions.len()),
            Content::Failing(_) => {
                self.live = Some(self.versions.len());
                if let Some(target) = self.earlier() {
                    self.bring_back(target);
                }
            }
        }
    }

    /// The newest earlier version that was healthy and is of other content than what is live, not quarantined.
    fn earlier(&self) -> Option<usize> {
        let live = self.live?;
        (1..live).rev().find(|version| {
            let content = self.content(*version);
            self.versions[version - 1].healthy && content != self.content(live) && !self.quarantine.contains(&content)
        })
    }

    fn bring_back(&mut self, target: usize) {
        let content = self.content(target);
        self.quarantine.extend(self.live_content().filter(|live| *live != content));
        self.quarantine.remove(&content);
        let healthy = matches!(content, Content::Good(_));
        self.versions.push(Version { content, healthy });
        let version = self.versions.len();
        match content {
            // What is live stays, held unless git asks for it, or for what has just failed: then the hold had ended
            // as soon as it was made.
            Content::Bad(_) => {
                let follows_git = self.git == Some(content) || self.git == self.live_content();
                self.hold = self.live.filter(|_| !follows_git).map(|live| (live, self.git));
            }
            Content::Good(_) | Content::Failing(_) => {
                self.live = Some(version);
                self.hold = Some((version, self.git));
            }
        }
        self.settle();
    }

    /// Whether it is done.
    fn rollback(&mut self) -> bool {
        let target = self.earlier();
        target.inspect(|target| self.bring_back(*target)).is_some()
    }

    fn rollback_to(&mut self, target: usize) -> bool {
        let known = (1..=self.versions.len()).contains(&target);
        let done = known && self.live_content() != Some(self.content(target));
        if done {
            self.bring_back(target);
        }
        done
    }

    fn release(&mut self, force: bool) -> bool {
        let Some(git) = self.git else { return false };
        let runs_already = self.live_content() == Some(git);
        let blocked = self.quarantine.contains(&git) || self.failed == Some(git);
        let start = !runs_already && (force || !blocked);
        if start {
            self.deploy(git);
        }
        let done = start || runs_already || self.hold.is_some();
        if !start {
            self.hold = None;
        }
        self.settle();
        done
    }
}

/// The agent, its repository and what is expected of them.
struct Play {
    agent: Agent,
    model: Model,
    other: u32,
    remote: bool,
}

impl Play {
    async fn start() -> Self {
        let mut setup = Setup::new();
        // The model forgets nothing, so neither may the agent: a step can make two versions.
        setup.more = "retention: {versions: 1000}\n".into();
        let agent = setup.start().await;
        let mut play = Self { agent, model: Model::default(), other: 0, remote: true };
        play.agent.repo.app("other", "0");
        play.step(Step::Push(Content::Good(0))).await;
        play
    }

    fn write(&mut self, content: Content) {
        let (arguments, bake, text): (&[&str], _, _) = match content {
            Content::Good(n) => (&["serve"], "100ms", n),
            Content::Bad(n) => (&["exit", "1", "bad"], "100ms", n),
            // Long enough that it fails within, however busy the machine is.
            Content::Failing(n) => (&["serve-flapping"], "60s", n),
        };
        let manifest = manifest(APP, arguments, bake, "");
        self.agent.repo.write("shop/landfall.yaml", manifest).write("shop/content.txt", text.to_string());
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Push(content) | Step::ForcePush(content) | Step::PushAndKill(content) => {
                if !self.remote {
                    return;
                }
                self.write(content);
                match step {
                    Step::ForcePush(_) => self.agent.repo.force_push("force"),
                    _ => self.agent.repo.push("push"),
                };
                if matches!(step, Step::PushAndKill(_)) {
                    self.kill().await;
                }
                self.model.push(content);
            }
            Step::PushOther => {
                if !self.remote {
                    return;
                }
                self.other += 1;
                self.agent.repo.app("other", &self.other.to_string());
                self.agent.repo.push("other");
            }
            Step::Rollback => {
                let done = self.agent.client.rollback(None, &APP.parse().expect("a name"), &back_to(None)).await;
                assert_eq!(done.is_ok(), self.model.rollback(), "{done:?}");
            }
            Step::RollbackTo(version) => {
                let request = back_to(Some(version));
                let done = self.agent.client.rollback(None, &APP.parse().expect("a name"), &request).await;
                assert_eq!(done.is_ok(), self.model.rollback_to(version as usize), "{done:?}");
            }
            Step::Release { force } => {
                let done = self.agent.release(APP, force).await;
                assert_eq!(done.is_ok(), self.model.release(force), "{done:?}");
            }
            Step::RemoteGone if self.remote => self.move_remote(),
            Step::RemoteBack if !self.remote => self.move_remote(),
            Step::RemoteGone | Step::RemoteBack => return,
            Step::Kill => self.kill().await,
        }
        self.agent.rest(&[APP, "other"]).await;
        self.compare().await;
    }

    fn move_remote(&mut self) {
        let (here, away) = (self.agent.repo.path().to_owned(), self.agent.root.join("away.git"));
        let (from, to) = if self.remote { (here, away) } else { (away, here) };
        std::fs::rename(from, to).expect("the repository moves");
        self.remote = !self.remote;
    }

    async fn kill(&mut self) {
        let before = self.agent.controller_pid().await;
        send_signal(before, Signal::SIGKILL);
        let client = &self.agent.client;
        until("another controller answers", || async {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let now = status.processes.controller.pid;
            if now == before { Err(format!("still {now}")) } else { Ok(()) }
        })
        .await;
    }

    async fn compare(&self) {
        let (agent, model) = (&self.agent, &self.model);
        let (live, newest) = agent.live_and_newest(APP).await;
        let expected = model.live.map(|live| u32::try_from(live).expect("few"));
        assert_eq!((live, newest as usize), (expected, model.versions.len()), "live and newest version");
        let hold = agent.shown(APP).await.hold.map(|hold| hold.version.get() as usize);
        assert_eq!(hold, model.hold.map(|(version, _)| version), "the held version");
        for version in agent.versions(APP).await {
            let content = model.content(version.version.get() as usize);
            let expected = model.quarantine.contains(&content);
            assert_eq!(version.quarantined, expected, "quarantine of {} ({content:?})", version.version);
        }
        if let Some(Content::Good(n)) = model.live_content() {
            assert_eq!(agent.get(APP, "/").await.expect("an answer").body, n.to_string(), "what is served");
        }
        let other = agent.get("other", "/").await.expect("an answer");
        assert_eq!(other.body, self.other.to_string(), "the other app");
    }
}

fn contents() -> impl Strategy<Value = Content> {
    prop_oneof![
        4 => (0..4_u8).prop_map(Content::Good),
        1 => (0..2_u8).prop_map(Content::Bad),
        2 => (0..2_u8).prop_map(Content::Failing),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => contents().prop_map(Step::Push),
        1 => contents().prop_map(Step::ForcePush),
        2 => contents().prop_map(Step::PushAndKill),
        1 => Just(Step::PushOther),
        3 => Just(Step::Rollback),
        2 => (1..8_u32).prop_map(Step::RollbackTo),
        3 => proptest::bool::ANY.prop_map(|force| Step::Release { force }),
        1 => Just(Step::RemoteGone),
        2 => Just(Step::RemoteBack),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 12..18)
}

fn runner(config: Config) -> TestRunner {
    if std::env::var("LANDFALL_TEST_SEED").as_deref() == Ok("random") {
        return TestRunner::new(config);
    }
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number_from("LANDFALL_TEST_SEED", 0).to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

#[test]
fn whatever_happens_the_same_content_is_live_as_in_the_model() {
    let cases = number_from("LANDFALL_TEST_SEQUENCES", 6);
    let config = Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let played = runner(config).run(&steps(), |steps| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut play = Play::start().await;
            for (number, step) in steps.iter().enumerate() {
                println!("{number}: {step:?}; {:?}", play.model);
                play.step(*step).await;
            }
        });
        Ok(())
    });
    played.unwrap_or_else(|error| panic!("{error}"));
}
