//! What calls of functions ask of the engine: that a version they name can be called, and how many instances there are.

use std::path::PathBuf;
use std::sync::Arc;

use super::commands::unknown_app;
use super::fleet::Fleet;
use super::handle::Engine;
use super::prepare::{Prepared, Workshop};
use super::reconciler::internal;
use super::spec::VersionSpec;
use super::{CommandError, Result};
use crate::domain::{AppKey, ObjectName, VersionNumber, VersionStatus};
use crate::ledger::scaled::{self, Scaled};
use crate::ledger::versions::VersionRecord;
use crate::ledger::{Ledger, apps, versions};
use crate::wire::api;

/// As many as a manifest may ask for.
const MAX_INSTANCES: u32 = 1000;

impl Engine {
    /// Where the proxies take calls of functions.
    pub fn calls_socket(&self) -> PathBuf {
        self.parts.current.load().config.data_dir.join("run").join("calls.sock")
    }

    /// Makes sure that calls of a function can name this version, as long as it is kept.
    pub async fn pin(&self, key: AppKey, function: ObjectName, version: VersionNumber) -> Result<()> {
        self.parts.pins.pin(key, function, version).await
    }

    /// Other bounds for the instances of an object, until the next deployment. Recorded first.
    pub async fn scale(&self, key: AppKey, request: api::ScaleRequest) -> Result<api::Scaled> {
        let to = match (request.min, request.max) {
            (None, None) => None,
            (Some(min), Some(max)) if min <= max && (1..=MAX_INSTANCES).contains(&max) => Some((min, max)),
            (_, _) => {
                let what = format!("write min and max, min at most max, max between 1 and {MAX_INSTANCES}");
                return Err(CommandError::Invalid { what, mend: "correct the numbers".to_owned() });
            }
        };
        let app = self.app(key.clone()).await?;
        let object = request.object;
        if let Some(version) = app.live_version {
            let (key, object) = (key.clone(), object.clone());
            let recorded = self.parts.ledger.write(move |ledger| match to {
                Some(bounds) => {
                    scaled::set(ledger, &Scaled { key: key.clone(), object: object.clone(), version, bounds })
                }
                None => scaled::clear(ledger, &key, &object),
            });
            recorded.await.map_err(internal)?;
        }
        let done = self.parts.fleet.scale(key.clone(), object.clone(), to).await;
        if done.is_none() {
            let (key, object) = (key.clone(), object.clone());
            self.parts.ledger.write(move |ledger| scaled::clear(ledger, &key, &object)).await.map_err(internal)?;
        }
        match done {
            Some((min, max)) => Ok(api::Scaled { object, min, max }),
            None if app.live_version.is_none() => Err(CommandError::Conflict {
                what: format!("app `{}` has no live version", key.app),
                mend: format!("`landfall app show {}` says how it stands", key.app),
            }),
            None => Err(CommandError::NotFound {
                what: format!("app `{}` has no function or web endpoint `{object}`", key.app),
                mend: format!("`landfall app show {}` lists its objects; workers have a fixed number", key.app),
            }),
        }
    }
}

/// What it takes to let calls name a version.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    pub ledger: Ledger,
    pub workshop: Workshop,
    pub fleet: Fleet,
}

impl Pins {
    /// Makes sure that calls of a function can name this version, as long as it is kept.
    pub async fn pin(&self, key: AppKey, function: ObjectName, version: VersionNumber) -> Result<()> {
        let record = self.callable(&key, version).await?;
        let material = &record.material;
        if !material.manifest.functions.contains_key(&function) {
            let what = format!("{} {version} has no function `{function}`", key.app);
            return Err(CommandError::NotFound { what, mend: "`landfall app history` lists the versions".to_owned() });
        }
        let prepared = self.workshop.prepare(&key, material).await;
        let directory = match prepared.map_err(|failure| CommandError::Internal { what: failure.message })? {
            Prepared::Published(directory) => directory,
            Prepared::ToBuild(_) => {
                let what = format!("what was built for {} {version} is no longer there", key.app);
                let mend = format!("`landfall app rollback {} {version}` builds and deploys it again", key.app);
                return Err(CommandError::Conflict { what, mend });
            }
        };
        let (manifest, commit) = (material.manifest.clone(), material.commit.clone());
        let (image, services) = (record.image.clone(), record.services.clone());
        let spec = Arc::new(VersionSpec { key, version, manifest, commit, directory, image, services });
        let pinned = self.fleet.pin(spec, function).await;
        pinned.ok_or_else(|| CommandError::Internal { what: "the agent is ending".to_owned() })
    }

    /// A version that has been live and is kept.
    async fn callable(&self, key: &AppKey, version: VersionNumber) -> Result<VersionRecord> {
        let wanted = key.clone();
        let found = self.ledger.read(move |ledger| match apps::one(ledger, &wanted)? {
            None => Ok(None),
            Some(_) => Ok(Some(versions::one(ledger, &wanted, version)?)),
        });
        let record = found.await.map_err(internal)?.ok_or_else(|| unknown_app(key))?;
        let mend = || format!("`landfall app history {}` lists the versions", key.app);
        let record = record.ok_or_else(|| CommandError::NotFound {
            what: format!("app `{}` has no version {version}", key.app),
            mend: mend(),
        })?;
        let was_live = matches!(record.status, VersionStatus::Live | VersionStatus::Superseded);
        match (was_live, record.kept) {
            (true, true) => Ok(record),
            (false, _) => {
                let what = format!("{} {version} was never live", key.app);
                Err(CommandError::Conflict { what, mend: mend() })
            }
            (true, false) => {
                let what = format!("the files of {} {version} are no longer kept", key.app);
                Err(CommandError::NotFound { what, mend: "raise `retention.versions` to keep more".to_owned() })
            }
        }
    }
}
