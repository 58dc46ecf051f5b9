//! Names and identifiers. Text from outside becomes one of these at the door or is refused;
//! inside the house no `String` means one of them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of an app, object, source or environment, in bytes. Short enough that
/// `<app>-<object>` stays below the 63 bytes of a DNS label for every sensible pair.
pub const MAX_NAME: usize = 40;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`MAX_NAME`].
    #[error("`{0}` is {1} characters long, at most {MAX_NAME} are allowed")]
    TooLong(String, usize),
    /// The text starts with something else than a letter.
    #[error("`{0}` must start with a letter a-z")]
    Start(String),
    /// The text has a character outside `a-z 0-9 -`.
    #[error("`{0}` contains `{1}`; only a-z, 0-9 and - are allowed")]
    Character(String, char),
    /// The text ends with a hyphen, which no host name may.
    #[error("`{0}` must not end with `-`")]
    End(String),
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(c) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character(shorten(text), c));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(NameError::Start(shorten(text)));
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong(shorten(text), text.len()));
    }
    if text.ends_with('-') {
        return Err(NameError::End(shorten(text)));
    }
    Ok(())
}

/// Keeps an error about a name readable when the "name" is a page of text.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(
            feature = "schemars",
            derive(schemars::JsonSchema),
            schemars(extend("pattern" = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"))
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_name(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of an app within its environment: `a-z 0-9 -`, starts with a letter, at most [`MAX_NAME`].
    AppName
);
name_type!(
    /// The name of a secret.
    SecretName
);
name_type!(
    /// The name of an environment (`main`, `dev`, `prod`).
    EnvironmentName
);
name_type!(
    /// The name of a `web` endpoint or a `worker` within its app.
    ObjectName
);
name_type!(
    /// The name of a source in the agent's configuration.
    SourceName
);

/// What identifies an app on an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AppKey {
    /// The environment the app lives in.
    pub environment: EnvironmentName,
    /// The app's name there.
    pub app: AppName,
}

impl AppKey {
    /// A key from its two parts.
    pub fn new(environment: EnvironmentName, app: AppName) -> Self {
        Self { environment, app }
    }
}

impl fmt::Display for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.app)
    }
}

/// The number of a version: dense per app, starts at 1, never reused.
/// Reads `7` and `v7`, prints `v7`, is the number 7 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct VersionNumber(NonZeroU32);

impl VersionNumber {
    /// The first version of every app.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The number as a plain integer.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// A version number from an integer; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("v{}", self.0))
    }
}

impl FromStr for VersionNumber {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix('v')
            .unwrap_or(text)
            .parse::<u32>()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| format!("`{text}` is not a version; write v3 or 3"))
    }
}

macro_rules! hex_type {
    ($(#[$doc:meta])* $name:ident, $min:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(
            feature = "schemars",
            derive(schemars::JsonSchema),
            schemars(extend("pattern" = "^[0-9a-f]{40,64}$"))
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The full lower-case hexadecimal text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 7 digits, as people know them from git.
            pub fn short(&self) -> &str {
                self.0.get(..7).unwrap_or(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let ok = ($min..=$max).contains(&text.len())
                    && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if ok { Ok(Self(text)) } else { Err(format!("`{}` is not a hash", shorten(&text))) }
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

hex_type!(
    /// A git commit, 40 (SHA-1) or 64 (SHA-256) hexadecimal digits.
    CommitId, 40, 64
);
hex_type!(
    /// A git tree, 40 or 64 hexadecimal digits.
    TreeId, 40, 64
);
hex_type!(
    /// The identity of an app's content: a SHA-256 over its normalised manifest, its file tree and the trees it includes.
    ContentId, 64, 64
);

/// Identifies one instance for all time: `<app>-<object>-v<version>-<8 random base32 digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct InstanceId(String);

impl InstanceId {
    /// Builds an identifier; `random` supplies its last part.
    pub fn new(app: &AppName, object: &str, version: VersionNumber, random: u64) -> Self {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let tail: String = (0..8).map(|i| char::from(DIGITS[((random >> (5 * i)) & 31) as usize])).collect();
        Self(format!("{app}-{object}-{version}-{tail}"))
    }

    /// Takes an identifier that was made by [`InstanceId::new`] earlier.
    pub fn from_recorded(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// A user of this machine, known by the peer of the Unix socket.
    User {
        /// Login name, or `uid 1000` when it has none.
        name: String,
    },
    /// Whoever has a token.
    Token {
        /// The token's name.
        token: String,
        /// Whom it was made for.
        name: String,
    },
    /// Somebody whom the configured provider of identities (OpenID Connect) vouches for.
    Person {
        /// The verified address, or what the provider calls them.
        name: String,
    },
    /// A commit that a source delivered.
    Source {
        /// The source.
        source: SourceName,
    },
    /// An instance of an app, by the token it was given.
    App {
        /// The app.
        #[serde(flatten)]
        app: AppKey,
        /// The version whose code it runs.
        version: VersionNumber,
    },
    /// The agent itself (automatic rollback, retention).
    Agent,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::User { name } => f.pad(name),
            Actor::Token { token, name } if token == name => f.pad(&format!("token {token}")),
            Actor::Token { token, name } => f.pad(&format!("{name} (token {token})")),
            Actor::Person { name } => f.pad(&format!("oidc:{name}")),
            Actor::Source { source } => f.pad(&format!("source {source}")),
            Actor::App { app, version } => f.pad(&format!("app {app} {version}")),
            Actor::Agent => f.pad("agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_host_names() {
        for good in ["a", "shop", "shop-2", "a1-b2-c3"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        assert_eq!("".parse::<AppName>(), Err(NameError::Empty));
        assert_eq!("2shop".parse::<AppName>(), Err(NameError::Start("2shop".into())));
        assert_eq!("Shop".parse::<AppName>(), Err(NameError::Character("Shop".into(), 'S')));
        assert_eq!("shop-".parse::<AppName>(), Err(NameError::End("shop-".into())));
        let long = "a".repeat(41);
        assert_eq!(long.parse::<AppName>(), Err(NameError::TooLong(long.clone(), 41)));
        assert!("a".repeat(40).parse::<AppName>().is_ok());
    }

    #[test]
    fn a_version_reads_with_and_without_its_v() {
        assert_eq!("v7".parse::<VersionNumber>().map(VersionNumber::get), Ok(7));
        assert_eq!("7".parse::<VersionNumber>().map(VersionNumber::get), Ok(7));
        for bad in ["0", "v0", "", "v", "-1", "latest"] {
            assert!(bad.parse::<VersionNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instance_identifiers_show_what_they_are() {
        let app: AppName = "shop".parse().expect("a name");
        let id = InstanceId::new(&app, "main", VersionNumber::FIRST, 0);
        assert_eq!(id.as_str(), "shop-main-v1-aaaaaaaa");
    }
}
