//! When to look at a remote again: its rhythm while all is well, back-off while it fails, and what a whole host
//! has to say about it.
//!
//! A *remote* is one repository under one set of credentials; a *host* is the machine many remotes may lie on. What a
//! host does wrong (no connection, no answer, "too many requests") counts against all remotes on it, what one
//! repository does wrong (not there, not allowed) against that one alone. No clock, no randomness: both are arguments.

use std::time::{Duration, Instant};

/// No wait between two tries of a failing remote or host is longer than this.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);
/// A server that asks for a longer pause than this is asked again after this.
pub const LONGEST_OBEYED: Duration = Duration::from_secs(60 * 60);
/// The first try after a failure comes after this, or after the poll interval if that is shorter.
pub const FIRST_RETRY: Duration = Duration::from_secs(5);
/// While hooks arrive, a remote is polled this many times more rarely …
pub const STRETCH: u32 = 5;
/// … but at least this far apart, …
pub const SHORTEST_NET: Duration = Duration::from_secs(5 * 60);
/// … and at most this far, unless `poll` itself is longer.
pub const LONGEST_NET: Duration = Duration::from_secs(15 * 60);
/// Hooks that have not been heard of for this long are not relied on.
pub const HOOKS_COUNT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known about the hooks of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks {
    /// How long ago the last one came.
    pub last: Option<Duration>,
    /// How long ago a poll found a change that no hook had announced.
    pub missed: Option<Duration>,
}

impl Hooks {
    /// Whether pushes can be expected to be announced: one came lately, and since then polling found nothing by
    /// itself.
    pub fn arrive(&self) -> bool {
        match (self.last, self.missed) {
            (None, _) => false,
            (Some(last), Some(missed)) if missed <= last => false,
            (Some(last), _) => last < HOOKS_COUNT_FOR,
        }
    }
}

/// Time between two looks while all is well, before the jitter.
#[must_use]
pub fn interval(poll: Duration, hooks: &Hooks) -> Duration {
    if !hooks.arrive() {
        return poll;
    }
    // A safety net, never off; and never tighter than what was asked for.
    poll.saturating_mul(STRETCH).max(SHORTEST_NET).min(LONGEST_NET).max(poll)
}

/// `wait`, up to a tenth shorter or longer, so that many agents do not knock at once. `luck` lies between 0 and 1.
#[must_use]
pub fn jittered(wait: Duration, luck: f64) -> Duration {
    wait.mul_f64(0.9 + 0.2 * luck.clamp(0.0, 1.0))
}

/// The pause after so many failures in a row: doubled each time.
#[must_use]
pub fn backoff(poll: Duration, failures: u32, luck: f64) -> Duration {
    let doubled = poll.min(FIRST_RETRY).saturating_mul(1 << failures.saturating_sub(1).min(16));
    jittered(doubled.min(LONGEST_BACKOFF), luck).min(LONGEST_BACKOFF)
}

/// What a choice of the next look is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Situation {
    /// Time between two looks while all is well: the shortest [`interval`] of all sources that follow the remote.
    pub interval: Duration,
    /// Failed looks in a row.
    pub failures: u32,
    /// For how long its host is left alone.
    pub barred: Duration,
    /// Between 0 and 1, drawn once for each wait.
    pub luck: f64,
}

/// How long after a look the next one comes by itself.
#[must_use]
pub fn wait(situation: &Situation) -> Duration {
    let own = match situation.failures {
        0 => jittered(situation.interval, situation.luck),
        failures => backoff(situation.interval, failures, situation.luck),
    };
    own.max(situation.barred)
}

/// How a host has answered lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Host {
    failures: u32,
    failed_at: Option<Instant>,
    barred_until: Option<Instant>,
    /// The host itself has said until when it wants no requests.
    told_until: Option<Instant>,
}

impl Host {
    /// A look that began at `began` met a fault of the host. With `retry_after` the host has named the pause itself.
    #[must_use]
    pub fn failed(self, began: Instant, now: Instant, retry_after: Option<Duration>, luck: f64) -> Self {
        // Many remotes meet the same outage at the same time: that is one failure, not many.
        let news = self.failed_at.is_none_or(|before| began >= before);
        let failures = if news { self.failures.saturating_add(1) } else { self.failures };
        let own = if news { Some(now + backoff(FIRST_RETRY, failures, luck)) } else { self.barred_until };
        let told = retry_after.map(|pause| now + pause.min(LONGEST_OBEYED));
        Self {
            failures,
            failed_at: if news { Some(now) } else { self.failed_at },
            barred_until: own,
            told_until: told.max(self.told_until),
        }
    }

    /// The host has answered a look. What it said about a pause stands until that is over.
    #[must_use]
    pub fn answered(self, now: Instant) -> Self {
        Self { told_until: self.told_until.filter(|until| *until > now), ..Self::default() }
    }

    /// Whether it failed when it was last asked.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// For how long it is left alone.
    pub fn barred(&self, now: Instant) -> Duration {
        let until = self.barred_until.max(self.told_until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// For how long it wants to be left alone, by its own word: hooks wait for that, people need not.
    pub fn told(&self, now: Instant) -> Duration {
        self.told_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn hooks_stretch_polling_to_a_safety_net_and_lose_that_when_they_miss_something() {
        let hour = Some(seconds(3600));
        let table = [
            // poll, last hook, missed since, interval
            (60, None, None, 60),
            (60, hour, None, 300),
            (120, hour, None, 600),
            (600, hour, None, 900),
            (1, hour, None, 300),
            // Longer than the net anyway: never tightened.
            (1800, hour, None, 1800),
            // A poll found what no hook had announced.
            (60, hour, Some(seconds(10)), 60),
            (60, hour, hour, 60),
            // And since then one came again.
            (60, Some(seconds(5)), hour, 300),
            // Too long ago.
            (60, Some(seconds(86_400)), None, 60),
            (60, Some(seconds(86_399)), None, 300),
        ];
        for (poll, last, missed, expected) in table {
            let hooks = Hooks { last, missed };
            assert_eq!(interval(seconds(poll), &hooks), seconds(expected), "poll {poll} s, {hooks:?}");
        }
    }

    #[test]
    fn failures_double_the_wait_up_to_fifteen_minutes() {
        let table = [(60, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]), (1, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512])];
        for (poll, waits) in table {
            for (failures, expected) in (1..).zip(waits) {
                assert_eq!(backoff(seconds(poll), failures, 0.5), seconds(expected), "{failures} failures of {poll} s");
            }
        }
        assert_eq!(backoff(seconds(86_400), u32::MAX, 1.0), LONGEST_BACKOFF);
    }

    #[test]
    fn the_host_counts_one_outage_once_and_forgets_it_when_it_answers() {
        let start = Instant::now();
        let at = |n| start + seconds(n);
        let once = Host::default().failed(at(0), at(1), None, 0.5);
        assert_eq!(once.barred(at(1)), seconds(5));
        // A second remote, which had begun before the first one failed.
        let twice = once.failed(at(0), at(2), None, 0.5);
        assert_eq!(twice.barred(at(1)), seconds(5));
        let again = twice.failed(at(6), at(7), None, 0.5);
        assert_eq!(again.barred(at(7)), seconds(10));
        assert!(again.is_failing());
        let well = again.answered(at(20));
        assert_eq!((well.barred(at(20)), well.is_failing()), (Duration::ZERO, false));
    }

    #[test]
    fn what_a_host_says_about_a_pause_stands_even_if_it_answers_others() {
        let start = Instant::now();
        let at = |n| start + seconds(n);
        let told = Host::default().failed(at(0), at(1), Some(seconds(100)), 0.5);
        assert_eq!((told.barred(at(1)), told.told(at(1))), (seconds(100), seconds(100)));
        // A shorter word does not cut a longer one short.
        let told = told.failed(at(2), at(3), Some(seconds(10)), 0.5);
        assert_eq!(told.told(at(3)), seconds(98));
        let answered = told.answered(at(50));
        assert_eq!(answered.barred(at(50)), seconds(51));
        assert_eq!(answered.answered(at(102)), Host::default());
        let year = Host::default().failed(at(0), at(0), Some(seconds(31_536_000)), 0.5);
        assert_eq!(year.told(at(0)), LONGEST_OBEYED);
    }

    proptest! {
        #[test]
        fn the_next_look_always_comes_and_never_too_soon(
            poll in 1_u64..86_400, last in proptest::option::of(0_u64..200_000), missed in proptest::option::of(0_u64..200_000),
            failures in 0_u32..200, barred in 0_u64..3600, luck in 0.0_f64..1.0,
        ) {
            let hooks = Hooks { last: last.map(seconds), missed: missed.map(seconds) };
            let interval = interval(seconds(poll), &hooks);
            prop_assert!(interval >= seconds(poll) && interval <= seconds(poll).max(LONGEST_NET));
            let barred = seconds(barred);
            let next = wait(&Situation { interval, failures, barred, luck });
            prop_assert!(next >= barred);
            let own = if failures == 0 { interval } else { interval.min(FIRST_RETRY) };
            prop_assert!(next >= own.mul_f64(0.899), "{next:?} after {own:?}");
            let longest = if failures == 0 { interval.mul_f64(1.101) } else { LONGEST_BACKOFF };
            prop_assert!(next <= longest.max(barred), "{next:?}");
        }

        #[test]
        fn a_host_is_never_left_alone_for_ever(
            steps in proptest::collection::vec((0_u64..2000, 0_u64..60, any::<bool>(), proptest::option::of(0_u64..1_000_000), 0.0_f64..1.0), 0..60),
        ) {
            let mut now = Instant::now();
            let mut host = Host::default();
            for (pause, took, fails, retry_after, luck) in steps {
                let began = now + seconds(pause);
                now = began + seconds(took);
                host = if fails { host.failed(began, now, retry_after.map(seconds), luck) } else { host.answered(now) };
                let longest = if host.told(now).is_zero() { LONGEST_BACKOFF } else { LONGEST_OBEYED };
                prop_assert!(host.barred(now) <= longest);
                prop_assert!(host.told(now) <= host.barred(now));
                prop_assert_eq!(host.is_failing(), fails);
            }
        }
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        assert_eq!(jittered(MINUTE, 0.0), seconds(54));
        assert_eq!(jittered(MINUTE, 0.5), MINUTE);
        assert_eq!(jittered(MINUTE, 1.0), seconds(66));
    }
}
