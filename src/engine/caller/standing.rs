//! What is known of a function: whether there is one, how much it can do at once, how often it is tried.

use crate::decide::retry::Policy;
use crate::domain::manifest::Function;
use crate::domain::{AppKey, FunctionKey, VersionNumber};
use crate::ledger::versions::LiveVersion;
use crate::ledger::{Connection, Result, apps, versions};

/// Attempts that wait at a proxy for each function, so that a place that is freed is taken at once; at most as many as
/// there are places.
const LOOK_AHEAD: usize = 16;
/// Calls of a function that has no room of its own (those pinned to a version that still has it).
const PINNED_ROOM: usize = 16;

/// How a function stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    /// It can be called.
    Here {
        /// Attempts that may be under way at once.
        room: usize,
        /// The user's retries.
        policy: Policy,
    },
    /// Its app has no version yet that takes work, or is stopped.
    NotYet,
    /// Its app, or the live version of it, has no such function.
    Gone {
        /// The live version.
        live: Option<VersionNumber>,
    },
}

impl Standing {
    /// Attempts that may be under way at once.
    pub fn room(&self) -> usize {
        match self {
            Standing::Here { room, .. } => *room,
            Standing::NotYet => 0,
            Standing::Gone { .. } => PINNED_ROOM,
        }
    }

    /// The user's retries.
    pub fn policy(&self) -> Policy {
        match self {
            Standing::Here { policy, .. } => *policy,
            Standing::NotYet | Standing::Gone { .. } => Policy::NEVER,
        }
    }
}

/// How functions stand according to the record, each app read once.
pub fn standings(ledger: &Connection, mut keys: Vec<FunctionKey>) -> Result<Vec<(FunctionKey, Standing)>> {
    keys.sort();
    let mut found = Vec::with_capacity(keys.len());
    for functions in keys.chunk_by(|one, other| one.app == other.app) {
        let Some(first) = functions.first() else { continue };
        let app = of_app(ledger, &first.app)?;
        found.extend(functions.iter().map(|key| (key.clone(), app.standing(key))));
    }
    Ok(found)
}

/// What an app's functions stand on.
enum AppStanding {
    NotYet,
    Gone,
    Live(Box<LiveVersion>),
}

impl AppStanding {
    fn standing(&self, key: &FunctionKey) -> Standing {
        match self {
            Self::NotYet => Standing::NotYet,
            Self::Gone => Standing::Gone { live: None },
            Self::Live(live) => {
                let function = live.manifest.functions.get(&key.function);
                function.map_or(Standing::Gone { live: Some(live.version) }, here)
            }
        }
    }
}

fn of_app(ledger: &Connection, key: &AppKey) -> Result<AppStanding> {
    match apps::one(ledger, key)? {
        None => return Ok(AppStanding::Gone),
        // Its calls wait until it is started again.
        Some(app) if app.stop.is_some() => return Ok(AppStanding::NotYet),
        Some(_) => {}
    }
    Ok(versions::published(ledger, key)?.map_or(AppStanding::NotYet, |live| AppStanding::Live(Box::new(live))))
}

fn here(function: &Function) -> Standing {
    let places = usize::try_from(function.instances.max.saturating_mul(function.concurrency)).unwrap_or(usize::MAX);
    let places = places.max(1);
    // What waits at the proxy must not fill its line, which callers who wait share.
    let ahead = LOOK_AHEAD.min(places).min(usize::try_from(function.queue / 2).unwrap_or(usize::MAX));
    Standing::Here { room: places.saturating_add(ahead), policy: policy(function) }
}

/// The user's retries as the manifest has them.
pub fn policy(function: &Function) -> Policy {
    let retries = &function.retries;
    Policy {
        max: retries.max,
        delay: retries.delay.duration(),
        backoff: f64::from(retries.backoff),
        max_delay: retries.max_delay.duration(),
    }
}
