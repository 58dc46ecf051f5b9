//! BuildKit's session: a connection on which the engine asks us, by gRPC, for what a build needs of whoever wants it.
//!
//! Logins of registries are asked for, and secrets that steps mount; the context goes along with the request. The engine is the client of
//! HTTP/2 here, on a connection that we have opened (`POST /session` in the Engine API); gRPC over HTTP/2 is
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio_util::task::AbortOnDropHandle;

use super::super::dial::dial;
use super::super::{Logins, Settings};
use super::messages::{CredentialsRequest, CredentialsResponse, HealthCheckResponse, SecretRequest, SecretResponse};
use super::{BuildError, Secrets, hub_as_configured};

/// The engine has taken up the session after this long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of a question.
const QUESTION: usize = 64 * 1024;
/// The methods beside `Health/Check`: the engine is told of them.
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// gRPC's codes.
const OK: u8 = 0;
const INVALID_ARGUMENT: u8 = 3;
const NOT_FOUND: u8 = 5;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;

/// A session that lasts as long as this value.
pub(super) struct Session {
    /// The name under which a build finds it.
    pub id: String,
    _served: AbortOnDropHandle<()>,
}

/// What is answered from.
#[derive(Clone)]
struct Holder {
    logins: Logins,
    secrets: Secrets,
}

/// Opens a session that gives these secrets. `path` is the engine's API with its version.
pub(super) async fn open(settings: &Settings, path: &str, secrets: &Secrets) -> Result<Session, BuildError> {
    let id: String = std::iter::repeat_with(fastrand::alphanumeric).take(25).collect::<String>().to_lowercase();
    let mut sender = dial(settings).await.map_err(BuildError::Lost)?;
    let request = Request::post(format!("{path}/session"))
        .header(HOST, "engine")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "h2c")
        .header("x-docker-expose-session-uuid", &id)
        .header("x-docker-expose-session-name", "landfall")
        .header("x-docker-expose-session-grpc-method", CREDENTIALS)
        .header("x-docker-expose-session-grpc-method", SECRET)
        .body(Empty::new().map_err(|never: Infallible| match never {}).boxed())
        .map_err(|error| BuildError::Failed(error.to_string()))?;
    let upgraded = async {
        let answer = sender.send_request(request).await.map_err(|error| BuildError::Lost(error.to_string()))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(BuildError::Failed(format!("the engine opens no session for BuildKit ({})", answer.status())));
        }
        hyper::upgrade::on(answer).await.map_err(|error| BuildError::Lost(error.to_string()))
    };
    let upgraded = tokio::time::timeout(DEADLINE, upgraded)
        .await
        .unwrap_or_else(|_| Err(BuildError::Lost(format!("no session within {} s", DEADLINE.as_secs()))))?;
    let holder = Holder { logins: settings.logins.clone(), secrets: secrets.clone() };
    let service = service_fn(move |request: Request<Incoming>| {
        let holder = holder.clone();
        async move {
            let (head, body) = request.into_parts();
            Ok::<_, Infallible>(holder.serve(head.uri.path(), body).await)
        }
    });
    let served = http2::Builder::new(TokioExecutor::new()).serve_connection(upgraded, service);
    let served = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::debug!(%error, "the session of a build broke off");
        }
    }));
    Ok(Session { id, _served: served })
}

/// The body of a request.
trait Question: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send {}
impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send> Question for B {}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl Holder {
    /// Answers one question of the engine.
    async fn serve(&self, path: &str, body: impl Question) -> Answer {
        match path {
            HEALTH => said(&HealthCheckResponse { status: 1 }),
            CREDENTIALS => match question(body).await {
                Ok(CredentialsRequest { host }) => self.login(&host).await,
                Err(why) => refused(INVALID_ARGUMENT, &why),
            },
            SECRET => match question(body).await {
                Ok(SecretRequest { id }) => self.secret(&id),
                Err(why) => refused(INVALID_ARGUMENT, &why),
            },
            _ => refused(UNIMPLEMENTED, "not spoken here"),
        }
    }

    async fn login(&self, host: &str) -> Answer {
        match self.logins.of(hub_as_configured(host)).await {
            Ok(Some(login)) => {
                said(&CredentialsResponse { username: login.username, secret: login.password.expose().to_owned() })
            }
            Ok(None) => said(&CredentialsResponse::default()),
            Err(why) => refused(UNAVAILABLE, &format!("the login for {host}: {why}")),
        }
    }

    fn secret(&self, id: &str) -> Answer {
        match self.secrets.get(id) {
            Some(value) => said(&SecretResponse { data: value.expose().as_bytes().to_vec() }),
            // A step goes on without, unless it says `required`.
            None => refused(NOT_FOUND, &format!("`build.secrets` does not name {id}")),
        }
    }
}

/// The one message of a request: a byte that says whether it is compressed, four with its length, the message.
async fn question<M: Message + Default>(body: impl Question) -> Result<M, String> {
    let bytes = Limited::new(body, QUESTION).collect().await.map_err(|error| error.to_string())?.to_bytes();
    match bytes.split_at_checked(5) {
        Some(([0, ..], message)) => M::decode(message).map_err(|error| error.to_string()),
        _ => Err("a message that is not compressed was expected".to_owned()),
    }
}

fn said(message: &impl Message) -> Answer {
    let mut framed = BytesMut::with_capacity(5 + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    framed.put_slice(&message.encode_to_vec());
    let frames = [Frame::data(framed.freeze()), Frame::trailers(verdict(OK, ""))];
    answer(StreamBody::new(stream::iter(frames.map(Ok))).boxed())
}

fn refused(code: u8, words: &str) -> Answer {
    answer(StreamBody::new(stream::iter([Ok(Frame::trailers(verdict(code, words)))])).boxed())
}

fn answer(body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn verdict(code: u8, words: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    // Other characters would have to be escaped.
    let words: String = words.chars().map(|c| if (' '..='~').contains(&c) && c != '%' { c } else { ' ' }).collect();
    if let Ok(words) = HeaderValue::from_str(&words) {
        trailers.insert("grpc-message", words);
    }
    trailers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::Full;

    use super::*;
    use crate::domain::Secret;

    fn framed(message: &[u8]) -> Bytes {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[0], &length[..], message].concat().into()
    }

    /// What the engine reads of an answer: the message's bytes and the code.
    async fn asked(holder: &Holder, path: &str, message: &[u8]) -> (Bytes, String) {
        let answer = holder.serve(path, Full::new(framed(message))).await;
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/grpc");
        let body = answer.into_body().collect().await.expect("whole");
        let code = body.trailers().expect("a verdict")["grpc-status"].to_str().expect("text").to_owned();
        (body.to_bytes(), code)
    }

    #[tokio::test]
    async fn secrets_are_given_by_their_identifier_and_others_are_not_found() {
        let secrets = Arc::new([("npmrc".to_owned(), Secret::new("hunter2"))].into());
        let holder = Holder { logins: Logins::new(Vec::new(), |_| Ok(None)), secrets };
        // `GetSecretRequest { ID: "npmrc", annotations: {"a": "b"} }` and `GetSecretResponse { data: "hunter2" }` as the
        // protocol lays them down, byte by byte.
        let request = b"\x0a\x05npmrc\x12\x06\x0a\x01a\x12\x01b";
        assert_eq!(asked(&holder, SECRET, request).await, (framed(b"\x0a\x07hunter2"), "0".to_owned()));
        assert_eq!(asked(&holder, SECRET, b"\x0a\x05other").await, (Bytes::new(), "5".to_owned()));
        assert_eq!(asked(&holder, SECRET, b"\xff").await.1, "3");
        // Keys of ssh are not served.
        assert_eq!(asked(&holder, "/moby.sshforward.v1.SSH/CheckAgent", b"").await.1, "12");
    }
}
