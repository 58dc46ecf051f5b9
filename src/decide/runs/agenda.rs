//! Who has something to decide next: every schedule with the moment it wakes, the earliest first.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// Wakings in order. A key has at most one; setting it again moves it.
#[derive(Debug)]
pub struct Agenda<K> {
    order: BTreeSet<(Timestamp, K)>,
    by_key: HashMap<K, Timestamp>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Copy + Ord + Hash> Agenda<K> {
    /// This key wakes then, or never.
    pub fn set(&mut self, key: K, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key));
        }
        self.order.extend(at.map(|at| (at, key)));
    }

    /// When the next one wakes.
    pub fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Those that wake from `from` on and before `until`, the earliest first.
    pub fn between(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = K> {
        self.order
            .iter()
            .skip_while(move |(at, _)| *at < from)
            .take_while(move |(at, _)| *at < until)
            .map(|(_, key)| *key)
    }

    /// Takes out those that wake not after `now`, the earliest first, at most `limit` of them.
    pub fn take_due(&mut self, now: Timestamp, limit: usize) -> Vec<K> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((at, key)) = self.order.first().copied()
            && at <= now
        {
            self.order.pop_first();
            self.by_key.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_wakes_first_and_a_moved_one_only_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut agenda = Agenda::default();
        agenda.set('a', Some(at(5)));
        agenda.set('b', Some(at(3)));
        agenda.set('c', Some(at(4)));
        agenda.set('a', Some(at(1)));
        agenda.set('c', None);
        assert_eq!(agenda.next(), Some(at(1)));
        assert!(agenda.take_due(at(0), 9).is_empty());
        assert_eq!(agenda.take_due(at(9), 1), ['a']);
        assert_eq!(agenda.take_due(at(9), 9), ['b']);
        assert_eq!(agenda.next(), None);
    }
}
