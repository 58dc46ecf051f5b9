//! Who is signed in with a provider of identities, by the hash of what their browser keeps.
//!
//! Invariant: at most [`MOST_OF_ONE`] sessions of one person and [`MOST`] in all; the oldest end first.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::{Claims, TokenHash};
use crate::files::config::OidcConfig;

/// Of one person.
const MOST_OF_ONE: usize = 50;
/// Of all.
const MOST: usize = 5000;

/// Somebody who is signed in.
#[derive(Debug)]
pub(super) struct Person {
    /// Hash of who they are, and for whom.
    pub id: TokenHash,
    /// What the provider said of them.
    pub claims: Claims,
    /// Since when.
    pub since: Timestamp,
    issuer: String,
    client_id: String,
}

impl Person {
    /// Somebody of whom this provider says this.
    pub(super) fn new(config: &OidcConfig, claims: Claims, since: Timestamp) -> Self {
        let subject = claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or_default();
        let id = TokenHash::of(&format!("{}\n{subject}", config.issuer));
        Self { id, claims, since, issuer: config.issuer.clone(), client_id: config.client_id.clone() }
    }

    /// Whether the provider that vouched for them is the one that is configured.
    pub(super) fn is_of(&self, config: &OidcConfig) -> bool {
        self.issuer == config.issuer && self.client_id == config.client_id
    }
}

#[derive(Debug)]
struct Session {
    person: Arc<Person>,
    end: Timestamp,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<TokenHash, Session>);

impl Sessions {
    /// Whose it is.
    pub(super) fn get(&self, hash: &TokenHash) -> Option<Arc<Person>> {
        let (known, session) = self.0.get_key_value(hash)?;
        known.is(hash).then(|| Arc::clone(&session.person))
    }

    /// One more, which is over at `end`.
    pub(super) fn add(&mut self, hash: TokenHash, person: Person, end: Timestamp) {
        let now = person.since;
        self.0.retain(|_, session| now < session.end);
        self.make_room(MOST_OF_ONE, |session| session.person.id == person.id);
        self.make_room(MOST, |_| true);
        self.0.insert(hash, Session { person: Arc::new(person), end });
    }

    /// Ends the oldest of these if there are `most`.
    fn make_room(&mut self, most: usize, these: impl Fn(&Session) -> bool) {
        let found: Vec<(Timestamp, TokenHash)> =
            self.0.iter().filter(|(_, session)| these(session)).map(|(hash, one)| (one.person.since, *hash)).collect();
        if found.len() >= most
            && let Some((_, oldest)) = found.into_iter().min_by_key(|(since, _)| *since)
        {
            self.0.remove(&oldest);
        }
    }

    /// Ends one.
    pub(super) fn remove(&mut self, hash: &TokenHash) {
        self.0.remove(hash);
    }
}
