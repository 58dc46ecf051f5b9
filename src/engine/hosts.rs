//! What is known of the machines that remotes lie on: how they answered lately, and how many looks are under way.
//!
//! Shared by the pollers and watchers of all remotes of a host; nothing of one host is seen by another, so that a
//! host that hangs takes only its own turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::decide::poll;
use crate::source::{Look, SourceError, SourceErrorKind};

/// Looks at once at one host. Each holds a thread until its deadline.
const LOOKS: usize = 8;

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    state: Mutex<poll::Host>,
    /// Counts how often it has answered again after a failure.
    recovered: watch::Sender<u64>,
    turns: Semaphore,
}

/// How a look at a remote went, as far as its host is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered, whatever it said.
    Answered,
    /// It did not, or wants to be left alone, perhaps for a time it named.
    Failed(Option<Duration>),
    /// The look says nothing about it.
    Unknown,
}

/// What a failed look says about the host.
pub(super) fn verdict(kind: SourceErrorKind, retry_after: Option<Duration>) -> Verdict {
    match kind {
        SourceErrorKind::Network | SourceErrorKind::RateLimited | SourceErrorKind::Timeout => {
            Verdict::Failed(retry_after)
        }
        SourceErrorKind::Server if retry_after.is_some() => Verdict::Failed(retry_after),
        // A 500 or a certificate that is not trusted may be one repository's fault, or one source's: it waits by itself,
        // its neighbours need not. Nor does it say that a host that was down is well again.
        SourceErrorKind::Server | SourceErrorKind::Tls => Verdict::Unknown,
        SourceErrorKind::NotFound
        | SourceErrorKind::RefNotFound
        | SourceErrorKind::RefAmbiguous
        | SourceErrorKind::Protocol
        | SourceErrorKind::Redirected
        | SourceErrorKind::InvalidPath
        | SourceErrorKind::Auth
        | SourceErrorKind::HostKeyUnknown
        | SourceErrorKind::HostKeyChanged
        | SourceErrorKind::TooLarge
        | SourceErrorKind::Unsupported => Verdict::Answered,
        SourceErrorKind::Cancelled
        | SourceErrorKind::Credentials
        | SourceErrorKind::Corrupt
        | SourceErrorKind::Disk
        | SourceErrorKind::Permission
        | SourceErrorKind::Io
        | SourceErrorKind::Busy => Verdict::Unknown,
    }
}

/// What a look says about the host.
pub(super) fn verdict_of(looked: &Result<Look, SourceError>) -> Verdict {
    match looked {
        Ok(_) => Verdict::Answered,
        Err(error) => verdict(error.kind, error.retry_after),
    }
}

impl Host {
    fn new() -> Self {
        Self { state: Mutex::default(), recovered: watch::Sender::new(0), turns: Semaphore::new(LOOKS) }
    }

    /// How it has answered lately.
    pub(super) fn state(&self) -> poll::Host {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how a look that began at `began` went.
    pub(super) fn learn(&self, began: Instant, verdict: Verdict) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Verdict::Answered => {
                let was_failing = state.is_failing();
                *state = state.answered(now);
                if was_failing {
                    self.recovered.send_modify(|times| *times += 1);
                }
            }
            Verdict::Failed(retry_after) => *state = state.failed(began, now, retry_after, fastrand::f64()),
            Verdict::Unknown => {}
        }
    }

    /// Told when it answers again after a failure.
    pub(super) fn recovered(&self) -> watch::Receiver<u64> {
        self.recovered.subscribe()
    }

    /// Waits for a turn. Every look has a deadline, so turns always come.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

/// All hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    all: Mutex<HashMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(super) fn named(&self, name: &str) -> Arc<Host> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Those nobody uses any more have nothing to tell.
        all.retain(|known, host| known == name || Arc::strong_count(host) > 1);
        Arc::clone(all.entry(name.to_owned()).or_insert_with(|| Arc::new(Host::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_answers_again_wakes_those_who_wait_for_it() {
        let hosts = Hosts::default();
        let (host, other) = (hosts.named("a"), hosts.named("b"));
        let mut recovered = host.recovered();
        host.learn(Instant::now(), Verdict::Failed(None));
        assert!(host.state().is_failing() && !other.state().is_failing());
        host.learn(Instant::now(), Verdict::Unknown);
        assert!(!recovered.has_changed().unwrap());
        host.learn(Instant::now(), Verdict::Answered);
        recovered.changed().await.unwrap();
        assert!(!hosts.named("a").state().is_failing());
        host.learn(Instant::now(), Verdict::Answered);
        assert!(!recovered.has_changed().unwrap(), "it had not failed again");
    }

    #[test]
    fn only_what_concerns_the_whole_host_holds_its_remotes_back() {
        let pause = Some(Duration::from_secs(7));
        for kind in [SourceErrorKind::Network, SourceErrorKind::Timeout, SourceErrorKind::RateLimited] {
            assert_eq!(verdict(kind, None), Verdict::Failed(None), "{kind:?}");
        }
        for kind in [SourceErrorKind::Server, SourceErrorKind::RateLimited] {
            assert_eq!(verdict(kind, pause), Verdict::Failed(pause), "{kind:?}");
        }
        for kind in [SourceErrorKind::Server, SourceErrorKind::Tls] {
            assert_eq!(verdict(kind, None), Verdict::Unknown, "{kind:?}");
        }
        assert_eq!(verdict(SourceErrorKind::Auth, None), Verdict::Answered);
    }

    #[tokio::test]
    async fn a_host_whose_looks_all_hang_leaves_the_turns_of_others_alone() {
        let hosts = Hosts::default();
        let (hanging, well) = (hosts.named("a"), hosts.named("b"));
        let mut taken = Vec::new();
        for _ in 0..LOOKS {
            taken.push(hanging.turn().await.unwrap());
        }
        assert!(hanging.turns.try_acquire().is_err());
        assert!(well.turn().await.is_some());
    }
}
