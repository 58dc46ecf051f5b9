//! Calls that are spawned: looked at before they are recorded, and tried anew. `finding` has what is asked about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::finding::{Found, unknown};
use super::functions::unknown_function;
use super::handle::Engine;
use super::reconciler::internal;
use super::{Caller, CommandError, Result};
use crate::decide::near::nearest;
use crate::domain::manifest::Function;
use crate::domain::{AppKey, CallId, CallOutcome, FunctionKey, Manifest, Payload, Scope, Trigger, VersionNumber};
use crate::ledger::calls::{self, Key, NewCall, Taken};
use crate::ledger::{Ledger, LedgerError, apps, versions};
use crate::wire::call_views::Spawned;

/// Longest key that makes a call the same call.
const MAX_KEY: usize = 255;

/// A call to be recorded, as the API read it.
#[derive(Debug, Clone)]
pub struct SpawnRequest {
    /// What is called.
    pub function: FunctionKey,
    /// The version it must run on.
    pub version: Option<VersionNumber>,
    /// What makes it.
    pub trigger: Trigger,
    /// The media type of its body.
    pub media: Option<String>,
    /// What it is called with.
    pub body: Bytes,
    /// At most one call is made for it.
    pub key: Option<String>,
}

/// Functions of versions, so that a spawn does not read the same manifest again and again.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    known: Mutex<HashMap<(AppKey, Option<VersionNumber>), Known>>,
}

/// As of this stamp; `None` where there is no such version.
type Known = (u64, Option<Arc<Manifest>>);

/// How many calls of each function wait, looked up now and then and counted on in between.
#[derive(Debug, Default)]
pub(super) struct Backlogs(Mutex<HashMap<FunctionKey, (Instant, u64)>>);

/// A number is believed for so long.
const BELIEVED: Duration = Duration::from_millis(500);

impl Backlogs {
    /// The number with the one that asks, up to about `most`.
    async fn counted(&self, ledger: &Ledger, key: &FunctionKey, most: u64) -> std::result::Result<u64, LedgerError> {
        if let Some((looked, waiting)) = self.all().get_mut(key)
            && looked.elapsed() < BELIEVED
        {
            *waiting += 1;
            return Ok(*waiting - 1);
        }
        let wanted = key.clone();
        let waiting = ledger.read(move |ledger| calls::queued(ledger, &wanted, most)).await?;
        let mut all = self.all();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(key.clone(), (Instant::now(), waiting + 1));
        Ok(waiting)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<FunctionKey, (Instant, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What bounds the calls of a function.
struct Bounds {
    max_body: u64,
    backlog: Option<u32>,
}

impl Bounds {
    fn of(function: &Function) -> Self {
        Self { max_body: function.max_body.0, backlog: function.backlog }
    }
}

/// Manifests that are remembered; more, and all are forgotten.
const REMEMBERED: usize = 10_000;

impl Engine {
    /// The largest body of a function, if there is such a function. Whoever asks is told of nothing outside their scope.
    pub async fn max_body(&self, scope: &Scope, function: &FunctionKey, version: Option<VersionNumber>) -> Result<u64> {
        Ok(self.bounds(scope, function, version).await?.max_body)
    }

    async fn bounds(&self, scope: &Scope, key: &FunctionKey, version: Option<VersionNumber>) -> Result<Bounds> {
        let FunctionKey { app, function } = key;
        let Some(manifest) = self.manifest(scope, app, version).await? else {
            return Err(match version {
                Some(version) => CommandError::NotFound {
                    what: format!("app {} has no version {version} that is kept", app.app),
                    mend: format!("`landfall app history {}` shows its versions", app.app),
                },
                None => CommandError::Conflict {
                    what: format!("app {} has no version yet that takes calls", app.app),
                    mend: format!("`landfall app show {}` says how it stands", app.app),
                },
            });
        };
        manifest.functions.get(function).map(Bounds::of).ok_or_else(|| {
            let names: Vec<String> = manifest.functions.keys().map(|name| name.to_string()).collect();
            unknown_function(key, &names)
        })
    }

    async fn manifest(
        &self,
        scope: &Scope,
        app: &AppKey,
        version: Option<VersionNumber>,
    ) -> Result<Option<Arc<Manifest>>> {
        let stamp = *self.parts.versions.borrow();
        let (key, known) = ((app.clone(), version), &self.parts.manifests.known);
        if let Some((at, manifest)) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
            && *at == stamp
        {
            return Ok(manifest.clone());
        }
        let wanted = app.clone();
        let found = self.parts.ledger.read(move |ledger| {
            if apps::one(ledger, &wanted)?.is_none() {
                return Ok(None);
            }
            Ok(Some(match version {
                None => versions::published(ledger, &wanted)?.map(|live| live.manifest),
                Some(version) => {
                    let kept = versions::one(ledger, &wanted, version)?.filter(|version| version.kept);
                    kept.map(|version| version.material.manifest)
                }
            }))
        });
        let Some(found) = found.await.map_err(internal)? else { return Err(self.unknown_app(scope, app).await) };
        let manifest = found.map(Arc::new);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, (stamp, manifest.clone()));
        Ok(manifest)
    }

    /// There is no such app; which of those they may know of may have been meant.
    async fn unknown_app(&self, scope: &Scope, key: &AppKey) -> CommandError {
        let apps = self.parts.ledger.read(apps::all).await.unwrap_or_default();
        let is_near = |other: &AppKey| other.environment == key.environment && scope.reaches(other);
        let here = apps.into_iter().filter(|app| is_near(&app.key));
        let names: Vec<String> = here.map(|app| app.key.app.to_string()).collect();
        match (super::commands::unknown_app(key), nearest(key.app.as_str(), names.iter().map(String::as_str))) {
            (CommandError::NotFound { what, mend }, Some(near)) => {
                CommandError::NotFound { what, mend: format!("did you mean {near}? {mend}") }
            }
            (error, _) => error,
        }
    }

    /// Why a function cannot be found, where that is so by the record.
    pub async fn not_found(&self, scope: &Scope, function: &FunctionKey) -> Option<CommandError> {
        self.bounds(scope, function, None).await.err()
    }

    /// Refuses more work for a function that has more than enough: its own bound, or the agent's where that is lower.
    async fn has_room(&self, function: &FunctionKey, own: Option<u32>) -> Result<()> {
        let all = self.parts.current.load().config.limits.backlog;
        let most = u64::from(own.map_or(all, |own| own.min(all)));
        let waiting = self.parts.backlogs.counted(&self.parts.ledger, function, most).await.map_err(internal)?;
        if waiting < most {
            return Ok(());
        }
        let FunctionKey { app, function } = function;
        let (key, raise) = match own.filter(|own| u64::from(*own) == most) {
            Some(_) => (format!("`backlog` of function {function}"), "that in its manifest".to_owned()),
            None => ("`limits.backlog`".to_owned(), "`limits.backlog` of the agent".to_owned()),
        };
        Err(CommandError::TooMuch {
            what: format!("{most} calls of {} {function} wait already, which is {key}", app.app),
            mend: format!(
                "wait until fewer do, raise `instances` or `concurrency` of {function}, or raise {raise}; \
                 `landfall app functions {}` shows how it fares",
                app.app
            ),
            after: Duration::from_secs(5),
        })
    }

    /// Records a call; it is durable when this answers, and will run whatever dies.
    pub async fn spawn(&self, caller: Caller, request: SpawnRequest) -> Result<Spawned> {
        let SpawnRequest { function, version, trigger, media, body, key } = request;
        let Bounds { max_body: limit, backlog } = self.bounds(&caller.scope, &function, version).await?;
        self.has_room(&function, backlog).await?;
        if body.len() as u64 > limit {
            return Err(CommandError::Invalid {
                what: format!("the body has {} bytes, the function takes at most {limit}", body.len()),
                mend: "raise `max_body` of the function, or send less".into(),
            });
        }
        let key = key.map(|text| make_key(text, version, media.as_deref(), &body)).transpose()?;
        let now = Timestamp::now();
        let id = CallId::new(now, fastrand::u128(..));
        let body =
            self.parts.caller.bodies().keep(id, media, body).await.map_err(|error| CommandError::Unavailable {
                what: format!("the body cannot be kept: {error}"),
                mend: "see whether the disk is full, then send it again".into(),
            })?;
        let new = NewCall {
            id,
            function,
            version,
            trigger,
            actor: caller.actor,
            created_at: now,
            due_at: now,
            scheduled_at: None,
            retry_until: None,
            body,
            key,
            redrive_of: None,
        };
        self.take(new).await
    }

    async fn take(&self, new: NewCall) -> Result<Spawned> {
        let id = new.id;
        match self.parts.caller.spawn(new).await? {
            Taken::New => Ok(Spawned { call: id, new: true }),
            Taken::Known(call) | Taken::Redriven(call) => Ok(Spawned { call, new: false }),
            Taken::KeyUsed(call) => Err(CommandError::Conflict {
                what: format!("the key was used for another call, {call}, with another body or version"),
                mend: "use a key of its own for each thing that is to be done".into(),
            }),
        }
    }

    /// Tries a call that is done anew, as a call of its own with the same body.
    pub async fn redrive(&self, caller: Caller, call: CallId) -> Result<Spawned> {
        let waited_for = || CommandError::Conflict {
            what: format!("somebody waited for call {call}; what it was called with is not kept"),
            mend: "call the function again".into(),
        };
        let old = match self.find_call(call).await?.ok_or_else(|| unknown(call))? {
            Found::Recorded(old) => old,
            Found::Past(_) | Found::Running(_) => return Err(waited_for()),
        };
        if old.trigger == Trigger::Call {
            return Err(waited_for());
        }
        match old.outcome {
            None => {
                return Err(CommandError::Conflict {
                    what: format!("call {call} is not done"),
                    mend: format!("wait for it, or `landfall calls cancel {call}`"),
                });
            }
            Some(CallOutcome::Succeeded) => {
                return Err(CommandError::Conflict {
                    what: format!("call {call} has succeeded"),
                    mend: "spawn a new one if it is to be done again".into(),
                });
            }
            Some(_) => {}
        }
        let body = self.parts.ledger.read(move |ledger| calls::body(ledger, call)).await.map_err(internal)?;
        let body = body.filter(|body| body.place != crate::domain::Place::Expired).ok_or_else(|| expired(call))?;
        let now = Timestamp::now();
        let id = CallId::new(now, fastrand::u128(..));
        let copied: std::io::Result<Payload> = self.parts.caller.bodies().copy(call, id, body).await;
        let body = copied.map_err(|_| expired(call))?;
        let new = NewCall {
            id,
            function: old.function,
            version: old.version,
            trigger: Trigger::Redrive,
            actor: caller.actor,
            created_at: now,
            due_at: now,
            scheduled_at: None,
            retry_until: None,
            body,
            key: None,
            redrive_of: Some(call),
        };
        self.take(new).await
    }
}

fn expired(call: CallId) -> CommandError {
    CommandError::Conflict {
        what: format!("what call {call} was called with is no longer kept"),
        mend: "spawn a new one; `retention.calls` says how long bodies are kept".into(),
    }
}

fn make_key(text: String, version: Option<VersionNumber>, media: Option<&str>, body: &[u8]) -> Result<Key> {
    if text.is_empty() || text.len() > MAX_KEY {
        return Err(CommandError::Invalid {
            what: format!("an idempotency key has 1 to {MAX_KEY} bytes, this one has {}", text.len()),
            mend: "use an identifier of the thing that is to be done".into(),
        });
    }
    let mut digest = Sha256::new();
    for part in [&version.map_or(0, VersionNumber::get).to_be_bytes()[..], media.unwrap_or_default().as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    Ok(Key { text, digest: digest.finalize().into() })
}
