//! Calls come in: those that arrive while a commit is under way share the next one.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Input;
use crate::ledger::calls::{self, NewCall, Taken};
use crate::ledger::{Ledger, Result};

/// Calls that may wait to be recorded; more callers wait for a place.
pub(super) const QUEUE: usize = 4096;
/// Most calls in one commit.
const GROUP: usize = 512;

/// A call to be recorded, and who wants to know.
#[derive(Debug)]
pub(super) struct Spawning {
    pub new: NewCall,
    pub answer: oneshot::Sender<Result<Taken>>,
}

/// Records calls until told to stop.
pub(super) async fn run(
    ledger: Ledger,
    mut spawnings: mpsc::Receiver<Spawning>,
    inputs: mpsc::Sender<Input>,
    shutdown: CancellationToken,
) {
    loop {
        let mut group = Vec::new();
        tokio::select! {
            count = spawnings.recv_many(&mut group, GROUP) => if count == 0 { return },
            () = shutdown.cancelled() => return,
        }
        let (news, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|Spawning { new, answer }| (new, answer)).unzip();
        let recorded = ledger.write(move |ledger| {
            let mut taken = Vec::with_capacity(news.len());
            let mut functions = BTreeSet::new();
            for new in &news {
                let one = calls::take(ledger, new)?;
                if one == Taken::New {
                    functions.insert(new.function.clone());
                }
                taken.push(one);
            }
            Ok((taken, functions))
        });
        match recorded.await {
            Ok((taken, functions)) => {
                for (answer, taken) in answers.into_iter().zip(taken) {
                    // Whoever asked may have gone; the call stands all the same.
                    let _ = answer.send(Ok(taken));
                }
                for function in functions {
                    if inputs.send(Input::Spawned(function)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}
