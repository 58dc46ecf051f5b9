//! Certificates of the API.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A certificate that is shown to clients, or is wanted and not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Certificate {
    /// The host it was ordered for, or the path of its file.
    pub subject: String,
    /// Where it comes from.
    pub origin: CertificateOrigin,
    /// How it stands.
    pub state: CertificateStanding,
    /// The hosts it names; empty while there is none.
    pub names: Vec<String>,
    /// Who issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// From when on it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The last moment it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// When the authority is asked next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_order: Option<Timestamp>,
    /// What is wrong, and how to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CertificateOrigin {
    /// A file of the configuration.
    File,
    /// A certificate authority.
    Acme,
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CertificateStanding {
    /// In use, nothing to do.
    Valid,
    /// In use, and something is wrong: it expires, or its successor cannot be had.
    Troubled,
    /// Ordered, and not there yet.
    Ordered,
    /// There is none, and the last try was in vain.
    Missing,
}

impl CertificateStanding {
    /// The word in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Troubled => "troubled",
            Self::Ordered => "ordered",
            Self::Missing => "missing",
        }
    }
}
