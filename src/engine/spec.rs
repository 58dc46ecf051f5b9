//! What the engine needs to run one version of an app.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::certificates::Secure;
use crate::domain::compose::Compose;
use crate::domain::manifest::{
    Bytes, Code, Function, Handover, Health, Instances, Manifest, Millis, ObjectKind, Resources, Strategy, Web,
    defaults,
};
use crate::domain::{AppKey, CommitId, EnvironmentName, InstanceId, ObjectName, PinnedImage, VersionNumber};
use crate::proxy::token::{Identity, Key};
use crate::runtime::docker::compose::IMAGES;
use crate::runtime::workers;
use crate::wire::supervisor::{ChildKind, Labels, SecretVariables, StartRequest};

/// Time between two probes of a ready function instance. Its end is noticed by itself; this is for one that hangs
/// without accepting anything.
const FUNCTION_PROBES: Millis = Millis::seconds(5);
/// After the last call's deadline an outdated instance has this long until what is left is cut off.
const AFTER_DEADLINE: Millis = Millis::seconds(5);

/// Volumes lie below this in the data directory.
const VOLUMES: &str = "volumes";
/// The directory beside an app's volumes for whoever looks after its Compose project. No volume of a manifest begins with
/// a dot.
const COMPOSE: &str = ".compose";

/// Search path of programs when the agent itself has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One version of an app, laid out on disk and ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSpec {
    /// The app.
    pub key: AppKey,
    /// The version.
    pub version: VersionNumber,
    /// What it is.
    pub manifest: Manifest,
    /// The commit it came with.
    pub commit: Option<CommitId>,
    /// Where its instances run: the app's directory within the release.
    pub directory: PathBuf,
    /// The image its containers are made from.
    pub image: Option<PinnedImage>,
    /// The images that the services of its Compose project run.
    pub services: BTreeMap<String, PinnedImage>,
}

/// Where instances find what they share with the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Absolute path of the agent's data directory.
    pub data_dir: PathBuf,
    /// URLs of apps end in this.
    pub domain: String,
    /// The agent's own environment, whose apps have nothing between their name and the domain.
    pub environment: EnvironmentName,
    /// Port of the proxy, for URLs.
    pub proxy_port: Option<u16>,
    /// What is reached over HTTPS.
    pub secure: Secure,
    /// The agent's own `PATH`, so that programs are found where the operator finds them.
    pub path: String,
    /// This program, which runs functions that are a process per call.
    pub program: PathBuf,
    /// The directory with the workers that run handlers.
    pub workers: PathBuf,
    /// Makes the tokens instances call with.
    pub tokens: Key,
    /// Below these directories apps may publish their trees.
    pub publish_roots: Vec<PathBuf>,
}

/// What decides how many instances an object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elastic {
    /// From and to how many, and how soon fewer.
    pub bounds: Instances,
    /// More than the load needs, within bounds.
    pub spare: u32,
    /// Requests or calls at once per instance.
    pub concurrency: u32,
}

impl Elastic {
    /// How many run when nothing is to do.
    pub fn at_rest(self) -> u32 {
        self.spare.clamp(self.bounds.min, self.bounds.max)
    }

    /// With another least and most.
    pub fn scaled(self, (min, max): (u32, u32)) -> Self {
        Self { bounds: Instances { min, max, ..self.bounds }, ..self }
    }

    /// Whether the number ever changes.
    pub fn is_fixed(self) -> bool {
        self.bounds.min == self.bounds.max
    }
}

impl Surroundings {
    /// The search path of this process, or a common one.
    pub fn path_of_this_process() -> String {
        std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.to_owned())
    }

    /// What hosts of apps in an environment end in: the domain, below a label of its own for another than the agent's.
    pub fn domain_of(&self, environment: &EnvironmentName) -> String {
        if *environment == self.environment { self.domain.clone() } else { format!("{environment}.{}", self.domain) }
    }

    /// The URL a web object is reachable under, unchanged over versions.
    pub fn url(&self, environment: &EnvironmentName, manifest: &Manifest, object: &ObjectName) -> String {
        let host = manifest.host(object, &self.domain_of(environment));
        let path = manifest.web.get(object).map_or("/", |web| web.path.as_str());
        let path = if path == "/" { "" } else { path };
        match self.secure.port(&host) {
            Some(443) => return format!("https://{host}{path}"),
            Some(port) => return format!("https://{host}:{port}{path}"),
            None => {}
        }
        match self.proxy_port {
            Some(80) | None => format!("http://{host}{path}"),
            Some(port) => format!("http://{host}:{port}{path}"),
        }
    }

    /// What runs a function: a worker of ours around a handler, the author's server, or this program around a command.
    fn command(&self, code: &Code) -> Vec<String> {
        let worker = |interpreter: &str, file: &str, handler: String| {
            vec![interpreter.to_owned(), self.workers.join(file).display().to_string(), handler]
        };
        match code {
            Code::Python(handler) => worker("python3", workers::PYTHON, handler.to_string()),
            Code::JavaScript(handler) => worker("node", workers::JAVASCRIPT, handler.to_string()),
            Code::Server(command) => command.clone(),
            Code::Exec(command) => {
                let own = [self.program.display().to_string(), "internal-exec".to_owned(), "--".to_owned()];
                own.into_iter().chain(command.iter().cloned()).collect()
            }
        }
    }

    /// What finds the images of a Compose project in an app's directory.
    pub fn compose_images_command(&self, compose: &Compose, directory: &Path) -> Vec<String> {
        let mut command = self.compose_command(compose);
        command.push(format!("--images-of={}", directory.display()));
        command
    }

    /// What looks after a Compose project.
    fn compose_command(&self, compose: &Compose) -> Vec<String> {
        let mut command = vec![self.program.display().to_string(), "internal-compose".to_owned()];
        command.push(format!("--timeout-ms={}", compose.timeout.0));
        command.extend(compose.files.iter().map(|file| format!("--file={file}")));
        command.extend(compose.profiles.iter().map(|profile| format!("--profile={profile}")));
        command
    }

    /// Where those that look after an app's Compose project agree on whose turn it is; there once it has had one.
    pub fn compose_directory(&self, key: &AppKey) -> PathBuf {
        self.volume(key, COMPOSE)
    }

    /// Where what finds the images of an app's Compose project writes which they are.
    pub fn compose_images(&self, key: &AppKey) -> PathBuf {
        self.volume(key, ".images")
    }

    /// Where a volume of an app lies.
    pub fn volume(&self, key: &AppKey, name: &str) -> PathBuf {
        self.data_dir.join(VOLUMES).join(key.environment.as_str()).join(key.app.as_str()).join(name)
    }
}

/// The apps of an agent that have had a Compose project, each with [`Surroundings::compose_directory`]. Blocks.
pub(super) fn compose_directories(data_dir: &Path) -> Vec<(AppKey, PathBuf)> {
    let within = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let apps = within(&data_dir.join(VOLUMES)).into_iter().flat_map(|environment| within(&environment));
    let found = apps.filter_map(|app| {
        let environment = name(app.parent()?)?.parse().ok()?;
        let key = AppKey { environment, app: name(&app)?.parse().ok()? };
        Some((key, app.join(COMPOSE))).filter(|(_, directory)| directory.is_dir())
    });
    found.collect()
}

type Parts = (Vec<String>, BTreeMap<String, String>, Resources, ChildKind);

impl VersionSpec {
    /// How many instances of an object a deployment starts: even an object that may scale to zero proves once
    /// that it can start.
    pub fn initial_instances(&self, object: &ObjectName) -> u32 {
        match (self.elastic(object), self.manifest.workers.get(object)) {
            (Some(elastic), _) => elastic.at_rest().max(1),
            (None, Some(worker)) => worker.instances,
            (None, None) => 0,
        }
    }

    /// Objects that cannot run beside those of the version before and so start only after it has made room.
    pub fn late_objects(&self, before: &Manifest) -> BTreeSet<ObjectName> {
        match self.manifest.strategy {
            Strategy::Recreate => self.manifest.objects().map(|(name, _)| name.clone()).collect(),
            Strategy::Rolling => self
                .manifest
                .workers
                .iter()
                .filter(|(name, worker)| worker.handover == Handover::StopFirst && before.workers.contains_key(*name))
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }

    /// Objects of the version before that have to make room before the late ones of this version start.
    pub fn displaces(&self, before: &Manifest) -> BTreeSet<ObjectName> {
        match self.manifest.strategy {
            Strategy::Recreate => before.objects().map(|(name, _)| name.clone()).collect(),
            Strategy::Rolling => self.late_objects(before),
        }
    }

    /// The web object of that name.
    pub fn web(&self, object: &ObjectName) -> Option<&Web> {
        self.manifest.web.get(object)
    }

    /// The function of that name.
    pub fn function(&self, object: &ObjectName) -> Option<&Function> {
        self.manifest.functions.get(object)
    }

    /// What sort of object it is.
    pub fn kind(&self, object: &ObjectName) -> ObjectKind {
        match (self.web(object), self.function(object)) {
            (Some(_), _) => ObjectKind::Web,
            (None, Some(_)) => ObjectKind::Function,
            (None, None) => ObjectKind::Worker,
        }
    }

    /// When an instance of an object that listens counts as ready and as failing.
    pub fn health(&self, object: &ObjectName) -> Option<Health> {
        let of_web = self.web(object).map(|web| web.health.clone());
        let of_project = || {
            // The keeper itself gives up before; this is for one that hangs.
            let compose = self.manifest.compose.as_ref().filter(|_| self.manifest.workers.contains_key(object))?;
            let deadline = Millis(compose.timeout.0 + AFTER_DEADLINE.0);
            Some(Self::at_a_port(deadline))
        };
        of_web
            .or_else(of_project)
            .or_else(|| self.function(object).map(|function| Self::at_a_port(function.startup_timeout)))
    }

    /// Ready as soon as its port accepts a connection.
    fn at_a_port(deadline: Millis) -> Health {
        Health {
            path: None,
            deadline,
            interval: FUNCTION_PROBES,
            timeout: defaults::HEALTH_TIMEOUT,
            rise: defaults::HEALTH_RISE,
            fall: defaults::HEALTH_FALL,
        }
    }

    /// What decides the number of instances of an object that listens.
    pub fn elastic(&self, object: &ObjectName) -> Option<Elastic> {
        let of_web = self.web(object).map(|web| (web.instances, 0, web.concurrency));
        let of_function = || self.function(object).map(|f| (f.instances, f.spare, f.concurrency));
        of_web.or_else(of_function).map(|(bounds, spare, concurrency)| Elastic { bounds, spare, concurrency })
    }

    /// The command of an object as its author wrote it, for messages.
    pub fn written_command(&self, object: &ObjectName) -> Option<Vec<String>> {
        let of_function = || {
            self.function(object).map(|function| match &function.code {
                Code::Python(handler) | Code::JavaScript(handler) => vec![handler.to_string()],
                Code::Server(command) | Code::Exec(command) => command.clone(),
            })
        };
        self.web(object).map(|web| web.command.clone()).or_else(of_function)
    }

    /// Time between SIGTERM and SIGKILL for instances of an object.
    pub fn grace(&self, object: &ObjectName) -> Millis {
        let of_web = self.web(object).map(|web| web.grace);
        let of_function = self.function(object).map(|function| function.grace);
        let of_worker = self.manifest.workers.get(object).map(|worker| worker.grace);
        of_web.or(of_function).or(of_worker).unwrap_or(defaults::GRACE)
    }

    /// How long requests and calls may go on once an instance is outdated. A call is never ended before its own
    /// deadline.
    pub fn drain(&self, object: &ObjectName) -> Millis {
        let of_function = || self.function(object).map(|function| Millis(function.timeout.0 + AFTER_DEADLINE.0));
        self.web(object).map(|web| web.drain).or_else(of_function).unwrap_or(Millis(0))
    }

    /// Command, own variables, limits and sort of an instance.
    fn parts(&self, around: &Surroundings, object: &ObjectName) -> Parts {
        if let Some(web) = self.web(object) {
            return (web.command.clone(), web.env.clone(), web.resources.clone(), ChildKind::Web);
        }
        if let Some(function) = self.function(object) {
            let mut env = function.env.clone();
            env.insert("LANDFALL_CONCURRENCY".to_owned(), function.concurrency.to_string());
            if let Some(memory) = function.resources.memory {
                env.insert("LANDFALL_MEMORY".to_owned(), memory.to_string());
            }
            let command = match self.is_container() {
                true => around.command_in_container(&function.code),
                false => around.command(&function.code),
            };
            return (command, env, function.resources.clone(), ChildKind::Function);
        }
        if let Some(compose) = &self.manifest.compose {
            return (around.compose_command(compose), self.service_images(), Resources::default(), ChildKind::Worker);
        }
        match self.manifest.workers.get(object) {
            Some(worker) => (worker.command.clone(), worker.env.clone(), worker.resources.clone(), ChildKind::Worker),
            None => (Vec::new(), BTreeMap::new(), Resources::default(), ChildKind::Worker),
        }
    }

    /// How much memory an instance of an object may have.
    pub fn memory_limit(&self, object: &ObjectName) -> Option<Bytes> {
        let of_worker = || self.manifest.workers.get(object).map(|worker| &worker.resources);
        let of_function = || self.function(object).map(|function| &function.resources);
        let resources = self.web(object).map(|web| &web.resources).or_else(of_function).or_else(of_worker)?;
        resources.memory
    }

    /// How to start an instance of an object.
    pub fn start_request(
        &self,
        around: &Surroundings,
        object: &ObjectName,
        instance: &InstanceId,
        port: Option<u16>,
    ) -> StartRequest {
        let (command, own_env, resources, kind) = self.parts(around, object);
        let in_container = self.is_container();
        let mut env = match in_container {
            true => self.container_environment(object.as_str(), instance),
            false => self.environment(around, object.as_str(), instance),
        };
        env.extend(own_env);
        if let Some(port) = around.proxy_port {
            let identity = Identity { app: self.key.clone(), version: self.version };
            let here = || format!("http://127.0.0.1:{port}");
            let url = if in_container { Surroundings::url_for_containers(port) } else { here() };
            env.insert("LANDFALL_URL".into(), url);
            env.insert("LANDFALL_TOKEN".into(), around.tokens.token(&identity));
        }
        let container = self.container(around, object, port);
        if let Some(port) = container.as_ref().map_or(port, |container| container.port) {
            env.insert("PORT".into(), port.to_string());
            env.insert("HOST".into(), if in_container { "0.0.0.0".into() } else { "127.0.0.1".into() });
        }
        StartRequest {
            instance: instance.clone(),
            labels: self.labels(object.as_str(), kind, port),
            command,
            directory: self.directory.clone(),
            env,
            secrets: SecretVariables::default(),
            secret_files: SecretVariables::default(),
            secret_paths: BTreeMap::new(),
            log: crate::runtime::log_path(&self.key, self.version, object.as_str(), instance),
            resources,
            grace: self.grace(object),
            volumes: if in_container { Vec::new() } else { self.volumes(around) },
            container,
        }
    }

    /// Tells what looks after its Compose project which images were recorded.
    fn service_images(&self) -> BTreeMap<String, String> {
        if self.services.is_empty() {
            return BTreeMap::new();
        }
        let images: BTreeMap<&str, &str> =
            self.services.iter().map(|(service, image)| (service.as_str(), image.tag.as_str())).collect();
        [(IMAGES.to_owned(), serde_json::json!(images).to_string())].into()
    }

    /// Where its volumes lie.
    pub fn volumes(&self, around: &Surroundings) -> Vec<PathBuf> {
        let own = self.manifest.compose.as_ref().map(|_| around.compose_directory(&self.key));
        self.manifest.volumes.keys().map(|name| around.volume(&self.key, name)).chain(own).collect()
    }

    /// What a child is labelled with.
    pub fn labels(&self, object: &str, kind: ChildKind, port: Option<u16>) -> Labels {
        Labels { app: self.key.clone(), version: self.version, object: object.to_owned(), kind, port }
    }

    /// The environment every child of this version sees: nothing of the agent's own but its search path.
    pub fn environment(&self, around: &Surroundings, object: &str, instance: &InstanceId) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        env.insert("PATH".to_owned(), around.path.clone());
        env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        // A private place that goes with the instance; programs that insist on a home find one.
        let private = around.data_dir.join("tmp").join(instance.as_str()).display().to_string();
        env.insert("HOME".to_owned(), private.clone());
        env.insert("TMPDIR".to_owned(), private);
        env.extend(self.manifest.env.clone());
        for name in self.manifest.volumes.keys() {
            env.insert(volume_variable(name), around.volume(&self.key, name).display().to_string());
        }
        env.extend(self.identity(object, instance));
        env
    }

    /// What an instance is told of itself.
    pub(super) fn identity(&self, object: &str, instance: &InstanceId) -> [(String, String); 6] {
        [
            ("LANDFALL_APP", self.key.app.to_string()),
            ("LANDFALL_ENVIRONMENT", self.key.environment.to_string()),
            ("LANDFALL_VERSION", self.version.get().to_string()),
            ("LANDFALL_COMMIT", self.commit.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("LANDFALL_OBJECT", object.to_owned()),
            ("LANDFALL_INSTANCE", instance.to_string()),
        ]
        .map(|(variable, value)| (variable.to_owned(), value))
    }
}

/// The variable in which an instance finds a volume.
pub(super) fn volume_variable(name: &str) -> String {
    format!("LANDFALL_VOLUME_{}", name.to_uppercase().replace('-', "_"))
}
