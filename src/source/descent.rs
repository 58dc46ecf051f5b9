//! Whether a commit continues from the one read last, or leaves it behind.
//!
//! A shallow cache holds only the end of the history, so there the honest answer may be that it cannot be told; the
//! caller then fetches more of it (`RemoteRepository::deepen`).

use std::collections::{BTreeSet, VecDeque};

use git2::{ObjectType, Odb, Oid, Repository};

use super::error::Trouble;

/// Commits looked at before the answer is that it cannot be told. More than a branch moves between two looks.
const MAX_COMMITS: usize = 100_000;

/// What the history says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descent {
    /// The new commit is the old one or comes after it.
    Continues,
    /// The whole history is here, and the old commit is not in it.
    Diverges,
    /// The history here ends before it could be told.
    Unknown,
}

/// Looks for `old` in the history of `new`.
pub(crate) fn descent(repository: &Repository, new: Oid, old: Oid) -> Result<Descent, Trouble> {
    let odb = repository.odb()?;
    let (mut seen, mut queue) = (BTreeSet::from([new]), VecDeque::from([new]));
    let mut complete = true;
    while let Some(commit) = queue.pop_front() {
        if commit == old {
            return Ok(Descent::Continues);
        }
        if seen.len() > MAX_COMMITS {
            return Ok(Descent::Unknown);
        }
        if !odb.exists(commit) {
            complete = false;
            continue;
        }
        let parents = parents(&odb, commit)?;
        queue.extend(parents.into_iter().filter(|parent| seen.insert(*parent)));
    }
    Ok(if complete { Descent::Diverges } else { Descent::Unknown })
}

/// The parents as they are written in the commit: a shallow repository hides them otherwise.
fn parents(odb: &Odb<'_>, commit: Oid) -> Result<Vec<Oid>, Trouble> {
    let object = odb.read(commit)?;
    if object.kind() != ObjectType::Commit {
        return Err(Trouble::corrupt(format!("object {commit} is not a commit")));
    }
    let lines = object.data().split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let written = lines.filter_map(|line| line.strip_prefix(b"parent "));
    written.map(|id| Ok(Oid::from_str(&String::from_utf8_lossy(id))?)).collect()
}
