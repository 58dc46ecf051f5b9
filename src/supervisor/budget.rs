//! How much all log files take together, without looking at the disk for every write.
//!
//! Owned by [`super::logs::Logs`]. The tree is read once at the start; from then on every write, rotation and
//! removal is counted here. Oldest files go first; a file that is being written is never removed, it is
//! rotated first and then counts as old.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::logs::{ROTATED, numbered};

/// Sizes of all files, by the log they belong to.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    total: u64,
    families: HashMap<PathBuf, Family>,
}

/// One log and its rotated files.
#[derive(Debug, Default)]
struct Family {
    /// An instance writes to it.
    active: bool,
    current: u64,
    touched: Option<SystemTime>,
    /// `.1` first.
    rotated: Vec<(Option<SystemTime>, u64)>,
}

impl Budget {
    /// Reads the sizes of everything below `root`.
    pub(super) fn scan(root: &Path, limit: u64) -> Self {
        let mut budget = Self { limit, total: 0, families: HashMap::new() };
        budget.scan_directory(root, Path::new(""), 0);
        budget.make_room(root, 0);
        budget
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// An instance starts to write to `path`, which holds `size` bytes.
    pub(super) fn activate(&mut self, path: &Path, size: u64) {
        let family = self.families.entry(path.to_owned()).or_default();
        family.active = true;
        self.total = self.total - family.current + size;
        family.current = size;
    }

    /// Nobody writes to `path` any more.
    pub(super) fn deactivate(&mut self, path: &Path) {
        if let Some(family) = self.families.get_mut(path) {
            family.active = false;
            family.touched = Some(SystemTime::now());
        }
    }

    pub(super) fn grow(&mut self, path: &Path, bytes: u64) {
        if let Some(family) = self.families.get_mut(path) {
            family.current += bytes;
            self.total += bytes;
        }
    }

    /// `path` was renamed to `path.1`, and so on; what went beyond the last number is gone.
    pub(super) fn rotated(&mut self, path: &Path) {
        let Some(family) = self.families.get_mut(path) else { return };
        let current = std::mem::take(&mut family.current);
        family.rotated.insert(0, (Some(SystemTime::now()), current));
        for (_, gone) in family.rotated.drain(ROTATED.min(family.rotated.len())..) {
            self.total -= gone;
        }
    }

    /// Removes the oldest files until `wanted` more bytes fit.
    pub(super) fn make_room(&mut self, root: &Path, wanted: u64) {
        if self.total + wanted <= self.limit {
            return;
        }
        // A little more than needed, so that a full budget is not sorted for every line.
        let target = self.limit.saturating_sub(wanted).saturating_sub((self.limit / 20).min(32 << 20));
        let mut oldest: Vec<(Option<SystemTime>, PathBuf, Option<usize>)> = Vec::new();
        for (path, family) in &self.families {
            if !family.active {
                oldest.push((family.touched, path.clone(), None));
            }
            for (index, (at, _)) in family.rotated.iter().enumerate() {
                oldest.push((*at, path.clone(), Some(index)));
            }
        }
        // Of one log the highest number comes first, so the indexes below it stay right.
        oldest.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.2.cmp(&a.2)));
        for (_, path, index) in oldest {
            if self.total <= target {
                break;
            }
            self.remove(root, &path, index);
        }
    }

    fn remove(&mut self, root: &Path, path: &Path, index: Option<usize>) {
        let Some(family) = self.families.get_mut(path) else { return };
        let base = root.join(path);
        match index {
            Some(index) => {
                // An older file of the same log may still be there when clocks were set back: all behind go too.
                for number in (index..family.rotated.len()).rev() {
                    let _ = fs::remove_file(numbered(&base, number + 1));
                    self.total -= family.rotated.pop().map_or(0, |(_, size)| size);
                }
            }
            None => {
                let _ = fs::remove_file(&base);
                self.total -= std::mem::take(&mut family.current);
            }
        }
        if !family.active && family.current == 0 && family.rotated.is_empty() {
            self.families.remove(path);
            remove_empty_parents(root, &base);
        }
    }

    fn scan_directory(&mut self, root: &Path, below: &Path, depth: usize) {
        const DEPTH: usize = 8;
        for entry in fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = below.join(entry.file_name());
            if kind.is_dir() && depth < DEPTH {
                self.scan_directory(root, &path, depth + 1);
            } else if let Some((base, number)) = kind.is_file().then(|| family_of(&path)).flatten()
                && let Ok(meta) = entry.metadata()
            {
                self.add(base, number, meta.len(), meta.modified().ok());
            }
        }
    }

    fn add(&mut self, base: PathBuf, number: usize, size: u64, modified: Option<SystemTime>) {
        let family = self.families.entry(base).or_default();
        if number == 0 {
            (family.current, family.touched) = (size, modified);
        } else {
            let missing = number.saturating_sub(family.rotated.len());
            family.rotated.extend(std::iter::repeat_n((modified, 0), missing));
            family.rotated[number - 1] = (modified, size);
        }
        self.total += size;
    }
}

/// `a/x.log.2` → (`a/x.log`, 2); `None` for files that are no logs of instances (the proxy's access log
/// lies directly in the root and is the proxy's to bound).
fn family_of(path: &Path) -> Option<(PathBuf, usize)> {
    let text = path.to_str()?;
    if path.components().count() < 2 {
        return None;
    }
    if text.ends_with(".log") {
        return Some((path.to_owned(), 0));
    }
    let (base, number) = text.rsplit_once('.')?;
    let number = number.parse().ok().filter(|number| (1..=ROTATED).contains(number))?;
    base.ends_with(".log").then(|| (PathBuf::from(base), number))
}

fn remove_empty_parents(root: &Path, file: &Path) {
    let old_enough = |directory: &Path| {
        // A directory may have been made this moment for an instance about to start.
        let modified = fs::metadata(directory).and_then(|meta| meta.modified()).ok();
        modified.and_then(|at| at.elapsed().ok()).is_none_or(|age| age > Duration::ZERO)
    };
    for directory in file.ancestors().skip(1).take_while(|directory| *directory != root) {
        if !directory.starts_with(root) || !old_enough(directory) || fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_assigned_to_their_log() {
        assert_eq!(family_of(Path::new("a/x.log")), Some(("a/x.log".into(), 0)));
        assert_eq!(family_of(Path::new("a/x.log.3")), Some(("a/x.log".into(), 3)));
        for other in ["access.log", "a/x.txt", "a/x.log.99", "a/x.log.tmp", "a/x.4"] {
            assert_eq!(family_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_files_go_first_and_those_in_use_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir(root.join("a")).expect("made");
        for (name, age) in [("a/old.log.1", 300), ("a/old.log", 200), ("a/new.log", 100)] {
            let file = fs::File::create(root.join(name)).expect("made");
            file.set_len(400).expect("sized");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("dated");
        }
        let mut budget = Budget::scan(root, 1300);
        budget.activate(Path::new("a/old.log"), 400);
        budget.make_room(root, 600);
        assert!(!root.join("a/old.log.1").exists() && !root.join("a/new.log").exists());
        assert!(root.join("a/old.log").exists(), "it is being written");
        assert_eq!(budget.total, 400);
    }
}
