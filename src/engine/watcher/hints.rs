//! What a watcher makes of the hooks of its source: when to look because of them, and whether they can be relied on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::decide::hint;
use crate::domain::HookOutcome;
use crate::engine::hooks::HookBook;

/// The watcher's side of a source's hooks.
pub(super) struct Hints {
    book: Arc<HookBook>,
    /// When the next look that a hook asks for may begin.
    pub(super) due: Option<Instant>,
    /// When the last look that a hook asked for began.
    last_look: Option<Instant>,
    /// Looks in a row that a hook asked for and that found nothing new.
    in_vain: u32,
    /// A look that a hook asked for is on its way.
    pending: bool,
    /// When a poll found what no hook had announced.
    pub(super) missed: Option<Instant>,
}

impl Hints {
    pub(super) fn new(book: Arc<HookBook>) -> Self {
        Self { book, due: None, last_look: None, in_vain: 0, pending: false, missed: None }
    }

    /// The other side, for those who receive hooks.
    pub(super) fn book(&self) -> Arc<HookBook> {
        Arc::clone(&self.book)
    }

    /// A hook has been announced: it is followed when the last one is long enough ago.
    pub(super) fn announced(&mut self) {
        let due = self.last_look.map(|last| last + hint::spacing(self.in_vain));
        self.due.get_or_insert(due.unwrap_or_else(Instant::now));
    }

    /// A look that a hook asks for begins. Answers whether the ledger has a mark to be cleared first.
    pub(super) fn begin(&mut self) -> bool {
        self.due = None;
        self.last_look = Some(Instant::now());
        self.pending = true;
        self.book.take_mark()
    }

    /// Whether a look that a hook asked for is on its way.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// A look is over; answers whether a hook had asked for it.
    pub(super) fn over(&mut self, found: bool) -> bool {
        let hinted = std::mem::take(&mut self.pending);
        if hinted {
            self.in_vain = if found { 0 } else { self.in_vain.saturating_add(1) };
        }
        hinted
    }

    /// When the last hook came that said there is something to see.
    pub(super) fn last(&self) -> Option<Instant> {
        let last = self.book.last().filter(|hook| hook.outcome == HookOutcome::Accepted)?;
        let ago = Timestamp::now().duration_since(last.at);
        Instant::now().checked_sub(Duration::try_from(ago).unwrap_or(Duration::ZERO))
    }
}
