//! The one table from what went wrong to what is answered (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::engine::CommandError;
use crate::wire::api::Problem;

/// A refusal on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    title: String,
    mend: String,
    /// Seconds after which it may go better.
    after: Option<u64>,
}

impl Refusal {
    /// A refusal in the words of the API itself.
    pub fn new(status: StatusCode, title: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status, code: code_of(status), title: title.into(), mend: mend.into(), after: None }
    }

    /// The request cannot be read: its query, its path, its body.
    pub fn unreadable(title: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, title, mend)
    }

    /// The request can be read, but a value in it is wrong.
    pub fn invalid(title: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, title, mend)
    }

    /// Nobody knows who asks.
    pub fn unknown(title: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, title, mend)
    }

    /// The caller may not do this, or not this way.
    pub fn refused(title: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, title, mend)
    }

    /// It was too much at once; after this long it goes better.
    pub fn too_many(title: impl Into<String>, mend: impl Into<String>, after: std::time::Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, title, mend).after(after)
    }

    /// The same, with after how long it may go better.
    pub fn after(self, after: std::time::Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Self { after: Some(seconds.max(1)), ..self }
    }

    /// The agent failed. The cause is logged here, because nobody above knows it.
    pub fn internal(what: impl Into<String>) -> Self {
        let what = what.into();
        tracing::error!("a call could not be answered: {what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, what, "see the agent's log; if it happens again, report it")
    }

    /// The status that will be answered.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in one sentence.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What will be answered.
    pub fn problem(self) -> Problem {
        Problem {
            status: self.status.as_u16(),
            code: self.code.into(),
            title: self.title,
            detail: String::new(),
            mend: self.mend,
        }
    }
}

/// The stable word for each status this API answers.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "bad_request",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "refused",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::GONE => "gone",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::UNPROCESSABLE_ENTITY => "invalid",
        StatusCode::TOO_MANY_REQUESTS => "too_many",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "internal",
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound { what, mend } => Self::new(StatusCode::NOT_FOUND, what, mend),
            CommandError::Invalid { what, mend } => Self::invalid(what, mend),
            CommandError::Refused { what, mend } => Self::refused(what, mend),
            CommandError::Conflict { what, mend } => Self::new(StatusCode::CONFLICT, what, mend),
            CommandError::TooMuch { what, mend, after } => {
                Self { after: Some(after.as_secs()), ..Self::new(StatusCode::TOO_MANY_REQUESTS, what, mend) }
            }
            CommandError::Unavailable { what, mend } => Self::new(StatusCode::SERVICE_UNAVAILABLE, what, mend),
            CommandError::Internal { what } => Self::internal(what),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, after) = (self.status, self.after);
        // A problem is five plain fields: writing it as JSON cannot fail.
        let problem = self.problem();
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(seconds) = after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For whoever would rather show it to people.
        response.extensions_mut().insert(problem);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_error_of_the_engine_has_its_status_and_its_word() {
        let (what, mend) = (|| "what".to_owned(), || "mend".to_owned());
        let table = [
            (CommandError::NotFound { what: what(), mend: mend() }, 404, "not_found"),
            (CommandError::Invalid { what: what(), mend: mend() }, 422, "invalid"),
            (CommandError::Refused { what: what(), mend: mend() }, 403, "refused"),
            (CommandError::Conflict { what: what(), mend: mend() }, 409, "conflict"),
            (CommandError::TooMuch { what: what(), mend: mend(), after: Duration::from_secs(5) }, 429, "too_many"),
            (CommandError::Unavailable { what: what(), mend: mend() }, 503, "unavailable"),
            (CommandError::Internal { what: what() }, 500, "internal"),
        ];
        for (error, status, code) in table {
            let problem = Refusal::from(error).problem();
            assert_eq!((problem.status, problem.code.as_str(), problem.title.as_str()), (status, code, "what"));
            assert!(!problem.mend.is_empty());
        }
    }
}
