//! Whoever shows wrong tokens waits for each answer, longer each time, and at last gets none.
//!
//! Nobody finds 256 random bits by trying; this keeps those who try from costing much, and their traces readable. A
//! right token is never delayed: one who shares an address with somebody who tries goes on undisturbed.
//!
//! Invariant: no more than [`MOST`] addresses are remembered, whatever comes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses that are remembered.
pub const MOST: usize = 4096;
/// Failures that cost nothing: people mistype.
const FREE: u32 = 3;
/// Failures after which there is no more waiting, only refusal.
const ENOUGH: u32 = 10;
/// The first wait; each is twice the one before.
const FIRST: Duration = Duration::from_millis(100);
/// A quiet address is forgotten after this.
pub const FORGET: Duration = Duration::from_secs(600);

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slowed {
    /// The refusal is told after this long.
    Answer(Duration),
    /// There were too many from there; that is told at once.
    TooMany,
}

/// Failures by address.
#[derive(Debug, Default)]
pub struct Failures(HashMap<IpAddr, (u32, Instant)>);

impl Failures {
    /// Notes one more failure from this address.
    pub fn note(&mut self, from: IpAddr, now: Instant) -> Slowed {
        let from = network(from);
        if !self.0.contains_key(&from) && self.0.len() >= MOST {
            self.make_room(now);
        }
        let (count, last) = self.0.entry(from).or_insert((0, now));
        if now.saturating_duration_since(*last) >= FORGET {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
        match *count {
            count if count <= FREE => Slowed::Answer(Duration::ZERO),
            count if count <= ENOUGH => Slowed::Answer(FIRST * 2_u32.pow(count - FREE - 1)),
            _ => Slowed::TooMany,
        }
    }

    /// Forgets who has been quiet for long, else whoever has been quiet longest.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGET);
        if self.0.len() >= MOST
            && let Some(quietest) = self.0.iter().min_by_key(|(_, (_, last))| *last).map(|(from, _)| *from)
        {
            self.0.remove(&quietest);
        }
    }
}

/// Whom an address stands for: one customer of an IPv6 network has at least a /64 of addresses.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_failure_waits_twice_as_long_until_there_were_too_many() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let mut one = |from: &str, after: u64| failures.note(address(from), now + Duration::from_secs(after));
        let waits: Vec<Slowed> = (0..11).map(|_| one("192.0.2.1", 0)).collect();
        let millis = |millis| Slowed::Answer(Duration::from_millis(millis));
        let expected = [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 6400].map(millis);
        assert_eq!(waits[..10], expected);
        assert_eq!(waits[10], Slowed::TooMany);
        assert_eq!(one("192.0.2.2", 0), millis(0), "another address is not concerned");
        assert_eq!(one("::ffff:192.0.2.1", 599), Slowed::TooMany);
        assert_eq!(one("192.0.2.1", 599 + 600), millis(0), "a quiet one is forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_memory_is_bounded() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for last in 0..20_u16 {
            failures.note(address(&format!("2001:db8:1:2::{last:x}")), now);
        }
        assert_eq!(failures.note(address("2001:db8:1:2:ffff::1"), now), Slowed::TooMany);
        for number in 0..20_000_u32 {
            let later = now + Duration::from_micros(u64::from(number) + 1);
            failures.note(IpAddr::V4(number.into()), later);
        }
        assert!(failures.0.len() <= MOST);
    }
}
