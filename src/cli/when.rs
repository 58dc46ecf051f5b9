//! Points in time and lengths of time, as people write and read them.
//!
//! Everything printed is UTC and independent of the locale, so that two people looking at two machines
//! see the same text.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Why a text is neither a time nor a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time; write a length like 30m, 2h, 7d or a time like 2026-03-01T12:00:00Z")]
pub struct WhenError(String);

/// A point in time given as such or as a distance from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// That long from now (or ago, as the option says).
    Distance(SignedDuration),
    /// Exactly then.
    At(Timestamp),
}

impl When {
    /// The point in the future.
    pub fn ahead(self, now: Timestamp) -> Timestamp {
        match self {
            When::Distance(distance) => now.saturating_add(distance).unwrap_or(Timestamp::MAX),
            When::At(at) => at,
        }
    }

    /// The point in the past.
    pub fn ago(self, now: Timestamp) -> Timestamp {
        match self {
            When::Distance(distance) => now.saturating_sub(distance).unwrap_or(Timestamp::MIN),
            When::At(at) => at,
        }
    }
}

impl std::str::FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        if let Some(length) = length(text) {
            return SignedDuration::try_from(length).map(When::Distance).map_err(|_| WhenError(text.to_owned()));
        }
        text.parse().map(When::At).map_err(|_| WhenError(text.to_owned()))
    }
}

/// Reads an option like `--timeout 5m`.
pub fn parse_length(text: &str) -> Result<Duration, WhenError> {
    length(text).ok_or_else(|| WhenError(text.to_owned()))
}

/// `500ms`, `30s`, `5m`, `2h`, `7d`, and sums of them (`1h30m`).
fn length(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let millis = match rest.get(digits..unit_end)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(millis)?)?;
        rest = rest.get(unit_end..)?;
    }
    Some(Duration::from_millis(total))
}

/// `2026-03-01 12:00:00Z`
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `2026-03-01T12:00:00.123Z`, for log lines.
pub fn precise(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// `12:00:00`, for lines that come as things happen.
pub fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// `3 s ago`, `2 min ago`, `5 h ago`, `9 d ago`, and the other way round.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    let text = match seconds.unsigned_abs() {
        0..=1 => return "now".to_owned(),
        s @ 2..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    };
    if seconds < 0 { format!("in {text}") } else { format!("{text} ago") }
}

/// `38 ms`, `1.2 s`, `2 min 5 s`.
pub fn elapsed(length: SignedDuration) -> String {
    let millis = length.as_millis().max(0);
    match millis {
        0..=999 => format!("{millis} ms"),
        1000..=59_999 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        60_000..=3_599_999 => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1000),
        _ => format!("{} h {} min", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_times_are_both_understood() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for (text, ahead) in [
            ("30m", "2026-03-01T12:30:00Z"),
            ("1h30m", "2026-03-01T13:30:00Z"),
            ("7d", "2026-03-08T12:00:00Z"),
            ("2026-05-01T00:00:00+02:00", "2026-04-30T22:00:00Z"),
        ] {
            assert_eq!(text.parse::<When>().unwrap().ahead(now), ahead.parse().unwrap(), "{text}");
        }
        assert_eq!("2h".parse::<When>().unwrap().ago(now), "2026-03-01T10:00:00Z".parse().unwrap());
        for text in ["", "5", "m", "5x", "tomorrow", "5m3", "99999999999999999999d"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn distances_beyond_the_calendar_stop_at_its_ends() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        assert_eq!("9999999d".parse::<When>().unwrap().ahead(now), Timestamp::MAX);
    }

    #[test]
    fn times_read_alike_everywhere() {
        let at: Timestamp = "2026-03-01T12:00:05.123Z".parse().unwrap();
        let now: Timestamp = "2026-03-01T12:03:05Z".parse().unwrap();
        assert_eq!(stamp(at), "2026-03-01 12:00:05Z");
        assert_eq!(precise(at), "2026-03-01T12:00:05.123Z");
        assert_eq!(relative(at, now), "2 min ago");
        assert_eq!(relative(now, at), "in 2 min");
        assert_eq!(elapsed(SignedDuration::from_millis(38)), "38 ms");
        assert_eq!(elapsed(SignedDuration::from_millis(1234)), "1.2 s");
        assert_eq!(elapsed(SignedDuration::from_millis(125_000)), "2 min 5 s");
    }
}
