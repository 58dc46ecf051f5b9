//! What a request over TCP must pass before any route sees it, and what every answer carries.
//!
//! | came in at | push hooks | everything else |
//! |---|---|---|
//! | the Unix socket | yes | yes |
//! | the loopback | yes | reads, under the three rules below |
//! | any other address | yes | no: nobody there has a name yet |
//!
//! Push hooks prove themselves by their signature and are asked nothing here: a forge, or a proxy before the agent, names
//! whatever host it likes. For the rest of the loopback: browsers on this machine run other people's code, and three
//! rules keep that out. The `Host` must name the loopback (a foreign name that was made to resolve to 127.0.0.1 does
//! not), a request that a browser marks as made by another site is refused, and nothing can be changed.

use std::net::IpAddr;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::peer::{Peer, read_only};
use super::problem::Refusal;

/// Where push hooks are sent. No other route begins with it.
pub const HOOKS: &str = "/v1/hooks/";

/// What everything but push hooks gets at an address that other machines reach.
fn hooks_only() -> Refusal {
    Refusal::refused(
        "this address takes push hooks and nothing else",
        "use the agent's Unix socket, or an SSH tunnel to its loopback address; from other machines the API needs tokens, which do not exist yet",
    )
}

/// The layer around all routes.
pub async fn guard(request: Request, next: Next) -> Response {
    let allowed = match request.extensions().get::<Peer>() {
        _ if request.uri().path().starts_with(HOOKS) => Ok(()),
        Some(Peer::Local { .. }) => Ok(()),
        Some(Peer::Outside) => Err(hooks_only()),
        Some(Peer::Tcp) | None => check(request.method(), request.uri(), request.headers()),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = own_host(uri, headers)?;
    refuse_other_sites(&host, headers)?;
    if *method == Method::GET || *method == Method::HEAD { Ok(()) } else { Err(read_only()) }
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
fn refuse_other_sites(host: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
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
        check(&method, &Uri::from_static("/v1/status"), &map).map_err(|refusal| refusal.status().as_u16())
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
        assert!(check(&Method::GET, &uri, &headers).is_err());
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
            ("origin", "https://localhost:7171"),
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

    /// The status that a request gets through the guard; behind it everything is answered with 200.
    async fn through(peer: Option<Peer>, method: Method, path: &'static str, host: &'static str) -> u16 {
        use hyper::service::Service;
        let answer = || async { "behind the guard" };
        let router = axum::Router::new().fallback(answer).layer(axum::middleware::from_fn(guard));
        let mut request = Request::new(axum::body::Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let service = hyper_util::service::TowerToHyperService::new(router);
        service.call(request).await.expect("infallible").status().as_u16()
    }

    #[tokio::test]
    async fn other_machines_reach_hooks_and_nothing_else() {
        for path in [
            "/",
            "/v1/status",
            "/v1/apps",
            "/v1/sources/fleet/sync",
            "/v1/hooks",
            "/v1/hooksx/fleet",
            "/V1/hooks/fleet",
            "/v1//hooks/fleet",
            "/v1/apps/../hooks/fleet",
            "/v1/%68ooks/fleet",
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                for host in ["localhost", "deploy.example.com"] {
                    let status = through(Some(Peer::Outside), method.clone(), path, host).await;
                    assert_eq!(status, 403, "{method} {path} at {host}");
                }
            }
        }
        for peer in [Some(Peer::Outside), Some(Peer::Tcp), Some(Peer::Local { uid: 0 }), None] {
            let status = through(peer, Method::POST, "/v1/hooks/fleet", "deploy.example.com").await;
            assert_eq!(status, 200, "{peer:?}");
        }
        assert_eq!(through(Some(Peer::Tcp), Method::POST, "/v1/status", "localhost").await, 403);
        assert_eq!(through(Some(Peer::Tcp), Method::GET, "/v1/status", "deploy.example.com").await, 403);
        assert_eq!(through(Some(Peer::Tcp), Method::GET, "/v1/status", "localhost").await, 200);
    }
}
