//! An app that is handed over as a directory, without git.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::looking::manifest_reader;
use super::{CommandError, Result};
use crate::ledger::apps::Material;
use crate::source::{LookLimits, read_all};
use crate::store::Store;

/// Reading an uploaded directory must be over after this.
const DEADLINE: Duration = Duration::from_secs(120);

/// Takes a snapshot of an uploaded directory; it must hold exactly one app, in its root.
pub(super) fn read_upload(store: &Store, directory: &Path) -> Result<Material> {
    let invalid = |what: String, mend: &str| CommandError::Invalid { what, mend: mend.to_owned() };
    let tree =
        store.snapshot(directory).map_err(|error| invalid(error.to_string(), "mend the directory and deploy again"))?;
    let limits = LookLimits { deadline: Instant::now() + DEADLINE, cancel: Arc::new(AtomicBool::new(false)) };
    let read = read_all(store.objects(), &tree, &manifest_reader(), &limits)
        .map_err(|error| invalid(error, "mend the directory and deploy again"))?;
    let app = read.into_iter().find(|app| app.path.is_empty()).ok_or_else(|| {
        invalid("the directory has no landfall.yaml".into(), "name the directory of one app: `landfall deploy DIR`")
    })?;
    let content = app.result.map_err(|problem| invalid(problem.message, "mend the manifest and deploy again"))?;
    let trees = store
        .import(store.objects(), &[content.tree.parts.as_slice()])
        .map_err(|error| invalid(error.to_string(), "mend the directory and deploy again"))?;
    let tree =
        trees.into_iter().next().ok_or_else(|| CommandError::Internal { what: "the store answered nothing".into() })?;
    Ok(Material {
        content: content.content,
        tree,
        workdir: content.tree.workdir,
        manifest: content.manifest,
        commit: None,
        author: None,
        subject: None,
    })
}
