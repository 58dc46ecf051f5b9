//! What is known of an attempt once it has ended, and the bodies that calls carry.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::call::{AttemptOutcome, CallError, CallId};
use super::hex;
use super::id::{InstanceId, VersionNumber};

/// A body up to this many bytes travels and is recorded with its call; a longer one lies in a file of its own.
pub const INLINE: usize = 64 * 1024;

/// One attempt among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The call.
    pub call: CallId,
    /// Counted from 1.
    pub attempt: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attempt {}", self.call, self.attempt)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AttemptEnd {
    /// In one word.
    pub outcome: AttemptOutcome,
    /// When.
    pub ended_at: Timestamp,
    /// The version whose code ran, where it came so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// The instance it was on, where it came so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Where the time went.
    #[serde(flatten)]
    pub times: Times,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
}

impl AttemptEnd {
    /// An end that was found out rather than reported: there is nothing to say but the word and the reason.
    pub fn without_report(outcome: AttemptOutcome, ended_at: Timestamp, error: Option<CallError>) -> Self {
        Self { outcome, ended_at, version: None, instance: None, times: Times::default(), error }
    }
}

/// Where the time of an attempt went, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Times {
    /// Waiting for a free place, the start of an instance included.
    pub queued_us: u64,
    /// Of that, waiting while no instance was ready.
    pub starting_us: u64,
    /// In the function.
    pub running_us: u64,
}

/// Bytes that travel as JSON: as text where they are text, as hexadecimal digits otherwise.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    Text(String),
    Hex(String),
}

impl From<Blob> for Written {
    fn from(blob: Blob) -> Self {
        String::from_utf8(blob.0).map_or_else(|error| Written::Hex(hex::encode(error.as_bytes())), Written::Text)
    }
}

impl TryFrom<Written> for Blob {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        match written {
            Written::Text(text) => Ok(Self(text.into_bytes())),
            Written::Hex(digits) => hex::decode(&digits).map(Self).ok_or("not hexadecimal digits"),
        }
    }
}

/// Where a body is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Here.
    Inline(Blob),
    /// In the file named after its call.
    File,
    /// No longer kept.
    Expired,
}

/// What a call carries in, or brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Its media type, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<String>,
    /// Its length.
    pub bytes: u64,
    /// Where it is.
    pub place: Place,
}

impl Payload {
    /// A body that is short enough to go along.
    pub fn inline(media: Option<String>, bytes: Vec<u8>) -> Self {
        Self { media, bytes: bytes.len() as u64, place: Place::Inline(Blob(bytes)) }
    }

    /// A body of this length in the file named after its call.
    pub fn file(media: Option<String>, bytes: u64) -> Self {
        Self { media, bytes, place: Place::File }
    }
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResult {
    /// The HTTP status the function answered with.
    pub status: u16,
    /// What it answered.
    pub payload: Payload,
}

/// The file of a body that is too long to go along, below `<data_dir>/calls`.
pub fn body_file(call: CallId) -> String {
    format!("{call}.body")
}

/// The file of a result that is too long to go along, below `<data_dir>/calls`.
pub fn result_file(attempt: AttemptId) -> String {
    format!("{}.{}.result", attempt.call, attempt.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were_whether_they_are_text_or_not() {
        for bytes in [b"".to_vec(), b"{\"a\": 1}".to_vec(), "gr\u{fc}n\0".as_bytes().to_vec(), vec![0, 255, 128, 10]] {
            let text = serde_json::to_string(&Blob(bytes.clone())).expect("written");
            let back: Blob = serde_json::from_str(&text).expect("read");
            assert_eq!(back.0, bytes, "{text}");
        }
        for bad in [r#"{"hex":"0"}"#, r#"{"hex":"0g"}"#, r#"{"hex":"\u00fc"}"#] {
            assert!(serde_json::from_str::<Blob>(bad).is_err(), "{bad}");
        }
    }
}
