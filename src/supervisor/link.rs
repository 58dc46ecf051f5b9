//! The supervisor's end of the socket pair to one controller.
//!
//! Invariant: the supervisor never waits for a controller. What the socket does not take is kept up to
//! [`OUT_LIMIT`]; a controller that lets more pile up is hung and is replaced.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::wire::frame::{Decoder, FrameError, encode};
use crate::wire::supervisor::{FromSupervisor, ToSupervisor};

/// Bytes that may wait for a controller.
const OUT_LIMIT: usize = 8 * 1024 * 1024;
/// Read per wake-up, so that a busy controller does not keep the supervisor from its other work.
const READ_LIMIT: usize = 256 * 1024;

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkFailure {
    #[error("the controller closed it")]
    Closed,
    #[error("the controller does not read: {0} bytes wait for it")]
    Stuck(usize),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    /// The controller has introduced itself; events before that are in the inventory.
    pub greeted: bool,
}

impl Link {
    /// A connected pair: our end, and the end for the child.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self::over(ours), theirs.into()))
    }

    /// Takes up an inherited connection.
    pub(super) fn resume(fd: OwnedFd) -> Self {
        Self::over(UnixStream::from(fd))
    }

    fn over(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::default(), out: Vec::new(), sent: 0, greeted: false }
    }

    /// Sends a message now or as soon as the socket takes it.
    pub(super) fn send(&mut self, message: &FromSupervisor) -> Result<(), LinkFailure> {
        self.out.extend_from_slice(&encode(message)?);
        self.flush()?;
        let waiting = self.out.len() - self.sent;
        if waiting > OUT_LIMIT { Err(LinkFailure::Stuck(waiting)) } else { Ok(()) }
    }

    /// Whether something waits to be written.
    pub(super) fn wants_write(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), LinkFailure> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.out.shrink_to(64 * 1024);
            self.sent = 0;
        } else if self.sent > OUT_LIMIT / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads what has come, as messages. Those before a failure are still delivered.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> (Vec<ToSupervisor>, Result<(), LinkFailure>) {
        let mut messages = Vec::new();
        let result = self.receive_into(buffer, &mut messages);
        (messages, result)
    }

    fn receive_into(&mut self, buffer: &mut [u8], messages: &mut Vec<ToSupervisor>) -> Result<(), LinkFailure> {
        let mut total = 0;
        while total < READ_LIMIT {
            match self.stream.read(buffer) {
                Ok(0) => return Err(LinkFailure::Closed),
                Ok(count) => {
                    total += count;
                    self.decoder.extend(buffer.get(..count).unwrap_or_default());
                    while let Some(message) = self.decoder.message()? {
                        messages.push(message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_does_not_read_is_noticed_and_never_waited_for() {
        let (mut link, _silent) = Link::pair().expect("a pair");
        let message = FromSupervisor::Reply {
            id: 1,
            reply: crate::wire::supervisor::Reply::Refused { code: "io".into(), message: "x".repeat(1 << 20) },
        };
        let failure = (0..20).find_map(|_| link.send(&message).err());
        assert!(matches!(failure, Some(LinkFailure::Stuck(_))), "{failure:?}");
    }
}
