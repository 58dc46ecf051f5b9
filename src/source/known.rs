//! What the engine already knows about a source's apps: which directory claims which name, who owns it,
//! and who includes what. Owned by the engine, one per source; a look only reads it.
//!
//! Invariant: every lookup a look makes costs what the change costs, not what the fleet costs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{Reading, include};
use crate::domain::AppName;

/// One app directory as the last reading left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownApp {
    /// The directory within the repository; empty for its root.
    pub path: String,
    /// The name its manifest claims; `None` if no manifest there was ever readable.
    pub app: Option<AppName>,
    /// Whether that name belongs to this directory (two directories may claim one name).
    pub owner: bool,
    /// What the manifest includes, as written.
    pub includes: Vec<String>,
}

/// All app directories of one source.
#[derive(Debug, Clone, Default)]
pub struct KnownApps {
    apps: BTreeMap<String, KnownApp>,
    claims: HashMap<AppName, BTreeSet<String>>,
    /// Included directory → the app directories that include it.
    included: BTreeMap<String, BTreeSet<String>>,
}

impl KnownApps {
    /// Adds or replaces one directory.
    pub fn insert(&mut self, known: KnownApp) {
        self.remove(&known.path);
        if let Some(app) = &known.app {
            self.claims.entry(app.clone()).or_default().insert(known.path.clone());
        }
        for written in &known.includes {
            if let Ok(directory) = include::resolve(&known.path, written) {
                self.included.entry(directory).or_default().insert(known.path.clone());
            }
        }
        self.apps.insert(known.path.clone(), known);
    }

    /// Forgets one directory.
    pub fn remove(&mut self, path: &str) {
        let Some(known) = self.apps.remove(path) else { return };
        if let Some(app) = &known.app
            && let Some(paths) = self.claims.get_mut(app)
        {
            paths.remove(path);
            if paths.is_empty() {
                self.claims.remove(app);
            }
        }
        for written in &known.includes {
            if let Ok(directory) = include::resolve(path, written)
                && let Some(paths) = self.included.get_mut(&directory)
            {
                paths.remove(path);
                if paths.is_empty() {
                    self.included.remove(&directory);
                }
            }
        }
    }

    /// Takes over what a reading found; call it once the reading is recorded.
    pub fn apply(&mut self, reading: &Reading) {
        for path in &reading.removed {
            self.remove(path);
        }
        for app in &reading.read {
            self.insert(KnownApp {
                path: app.path.clone(),
                app: app.app.clone(),
                owner: app.owner,
                includes: app.includes.clone(),
            });
        }
    }

    /// One directory.
    pub fn get(&self, path: &str) -> Option<&KnownApp> {
        self.apps.get(path)
    }

    /// All directories in path order.
    pub fn iter(&self) -> impl Iterator<Item = &KnownApp> {
        self.apps.values()
    }

    /// How many directories.
    pub fn len(&self) -> usize {
        self.apps.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// The directories that claim `app`, in path order.
    pub(crate) fn claimants(&self, app: &AppName) -> impl Iterator<Item = &KnownApp> {
        self.claims.get(app).into_iter().flatten().filter_map(|path| self.apps.get(path))
    }

    /// Every included directory with those who include it.
    pub(crate) fn included(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.included.iter().map(|(directory, apps)| (directory.as_str(), apps))
    }
}

impl FromIterator<KnownApp> for KnownApps {
    fn from_iter<I: IntoIterator<Item = KnownApp>>(apps: I) -> Self {
        let mut all = Self::default();
        for app in apps {
            all.insert(app);
        }
        all
    }
}
