//! Values that lie encrypted in an app's own tree: opened in memory for an instance that starts, never written anywhere.
//!
//! A version is given the file of its own tree, so a rollback brings back the values of its time. What is recorded of it is
//! the mark of the encrypted file, which says nothing of what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Given, Vault};
use crate::domain::{AppKey, Manifest, Secret, SecretName, VersionNumber, hex};
use crate::ledger::apps::Material;
use crate::ledger::secrets::Used;
use crate::ledger::versions;
use crate::secrets::{Identities, encrypted};
use crate::store::Store;

/// What the origin of a value out of a file begins with, in records.
const FROM: &str = "file ";
/// Bytes of a file's mark that are shown.
const MARK: usize = 6;

/// Whether a value came with the version itself, so that no newer one can be there.
pub(super) fn is_of_version(used: &Used) -> bool {
    used.from.starts_with(FROM)
}

impl Vault {
    /// Adds the values of the version's encrypted files to what it is given.
    pub(super) async fn open_files(
        &self,
        key: &AppKey,
        version: VersionNumber,
        manifest: &Manifest,
        given: &mut Given,
    ) -> Result<(), String> {
        if manifest.encrypted_files.is_empty() {
            return Ok(());
        }
        let wanted = key.clone();
        let read = self.0.ledger.read(move |ledger| versions::one(ledger, &wanted, version)).await;
        let record = read.map_err(|error| error.to_string())?;
        let material = record.ok_or_else(|| format!("{version} of {} is not on record", key.app))?.material;
        let (store, config) = (Arc::clone(&self.0.store), self.0.config.load_full());
        let opened = tokio::task::spawn_blocking(move || {
            let identities = Identities::read(&config.age_identity_files)?;
            let open = |path: &String| open(&store, &material, path, &identities);
            material.manifest.encrypted_files.iter().map(open).collect::<Result<Vec<_>, String>>()
        });
        let opened = opened.await.map_err(|error| error.to_string())??;
        let written = written(manifest);
        for (path, (variables, mark)) in manifest.encrypted_files.iter().zip(opened) {
            for (variable, value) in variables {
                if written.contains(&variable) || given.variables.0.contains_key(&variable) {
                    return Err(format!(
                        "{variable} of {path} is in `env`, `secrets` or another of the `encrypted_files` as well; remove it \
                         from one of them"
                    ));
                }
                let (name, from) = (name(&variable)?, format!("{FROM}{path}"));
                given.used.push(Used { variable: variable.clone(), name, from, revision: mark.clone() });
                given.variables.0.insert(variable, value);
            }
        }
        Ok(())
    }
}

type Opened = (BTreeMap<String, Secret>, String);

fn open(store: &Store, material: &Material, path: &str, identities: &Identities) -> Result<Opened, String> {
    let wrong = |why: String| format!("the encrypted file {path} cannot be used: {why}");
    let inside = if material.workdir.is_empty() { path.to_owned() } else { format!("{}/{path}", material.workdir) };
    let file = store.read_file(&material.tree, &inside).map_err(|error| wrong(error.to_string()))?;
    let file = file.ok_or_else(|| wrong("there is no such file in the app's directory".to_owned()))?;
    let variables = encrypted::variables(path, &file, identities).map_err(wrong)?;
    Ok((variables, hex::encode(&Sha256::digest(&file)[..MARK])))
}

/// Variables whose values the manifest says.
fn written(manifest: &Manifest) -> BTreeSet<&String> {
    let objects = manifest.web.values().map(|web| &web.env);
    let objects = objects.chain(manifest.functions.values().map(|function| &function.env));
    let objects = objects.chain(manifest.workers.values().map(|worker| &worker.env));
    objects.chain([&manifest.env]).flat_map(|env| env.keys()).collect()
}

/// What a variable's value is called in records: `HF_TOKEN` is `hf-token`.
fn name(variable: &str) -> Result<SecretName, String> {
    let name = variable.trim_start_matches('_').to_lowercase().replace('_', "-");
    let short: String = name.chars().take(40).collect();
    let name = short.trim_end_matches('-').parse().or_else(|_| "secret".parse());
    name.map_err(|_| format!("{variable} cannot be named in records"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_has_a_name_in_records() {
        let (long, short) = ("A_".repeat(60), format!("{}a", "a-".repeat(19)));
        for (variable, expected) in [("HF_TOKEN", "hf-token"), ("_1", "secret"), (long.as_str(), short.as_str())] {
            assert_eq!(name(variable).unwrap().as_str(), expected);
        }
    }
}
