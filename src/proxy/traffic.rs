//! Answers of one web object, counted where they are given: how many of which class, and how long it took until they began.
//!
//! Owner: `queue::Object`, one for all threads. A request costs two additions to shared memory, no lock and no allocation but
//! for the first; `link.rs` takes what was counted and tells the controller, which keeps it by the minute. While no
//! controller is there it adds up here.
//!
//! Invariant: what was counted is taken once. What could not be told is given back and taken again.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::queue::Object;
use crate::decide::tally::class;
use crate::domain::AnswerClass;
use crate::wire::proxy::ObjectAnswers;

/// Classes of times; what takes longer than the last one's hour counts as that.
const CLASSES: usize = 240;

/// The counts. Made with the first answer.
#[derive(Debug, Default)]
pub struct Traffic(OnceLock<Box<Counts>>);

#[derive(Debug)]
struct Counts {
    answers: [AtomicU64; AnswerClass::ALL.len()],
    times: [AtomicU64; CLASSES],
}

/// What was counted since it was last taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Answers of each class, of those that there were any.
    pub answers: BTreeMap<AnswerClass, u64>,
    /// How many were in each class of times.
    pub times: Vec<(u16, u64)>,
}

impl Taken {
    /// As the controller is told of it.
    pub fn of(&self, object: &Object) -> ObjectAnswers {
        let Taken { answers, times } = self.clone();
        ObjectAnswers { app: object.app.clone(), object: object.name.clone(), answers, times }
    }
}

impl Traffic {
    /// An answer that began after so long.
    pub fn count(&self, answer: AnswerClass, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let counts = self.counts();
        counts.times[usize::from(class(micros)).min(CLASSES - 1)].fetch_add(1, Ordering::Relaxed);
        // Last: whoever takes an answer takes its time with it, but for the blink of an eye.
        counts.answers[answer as usize].fetch_add(1, Ordering::Release);
    }

    /// Whether something was counted and not taken.
    pub fn is_empty(&self) -> bool {
        self.0.get().is_none_or(|counts| counts.answers.iter().all(|count| count.load(Ordering::Acquire) == 0))
    }

    /// What was counted, which is forgotten here; `None` if nothing was.
    pub fn take(&self) -> Option<Taken> {
        let counts = self.0.get().filter(|_| !self.is_empty())?;
        let taken = |count: &AtomicU64| count.swap(0, Ordering::AcqRel);
        let answers = AnswerClass::ALL.into_iter().zip(counts.answers.iter().map(taken));
        let answers = answers.filter(|(_, count)| *count > 0).collect();
        let times = (0..).zip(counts.times.iter().map(taken)).filter(|(_, count)| *count > 0).collect();
        Some(Taken { answers, times })
    }

    /// What was taken and could not be told.
    pub fn give_back(&self, taken: &Taken) {
        let counts = self.counts();
        for (class, count) in &taken.times {
            counts.times[usize::from(*class).min(CLASSES - 1)].fetch_add(*count, Ordering::Relaxed);
        }
        for (answer, count) in &taken.answers {
            counts.answers[*answer as usize].fetch_add(*count, Ordering::Release);
        }
    }

    fn counts(&self) -> &Counts {
        self.0.get_or_init(|| {
            let zero = |_| AtomicU64::new(0);
            Box::new(Counts { answers: std::array::from_fn(zero), times: std::array::from_fn(zero) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_while_it_is_taken_and_given_back_is_taken_once() {
        const EACH: u64 = 20_000;
        let traffic = Traffic::default();
        assert_eq!(traffic.take(), None);
        let mut sum = Taken::default();
        let mut add = |taken: Taken| {
            for (class, count) in taken.answers {
                *sum.answers.entry(class).or_default() += count;
            }
            sum.times.extend(taken.times);
        };
        std::thread::scope(|scope| {
            let counting: Vec<_> = [200, 404, 502]
                .into_iter()
                .map(|status| {
                    let traffic = &traffic;
                    scope.spawn(move || {
                        (0..EACH).for_each(|_| traffic.count(AnswerClass::of(status), Duration::from_micros(3)));
                    })
                })
                .collect();
            let mut lost = false;
            while counting.iter().any(|thread| !thread.is_finished()) {
                lost = !lost;
                match traffic.take() {
                    Some(taken) if lost => traffic.give_back(&taken),
                    Some(taken) => add(taken),
                    None => {}
                }
            }
        });
        traffic.count(AnswerClass::Successful, Duration::from_secs(86_400));
        add(traffic.take().expect("the last one at least"));
        assert!(traffic.is_empty() && traffic.take().is_none());
        let expected =
            [(AnswerClass::Successful, EACH + 1), (AnswerClass::ClientError, EACH), (AnswerClass::ServerError, EACH)];
        assert_eq!(sum.answers, expected.into());
        let of = |class: u16| sum.times.iter().filter(|(one, _)| *one == class).map(|(_, count)| count).sum::<u64>();
        assert_eq!((of(3), of(239)), (3 * EACH, 1));
    }
}
