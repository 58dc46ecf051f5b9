//! Submodules that a tree points to and does not hold, and which apps that concerns.
//!
//! Invariant: an app is never taken for complete, or for gone, because of a submodule that is not there.

use super::Note;
use super::include;
use super::known::KnownApps;
use super::submodules::Missing;

/// What is not in the tree that is read.
pub(crate) struct Absent<'a> {
    /// Those that could not be fetched; `None` where submodules are not fetched at all.
    missing: Option<&'a Missing>,
    /// Links in the directories that changed.
    links: Vec<String>,
}

impl<'a> Absent<'a> {
    pub(crate) fn new(missing: Option<&'a Missing>, links: Vec<String>) -> Self {
        Self { missing, links }
    }

    /// Why the app at `app` is not complete, if it is not.
    pub(crate) fn problem(&self, app: &str, includes: &[String]) -> Option<String> {
        let missing = self.missing?;
        let parts = includes.iter().filter_map(|written| include::resolve(app, written).ok());
        let parts: Vec<String> = std::iter::once(app.to_owned()).chain(parts).collect();
        let concerns =
            |place: &str| parts.iter().any(|part| include::within(place, part) || include::within(part, place));
        if let Some((place, why)) = missing.iter().find(|(place, _)| concerns(place)) {
            return Some(words(place, why));
        }
        let place = self.links.iter().find(|place| concerns(place))?;
        Some(words(place, "`.gitmodules` does not say where it comes from; add it with `git submodule add`"))
    }

    /// Why nothing is known of `path`, if it lies in a submodule that could not be fetched.
    pub(crate) fn around(&self, path: &str) -> Option<String> {
        let mut missing = self.missing?.iter();
        missing.find(|(place, _)| include::within(path, place)).map(|(place, why)| words(place, why))
    }

    /// What to tell about the apps at `apps` where submodules are not fetched.
    pub(crate) fn notes<'b>(&self, apps: impl Iterator<Item = &'b str> + Clone) -> Vec<Note> {
        if self.missing.is_some() {
            return Vec::new();
        }
        let note = |place: &String| {
            let app = apps.clone().filter(|app| include::within(place, app)).max_by_key(|app| app.len())?;
            let here = if app.is_empty() { "the repository's root" } else { app };
            let message = format!(
                "{place} is a submodule and left out of the app in {here}; `submodules: true` of the source fetches it"
            );
            Some(Note { path: app.to_owned(), message })
        };
        self.links.iter().filter_map(note).collect()
    }
}

/// Apps that were unknown because they lay in a submodule, and are not there now that its place holds something else.
pub(crate) fn uncovered(places: &[String], known: &KnownApps) -> Vec<String> {
    let inside = |path: &str| places.iter().any(|place| include::within(path, place));
    if places.is_empty() {
        return Vec::new();
    }
    known.iter().map(|app| app.path.clone()).filter(|path| inside(path)).collect()
}

fn words(place: &str, why: &str) -> String {
    format!("{place}: the submodule cannot be fetched, so the app stays as it is: {why}")
}
