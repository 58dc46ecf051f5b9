//! Who comes from elsewhere: `auth: token` of web endpoints, and calls with a token.
//!
//! Nobody is asked: the living tokens were told by the controller, are kept in `run/tokens.json` for a proxy that starts without
//! one, and a token that is revoked is gone from both within moments.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use tracing::debug;

use super::answer::Trouble;
use super::shared::Shared;
use crate::decide::slowing::Slowed;
use crate::domain::{Actor, AppKey, Grant, Verb, token};
use crate::whole;

/// Who a request is from, for instances.
const ACTOR: HeaderName = HeaderName::from_static("landfall-actor");

/// The token in a request's `Authorization`, if it brings one in the one way there is.
pub fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether it is, by its looks, a token that people make: instances have others.
pub fn is_made_by_people(bearer: &str) -> bool {
    bearer.starts_with(token::MARK)
}

/// Whether a token is worth anything.
pub fn is_known(shared: &Shared, bearer: &str) -> Result<(), Trouble> {
    shared.grants.load().check(bearer, Timestamp::now()).map(drop).ok_or(Trouble::TokenUnknown)
}

/// Who brings this token, if it may call the app.
pub fn may_call(shared: &Shared, app: &AppKey, bearer: Option<&str>) -> Result<Actor, Trouble> {
    let bearer = bearer.ok_or(Trouble::TokenMissing)?;
    let grants = shared.grants.load();
    let grant = grants.check(bearer, Timestamp::now()).ok_or(Trouble::TokenUnknown)?;
    grant.scope.may(Verb::Call, Some(app)).map_err(|denied| Trouble::TokenRefused { denied })?;
    Ok(grant.actor())
}

/// Tells the instance who it is, and keeps their token from it.
pub fn introduce(shared: &Shared, app: &AppKey, headers: &mut HeaderMap) {
    let actor = headers.get(AUTHORIZATION).and_then(bearer).and_then(|token| may_call(shared, app, Some(token)).ok());
    headers.remove(AUTHORIZATION);
    headers.remove(ACTOR);
    if let Some(actor) = actor.and_then(|actor| HeaderValue::from_str(&actor.to_string()).ok()) {
        headers.insert(ACTOR, actor);
    }
}

/// What is answered to a wrong token, when it is time to answer.
pub async fn slow_down(shared: &Shared, from: Option<IpAddr>, trouble: Trouble) -> Trouble {
    let (Trouble::TokenUnknown, Some(from)) = (&trouble, from) else { return trouble };
    let slowed = shared.failures.lock().unwrap_or_else(PoisonError::into_inner).note(from, Instant::now());
    debug!(%from, ?slowed, "a token that is worth nothing");
    match slowed {
        Slowed::Answer(Duration::ZERO) => trouble,
        Slowed::Answer(wait) => {
            tokio::time::sleep(wait).await;
            trouble
        }
        Slowed::TooMany => Trouble::TooManyWrong,
    }
}

/// The tokens of the last run.
pub fn read(path: &Path) -> io::Result<Vec<Grant>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Keeps them for the next run, for this user's eyes: apps may run as another.
pub fn write(path: &Path, grants: &[Grant]) -> io::Result<()> {
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    OpenOptions::new().create(true).append(true).mode(0o600).open(&temporary)?;
    whole::write(path, &temporary, &serde_json::to_vec(grants)?)
}
