//! Tokens and sessions: made, checked, revoked.
//!
//! The record is the ledger's; what is checked on every request is a copy in memory, here for the API and at each proxy
//! for web endpoints and calls. Invariant: a token that is revoked is out of the ledger's living ones first, then out of
//! this process, then on its way to the proxies, and only then is the revocation answered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::fleet::Fleet;
use super::reconciler::internal;
use super::{Caller, CommandError, Engine, Result};
use crate::domain::{Access, Grant, Grants, TokenHash, TokenId, Via, hex, token};
use crate::ledger::tokens::{NewToken, Session, TokenRecord};
use crate::ledger::{Ledger, LedgerError, tokens};
use crate::wire::tokens::{Token, TokenMade, TokenRequest};

/// Living tokens at once: all of them are told to every proxy.
const MOST_TOKENS: usize = 1000;
/// Sessions of one token at once.
const MOST_SESSIONS: u32 = 50;
/// A browser is signed in for so long.
const SESSION: SignedDuration = SignedDuration::from_hours(12);
/// Last uses are written about this often.
const NOTE: Duration = Duration::from_secs(30);
/// Longest name, of a token and of whom it is for.
const LONGEST_NAME: usize = 64;

/// The tokens that are worth something, and which of them were used.
#[derive(Debug)]
pub(super) struct Tokens {
    ledger: Ledger,
    fleet: Fleet,
    grants: ArcSwap<Grants>,
    used: Mutex<HashSet<TokenId>>,
    /// What is read from the ledger must be published in that order.
    changing: tokio::sync::Mutex<()>,
}

/// What a browser that signs in gets.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// What the cookie holds.
    pub secret: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Who it is.
    pub access: Access,
}

impl Tokens {
    /// The living tokens, as the fleet knows them, too.
    pub(super) fn new(ledger: Ledger, fleet: Fleet, grants: Vec<Grant>) -> Self {
        Self {
            ledger,
            fleet,
            grants: ArcSwap::from_pointee(Grants::new(grants)),
            used: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The living tokens from here on, here and at the proxies.
    async fn publish(&self) -> std::result::Result<(), LedgerError> {
        let grants = self.ledger.read(tokens::grants).await?;
        let before = self.grants.swap(Arc::new(Grants::new(grants.clone())));
        self.note(before.take_used());
        self.fleet.tokens(grants).await;
        Ok(())
    }

    fn note(&self, used: Vec<TokenId>) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(used);
    }

    /// Writes which tokens were used, from time to time and at the end. `used` is what proxies tell.
    pub(super) async fn keep(self: Arc<Self>, mut used: mpsc::Receiver<Vec<TokenId>>, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(NOTE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(used) = used.recv() => { self.note(used); continue }
                _ = tick.tick() => {}
            }
            self.write_used().await;
        }
        self.write_used().await;
    }

    async fn write_used(&self) {
        self.note(self.grants.load().take_used());
        let used: Vec<TokenId> =
            std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect();
        let now = Timestamp::now();
        let written = self.ledger.write(move |ledger| {
            tokens::used(ledger, &used, now)?;
            tokens::forget_sessions(ledger, now)
        });
        if let Err(error) = written.await {
            warn!(%error, "it could not be recorded which tokens were used");
        }
    }
}

fn invalid(what: impl Into<String>, mend: &str) -> CommandError {
    CommandError::Invalid { what: what.into(), mend: mend.to_owned() }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(known) {
        return Err(invalid(
            format!("`{}` is no {what}", name.chars().take(100).collect::<String>().escape_debug()),
            "use at most 64 letters, digits and . - _ @",
        ));
    }
    Ok(())
}

/// 256 random bits.
pub(super) fn random() -> Result<[u8; token::BYTES]> {
    let mut bytes = [0; token::BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| CommandError::Internal { what: "the system gives no random bytes".into() })?;
    Ok(bytes)
}

fn view(record: TokenRecord) -> Token {
    Token {
        id: record.grant.id,
        name: record.grant.token,
        actor: record.grant.name,
        scope: record.grant.scope,
        created_at: record.created_at,
        created_by: record.created_by.to_string(),
        expires_at: record.grant.expires_at,
        last_used_at: record.used_at,
        revoked_at: record.revoked_at,
        revoked_by: record.revoked_by.map(|actor| actor.to_string()),
    }
}

impl Engine {
    /// All tokens, newest first; revoked ones too.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        let found = self.ledger().read(tokens::all).await.map_err(internal)?;
        Ok(found.into_iter().map(view).collect())
    }

    /// Makes a token. What it is itself is in the answer, and nowhere else.
    pub async fn create_token(&self, caller: Caller, request: TokenRequest) -> Result<TokenMade> {
        let now = Timestamp::now();
        check_name("name of a token", &request.name)?;
        let holder = request.actor.unwrap_or_else(|| request.name.clone());
        check_name("name of an actor", &holder)?;
        if request.scope.verbs.is_empty() {
            return Err(invalid("the scope has no verb", "choose from read, call, deploy, admin"));
        }
        super::commands::refuse_the_past(request.expires_at, now)?;
        let mut scope = request.scope;
        scope.verbs.sort_unstable();
        scope.verbs.dedup();
        let store = &self.parts.tokens;
        let changing = store.changing.lock().await;
        let living = self.ledger().read(tokens::grants).await.map_err(internal)?;
        if living.len() >= MOST_TOKENS {
            return Err(CommandError::Conflict {
                what: format!("there are {MOST_TOKENS} tokens already"),
                mend: "revoke those that are no longer used: `landfall token list` shows when each was".into(),
            });
        }
        let secret = token::write(&random()?);
        let hash = TokenHash::of(&secret);
        let new = NewToken { name: request.name.clone(), holder, hash, scope, expires_at: request.expires_at };
        let made = self.ledger().write(move |ledger| tokens::create(ledger, &new, &caller.actor, now)).await;
        let Some(record) = made.map_err(internal)? else {
            return Err(CommandError::Conflict {
                what: format!("there is a token `{}` already", request.name),
                mend: "choose another name, or revoke that one first".into(),
            });
        };
        store.publish().await.map_err(internal)?;
        drop(changing);
        Ok(TokenMade { secret, token: view(record) })
    }

    /// Revokes a token: it is worth nothing any more, here at once and at every proxy as soon as it is told.
    pub async fn revoke_token(&self, caller: Caller, name: &str) -> Result<Token> {
        let (wanted, now) = (name.to_owned(), Timestamp::now());
        let store = &self.parts.tokens;
        let changing = store.changing.lock().await;
        let revoked = self.ledger().write(move |ledger| tokens::revoke(ledger, &wanted, &caller.actor, now)).await;
        let record = revoked.map_err(internal)?.ok_or_else(|| CommandError::NotFound {
            what: format!("there is no token `{}`", name.chars().take(100).collect::<String>().escape_debug()),
            mend: "`landfall token list` shows the tokens there are".into(),
        })?;
        store.publish().await.map_err(internal)?;
        drop(changing);
        Ok(view(record))
    }

    /// The access of whoever sends this token, while it is worth something.
    pub fn token_access(&self, token: &str) -> Option<Access> {
        Some(self.parts.tokens.grants.load().check(token, Timestamp::now())?.access())
    }

    /// Signs a browser in; `None` for a token that is worth nothing.
    pub async fn sign_in(&self, token: &str) -> Result<Option<SignedIn>> {
        let now = Timestamp::now();
        let Some(grant) = self.parts.tokens.grants.load().check(token, now).cloned() else { return Ok(None) };
        let secret = hex::encode(&random()?);
        let expires_at =
            now.saturating_add(SESSION).map_err(|error| CommandError::Internal { what: error.to_string() })?;
        let expires_at = grant.expires_at.map_or(expires_at, |end| end.min(expires_at));
        let session = Session { hash: TokenHash::of(&secret), token: grant.id, expires_at };
        let written = self.ledger().write(move |ledger| tokens::open_session(ledger, &session, MOST_SESSIONS, now));
        written.await.map_err(internal)?;
        let access = Access { via: Via::Session(grant.id), ..grant.access() };
        Ok(Some(SignedIn { secret, expires_at, access }))
    }

    /// Who a browser with this cookie is, while both its session and its token are worth something.
    pub async fn session_access(&self, secret: &str) -> Result<Option<Access>> {
        if let Some(access) = self.person_access(secret) {
            return Ok(Some(access));
        }
        let (hash, now) = (TokenHash::of(secret), Timestamp::now());
        let found = self.ledger().read(move |ledger| tokens::session(ledger, &hash, now)).await.map_err(internal)?;
        let Some(session) = found.filter(|session| session.hash.is(&hash)) else { return Ok(None) };
        let grants = self.parts.tokens.grants.load();
        let grant = grants.by_id(session.token, now);
        Ok(grant.map(|grant| Access { via: Via::Session(grant.id), ..grant.access() }))
    }

    /// Signs a browser out.
    pub async fn sign_out(&self, secret: &str) -> Result<()> {
        self.forget_person(secret);
        let hash = TokenHash::of(secret);
        self.ledger().write(move |ledger| tokens::close_session(ledger, &hash)).await.map_err(internal)
    }
}
