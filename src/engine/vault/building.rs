//! Secrets for the build of an image: opened when one is built, and only then.
//!
//! Instances do not get them, and do not need them to be there: what is built starts without. They are those of now, as
//! all stored secrets are, for a version that is brought back too. A newer value does not make what was built outdated.

use std::collections::BTreeMap;

use super::Vault;
use crate::domain::container::Dockerfile;
use crate::domain::{AppKey, Secret, SecretName, VersionNumber};
use crate::ledger::secrets::Used;

/// What the use of a secret begins with, in records and messages, where it is no variable: no variable has a dot.
const KEY: &str = "build.secrets.";

/// Whether a value was for the build, and nothing that starts gets it.
pub(super) fn is_of_build(used: &Used) -> bool {
    used.variable.starts_with(KEY)
}

/// What an image is built with: the key in the manifest, and the secret's name.
pub(in crate::engine) fn asked(dockerfile: &Dockerfile) -> impl Iterator<Item = (String, SecretName)> + use<'_> {
    dockerfile.secrets.iter().map(|(id, name)| (format!("{KEY}{id}"), name.clone()))
}

impl Vault {
    /// What the build of a version's image gets now, by the identifiers of its Dockerfile, and on record with the version;
    /// an error names what cannot be had, and the mend.
    pub(in crate::engine) async fn give_to_build(
        &self,
        key: &AppKey,
        version: VersionNumber,
        dockerfile: &Dockerfile,
    ) -> Result<BTreeMap<String, Secret>, String> {
        let found = self.find(key, asked(dockerfile).collect()).await?;
        let used: Vec<Used> = found.iter().map(|(_, used)| used.clone()).collect();
        self.record(key, version, &used).await?;
        Ok(dockerfile.secrets.keys().cloned().zip(found.into_iter().map(|(value, _)| value)).collect())
    }
}
