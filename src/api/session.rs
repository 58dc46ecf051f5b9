//! Browsers: signed in with a token, known by a cookie, kept from being used by other sites.
//!
//! ```text
//! POST /login (token) ──► cookie `landfall_session` ──► every request ──► POST /logout, 12 h, or the token's end
//! ```
//!
//! Three things keep other sites from acting in a signed-in browser: the cookie is `SameSite=Strict`; a request that changes
//! something must come from this very origin, as the browser says; and it must bring what only our own pages know,
//! in the field `csrf` of its form or in the header `landfall-csrf`.
//!
//! A browser may be signed in by a provider of identities instead (`super::oidc`); from then on all this holds for it as well.
//!
//! For pages: [`Csrf`] is in the extensions of every request of a signed-in browser.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::audit;
use super::extract::media_type;
use super::guard::{Gate, refuse_other_sites, wrong_token};
use super::peer::Peer;
use super::problem::Refusal;
use super::refused::Attempt;
use crate::domain::{Access, TokenHash};
use crate::engine::{CommandError, NewEntry, SignedIn};

/// The cookie.
const COOKIE: &str = "landfall_session";
/// Where a form says that it is one of ours.
const FIELD: &str = "csrf";
/// Where a script says so.
const HEADER: &str = "landfall-csrf";
/// Longest form.
const MAX_FORM: usize = 64 * 1024;

/// What a form of a signed-in browser must bring, in its field `csrf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csrf(pub String);

impl Csrf {
    /// It follows from the secret of the session, and does not give it away.
    pub fn of(secret: &str) -> Self {
        Self(TokenHash::of(&format!("csrf of {secret}")).into())
    }

    fn is(&self, other: &str) -> bool {
        TokenHash::of(&self.0).is(&TokenHash::of(other))
    }
}

/// What the cookie of a session says.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_of(headers, COOKIE)
}

/// What the cookie of this name says.
pub fn cookie_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// Whether a request of a signed-in browser was made by one of our pages. Gives the request back: a form's field is read
/// from its body.
pub async fn check_origin(request: Request, csrf: &Csrf) -> Result<Request, Refusal> {
    let forged =
        || Refusal::refused("the request does not come from a page of this agent", "reload the page and try again");
    let (parts, body) = request.into_parts();
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(Request::from_parts(parts, body));
    }
    refuse_other_sites(&host(&parts), &parts.headers)?;
    if let Some(said) = parts.headers.get(HEADER) {
        let is_ours = said.to_str().is_ok_and(|said| csrf.is(said));
        return if is_ours { Ok(Request::from_parts(parts, body)) } else { Err(forged()) };
    }
    if media_type(&parts.headers) != Some("application/x-www-form-urlencoded") {
        return Err(forged());
    }
    let form = collect(body).await?;
    if field(&form, FIELD).is_some_and(|said| csrf.is(&said)) {
        Ok(Request::from_parts(parts, Body::from(form)))
    } else {
        Err(forged())
    }
}

/// The host that the request is for, in small letters.
pub fn host(parts: &Parts) -> String {
    let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default().to_ascii_lowercase()
}

async fn collect(body: Body) -> Result<bytes::Bytes, Refusal> {
    let read = tokio::time::timeout(super::extract::ARRIVAL, Limited::new(body, MAX_FORM).collect()).await;
    match read {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(_)) | Err(_) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the form is too long, or did not arrive",
            "shorten it and send it again",
        )),
    }
}

/// The value of a field of a form.
fn field(form: &[u8], name: &str) -> Option<String> {
    let query = format!("http://form/?{}", std::str::from_utf8(form).ok()?);
    let uri = query.parse().ok()?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok()?;
    pairs.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The routes, for the router of all.
pub fn routes<S: Clone + Send + Sync + 'static>(gate: Gate) -> Router<S> {
    Router::new().route("/login", post(login)).route("/logout", post(logout)).with_state(gate)
}

#[derive(Deserialize)]
struct Login {
    token: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`: the form of the page there, `token` and where to go on.
async fn login(State(gate): State<Gate>, peer: Option<Extension<Peer>>, request: Request) -> Result<Response, Refusal> {
    let attempt = Attempt::of(&request);
    let (parts, body) = request.into_parts();
    refuse_other_sites(&host(&parts), &parts.headers)?;
    let form = collect(body).await?;
    let (token, next) = (field(&form, "token"), field(&form, "next").unwrap_or_default());
    let login = Login { token: token.unwrap_or_default(), next };
    let peer = peer.map(|Extension(peer)| peer);
    let Some(signed_in) = gate.engine().sign_in(login.token.trim()).await? else {
        let refusal = gate.slow_down(peer.and_then(Peer::address), wrong_token()).await;
        gate.note_refused(attempt, &refusal);
        return if wants_page(&parts.headers) && refusal.status() == StatusCode::UNAUTHORIZED {
            Ok(go_to(&format!("/login?failed=1&next={}", escaped(inside(&login.next)))))
        } else {
            Err(refusal)
        };
    };
    note(&gate, &signed_in.access, peer, "login").await?;
    Ok(with_cookie(go_to(inside(&login.next)), &session_cookie(&signed_in, is_secure(&parts))))
}

/// The cookie of a session.
pub fn session_cookie(signed_in: &SignedIn, secure: bool) -> String {
    let seconds = signed_in.expires_at.duration_since(jiff::Timestamp::now()).as_secs().max(0);
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}", signed_in.secret)
}

/// Who was signed in or out, on record.
pub async fn note(gate: &Gate, access: &Access, peer: Option<Peer>, action: &str) -> Result<(), CommandError> {
    let entry = NewEntry {
        actor: access.actor.clone(),
        via: audit::word(&access.via),
        address: peer.and_then(Peer::address).map(|address| address.to_string()),
        action: action.to_owned(),
        app: None,
        detail: serde_json::json!({}),
        before: None,
    };
    gate.engine().audit_done(entry, serde_json::json!({"status": 303})).await
}

/// `POST /logout`
async fn logout(State(gate): State<Gate>, request: Request) -> Result<Response, Refusal> {
    if let Some(secret) = cookie(request.headers()) {
        if let Some(access) = gate.engine().session_access(secret).await? {
            note(&gate, &access, request.extensions().get::<Peer>().copied(), "logout").await?;
        }
        gate.engine().sign_out(secret).await?;
    }
    Ok(with_cookie(go_to("/login"), &format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")))
}

/// Whether the browser came over TLS, to this agent or to a proxy before it.
pub fn is_secure(parts: &Parts) -> bool {
    let forwarded = parts.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    forwarded || parts.extensions.get::<super::serve::Encrypted>().is_some()
}

/// Where to go on: a path of ours, and never another site.
pub fn inside(next: &str) -> &str {
    let is_ours = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_ours { next } else { "/" }
}

fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.');
    path.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Whether a person looks at a browser.
pub fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// The way to the page where a browser is signed in, and back.
pub fn to_login(path: &str) -> Response {
    go_to(&format!("/login?next={}", escaped(inside(path))))
}

/// On to another page.
pub fn go_to(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// The same answer with one more cookie.
pub fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_on_within_this_site_only() {
        for next in ["/", "/apps/shop?tab=logs"] {
            assert_eq!(inside(next), next);
        }
        for next in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a b", "/a\r\nset-cookie: x"] {
            assert_eq!(inside(next), "/", "{next:?}");
        }
        assert_eq!(escaped("/apps?a=b&c"), "/apps%3Fa%3Db%26c");
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; landfall_sessionx=1"));
        assert_eq!(cookie(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("c=d;landfall_session=abc; e=f"));
        assert_eq!(cookie(&headers), Some("abc"));
    }

    async fn checked(method: Method, headers: &[(&'static str, &str)], body: &'static str) -> Result<String, u16> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let checked = check_origin(request, &Csrf::of("secret")).await;
        let request = checked.map_err(|refusal| refusal.status().as_u16())?;
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn only_our_own_pages_change_anything_in_a_signed_in_browser() {
        let (host, ours) = (("host", "landfall.example.com"), Csrf::of("secret").0);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let body: &'static str = Box::leak(format!("reason=a+b&csrf={ours}").into_boxed_str());
        assert_eq!(checked(Method::GET, &[host], "").await, Ok(String::new()));
        assert_eq!(checked(Method::POST, &[host, form], body).await, Ok(body.to_owned()));
        assert_eq!(checked(Method::POST, &[host, ("landfall-csrf", &ours)], "{}").await, Ok("{}".to_owned()));
        let https = ("origin", "https://landfall.example.com");
        assert_eq!(checked(Method::POST, &[host, https, form], body).await, Ok(body.to_owned()));
        let refused: [(&[(&'static str, &str)], &'static str); 7] = [
            (&[host, form], "reason=x"),
            (&[host, form], "csrf=0000"),
            (&[host], body),
            (&[host, ("landfall-csrf", "0000")], "{}"),
            (&[host, form, ("origin", "https://evil.example")], body),
            (&[host, form, ("origin", "null")], body),
            (&[host, form, ("sec-fetch-site", "same-site")], body),
        ];
        for (headers, body) in refused {
            assert_eq!(checked(Method::POST, headers, body).await, Err(403), "{headers:?} {body}");
        }
    }
}
