//! Closing a connection so that the other side still sees the last answer.
//!
//! A server that answers before it has read a whole request body (too large, not allowed) and then closes the socket
//! resets it: the system throws away what lies unread, the client's next write fails, and many clients never look at the
//! answer that says why. RFC 9112 §9.6 has the mend: close our half, then read on for a while.
//!
//! ```text
//! open ──poll_shutdown──► our half closed, reading and throwing away ──end, error, or 2 s──► closed
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A client that got an answer before its body was read may go on sending this long.
pub const LINGER: Duration = Duration::from_secs(2);
/// Reads in one turn; then others have theirs.
const READS: usize = 64;

/// The time a stream has left to be read out, from the first poll on.
#[derive(Debug, Default)]
pub struct Linger(Option<Pin<Box<Sleep>>>);

impl Linger {
    /// Reads from `stream` and throws away what comes. Ready when it has ended, failed, or [`LINGER`] has passed.
    pub fn poll<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.0.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4096];
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A stream that is read out whenever it is shut down. A client that closes as well ends that at once.
#[derive(Debug)]
pub struct Lingering<S> {
    stream: S,
    linger: Linger,
}

impl<S> Lingering<S> {
    /// The same stream, closed with care.
    pub fn new(stream: S) -> Self {
        Self { stream, linger: Linger::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        this.linger.poll(&mut this.stream, context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_other_side_may_finish_its_sentence() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut ours = Lingering::new(ours);
        let closing = tokio::spawn(async move {
            ours.write_all(b"no").await?;
            ours.shutdown().await
        });
        let mut answer = [0; 2];
        theirs.read_exact(&mut answer).await.expect("the answer");
        // More than any socket holds: it is read away, and our half is closed already.
        theirs.write_all(&vec![0; 4 * 1024 * 1024]).await.expect("nobody resets");
        assert_eq!(theirs.read(&mut answer).await.expect("an end"), 0);
        drop(theirs);
        closing.await.expect("no panic").expect("closed");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer_than_that() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let since = tokio::time::Instant::now();
        Lingering::new(ours).shutdown().await.expect("closed");
        assert_eq!(since.elapsed().as_millis() / 10, LINGER.as_millis() / 10);
    }
}
