//! Apps that are published instead of run: their part of a deployment.
//!
//! ```text
//! laid on the shelf ─► checked ─► (switch recorded) ─► linked to ─► readers told ─► older trees tidied away
//! ```
//!
//! Every step may be done again: after a crash the deployment is driven on from its recorded phase, and each start of a
//! controller makes the link what the record says. Until the switch is recorded only a tree that nobody links to has
//! come; a version whose readers cannot be told is rolled back, so that they and the link stay of one mind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::deployer::{Run, Step, Stop};
use super::failures;
use super::scheduler::ping_client;
use super::spec::{Surroundings, VersionSpec};
use crate::domain::publish::{How, Publish, Reload, Target};
use crate::domain::{AppKey, ContentId, Failure, Phase};
use crate::store::{Laid, Shelf, StoreError};

/// The object under whose name check and reload write their log.
pub(super) const OBJECT: &str = "publish";
/// Pause before readers are told again.
const AGAIN: Duration = Duration::from_secs(1);

/// The place of an app's tree, if the operator lets apps publish there.
fn shelf(key: &AppKey, publish: &Publish, around: &Surroundings) -> Result<Shelf, Failure> {
    let path = Path::new(&publish.path);
    if !around.publish_roots.iter().any(|root| path.starts_with(root) && path != root) {
        let parent = path.parent().unwrap_or(path).display();
        let words = format!(
            "apps may not publish at {}: add `publish_roots: [{parent}]` to the agent's configuration, or publish below one that is there",
            publish.path
        );
        return Err(failures::publishing("publish_refused", Phase::Preparing, words));
    }
    Shelf::new(path, &key.to_string()).map_err(|error| failed(&error))
}

fn failed(error: &StoreError) -> Failure {
    failures::publishing("publish_failed", Phase::Starting, error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(error) => Err(failures::publishing("publish_failed", Phase::Starting, error.to_string())),
    }
}

/// What readers find as the last part of the link: the commit, else the content.
fn leaf(spec: &VersionSpec, content: &ContentId) -> String {
    spec.commit.as_ref().map_or_else(|| content.to_string(), ToString::to_string)
}

impl Run {
    /// Lays the tree behind the link and has it checked. Nobody sees it yet.
    pub(super) async fn lay(&self, spec: &VersionSpec) -> Result<(), Stop> {
        let Some(publish) = &spec.manifest.publish else { return Ok(()) };
        self.say("the tree is laid where it is to be published".to_owned()).await;
        let (_, laid) = self.laid(spec, publish).await?;
        let Some(check) = &publish.check else { return Ok(()) };
        self.say("the tree is checked".to_owned()).await;
        let step = Step { object: OBJECT, directory: laid.dir, command: check.command.clone() };
        self.step(spec, step, check.timeout.duration()).await?.map_err(|end| {
            let words = format!("the check of the tree failed: {end}; the tree before stays published");
            Stop::from(Failure {
                log_tail: end.log_tail,
                ..failures::publishing("check_failed", Phase::Starting, words)
            })
        })
    }

    async fn laid(&self, spec: &VersionSpec, publish: &Publish) -> Result<(Shelf, Laid), Failure> {
        let shelf = shelf(&spec.key, publish, &self.tools.around)?;
        let content = self.job.version.material.content.clone();
        let (leaf, from) = (leaf(spec, &content), spec.directory.clone());
        blocking(move || shelf.lay(&leaf, &content, &from).map(|laid| (shelf, laid))).await
    }

    /// Links to the tree of a version that is live by the record, and tells the readers. Answers what kept it from that.
    pub(super) async fn show(&self, spec: &VersionSpec) -> Result<Option<Failure>, Stop> {
        let Some(publish) = &spec.manifest.publish else { return Ok(None) };
        let shown = match self.laid(spec, publish).await {
            Ok((shelf, laid)) => {
                let at = Timestamp::now();
                blocking(move || shelf.switch(&laid, at).map(|changed| (changed, laid.dir))).await
            }
            Err(failure) => Err(failure),
        };
        let (changed, dir) = match shown {
            Ok(shown) => shown,
            Err(failure) => return Ok(Some(failure)),
        };
        info!(app = %spec.key, version = %spec.version, path = %publish.path, "published");
        match &publish.reload {
            // One that was driven on may have told them before; they can be told twice.
            Some(reload) if changed || self.job.from < Phase::Baking => self.reload(spec, publish, reload, dir).await,
            _ => Ok(None),
        }
    }

    async fn reload(
        &self,
        spec: &VersionSpec,
        publish: &Publish,
        reload: &Reload,
        dir: PathBuf,
    ) -> Result<Option<Failure>, Stop> {
        self.say("the readers of the tree are told".to_owned()).await;
        let deadline = Instant::now() + reload.timeout.duration();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (why, log_tail) = match &reload.how {
                How::Url(url) => match tell(url, spec, publish, left).await {
                    Ok(()) => return Ok(None),
                    Err(why) => (why, Vec::new()),
                },
                How::Command(_) | How::Signal { .. } => {
                    let command = command(&reload.how, &self.tools.around);
                    let step = Step { object: OBJECT, directory: dir.clone(), command };
                    match self.step(spec, step, left).await? {
                        Ok(()) => return Ok(None),
                        Err(end) => (end.to_string(), end.log_tail),
                    }
                }
            };
            if Instant::now() + AGAIN >= deadline {
                let words =
                    format!("the readers of {} could not be told within {}: {why}", publish.path, reload.timeout);
                let failure = failures::publishing("reload_failed", Phase::Baking, words);
                return Ok(Some(Failure { log_tail, ..failure }));
            }
            warn!(app = %spec.key, version = %spec.version, "readers of the published tree are told again: {why}");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Removes trees that nobody needs any more. Best effort: the next deployment tries again.
    pub(super) async fn tidy(&self, spec: &VersionSpec) {
        let Some(publish) = &spec.manifest.publish else { return };
        let Ok(shelf) = shelf(&spec.key, publish, &self.tools.around) else { return };
        let (keep, linger) = (usize::try_from(publish.keep).unwrap_or(usize::MAX), publish.linger.duration());
        if let Err(failure) = blocking(move || shelf.tidy(keep, linger, Timestamp::now())).await {
            warn!(app = %spec.key, "older published trees stay: {}", failure.message);
        }
    }
}

/// What is run as the app's user to tell readers.
fn command(how: &How, around: &Surroundings) -> Vec<String> {
    match how {
        How::Command(command) => command.clone(),
        How::Url(_) => Vec::new(),
        How::Signal { signal, to } => {
            let (option, who) = match to {
                Target::PidFile(file) => ("--pid-file", file),
                Target::Process(name) => ("--process", name),
            };
            let program = around.program.display().to_string();
            [program.as_str(), "internal-signal", signal.as_str(), option, who].map(str::to_owned).to_vec()
        }
    }
}

async fn tell(url: &str, spec: &VersionSpec, publish: &Publish, longest: Duration) -> Result<(), String> {
    let client = ping_client()?;
    let body = serde_json::json!({
        "app": spec.key.app,
        "environment": spec.key.environment,
        "version": spec.version,
        "commit": spec.commit,
        "path": publish.path,
    });
    let request = client.post(url).timeout(longest.max(Duration::from_millis(100)));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.map_err(|error| format!("{url}: {}", error.without_url()))?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("{url} answered {}", answer.status())) }
}

/// Makes the links of live versions what the record says they are: whoever was here may have died between the two.
pub(super) async fn repair(live: &[(Arc<VersionSpec>, ContentId)], around: &Surroundings) {
    for (spec, content) in live {
        let Some(publish) = &spec.manifest.publish else { continue };
        let shelf = match shelf(&spec.key, publish, around) {
            Ok(shelf) => shelf,
            Err(failure) => {
                error!(app = %spec.key, "its tree is not looked after: {}", failure.message);
                continue;
            }
        };
        let (leaf, content, from) = (leaf(spec, content), content.clone(), spec.directory.clone());
        let repaired = blocking(move || {
            let laid = shelf.lay(&leaf, &content, &from)?;
            shelf.switch(&laid, Timestamp::now())
        });
        match repaired.await {
            Ok(true) => warn!(app = %spec.key, version = %spec.version, path = %publish.path, "published again"),
            Ok(false) => {}
            Err(failure) => error!(app = %spec.key, "its tree cannot be published: {}", failure.message),
        }
    }
}
