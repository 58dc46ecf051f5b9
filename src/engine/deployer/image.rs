//! The image of a version, before anything of it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Change, Run, Stop};
use crate::domain::{ImageSource, InstanceId, Phase, PinnedImage};
use crate::engine::failures::{self, Told};
use crate::ledger::versions::{self, VersionRecord};
use crate::runtime::BUILD_OBJECT;
use crate::runtime::docker::{BuildSecrets, ImageError, ImageRequest};

impl Run {
    /// Whether this agent runs apps of its sort at all.
    pub(super) fn may_run_here(&self) -> Result<(), Stop> {
        let container = self.job.version.material.manifest.container.is_some();
        match self.tools.containers_only && !container {
            true => Err(failures::only_containers().into()),
            false => Ok(()),
        }
    }

    /// The very image of an app in containers: the one it was given before, or the one its manifest names now. Recorded
    /// before anything starts.
    pub(super) async fn image(&self, directory: &std::path::Path) -> Result<Option<PinnedImage>, Stop> {
        let version = &self.job.version;
        let Some(container) = &version.material.manifest.container else { return Ok(None) };
        if self.job.from.is_live() && version.image.is_some() {
            return Ok(version.image.clone());
        }
        let building = matches!(container.image, ImageSource::Built(_));
        if building && !self.job.from.is_live() {
            self.enter(Phase::Building).await?;
        }
        let _slot = self.slot(if building { &self.tools.builds } else { &self.tools.slots }).await?;
        let request = ImageRequest {
            key: self.key.clone(),
            version: version.number,
            content: version.material.content.as_str().to_owned(),
            container: container.clone(),
            directory: directory.to_owned(),
            recorded: self.image_before().await?,
            instance: self.build_instance(),
            secrets: self.build_secrets(&container.image),
        };
        let (log, say) = (request.log(), self.progress());
        let phase = if building { Phase::Building } else { Phase::Preparing };
        let image = self.had(self.tools.runtime.docker().image(request, &say), phase, log).await?;
        let (key, number, pinned) = (self.key.clone(), version.number, image.clone());
        self.tools.ledger.write(move |ledger| versions::pin_image(ledger, &key, number, &pinned)).await?;
        Ok(Some(image))
    }

    /// A name for the log of object `build` of what the controller does itself.
    pub(super) fn build_instance(&self) -> InstanceId {
        InstanceId::new(&self.key.app, BUILD_OBJECT, self.job.version.number, fastrand::u64(..))
    }

    /// What is found by looking for images, unless the deployment is given up before. `log` has why there are none.
    pub(super) async fn had<T>(
        &self,
        looking: impl Future<Output = Result<T, ImageError>>,
        phase: Phase,
        log: PathBuf,
    ) -> Result<T, Stop> {
        let found = tokio::select! {
            found = looking => found,
            () = self.cancel.cancelled(), if !self.job.from.is_live() => return Err(Stop::Cancelled),
        };
        match found {
            Ok(found) => Ok(found),
            Err(error) if error.code == failures::SECRET_MISSING => {
                Err(failures::no_secret(&self.key, phase, &error.message).into())
            }
            Err(error) => {
                let told = Told { logs: self.tools.workshop.logs_dir(), log };
                Err(failures::no_image(&error, phase, &told).await.into())
            }
        }
    }

    /// Opens the secrets of the image's build, once it turns out that it is to be built.
    fn build_secrets(&self, image: &ImageSource) -> BuildSecrets {
        let (vault, key, number) = (self.tools.vault.clone(), self.key.clone(), self.job.version.number);
        let dockerfile = image.dockerfile().cloned();
        BuildSecrets::new(move || {
            let (vault, key, dockerfile) = (vault.clone(), key.clone(), dockerfile.clone());
            async move {
                match dockerfile {
                    Some(dockerfile) => vault.give_to_build(&key, number, &dockerfile).await,
                    None => Ok(BTreeMap::new()),
                }
            }
        })
    }

    /// The image that this version was given, or the one whose content it brings back.
    async fn image_before(&self) -> Result<Option<PinnedImage>, Stop> {
        let version = &self.job.version;
        if version.image.is_some() {
            return Ok(version.image.clone());
        }
        Ok(self.brought_back().await?.and_then(|before| before.image))
    }

    /// The record of the version whose content this one brings back.
    pub(super) async fn brought_back(&self) -> Result<Option<VersionRecord>, Stop> {
        let Some(of) = self.job.version.kind.of() else { return Ok(None) };
        let key = self.key.clone();
        Ok(self.tools.ledger.read(move |ledger| versions::one(ledger, &key, of)).await?)
    }

    /// Tells people how far a step is. What there is no room for is told a moment later.
    pub(super) fn progress(&self) -> impl Fn(String) + Send + Sync + use<> {
        let (changes, id) = (self.tools.changes.clone(), self.job.id);
        move |words| drop(changes.try_send(Change::Progress { id, words }))
    }
}
