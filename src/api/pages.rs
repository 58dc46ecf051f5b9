//! Long lists, page by page: `limit` and `cursor` in the query, `items` and `next` in the answer.
//!
//! A cursor is the place of the last entry of a page, wrapped so that nobody builds on what is in it. Lists go from the newest
//! to the oldest (facts the other way), so entries that come meanwhile move no page. Invariant: whoever passes each `next` on gets every
//! entry there was at the beginning, once.

use std::str::FromStr;

use super::problem::Refusal;
use crate::domain::hex;
use crate::wire::api::Page;

/// Longest cursor that is read.
const LONGEST: usize = 200;

/// The lists that have pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// What happened.
    Facts,
    /// The audit log.
    Audit,
    /// The versions of an app.
    Versions,
    /// The deployments of an app.
    Deployments,
    /// Calls on record.
    Calls,
    /// Runs of a schedule.
    Runs,
}

impl List {
    fn mark(self) -> &'static str {
        match self {
            List::Facts => "f",
            List::Audit => "a",
            List::Versions => "v",
            List::Deployments => "d",
            List::Calls => "c",
            List::Runs => "r",
        }
    }

    /// The place that a cursor of this list stands for.
    pub fn place<T: FromStr>(self, cursor: Option<&String>) -> Result<Option<T>, Refusal> {
        let Some(cursor) = cursor else { return Ok(None) };
        let read = || {
            let bytes = hex::decode(Some(cursor).filter(|cursor| cursor.len() <= LONGEST)?)?;
            let text = String::from_utf8(bytes).ok()?;
            text.strip_prefix(self.mark())?.strip_prefix(':')?.parse().ok()
        };
        read().map(Some).ok_or_else(|| {
            Refusal::unreadable(
                "the cursor is none of this list",
                "pass `next` of the page before on as it came, or leave `cursor` out to begin anew",
            )
        })
    }

    /// A page of what was found when one entry more than `limit` was asked for.
    pub fn page<T, P: ToString>(self, mut found: Vec<T>, limit: u32, place: impl Fn(&T) -> P) -> Page<T> {
        let limit = limit as usize;
        let more = found.len() > limit;
        found.truncate(limit);
        let cursor = |last: &T| hex::encode(format!("{}:{}", self.mark(), place(last).to_string()).as_bytes());
        let next = found.last().filter(|_| more).map(cursor);
        Page { items: found, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_until_the_last() {
        let all: Vec<i64> = (1..=7).rev().collect();
        let (mut cursor, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let before: Option<i64> = List::Audit.place(cursor.as_ref()).expect("a cursor");
            // What comes meanwhile is newer.
            let found =
                std::iter::once(99).chain(all.iter().copied()).filter(|id| before.is_none_or(|before| *id < before));
            let page = List::Audit.page(found.take(4).collect(), 3, |id| *id);
            seen.extend(page.items);
            pages += 1;
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!((seen, pages), (vec![99, 7, 6, 5, 4, 3, 2, 1], 3));
        assert_eq!(List::Audit.page(vec![1, 2], 2, |id| *id).next, None);
    }

    #[test]
    fn cursors_of_other_lists_and_other_texts_are_refused() {
        let cursor = List::Calls.page(vec![1, 2], 1, |id| *id).next;
        assert_eq!(List::Calls.place::<i64>(cursor.as_ref()), Ok(Some(1)));
        assert!(List::Runs.place::<i64>(cursor.as_ref()).is_err());
        for bad in ["", "x", "7", "ff", "633a", &"0".repeat(1000)] {
            assert!(List::Calls.place::<i64>(Some(&bad.to_owned())).is_err(), "{bad}");
        }
    }
}
