//! The last hour as its charts show it: where minutes and deployments lie, and how tall a bar is.

use jiff::Timestamp;
use maud::{Markup, html};

use super::parts;
use crate::wire::api::Version;

/// A chart's width and height in its own units.
pub(super) const WIDTH: i64 = 720;
pub(super) const HEIGHT: i64 = 84;
/// Minutes that are kept and drawn.
const MINUTES: i64 = 60;
/// What a minute has of the width.
pub(super) const STEP: i64 = WIDTH / MINUTES;
/// The longest bar.
const TALLEST: u64 = 80;

/// The hour that ends with the minute of some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hour {
    /// Its last minute, counted since 1970.
    newest: i64,
}

impl Hour {
    pub(super) fn until(now: Timestamp) -> Self {
        Self { newest: now.as_second().div_euclid(60) }
    }

    /// Where the bar of a minute begins; `None` for one of another hour.
    pub(super) fn bar(self, minute: Timestamp) -> Option<i64> {
        let place = MINUTES - 1 - (self.newest - minute.as_second().div_euclid(60));
        (0..MINUTES).contains(&place).then_some(place * STEP + 1)
    }

    /// The versions of this hour, and where they lie.
    pub(super) fn marks(self, versions: &[Version]) -> Vec<(&Version, i64)> {
        let begin = (self.newest - MINUTES + 1) * 60;
        let place = |version: &Version| (version.created_at.as_second() - begin) * WIDTH / (MINUTES * 60);
        versions.iter().map(|version| (version, place(version))).filter(|(_, x)| (0..=WIDTH).contains(x)).collect()
    }
}

/// How tall a bar is for this much when the most is that; what there is shows.
pub(super) fn tall(count: u64, most: u64) -> i64 {
    let tall = (u128::from(count) * u128::from(TALLEST)).div_ceil(u128::from(most.max(1)));
    i64::try_from(tall).unwrap_or(0)
}

/// A line for each version, where it lies.
pub(super) fn deployments(marks: &[(&Version, i64)]) -> Markup {
    html! {
        @for (version, x) in marks {
            g.deploy { title { (version.version) " (" (version.kind) ") " (parts::stamp(version.created_at)) } line x1=(x) x2=(x) y1="0" y2=(HEIGHT) {} }
        }
    }
}
