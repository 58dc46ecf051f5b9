//! The image of a version, before anything of it starts.

use super::{Change, Run, Stop};
use crate::domain::{ImageSource, InstanceId, Phase, PinnedImage};
use crate::engine::failures::{self, Told};
use crate::ledger::versions;
use crate::runtime::BUILD_OBJECT;
use crate::runtime::docker::ImageRequest;

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
            instance: InstanceId::new(&self.key.app, BUILD_OBJECT, version.number, fastrand::u64(..)),
        };
        let told = Told { logs: self.tools.workshop.logs_dir(), log: request.log() };
        let (changes, id) = (self.tools.changes.clone(), self.job.id);
        // What there is no room for is told a moment later.
        let say = move |words: String| drop(changes.try_send(Change::Progress { id, words }));
        let found = tokio::select! {
            found = self.tools.runtime.docker().image(request, &say) => found,
            () = self.cancel.cancelled(), if !self.job.from.is_live() => return Err(Stop::Cancelled),
        };
        let phase = if building { Phase::Building } else { Phase::Preparing };
        let image = match found {
            Ok(image) => image,
            Err(error) => return Err(failures::no_image(&error, phase, &told).await.into()),
        };
        let (key, number, pinned) = (self.key.clone(), version.number, image.clone());
        self.tools.ledger.write(move |ledger| versions::pin_image(ledger, &key, number, &pinned)).await?;
        Ok(Some(image))
    }

    /// The image that this version was given, or the one whose content it brings back.
    async fn image_before(&self) -> Result<Option<PinnedImage>, Stop> {
        let version = &self.job.version;
        if version.image.is_some() {
            return Ok(version.image.clone());
        }
        let Some(of) = version.kind.of() else { return Ok(None) };
        let key = self.key.clone();
        let before = self.tools.ledger.read(move |ledger| versions::one(ledger, &key, of)).await?;
        Ok(before.and_then(|before| before.image))
    }
}
