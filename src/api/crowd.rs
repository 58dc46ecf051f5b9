//! How many are connected, in all and from each address.
//!
//! Invariant: a place is given back when whoever had it has gone, however that came about; bounds may change at any time and hold for
//! whoever comes next.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::decide::slowing::network;

/// Who is there.
#[derive(Debug, Default)]
pub struct Crowd {
    there: Mutex<There>,
    left: Notify,
}

#[derive(Debug, Default)]
struct There {
    all: usize,
    from: HashMap<IpAddr, usize>,
}

/// The place of one connection.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    from: Option<IpAddr>,
}

impl Crowd {
    /// Waits until there are fewer than `most`. The bound is asked for again whenever somebody has left.
    pub async fn until_room(&self, most: impl Fn() -> usize) {
        loop {
            let left = self.left.notified();
            if self.there.lock().unwrap_or_else(PoisonError::into_inner).all < most() {
                return;
            }
            left.await;
        }
    }

    /// A place for one more; `None` where `most_from_one` come from this address already.
    pub fn enter(self: &Arc<Self>, from: Option<IpAddr>, most_from_one: usize) -> Option<Place> {
        let from = from.map(network);
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(from) = from {
            let count = there.from.entry(from).or_insert(0);
            if *count >= most_from_one {
                return None;
            }
            *count += 1;
        }
        there.all += 1;
        Some(Place { crowd: Arc::clone(self), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut there = self.crowd.there.lock().unwrap_or_else(PoisonError::into_inner);
        there.all = there.all.saturating_sub(1);
        if let Some(from) = self.from
            && let Some(count) = there.from.get_mut(&from)
        {
            *count -= 1;
            if *count == 0 {
                there.from.remove(&from);
            }
        }
        drop(there);
        self.crowd.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[tokio::test]
    async fn one_address_has_its_share_and_gives_it_back() {
        let crowd = Arc::new(Crowd::default());
        let first = crowd.enter(address("192.0.2.1"), 2).expect("a place");
        let _second = crowd.enter(address("192.0.2.1"), 2).expect("a place");
        assert!(crowd.enter(address("192.0.2.1"), 2).is_none());
        assert!(crowd.enter(address("192.0.2.2"), 2).is_some(), "another address has its own share");
        let _network = crowd.enter(address("2001:db8::1"), 1).expect("a place");
        assert!(crowd.enter(address("2001:db8::2"), 1).is_none(), "a /64 is one");
        drop(first);
        assert!(crowd.enter(address("192.0.2.1"), 2).is_some());
    }

    #[tokio::test]
    async fn who_comes_to_a_full_house_waits_until_somebody_leaves() {
        let crowd = Arc::new(Crowd::default());
        let place = crowd.enter(None, 1).expect("a place");
        let waiting = tokio::spawn({
            let crowd = Arc::clone(&crowd);
            async move { crowd.until_room(|| 1).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(place);
        tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.expect("in time").expect("let in");
        assert!(crowd.there.lock().expect("unpoisoned").from.is_empty());
    }
}
