//! The answers Landfall gives itself, when no instance could.
//!
//! Pure. Each is marked with `Landfall-Error: <code>`, so that a person with `curl -i` and a monitoring system can tell
//! them from an app's own, and carries a reason and a mend: JSON (RFC 9457), or a small page for browsers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::domain::manifest::{Bytes as Size, Millis};
use crate::domain::{AppKey, Denied};
use crate::wire::api::Problem;

/// `Landfall-Error`
pub const LANDFALL_ERROR: HeaderName = HeaderName::from_static("landfall-error");

/// Why Landfall answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The request names no host, or several.
    BadHost,
    /// The path can be read in two ways that lead to different objects.
    AmbiguousPath,
    /// `CONNECT`: this is no forward proxy.
    Connect,
    /// `TRACE`.
    Trace,
    /// No app has this host.
    UnknownHost,
    /// The host is known, the path is not.
    UnknownPath,
    /// The body is larger than the route allows.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The client stopped sending.
    UploadStalled,
    /// There is no ready instance, and there will be none soon.
    NotReady {
        /// Why, in the controller's words.
        reason: String,
    },
    /// As many requests wait as may wait.
    QueueFull,
    /// The request waited as long as it may.
    QueueTimeout,
    /// No connection to the instance.
    Unreachable,
    /// The connection to the instance broke before there was an answer.
    Broken,
    /// The instance gave no answer in time.
    Timeout,
    /// The instance was stopped while the request was under way.
    Cut,
    /// A call names no app that runs.
    UnknownApp {
        /// The app.
        app: AppKey,
        /// One that may have been meant, and that whoever calls may know of.
        near: Option<String>,
    },
    /// A call names no function of its app.
    UnknownFunction {
        /// One that may have been meant.
        near: Option<String>,
    },
    /// A call names a version that has no instances and is not being started.
    UnknownVersion,
    /// A call cannot be understood.
    BadCall {
        /// Why.
        reason: String,
    },
    /// A call came without a token of an instance, or with one that is not from here.
    NoToken,
    /// What is asked for needs the controller, and none answers.
    NoController,
    /// This needs a token, and there is none.
    TokenMissing,
    /// The token is worth nothing: mistyped, revoked, or over.
    TokenUnknown,
    /// The token's scope does not reach this.
    TokenRefused {
        /// Why.
        denied: Denied,
    },
    /// Too many wrong tokens came from this address.
    TooManyWrong,
    /// As many calls wait as may wait.
    CallsFull,
    /// A call waited as long as it may.
    CallQueueTimeout,
    /// A call was not over at its deadline.
    CallTimeout {
        /// The function's timeout.
        limit: Duration,
    },
    /// The instance ended while the call ran.
    CallBroken,
    /// The instance ran out of memory while the call ran.
    OutOfMemory {
        /// Its `resources.memory`, where it has one.
        limit: Option<Size>,
    },
    /// Somebody ended the call.
    CallCancelled,
}

impl Trouble {
    /// Status and stable code.
    pub fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Trouble::BadHost => (StatusCode::BAD_REQUEST, "bad_host"),
            Trouble::AmbiguousPath => (StatusCode::BAD_REQUEST, "ambiguous_path"),
            Trouble::Connect => (StatusCode::NOT_IMPLEMENTED, "connect_refused"),
            Trouble::Trace => (StatusCode::METHOD_NOT_ALLOWED, "trace_refused"),
            Trouble::UnknownHost => (StatusCode::NOT_FOUND, "unknown_host"),
            Trouble::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Trouble::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Trouble::UploadStalled => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Trouble::NotReady { .. } => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            Trouble::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
            Trouble::QueueTimeout => (StatusCode::SERVICE_UNAVAILABLE, "queue_timeout"),
            Trouble::Unreachable => (StatusCode::BAD_GATEWAY, "instance_unreachable"),
            Trouble::Broken => (StatusCode::BAD_GATEWAY, "instance_broke_off"),
            Trouble::Timeout => (StatusCode::GATEWAY_TIMEOUT, "instance_timeout"),
            Trouble::Cut => (StatusCode::SERVICE_UNAVAILABLE, "instance_stopped"),
            Trouble::UnknownApp { .. } => (StatusCode::NOT_FOUND, "unknown_app"),
            Trouble::UnknownFunction { .. } => (StatusCode::NOT_FOUND, "unknown_function"),
            Trouble::UnknownVersion => (StatusCode::NOT_FOUND, "unknown_version"),
            Trouble::BadCall { .. } => (StatusCode::BAD_REQUEST, "bad_call"),
            Trouble::NoToken => (StatusCode::UNAUTHORIZED, "no_token"),
            Trouble::NoController => (StatusCode::SERVICE_UNAVAILABLE, "no_controller"),
            Trouble::TokenMissing => (StatusCode::UNAUTHORIZED, "no_token"),
            Trouble::TokenUnknown => (StatusCode::UNAUTHORIZED, "unknown_token"),
            Trouble::TokenRefused { .. } => (StatusCode::FORBIDDEN, "token_refused"),
            Trouble::TooManyWrong => (StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_tokens"),
            Trouble::CallsFull => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Trouble::CallQueueTimeout => (StatusCode::GATEWAY_TIMEOUT, "queue_timeout"),
            Trouble::CallTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "call_timeout"),
            Trouble::CallBroken => (StatusCode::BAD_GATEWAY, "instance_ended"),
            Trouble::OutOfMemory { .. } => (StatusCode::BAD_GATEWAY, "out_of_memory"),
            Trouble::CallCancelled => (StatusCode::CONFLICT, "call_cancelled"),
        }
    }

    /// What happened, in one sentence.
    pub fn what(&self) -> String {
        self.words().0
    }

    /// What happened, and what to do.
    fn words(&self) -> (String, &'static str) {
        let (what, mend) = match self {
            Trouble::BadHost => ("the request names no host, or more than one", "send exactly one Host header"),
            Trouble::AmbiguousPath => (
                "the path can be read in two ways that lead to different apps",
                "send the path without `..`, `//` or encoded slashes",
            ),
            Trouble::Connect => ("CONNECT is not offered here", "this is not a forward proxy"),
            Trouble::Trace => ("TRACE is not offered here", "use another method"),
            Trouble::UnknownHost => ("no app has this host name", "`landfall app list` shows every app with its URL"),
            Trouble::UnknownPath => {
                ("the host is known, but nothing answers under this path", "check `path` of its web objects")
            }
            Trouble::TooLarge { limit } => {
                let what = format!("the request's body is larger than the {limit} bytes this app allows");
                return (what, "raise `max_body` in the app's manifest");
            }
            Trouble::UploadStalled => ("the request's body stopped coming", "send it without pauses of a minute"),
            Trouble::NotReady { reason } => {
                return (format!("no instance is ready: {reason}"), "`landfall app show` says how the app stands");
            }
            Trouble::QueueFull => (
                "every instance is busy and too many requests wait already",
                "try again shortly, or raise `instances` or `concurrency`",
            ),
            Trouble::QueueTimeout => (
                "no instance became free or ready in time",
                "try again shortly; `landfall app show` says how the app stands",
            ),
            Trouble::Unreachable => {
                ("the instance does not accept connections", "`landfall app logs` shows what it said last")
            }
            Trouble::Broken => {
                ("the instance closed the connection before it answered", "`landfall app logs` shows what it said last")
            }
            Trouble::Timeout => (
                "the instance did not answer in time",
                "raise `request_timeout` in the app's manifest if it needs longer",
            ),
            Trouble::Cut => (
                "the instance was stopped before it had answered",
                "try again; raise `drain` in the app's manifest if requests need longer",
            ),
            Trouble::UnknownApp { app, near } => {
                let what = format!("no app `{}` runs{}", app.app, meant(near.as_ref()));
                return (what, "`landfall app list` shows every app");
            }
            Trouble::UnknownFunction { near } => {
                let what = format!("the app has no function of this name{}", meant(near.as_ref()));
                return (what, "`landfall app show` lists the functions of an app");
            }
            Trouble::UnknownVersion => (
                "no instance of this version can be started",
                "`landfall app history` shows the versions that are kept",
            ),
            Trouble::BadCall { reason } => {
                return (reason.clone(), "send POST /v1/apps/{app}/functions/{function}/call");
            }
            Trouble::NoToken => (
                "calls at this address need a token",
                "send what an app finds in LANDFALL_TOKEN as `Authorization: Bearer …`; from elsewhere a token of `landfall token create NAME --scope call`",
            ),
            Trouble::NoController => (
                "this needs the control plane, which does not answer just now",
                "try again shortly; calls that are waited for go on without it",
            ),
            Trouble::TokenMissing => (
                "this needs a token",
                "send `Authorization: Bearer TOKEN`; `landfall token create NAME --scope call` makes one",
            ),
            Trouble::TokenUnknown => (
                "the token is worth nothing: it is mistyped, revoked or over",
                "`landfall token list` shows the tokens there are",
            ),
            Trouble::TokenRefused { denied } => {
                return (denied.to_string(), "use a token whose scope has `call` and reaches this app");
            }
            Trouble::TooManyWrong => {
                ("too many wrong tokens came from this address", "try again in ten minutes, with a right one at once")
            }
            Trouble::CallsFull => (
                "every instance is busy and as many calls wait as `queue` allows",
                "try again shortly, or raise `instances`, `concurrency` or `queue` of the function",
            ),
            Trouble::CallQueueTimeout => (
                "no instance became free or ready while the call waited",
                "try again, or raise `instances` or `concurrency` of the function",
            ),
            Trouble::CallTimeout { limit } => {
                let what =
                    format!("the call was not over after {} and was ended with its instance", Millis::of(*limit));
                return (what, "raise `timeout` of the function if it needs longer");
            }
            Trouble::CallBroken => (
                "the instance ended before the call was over",
                "`landfall app logs` shows what it said last, and why it ended",
            ),
            Trouble::OutOfMemory { limit: Some(limit) } => {
                let what = format!("the instance ran out of memory and was ended; its `resources.memory` is {limit}");
                return (what, "raise `resources.memory` of the function, or have it take less at once");
            }
            Trouble::OutOfMemory { limit: None } => (
                "the kernel ended the instance for want of memory; it has no limit of its own",
                "the machine has too little: give functions `resources.memory`, so that the one that takes too much ends",
            ),
            Trouble::CallCancelled => (
                "somebody ended the call before it was over",
                "`landfall calls show CALL` says who; call the function again if it is still wanted",
            ),
        };
        (what.to_owned(), mend)
    }

    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Trouble::QueueFull
            | Trouble::QueueTimeout
            | Trouble::NotReady { .. }
            | Trouble::Cut
            | Trouble::NoController
            | Trouble::CallsFull
            | Trouble::CallQueueTimeout => Some(HeaderValue::from_static("1")),
            Trouble::TooManyWrong => Some(HeaderValue::from_static("600")),
            Trouble::BadHost
            | Trouble::AmbiguousPath
            | Trouble::Connect
            | Trouble::Trace
            | Trouble::UnknownHost
            | Trouble::UnknownPath
            | Trouble::TooLarge { .. }
            | Trouble::UploadStalled
            | Trouble::Unreachable
            | Trouble::Broken
            | Trouble::Timeout
            | Trouble::UnknownApp { .. }
            | Trouble::UnknownFunction { .. }
            | Trouble::UnknownVersion
            | Trouble::BadCall { .. }
            | Trouble::NoToken
            | Trouble::TokenMissing
            | Trouble::TokenUnknown
            | Trouble::TokenRefused { .. }
            | Trouble::CallTimeout { .. }
            | Trouble::CallBroken
            | Trouble::OutOfMemory { .. }
            | Trouble::CallCancelled => None,
        }
    }

    /// The whole answer, as JSON or as a page.
    pub fn response(&self, page: bool) -> Response<Bytes> {
        let (status, code) = self.code();
        let (detail, mend) = self.words();
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        let (kind, body) = if page {
            ("text/html; charset=utf-8", html(status, &title, &detail, mend))
        } else {
            let problem = Problem { status: status.as_u16(), code: code.into(), title, detail, mend: mend.to_owned() };
            ("application/problem+json", serde_json::to_string(&problem).unwrap_or_default() + "\n")
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(LANDFALL_ERROR, HeaderValue::from_static(code));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"landfall\""));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds);
        }
        response
    }
}

fn meant(near: Option<&String>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// Whether the client would rather have a page: browsers name HTML, programs do not.
pub fn prefers_page(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|accept| accept.contains("text/html"))
}

fn html(status: StatusCode, title: &str, detail: &str, mend: &str) -> String {
    let (detail, mend) = (escape(detail), escape(mend));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{code} {title}</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}</style>\
         <h1>{code} {title}</h1><p>{detail}.</p><p>{mend}</p><p><small>answered by Landfall</small></p></html>\n",
        code = status.as_u16()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_landfalls_own_is_marked_and_says_why() {
        let trouble = Trouble::NotReady { reason: "the <newest> version failed".into() };
        let json = trouble.response(false);
        assert_eq!(json.status(), 503);
        assert_eq!(json.headers()[LANDFALL_ERROR], "not_ready");
        assert_eq!(json.headers()[RETRY_AFTER], "1");
        let problem: Problem = serde_json::from_slice(json.body()).expect("a problem");
        assert_eq!(problem.detail, "no instance is ready: the <newest> version failed");
        let page = trouble.response(true);
        assert!(String::from_utf8_lossy(page.body()).contains("the &lt;newest&gt; version failed"));
    }
}
