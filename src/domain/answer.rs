//! What a web request got, in the five classes that HTTP has for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first digit of an answer's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum AnswerClass {
    /// The protocol was changed: a WebSocket.
    #[serde(rename = "1xx")]
    Informational,
    /// It was answered.
    #[serde(rename = "2xx")]
    Successful,
    /// It was sent elsewhere, or told that nothing has changed.
    #[serde(rename = "3xx")]
    Redirected,
    /// The client was wrong, or went before it had an answer (499, as in the access log).
    #[serde(rename = "4xx")]
    ClientError,
    /// The app or Landfall had no answer.
    #[serde(rename = "5xx")]
    ServerError,
}

impl AnswerClass {
    /// All of them, in order.
    pub const ALL: [Self; 5] =
        [Self::Informational, Self::Successful, Self::Redirected, Self::ClientError, Self::ServerError];

    /// That of a status. What is no status of HTTP is a fault of the server.
    pub fn of(status: u16) -> Self {
        match status {
            100..200 => Self::Informational,
            200..300 => Self::Successful,
            300..400 => Self::Redirected,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// `2xx`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Successful => "2xx",
            Self::Redirected => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

impl fmt::Display for AnswerClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_class_and_every_class_its_word() {
        let of = |status| AnswerClass::of(status).as_str();
        assert_eq!([101, 204, 304, 499, 503, 999].map(of), ["1xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
        for class in AnswerClass::ALL {
            assert_eq!(serde_json::to_value(class).expect("JSON"), class.as_str());
        }
    }
}
