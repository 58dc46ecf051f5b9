//! What a request must pass before any route sees it, and what every answer carries.
//!
//! | came in at | without a token | with a token |
//! |---|---|---|
//! | the Unix socket | the peer's user, everything, under the two rules below | the token's scope |
//! | the loopback | reads, under the two rules below | the token's scope |
//! | any other address | nothing | the token's scope |
//!
//! What a route needs is in [`super::rules`]; a route that is not there is answered to nobody. Push hooks prove themselves
//! by their signature and are asked nothing here: a forge, or a proxy before the agent, names whatever host it likes.
//!
//! A browser that was signed in with a token (`super::session`) is known by its cookie, and has that token's scope as long as
//! the token is worth something. A wrong token waits for its answer, longer each time.
//!
//! Browsers on this machine run other people's code, and two rules keep that from the loopback, and from a socket at the
//! end of a tunnel: the `Host` must name the loopback (a foreign name that was made to resolve to 127.0.0.1 does not), and
//! a request that a browser marks as made by another site is refused.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath, Query, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use super::audit::Change;
use super::peer::{Peer, Users};
use super::problem::Refusal;
use super::refused::{Attempt, Refused};
use super::rules::{self, Over, Rule};
use super::session;
use crate::decide::pacing::Pace;
use crate::decide::slowing::{FORGET, Failures, Slowed, network};
use crate::domain::{
    Access, Actor, AppKey, AppName, Denied, DeploymentId, EnvironmentName, Scope, TokenHash, TokenId, Via,
};
use crate::engine::Engine;

/// What the guard works with.
#[derive(Debug, Clone)]
pub struct Gate {
    engine: Engine,
    users: Arc<Users>,
    failures: Arc<Mutex<Failures>>,
    pace: Arc<Mutex<Pace<Whose>>>,
    refused: Arc<Refused>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    /// Those that come with this token, or in a browser signed in with it.
    Token(TokenId),
    /// Those of somebody who signed in with a provider of identities.
    Person(TokenHash),
    /// Those that come from there without one.
    Address(IpAddr),
}

impl Gate {
    /// A gate before this engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine, users: Arc::default(), failures: Arc::default(), pace: Arc::default(), refused: Arc::default() }
    }

    /// Records an attempt that was refused, unless there were too many of them of late.
    pub fn note_refused(&self, attempt: Attempt, refusal: &Refusal) {
        self.refused.note(&self.engine, attempt, refusal);
    }

    /// Whether this request comes too soon after others of the same origin. Users of the Unix socket are not counted.
    fn keep_pace(&self, access: Option<&Access>, peer: Option<Peer>) -> Result<(), Refusal> {
        let whose = match access.map(|access| &access.via) {
            Some(Via::Token(id) | Via::Session(id)) => Whose::Token(*id),
            Some(Via::Person(id)) => Whose::Person(*id),
            Some(Via::LocalUser | Via::Loopback) | None => match peer.and_then(Peer::address) {
                Some(address) => Whose::Address(network(address)),
                None => return Ok(()),
            },
        };
        let per_second = f64::from(self.engine.api_bounds().per_second);
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.take(&whose, per_second, 2.0 * per_second, Instant::now()).map_err(|after| {
            Refusal::too_many(
                format!("more than {per_second} requests a second come from there"),
                "ask less often; `api.requests_per_second` of the agent's configuration is the limit",
                after,
            )
        })
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is answered to a failed sign-in or a wrong token from there, when it is time to answer; `refusal` while there were not
    /// too many.
    pub async fn slow_down(&self, from: Option<IpAddr>, refusal: Refusal) -> Refusal {
        let note = |from| self.failures.lock().unwrap_or_else(PoisonError::into_inner).note(from, Instant::now());
        match from.map(note) {
            Some(Slowed::TooMany) => Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens or failed sign-ins came from this address",
                "try again in ten minutes, with a right one at once",
            )
            .after(FORGET),
            Some(Slowed::Answer(wait)) => {
                tokio::time::sleep(wait).await;
                refusal
            }
            None => refusal,
        }
    }
}

/// The layer around all routes.
pub async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut attempt = Attempt::of(&request);
    let from = request.extensions().get::<Peer>().and_then(|peer| peer.address());
    let page = method == Method::GET && session::wants_page(request.headers());
    let mut response = match gate.admit(request, &mut attempt.access).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => {
            tracing::debug!(%method, path, ?from, status = %refusal.status(), "a request was refused");
            let is_stranger = refusal.status() == StatusCode::UNAUTHORIZED;
            if is_stranger && page && !path.starts_with("/v1/") {
                session::to_login(&path)
            } else {
                gate.note_refused(attempt, &refusal);
                refusal.into_response()
            }
        }
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"landfall\"");
        response.headers_mut().entry(header::WWW_AUTHENTICATE).or_insert(challenge);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Pages and what belongs to them say themselves what they may load and how long they keep.
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Gate {
    /// The request with what is known of who makes it, if they may. `known` is who it is, also where they may not.
    async fn admit(&self, request: Request, known: &mut Option<Access>) -> Result<Request, Refusal> {
        let (mut parts, body) = request.into_parts();
        let access = self.judge(&mut parts, known).await?;
        let csrf = session::cookie(&parts.headers).map(session::Csrf::of);
        let is_session = access.as_ref().is_some_and(|access| access.via.is_session());
        // From here on nobody needs it, and nobody it could be passed on to.
        parts.headers.remove(header::AUTHORIZATION);
        if let Some(access) = access {
            parts.extensions.insert(access);
        }
        match csrf.filter(|_| is_session) {
            Some(csrf) => {
                parts.extensions.insert(csrf.clone());
                session::check_origin(Request::from_parts(parts, body), &csrf).await
            }
            None => Ok(Request::from_parts(parts, body)),
        }
    }

    /// Who asks, if they may; `None` where nobody needs to be known.
    async fn judge(&self, parts: &mut Parts, known: &mut Option<Access>) -> Result<Option<Access>, Refusal> {
        let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let rule = path.as_deref().and_then(|path| rules::rule(parts.method.as_str(), path));
        let peer = parts.extensions.get::<Peer>().copied();
        if rule.is_some_and(|rule| rule.over == Over::Open) {
            self.keep_pace(None, peer)?;
            return Ok(None);
        }
        let access = match self.who(parts).await {
            Ok(access) => access,
            Err(refusal) => {
                self.keep_pace(None, peer)?;
                return Err(refusal);
            }
        };
        *known = Some(access.clone());
        self.keep_pace(Some(&access), peer)?;
        match (rule, path) {
            (Some(rule), _) => {
                self.allow(&access, rule, parts).await?;
                if rule.is_recorded() {
                    let change = self.change(rule, parts).await?;
                    parts.extensions.insert(change);
                }
            }
            (None, Some(path)) if !rules::is_known(&path) => {
                return Err(Refusal::internal(format!("the route {path} has no rule in api/rules.rs")));
            }
            // No such route, or no such method: the router says so.
            (None, Some(_) | None) => {}
        }
        Ok(Some(access))
    }

    async fn who(&self, parts: &Parts) -> Result<Access, Refusal> {
        let peer = parts.extensions.get::<Peer>();
        if let Some(token) = parts.headers.get(header::AUTHORIZATION) {
            let token = token.to_str().ok().and_then(|text| text.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let access = token.and_then(|(_, token)| self.engine.token_access(token.trim()));
            return match access {
                Some(access) => Ok(access),
                None => Err(self.slow_down(peer.and_then(|peer| peer.address()), wrong_token()).await),
            };
        }
        if let Some(secret) = session::cookie(&parts.headers)
            && let Some(access) = self.engine.session_access(secret).await?
        {
            return Ok(access);
        }
        match peer {
            Some(Peer::Local { uid }) => {
                // The socket may be the far end of a tunnel, and a browser at the near one.
                let host = own_host(&parts.uri, &parts.headers)?;
                refuse_other_sites(&host, &parts.headers)?;
                let actor = Actor::User { name: self.users.name(*uid).await };
                Ok(Access { actor, scope: Scope::everything(), via: Via::LocalUser })
            }
            Some(Peer::Loopback { .. }) => loopback(&parts.method, &parts.uri, &parts.headers),
            Some(Peer::Outside { .. }) | None => Err(nobody()),
        }
    }

    async fn allow(&self, access: &Access, rule: &Rule, parts: &mut Parts) -> Result<(), Refusal> {
        let scope = &access.scope;
        if !rule.verbs.iter().any(|verb| scope.has(*verb)) {
            let wanted = rule.verbs.first().copied().unwrap_or(crate::domain::Verb::Admin);
            return Err(denied(access, Denied::Verb(wanted)));
        }
        if !scope.is_narrow() {
            return Ok(());
        }
        let key = match rule.over {
            Over::Apps | Over::Upload | Over::Open => return Ok(()),
            Over::Agent => return Err(denied(access, Denied::Whole)),
            Over::App => self.app_of(path_value(parts, "app").await, parts)?,
            Over::Named => self.app_of(query_value(parts, "app")?, parts)?,
            Over::Owner => match self.owner(parts).await? {
                Some(key) => Some(key),
                // The route says that it is not there.
                None => return Ok(()),
            },
        };
        let denial = if rule.over == Over::Named && key.is_none() { Denied::Whole } else { Denied::App };
        match key {
            Some(key) if scope.reaches(&key) => Ok(()),
            Some(_) | None => Err(denied(access, denial)),
        }
    }

    /// What the audit log needs to know.
    async fn change(&self, rule: &'static Rule, parts: &mut Parts) -> Result<Change, Refusal> {
        let app = match rule.over {
            Over::App => self.app_of(path_value(parts, "app").await, parts)?,
            Over::Owner => self.owner(parts).await?,
            Over::Apps | Over::Named | Over::Upload | Over::Agent | Over::Open => None,
        };
        let named = match RawPathParams::from_request_parts(parts, &()).await {
            Ok(params) => params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            Err(_) => Vec::new(),
        };
        Ok(Change { rule, app, named })
    }

    /// An app named in the request, in the environment named there or the agent's own.
    fn app_of(&self, app: Option<String>, parts: &Parts) -> Result<Option<AppKey>, Refusal> {
        let Some(app) = app.and_then(|app| app.parse::<AppName>().ok()) else { return Ok(None) };
        let environment = match query_value(parts, "environment")? {
            Some(name) => name.parse::<EnvironmentName>().ok(),
            None => Some(self.engine.environment()),
        };
        Ok(environment.map(|environment| AppKey::new(environment, app)))
    }

    /// The app of what the path names by an identifier.
    async fn owner(&self, parts: &mut Parts) -> Result<Option<AppKey>, Refusal> {
        if let Some(id) = path_value(parts, "deployment").await {
            let Ok(id) = id.parse() else { return Ok(None) };
            return Ok(self.engine.owner_of_deployment(DeploymentId(id)).await?);
        }
        if let Some(id) = path_value(parts, "call").await {
            let Ok(id) = id.parse() else { return Ok(None) };
            return Ok(self.engine.owner_of_call(id).await?);
        }
        match path_value(parts, "instance").await {
            Some(id) => Ok(self.engine.owner_of_instance(&id).await),
            None => Err(Refusal::internal("a route's rule says that its path names an owner, and it does not")),
        }
    }
}

async fn path_value(parts: &mut Parts, name: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// A parameter of the query. One that is there twice could be read in two ways.
fn query_value(parts: &Parts, name: &str) -> Result<Option<String>, Refusal> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) else { return Ok(None) };
    let mut values = pairs.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Refusal::unreadable(format!("the query names `{name}` twice"), "name it once")),
    }
}

/// What a token that is worth nothing gets.
pub fn wrong_token() -> Refusal {
    Refusal::unknown(
        "the token is worth nothing: it is mistyped, revoked or over",
        "`landfall token list` on the agent's machine shows the tokens there are",
    )
}

/// What a stranger gets.
fn nobody() -> Refusal {
    Refusal::unknown(
        "nobody is known at this address without a token",
        "send `Authorization: Bearer TOKEN`; `landfall token create NAME` on the agent's machine makes one",
    )
}

fn denied(access: &Access, denied: Denied) -> Refusal {
    match access.via {
        Via::Loopback => read_only(),
        Via::LocalUser | Via::Token(_) | Via::Session(_) | Via::Person(_) => Refusal::refused(
            format!("{} may not do this: {denied}", access.actor),
            "`landfall token list` shows scopes; `landfall token create NAME --scope VERBS --app PATTERN` makes a token with another",
        ),
    }
}

/// What a change over the loopback gets that brings no token.
fn read_only() -> Refusal {
    Refusal::refused(
        "without a token this address only answers questions; it takes no changes",
        "send changes to the agent's Unix socket, or with a token: `landfall token create NAME` makes one",
    )
}

/// Anybody on this machine may look.
fn loopback(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Access, Refusal> {
    let host = own_host(uri, headers)?;
    refuse_other_sites(&host, headers)?;
    if *method != Method::GET && *method != Method::HEAD {
        return Err(read_only());
    }
    let actor = Actor::User { name: "loopback".to_owned() };
    Ok(Access { actor, scope: Scope::reading(), via: Via::Loopback })
}

/// The `Host` of the request, once it is sure that it names the loopback.
fn own_host(uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
    let mut named: Vec<&str> = Vec::new();
    for value in headers.get_all(header::HOST) {
        named.push(value.to_str().unwrap_or_default());
    }
    if let Some(authority) = uri.authority() {
        named.push(authority.as_str());
    }
    let mend = "use http://localhost or http://127.0.0.1 with the port of the API";
    match named.first() {
        None => Err(Refusal::refused("the request names no host", mend)),
        Some(host) if named.iter().all(|name| is_loopback(name)) => Ok((*host).to_ascii_lowercase()),
        Some(host) => {
            let host: String = host.chars().take(100).collect();
            Err(Refusal::refused(format!("`{host}` is not a name of this machine's loopback"), mend))
        }
    }
}

/// `localhost`, `127.x.y.z` or `[::1]`, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Browsers say where a request comes from; programs say nothing. Apps on other ports of this machine are
/// other sites, too.
pub fn refuse_other_sites(host: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let own = own.filter(|(scheme, _)| matches!(*scheme, "http" | "https")).map(|(_, own)| own);
        !own.is_some_and(|own| own.eq_ignore_ascii_case(host))
    });
    let foreign_fetch =
        headers.get_all("sec-fetch-site").iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if foreign_origin || foreign_fetch {
        return Err(Refusal::refused(
            "the request was made by a page of another site",
            "open the API's own address in the browser, or use the command line",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: Method, headers: &[(&'static str, &'static str)]) -> Result<(), u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        loopback(&method, &Uri::from_static("/v1/status"), &map).map(drop).map_err(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn only_names_of_the_loopback_are_answered() {
        for host in ["localhost", "LOCALHOST:7171", "127.0.0.1:7171", "127.9.9.9", "[::1]:7171", "[::1]"] {
            assert_eq!(checked(Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7171",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "user@localhost",
            "",
            "localhost/x",
        ] {
            assert_eq!(checked(Method::GET, &[("host", host)]), Err(403), "{host}");
        }
        assert_eq!(checked(Method::GET, &[]), Err(403));
        assert_eq!(checked(Method::GET, &[("host", "localhost"), ("host", "evil.example")]), Err(403));
    }

    #[test]
    fn an_absolute_target_is_held_to_the_same_rule() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:7171"));
        let uri = Uri::from_static("http://evil.example/v1/status");
        assert!(loopback(&Method::GET, &uri, &headers).is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "localhost:7171");
        for good in [("origin", "http://localhost:7171"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")]
        {
            assert_eq!(checked(Method::GET, &[host, good]), Ok(()), "{good:?}");
        }
        for bad in [
            ("origin", "http://localhost:8080"),
            ("origin", "http://shop.localhost:7171"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(checked(Method::GET, &[host, bad]), Err(403), "{bad:?}");
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(checked(method.clone(), &[("host", "localhost")]), Err(403), "{method}");
        }
        assert_eq!(checked(Method::HEAD, &[("host", "localhost")]), Ok(()));
    }
}
