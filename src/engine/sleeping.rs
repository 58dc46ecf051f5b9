//! Waiting for a moment that may never come.

use tokio::time::Instant;

/// Sleeps until then; for ever without a moment.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
