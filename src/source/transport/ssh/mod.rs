//! `ssh://` and `user@host:path`: git-upload-pack on the other side of an ssh connection.
//!
//! The protocol is russh's; what is ours is whom to trust (`trust`, `known_hosts`), what to sign in with (`key`, `files`) and that
//! every step obeys the look's limits (`session`). Nothing outside of the source's configuration is used: no agent,
//! no file of the user's, no program. Each connection reads the files again, so that a rotated key is used at the next fetch.

mod client;
mod files;
mod key;
mod known_hosts;
mod session;
mod trust;

use std::io::{Cursor, Read, Write};

use bytes::Bytes;
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};

use super::super::error::{SourceErrorKind, Trouble};
use super::Context;
use crate::files::ssh_url::SshAddress;
use session::Session;

/// Makes the one stream of an ssh remote.
pub(crate) struct SshTransport {
    context: Context,
}

impl SshTransport {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    fn open(&self, url: &str) -> Result<Stream, Trouble> {
        let address = SshAddress::parse(url).map_err(|problem| {
            Trouble::new(SourceErrorKind::Unsupported, problem.message, problem.hint.unwrap_or_default())
        })?;
        let config = self.context.reach.ssh(&address).ok_or_else(|| {
            let what = format!("there is no key to sign in with at {}", address.host);
            let mend = "a source's key is for its own server only; reach what lies elsewhere over https://";
            Trouble::new(SourceErrorKind::Credentials, what, mend)
        })?;
        let session = Session::open(&self.context, address.clone(), config)?;
        Ok(Stream { context: self.context.clone(), session, rest: Cursor::default() })
    }
}

impl SmartSubtransport for SshTransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match action {
            // Listing and pack go over the same stream; it is asked for once.
            Service::UploadPackLs | Service::UploadPack => {
                Ok(Box::new(self.open(url).map_err(|trouble| self.context.fail_git(trouble))?))
            }
            Service::ReceivePackLs | Service::ReceivePack => {
                let mend = "push by other means";
                Err(self.context.fail_git(Trouble::new(SourceErrorKind::Unsupported, "sources are only read", mend)))
            }
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct Stream {
    context: Context,
    session: Session,
    /// What was received and not yet taken.
    rest: Cursor<Bytes>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.rest.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        match self.session.receive().map_err(|trouble| self.context.fail(trouble))? {
            Some(bytes) => {
                self.rest = Cursor::new(bytes);
                self.rest.read(buffer)
            }
            None => Ok(0),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.session.send(bytes).map_err(|trouble| self.context.fail(trouble))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
