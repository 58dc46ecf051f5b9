//! The images of a Compose project's services, before anything of it starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Run, Step, Stop};
use crate::domain::{ExitStatus, Phase};
use crate::engine::failures::{self, Told};
use crate::engine::prepare;
use crate::engine::spec::VersionSpec;
use crate::ledger::versions;
use crate::runtime::BUILD_OBJECT;
use crate::runtime::docker::ServiceImages;
use crate::runtime::docker::compose::{FOUND, ServiceImage};

/// A longer list of images is refused.
const MOST: u64 = 1 << 20;

impl Run {
    /// The very image of each service: the one it was given before, or the one the project names or builds now. Recorded
    /// before anything starts. Empty for an app that is no project.
    pub(super) async fn services(&self, directory: &Path) -> Result<ServiceImages, Stop> {
        let version = &self.job.version;
        if version.material.manifest.compose.is_none() {
            return Ok(ServiceImages::new());
        }
        if self.job.from.is_live() {
            return Ok(version.services.clone());
        }
        self.enter(Phase::Building).await?;
        let _slot = self.slot(&self.tools.builds).await?;
        let services = match self.as_before().await? {
            Some(services) => services,
            None => self.found(directory).await?,
        };
        let (key, number, recorded) = (self.key.clone(), version.number, services.clone());
        self.tools.ledger.write(move |ledger| versions::pin_services(ledger, &key, number, &recorded)).await?;
        Ok(services)
    }

    /// The images this version was given, or those of the one it brings back. `None` if there are none on record, or one
    /// is gone that only a build brings back.
    async fn as_before(&self) -> Result<Option<ServiceImages>, Stop> {
        let mut recorded = self.job.version.services.clone();
        if recorded.is_empty() {
            recorded = self.brought_back().await?.map(|before| before.services).unwrap_or_default();
        }
        if recorded.is_empty() {
            return Ok(None);
        }
        let (log, say) = (self.own_log(), self.progress());
        let again = self.tools.runtime.docker().services_again(&self.key, &recorded, log.clone(), &say);
        self.had(again, Phase::Building, log).await
    }

    /// A log of object `build` for what the controller does itself.
    fn own_log(&self) -> PathBuf {
        crate::runtime::log_path(&self.key, self.job.version.number, BUILD_OBJECT, &self.build_instance())
    }

    /// Has the engine's own tool say what the project runs and build what is built, and fetches the rest.
    async fn found(&self, directory: &Path) -> Result<ServiceImages, Stop> {
        let (version, tools) = (&self.job.version, &self.tools);
        let material = &version.material;
        let Some(compose) = &material.manifest.compose else { return Ok(ServiceImages::new()) };
        self.say("images are fetched and built".to_owned()).await;
        let spec = VersionSpec {
            key: self.key.clone(),
            version: version.number,
            manifest: material.manifest.clone(),
            commit: material.commit.clone(),
            directory: directory.to_owned(),
            image: None,
            services: ServiceImages::new(),
        };
        let own = tools.around.compose_images(&self.key);
        let command = tools.around.compose_images_command(compose, directory);
        // In a directory of its own: where a build runs is lent to the apps' user.
        let step = Step { object: BUILD_OBJECT, directory: own.clone(), command };
        let mut request = prepare::once(&spec, &tools.around, step);
        request.volumes = vec![own.clone()];
        tools.runtime.docker().lend(&self.key, &own, &mut request.env);
        // Variables of the file may be secrets.
        match tools.vault.give_to(&self.key, version.number, &material.manifest).await {
            Ok(given) => given.tell(&mut request),
            Err(why) => return Err(failures::no_secret(&self.key, Phase::Building, &why).into()),
        }
        let told = Told { logs: tools.workshop.logs_dir(), log: request.log.clone() };
        let limit = compose.timeout.duration();
        match self.once(request, limit).await? {
            Some(Ok(end)) if end.status == ExitStatus::Code(0) => {}
            end => return Err(failures::no_project_images(end, limit, &told).await.into()),
        }
        let found = tokio::task::spawn_blocking(move || read(&own.join(FOUND))).await;
        let found = found.unwrap_or_else(|error| Err(error.to_string()));
        let found =
            found.map_err(|words| failures::preparation(format!("the list of the project's images: {words}")))?;
        let (log, say) = (self.own_log(), self.progress());
        let found = tools.runtime.docker().services_found(&self.key, found, log.clone(), &say);
        self.had(found, Phase::Building, log).await
    }
}

/// What the child found. It is the app's user's, and so is what it writes.
fn read(path: &PathBuf) -> Result<BTreeMap<String, ServiceImage>, String> {
    let words = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(words)?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, MOST), &mut text).map_err(words)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}
