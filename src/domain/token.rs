//! Tokens: what lets somebody ask from elsewhere.
//!
//! A token is 256 random bits, written `lf_` and 64 hexadecimal digits. What is kept of it is its SHA-256 alone. A slow hash, as
//! passwords need one, would add nothing: there is no list of likely tokens to try, and each request is checked.
//!
//! Invariant: how long a check takes says nothing about a token. What is looked up and compared is the hash of what
//! was sent, of which nobody can choose a part, and the comparison itself takes the same time wherever two hashes differ.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::access::{Access, Scope, TokenId, Via};
use super::hex;
use super::id::Actor;

/// What every token begins with, so that it is known for what it is when it turns up somewhere.
pub const MARK: &str = "lf_";
/// Random bytes of a token.
pub const BYTES: usize = 32;

/// What is kept of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token as it is sent.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// As the ledger keeps it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As the ledger keeps it.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether it is the same, in a time that says nothing about where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash([redacted])")
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        hex::encode(&hash.0)
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "the hash of a token is 64 hexadecimal digits";
        let bytes = hex::decode(&text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(wrong)
    }
}

/// The text of a token made of these random bytes.
pub fn write(random: &[u8; BYTES]) -> String {
    format!("{MARK}{}", hex::encode(random))
}

/// What a token gives to whoever has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which token.
    pub id: TokenId,
    /// What is known of it.
    pub hash: TokenHash,
    /// Its name.
    pub token: String,
    /// Whom it was made for.
    pub name: String,
    /// What they may do.
    pub scope: Scope,
    /// From when on it is worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Grant {
    /// Who has it.
    pub fn actor(&self) -> Actor {
        Actor::Token { token: self.token.clone(), name: self.name.clone() }
    }

    /// The access of whoever sends it.
    pub fn access(&self) -> Access {
        Access { actor: self.actor(), scope: self.scope.clone(), via: Via::Token(self.id) }
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// All tokens that are worth something.
#[derive(Debug, Default)]
pub struct Grants(HashMap<TokenHash, Arc<Known>>);

/// A token, and whether it was used since somebody last asked.
#[derive(Debug)]
struct Known {
    grant: Grant,
    used: AtomicBool,
}

impl Grants {
    /// These and no others.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        let known = |grant: Grant| (grant.hash, Arc::new(Known { grant, used: AtomicBool::new(false) }));
        Self(grants.into_iter().map(known).collect())
    }

    /// What a token gives now. Marks it as used.
    pub fn check(&self, token: &str, now: Timestamp) -> Option<&Grant> {
        let hash = TokenHash::of(token);
        let known = self.0.get(&hash).filter(|known| known.grant.hash.is(&hash) && known.grant.holds(now))?;
        known.used.store(true, Ordering::Relaxed);
        Some(&known.grant)
    }

    /// What the token of this number gives now.
    pub fn by_id(&self, id: TokenId, now: Timestamp) -> Option<&Grant> {
        let known = self.0.values().find(|known| known.grant.id == id)?;
        known.grant.holds(now).then(|| {
            known.used.store(true, Ordering::Relaxed);
            &known.grant
        })
    }

    /// Those that were used since this was last asked.
    pub fn take_used(&self) -> Vec<TokenId> {
        let used = self.0.values().filter(|known| known.used.swap(false, Ordering::Relaxed));
        used.map(|known| known.grant.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verb;

    fn grant(id: i64, token: &str, expires_at: Option<Timestamp>) -> Grant {
        Grant {
            id: TokenId(id),
            hash: TokenHash::of(token),
            token: "laptop".into(),
            name: "ada".into(),
            scope: Scope { verbs: vec![Verb::Read], apps: Vec::new() },
            expires_at,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_token_is_worth_something_until_it_ends_and_its_use_is_noted() {
        let (lasting, ending) = (write(&[1; BYTES]), write(&[2; BYTES]));
        let grants = Grants::new([grant(1, &lasting, None), grant(2, &ending, Some(at(100)))]);
        assert_eq!(grants.check(&lasting, at(1000)).map(|grant| grant.id), Some(TokenId(1)));
        assert_eq!(grants.check(&ending, at(100)), None);
        assert_eq!(grants.take_used(), [TokenId(1)]);
        assert_eq!(
            grants.check(&ending, at(99)).map(|grant| grant.actor().to_string()),
            Some("ada (token laptop)".into())
        );
        assert_eq!(grants.take_used(), [TokenId(2)]);
        assert!(grants.take_used().is_empty());
        for other in ["", "lf_", &lasting[..lasting.len() - 1], &lasting.to_uppercase(), &format!("{lasting} ")] {
            assert_eq!(grants.check(other, at(1)), None, "{other}");
        }
        assert_eq!(grants.by_id(TokenId(2), at(100)), None);
        assert!(grants.by_id(TokenId(2), at(99)).is_some());
    }

    #[test]
    fn a_hash_comes_back_from_json_and_prints_nothing_of_itself() {
        let one = grant(1, &write(&[7; BYTES]), None);
        let text = serde_json::to_string(&one).expect("written");
        assert_eq!(serde_json::from_str::<Grant>(&text).expect("read"), one);
        assert!(!format!("{one:?}").contains(&String::from(one.hash)));
        assert!(serde_json::from_str::<TokenHash>("\"ffé\"").is_err());
    }
}
