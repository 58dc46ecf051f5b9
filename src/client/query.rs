//! Query strings, and the filters of log calls.

use jiff::Timestamp;

use crate::domain::{CallId, VersionNumber};

/// Which lines of an app's log are wanted. The default is every line there is, without waiting for more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Go on with new lines as they come.
    pub follow: bool,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Not newer than this.
    pub until: Option<Timestamp>,
    /// Only the last so many of what is there already.
    pub tail: Option<usize>,
    /// Only this object (`build` for builds).
    pub object: Option<String>,
    /// Only this version.
    pub version: Option<VersionNumber>,
    /// Only this instance.
    pub instance: Option<String>,
    /// Only `stdout`, `stderr` or `system`.
    pub source: Option<String>,
    /// Only what was written in this call.
    pub call: Option<CallId>,
}

/// A path with its query, encoded as it is built.
#[derive(Debug, Clone)]
pub(super) struct Route {
    text: String,
    has_query: bool,
}

impl Route {
    /// A route from its segments below `/v1`.
    pub(super) fn new(segments: &[&str]) -> Self {
        let mut text = String::from("/v1");
        for segment in segments {
            text.push('/');
            encode(segment, &mut text);
        }
        Self { text, has_query: false }
    }

    /// Adds `key=value`, where there is a value.
    pub(super) fn with(mut self, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.text.push(if self.has_query { '&' } else { '?' });
            self.has_query = true;
            self.text.push_str(key);
            self.text.push('=');
            encode(&value.to_string(), &mut self.text);
        }
        self
    }

    /// Adds the filters of a log call.
    pub(super) fn with_logs(self, query: &LogQuery) -> Self {
        self.with("follow", query.follow.then_some(true))
            .with("since", query.since)
            .with("until", query.until)
            .with("tail", query.tail)
            .with("object", query.object.as_deref())
            .with("version", query.version.map(VersionNumber::get))
            .with("instance", query.instance.as_deref())
            .with("source", query.source.as_deref())
            .with("call", query.call)
    }

    /// The encoded text.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn encode(value: &str, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            other => {
                into.push('%');
                into.push(char::from(HEX[usize::from(other >> 4)]));
                into.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_their_place() {
        let route = Route::new(&["apps", "a/../b"]).with("reason", Some("50 % & more=ü?#")).with("none", None::<&str>);
        assert_eq!(route.as_str(), "/v1/apps/a%2F..%2Fb?reason=50%20%25%20%26%20more%3D%C3%BC%3F%23");
    }

    #[test]
    fn a_log_query_names_only_what_was_asked_for() {
        let plain = Route::new(&["logs"]).with_logs(&LogQuery::default());
        assert_eq!(plain.as_str(), "/v1/logs");
        let query = LogQuery { follow: true, tail: Some(5), version: VersionNumber::new(3), ..LogQuery::default() };
        assert_eq!(Route::new(&["logs"]).with_logs(&query).as_str(), "/v1/logs?follow=true&tail=5&version=3");
    }
}
