//! Calls under way, as the threads they run on know them: what the controller is told of them, and how one is ended.
//!
//! Nothing is written down while a call runs. Whoever wants to know asks every thread ([`Question`]), and each looks at
//! its own calls. Owner: `record.rs` enters a call at its beginning and takes it out with its record. Invariant: a call
//! whose end was asked for ends with the outcome `cancelled`, unless it was over before.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::domain::{FunctionKey, Times};
use crate::proxy::answer::Trouble;
use crate::proxy::claim::Instance;
use crate::proxy::shared::{Peer, Shared};
use crate::proxy::worker::Worker;
use crate::wire::calls::{RunningCall, Seeking};
use crate::wire::proxy::WhyOver;

use super::Ask;
use super::durable::Order;

/// The controller hears of an instance's end, and says why, within this time.
const WORD: Duration = Duration::from_secs(1);
/// Answers that may wait for the line to the controller.
pub const ANSWERS_WAITING: usize = 64;
/// A thread that is busy for longer is not waited for.
const ANSWERS: Duration = Duration::from_millis(500);

/// A call under way.
#[derive(Debug)]
pub struct UnderWay {
    /// What was asked.
    pub ask: Rc<Ask>,
    /// When, on the wall clock.
    pub at: Timestamp,
    /// When, for lengths of time.
    pub began: Instant,
    /// How long it was in line.
    pub queued: Cell<Duration>,
    /// For how long of that no instance was ready.
    pub starting: Cell<Duration>,
    instance: RefCell<Option<Arc<Instance>>>,
    ended_by: RefCell<Option<String>>,
    waker: RefCell<Option<Waker>>,
}

impl UnderWay {
    /// A call that was just asked.
    pub fn begin(ask: Rc<Ask>) -> Rc<Self> {
        Rc::new(Self {
            ask,
            at: Timestamp::now(),
            began: Instant::now(),
            queued: Cell::default(),
            starting: Cell::default(),
            instance: RefCell::default(),
            ended_by: RefCell::default(),
            waker: RefCell::default(),
        })
    }

    /// The instance it was given to.
    pub fn instance(&self) -> Option<Arc<Instance>> {
        self.instance.borrow().clone()
    }

    /// It was given to this instance, after so long in line, and of that so long without any that was ready.
    pub fn given_to(&self, instance: &Arc<Instance>, queued: Duration, starting: Duration) {
        self.queued.set(self.queued.get() + queued);
        self.starting.set(self.starting.get() + starting);
        self.instance.replace(Some(Arc::clone(instance)));
    }

    /// Where its time has gone until now.
    pub fn times(&self) -> Times {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let all = micros(self.began.elapsed());
        // One that never got to an instance has been in line all the time.
        let queued_us = if self.instance.borrow().is_some() { micros(self.queued.get()).min(all) } else { all };
        Times { queued_us, starting_us: micros(self.starting.get()).min(queued_us), running_us: all - queued_us }
    }

    /// Ends it. Who asked first is remembered.
    fn end(&self, by: &str) {
        self.ended_by.borrow_mut().get_or_insert_with(|| by.to_owned());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Who asked for its end.
    pub fn ended_by(&self) -> Option<String> {
        self.ended_by.borrow().clone()
    }

    /// Ready once somebody asks for its end. A call is awaited in one place at a time: the last one that asked is woken.
    pub fn poll_ended(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.ended_by.borrow().is_some() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Does something until somebody asks for the call's end; then `None`, and what was being done is dropped.
    pub async fn unless_ended<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        let mut doing = std::pin::pin!(doing);
        std::future::poll_fn(|context| match self.poll_ended(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => doing.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// Its instance broke off: why, if the controller knows. That is waited for a moment.
    pub async fn why_broken(&self) -> Trouble {
        let Some(instance) = self.instance() else { return Trouble::CallBroken };
        match timeout(WORD, instance.over()).await {
            Ok(WhyOver::OutOfMemory { limit }) => Trouble::OutOfMemory { limit },
            Ok(WhyOver::Other) | Err(_) => Trouble::CallBroken,
        }
    }

    /// As the controller is told of it, where somebody waits for it.
    fn told(&self) -> Option<RunningCall> {
        let instance = self.instance.borrow();
        Some(RunningCall {
            id: self.ask.call,
            function: FunctionKey::new(self.ask.app.clone(), self.ask.function.clone()),
            version: instance.as_ref().map(|instance| instance.version).or(self.ask.version),
            instance: instance.as_ref().map(|instance| instance.id.clone()),
            actor: self.ask.actor.clone()?,
            created_at: self.at,
            times: self.times(),
            cancelled_by: self.ended_by(),
        })
    }

    fn is_sought(&self, seeking: &Seeking) -> bool {
        self.ask.actor.is_some()
            && match seeking {
                Seeking::Newest { app, function, before, limit: _ } => {
                    app.as_ref().is_none_or(|app| *app == self.ask.app)
                        && function.as_ref().is_none_or(|function| *function == self.ask.function)
                        && before.is_none_or(|before| self.ask.call < before)
                }
                Seeking::One { call } | Seeking::End { call, .. } => *call == self.ask.call,
            }
    }
}

/// What every thread is asked about its calls.
#[derive(Debug)]
pub struct Question {
    seeking: Arc<Seeking>,
    answer: mpsc::UnboundedSender<Vec<RunningCall>>,
}

/// Answers for one thread.
pub fn answer(worker: &Worker, question: &Question) {
    let all = worker.under_way.all();
    let mut found: Vec<_> = all.iter().filter(|call| call.is_sought(&question.seeking)).collect();
    match &*question.seeking {
        Seeking::Newest { limit, .. } => keep_newest(&mut found, *limit, |call| call.ask.call),
        Seeking::One { .. } => {}
        Seeking::End { actor, .. } => found.iter().for_each(|call| call.end(actor)),
    }
    // Whoever asked may not wait any longer.
    let _ = question.answer.send(found.into_iter().filter_map(|call| call.told()).collect());
}

/// Asks all threads. A thread that does not answer in time is left out.
pub async fn ask(shared: Arc<Shared>, seeking: Seeking) -> Vec<RunningCall> {
    let limit = match &seeking {
        Seeking::Newest { limit, .. } => *limit,
        Seeking::One { .. } | Seeking::End { .. } => u32::MAX,
    };
    let (answer, mut answers) = mpsc::unbounded_channel();
    let seeking = Arc::new(seeking);
    let put = |thread: &Peer| {
        let question = Question { seeking: Arc::clone(&seeking), answer: answer.clone() };
        // One that has no place for it has too much to do to answer.
        let _ = thread.orders.try_send(Order::Look(question));
    };
    shared.threads.iter().for_each(put);
    drop(answer);
    let mut found = Vec::new();
    let gather = async {
        while let Some(some) = answers.recv().await {
            found.extend(some);
        }
    };
    let _ = timeout(ANSWERS, gather).await;
    keep_newest(&mut found, limit, |call| call.id);
    found
}

fn keep_newest<T, K: Ord>(all: &mut Vec<T>, limit: u32, by: impl Fn(&T) -> K) {
    all.sort_by_key(|one| std::cmp::Reverse(by(one)));
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
}
