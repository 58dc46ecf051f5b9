//! Lays versions out on disk: the engine's asynchronous face of the store.

use std::path::PathBuf;
use std::sync::Arc;

use super::deployer::Step;
use super::failures;
use super::spec::{Surroundings, VersionSpec};
use crate::domain::manifest::{Bytes, Millis, Resources};
use crate::domain::{AppKey, Failure, InstanceId, VersionNumber};
use crate::ledger::apps::Material;
use crate::store::{Preparation, Store, StoreError};
use crate::wire::supervisor::{ChildKind, SecretVariables, StartRequest};

/// Memory a build may use is not limited; its processes are.
const BUILD_PROCESSES: Option<u32> = Some(4096);
/// A build that is ended gets this long after SIGTERM.
const BUILD_GRACE: Millis = Millis::seconds(5);

/// Where versions are laid out. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Workshop {
    store: Arc<Store>,
    data_dir: PathBuf,
}

/// A version on its way to the disk.
pub(super) enum Prepared {
    /// Ready to be started; the app's directory.
    Published(PathBuf),
    /// Laid out, its build has to run.
    ToBuild(ToBuild),
}

/// A version laid out, not yet built.
pub(super) struct ToBuild {
    preparation: Preparation,
    workdir: String,
    command: Vec<String>,
    timeout: Millis,
}

/// How to run a build.
pub(super) struct BuildRun {
    pub request: StartRequest,
    pub timeout: Millis,
}

impl Workshop {
    pub(super) fn new(store: Arc<Store>, data_dir: PathBuf) -> Self {
        Self { store, data_dir }
    }

    /// An app's directory within a release.
    pub(super) fn inside(&self, root: PathBuf, workdir: &str) -> PathBuf {
        inside(root, workdir)
    }

    pub(super) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    /// Begins a collection of releases; see [`Store::begin_collection`].
    pub(super) fn begin_collection(&self) -> crate::store::Collection {
        self.store.begin_collection()
    }

    /// Runs blocking work of the store.
    pub(super) async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The release of a content if it exists, else its files laid out: published at once when nothing is to be built.
    pub(super) async fn prepare(&self, key: &AppKey, material: &Material) -> Result<Prepared, Failure> {
        let (app, content, tree) = (key.clone(), material.content.clone(), material.tree.clone());
        let (workdir, build) = (material.workdir.clone(), material.manifest.build.clone());
        let prepared = self.blocking(move |store| {
            if let Some(release) = store.existing(&app, &content) {
                return Ok(Prepared::Published(inside(release.dir, &workdir)));
            }
            let Some(build) = build else {
                let release = store.materialise(&app, &content, &tree)?;
                return Ok(Prepared::Published(inside(release.dir, &workdir)));
            };
            let preparation = store.begin(&app, &content, &tree)?;
            Ok(Prepared::ToBuild(ToBuild { preparation, workdir, command: build.command, timeout: build.timeout }))
        });
        prepared.await.map_err(|error| failures::preparation(error.to_string()))
    }
}

impl ToBuild {
    /// How the build is run: in its own copy of the tree, with the environment of the version.
    pub(super) fn start(
        &self,
        key: &AppKey,
        version: VersionNumber,
        material: &Material,
        around: &Surroundings,
    ) -> BuildRun {
        let directory = inside(self.preparation.dir.clone(), &self.workdir);
        let spec = VersionSpec {
            key: key.clone(),
            version,
            manifest: material.manifest.clone(),
            commit: material.commit.clone(),
            directory: directory.clone(),
            image: None,
            services: std::collections::BTreeMap::new(),
        };
        // What is built is kept; a secret has no business in it.
        let request = once(&spec, around, Step { object: "build", directory, command: self.command.clone() });
        BuildRun { request, timeout: self.timeout }
    }

    /// Makes the built files the release of their content.
    pub(super) async fn publish(self) -> Result<PathBuf, Failure> {
        let (preparation, workdir) = (self.preparation, self.workdir);
        let note = self.command.join(" ");
        let published = tokio::task::spawn_blocking(move || preparation.publish(Some(note))).await;
        match published {
            Ok(Ok(release)) => Ok(inside(release.dir, &workdir)),
            Ok(Err(error)) => Err(failures::preparation(error.to_string())),
            Err(error) => Err(failures::preparation(format!("publishing the release was interrupted: {error}"))),
        }
    }
}

/// How a command is run once for a version, as its app's user and in the environment of its instances, but without secrets.
pub(super) fn once(spec: &VersionSpec, around: &Surroundings, step: Step) -> StartRequest {
    let Step { object, directory, command } = step;
    let instance = InstanceId::new(&spec.key.app, object, spec.version, fastrand::u64(..));
    StartRequest {
        labels: spec.labels(object, ChildKind::Build, None),
        command,
        directory,
        env: spec.environment(around, object, &instance),
        secrets: SecretVariables::default(),
        secret_files: SecretVariables::default(),
        secret_paths: std::collections::BTreeMap::new(),
        log: crate::runtime::log_path(&spec.key, spec.version, object, &instance),
        resources: Resources { memory: None::<Bytes>, cpu_millis: None, processes: BUILD_PROCESSES },
        grace: BUILD_GRACE,
        volumes: Vec::new(),
        container: None,
        instance,
    }
}

fn inside(root: PathBuf, workdir: &str) -> PathBuf {
    if workdir.is_empty() { root } else { root.join(workdir) }
}
