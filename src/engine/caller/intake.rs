//! Calls come in: those that arrive while a commit is under way share the next one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Input;
use crate::ledger::calls::{self, NewCall, Taken};
use crate::ledger::{Ledger, Result};

/// Calls that may wait to be recorded; more callers wait for a place.
pub(super) const QUEUE: usize = 4096;
/// Most calls in one commit.
const GROUP: usize = 512;

/// Callers of the last group are waited for at most so long, and at most a quarter of the time that commit took.
const GATHER: Duration = Duration::from_micros(500);

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
    let (mut last, mut patience) = (0, Duration::ZERO);
    loop {
        let mut group = Vec::new();
        tokio::select! {
            count = spawnings.recv_many(&mut group, GROUP) => if count == 0 { return },
            () = shutdown.cancelled() => return,
        }
        // Whoever has just been told that a call is recorded often has the next one. Without this the first of them would
        // go into a commit of its own, and all others wait for two.
        let began = Instant::now();
        while group.len() < last && began.elapsed() < patience {
            tokio::task::yield_now().await;
            while group.len() < GROUP
                && let Ok(spawning) = spawnings.try_recv()
            {
                group.push(spawning);
            }
        }
        last = group.len();
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
        let began = Instant::now();
        let recorded = recorded.await;
        patience = (began.elapsed() / 4).min(GATHER);
        match recorded {
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
