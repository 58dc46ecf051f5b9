//! What is left of a project that nobody looks after any more goes: its containers and networks, never its volumes.
//!
//! The engine's own tool takes a project down; this is for what it leaves. A tool that was ended in the middle of its `up`
//! has requests under way at the engine, which come true after its `down` has looked; and a keeper that has ended by an
//! error, or was killed, takes nothing down at all.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptions, ListNetworksOptions, RemoveContainerOptions, StopContainerOptions,
};
use futures_util::future::join_all;

use super::super::connection::{self, status};
use super::super::inspect::list;
use super::super::{Docker, names};
use super::seen::PROJECT;
use super::turns::{Turn, Turns};
use super::{COMING_UP, LOOKS};
use crate::domain::AppKey;

/// Containers get their own time to end, which is 10 s unless their project says otherwise.
const TAKEN_DOWN: Duration = Duration::from_secs(90);

/// Why a project was not taken down.
#[derive(Debug, thiserror::Error)]
pub enum NotTakenDown {
    /// Somebody does, or stands by.
    #[error("another process still looks after the project")]
    LookedAfter,
    /// In words.
    #[error("{0}")]
    Trouble(String),
}

impl Docker {
    /// Removes what is left of the project of an app that is stopped and has no instance: how many containers there were.
    /// `directory` is the one that the app's keepers agree in.
    ///
    /// # Errors
    /// When somebody still looks after the project, or the engine cannot be asked or does not do it in time.
    pub async fn take_down(&self, key: &AppKey, directory: &Path) -> Result<usize, NotTakenDown> {
        let trouble = NotTakenDown::Trouble;
        let words = |error: Error| trouble(connection::words(&error));
        let turn = match Turns::try_take(directory) {
            Ok(Turn::Mine(held)) => Ok(held),
            Ok(Turn::Another) => return Err(NotTakenDown::LookedAfter),
            Err(error) => Err(error),
        };
        let client = self.shared.client().await.map_err(|error| trouble(error.to_string()))?;
        let project = names::project(&self.shared.owner, key);
        // Kept until the end: whoever brings the project up meanwhile waits for its turn.
        let _turn = match turn {
            Ok(held) => held,
            // The apps' user may keep its files to itself. Nobody needs a lock for what is not there.
            Err(error) => {
                let nothing = containers(&client, &project).await.map_err(words)?.is_empty();
                return if nothing { Ok(0) } else { Err(trouble(format!("{}: {error}", directory.display()))) };
            }
        };
        match tokio::time::timeout(TAKEN_DOWN, clear(&client, &project)).await {
            Ok(cleared) => cleared.map_err(words),
            Err(_) => Err(trouble(format!("its containers were not gone within {} s", TAKEN_DOWN.as_secs()))),
        }
    }
}

/// Removes all containers of a project until none has been seen several times in a row, then its networks. Answers how many
/// containers there were.
pub(super) async fn clear(client: &Client, project: &str) -> Result<usize, Error> {
    let (mut quiet, mut removed) = (0, 0);
    loop {
        let left = containers(client, project).await?;
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        if quiet == LOOKS {
            break;
        }
        let gone = join_all(left.iter().map(|container| remove(client, container))).await;
        removed += gone.into_iter().collect::<Result<Vec<bool>, Error>>()?.into_iter().filter(|gone| *gone).count();
        tokio::time::sleep(COMING_UP).await;
    }
    remove_networks(client, project).await?;
    Ok(removed)
}

fn label(project: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={project}")])])
}

/// Those of `compose run` too.
async fn containers(client: &Client, project: &str) -> Result<Vec<String>, Error> {
    let options = ListContainersOptions { all: true, filters: Some(label(project)), ..Default::default() };
    Ok(list(client, options).await?.into_iter().filter_map(|container| container.id).collect())
}

/// Ends a container as its image or project says, and removes it; whether this is what removed it.
async fn remove(client: &Client, container: &str) -> Result<bool, Error> {
    let stopped = client.stop_container(container, Some(StopContainerOptions { signal: None, t: None })).await;
    match stopped {
        Err(error) if !passes(&error) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let options = RemoveContainerOptions { v: false, force: true, link: false };
    match client.remove_container(container, Some(options)).await {
        Ok(()) => Ok(true),
        Err(error) if passes(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn remove_networks(client: &Client, project: &str) -> Result<(), Error> {
    let options = ListNetworksOptions { filters: Some(label(project)) };
    for network in client.list_networks(Some(options)).await?.into_iter().filter_map(|network| network.id) {
        match client.remove_network(&network).await {
            Ok(()) => {}
            // Somebody's container joined it by hand: it is theirs as long as they need it.
            Err(error) if passes(&error) || status(&error) == Some(403) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ended already, gone already, or on its way: the next look tells.
fn passes(error: &Error) -> bool {
    matches!(status(error), Some(304 | 404 | 409))
}
