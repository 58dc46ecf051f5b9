//! When a certificate is ordered, ordered again, and when people should worry about it. Pure.
//!
//! A certificate is renewed when two thirds of its life are over, at a moment within the next twentieth of it that depends on its
//! host, so that a hundred hosts that were set up together are not renewed together. An order that fails is tried again at
//! growing distances: authorities count failures, and a wrong DNS entry is not mended within a second.

use std::time::Duration;

use jiff::Timestamp;

/// Waits after the first, second, … order in vain; the last one holds from then on. The first is short: the second order has
/// the host looked at in another way.
const WAITS: [Duration; 8] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(3 * 60 * 60),
    Duration::from_secs(6 * 60 * 60),
    Duration::from_secs(12 * 60 * 60),
];
/// No wish of an authority is obeyed for longer than this.
const LONGEST_WISH: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A certificate is about to expire when less than this is left, or a quarter of its life if that is shorter.
const WORRY: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The time a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// From.
    pub from: Timestamp,
    /// To.
    pub to: Timestamp,
}

impl Life {
    fn length(self) -> Duration {
        Duration::try_from(self.to.duration_since(self.from)).unwrap_or(Duration::ZERO)
    }

    /// When it is to be renewed.
    #[must_use]
    pub fn renewal(self, host: &str) -> Timestamp {
        let length = self.length();
        // FNV-1a: the same for a host everywhere and for ever.
        let hash = host
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let spread = (length / 20).as_secs().max(1);
        self.from + length * 2 / 3 + Duration::from_secs(hash % spread)
    }

    /// Whether people should worry, because whoever renews it has not.
    #[must_use]
    pub fn worries(self, now: Timestamp) -> bool {
        let left = Duration::try_from(self.to.duration_since(now)).unwrap_or(Duration::ZERO);
        left < WORRY.min(self.length() / 4)
    }
}

/// What is known of the orders for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orders {
    /// In vain, in a row.
    pub failures: u32,
    /// Not before this moment.
    pub not_before: Option<Timestamp>,
}

/// When the next order for a host is due: now or earlier means now.
#[must_use]
pub fn due(host: &str, life: Option<Life>, orders: Orders) -> Timestamp {
    let wanted = life.map_or(Timestamp::MIN, |life| life.renewal(host));
    orders.not_before.map_or(wanted, |not_before| wanted.max(not_before))
}

/// The moment before which nothing is tried again after the `failures`-th order in vain.
#[must_use]
pub fn after_failure(now: Timestamp, failures: u32, asked: Option<Duration>) -> Timestamp {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(WAITS.len() - 1);
    let wait = WAITS[index].max(asked.unwrap_or_default().min(LONGEST_WISH));
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_certificate_of_ninety_days_is_renewed_a_month_before_its_end() {
        let life = Life { from: at("2026-01-01T00:00:00Z"), to: at("2026-04-01T00:00:00Z") };
        for host in ["a.example.com", "b.example.com", "c.example.com"] {
            let renewal = life.renewal(host);
            assert!(renewal >= life.from + DAY * 60 && renewal < life.from + DAY * 65, "{host}: {renewal}");
            assert_eq!(due(host, Some(life), Orders::default()), renewal);
        }
        assert_ne!(life.renewal("a.example.com"), life.renewal("b.example.com"));
        assert!(!life.worries(at("2026-03-17T00:00:00Z")));
        assert!(life.worries(at("2026-03-19T00:00:00Z")));
        assert!(life.worries(at("2027-01-01T00:00:00Z")), "over is worse");
    }

    #[test]
    fn one_of_six_days_is_no_worry_until_it_has_a_day_and_a_half_left() {
        let life = Life { from: at("2026-01-01T00:00:00Z"), to: at("2026-01-07T00:00:00Z") };
        assert!(!life.worries(at("2026-01-05T11:00:00Z")));
        assert!(life.worries(at("2026-01-05T13:00:00Z")));
    }

    #[test]
    fn what_fails_is_tried_again_ever_later_and_as_late_as_the_authority_wants() {
        let now = at("2026-01-01T00:00:00Z");
        let waits: Vec<_> = (1..10).map(|failures| after_failure(now, failures, None)).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!((waits[0], waits[8]), (now + Duration::from_secs(10), now + DAY / 2));
        assert_eq!(after_failure(now, 1, Some(DAY)), now + DAY);
        assert_eq!(after_failure(now, 1, Some(DAY * 400)), now + DAY * 7);
        let orders = Orders { failures: 1, not_before: Some(waits[0]) };
        assert_eq!(due("a.example.com", None, orders), waits[0]);
        assert!(due("a.example.com", None, Orders::default()) <= now);
    }
}
