//! An attempt that is under way, and the queue of a function: what the core remembers of each.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::core::Ending;
use crate::decide::retry::repeat;
use crate::domain::{AttemptEnd, AttemptId, AttemptOutcome, CallError, CallId, FunctionKey, Trigger};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// Its attempt is being recorded.
    Beginning,
    /// This connection has it.
    With(u64),
    /// No connection has it: this process may, or, if none is named, any that has not said hello yet.
    Unclaimed(Option<i32>),
    /// It has ended; the connection that said so wants to be told when that is recorded.
    Ending(Option<u64>),
}

#[derive(Debug)]
pub(super) struct Flight {
    /// 0 until it is recorded.
    pub attempt: u32,
    pub function: FunctionKey,
    pub trigger: Trigger,
    /// Another version than the live one: what becomes of it says nothing of the others.
    pub pinned: bool,
    pub at: At,
    pub cancelled: bool,
}

impl Flight {
    /// One whose attempt is being recorded.
    pub fn beginning(function: FunctionKey) -> Self {
        Self { attempt: 0, function, trigger: Trigger::Spawn, pinned: false, at: At::Beginning, cancelled: false }
    }

    pub fn lose(&mut self, call: CallId, now: Timestamp) -> Ending {
        self.at = At::Ending(None);
        let why = CallError::new(
            "lost",
            match self.trigger {
                Trigger::Call => {
                    "the proxy that carried it ended; only its caller had its body, so it is not tried again"
                }
                _ => "the proxy that carried it ended; it is tried again",
            },
        );
        Ending {
            attempt: AttemptId { call, attempt: self.attempt },
            function: self.function.clone(),
            end: AttemptEnd::without_report(AttemptOutcome::Lost, now, Some(why)),
            result: None,
        }
    }
}

/// A function's queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// So many attempts may be under way; `None` until somebody has looked.
    pub room: Option<usize>,
    pub flying: usize,
    pub window: VecDeque<CallId>,
    /// There may be more on record that can begin.
    pub more: bool,
    /// When the next one can begin.
    pub next_due: Option<Timestamp>,
    /// Attempts in a row that did not reach the function, and until when no other is tried: where one finds no
    /// instance, the thousand behind it find none either.
    pub refused: u32,
    pub paused_until: Option<Timestamp>,
}

impl Queue {
    pub fn free(&self) -> usize {
        self.room.unwrap_or(0).saturating_sub(self.flying)
    }

    pub fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    /// What an attempt's end says of the function as a whole.
    pub fn learn(&mut self, ended: AttemptOutcome, now: Timestamp) {
        match ended {
            // The first of those that were under way together.
            AttemptOutcome::Refused if self.is_paused(now) => {}
            AttemptOutcome::Refused => {
                self.refused = self.refused.saturating_add(1);
                let pause = SignedDuration::try_from(repeat(self.refused)).unwrap_or(SignedDuration::ZERO);
                self.paused_until = now.checked_add(pause).ok();
            }
            AttemptOutcome::Lost | AttemptOutcome::Cancelled => {}
            AttemptOutcome::Succeeded | AttemptOutcome::Failed | AttemptOutcome::TimedOut | AttemptOutcome::Crashed => {
                (self.refused, self.paused_until) = (0, None)
            }
        }
    }

    /// There is nothing to do for it, and nothing under way.
    pub fn is_idle(&self) -> bool {
        self.window.is_empty() && !self.more && self.next_due.is_none() && self.flying == 0
    }

    pub fn wake_at(&mut self, due: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due, |known| known.min(due)));
    }
}
