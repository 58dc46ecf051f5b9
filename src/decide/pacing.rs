//! Who asks more often than is borne: a bucket of permits for each, filled at a steady pace.
//!
//! Invariant: no more than [`MOST`] are remembered, whatever comes; who is forgotten begins with a full bucket.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many are remembered.
pub const MOST: usize = 4096;

/// What is left in a bucket, and when that was so.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The buckets, by whose they are.
#[derive(Debug)]
pub struct Pace<K>(HashMap<K, Bucket>);

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone> Pace<K> {
    /// Takes a permit of a bucket that holds `burst` and gets `per_second`; else says after how long there is one.
    pub fn take(&mut self, key: &K, per_second: f64, burst: f64, now: Instant) -> Result<(), Duration> {
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * per_second).min(burst)
        };
        if !self.0.contains_key(key) && self.0.len() >= MOST {
            // A full bucket is as good as none.
            self.0.retain(|_, bucket| filled(bucket) < burst);
            let fullest = self.0.iter().max_by(|(_, one), (_, other)| filled(one).total_cmp(&filled(other)));
            if self.0.len() >= MOST
                && let Some(key) = fullest.map(|(key, _)| key.clone())
            {
                self.0.remove(&key);
            }
        }
        let bucket = self.0.entry(key.clone()).or_insert(Bucket { left: burst, at: now });
        let left = filled(bucket);
        let taken = left >= 1.0;
        *bucket = Bucket { left: if taken { left - 1.0 } else { left }, at: now };
        if taken { Ok(()) } else { Err(Duration::from_secs_f64(((1.0 - left) / per_second).min(3600.0))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_pace_holds() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        for _ in 0..4 {
            assert_eq!(pace.take(&'a', 2.0, 4.0, start), Ok(()));
        }
        assert_eq!(pace.take(&'a', 2.0, 4.0, start), Err(Duration::from_millis(500)));
        assert_eq!(pace.take(&'b', 2.0, 4.0, start), Ok(()), "one does not pay for another");
        assert_eq!(pace.take(&'a', 2.0, 4.0, at(500)), Ok(()));
        assert!(pace.take(&'a', 2.0, 4.0, at(500)).is_err());
        // However long it was quiet, it holds no more than the burst.
        let taken = (0..100).filter(|_| pace.take(&'a', 2.0, 4.0, at(3_600_000)).is_ok()).count();
        assert_eq!(taken, 4);
    }

    #[test]
    fn a_crowd_of_addresses_takes_no_more_memory() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        while pace.take(&0, 1.0, 2.0, start).is_ok() {}
        for key in 1..10_000 {
            assert_eq!(pace.take(&key, 1.0, 2.0, start), Ok(()));
        }
        assert!(pace.0.len() <= MOST);
        assert!(pace.take(&0, 1.0, 2.0, start).is_err(), "who has asked too often is the last to be forgotten");
    }
}
