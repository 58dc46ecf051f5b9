//! Spans as OTLP in its JSON form (opentelemetry-proto 1, `ExportTraceServiceRequest`): identifiers as hexadecimal digits,
//! 64-bit integers as text.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::trace::SpanId;

/// A piece of work with its beginning and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// 32 hexadecimal digits.
    pub trace: String,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: String,
    pub kind: Kind,
    pub start: Timestamp,
    pub end: Timestamp,
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it did not succeed.
    pub error: Option<String>,
}

/// How a span stands to others, by the number of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    /// Somebody waits for it.
    Server = 2,
    /// It was put in line by somebody who does not wait.
    Consumer = 5,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// The body of a request with these spans.
pub(super) fn request(spans: &[Span], service: &str) -> Vec<u8> {
    let resource = [("service.name", Value::from(service)), ("service.version", env!("CARGO_PKG_VERSION").into())];
    let request = Request {
        resource_spans: [ResourceSpans {
            resource: Resource { attributes: resource.iter().map(attribute).collect() },
            scope_spans: [ScopeSpans {
                scope: Scope { name: "landfall", version: env!("CARGO_PKG_VERSION") },
                spans: spans.iter().map(written).collect(),
            }],
        }],
    };
    // Texts and numbers only: nothing of it can fail.
    serde_json::to_vec(&request).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    resource_spans: [ResourceSpans; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    scope_spans: [ScopeSpans; 1],
}

#[derive(Serialize)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Written>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    code: u8,
    message: String,
}

/// `STATUS_CODE_ERROR`
const ERROR: u8 = 2;

#[derive(Serialize)]
struct Attribute {
    key: &'static str,
    value: AnyValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

fn attribute((key, value): &(&'static str, Value)) -> Attribute {
    let value = match value {
        Value::Text(text) => AnyValue::StringValue(text.clone()),
        Value::Number(number) => AnyValue::IntValue(number.to_string()),
    };
    Attribute { key, value }
}

fn written(span: &Span) -> Written {
    let nanos = |at: Timestamp| at.as_nanosecond().max(0).to_string();
    Written {
        trace_id: span.trace.clone(),
        span_id: span.id.to_string(),
        parent_span_id: span.parent.map(|parent| parent.to_string()),
        name: span.name.clone(),
        kind: span.kind as u8,
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.iter().map(attribute).collect(),
        status: span.error.clone().map(|message| Status { code: ERROR, message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_protocol_says() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let span = Span {
            trace: "0af7651916cd43dd8448eb211c80319c".into(),
            id: SpanId::new(0xb7),
            parent: None,
            name: "call shop resize".into(),
            kind: Kind::Server,
            start: at(1),
            end: at(2),
            attributes: vec![("landfall.version", 3.into()), ("landfall.app", "shop".into())],
            error: Some("it broke".into()),
        };
        let body: serde_json::Value = serde_json::from_slice(&request(&[span], "ours")).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "ours");
        let span = &resource["scopeSpans"][0]["spans"][0];
        let expected = serde_json::json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "00000000000000b7", "name": "call shop resize",
            "kind": 2, "startTimeUnixNano": "1000000000", "endTimeUnixNano": "2000000000",
            "attributes": [
                {"key": "landfall.version", "value": {"intValue": "3"}},
                {"key": "landfall.app", "value": {"stringValue": "shop"}},
            ],
            "status": {"code": 2, "message": "it broke"},
        });
        assert_eq!(span, &expected);
    }
}
