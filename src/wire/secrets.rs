//! The API's types of secrets. No answer holds a value.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/secrets` | array of [`Secret`] |
//! | `POST /v1/secrets` [`SetSecret`] | [`Secret`] |
//! | `POST /v1/secrets/remove` [`NamedSecret`] | `{}` |
//! | `POST /v1/secrets/rotate-key` | [`Rotated`] |

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{AppName, EnvironmentName, SecretName};

/// A stored secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Secret {
    /// Its name.
    pub secret: SecretName,
    /// The environment whose apps get it.
    pub environment: EnvironmentName,
    /// The one app that gets it; `None` for all.
    pub app: Option<AppName>,
    /// How often it was set.
    pub revision: u32,
    /// Name of the key it is sealed with.
    pub key: String,
    /// Who set it last.
    pub set_by: String,
    /// When.
    pub set_at: Timestamp,
}

/// Which secret is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedSecret {
    /// Its name.
    pub secret: SecretName,
    /// Its environment; the agent's own if none is named.
    #[serde(default)]
    pub environment: Option<EnvironmentName>,
    /// The one app it is for.
    #[serde(default)]
    pub app: Option<AppName>,
}

/// A secret that is to be stored.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// Its name.
    pub secret: SecretName,
    /// Its environment; the agent's own if none is named.
    #[serde(default)]
    pub environment: Option<EnvironmentName>,
    /// The one app it is for.
    #[serde(default)]
    pub app: Option<AppName>,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for SetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, environment, app, value: _ } = self;
        f.debug_struct("SetSecret")
            .field("secret", secret)
            .field("environment", environment)
            .field("app", app)
            .finish_non_exhaustive()
    }
}

/// A key was rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Rotated {
    /// Name of the new key.
    pub key: String,
    /// Secrets that were sealed anew.
    pub secrets: usize,
}

/// What a version was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct UsedSecret {
    /// The variable, or the key that gave it to a build: `build.secrets.npmrc`.
    pub variable: String,
    /// The secret's name.
    pub secret: SecretName,
    /// `app` or `environment` for a stored one, `file PATH` for one out of an encrypted file of the app's directory, else
    /// `files`, `variable` or `command`.
    pub from: String,
    /// The revision of a stored one; of others a mark that is another for another value, or another file.
    pub revision: String,
}
