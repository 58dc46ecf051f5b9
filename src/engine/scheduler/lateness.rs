//! How late runs start: counted in buckets since this controller started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::SignedDuration;

/// Upper ends of the buckets in milliseconds; what is later has one more.
const ENDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 1000, 10_000, 60_000, 600_000, 3_600_000];

/// Shared between the one who notes and those who ask.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Lateness(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; ENDS.len() + 1],
    micros: AtomicU64,
}

/// How late runs have started.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Late {
    /// All of it together, in seconds.
    pub seconds: f64,
    /// How many runs there were.
    pub runs: u64,
    /// How many there were in each bucket, with its upper end in seconds; the last one has none.
    pub buckets: Vec<(f64, u64)>,
}

impl Lateness {
    /// A run has started so much after its time; jitter is not late.
    pub(super) fn note(&self, late: SignedDuration) {
        let micros = u64::try_from(late.as_micros()).unwrap_or(0);
        let bucket = ENDS.iter().position(|end| micros <= end * 1000).unwrap_or(ENDS.len());
        // One task writes, and a reader that sees half of a run sees the other half the next time.
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// As it stands.
    pub(in crate::engine) fn read(&self) -> Late {
        let ends = ENDS.iter().map(|end| *end as f64 / 1000.0).chain([f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        Late {
            seconds: self.0.micros.load(Ordering::Relaxed) as f64 / 1e6,
            runs: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_counted_in_the_bucket_it_just_fits_into() {
        let lateness = Lateness::default();
        for late in [-3, 0, 5, 6, 7_200_000] {
            lateness.note(SignedDuration::from_millis(late));
        }
        let late = lateness.read();
        let filled: Vec<_> = late.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(0.005, 3), (0.01, 1), (f64::INFINITY, 1)]);
        assert_eq!((late.runs, late.seconds), (5, 7200.011));
    }
}
