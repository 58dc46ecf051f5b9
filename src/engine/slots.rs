//! How many things may go on at once, changeable while they go on.
//!
//! A smaller number takes hold as work ends: nothing that is under way is stopped for it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A bound on what goes on at once. Cheap to clone; all clones are the same bound.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    semaphore: Arc<Semaphore>,
    size: Arc<Mutex<u32>>,
}

impl Slots {
    pub(super) fn new(size: u32) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(size as usize)), size: Arc::new(Mutex::new(size)) }
    }

    /// Waits for a slot; it is free again when the permit is dropped.
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.semaphore).acquire_owned().await
    }

    /// Sets how many there are. Needs a runtime: slots that are taken now are collected as they are given back.
    pub(super) fn resize(&self, wanted: u32) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let (more, fewer) = (wanted.saturating_sub(*size), size.saturating_sub(wanted));
        *size = wanted;
        self.semaphore.add_permits(more as usize);
        let free = self.semaphore.forget_permits(fewer as usize);
        let owed = fewer.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX));
        if owed > 0 {
            let semaphore = Arc::clone(&self.semaphore);
            tokio::spawn(async move {
                if let Ok(given_back) = semaphore.acquire_many_owned(owed).await {
                    given_back.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_changes_while_slots_are_taken() {
        let slots = Slots::new(1);
        let first = slots.take().await.unwrap();
        assert_eq!(slots.semaphore.available_permits(), 0);
        slots.resize(3);
        let (second, third) = (slots.take().await.unwrap(), slots.take().await.unwrap());
        slots.resize(1);
        drop((first, second));
        // Both were owed: the third is the only one left, and it is taken.
        while slots.semaphore.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        drop(third);
        let only = slots.take().await.unwrap();
        assert_eq!(slots.semaphore.available_permits(), 0);
        drop(only);
    }
}
