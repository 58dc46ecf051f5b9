//! Connections of our own to the engine, for what `bollard` does not speak: BuildKit's session and its reports.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::connection::{Place, place};
use super::{Settings, connection, transport};
use crate::tls;

/// What is sent.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// A connection must be there after this long.
const DEADLINE: Duration = Duration::from_secs(10);

/// A new connection for one request after another, as the settings say. It ends with the sender, or with what a request
/// has upgraded it to.
pub(super) async fn dial(settings: &Settings) -> Result<SendRequest<Body>, String> {
    tokio::time::timeout(DEADLINE, connect(settings))
        .await
        .unwrap_or_else(|_| Err(format!("no connection within {} s", DEADLINE.as_secs())))
}

async fn connect(settings: &Settings) -> Result<SendRequest<Body>, String> {
    let address = connection::address(settings);
    match place(&address)? {
        Place::Socket(path) => {
            handshake(UnixStream::connect(path).await.map_err(|error| format!("{path}: {error}"))?).await
        }
        Place::Tcp(at) => {
            let stream = TcpStream::connect(at).await.map_err(|error| format!("{at}: {error}"))?;
            let Some(files) = &settings.tls else {
                transport::may_be_plain(at, settings.insecure)?;
                return handshake(stream).await;
            };
            let config = tls::client(&files.authority, files.own.as_ref()).map_err(|error| error.to_string())?;
            let host = at.rsplit_once(':').map_or(at, |(host, _)| host).trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(|error| format!("{at}: {error}"))?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            handshake(stream.map_err(|error| format!("{at}: {error}"))?).await
        }
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<SendRequest<Body>, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the container engine broke off");
        }
    });
    Ok(sender)
}
