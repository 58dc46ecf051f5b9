//! Dead-man's switches: tells an address of the author's choice that a run has started, succeeded or failed, so that
//! somebody else notices when none comes.
//!
//! Best effort beside the runs: bounded, with a deadline and a few tries, and never in their way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::domain::{CallId, CallOutcome, FunctionKey, hex};
use crate::notify::chain;

/// Pings under way or waiting for another try at once; more are left out.
const MOST: usize = 256;
/// One try may take this long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Waits before the tries after the first.
const WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Started,
    Ended {
        outcome: CallOutcome,
        /// How the process ended that the run was, where it was one.
        exit_code: Option<i32>,
    },
}

/// Asks for one address within a deadline.
pub(in crate::engine) fn ping_client() -> Result<reqwest::Client, String> {
    // Somebody else may have chosen one before; they all choose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The address is its author's; nobody else's answer sends it elsewhere.
    let client = reqwest::Client::builder().timeout(DEADLINE).redirect(reqwest::redirect::Policy::none()).build();
    // Without certificates of authorities there is no client, not even for plain addresses; small images have none.
    client.map_err(|error| format!("{}; does this machine have certificates of authorities?", chain(&error)))
}

/// Sends pings in the background.
#[derive(Debug)]
pub(super) struct Pings {
    client: reqwest::Client,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Pings {
    pub(super) fn new(shutdown: CancellationToken) -> Result<Self, String> {
        Ok(Self { client: ping_client()?, places: Arc::new(Semaphore::new(MOST)), shutdown })
    }

    pub(super) fn send(&self, ping: &str, function: &FunctionKey, call: CallId, told: Told) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            warn!(%function, "{MOST} pings are under way already; this one is left out");
            return;
        };
        let url = url(ping, call, told);
        let (client, shutdown, function) = (self.client.clone(), self.shutdown.clone(), function.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = try_all(&client, &url, &function) => {}
            }
        });
    }
}

async fn try_all(client: &reqwest::Client, url: &str, function: &FunctionKey) {
    let mut waits = WAITS.iter();
    loop {
        let answer = client.get(url).send().await;
        let problem = match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => return,
            Ok(status) => status.to_string(),
            Err(error) => error.without_url().to_string(),
        };
        match waits.next() {
            Some(wait) => tokio::time::sleep(*wait).await,
            None => {
                // The address may be a secret of sorts.
                warn!(%function, "the schedule's ping was not taken: {problem}");
                return;
            }
        }
    }
}

/// `<ping>/start`, `<ping>`, and `<ping>/<exit code>` or `<ping>/fail`, each with the run's identifier: the protocol of
/// healthchecks.io.
fn url(ping: &str, call: CallId, told: Told) -> String {
    let what = match told {
        Told::Started => "/start".to_owned(),
        Told::Ended { outcome: CallOutcome::Succeeded, .. } => String::new(),
        // A failure is never told as exit code 0: that would be a success.
        Told::Ended { outcome: CallOutcome::Failed, exit_code: Some(code @ 1..=255) } => format!("/{code}"),
        Told::Ended {
            outcome:
                CallOutcome::Failed
                | CallOutcome::TimedOut
                | CallOutcome::Cancelled
                | CallOutcome::SkippedOverlap
                | CallOutcome::Missed,
            ..
        } => "/fail".to_owned(),
    };
    format!("{ping}{what}?rid={}", uuid(call))
}

/// The identifier in the form that receivers of pings know.
fn uuid(call: CallId) -> String {
    let digits = hex::encode(&call.to_bytes());
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_success_exit_code_and_failure_have_addresses_of_their_own_and_the_same_run() {
        let call = CallId::from_bytes([0x01, 0x9a, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
        let run = "?rid=019abc00-0000-0000-0000-0000000000ff";
        let of = |told| url("https://hc.example.com/ping/1", call, told);
        assert_eq!(of(Told::Started), format!("https://hc.example.com/ping/1/start{run}"));
        let ended = |outcome, exit_code| of(Told::Ended { outcome, exit_code });
        for (outcome, exit_code, what) in [
            (CallOutcome::Succeeded, None, ""),
            (CallOutcome::Failed, Some(7), "/7"),
            (CallOutcome::Failed, Some(0), "/fail"),
            (CallOutcome::Failed, None, "/fail"),
            (CallOutcome::TimedOut, Some(7), "/fail"),
        ] {
            assert_eq!(ended(outcome, exit_code), format!("https://hc.example.com/ping/1{what}{run}"));
        }
    }
}
