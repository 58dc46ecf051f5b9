//! Who gets which secret, and the keeping of those that are stored.
//!
//! A name is looked for in this order: stored for the app, stored for its environment, then the providers of the
//! configuration in theirs; values out of encrypted files of the app's tree come besides (`encrypted`). Neighbours: `fleet` asks at each start of an instance, `deployer` before anything of a version
//! starts and for an image that is built (`building`); `ledger::secrets` holds the sealed values, `secrets` seals.
//!
//! Invariants: a value is opened only for an instance that starts, for the build of an image, or to be sealed anew; it goes
//! to the supervisor over the socket pair, or to the engine that builds, and nowhere else; what a version was given is
//! recorded by revision before an instance of it starts, or its image is built.

mod building;
mod encrypted;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tracing::info;

pub(super) use building::asked as asked_for_build;

use super::reconciler::internal;
use super::{Caller, CommandError, Result};
use crate::domain::secret::mask;
use crate::domain::{AppKey, Manifest, Secret, SecretName, VersionNumber};
use crate::files::config::{SecretProvider, SecretsConfig};
use crate::ledger::secrets::{self as record, Place, SecretRecord, Used};
use crate::ledger::{Ledger, facts};
use crate::secrets::{KeyError, KeyRing, Sealed, look};
use crate::store::Store;
use crate::wire::secrets as api;
use crate::wire::supervisor::{SecretVariables, StartRequest};

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Vault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    key_file: PathBuf,
    /// The trees of versions.
    store: Arc<Store>,
    config: ArcSwap<SecretsConfig>,
    /// Held while secrets or keys change.
    changing: tokio::sync::Mutex<()>,
    /// What is on record of versions, so that a thousand starts of one write it once.
    recorded: Mutex<HashSet<(AppKey, VersionNumber, Used)>>,
}

/// What a version gets.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub variables: SecretVariables,
    /// Those that are files, by the secret's name.
    pub files: SecretVariables,
    /// Variables with the names of those files.
    pub paths: BTreeMap<String, String>,
    pub used: Vec<Used>,
}

impl Given {
    /// Puts all of it into what starts an instance.
    pub(super) fn tell(self, request: &mut StartRequest) {
        // What `exec` takes out of what it tells of a call.
        let variables: Vec<&str> = self.variables.0.keys().map(String::as_str).collect();
        let paths: Vec<&str> = self.paths.keys().map(String::as_str).collect();
        for (told, names) in [("LANDFALL_SECRETS", variables), ("LANDFALL_SECRET_FILES", paths)] {
            if !names.is_empty() {
                request.env.insert(told.to_owned(), names.join(","));
            }
        }
        (request.secrets, request.secret_files, request.secret_paths) = (self.variables, self.files, self.paths);
    }

    /// A text without the values in it.
    pub(super) fn mask(&self, text: &str) -> String {
        mask(text, self.variables.exposed().chain(self.files.exposed()).map(|(_, value)| value))
    }
}

impl Vault {
    pub(super) fn new(ledger: Ledger, store: Arc<Store>, data_dir: &Path, config: &SecretsConfig) -> Self {
        Self(Arc::new(Inner {
            ledger,
            key_file: config.key_file.clone().unwrap_or_else(|| data_dir.join("secrets.key")),
            store,
            config: ArcSwap::from_pointee(config.clone()),
            changing: tokio::sync::Mutex::default(),
            recorded: Mutex::default(),
        }))
    }

    /// Asks these providers, and uses these identities, from now on.
    pub(super) fn set_config(&self, config: &SecretsConfig) {
        self.0.config.store(Arc::new(config.clone()));
    }

    /// What a version gets now; an error names what cannot be had, and the mend.
    pub(super) async fn give(
        &self,
        key: &AppKey,
        version: VersionNumber,
        manifest: &Manifest,
    ) -> std::result::Result<Given, String> {
        let mut given = self.named(key, manifest).await?;
        self.open_files(key, version, manifest, &mut given).await?;
        Ok(given)
    }

    /// The secrets that a manifest names for instances; an error names every one that cannot be had.
    async fn named(&self, key: &AppKey, manifest: &Manifest) -> std::result::Result<Given, String> {
        let mut given = Given::default();
        let asked = manifest.secrets.iter().chain(&manifest.secret_files);
        let asked = asked.map(|(variable, name)| (variable.clone(), name.clone())).collect();
        for (value, used) in self.find(key, asked).await? {
            if manifest.secret_files.contains_key(&used.variable) {
                given.files.0.insert(used.name.to_string(), value);
                given.paths.insert(used.variable.clone(), used.name.to_string());
            } else {
                given.variables.0.insert(used.variable.clone(), value);
            }
            given.used.push(used);
        }
        Ok(given)
    }

    /// Secrets, each with what it is asked for; an error names every one that cannot be had, and the mend.
    async fn find(
        &self,
        key: &AppKey,
        asked: Vec<(String, SecretName)>,
    ) -> std::result::Result<Vec<(Secret, Used)>, String> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.stored(key, asked.iter().map(|(_, name)| name.clone()).collect()).await?;
        let ring = if stored.is_empty() { None } else { Some(self.ring().await?) };
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        for (variable, name) in asked {
            let found = match (stored.get(&name), &ring) {
                (Some(secret), Some(ring)) => opened(ring, secret).map(Some),
                (_, _) => self.provided(key, &name).await,
            };
            match found {
                Ok(Some((value, from, revision))) => all.push((value, Used { variable, name, from, revision })),
                Ok(None) => missing.push((format!("secret `{name}` for {variable} is not there"), name)),
                Err(why) => missing.push((format!("secret `{name}` for {variable} cannot be had: {why}"), name)),
            }
        }
        let Some((_, first)) = missing.first() else { return Ok(all) };
        let words: Vec<&str> = missing.iter().map(|(words, _)| words.as_str()).collect();
        Err(format!(
            "{}. Set it with `landfall secret set {first}`, or `--app {}` for this app alone, or give it to a provider of the \
             agent's configuration (`secrets.providers`)",
            words.join("; "),
            key.app
        ))
    }

    /// The same as [`Vault::give`], and on record with the version.
    pub(super) async fn give_to(
        &self,
        key: &AppKey,
        version: VersionNumber,
        manifest: &Manifest,
    ) -> std::result::Result<Given, String> {
        let given = self.give(key, version, manifest).await?;
        self.record(key, version, &given.used).await?;
        Ok(given)
    }

    async fn record(&self, key: &AppKey, version: VersionNumber, used: &[Used]) -> std::result::Result<(), String> {
        let on_record = |used: &Used| {
            let recorded = self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            recorded.contains(&(key.clone(), version, used.clone()))
        };
        let fresh: Vec<Used> = used.iter().filter(|used| !on_record(used)).cloned().collect();
        if !fresh.is_empty() {
            let (app, used, at) = (key.clone(), fresh.clone(), Timestamp::now());
            let written = self.0.ledger.write(move |ledger| record::record_used(ledger, &app, version, &used, at));
            written.await.map_err(|error| error.to_string())?;
            let mut recorded = self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            recorded.extend(fresh.into_iter().map(|used| (key.clone(), version, used)));
        }
        Ok(())
    }

    /// Secrets of which a version has not the newest revision, in words. Programs are not asked: this is for looking.
    pub(super) async fn outdated(&self, key: &AppKey, version: VersionNumber) -> Result<Vec<String>> {
        let wanted = key.clone();
        let all = self.0.ledger.read(move |ledger| record::used(ledger, &wanted)).await.map_err(internal)?;
        let mine: BTreeMap<String, Used> = all
            .into_iter()
            .filter(|(of, used)| *of == version && !encrypted::is_of_version(used) && !building::is_of_build(used))
            .map(|(_, used)| (used.variable.clone(), used))
            .collect();
        let mut found = Vec::new();
        for used in mine.into_values() {
            let now = self.newest(key, &used.name).await.unwrap_or_default();
            if let Some((from, revision)) = now
                && (&from, &revision) != (&used.from, &used.revision)
            {
                found.push(format!(
                    "secret `{}` has changed since {version} was given it as {}; new instances get the new value, `landfall app \
                     rollover {}` renews all",
                    used.name, used.variable, key.app
                ));
            }
        }
        Ok(found)
    }

    /// Where a secret comes from now, and its revision there.
    async fn newest(&self, key: &AppKey, name: &SecretName) -> std::result::Result<Option<(String, String)>, String> {
        let stored = self.stored(key, vec![name.clone()]).await?;
        if let Some(secret) = stored.get(name) {
            return Ok(Some((origin(&secret.place), secret.revision.to_string())));
        }
        let ring = self.ring_or_none().await?;
        for provider in self.0.config.load().providers.iter() {
            if matches!(provider, SecretProvider::Command { .. }) {
                return Ok(None);
            }
            if let (Some(value), Some(ring)) = (look(provider, key, name).await?, &ring) {
                return Ok(Some((provider.as_str().to_owned(), ring.mark_of(&value))));
            }
        }
        Ok(None)
    }

    /// The stored secrets of these names that an app gets.
    async fn stored(
        &self,
        key: &AppKey,
        names: Vec<SecretName>,
    ) -> std::result::Result<BTreeMap<SecretName, SecretRecord>, String> {
        let key = key.clone();
        let read = self.0.ledger.read(move |ledger| {
            let mut found = BTreeMap::new();
            for name in names {
                for app in [Some(key.app.clone()), None] {
                    let place = Place { environment: key.environment.clone(), app, name: name.clone() };
                    if let Some(secret) = record::one(ledger, &place)?.filter(|secret| secret.sealed.is_some()) {
                        found.insert(name, secret);
                        break;
                    }
                }
            }
            Ok(found)
        });
        read.await.map_err(|error| error.to_string())
    }

    async fn provided(
        &self,
        key: &AppKey,
        name: &SecretName,
    ) -> std::result::Result<Option<(Secret, String, String)>, String> {
        for provider in self.0.config.load_full().providers.iter() {
            let found = look(provider, key, name).await.map_err(|why| format!("{}: {why}", provider.as_str()))?;
            if let Some(value) = found {
                let ring = self.ring_made().await?;
                let mark = ring.mark_of(&value);
                return Ok(Some((value, provider.as_str().to_owned(), mark)));
            }
        }
        Ok(None)
    }

    async fn ring_or_none(&self) -> std::result::Result<Option<KeyRing>, String> {
        let file = self.0.key_file.clone();
        let read = tokio::task::spawn_blocking(move || KeyRing::read(&file)).await;
        read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn ring(&self) -> std::result::Result<KeyRing, String> {
        self.ring_or_none().await?.ok_or_else(|| {
            format!(
                "the key file {} is gone; bring back a copy of it, or set the secrets anew",
                self.0.key_file.display()
            )
        })
    }

    /// The keys; made when there are none, and nothing is sealed that would need others.
    async fn ring_made(&self) -> std::result::Result<KeyRing, String> {
        if let Some(ring) = self.ring_or_none().await? {
            return Ok(ring);
        }
        let _guard = self.0.changing.lock().await;
        self.make_ring().await
    }

    async fn make_ring(&self) -> std::result::Result<KeyRing, String> {
        if let Some(ring) = self.ring_or_none().await? {
            return Ok(ring);
        }
        if self.0.ledger.read(record::any).await.map_err(|error| error.to_string())? {
            return self.ring().await;
        }
        let ring = KeyRing::new().map_err(|error| error.to_string())?;
        self.write_ring(&ring).await?;
        info!(file = %self.0.key_file.display(), "a key file for secrets is made; keep a copy of it apart from the ledger");
        Ok(ring)
    }

    async fn write_ring(&self, ring: &KeyRing) -> std::result::Result<(), String> {
        let (ring, file) = (ring.clone(), self.0.key_file.clone());
        let written = tokio::task::spawn_blocking(move || ring.write(&file)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Stores a secret; answers its revision.
    pub(super) async fn set(&self, caller: Caller, place: Place, value: Secret) -> Result<api::Secret> {
        let text = value.expose();
        let wrong = match text {
            "" => Some("the value is empty"),
            text if text.len() > Secret::LONGEST => Some("the value has more than 48 KiB"),
            text if text.contains('\0') => Some("the value holds a NUL, and cannot be a variable"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(CommandError::Invalid { what: wrong.into(), mend: "give another one".into() });
        }
        let _guard = self.0.changing.lock().await;
        let ring = self.make_ring().await.map_err(unavailable)?;
        let asked = place.clone();
        let before = self.0.ledger.read(move |ledger| record::one(ledger, &asked)).await.map_err(internal)?;
        let revision = before.map_or(1, |before| before.revision.saturating_add(1));
        let sealed = ring.seal(&place.label(revision), &value).map_err(|error| unavailable(error.to_string()))?;
        let Sealed { key, bytes } = sealed;
        let new = SecretRecord { place, revision, key, sealed: Some(bytes), actor: caller.actor, at: Timestamp::now() };
        let shown = shown(&new);
        self.write(new, "secret set").await?;
        Ok(shown)
    }

    /// Removes a secret. Instances that run keep what they were given.
    pub(super) async fn remove(&self, caller: Caller, place: Place) -> Result<()> {
        let _guard = self.0.changing.lock().await;
        let asked = place.clone();
        let before = self.0.ledger.read(move |ledger| record::one(ledger, &asked)).await.map_err(internal)?;
        let Some(before) = before.filter(|before| before.sealed.is_some()) else {
            return Err(CommandError::NotFound {
                what: format!("no secret {} is stored{}", place.name, whose(&place)),
                mend: "`landfall secret list` shows which are".into(),
            });
        };
        let gone = SecretRecord { sealed: None, actor: caller.actor, at: Timestamp::now(), ..before };
        self.write(gone, "secret rm").await
    }

    async fn write(&self, new: SecretRecord, action: &'static str) -> Result<()> {
        let written = self.0.ledger.write(move |ledger| {
            record::put(ledger, &new)?;
            let key = new.place.app.clone().map(|app| AppKey::new(new.place.environment.clone(), app));
            let what = serde_json::json!({
                "environment": new.place.environment, "app": new.place.app, "secret": new.place.name, "revision": new.revision,
            });
            facts::audit(ledger, &new.actor, action, key.as_ref(), &what, new.at)
        });
        written.await.map_err(internal)
    }

    /// All that are stored, without their values.
    pub(super) async fn list(&self) -> Result<Vec<api::Secret>> {
        let all = self.0.ledger.read(record::all).await.map_err(internal)?;
        Ok(all.iter().map(shown).collect())
    }

    /// Seals everything anew with a new key, and forgets the one before. A crash in between leaves a file with both.
    pub(super) async fn rotate(&self, caller: Caller) -> Result<api::Rotated> {
        let _guard = self.0.changing.lock().await;
        let before = self.make_ring().await.map_err(unavailable)?;
        let both = before.with_new_key().map_err(|error| unavailable(error.to_string()))?;
        let all = self.0.ledger.read(record::all).await.map_err(internal)?;
        let sealed_anew: std::result::Result<Vec<SecretRecord>, String> =
            all.iter().map(|old| anew(&both, old)).collect();
        let sealed_anew = sealed_anew.map_err(unavailable)?;
        self.write_ring(&both).await.map_err(unavailable)?;
        let (count, key) = (sealed_anew.len(), both.sealing().to_owned());
        let (actor, named, at) = (caller.actor, key.clone(), Timestamp::now());
        let written = self.0.ledger.write(move |ledger| {
            sealed_anew.iter().try_for_each(|secret| record::put(ledger, secret))?;
            facts::audit(ledger, &actor, "secret rotate-key", None, &named, at)
        });
        written.await.map_err(internal)?;
        self.write_ring(&both.newest_only()).await.map_err(unavailable)?;
        Ok(api::Rotated { key, secrets: count })
    }

    /// What versions of an app were given.
    pub(super) async fn used(&self, key: AppKey) -> Result<BTreeMap<VersionNumber, Vec<api::UsedSecret>>> {
        let all = self.0.ledger.read(move |ledger| record::used(ledger, &key)).await.map_err(internal)?;
        let mut found: BTreeMap<VersionNumber, Vec<api::UsedSecret>> = BTreeMap::new();
        for (version, used) in all {
            let Used { variable, name, from, revision } = used;
            found.entry(version).or_default().push(api::UsedSecret { variable, secret: name, from, revision });
        }
        Ok(found)
    }
}

fn opened(ring: &KeyRing, secret: &SecretRecord) -> std::result::Result<(Secret, String, String), String> {
    let value = open(ring, secret).map_err(|error| error.to_string())?;
    Ok((value, origin(&secret.place), secret.revision.to_string()))
}

fn open(ring: &KeyRing, secret: &SecretRecord) -> std::result::Result<Secret, KeyError> {
    let sealed = Sealed { key: secret.key.clone(), bytes: secret.sealed.clone().unwrap_or_default() };
    ring.open(&secret.place.label(secret.revision), &sealed)
}

fn anew(ring: &KeyRing, old: &SecretRecord) -> std::result::Result<SecretRecord, String> {
    let failed = |error: KeyError| format!("secret {}{}: {error}", old.place.name, whose(&old.place));
    let value = open(ring, old).map_err(failed)?;
    let sealed = ring.seal(&old.place.label(old.revision), &value).map_err(failed)?;
    Ok(SecretRecord { key: sealed.key, sealed: Some(sealed.bytes), ..old.clone() })
}

fn origin(place: &Place) -> String {
    if place.app.is_some() { "app" } else { "environment" }.to_owned()
}

fn whose(place: &Place) -> String {
    place.app.as_ref().map(|app| format!(" for app {app}")).unwrap_or_default()
}

fn shown(secret: &SecretRecord) -> api::Secret {
    api::Secret {
        secret: secret.place.name.clone(),
        environment: secret.place.environment.clone(),
        app: secret.place.app.clone(),
        revision: secret.revision,
        key: secret.key.clone(),
        set_by: secret.actor.to_string(),
        set_at: secret.at,
    }
}

fn unavailable(what: String) -> CommandError {
    CommandError::Unavailable { what, mend: "mend it, then say it again; nothing was changed".into() }
}
