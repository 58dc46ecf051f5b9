//! Sign-ins that were begun: remembered until their browser comes back, each once.
//!
//! Invariants: at most [`MOST`] at once, and [`MOST_OF_ONE`] of one network address, whose oldest gives way; nobody else's
//! do, so that a stranger cannot push out those of others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use openidconnect::{Nonce, PkceCodeVerifier};

use crate::decide::slowing::network;
use crate::domain::TokenHash;

/// Somebody who has not come back after this long begins anew.
pub(super) const LIFE: Duration = Duration::from_secs(600);
/// Of all together.
const MOST: usize = 1000;
/// Of one address, or of one /64 of IPv6.
const MOST_OF_ONE: usize = 20;

/// What is remembered of one.
pub(super) struct Waiting {
    /// Hash of what the browser brings back in its cookie.
    pub binder: TokenHash,
    /// What the ID token must hold.
    pub nonce: Nonce,
    /// What proves to the provider that the code is ours.
    pub verifier: PkceCodeVerifier,
    /// Where the browser goes on.
    pub next: String,
    /// Where it is.
    pub from: Option<IpAddr>,
}

/// All of them, by the hash of their state.
#[derive(Default)]
pub(super) struct Begun(HashMap<TokenHash, (Instant, Waiting)>);

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").field("waiting", &self.0.len()).finish()
    }
}

impl Begun {
    /// Remembers one; `None` if there are too many.
    pub(super) fn add(&mut self, state: &str, waiting: Waiting, now: Instant) -> Option<()> {
        self.0.retain(|_, (since, _)| now.duration_since(*since) < LIFE);
        let whose = |waiting: &Waiting| waiting.from.map(network);
        let same = self.0.iter().filter(|(_, (_, other))| whose(other) == whose(&waiting));
        let same: Vec<(Instant, TokenHash)> = same.map(|(hash, (since, _))| (*since, *hash)).collect();
        if same.len() >= MOST_OF_ONE
            && let Some((_, oldest)) = same.into_iter().min_by_key(|(since, _)| *since)
        {
            self.0.remove(&oldest);
        }
        if self.0.len() >= MOST {
            return None;
        }
        self.0.insert(TokenHash::of(state), (now, waiting));
        Some(())
    }

    /// The one of this state, which is over with this.
    pub(super) fn take(&mut self, state: &str, now: Instant) -> Option<Waiting> {
        let (since, waiting) = self.0.remove(&TokenHash::of(state))?;
        (now.duration_since(since) < LIFE).then_some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(from: u32) -> Waiting {
        Waiting {
            binder: TokenHash::of("binder"),
            nonce: Nonce::new("nonce".into()),
            verifier: PkceCodeVerifier::new("v".repeat(43)),
            next: "/".into(),
            from: Some(IpAddr::from(from.to_be_bytes())),
        }
    }

    #[test]
    fn a_sign_in_is_finished_once_and_in_time() {
        let (mut begun, now) = (Begun::default(), Instant::now());
        begun.add("a", waiting(1), now).unwrap();
        begun.add("b", waiting(1), now).unwrap();
        assert!(begun.take("a", now + LIFE / 2).is_some());
        assert!(begun.take("a", now + LIFE / 2).is_none(), "once");
        assert!(begun.take("b", now + LIFE).is_none(), "too late");
        assert!(begun.take("c", now).is_none());
    }

    #[test]
    fn a_stranger_pushes_out_his_own_and_nobody_elses() {
        let (mut begun, now) = (Begun::default(), Instant::now());
        begun.add("ada", waiting(1), now).unwrap();
        for number in 0..100 {
            begun.add(&format!("eve {number}"), waiting(2), now + Duration::from_millis(number)).unwrap();
        }
        assert_eq!(begun.0.len(), 1 + MOST_OF_ONE);
        assert!(begun.take("eve 79", now).is_none());
        assert!(begun.take("eve 80", now).is_some() && begun.take("ada", now).is_some());
        let all =
            (0..2 * MOST as u32).filter(|from| begun.add(&from.to_string(), waiting(*from), now).is_some()).count();
        assert!(all < MOST && begun.0.len() == MOST, "{all}");
        assert!(begun.add("later", waiting(7), now + LIFE).is_some(), "those that are over make room");
    }
}
