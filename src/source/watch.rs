//! Notices changes on this machine as they happen: pushes into a local repository, files in a directory.
//!
//! A hint only. The watcher polls all the same, so a lost or impossible watch costs time, never a change.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Called from the watch's own thread for every hint; must be quick and must not block
/// (`Notify::notify_one`, `try_send`). Collecting a burst into one look is up to the caller.
pub type Hint = Arc<dyn Fn() + Send + Sync>;

/// Keeps a watch alive; dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    _watcher: RecommendedWatcher,
}

/// Why something is not watched. The source is polled instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} is not watched, only polled: {what}; {mend}")]
pub struct WatchError {
    /// What was to be watched.
    pub place: String,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// Watches the references of a repository (bare or not).
pub fn repository(path: &Path, hint: Hint) -> Result<Watch, WatchError> {
    let git = if path.join(".git").is_dir() { path.join(".git") } else { path.to_path_buf() };
    let packed = git.clone();
    let refs = git.join("refs");
    // `packed-refs` and `HEAD` are replaced by rename, so their directory is watched, not they.
    let wanted = move |event: &Event| {
        event.paths.iter().any(|path| {
            let lock = path.extension().is_some_and(|extension| extension == "lock");
            !lock && (path.starts_with(&refs) || *path == packed.join("packed-refs") || *path == packed.join("HEAD"))
        })
    };
    let places = [(git.clone(), RecursiveMode::NonRecursive), (git.join("refs"), RecursiveMode::Recursive)];
    start(path, &places, wanted, hint)
}

/// Watches all files of a directory, except what lies in a `.git`.
pub fn directory(path: &Path, hint: Hint) -> Result<Watch, WatchError> {
    let wanted = |event: &Event| {
        event.paths.is_empty() || event.paths.iter().any(|path| !path.components().any(|c| c.as_os_str() == ".git"))
    };
    start(path, &[(path.to_path_buf(), RecursiveMode::Recursive)], wanted, hint)
}

/// Watches one file: its being written or replaced, and every symbolic link on the way to it, so that a directory put
/// in another's place is noticed as well (Kubernetes does that with `..data`). The way is the one at the time of the
/// call: watch anew after a hint.
pub fn file(path: &Path, hint: Hint) -> Result<Watch, WatchError> {
    let way = way_to(path);
    let directories: BTreeSet<PathBuf> = way.iter().filter_map(|spot| spot.parent()).map(Path::to_owned).collect();
    let places: Vec<_> = directories.into_iter().map(|place| (place, RecursiveMode::NonRecursive)).collect();
    start(path, &places, move |event| event.paths.iter().any(|path| way.contains(path)), hint)
}

/// Symbolic links followed at most on the way to a file, as the kernel does it.
const MAX_LINKS: u32 = 40;

/// The symbolic links that lead to a file, and where it lies in the end.
fn way_to(path: &Path) -> BTreeSet<PathBuf> {
    let parts = |path: &Path| path.iter().map(OsStr::to_owned).collect::<Vec<_>>();
    let (mut way, mut here, mut links) = (BTreeSet::new(), PathBuf::new(), 0);
    let mut left: VecDeque<OsString> = parts(path).into();
    while let Some(part) = left.pop_front() {
        if part == ".." {
            here.pop();
            continue;
        }
        // An absolute target begins at the root again: that is what `push` does.
        here.push(&part);
        if let Ok(target) = std::fs::read_link(&here)
            && links < MAX_LINKS
        {
            links += 1;
            way.insert(here.clone());
            here.pop();
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
    }
    way.insert(here);
    way
}

fn start(
    place: &Path,
    places: &[(PathBuf, RecursiveMode)],
    wanted: impl Fn(&Event) -> bool + Send + 'static,
    hint: Hint,
) -> Result<Watch, WatchError> {
    let handler = move |event: notify::Result<Event>| match event {
        // Reading changes nothing; without this a look would cause the next one.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
        Ok(event) if event.need_rescan() || wanted(&event) => hint(),
        Ok(_) => {}
        // Something was lost: look rather than miss it.
        Err(_) => hint(),
    };
    let failed = |error: notify::Error| explain(place, &error);
    let config = notify::Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(handler, config).map_err(failed)?;
    for (path, mode) in places {
        watcher.watch(path, *mode).map_err(failed)?;
    }
    Ok(Watch { _watcher: watcher })
}

fn explain(place: &Path, error: &notify::Error) -> WatchError {
    let (what, mend) = match &error.kind {
        notify::ErrorKind::MaxFilesWatch => (
            "the system's limit of watches is reached".to_owned(),
            "raise `fs.inotify.max_user_watches` with sysctl".to_owned(),
        ),
        notify::ErrorKind::Io(io) if io.raw_os_error() == Some(libc::EMFILE) => (
            "the system's limit of inotify instances is reached".to_owned(),
            "raise `fs.inotify.max_user_instances` with sysctl".to_owned(),
        ),
        _ => (error.to_string(), "check that it exists and can be read".to_owned()),
    };
    WatchError { place: place.display().to_string(), what, mend }
}
