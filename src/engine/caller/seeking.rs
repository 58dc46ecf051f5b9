//! Calls under way that somebody waits for: only the proxies know of them, so they are asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::ProxyLines;
use crate::wire::calls::{RunningCall, Seeking};
use crate::wire::frame::encode;
use crate::wire::proxy::ToProxy;

/// Proxies that do not answer within this time are left out.
const ANSWERS: Duration = Duration::from_secs(1);

/// Questions that are not answered yet, by ticket. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Questions(Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Vec<RunningCall>>>>>);

impl Questions {
    /// What one proxy has to say to a question; nobody may be waiting for it any more.
    pub fn answer(&self, ticket: u64, calls: Vec<RunningCall>) {
        if let Some(asked) = self.open().get(&ticket) {
            let _ = asked.send(calls);
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Vec<RunningCall>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is asked; gone from the open ones when this is.
struct Ticket<'a>(&'a Questions, u64);

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.open().remove(&self.1);
    }
}

/// Whoever asks the proxies. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Seeker {
    questions: Questions,
    lines: watch::Receiver<ProxyLines>,
}

impl Seeker {
    /// Answers reach `questions`.
    pub fn new(questions: Questions, lines: watch::Receiver<ProxyLines>) -> Self {
        Self { questions, lines }
    }

    /// Asks every proxy. A controller that has just begun waits for the first one to connect.
    pub async fn seek(&self, seeking: Seeking) -> Vec<RunningCall> {
        let mut found = Vec::new();
        if timeout(ANSWERS, self.gather(seeking, &mut found)).await.is_err() {
            debug!("a proxy did not say in time which calls are under way");
        }
        found
    }

    async fn gather(&self, seeking: Seeking, found: &mut Vec<RunningCall>) {
        let mut lines = self.lines.clone();
        let lines = match lines.wait_for(|lines| !lines.lines.is_empty()).await {
            Ok(lines) => lines.lines.clone(),
            Err(_) => return,
        };
        let (sender, mut answers) = mpsc::unbounded_channel();
        // Unlike those of a controller before this one, whose answers may still be on their way.
        let ticket = Ticket(&self.questions, fastrand::u64(..));
        self.questions.open().insert(ticket.1, sender);
        let frame: Arc<[u8]> = match encode(&ToProxy::Seek { ticket: ticket.1, seeking }) {
            Ok(frame) => frame.into(),
            Err(error) => return warn!(%error, "a question about calls cannot be sent"),
        };
        let asked = lines.iter().filter(|line| line.outgoing.try_send(Arc::clone(&frame)).is_ok()).count();
        for _ in 0..asked {
            found.extend(answers.recv().await.into_iter().flatten());
        }
    }
}
