//! How two trees differ, file by file and line by line, within bounds.

use git2::{Delta, Diff, DiffFindOptions, DiffOptions, FileMode, Patch, Repository};

use super::error::StoreError;
use super::{Store, oid, shared};
use crate::domain::TreeId;

/// How much of a difference is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Files that are listed at most.
    pub files: usize,
    /// Bytes of text for one file at most.
    pub file_text: usize,
    /// Bytes of text for all files at most.
    pub text: usize,
    /// Files that are longer are compared as a whole only, as binary ones are.
    pub file_size: u64,
}

/// How two trees differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreePatch {
    /// How many files differ, listed or not.
    pub total: usize,
    /// The files that are listed, in the order of their paths.
    pub files: Vec<FilePatch>,
}

/// How one file differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch {
    /// Its path now, or the one it had.
    pub path: String,
    /// Its path before, where it has another name now.
    pub old_path: Option<String>,
    /// What became of it.
    pub kind: PatchKind,
    /// It is no text, or too long to be compared line by line.
    pub binary: bool,
    /// Lines that are new.
    pub added: usize,
    /// Lines that are gone.
    pub removed: usize,
    /// The difference as `git diff` writes it, with whole lines only.
    pub text: String,
    /// Not all of the text is there.
    pub cut: bool,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another content.
    Modified,
    /// It has another name.
    Renamed,
    /// It has another mode: executable, link.
    Mode,
}

/// More files than this are not searched for new names: it costs a look at each pair.
const RENAMES: usize = 500;

impl Store {
    /// How `new` differs from `old`, with text as far as there is room for it.
    pub fn patch(&self, old: &TreeId, new: &TreeId, bounds: Bounds) -> Result<TreePatch, StoreError> {
        let _shared = shared(&self.access);
        self.with(|repository| {
            let failed = |error: &git2::Error| self.git("comparing two trees", error);
            let diff = compared(repository, old, new, bounds, failed)?;
            let mut found = TreePatch { total: diff.deltas().len(), files: Vec::new() };
            let mut room = bounds.text;
            for index in 0..found.total.min(bounds.files) {
                let file = file(&diff, index, bounds.file_text.min(room)).map_err(|error| failed(&error))?;
                room -= file.text.len();
                found.files.push(file);
            }
            Ok(found)
        })
    }
}

fn compared<'a>(
    repository: &'a Repository,
    old: &TreeId,
    new: &TreeId,
    bounds: Bounds,
    failed: impl Fn(&git2::Error) -> StoreError,
) -> Result<Diff<'a>, StoreError> {
    let tree =
        |id: &TreeId| repository.find_tree(oid(id)?).map_err(|_| StoreError::UnknownTree { tree: id.to_string() });
    let mut options = DiffOptions::new();
    options.max_size(i64::try_from(bounds.file_size).unwrap_or(i64::MAX)).include_typechange(true);
    let mut diff = repository
        .diff_tree_to_tree(Some(&tree(old)?), Some(&tree(new)?), Some(&mut options))
        .map_err(|error| failed(&error))?;
    if diff.deltas().len() <= RENAMES {
        diff.find_similar(Some(DiffFindOptions::new().renames(true))).map_err(|error| failed(&error))?;
    }
    Ok(diff)
}

fn file(diff: &Diff<'_>, index: usize, room: usize) -> Result<FilePatch, git2::Error> {
    // Before the delta is looked at: only with the content at hand it is known whether it is text.
    let mut patch = Patch::from_diff(diff, index)?;
    let delta = match &patch {
        Some(patch) => patch.delta(),
        None => diff.get_delta(index).ok_or_else(|| git2::Error::from_str("a file is gone from its own list"))?,
    };
    let path = |file: git2::DiffFile<'_>| file.path_bytes().map(|path| String::from_utf8_lossy(path).into_owned());
    let (before, after) = (path(delta.old_file()), path(delta.new_file()));
    let same_content = delta.old_file().id() == delta.new_file().id();
    let kind = match delta.status() {
        Delta::Added => PatchKind::Added,
        Delta::Deleted => PatchKind::Removed,
        Delta::Renamed | Delta::Copied => PatchKind::Renamed,
        Delta::Typechange => PatchKind::Mode,
        _ if same_content && delta.old_file().mode() != delta.new_file().mode() => PatchKind::Mode,
        _ => PatchKind::Modified,
    };
    let is_link = [delta.old_file().mode(), delta.new_file().mode()].contains(&FileMode::Commit);
    let binary = is_link || delta.flags().is_binary() || (patch.is_none() && !same_content);
    let (added, removed) = match &patch {
        Some(patch) if !binary => patch.line_stats().map(|(_, added, removed)| (added, removed))?,
        Some(_) | None => (0, 0),
    };
    let (text, cut) = match &mut patch {
        Some(patch) if !binary => text(patch, room)?,
        Some(_) | None => (String::new(), false),
    };
    let path = after.clone().or_else(|| before.clone()).unwrap_or_default();
    let old_path = before.filter(|before| kind == PatchKind::Renamed && Some(before) != after.as_ref());
    Ok(FilePatch { path, old_path, kind, binary, added, removed, text, cut })
}

/// The text of a patch, without the lines that have no room.
fn text(patch: &mut Patch<'_>, room: usize) -> Result<(String, bool), git2::Error> {
    let (mut text, mut cut) = (String::new(), false);
    let printed = patch.print(&mut |_, _, line| {
        let content = String::from_utf8_lossy(line.content());
        let mark = Some(line.origin()).filter(|origin| matches!(origin, ' ' | '+' | '-'));
        if text.len() + content.len() + 1 > room {
            cut = true;
            return false;
        }
        text.extend(mark);
        text.push_str(&content);
        true
    });
    match printed {
        // Our own `false` comes back as an error.
        Err(error) if !cut => Err(error),
        Ok(()) | Err(_) => Ok((text, cut)),
    }
}
