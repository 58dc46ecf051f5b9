//! The images of a Compose project's services: given names of Landfall's own, and found again for a rollback.
//!
//! A name is made of the image's identifier, not of the version: what a service runs is the same from version to version
//! as long as its image is, and Compose makes nothing anew that is the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::compose::ServiceImage;
use super::images::{self, ImageError, Teller};
use super::{Docker, names};
use crate::domain::{AppKey, ImageOrigin, PinnedImage};

/// The image each service runs, by the service's name.
pub type ServiceImages = BTreeMap<String, PinnedImage>;

impl Docker {
    /// Has the images that services name, fetched with the configured logins where they are wanted from a registry, and gives
    /// them and those that were built names that keep them from being tidied away.
    pub async fn services_found(
        &self,
        key: &AppKey,
        found: BTreeMap<String, ServiceImage>,
        log: PathBuf,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<ServiceImages, ImageError> {
        let teller = Teller { shared: &self.shared, log, say };
        let found = Self::found(&teller, key, found).await;
        if let Err(error) = &found {
            teller.line(&error.message).await;
        }
        self.shared.close(&teller.log).await;
        found
    }

    async fn found(
        teller: &Teller<'_>,
        key: &AppKey,
        found: BTreeMap<String, ServiceImage>,
    ) -> Result<ServiceImages, ImageError> {
        let shared = teller.shared;
        let client = shared.client().await.map_err(|trouble| ImageError::unreachable(&trouble))?;
        let repository = names::repository(&shared.owner, key);
        let mut named = ServiceImages::new();
        // What several services run is looked for once.
        let mut had = BTreeMap::new();
        for (service, ServiceImage { reference, image, built, pull, platform }) in found {
            let (id, digest, origin) = if built {
                let seen = images::exists(shared, &client, &image).await?.ok_or_else(|| images::vanished(&image))?;
                (seen.id, None, ImageOrigin::Built)
            } else if let Some(before) = had.get(&image).cloned() {
                before
            } else {
                let (seen, origin) = images::had(teller, &client, &image, pull, platform.as_deref()).await?;
                let digest = seen.digest_for(&image);
                let now = (seen.id, digest, origin);
                had.insert(image.clone(), now.clone());
                now
            };
            let tag = images::name(shared, &client, key, &names::id_tag(&id), &id).await?;
            if image == names::built_service(&repository, &service) {
                images::forget(&client, &image).await;
            }
            let image = PinnedImage { reference, id, digest, tag, origin };
            teller.line(&format!("{service} is {}", image.name())).await;
            named.insert(service, image);
        }
        Ok(named)
    }

    /// The very images that were recorded; one that is gone is fetched by its digest. `None` when one is gone and came
    /// from no registry.
    pub async fn services_again(
        &self,
        key: &AppKey,
        recorded: &ServiceImages,
        log: PathBuf,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Option<ServiceImages>, ImageError> {
        let teller = Teller { shared: &self.shared, log, say };
        let again = Self::again(&teller, key, recorded).await;
        self.shared.close(&teller.log).await;
        again
    }

    async fn again(
        teller: &Teller<'_>,
        key: &AppKey,
        recorded: &ServiceImages,
    ) -> Result<Option<ServiceImages>, ImageError> {
        let shared = teller.shared;
        let client = shared.client().await.map_err(|trouble| ImageError::unreachable(&trouble))?;
        let mut again = ServiceImages::new();
        for (service, image) in recorded {
            let mut image = image.clone();
            if images::exists(shared, &client, &image.id).await?.is_none() {
                let Some(digest) = &image.digest else { return Ok(None) };
                teller.line(&format!("the engine does not have {digest} any more")).await;
                images::pull(teller, &client, digest, None).await?;
                image.id = images::exists(shared, &client, digest).await?.ok_or_else(|| images::vanished(digest))?.id;
            }
            image.tag = images::name(shared, &client, key, &names::id_tag(&image.id), &image.id).await?;
            teller.line(&format!("{service} is {}, as before", image.name())).await;
            again.insert(service.clone(), image);
        }
        Ok(Some(again))
    }
}
