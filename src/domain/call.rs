//! Calls: one request to a function, with its attempts and its one outcome.
//!
//! ```text
//! queued ──attempt begins──► running ──succeeded, or no try is left──► done(outcome)
//!   ▲                           │
//!   └──── another try is due ◄──┘          queued, running ──cancelled──► done(cancelled)
//! ```
//!
//! A run of a schedule is a call with the instant it stands for; one that never starts goes from nothing to done at
//! once, as skipped or missed. Invariant: a call that is done has exactly one [`CallOutcome`] and never another.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{AppKey, ObjectName};

/// Identifies one call for all time: 48 bits of milliseconds since 1970, then 80 random bits. Printed as 26 digits of
/// lower-case base 32 (Crockford's alphabet), so that the order of texts is the order of making, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(extend("pattern" = "^[0-7][0-9a-hjkmnp-tv-z]{25}$"))
)]
#[serde(try_from = "String", into = "String")]
pub struct CallId(u128);

/// How many digits an identifier has.
const DIGITS: u32 = 26;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// The bits that say nothing about time.
const RANDOM_BITS: u32 = 80;

impl CallId {
    /// An identifier made at `now`; `random` supplies its last 80 bits.
    pub fn new(now: Timestamp, random: u128) -> Self {
        let millis = u128::try_from(now.as_millisecond()).unwrap_or(0) & ((1 << 48) - 1);
        Self(millis << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1))
    }

    /// The smallest identifier that can be made at this moment: a border between what is older and what is not.
    pub fn first_at(at: Timestamp) -> Self {
        Self::new(at, 0)
    }

    /// When it was made, to the millisecond.
    pub fn made_at(self) -> Timestamp {
        let millis = i64::try_from(self.0 >> RANDOM_BITS).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Sixteen bytes, in the same order as the identifiers.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The identifier of which these are the bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |place: u32| char::from(ALPHABET[((self.0 >> (5 * place)) & 31) as usize]);
        let text: String = (0..DIGITS).rev().map(digit).collect();
        f.pad(&text)
    }
}

impl FromStr for CallId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            let shown: String = text.chars().take(40).collect();
            format!(
                "`{shown}` is not the identifier of a call; it has {DIGITS} digits, as `landfall calls list` prints"
            )
        };
        // The first of 26 digits has only three bits to say.
        if text.len() != DIGITS as usize || !matches!(text.as_bytes()[0], b'0'..=b'7') {
            return Err(refuse());
        }
        let mut value = 0_u128;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|known| *known == byte).ok_or_else(refuse)?;
            value = value << 5 | digit as u128;
        }
        Ok(Self(value))
    }
}

impl TryFrom<String> for CallId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CallId> for String {
    fn from(id: CallId) -> String {
        id.to_string()
    }
}

/// Which function is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey {
    /// Its app.
    pub app: AppKey,
    /// Its name there.
    pub function: ObjectName,
}

impl FunctionKey {
    /// A key from its two parts.
    pub fn new(app: AppKey, function: ObjectName) -> Self {
        Self { app, function }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.app, self.function)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$each])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it in records, lists and the API.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// From its word.
            pub fn from_recorded(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words!(
    /// How a call ended.
    CallOutcome {
        /// The function answered.
        Succeeded = "succeeded",
        /// The function failed, as often as it may be tried.
        Failed = "failed",
        /// The function took longer than its timeout, as often as it may be tried.
        TimedOut = "timed_out",
        /// Somebody ended it.
        Cancelled = "cancelled",
        /// A run of a schedule that did not start because the one before it was still running.
        SkippedOverlap = "skipped-overlap",
        /// A run of a schedule whose time passed while nothing could start it.
        Missed = "missed",
    }
);

impl CallOutcome {
    /// Whether people want to know why, and may want it tried again.
    pub fn is_failure(self) -> bool {
        matches!(self, CallOutcome::Failed | CallOutcome::TimedOut)
    }
}

words!(
    /// How one attempt of a call ended.
    AttemptOutcome {
        /// The function answered.
        Succeeded = "succeeded",
        /// The function failed, and said so.
        Failed = "failed",
        /// It took longer than the function's timeout.
        TimedOut = "timed_out",
        /// Somebody ended the call.
        Cancelled = "cancelled",
        /// The instance it was on ended under it.
        Crashed = "crashed",
        /// The process that carried it died; nobody knows how far it came.
        Lost = "lost",
        /// It did not reach the function: no instance could be started, or no place was free.
        Refused = "refused",
    }
);

words!(
    /// What made a call.
    Trigger {
        /// Somebody who waits for the answer.
        Call = "call",
        /// Somebody who asks for the outcome later, if at all.
        Spawn = "spawn",
        /// One of many bodies given at once.
        Map = "map",
        /// A schedule, at its time.
        Schedule = "schedule",
        /// Somebody who wanted a schedule's run now.
        Manual = "manual",
        /// Somebody who had a call that failed tried anew.
        Redrive = "redrive",
    }
);

words!(
    /// How a call stands.
    CallState {
        /// It waits for its turn, or for the time of its next attempt.
        Queued = "queued",
        /// An attempt is under way.
        Running = "running",
        /// It has its outcome.
        Done = "done",
    }
);

/// Why a function failed, in its own words where it has any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct CallError {
    /// The sort of error: an exception's class, `exit`, `crash`, `timeout`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In one sentence.
    pub message: String,
    /// Where in the function, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
    /// The exit code of the process that the call was, where it was one and ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl CallError {
    /// An error in Landfall's own words.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), traceback: None, exit_code: None }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_sort_by_time_and_read_as_they_are_printed() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).expect("a time");
        let (early, late) = (CallId::new(at(1_767_225_600_000), u128::MAX), CallId::new(at(1_767_225_600_001), 0));
        assert!(early < late && early.to_string() < late.to_string() && early.to_bytes() < late.to_bytes());
        assert_eq!(late.made_at(), at(1_767_225_600_001));
        for id in [early, late, CallId::new(at(0), 1), CallId::from_bytes([0xff; 16])] {
            assert_eq!(id.to_string().parse(), Ok(id), "{id}");
            assert_eq!(CallId::from_bytes(id.to_bytes()), id);
        }
    }

    #[test]
    fn other_texts_are_no_identifiers() {
        for text in ["", "7", "zzzzzzzzzzzzzzzzzzzzzzzzzz", "0000000000000000000000000u", "ü000000000000000000000000"]
        {
            assert!(text.parse::<CallId>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_outcome_is_read_back_as_itself() {
        for outcome in CallOutcome::ALL {
            assert_eq!(CallOutcome::from_recorded(outcome.as_str()), Some(*outcome));
        }
        assert_eq!(CallOutcome::from_recorded("lost"), None);
        assert_eq!(AttemptOutcome::from_recorded("lost"), Some(AttemptOutcome::Lost));
    }
}
