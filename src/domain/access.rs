//! Who asks, and what they may do.
//!
//! Every request has one [`Access`]: an actor, a [`Scope`], and how it was known. A scope is a set of [`Verb`]s and,
//! where it is narrower than the whole agent, patterns of apps. Invariants: `admin` is every verb; a scope with
//! patterns reaches the apps they match and nothing of the agent as a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::{Actor, AppKey};
use super::token::TokenHash;

/// What a request does. Independent of each other, but for `admin`, which is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Look at things.
    Read,
    /// Call functions, and web endpoints with `auth: token`.
    Call,
    /// Change what apps run.
    Deploy,
    /// Tokens, the audit log, and everything else.
    Admin,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Call, Self::Deploy, Self::Admin];

    /// The word on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Call => "call",
            Verb::Deploy => "deploy",
            Verb::Admin => "admin",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|verb| verb.as_str()).collect();
            format!("`{text}` is no verb of a scope; choose from {}", all.join(", "))
        })
    }
}

/// Which apps: `shop`, `shop-*`, `prod/*`, `prod/shop`. `*` stands for any characters; without an environment every
/// environment is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct AppPattern(String);

/// Longest pattern: both names at their longest, and the stars between.
const LONGEST_PATTERN: usize = 120;

impl AppPattern {
    /// Whether it names this app.
    pub fn matches(&self, key: &AppKey) -> bool {
        match self.0.split_once('/') {
            Some((environment, app)) => globs(environment, key.environment.as_str()) && globs(app, key.app.as_str()),
            None => globs(&self.0, key.app.as_str()),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is `pattern`, where each `*` stands for any characters. Takes at most the product of both lengths.
pub(super) fn globs(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where to go on when what followed the last star did not fit.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, read));
            at += 1;
        } else if pattern.get(at) == text.get(read) {
            at += 1;
            read += 1;
        } else if let Some((place, taken)) = star {
            star = Some((place, taken + 1));
            at = place + 1;
            read = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl fmt::Display for AppPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AppPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '*' | '/');
        let parts: Vec<&str> = text.split('/').collect();
        let whole = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty());
        if whole && text.len() <= LONGEST_PATTERN && text.chars().all(known) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` names no apps; write `shop`, `shop-*`, `prod/*` or `prod/shop`"))
        }
    }
}

impl TryFrom<String> for AppPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AppPattern> for String {
    fn from(pattern: AppPattern) -> Self {
        pattern.0
    }
}

/// What somebody may do, and to which apps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Scope {
    /// What.
    pub verbs: Vec<Verb>,
    /// To which apps; none named is the whole agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppPattern>,
}

impl Scope {
    /// Everything.
    pub fn everything() -> Self {
        Self { verbs: Verb::ALL.to_vec(), apps: Vec::new() }
    }

    /// Looking at everything.
    pub fn reading() -> Self {
        Self { verbs: vec![Verb::Read], apps: Vec::new() }
    }

    /// Whether the verb is among its own.
    pub fn has(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb) || self.verbs.contains(&Verb::Admin)
    }

    /// Whether it is narrower than the whole agent.
    pub fn is_narrow(&self) -> bool {
        !self.apps.is_empty()
    }

    /// Whether it reaches this app.
    pub fn reaches(&self, key: &AppKey) -> bool {
        self.apps.is_empty() || self.apps.iter().any(|pattern| pattern.matches(key))
    }

    /// Whether it may do this, to an app or, where none is named, to the agent as a whole.
    pub fn may(&self, verb: Verb, over: Option<&AppKey>) -> Result<(), Denied> {
        if !self.has(verb) {
            return Err(Denied::Verb(verb));
        }
        match over {
            Some(key) if !self.reaches(key) => Err(Denied::App),
            None if self.is_narrow() => Err(Denied::Whole),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs: Vec<&str> = self.verbs.iter().map(|verb| verb.as_str()).collect();
        f.write_str(&verbs.join(","))?;
        let apps: Vec<&str> = self.apps.iter().map(AppPattern::as_str).collect();
        if apps.is_empty() { Ok(()) } else { write!(f, " on {}", apps.join(",")) }
    }
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The verb is missing.
    #[error("this needs the verb `{0}`, which the scope does not have")]
    Verb(Verb),
    /// The app is not among those of the scope.
    #[error("the scope does not reach this app")]
    App,
    /// The scope is for some apps, and this concerns the agent as a whole.
    #[error("this concerns the agent as a whole, and the scope is for some apps only")]
    Whole,
}

/// The number of a token in the ledger; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct TokenId(pub i64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How it is known who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The kernel vouches for a user of this machine.
    LocalUser,
    /// Somebody on this machine, over the loopback.
    Loopback,
    /// A token came with the request.
    Token(TokenId),
    /// A browser that was signed in with a token.
    Session(TokenId),
    /// A browser whose person a provider of identities vouches for; the hash of who they are there.
    Person(TokenHash),
}

/// Who asks, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The actor recorded with every change.
    pub actor: Actor,
    /// What they may do.
    pub scope: Scope,
    /// How they are known.
    pub via: Via,
}

impl Via {
    /// Whether it is a browser that has signed in.
    pub fn is_session(&self) -> bool {
        matches!(self, Via::Session(_) | Via::Person(_))
    }
}

impl Access {
    /// Whether they may do this, to an app or, where none is named, to the agent as a whole.
    pub fn may(&self, verb: Verb, over: Option<&AppKey>) -> Result<(), Denied> {
        self.scope.may(verb, over)
    }

    /// Whether they may know of this app.
    pub fn sees(&self, key: &AppKey) -> bool {
        self.may(Verb::Read, Some(key)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(environment: &str, app: &str) -> AppKey {
        AppKey::new(environment.parse().expect("a name"), app.parse().expect("a name"))
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let table = [
            ("shop", "main", "shop", true),
            ("shop", "prod", "shop", true),
            ("shop", "main", "shop-2", false),
            ("shop-*", "main", "shop-2", true),
            ("shop-*", "main", "shop", false),
            ("*", "main", "anything", true),
            ("prod/*", "prod", "shop", true),
            ("prod/*", "main", "shop", false),
            ("p*/s*p", "prod", "shop", true),
            ("p*/s*p", "prod", "shops", false),
            ("a*b*c", "main", "axbxbxd", false),
            ("a*b*c", "main", "axbxbxc", true),
        ];
        for (pattern, environment, app, wanted) in table {
            let parsed: AppPattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.matches(&key(environment, app)), wanted, "{pattern} and {environment}/{app}");
        }
        for bad in ["", "/", "a/", "/b", "a/b/c", "Shop", "a b", "shop?", &"a".repeat(200)] {
            assert!(bad.parse::<AppPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn verbs_are_independent_but_for_admin() {
        for has in Verb::ALL {
            let scope = Scope { verbs: vec![has], apps: Vec::new() };
            for asked in Verb::ALL {
                let wanted = if has == asked || has == Verb::Admin { Ok(()) } else { Err(Denied::Verb(asked)) };
                assert_eq!(scope.may(asked, None), wanted, "{has} asks for {asked}");
            }
        }
    }

    #[test]
    fn a_scope_for_some_apps_reaches_those_and_nothing_of_the_agent() {
        let scope = Scope { verbs: vec![Verb::Admin], apps: vec!["prod/shop-*".parse().expect("a pattern")] };
        assert_eq!(scope.may(Verb::Deploy, Some(&key("prod", "shop-a"))), Ok(()));
        assert_eq!(scope.may(Verb::Deploy, Some(&key("main", "shop-a"))), Err(Denied::App));
        assert_eq!(scope.may(Verb::Read, None), Err(Denied::Whole));
        assert_eq!(scope.to_string(), "admin on prod/shop-*");
    }
}
