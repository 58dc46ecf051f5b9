//! Reading requests: names, queries and small JSON bodies, each with a refusal that says what is wrong.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::Refusal;
use crate::domain::NameError;

/// Longest JSON body.
const MAX_JSON: usize = 64 * 1024;
/// How long a JSON body may take to arrive.
pub const ARRIVAL: Duration = Duration::from_secs(30);

/// The query of a request.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(Refusal::unreadable(
                format!("the query of {} cannot be read: {}", parts.uri.path(), error.body_text()),
                "correct the parameter; a `+` in a time is written %2B",
            )),
        }
    }
}

/// The variable part of a request's path, still as text.
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(error) => Err(Refusal::unreadable(
                format!("the path cannot be read: {}", error.body_text()),
                "write names with a-z, 0-9 and - only",
            )),
        }
    }
}

/// Reads a name of any kind.
pub fn name<T: std::str::FromStr<Err = NameError>>(what: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error| {
        Refusal::invalid(format!("the name of the {what} is wrong: {error}"), format!("correct the name of the {what}"))
    })
}

/// Reads a name that may be missing.
pub fn optional_name<T>(what: &str, text: Option<&String>) -> Result<Option<T>, Refusal>
where
    T: std::str::FromStr<Err = NameError>,
{
    text.map(|text| name(what, text)).transpose()
}

/// A small JSON body; an empty one is the default.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = collect(body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if media_type(&parts.headers) != Some("application/json") {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is not marked as JSON",
                "send it with `content-type: application/json`",
            ));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Refusal::unreadable(format!("the body cannot be read: {error}"), "correct the JSON of the body")
        })
    }
}

/// A small body, within its bounds.
pub async fn collect(body: Body) -> Result<bytes::Bytes, Refusal> {
    let collected = tokio::time::timeout(ARRIVAL, Limited::new(body, MAX_JSON).collect()).await;
    match collected {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {} KiB", MAX_JSON / 1024),
            "shorten it",
        )),
        Ok(Err(error)) => Err(Refusal::unreadable(format!("the body broke off: {error}"), "send it again")),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", ARRIVAL.as_secs()),
            "send it again",
        )),
    }
}

/// The media type without its parameters.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}
