//! Answers that go on: each value of a channel as one server-sent event.
//!
//! ```text
//! id: PLACE        where whoever is cut off goes on, with the header `Last-Event-ID`
//! data: {…}
//!
//! event: end       all is said; an answer that ends without it was cut off
//! data: {}
//! ```
//!
//! Invariant: the answer ends when the channel does, when the caller goes, or when the agent shuts down, whatever
//! is first; the caller hears something at least every [`KEEP_ALIVE`]. A place holds over restarts of the agent.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pause after which a comment tells the caller that the agent is still there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The first one comes earlier: from then on a stream without values has a place, too.
const FIRST_SILENCE: Duration = Duration::from_secs(1);
/// How many values go into one piece, when many wait.
const BATCH: usize = 256;

/// The places of a stream.
pub trait Places<T>: Send + 'static {
    /// The place behind this value, which is said now.
    fn behind(&mut self, value: &T) -> Option<String>;

    /// The place of a stream that has been silent for a second or more.
    fn silent(&mut self) -> Option<String> {
        None
    }
}

/// Nobody goes on in this stream.
pub struct Nowhere;

impl<T> Places<T> for Nowhere {
    fn behind(&mut self, _: &T) -> Option<String> {
        None
    }
}

/// A stream under way.
struct Stream<T, P> {
    values: mpsc::Receiver<T>,
    places: P,
    shutdown: CancellationToken,
    keep_alive: Duration,
    ended: bool,
}

/// The answer made of a channel's values.
pub fn answer<T, P>(values: mpsc::Receiver<T>, places: P, shutdown: CancellationToken) -> Response
where
    T: Serialize + Send + 'static,
    P: Places<T>,
{
    let stream = Stream { values, places, shutdown, keep_alive: FIRST_SILENCE, ended: false };
    let stream = futures_util::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next_piece().await?;
        stream.keep_alive = KEEP_ALIVE;
        Some((Ok::<_, Infallible>(piece), stream))
    });
    let kind = HeaderValue::from_static("text/event-stream");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response()
}

impl<T: Serialize, P: Places<T>> Stream<T, P> {
    async fn next_piece(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut batch = Vec::new();
        tokio::select! {
            // What is there already is said before the end.
            biased;
            count = self.values.recv_many(&mut batch, BATCH) => if count == 0 {
                self.ended = true;
                return Some(Bytes::from_static(b"event: end\ndata: {}\n\n"));
            },
            () = self.shutdown.cancelled() => return None,
            () = tokio::time::sleep(self.keep_alive) => {
                let place = self.places.silent().map(|place| format!("id: {place}\n")).unwrap_or_default();
                return Some(Bytes::from(format!(": keep-alive\n{place}\n")));
            }
        }
        let mut piece = Vec::new();
        for value in &batch {
            if let Some(place) = self.places.behind(value) {
                piece.extend_from_slice(format!("id: {place}\n").as_bytes());
            }
            piece.extend_from_slice(b"data: ");
            // JSON of one line: serde_json escapes line ends within strings.
            if let Err(error) = serde_json::to_writer(&mut piece, value) {
                tracing::error!("a stream was ended because a value cannot be written as JSON: {error}");
                return None;
            }
            piece.extend_from_slice(b"\n\n");
        }
        Some(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places counted from 1.
    struct Counted(u32);

    impl<T> Places<T> for Counted {
        fn behind(&mut self, _: &T) -> Option<String> {
            self.0 += 1;
            Some(self.0.to_string())
        }

        fn silent(&mut self) -> Option<String> {
            Some(self.0.to_string())
        }
    }

    fn stream<T>(values: mpsc::Receiver<T>, shutdown: &CancellationToken) -> Stream<T, Counted> {
        let keep_alive = Duration::from_millis(20);
        Stream { values, places: Counted(0), shutdown: shutdown.clone(), keep_alive, ended: false }
    }

    #[tokio::test]
    async fn silence_is_filled_and_the_end_is_said_when_it_is_one() {
        let (sender, receiver) = mpsc::channel(4);
        let mut stream = stream(receiver, &CancellationToken::new());
        assert_eq!(stream.next_piece().await, Some(": keep-alive\nid: 0\n\n".into()));
        sender.send("a\nb").await.expect("open");
        sender.send("c").await.expect("open");
        assert_eq!(stream.next_piece().await, Some("id: 1\ndata: \"a\\nb\"\n\nid: 2\ndata: \"c\"\n\n".into()));
        drop(sender);
        assert_eq!(stream.next_piece().await, Some("event: end\ndata: {}\n\n".into()));
        assert_eq!(stream.next_piece().await, None);
    }

    #[tokio::test]
    async fn shutdown_cuts_a_stream_off_after_what_was_there() {
        let (sender, receiver) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        sender.send(1).await.expect("open");
        shutdown.cancel();
        let mut stream = stream(receiver, &shutdown);
        assert_eq!(stream.next_piece().await, Some("id: 1\ndata: 1\n\n".into()));
        assert_eq!(stream.next_piece().await, None);
    }
}
