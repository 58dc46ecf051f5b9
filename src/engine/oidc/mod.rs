//! Browsers whose person a provider of identities vouches for: OpenID Connect, authorization code with PKCE.
//!
//! ```text
//! begin ──► begun (state, nonce, verifier; 10 min) ──browser comes back──► code ─► ID token, checked ─► claims
//!                                                                             ┌──────────────────────────┘
//!                                                       no rule ◄─────────────┴─► session (memory) ─► over, out, no rule
//! ```
//!
//! `provider` talks to the provider, `begun` holds what waits for a browser, `sessions` who is signed in. The API owns cookies
//! and pages. Invariants: a sign-in that was begun is finished once, by the browser that began it; a session has what the
//! rules in force give to its claims at each request, so that a changed configuration reaches it at once; everything here is
//! bounded, and gone with the controller: people sign in again, which the provider usually answers by itself.

mod begun;
mod provider;
mod sessions;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use openidconnect::{AuthorizationCode, Nonce, PkceCodeVerifier};

use self::begun::{Begun, Waiting};
use self::provider::Provider;
use self::sessions::{Person, Sessions};
use super::tokens::{SignedIn, random};
use super::{CommandError, Engine};
use crate::domain::{Access, Actor, TokenHash, Via, claims, hex};
use crate::files::config::OidcConfig;

/// Everybody who signs in, or is.
#[derive(Debug, Default)]
pub(super) struct People {
    provider: Provider,
    begun: Mutex<Begun>,
    sessions: Mutex<Sessions>,
}

/// Where a browser is sent to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentAway {
    /// The provider's page.
    pub url: String,
    /// What the browser must bring back in a cookie.
    pub binder: String,
    /// The cookie is worth something for so long, in seconds.
    pub seconds: u64,
}

/// What a browser brings back.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    /// Which sign-in it is.
    pub state: String,
    /// The provider's code, to be exchanged for an ID token.
    pub code: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
    /// Who says so, where the provider tells.
    pub issuer: Option<String>,
    /// The cookie.
    pub binder: Option<String>,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum NotSignedIn {
    /// It is not configured, or no longer.
    #[error("nobody signs in here with a provider of identities")]
    Unconfigured,
    /// Too many were begun and not finished.
    #[error("too many sign-ins were begun and not finished")]
    TooMany,
    /// The sign-in is not one of this browser, is over, or was finished before.
    #[error("this sign-in is over, or was begun in another browser")]
    Unknown,
    /// The provider refused.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The provider cannot be used now.
    #[error("{0}")]
    Provider(String),
    /// What the provider's answer holds cannot be believed.
    #[error("the provider's answer cannot be believed: {0}")]
    Unbelievable(String),
    /// No rule lets them in.
    #[error("no rule of `api.oidc.allow` is meant for {name}")]
    NoRule {
        /// What they are called.
        name: String,
        /// The claims that rules ask for, for nobody but themselves.
        seen: String,
    },
    /// The agent failed.
    #[error(transparent)]
    Failed(#[from] CommandError),
}

type Result<T> = std::result::Result<T, NotSignedIn>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    fn oidc(&self) -> Option<OidcConfig> {
        self.parts.current.load().config.api.oidc.clone()
    }

    /// What the provider is called on the button; `None` where people sign in with tokens only.
    pub fn oidc_name(&self) -> Option<String> {
        self.oidc().map(|config| config.name)
    }

    /// Begins a sign-in of a browser at `from`, which goes on at `next`.
    pub async fn oidc_begin(&self, next: &str, from: Option<IpAddr>) -> Result<SentAway> {
        let config = self.oidc().ok_or(NotSignedIn::Unconfigured)?;
        let people = &self.parts.people;
        let (url, state, nonce, verifier) = people.provider.page(&config).await?;
        let binder = hex::encode(&random()?);
        let waiting = Waiting { binder: TokenHash::of(&binder), nonce, verifier, next: next.to_owned(), from };
        lock(&people.begun).add(&state, waiting, Instant::now()).ok_or(NotSignedIn::TooMany)?;
        Ok(SentAway { url, binder, seconds: begun::LIFE.as_secs() })
    }

    /// Finishes a sign-in; answers where the browser goes on as well.
    pub async fn oidc_finish(&self, brought: Brought) -> Result<(SignedIn, String)> {
        let config = self.oidc().ok_or(NotSignedIn::Unconfigured)?;
        let people = &self.parts.people;
        let waiting = lock(&people.begun).take(&brought.state, Instant::now()).ok_or(NotSignedIn::Unknown)?;
        let is_this_browser = brought.binder.is_some_and(|binder| TokenHash::of(&binder).is(&waiting.binder));
        if !is_this_browser {
            return Err(NotSignedIn::Unknown);
        }
        if brought.issuer.is_some_and(|issuer| issuer != config.issuer) {
            return Err(NotSignedIn::Unbelievable("it comes from another provider".to_owned()));
        }
        let code = match (brought.code, brought.error) {
            (Some(code), None) => AuthorizationCode::new(code),
            (_, Some(error)) => return Err(NotSignedIn::Refused(crate::notify::shown(&error, &[]))),
            (None, None) => return Err(NotSignedIn::Refused("it gave no code".to_owned())),
        };
        let Waiting { nonce, verifier, next, .. } = waiting;
        let claims = people.provider.claims(&config, code, verifier, &nonce).await?;
        let name = claims::name_of(&claims);
        let Some(scope) = claims::scope_of(&config.allow, &claims).cloned() else {
            return Err(NotSignedIn::NoRule { name, seen: claims::seen(&config.allow, &claims) });
        };
        let secret = hex::encode(&random()?);
        let person = Person::new(&config, claims, Timestamp::now());
        let access = Access { actor: Actor::Person { name }, scope, via: Via::Person(person.id) };
        let expires_at = end(&person, &config)?;
        lock(&people.sessions).add(TokenHash::of(&secret), person, expires_at);
        Ok((SignedIn { secret, expires_at, access }, next))
    }

    /// Who a browser with this cookie is, by the rules in force.
    pub(super) fn person_access(&self, secret: &str) -> Option<Access> {
        let hash = TokenHash::of(secret);
        let mut sessions = lock(&self.parts.people.sessions);
        let person = sessions.get(&hash)?;
        let current = self.parts.current.load();
        let access = current.config.api.oidc.as_ref().and_then(|config| access(&person, config));
        if access.is_none() {
            sessions.remove(&hash);
        }
        access
    }

    /// Signs a browser out, if it was signed in here.
    pub(super) fn forget_person(&self, secret: &str) {
        lock(&self.parts.people.sessions).remove(&TokenHash::of(secret));
    }
}

fn end(person: &Person, config: &OidcConfig) -> Result<Timestamp> {
    let failed = |error: jiff::Error| CommandError::Internal { what: error.to_string() };
    let life = SignedDuration::try_from(config.session).map_err(failed)?;
    Ok(person.since.saturating_add(life).map_err(failed)?)
}

/// What the rules give to somebody now, `None` if that is nothing or the session is over.
fn access(person: &Arc<Person>, config: &OidcConfig) -> Option<Access> {
    if !person.is_of(config) || Timestamp::now() >= end(person, config).ok()? {
        return None;
    }
    let scope = claims::scope_of(&config.allow, &person.claims)?.clone();
    Some(Access { actor: Actor::Person { name: claims::name_of(&person.claims) }, scope, via: Via::Person(person.id) })
}

/// What a sign-in must remember until its browser comes back.
type Page = (String, String, Nonce, PkceCodeVerifier);
