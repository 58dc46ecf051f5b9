//! What changes in the headers on the way through.
//!
//! Pure but for the clock's value it is given. Used by `forward.rs`. Invariants: no header that concerns one connection
//! only crosses the proxy, in either direction; what a client says about itself or about proxies before it is passed on
//! only if its connection comes from a trusted network.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::connection::Connection;

/// `X-Forwarded-For`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Forwarded-Port`
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// `X-Forwarded-Prefix`
pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// `X-Request-Id`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `X-Request-Start`
pub const X_REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Longest `X-Request-Id` that is taken over.
const LONGEST_ID: usize = 128;

/// What every request of one connection has in common, made once.
#[derive(Debug)]
pub struct ClientHeaders {
    address: HeaderValue,
    node: String,
    port: HeaderValue,
    trusted: bool,
    scheme: &'static str,
    /// The last host asked for and its `Forwarded`: on one connection it hardly ever changes.
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl ClientHeaders {
    /// Of a connection from `peer` to `local`, `secure` if it is in TLS.
    pub fn new(peer: SocketAddr, local: SocketAddr, trusted: bool, secure: bool) -> Self {
        let ip = peer.ip().to_canonical();
        let node = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        Self {
            address: value(ip.to_string()),
            node,
            port: HeaderValue::from(local.port()),
            trusted,
            scheme: if secure { "https" } else { "http" },
            forwarded: RefCell::new(None),
        }
    }

    /// Whether what this client says about itself is believed.
    pub fn trusted(&self) -> bool {
        self.trusted
    }

    /// Writes who asked, for what host, through which port.
    pub fn introduce(&self, headers: &mut HeaderMap, host: &HeaderValue) {
        let forwarded = self.forwarded_for(host);
        if self.trusted {
            append(headers, X_FORWARDED_FOR, &self.address);
            append(headers, FORWARDED, &forwarded);
            headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(self.scheme));
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
            headers.entry(X_FORWARDED_PORT).or_insert_with(|| self.port.clone());
        } else {
            headers.insert(X_FORWARDED_FOR, self.address.clone());
            headers.insert(FORWARDED, forwarded);
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(X_FORWARDED_PORT, self.port.clone());
            headers.remove(X_FORWARDED_PREFIX);
        }
        let start = request_start();
        if self.trusted {
            headers.entry(X_REQUEST_START).or_insert(start);
        } else {
            headers.insert(X_REQUEST_START, start);
        }
    }

    /// The identifier of a request: the client's if it is believed and harmless, else a new one.
    pub fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(X_REQUEST_ID) {
            Some(id) if self.trusted && is_harmless_id(id) => id.clone(),
            _ => new_request_id(),
        }
    }

    fn forwarded_for(&self, host: &HeaderValue) -> HeaderValue {
        let mut cached = self.forwarded.borrow_mut();
        match &*cached {
            Some((known, forwarded)) if known == host => forwarded.clone(),
            _ => {
                let made = self.make_forwarded(host);
                *cached = Some((host.clone(), made.clone()));
                made
            }
        }
    }

    fn make_forwarded(&self, host: &HeaderValue) -> HeaderValue {
        let mut text = format!("for={}", self.node);
        // RFC 7239 wants quotes around a colon; hosts with quotes or backslashes of their own are left out.
        if let Ok(host) = host.to_str()
            && !host.contains(['"', '\\'])
        {
            let quote = if host.bytes().all(is_token) { "" } else { "\"" };
            let _ = write!(text, ";host={quote}{host}{quote}");
        }
        let _ = write!(text, ";proto={}", self.scheme);
        value(text)
    }
}

/// Whether the client used HTTPS: on this connection, or up to a trusted proxy before this one.
pub fn came_secure(connection: &Connection, headers: &HeaderMap) -> bool {
    let said = || headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    connection.secure || connection.headers.trusted() && said()
}

fn value(text: String) -> HeaderValue {
    // Only addresses and checked hosts are written here; nothing in them is forbidden in a header.
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("unknown"))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// One line with everything earlier hops said, and this hop at its end.
fn append(headers: &mut HeaderMap, name: HeaderName, own: &HeaderValue) {
    let mut joined = BytesMut::new();
    for earlier in headers.get_all(&name) {
        joined.extend_from_slice(earlier.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(own.as_bytes());
    if let Ok(joined) = HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(name, joined);
    }
}

fn is_harmless_id(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=LONGEST_ID).contains(&bytes.len()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
}

/// 128 random bits in hexadecimal.
pub fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u128(..).to_be_bytes();
    let mut text = BytesMut::with_capacity(2 * random.len());
    for byte in random {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    HeaderValue::from_maybe_shared(text.freeze()).unwrap_or(HeaderValue::from_static("none"))
}

fn request_start() -> HeaderValue {
    thread_local! {
        // Thousands of requests share a millisecond.
        static LAST: Cell<u64> = const { Cell::new(0) };
        static TEXT: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("t=0")) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    TEXT.with_borrow_mut(|text| {
        if LAST.replace(now) != now {
            *text = value(format!("t={now}"));
        }
        text.clone()
    })
}

/// The protocol a request asks to change to, if it does so properly and it is one that can be tunnelled.
pub fn wanted_upgrade(version: http::Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(UPGRADE).filter(|_| version == http::Version::HTTP_11)?;
    let announced = list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    // A change to HTTP/2 concerns this connection only and need not be taken up.
    (announced && !wanted.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| wanted.clone())
}

/// Removes from a request what concerns the client's connection only.
pub fn clean_request(headers: &mut HeaderMap) {
    let trailers = list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(HTTP2_SETTINGS);
    // "100 Continue" is answered here, when the instance begins to read the body.
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Removes from an answer what concerns the instance's connection only.
pub fn clean_answer(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
}

/// Puts back what makes a request or an answer a change of protocol.
pub fn keep_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = list(headers, &CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            // Nobody may have the proxy remove what it needs to route and to frame.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|item| item.split(';').next().unwrap_or(item).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn client(peer: &str, trusted: bool) -> ClientHeaders {
        ClientHeaders::new(
            peer.parse().expect("an address"),
            "10.0.0.1:8080".parse().expect("an address"),
            trusted,
            false,
        )
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut headers = map(&[
            ("connection", "close, x-a"),
            ("connection", "X-B, host, content-length"),
            ("x-a", "1"),
            ("x-b", "1"),
            ("x-c", "1"),
            ("host", "shop"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip;q=0.5"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
        ]);
        clean_request(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-c"]);
    }

    #[test]
    fn only_a_proper_change_of_protocol_is_passed_on() {
        let ask = |lines: &[(&'static str, &'static str)], version| wanted_upgrade(version, &map(lines)).is_some();
        let proper = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert!(ask(&proper, http::Version::HTTP_11));
        assert!(!ask(&proper, http::Version::HTTP_10));
        assert!(!ask(&proper[1..], http::Version::HTTP_11));
        assert!(!ask(&[("connection", "upgrade"), ("upgrade", "h2c")], http::Version::HTTP_11));
    }

    #[test]
    fn addresses_are_written_as_the_standards_want() {
        let mut headers = map(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-prefix", "/evil")]);
        let host = HeaderValue::from_static("shop.example.com:80");
        client("[2001:db8::1]:9", false).introduce(&mut headers, &host);
        assert_eq!(headers[X_FORWARDED_FOR], "2001:db8::1");
        assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]\";host=\"shop.example.com:80\";proto=http");
        assert!(!headers.contains_key(X_FORWARDED_PREFIX));
        client("[::ffff:192.0.2.1]:9", true).introduce(&mut headers, &HeaderValue::from_static("a\"b"));
        assert_eq!(headers[X_FORWARDED_FOR], "2001:db8::1, 192.0.2.1");
        assert_eq!(headers.get_all(FORWARDED).iter().count(), 1);
        assert!(headers[FORWARDED].as_bytes().ends_with(b", for=192.0.2.1;proto=http"));
        assert_eq!(headers[X_FORWARDED_HOST], host);
    }

    #[test]
    fn request_ids_are_taken_over_only_from_friends_and_only_if_harmless() {
        let given = |id| map(&[("x-request-id", id)]);
        assert_eq!(client("1.2.3.4:5", true).request_id(&given("a-b_c.1")), "a-b_c.1");
        for bad in ["", "a b", "a\"b", "<script>"] {
            assert_ne!(client("1.2.3.4:5", true).request_id(&given(bad)), bad);
        }
        assert_ne!(client("1.2.3.4:5", false).request_id(&given("abc")), "abc");
        assert_ne!(new_request_id(), new_request_id());
    }
}
