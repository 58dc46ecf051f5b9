//! The agent's settings: text in, `Config` or errors out.
//!
//! Read like a manifest: `config_keys` checks each key for itself, the checks here compare keys with each
//! other. Variables of the environment win over the text (`overrides`).
//! Invariant: every path of a `Config` is absolute.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::config_keys::{CONFIG, defaults};
use super::errors::{FileError, FileErrors};
use super::reader::Reader;
use super::record::{Record, Value};
use super::source::Source;
use super::values::parse_brake;
use super::yaml;
use super::{docker_keys, git, heartbeat, notifications, oidc_keys, overrides, secrets, tls_keys, traces};
use crate::domain::manifest::{Bytes, Millis};
use crate::domain::{Brake, EnvironmentName, SourceName};

pub use super::docker_keys::DockerConfig;
pub use super::git::{Credentials, GitReference, GitSource, HostCredentials, OnForcePush, PasswordFrom, Webhook};
pub use super::git_trust::{ForgeKind, SignedObject, StatusReports, Verification};
pub use super::heartbeat::HeartbeatConfig;
pub use super::notifications::{ChannelConfig, ChannelKind, EmailConfig, EmailTls};
pub use super::oidc_keys::OidcConfig;
pub use super::secrets::{SecretProvider, SecretsConfig};
pub use super::ssh::SshConfig;
pub use super::tls_keys::{AcmeConfig, TlsConfig};
pub use super::traces::TracesConfig;
pub use crate::tls::PairFiles;

/// The agent's settings, complete with defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Absolute path of the data directory.
    pub data_dir: PathBuf,
    /// The environment of apps whose source names none.
    pub environment: EnvironmentName,
    /// What this agent is called where it reports to others; the machine's name by default.
    pub agent_name: Option<String>,
    /// Whether only apps in containers are run.
    pub containers_only: bool,
    /// Where containers run.
    pub docker: DockerConfig,
    /// Below these directories apps may publish their trees.
    pub publish_roots: Vec<PathBuf>,
    /// What is watched.
    pub sources: Vec<SourceConfig>,
    /// Web traffic.
    pub proxy: ProxyConfig,
    /// The API.
    pub api: ApiConfig,
    /// How much at once.
    pub limits: Limits,
    /// How long things are kept.
    pub retention: Retention,
    /// Unprivileged users, for an agent started as root.
    pub users: Option<UsersConfig>,
    /// Channels that people hear by, by name.
    pub notifications: Vec<ChannelConfig>,
    /// Where secrets come from.
    pub secrets: SecretsConfig,
    /// Who hears that the agent is alive.
    pub heartbeat: Option<HeartbeatConfig>,
    /// Where traces go.
    pub traces: Option<TracesConfig>,
}

/// A watched source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Its name.
    pub name: SourceName,
    /// What it is.
    pub kind: SourceKind,
    /// The environment of its apps; `None` for the agent's own.
    pub environment: Option<EnvironmentName>,
    /// More apps than this that are gone at once wait for a person.
    pub brake: Brake,
}

impl SourceConfig {
    /// The environment of its apps, on an agent whose own is `home`.
    pub fn environment<'a>(&'a self, home: &'a EnvironmentName) -> &'a EnvironmentName {
        self.environment.as_ref().unwrap_or(home)
    }
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a handful for the life of the agent; a box would only be in the way")]
pub enum SourceKind {
    /// A git repository.
    Git(GitSource),
    /// A directory.
    Directory(DirectorySource),
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorySource {
    /// Absolute path.
    pub path: PathBuf,
    /// Changes closer together than this are one revision.
    pub debounce: Millis,
}

/// Web traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Addresses.
    pub listen: Vec<SocketAddr>,
    /// URLs of apps end in this.
    pub domain: String,
    /// Peers whose `X-Forwarded-*` are believed, as networks in CIDR form (`10.0.0.0/8`).
    pub trusted_proxies: Vec<String>,
    /// Connections at once.
    pub max_connections: u32,
    /// Whether an access log is written to `logs/access.log`.
    pub access_log: bool,
    /// A caller is kept waiting so long for its call's answer; then it is told where to ask for it.
    pub call_wait: Millis,
    /// HTTPS.
    pub tls: Option<TlsConfig>,
}

/// The API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Absolute path of the Unix socket.
    pub socket: PathBuf,
    /// TCP address. From other machines only push hooks are taken.
    pub listen: Option<SocketAddr>,
    /// What the TCP address shows: it speaks TLS then, and nothing else.
    pub tls: Option<PairFiles>,
    /// Where people reach it from elsewhere, for links; without a slash at its end.
    pub public_url: Option<String>,
    /// Who signs in with a provider of identities.
    pub oidc: Option<OidcConfig>,
    /// What it bears from others.
    pub bounds: ApiBounds,
}

/// How much the API takes from those who come over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiBounds {
    /// Connections at once.
    pub connections: u32,
    /// Of these from one address.
    pub per_address: u32,
    /// Requests of one token or address.
    pub per_second: u32,
}

/// How much at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Deployments that prepare, start or switch at once (waiting for health holds no slot).
    pub deployments: u32,
    /// Builds at once.
    pub builds: u32,
    /// Less than this free on the data's disk is told; `None` for what suits the disk.
    pub disk_free: Option<Bytes>,
    /// Spawned calls of one function that may wait.
    pub backlog: u32,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Versions per app whose tree is kept.
    pub versions: u32,
    /// A stopped app is removed after this.
    pub stopped_apps: Millis,
    /// Bodies and results of spawned calls are kept so long after their end.
    pub calls: Millis,
    /// Entries of the audit log are kept so long.
    pub audit: Millis,
    /// All log files together.
    pub logs: Bytes,
}

/// Unprivileged users by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersConfig {
    /// Controller and proxy.
    pub agent: String,
    /// Builds and app instances.
    pub apps: String,
}

/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last one is NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Reads the agent's configuration. Relative paths in it are taken from the directory of `file`; variables of
/// `env` named `LANDFALL_<KEY>` (nested keys joined by `__`) win over the text.
pub fn read_config(
    file: &Path,
    text: &str,
    env: &mut dyn Iterator<Item = (String, String)>,
) -> Result<Config, FileErrors> {
    let name = file.display().to_string();
    let record = read_record(&name, text, env)?;
    let whole = |message: &str| FileError::whole(name.clone(), message, None);
    let here = std::path::absolute(file).map_err(|error| {
        whole(&format!("the current directory cannot be found ({error}), so relative paths mean nothing"))
    })?;
    let base = here.parent().unwrap_or(Path::new("/"));
    let config = build(&record, base).ok_or_else(|| whole("Landfall's tables of keys and its reader disagree"))?;
    check_socket(&config).map_err(|message| whole(&message))?;
    Ok(config)
}

/// Reads and checks without building the configuration: what `check --explain` prints.
pub fn read_record(
    file: &str,
    text: &str,
    env: &mut dyn Iterator<Item = (String, String)>,
) -> Result<Record, FileErrors> {
    let source = Source { file, text };
    let (tree, errors) = yaml::parse(&source);
    let mut overridden = Vec::new();
    let mut reader = Reader::new(&source, &CONFIG, errors);
    let record = tree.and_then(|mut tree| {
        overridden = overrides::apply(&mut tree, CONFIG.table, env);
        let record = reader.document(&tree)?;
        check(&mut reader, &record);
        Some(record)
    });
    let mut errors = reader.into_errors();
    errors.extend(overridden);
    match (FileErrors::new(errors), record) {
        (Some(errors), _) => Err(errors),
        (None, Some(record)) => Ok(record),
        (None, None) => Err(FileError::whole(file, "Landfall's tables of keys and its reader disagree", None).into()),
    }
}

impl Config {
    /// An agent without sources that keeps everything in `data_dir`, all else by default.
    pub fn default_at(data_dir: &Path) -> Self {
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            data_dir: data_dir.to_owned(),
            environment: named(defaults::ENVIRONMENT),
            agent_name: None,
            containers_only: false,
            docker: DockerConfig::default(),
            publish_roots: Vec::new(),
            sources: Vec::new(),
            proxy: ProxyConfig {
                listen: defaults::PROXY_LISTEN.parse().into_iter().collect(),
                domain: defaults::DOMAIN.to_owned(),
                trusted_proxies: Vec::new(),
                max_connections: number(defaults::MAX_CONNECTIONS),
                access_log: true,
                call_wait: defaults::CALL_WAIT,
                tls: None,
            },
            api: ApiConfig {
                socket: data_dir.join(defaults::SOCKET),
                listen: None,
                tls: None,
                public_url: None,
                oidc: None,
                bounds: ApiBounds {
                    connections: number(defaults::API_CONNECTIONS),
                    per_address: number(defaults::API_CONNECTIONS_PER_ADDRESS),
                    per_second: number(defaults::API_REQUESTS),
                },
            },
            limits: Limits {
                deployments: number(defaults::DEPLOYMENTS),
                builds: number(defaults::BUILDS),
                disk_free: None,
                backlog: number(defaults::BACKLOG),
            },
            retention: Retention {
                versions: number(defaults::VERSIONS),
                stopped_apps: defaults::STOPPED_APPS,
                calls: defaults::CALLS,
                audit: defaults::AUDIT,
                logs: defaults::LOGS,
            },
            users: None,
            notifications: Vec::new(),
            secrets: SecretsConfig::default(),
            heartbeat: None,
            traces: None,
        }
    }
}

/// The default environment; that it is a name is held by a test.
#[allow(clippy::expect_used)]
fn named(name: &str) -> EnvironmentName {
    name.parse().expect("the default environment is a name")
}

/// What no key can know for itself.
fn check(reader: &mut Reader<'_>, config: &Record) {
    if let Some(entry) = config.record("proxy").and_then(|proxy| proxy.entry("listen"))
        && matches!(&entry.value, Value::List(items) if items.is_empty())
    {
        reader.error(&entry.place, "proxy.listen", "`proxy.listen` is empty, the proxy needs an address", None);
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, entry) in config.list("sources").iter().enumerate() {
        let Some(source) = entry.record() else { continue };
        let path = format!("sources[{index}]");
        if let Some(name) = source.text("name") {
            if names.contains(&name) {
                let place = source.entry("name").map_or(&source.place, |entry| &entry.place);
                reader.error(place, &path, format!("two sources are named `{name}`"), Some("choose another name"));
            }
            names.push(name);
        }
        let given = |key: &str| source.entry(key).is_some_and(|entry| entry.given);
        if given("git") == given("directory") {
            let message = format!("`{path}` must have either `git` or `directory`");
            reader.error(&source.place, &path, message, Some("write for example `directory: {path: ./apps}`"));
        }
        if let Some(record) = source.record("git") {
            git::check(reader, record, &format!("{path}.git"));
        }
    }
    if let Some(proxy) = config.record("proxy") {
        tls_keys::check(reader, proxy);
    }
    docker_keys::check(reader, config);
    notifications::check(reader, config);
    secrets::check(reader, config);
    oidc_keys::check(reader, config);
}

fn check_socket(config: &Config) -> Result<(), String> {
    let length = config.api.socket.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let socket = config.api.socket.display();
    Err(format!(
        "the path of the socket `{socket}` has {length} bytes, Linux allows {MAX_SOCKET_PATH}; set `api.socket`"
    ))
}

/// A configuration from a record without mistakes; `None` only if the table of keys lacks one that is asked for.
fn build(config: &Record, base: &Path) -> Option<Config> {
    let data_dir = resolve(base, config.text("data_dir")?);
    let (proxy, api) = (config.record("proxy")?, config.record("api")?);
    let (limits, retention) = (config.record("limits")?, config.record("retention")?);
    Some(Config {
        environment: config.text("environment")?.parse().ok()?,
        agent_name: config.text("agent_name").map(str::to_owned),
        containers_only: config.text("runtime") == Some("docker"),
        docker: docker_keys::build(config, &|path| resolve(base, path))?,
        publish_roots: config.texts("publish_roots").into_iter().map(PathBuf::from).collect(),
        sources: config.list("sources").iter().map(|entry| source(entry.record()?, base)).collect::<Option<_>>()?,
        proxy: ProxyConfig {
            listen: proxy.texts("listen").iter().map(|text| text.parse().ok()).collect::<Option<_>>()?,
            domain: proxy.text("domain")?.to_owned(),
            trusted_proxies: proxy.texts("trusted_proxies"),
            max_connections: proxy.number("max_connections")?,
            access_log: proxy.bool("access_log")?,
            call_wait: proxy.duration("call_wait")?,
            tls: tls_keys::build(proxy, &|path| resolve(base, path))?,
        },
        api: ApiConfig {
            socket: api.text("socket").map_or_else(|| data_dir.join(defaults::SOCKET), |path| resolve(base, path)),
            listen: match api.text("listen") {
                Some(text) => Some(text.parse().ok()?),
                None => None,
            },
            tls: match api.record("tls") {
                Some(tls) => Some(PairFiles {
                    certificate: resolve(base, tls.text("certificate_file")?),
                    key: resolve(base, tls.text("key_file")?),
                }),
                None => None,
            },
            public_url: api.text("public_url").map(str::to_owned),
            oidc: oidc_keys::build(api, &|path| resolve(base, path))?,
            bounds: ApiBounds {
                connections: api.number("max_connections")?,
                per_address: api.number("max_connections_per_address")?,
                per_second: api.number("requests_per_second")?,
            },
        },
        limits: Limits {
            deployments: limits.number("deployments")?,
            builds: limits.number("builds")?,
            disk_free: limits.size("disk_free"),
            backlog: limits.number("backlog")?,
        },
        retention: Retention {
            versions: retention.number("versions")?,
            stopped_apps: retention.duration("stopped_apps")?,
            calls: retention.duration("calls")?,
            audit: retention.duration("audit")?,
            logs: retention.size("logs")?,
        },
        notifications: notifications::channels(config, &|path| resolve(base, path))?,
        secrets: secrets::secrets(config, &|path| resolve(base, path))?,
        heartbeat: heartbeat::heartbeat(config),
        traces: traces::traces(config, &|path| resolve(base, path)),
        users: match config.record("users") {
            Some(users) => {
                Some(UsersConfig { agent: users.text("agent")?.to_owned(), apps: users.text("apps")?.to_owned() })
            }
            None => None,
        },
        data_dir,
    })
}

fn source(source: &Record, base: &Path) -> Option<SourceConfig> {
    let kind = match (source.record("git"), source.record("directory")) {
        (Some(source), None) => SourceKind::Git(git::build(source, &|path| resolve(base, path))?),
        (None, Some(directory)) => SourceKind::Directory(DirectorySource {
            path: resolve(base, directory.text("path")?),
            debounce: directory.duration("debounce")?,
        }),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let brake = parse_brake(source.record("prune")?.text("brake")?).ok()?;
    let environment = match source.text("environment") {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(SourceConfig { name: source.text("name")?.parse().ok()?, kind, environment, brake })
}

/// A path seen from a directory, without `.` and `..`, as Compose and most tools read one.
fn resolve(base: &Path, path: &str) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    resolved
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
