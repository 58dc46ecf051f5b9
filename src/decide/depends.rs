//! Which app waits for which: the order in which apps of one environment become live.
//!
//! A deployment that a source asks for begins once every app its manifest names in `depends_on` is live and healthy. It
//! waits as long as that takes and does not fail for it. What a person asks for (a rollback, a release) does not wait.
//!
//! Invariant: who names nobody, or is named by nobody, costs nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::domain::{AppKey, AppName, VersionNumber};

/// Who names whom, by the newest manifest of each app.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    needs: BTreeMap<AppKey, Vec<AppName>>,
    needed_by: BTreeMap<AppKey, BTreeSet<AppKey>>,
}

impl Graph {
    /// Takes over what an app names now. `true` when that is something else than before.
    pub fn set(&mut self, app: &AppKey, names: &[AppName]) -> bool {
        let before = self.needs.get(app).map(Vec::as_slice).unwrap_or_default();
        if before == names {
            return false;
        }
        for name in before {
            let needed = neighbour(app, name);
            if let Some(dependants) = self.needed_by.get_mut(&needed) {
                dependants.remove(app);
                if dependants.is_empty() {
                    self.needed_by.remove(&needed);
                }
            }
        }
        if names.is_empty() {
            self.needs.remove(app);
        } else {
            self.needs.insert(app.clone(), names.to_vec());
        }
        for name in names {
            self.needed_by.entry(neighbour(app, name)).or_default().insert(app.clone());
        }
        true
    }

    /// What an app names.
    pub fn needs(&self, app: &AppKey) -> &[AppName] {
        self.needs.get(app).map(Vec::as_slice).unwrap_or_default()
    }

    /// Who names an app.
    pub fn dependants(&self, app: &AppKey) -> impl Iterator<Item = &AppKey> {
        self.needed_by.get(app).into_iter().flatten()
    }

    /// Everybody who names an app, names somebody who does, and so on.
    pub fn all_dependants(&self, app: &AppKey) -> BTreeSet<AppKey> {
        let (mut found, mut todo) = (BTreeSet::new(), vec![app.clone()]);
        while let Some(next) = todo.pop() {
            for dependant in self.dependants(&next) {
                if found.insert(dependant.clone()) {
                    todo.push(dependant.clone());
                }
            }
        }
        found
    }

    /// The shortest way from an app back to itself: `[shop, cart, shop]`; `None` when there is none.
    pub fn cycle(&self, app: &AppKey) -> Option<Vec<AppName>> {
        let mut came_from: BTreeMap<AppKey, AppKey> = BTreeMap::new();
        let mut todo = VecDeque::from([app.clone()]);
        while let Some(next) = todo.pop_front() {
            for name in self.needs(&next) {
                let needed = neighbour(&next, name);
                if needed == *app {
                    let mut way = vec![app.app.clone()];
                    let mut step = next;
                    while step != *app {
                        way.push(step.app.clone());
                        match came_from.get(&step) {
                            Some(before) => step = before.clone(),
                            None => break,
                        }
                    }
                    way.push(app.app.clone());
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(&needed) {
                    came_from.insert(needed.clone(), next.clone());
                    todo.push_back(needed);
                }
            }
        }
        None
    }
}

/// The app of that name in the same environment.
pub fn neighbour(app: &AppKey, name: &AppName) -> AppKey {
    AppKey::new(app.environment.clone(), name.clone())
}

/// What is known of an app that another one names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// It has just changed and is decided in a moment.
    pub undecided: bool,
    /// A deployment of it is open and not live yet.
    pub open: Option<VersionNumber>,
    /// What its source asks for failed to deploy, and nobody has settled for something else by a hold.
    pub failed: bool,
    /// A version of it is live, and it is not stopped.
    pub live: bool,
    /// Every object of its live version has an instance that takes work.
    pub ready: bool,
}

/// Why an app that is named is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is about to be decided.
    Undecided,
    /// This version of it is on its way.
    OnItsWay(VersionNumber),
    /// Its source asks for content that failed.
    Failed,
    /// Nothing of it runs.
    NotLive,
    /// It runs and is not healthy.
    NotReady,
}

/// Whether an app that is named has to be waited for, and why; `None` when it is healthy.
pub fn waits_for(seen: &Seen) -> Option<Why> {
    if seen.undecided {
        return Some(Why::Undecided);
    }
    if let Some(version) = seen.open {
        return Some(Why::OnItsWay(version));
    }
    // The commit that changed both may need the new version of the one that failed.
    if seen.failed {
        return Some(Why::Failed);
    }
    match (seen.live, seen.ready) {
        (false, _) => Some(Why::NotLive),
        (true, false) => Some(Why::NotReady),
        (true, true) => None,
    }
}

impl Why {
    /// In words, with what to do where waiting alone does not help.
    pub fn words(self, app: &AppName) -> String {
        match self {
            Why::Undecided => format!("waits for {app}"),
            Why::OnItsWay(version) => format!("waits for {app}, whose {version} is on its way"),
            Why::Failed => format!(
                "waits for {app}: what its source asks for failed to deploy; mend that, or hold it (`landfall app rollback {app}`)"
            ),
            Why::NotLive => format!("waits for {app}, of which nothing runs; see `landfall app show {app}`"),
            Why::NotReady => format!("waits for {app}, which is not healthy; see `landfall app show {app}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> AppKey {
        AppKey::new("main".parse().unwrap(), name.parse().unwrap())
    }

    fn names(text: &str) -> Vec<AppName> {
        text.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    fn graph(lines: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (app, needs) in lines {
            graph.set(&key(app), &names(needs));
        }
        graph
    }

    #[test]
    fn cycles_are_found_by_the_shortest_way_and_diamonds_are_none() {
        let diamond = graph(&[("shop", "cart db"), ("cart", "db"), ("db", "disk")]);
        for app in ["shop", "cart", "db", "disk"] {
            assert_eq!(diamond.cycle(&key(app)), None, "{app}");
        }
        let ring = graph(&[("a", "b c"), ("b", "d"), ("c", "a"), ("d", "a"), ("outside", "a")]);
        assert_eq!(ring.cycle(&key("a")), Some(names("a c a")));
        assert_eq!(ring.cycle(&key("d")), Some(names("d a b d")));
        assert_eq!(ring.cycle(&key("outside")), None, "it waits for a cycle and is in none");
        assert_eq!(graph(&[("a", "a")]).cycle(&key("a")), Some(names("a a")));
    }

    #[test]
    fn who_is_named_is_known_both_ways_and_forgotten_with_the_manifest() {
        let mut graph = graph(&[("shop", "cart db"), ("cart", "db")]);
        let dependants = |graph: &Graph, app: &str| graph.dependants(&key(app)).cloned().collect::<Vec<_>>();
        assert_eq!(dependants(&graph, "db"), [key("cart"), key("shop")]);
        assert_eq!(graph.all_dependants(&key("db")).len(), 2);
        assert!(!graph.set(&key("cart"), &names("db")));
        assert!(graph.set(&key("cart"), &[]));
        assert_eq!(dependants(&graph, "db"), [key("shop")]);
        assert!(graph.set(&key("shop"), &[]));
        assert!(graph.needs.is_empty() && graph.needed_by.is_empty());
        // Another environment is another world.
        let elsewhere = AppKey::new("test".parse().unwrap(), "db".parse().unwrap());
        graph.set(&key("shop"), &names("db"));
        assert_eq!(graph.dependants(&elsewhere).count(), 0);
    }

    #[test]
    fn only_what_is_live_and_healthy_and_as_asked_for_is_not_waited_for() {
        let healthy = Seen { live: true, ready: true, ..Seen::default() };
        let two = VersionNumber::new(2).unwrap();
        let table = [
            (healthy.clone(), None),
            (Seen { undecided: true, ..healthy.clone() }, Some(Why::Undecided)),
            // Its old version is healthy, and the new one is what the same commit may need.
            (Seen { open: Some(two), ..healthy.clone() }, Some(Why::OnItsWay(two))),
            (Seen { failed: true, ..healthy.clone() }, Some(Why::Failed)),
            (Seen { ready: false, ..healthy.clone() }, Some(Why::NotReady)),
            (Seen { live: false, ..healthy.clone() }, Some(Why::NotLive)),
            (Seen { failed: true, ..Seen::default() }, Some(Why::Failed)),
            (Seen::default(), Some(Why::NotLive)),
        ];
        for (seen, expected) in table {
            assert_eq!(waits_for(&seen), expected, "{seen:?}");
        }
    }
}
