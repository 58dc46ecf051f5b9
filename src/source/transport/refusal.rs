//! What it means when a web server does not hand out what git asks for. Pure: status and headers in, the trouble out.

use std::error::Error;
use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};

use super::super::error::{SourceErrorKind, Trouble};
use super::without_credentials;

/// The trouble behind an answer that is no success. `logged_in` says whether credentials were sent.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, logged_in: bool) -> Trouble {
    let what = format!("the server answers {status}");
    match status.as_u16() {
        401 if logged_in => Trouble::new(
            SourceErrorKind::Auth,
            format!("{what}: it does not accept the credentials"),
            "check user name and password; a token may have expired or been revoked",
        ),
        403 if logged_in => Trouble::new(
            SourceErrorKind::Auth,
            format!("{what}: the credentials do not allow to read this repository"),
            "give the token the right to read it, or use another one",
        ),
        401 | 403 => Trouble::new(
            SourceErrorKind::Auth,
            format!("{what}: the repository is private, or does not exist"),
            "add `credentials` to the source, or check its `url`",
        ),
        407 => Trouble::new(
            SourceErrorKind::Auth,
            format!("{what}: the HTTP proxy wants a login"),
            "put user and password into the proxy variables of the agent",
        ),
        404 | 410 => {
            let mend = if logged_in {
                "check the source's `url`, and that the credentials may see the repository"
            } else {
                "check the source's `url`; a private repository needs `credentials`"
            };
            Trouble::new(SourceErrorKind::NotFound, what, mend)
        }
        429 | 503 => {
            let retry_after = retry_after(headers);
            let asks = retry_after.map(|wait| format!(" and asks to wait {} s", wait.as_secs())).unwrap_or_default();
            let kind = if status.as_u16() == 429 || retry_after.is_some() {
                SourceErrorKind::RateLimited
            } else {
                SourceErrorKind::Server
            };
            let mend = "it is tried again later; if this goes on, poll less often";
            Trouble::new(kind, format!("{what}{asks}"), mend).retry_after(retry_after)
        }
        300..=399 => redirected(&what, headers),
        500..=599 => Trouble::new(SourceErrorKind::Server, what, "it is tried again at the next look"),
        _ => Trouble::new(
            SourceErrorKind::Protocol,
            format!("{what}, which git's protocol does not know"),
            "check that the `url` is the one `git clone` takes",
        ),
    }
}

fn redirected(what: &str, headers: &HeaderMap) -> Trouble {
    let target = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
    // A query may carry a token.
    let target = without_credentials(target.split(['?', '#']).next().unwrap_or_default());
    let target = target.strip_suffix("/info/refs").unwrap_or(&target);
    Trouble::new(
        SourceErrorKind::Redirected,
        format!("{what} and points to {target}, which is not where the source's `url` points to"),
        "if that is right, write it as the source's `url`; credentials go to the configured scheme, host and port only",
    )
}

/// How long a server wants to be left alone: seconds, or a moment by the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| rfc2822::parse(text.trim()).ok().map(|moment| moment.timestamp());
    let now = moment(headers.get(DATE)?.to_str().ok()?)?;
    let wait = moment(text)?.duration_since(now);
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// The trouble behind a request that got no answer, or an answer that broke off.
pub(super) fn broken(error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let text = chain(&error);
    if is_tls(&error) {
        return Trouble::new(
            SourceErrorKind::Tls,
            text,
            "check the server's certificate; that of a private authority is trusted by the source's `ca_file`",
        );
    }
    if error.is_builder() || text.contains("proxy") {
        return Trouble::new(SourceErrorKind::Network, text, "check the proxy variables and that the proxy is up");
    }
    Trouble::new(SourceErrorKind::Network, text, "check that the server is up and reachable from this machine")
}

fn is_tls(error: &(dyn Error + 'static)) -> bool {
    // An `io::Error` hides what it wraps from its `source`.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}

/// An error with its causes; the first line alone says "error sending request".
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(reqwest::header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_server_that_wants_peace_says_for_how_long() {
        let wait = |pairs: &[_]| refused(StatusCode::TOO_MANY_REQUESTS, &headers(pairs), false);
        assert_eq!(wait(&[(RETRY_AFTER, "120")]).retry_after, Some(Duration::from_secs(120)));
        assert_eq!(wait(&[]).retry_after, None);
        assert_eq!(wait(&[(RETRY_AFTER, "soon")]).retry_after, None);
        let date = (DATE, "Tue, 24 Nov 2026 20:00:00 GMT");
        let later = (RETRY_AFTER, "Tue, 24 Nov 2026 20:01:30 GMT");
        assert_eq!(wait(&[date.clone(), later.clone()]).retry_after, Some(Duration::from_secs(90)));
        assert_eq!(wait(&[(DATE, "Tue, 24 Nov 2026 21:00:00 GMT"), later]).retry_after, Some(Duration::ZERO));
        assert_eq!(wait(&[]).kind, SourceErrorKind::RateLimited);
        let down = |pairs: &[_]| refused(StatusCode::SERVICE_UNAVAILABLE, &headers(pairs), false).kind;
        assert_eq!(down(&[]), SourceErrorKind::Server);
        assert_eq!(down(&[(RETRY_AFTER, "5")]), SourceErrorKind::RateLimited);
    }

    #[test]
    fn a_redirect_is_told_without_what_it_carries() {
        let to = headers(&[(LOCATION, "https://bot:s3cret@elsewhere.example/x.git/info/refs?token=s3cret")]);
        let trouble = refused(StatusCode::FOUND, &to, true);
        assert_eq!(trouble.kind, SourceErrorKind::Redirected);
        assert!(trouble.what.contains("https://elsewhere.example/x.git,"), "{}", trouble.what);
        assert!(!format!("{trouble:?}").contains("s3cret"));
    }
}
