//! TLS of the API's address, from the files of `api.tls`.
//!
//! The files are looked at when a connection comes, and read again when they have changed: whoever renews a certificate puts the
//! new files in place and needs to tell nobody. Files that cannot be used change nothing while there is a pair from
//! before; without one, nobody gets in, and the log says why.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::engine::Engine;
use crate::files::config::PairFiles;
use crate::tls::{self, Stamp};

/// A handshake takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The pair in use.
#[derive(Debug)]
struct Kept {
    files: PairFiles,
    stamp: Stamp,
    config: Option<Arc<ServerConfig>>,
}

/// Connections as they are, or over TLS.
#[derive(Debug)]
pub struct Secure {
    engine: Engine,
    kept: Mutex<Option<Kept>>,
}

/// A connection that has come so far.
pub enum Accepted {
    /// As it came.
    Plain(TcpStream),
    /// After its handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Secure {
    /// As the configuration says at the time.
    pub fn new(engine: Engine) -> Self {
        Self { engine, kept: Mutex::default() }
    }

    /// Does the handshake, where there is to be one.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let Some(files) = self.engine.api_tls() else { return Ok(Accepted::Plain(stream)) };
        let config = self.config(files).ok_or_else(|| io::Error::other("there is no certificate to show"))?;
        let handshake = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream));
        Ok(Accepted::Tls(Box::new(handshake.await.map_err(io::Error::other)??)))
    }

    fn config(&self, files: PairFiles) -> Option<Arc<ServerConfig>> {
        let stamp = files.stamp();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.as_ref().filter(|known| known.files == files && known.stamp == stamp) {
            return known.config.clone();
        }
        let before = kept.take().and_then(|known| known.config);
        let config = match read(&files) {
            Ok(config) => {
                tracing::info!(certificate = %files.certificate.display(), "the API's certificate is read");
                Some(Arc::new(config))
            }
            Err(error) => {
                let rest = if before.is_some() { "the one from before stays in use" } else { "nobody gets in by it" };
                tracing::error!("the API's certificate cannot be used: {error}; {rest}");
                before
            }
        };
        *kept = Some(Kept { files, stamp, config: config.clone() });
        config
    }
}

fn read(files: &PairFiles) -> Result<ServerConfig, String> {
    let (pair, _) = files.read().map_err(|error| error.to_string())?;
    tls::server(&pair, &[b"http/1.1"]).map_err(|error| error.to_string())
}
