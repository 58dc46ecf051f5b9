//! Compose projects of apps that are not live, when nobody looks after them any more.
//!
//! What looks after a project takes it down when its app is stopped or its version is given up. It cannot where it was not
//! there to be told: it had ended by an error and waited to be started again, was killed, or the machine went down. So
//! whenever an app is stopped, a deployment ends without a live version, or a controller begins, what is left of the project
//! is removed. When the agent ends, so is that of every app.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::reconciler::Reconciler;
use super::records::AppEntry;
use super::spec::compose_directories;
use crate::domain::AppKey;
use crate::runtime::docker::Docker;
use crate::runtime::docker::compose::NotTakenDown;

/// When the agent ends, whoever looks after a project is looked at this often until it has taken that down.
const ENDING: Duration = Duration::from_millis(250);
/// A project that could not be taken down is looked at again after this long.
const AGAIN: Duration = Duration::from_secs(30);

/// Apps whose project may still be there although nothing of them is live.
#[derive(Debug, Default)]
pub(super) struct Leftovers(BTreeMap<AppKey, Look>);

#[derive(Debug)]
enum Look {
    /// From then on.
    Due { at: Instant, told: bool },
    /// Under way.
    Looking(JoinHandle<Result<usize, NotTakenDown>>, bool),
}

impl Leftovers {
    /// What an earlier controller may not have come to.
    pub(super) fn of(apps: &BTreeMap<AppKey, AppEntry>) -> Self {
        let mut leftovers = Self::default();
        apps.iter().filter(|(_, entry)| !is_live(entry)).for_each(|(key, _)| leftovers.look_at(key.clone()));
        leftovers
    }

    /// This app has been stopped, or a deployment of it has ended.
    pub(super) fn look_at(&mut self, key: AppKey) {
        self.0.entry(key).or_insert_with(|| Look::Due { at: Instant::now(), told: false });
    }
}

fn is_live(entry: &AppEntry) -> bool {
    entry.recorded.app.live.is_some()
}

/// No deployment is to make the app live, or has yet to undo what it began.
fn is_idle(entry: &AppEntry) -> bool {
    entry.running.is_none() && entry.waiting.is_none() && entry.left_open.is_none()
}

/// Looks at those that are due and have no instance any more. Called every second; does nothing most of the time.
pub(super) async fn on_tick(reconciler: &mut Reconciler) {
    for (key, look) in std::mem::take(&mut reconciler.leftovers.0) {
        if let Some(next) = go_on(reconciler, &key, look).await {
            reconciler.leftovers.0.insert(key, next);
        }
    }
}

/// What is next for an app; `None` when it is settled.
async fn go_on(reconciler: &Reconciler, key: &AppKey, look: Look) -> Option<Look> {
    match look {
        Look::Looking(task, told) if !task.is_finished() => Some(Look::Looking(task, told)),
        Look::Looking(task, told) => {
            match task.await.unwrap_or_else(|error| Err(NotTakenDown::Trouble(error.to_string()))) {
                Ok(0) => None,
                Ok(containers) => {
                    info!(app = %key, containers, "what was left of its Compose project is removed");
                    None
                }
                Err(error) => {
                    if !told {
                        warn!(app = %key, %error, "the Compose project of an app that is not live cannot be taken down yet; it is tried again");
                    }
                    Some(Look::Due { at: Instant::now() + AGAIN, told: true })
                }
            }
        }
        Look::Due { at, told } => {
            let entry = reconciler.apps.get(key);
            // An app that runs again looks after its own.
            if entry.is_some_and(is_live) {
                return None;
            }
            let directory = reconciler.tools.around.compose_directory(key);
            if !tokio::fs::try_exists(&directory).await.unwrap_or(false) {
                return None;
            }
            let waits = at > Instant::now() || !entry.is_none_or(is_idle);
            if waits || !reconciler.tools.fleet.running(key.clone()).await.is_empty() {
                return Some(Look::Due { at, told });
            }
            let (docker, key) = (reconciler.tools.runtime.docker().clone(), key.clone());
            let task = tokio::spawn(async move { docker.take_down(&key, &directory).await });
            Some(Look::Looking(task, told))
        }
    }
}

/// The agent ends, and with it every project: those that somebody looks after by whoever does, which is awaited, the others
/// here. Whoever calls this decides how long it may take.
pub async fn end_projects(data_dir: &Path, docker: &Docker) {
    let data_dir = data_dir.to_owned();
    let projects = tokio::task::spawn_blocking(move || compose_directories(&data_dir)).await.unwrap_or_default();
    join_all(projects.into_iter().map(|(key, directory)| end(docker, key, directory))).await;
}

async fn end(docker: &Docker, key: AppKey, directory: PathBuf) {
    loop {
        match docker.take_down(&key, &directory).await {
            Ok(0) => return,
            Ok(containers) => {
                return info!(app = %key, containers, "a Compose project that nobody looked after is taken down");
            }
            Err(NotTakenDown::LookedAfter) => tokio::time::sleep(ENDING).await,
            Err(error) => return warn!(app = %key, %error, "a Compose project cannot be taken down"),
        }
    }
}
