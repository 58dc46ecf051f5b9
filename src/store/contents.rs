//! Questions about trees that are in the store.

use git2::DiffOptions;

use super::error::StoreError;
use super::{Store, oid, shared};
use crate::domain::TreeId;
use std::path::Path;

/// Paths named in a [`Difference`] at most.
const NAMED: usize = 20;

/// How two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The first changed paths, at most 20.
    pub paths: Vec<String>,
    /// How many there are.
    pub total: usize,
}

impl Store {
    /// The files that differ between two trees.
    pub fn diff(&self, old: &TreeId, new: &TreeId) -> Result<Difference, StoreError> {
        let _shared = shared(&self.access);
        self.with(|repository| {
            let tree = |id: &TreeId| {
                repository.find_tree(oid(id)?).map_err(|_| StoreError::UnknownTree { tree: id.to_string() })
            };
            let mut options = DiffOptions::new();
            options.skip_binary_check(true);
            let diff = repository
                .diff_tree_to_tree(Some(&tree(old)?), Some(&tree(new)?), Some(&mut options))
                .map_err(|error| self.git("comparing two trees", &error))?;
            let path = |delta: git2::DiffDelta<'_>| {
                let file = delta.new_file().path_bytes().or(delta.old_file().path_bytes());
                file.map(|path| String::from_utf8_lossy(path).into_owned())
            };
            let paths = diff.deltas().filter_map(path).take(NAMED).collect();
            Ok(Difference { paths, total: diff.deltas().len() })
        })
    }

    /// The content of one file; `None` if there is no such file in the tree.
    pub fn read_file(&self, tree: &TreeId, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _shared = shared(&self.access);
        self.with(|repository| {
            let root =
                repository.find_tree(oid(tree)?).map_err(|_| StoreError::UnknownTree { tree: tree.to_string() })?;
            let entry = match root.get_path(Path::new(path)) {
                Ok(entry) if entry.kind() == Some(git2::ObjectType::Blob) => entry,
                Ok(_) => return Ok(None),
                Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(None),
                Err(error) => return Err(self.git("reading a file", &error)),
            };
            let blob = repository.find_blob(entry.id()).map_err(|error| self.git("reading a file", &error))?;
            Ok(Some(blob.content().to_vec()))
        })
    }
}
