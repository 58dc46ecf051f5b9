//! Which apps that are gone from a source are let go, and which wait for a person.
//!
//! A mistake that empties a repository looks like a wish to stop everything. So more than a few at once wait, and
//! once something waits, what else vanishes waits with it: a person looks at the whole. What is held stays held
//! until it is approved or back; nothing is let go because the rest came back.
//!
//! Invariant: an app that is in the source is never in the answer.

use std::collections::BTreeSet;

use crate::domain::{AppName, Brake};

/// A brake in percent always lets this many go: one of two apps is half of them, and no drama.
pub const ALWAYS_LET_GO: usize = 2;

/// What is known when a source has been read without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    /// Gone with this revision.
    pub gone: BTreeSet<AppName>,
    /// Gone before it, and held back.
    pub held: BTreeSet<AppName>,
    /// In the source now.
    pub present: BTreeSet<AppName>,
    /// How many apps the source had before this revision, held ones included.
    pub of: usize,
}

/// What becomes of apps that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Prune {
    /// All are back, or none was gone.
    Nothing,
    /// These are let go.
    Proceed(BTreeSet<AppName>),
    /// These wait for a person.
    Hold(BTreeSet<AppName>),
}

/// Decides about all that is gone now.
pub fn prune(vanished: &Vanished, brake: Brake) -> Prune {
    let missing = |apps: &BTreeSet<AppName>| apps.difference(&vanished.present).cloned().collect::<BTreeSet<_>>();
    let (held, mut all) = (missing(&vanished.held), missing(&vanished.gone));
    let holds_already = !held.is_empty();
    all.extend(held);
    if all.is_empty() {
        Prune::Nothing
    } else if holds_already || exceeds(all.len(), vanished.of, brake) {
        Prune::Hold(all)
    } else {
        Prune::Proceed(all)
    }
}

fn exceeds(gone: usize, of: usize, brake: Brake) -> bool {
    match brake {
        Brake::Apps(apps) => gone > usize::try_from(apps).unwrap_or(usize::MAX),
        Brake::Percent(percent) => {
            gone > ALWAYS_LET_GO && gone.saturating_mul(100) > of.saturating_mul(usize::from(percent))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apps(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<AppName> {
        numbers.into_iter().map(|number| format!("app-{number}").parse().expect("a name")).collect()
    }

    fn gone(count: u32, of: usize) -> Vanished {
        Vanished { gone: apps(0..count), held: apps([]), present: apps([]), of }
    }

    #[test]
    fn a_part_in_percent_lets_two_apps_go_however_few_there_are() {
        let brake = Brake::Percent(30);
        assert_eq!(prune(&gone(1, 2), brake), Prune::Proceed(apps(0..1)));
        assert_eq!(prune(&gone(2, 3), brake), Prune::Proceed(apps(0..2)));
        assert_eq!(prune(&gone(3, 4), brake), Prune::Hold(apps(0..3)));
        assert_eq!(prune(&gone(3, 10), brake), Prune::Proceed(apps(0..3)));
        assert_eq!(prune(&gone(4, 10), brake), Prune::Hold(apps(0..4)));
    }

    #[test]
    fn a_number_is_taken_at_its_word() {
        assert_eq!(prune(&gone(1, 2), Brake::Apps(0)), Prune::Hold(apps(0..1)));
        assert_eq!(prune(&gone(5, 5000), Brake::Apps(5)), Prune::Proceed(apps(0..5)));
        assert_eq!(prune(&gone(6, 5000), Brake::Apps(5)), Prune::Hold(apps(0..6)));
    }

    #[test]
    fn what_waits_stays_until_it_is_back_and_more_joins_it() {
        let brake = Brake::Percent(30);
        let mut now = Vanished { gone: apps([9]), held: apps(0..5), present: apps(0..4), of: 10 };
        assert_eq!(prune(&now, brake), Prune::Hold(apps([4, 9])));
        now.gone.clear();
        assert_eq!(prune(&now, brake), Prune::Hold(apps([4])));
        now.present = apps(0..5);
        assert_eq!(prune(&now, brake), Prune::Nothing);
    }

    proptest! {
        #[test]
        fn nothing_present_is_let_go_and_nothing_missing_is_forgotten(
            gone in proptest::collection::btree_set(0..12_u32, 0..12),
            held in proptest::collection::btree_set(0..12_u32, 0..12),
            present in proptest::collection::btree_set(0..12_u32, 0..12),
            of in 0..20_usize,
            brake in prop_oneof![(0..=100_u8).prop_map(Brake::Percent), (0..6_u32).prop_map(Brake::Apps)],
        ) {
            let now = Vanished { gone: apps(gone), held: apps(held), present: apps(present), of };
            let missing: BTreeSet<_> = now.gone.union(&now.held).filter(|app| !now.present.contains(app)).cloned().collect();
            match prune(&now, brake) {
                Prune::Nothing => prop_assert!(missing.is_empty()),
                Prune::Hold(apps) => prop_assert_eq!(apps, missing),
                Prune::Proceed(apps) => {
                    prop_assert_eq!(&apps, &missing);
                    prop_assert!(now.held.is_subset(&now.present), "what waited goes only by approval");
                }
            }
        }
    }
}
