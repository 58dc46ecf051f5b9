//! Calls that begin in the commit that records them.
//!
//! Whoever records many calls for this very moment (the scheduler, for all that is due in a second) asks first for
//! which of them there is room. Their first attempts are then recorded with them and handed over right after; otherwise
//! each would be recorded, found again in its queue, begun by a second commit, and only then be handed over.
//!
//! Invariant: a reserved place is given back, whatever becomes of whoever asked for it.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Caller, Input};
use crate::domain::{CallId, FunctionKey};
use crate::ledger::calls::Begun;

/// Whoever does not hear within this records its calls without: they begin a little later.
const PATIENCE: Duration = Duration::from_millis(250);

/// Places for calls that are about to be recorded. Must be answered with [`Reserved::begun`]; dropped without, nothing
/// of it has begun.
#[derive(Debug)]
pub struct Reserved {
    calls: HashSet<CallId>,
    /// Where it is told what became of them; `None` for places at nobody's.
    inputs: Option<mpsc::Sender<Input>>,
}

impl Reserved {
    /// No place at all.
    pub fn none() -> Self {
        Self { calls: HashSet::new(), inputs: None }
    }

    pub(super) fn new(calls: HashSet<CallId>, inputs: mpsc::Sender<Input>) -> Self {
        Self { calls, inputs: Some(inputs) }
    }

    /// The calls that have a place.
    pub fn calls(&self) -> &HashSet<CallId> {
        &self.calls
    }

    /// These are on record as begun and are handed over; of the others, nothing is.
    pub async fn begun(mut self, begun: Vec<Begun>) {
        if let Some((input, inputs)) = self.settled(begun) {
            // The task is gone only when everything ends; then they are found on record.
            let _ = inputs.send(input).await;
        }
    }

    fn settled(&mut self, begun: Vec<Begun>) -> Option<(Input, mpsc::Sender<Input>)> {
        let inputs = self.inputs.take().filter(|_| !self.calls.is_empty())?;
        Some((Input::Begun { asked: self.calls.drain().collect(), begun }, inputs))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some((input, inputs)) = self.settled(Vec::new())
            && let Err(mpsc::error::TrySendError::Full(input)) = inputs.try_send(input)
        {
            tokio::spawn(async move { inputs.send(input).await });
        }
    }
}

impl Caller {
    /// For these functions calls are soon recorded: what has to be known to begin them is looked up. Never waits; it
    /// is only quicker for it.
    pub fn expect(&self, functions: Vec<FunctionKey>) {
        let _ = self.shared.inputs.try_send(Input::Expected(functions));
    }

    /// Reserves a place for each of these calls whose function has one to spare and nobody in line.
    pub async fn reserve(&self, calls: Vec<(FunctionKey, CallId)>) -> Reserved {
        if calls.is_empty() {
            return Reserved::none();
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.shared.inputs.send(Input::Reserve { calls, reply }).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_else(Reserved::none)
    }
}
