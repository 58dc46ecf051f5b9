//! The clock that schedules go by.

use std::time::Duration;

use jiff::Timestamp;

/// Tells the time, and waits. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) enum Clock {
    /// The machine's wall clock, which may be moved at any time; waiting is by the one that never is.
    #[default]
    Machine,
    /// One that a test turns.
    #[cfg(test)]
    Turned(std::sync::Arc<super::turned::Turned>),
}

impl Clock {
    /// What it shows.
    pub(super) fn now(&self) -> Timestamp {
        match self {
            Self::Machine => Timestamp::now(),
            #[cfg(test)]
            Self::Turned(turned) => turned.now(),
        }
    }

    /// Waits for so long.
    pub(super) async fn sleep(&self, length: Duration) {
        match self {
            Self::Machine => tokio::time::sleep(length).await,
            #[cfg(test)]
            Self::Turned(turned) => turned.sleep(length).await,
        }
    }
}
