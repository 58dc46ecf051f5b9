//! Answers that go on: each value of a channel as one server-sent event.
//!
//! Invariant: the answer ends when the channel does, when the caller goes, or when the agent shuts down, whatever
//! is first; the caller hears something at least every [`KEEP_ALIVE`].

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
/// How many values go into one piece, when many wait.
const BATCH: usize = 256;

/// The answer made of a channel's values.
pub fn answer<T: Serialize + Send + 'static>(values: mpsc::Receiver<T>, shutdown: CancellationToken) -> Response {
    let stream = futures_util::stream::unfold((values, shutdown), |(mut values, shutdown)| async move {
        let piece = next_piece(&mut values, &shutdown, KEEP_ALIVE).await?;
        Some((Ok::<_, Infallible>(piece), (values, shutdown)))
    });
    let kind = HeaderValue::from_static("text/event-stream");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response()
}

async fn next_piece<T: Serialize>(
    values: &mut mpsc::Receiver<T>,
    shutdown: &CancellationToken,
    keep_alive: Duration,
) -> Option<Bytes> {
    let mut batch = Vec::new();
    tokio::select! {
        // What is there already is said before the end.
        biased;
        count = values.recv_many(&mut batch, BATCH) => if count == 0 { return None },
        () = shutdown.cancelled() => return None,
        () = tokio::time::sleep(keep_alive) => return Some(Bytes::from_static(b": keep-alive\n\n")),
    }
    let mut piece = Vec::new();
    for value in &batch {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_is_filled_and_the_end_is_the_end_of_the_channel() {
        let (sender, mut receiver) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        assert_eq!(
            next_piece(&mut receiver, &shutdown, Duration::from_millis(20)).await,
            Some(": keep-alive\n\n".into())
        );
        sender.send("a\nb").await.expect("open");
        sender.send("c").await.expect("open");
        assert_eq!(
            next_piece(&mut receiver, &shutdown, Duration::from_millis(20)).await,
            Some("data: \"a\\nb\"\n\ndata: \"c\"\n\n".into())
        );
        drop(sender);
        assert_eq!(next_piece(&mut receiver, &shutdown, Duration::from_millis(20)).await, None);
    }

    #[tokio::test]
    async fn shutdown_ends_a_stream_after_what_was_there() {
        let (sender, mut receiver) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        sender.send(1).await.expect("open");
        shutdown.cancel();
        assert_eq!(next_piece(&mut receiver, &shutdown, Duration::from_millis(20)).await, Some("data: 1\n\n".into()));
        assert_eq!(next_piece(&mut receiver, &shutdown, Duration::from_millis(20)).await, None);
    }
}
