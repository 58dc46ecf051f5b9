//! Proposing a revert: a commit on a new branch of a repository on this machine, for people to review and merge.
//!
//! The one thing Landfall ever writes to a source, and only when asked to. Invariant: the branch that is followed is
//! not touched, and no branch that exists is moved.

use std::path::Path;

use git2::{FileMode, ObjectType, Odb, Oid, Repository, Signature};

use super::local;
use crate::domain::TreeId;
use crate::files::config::GitReference;

/// So many names are tried before giving up.
const NAMES: u32 = 100;

/// What is proposed.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Branch name; a number is added when there is one of that name.
    pub branch: String,
    /// The app's directory within the repository; empty for its root.
    pub path: String,
    /// What the directory should hold.
    pub tree: TreeId,
    /// Commit message.
    pub message: String,
}

/// Writes the proposal on top of what `reference` names now, with objects from `objects`; answers the new branch.
pub fn propose(
    repository: &Path,
    reference: &GitReference,
    objects: &Path,
    proposal: &Proposal,
) -> Result<String, String> {
    let words = |error: git2::Error| error.message().to_owned();
    let repository = Repository::open(repository).map_err(words)?;
    let head = local::resolve(&repository, reference).map_err(|trouble| trouble.what)?;
    let head = repository.find_commit(head).map_err(words)?;
    let from = Repository::open_bare(objects).map_err(words)?;
    let tree = Oid::from_str(proposal.tree.as_str()).map_err(words)?;
    copy(&from.odb().map_err(words)?, &from, &repository, tree).map_err(words)?;
    let whole = if proposal.path.is_empty() {
        tree
    } else {
        let mut update = git2::build::TreeUpdateBuilder::new();
        update.upsert(proposal.path.as_str(), tree, FileMode::Tree);
        update.create_updated(&repository, &head.tree().map_err(words)?).map_err(words)?
    };
    if whole == head.tree_id() {
        return Err("the branch holds this content already".to_owned());
    }
    let whole = repository.find_tree(whole).map_err(words)?;
    let who = Signature::now("Landfall", "landfall@localhost").map_err(words)?;
    let commit = repository.commit(None, &who, &who, &proposal.message, &whole, &[&head]).map_err(words)?;
    let commit = repository.find_commit(commit).map_err(words)?;
    for number in 1..=NAMES {
        let name = if number == 1 { proposal.branch.clone() } else { format!("{}-{number}", proposal.branch) };
        match repository.branch(&name, &commit, false) {
            Ok(_) => return Ok(name),
            Err(error) if error.code() == git2::ErrorCode::Exists => {}
            Err(error) => return Err(words(error)),
        }
    }
    Err(format!("there are {NAMES} branches like `{}` already; delete those that are done", proposal.branch))
}

/// Copies what the repository does not have yet, children first, so that it never holds a tree without its content.
fn copy(odb: &Odb<'_>, from: &Repository, to: &Repository, tree: Oid) -> Result<(), git2::Error> {
    let target = to.odb()?;
    if target.exists(tree) {
        return Ok(());
    }
    for entry in &from.find_tree(tree)? {
        match entry.kind() {
            Some(ObjectType::Tree) => copy(odb, from, to, entry.id())?,
            Some(ObjectType::Blob) if !target.exists(entry.id()) => {
                target.write(ObjectType::Blob, odb.read(entry.id())?.data())?;
            }
            _ => {}
        }
    }
    target.write(ObjectType::Tree, odb.read(tree)?.data())?;
    Ok(())
}
