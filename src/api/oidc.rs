//! Browsers that sign in with a provider of identities (OpenID Connect).
//!
//! ```text
//! GET /login/oidc ──303, cookie (Lax)──► the provider ──► GET /login/oidc/callback ──200, cookie (Strict), Refresh──► pages
//! ```
//!
//! Both are links and not forms, so that the pages' `form-action` stays with this host. The provider's page leads to the
//! callback from another site, and browsers send no `SameSite=Strict` cookie along on such a way, not even after a redirect:
//! so the callback answers with a page of its own, which goes on by itself, from this site to this site.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use maud::html;
use serde::Deserialize;

use super::dashboard::{Page, Section};
use super::extract::Asked;
use super::guard::{Gate, refuse_other_sites};
use super::peer::Peer;
use super::problem::Refusal;
use super::refused::Attempt;
use super::session::{cookie_of, go_to, host, inside, is_secure, note, session_cookie, with_cookie};
use crate::engine::{Brought, NotSignedIn};

/// The cookie that binds a sign-in to the browser that began it.
const COOKIE: &str = "landfall_oidc";
/// Nobody else gets it.
const PATH: &str = "/login/oidc";
/// It has done its work.
const FORGOTTEN: HeaderValue =
    HeaderValue::from_static("landfall_oidc=; HttpOnly; SameSite=Lax; Path=/login/oidc; Max-Age=0");
/// Longest parameter that is looked at, in bytes.
const MAX_PARAMETER: usize = 8 * 1024;

/// The routes, for the router of all.
pub fn routes<S: Clone + Send + Sync + 'static>(gate: Gate) -> Router<S> {
    Router::new().route("/login/oidc", get(begin)).route("/login/oidc/callback", get(finish)).with_state(gate)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BeginQuery {
    next: String,
}

/// `GET /login/oidc`: on to the provider's page.
async fn begin(
    State(gate): State<Gate>,
    peer: Option<Extension<Peer>>,
    Asked(query): Asked<BeginQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let attempt = Attempt::of(&request).on_the_way_in();
    let (parts, _) = request.into_parts();
    refuse_other_sites(&host(&parts), &parts.headers)?;
    let from = peer.and_then(|Extension(peer)| peer.address());
    match gate.engine().oidc_begin(inside(&query.next), from).await {
        Ok(away) => {
            let secure = if is_secure(&parts) { "; Secure" } else { "" };
            let (binder, seconds) = (away.binder, away.seconds);
            let cookie = format!("{COOKIE}={binder}; HttpOnly; SameSite=Lax; Path={PATH}; Max-Age={seconds}{secure}");
            Ok(with_cookie(go_to(&away.url), &cookie))
        }
        Err(error) => {
            let refusal = refusal(error);
            gate.note_refused(attempt, &refusal);
            Err(refusal)
        }
    }
}

/// What the provider has the browser bring. Whatever else it brings is not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Back {
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /login/oidc/callback`: back from the provider's page.
async fn finish(
    State(gate): State<Gate>,
    peer: Option<Extension<Peer>>,
    Asked(back): Asked<Back>,
    request: Request,
) -> Response {
    let attempt = Attempt::of(&request).on_the_way_in();
    let (parts, _) = request.into_parts();
    let peer = peer.map(|Extension(peer)| peer);
    let mut answer = match signed_in(&gate, peer, back, &parts.headers, is_secure(&parts)).await {
        Ok(response) => response,
        Err(error) => {
            let is_wrong =
                matches!(error, NotSignedIn::Unknown | NotSignedIn::Unbelievable(_) | NotSignedIn::NoRule { .. });
            let mut refusal = refusal(error);
            if is_wrong {
                refusal = gate.slow_down(peer.and_then(Peer::address), refusal).await;
            }
            gate.note_refused(attempt, &refusal);
            refusal.into_response()
        }
    };
    answer.headers_mut().append(header::SET_COOKIE, FORGOTTEN);
    answer
}

async fn signed_in(
    gate: &Gate,
    peer: Option<Peer>,
    back: Back,
    headers: &HeaderMap,
    secure: bool,
) -> Result<Response, NotSignedIn> {
    let all = [Some(&back.state), back.code.as_ref(), back.error.as_ref(), back.iss.as_ref()];
    if all.into_iter().flatten().any(|text| text.len() > MAX_PARAMETER) {
        return Err(NotSignedIn::Unknown);
    }
    let binder = cookie_of(headers, COOKIE).map(str::to_owned);
    let brought = Brought { state: back.state, code: back.code, error: back.error, issuer: back.iss, binder };
    let (signed_in, next) = gate.engine().oidc_finish(brought).await?;
    if let Err(error) = note(gate, &signed_in.access, peer, "login").await {
        // Nobody is signed in without a record of it.
        gate.engine().sign_out(&signed_in.secret).await?;
        return Err(error.into());
    }
    let page = html! {
        div.ask.signin {
            h1 { "Signed in" }
            p { "You are " (signed_in.access.actor) ", with the scope " code { (signed_in.access.scope) } "." }
            div.buttons { a.button.primary href=(next) { "Go on" } }
        }
    };
    let mut response = Page::new(Section::Elsewhere, "Signed in", page).into_response();
    if let Ok(refresh) = HeaderValue::from_str(&format!("0; url={next}")) {
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    Ok(with_cookie(response, &session_cookie(&signed_in, secure)))
}

/// What is answered to somebody who is not signed in: what is wrong, to nobody but the one who tries.
fn refusal(error: NotSignedIn) -> Refusal {
    let what = error.to_string();
    let with_token = "try again later, or sign in with a token at /login";
    match error {
        NotSignedIn::Unconfigured => Refusal::new(
            StatusCode::NOT_FOUND,
            what,
            "sign in with a token at /login; `api.oidc` of the agent's configuration names a provider",
        ),
        NotSignedIn::TooMany | NotSignedIn::Provider(_) => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, what, with_token)
        }
        NotSignedIn::Unknown => {
            Refusal::refused(what, "begin anew at `api.public_url`, and let the browser keep cookies")
        }
        NotSignedIn::Refused(_) => Refusal::refused(what, with_token),
        NotSignedIn::Unbelievable(_) => Refusal::refused(
            what,
            "begin anew at /login; if it stays so, compare `api.oidc` of the agent's configuration with the provider's",
        ),
        NotSignedIn::NoRule { name, seen } => Refusal::refused(
            format!("{name} is known to the provider, but may do nothing here"),
            format!("ask whoever runs this agent for a rule of `api.oidc.allow`; the provider says of you: {seen}"),
        ),
        NotSignedIn::Failed(error) => error.into(),
    }
}
